# The two commands of the README do all their set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that run the tests; each needs about 2 GB.
WORKERS ?= 2
READY := $(VENV)/.ready
# Not --quiet, under which mkdocs counts no warning and so passes with broken links.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.DEFAULT_GOAL := help
.PHONY: help setup browser demo test lint types docs docs-check check clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# --group needs pip 25.1, newer than the one a Python 3.11 brings.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@echo "Installing featx and its dependencies into $(VENV) (once; torch takes a few minutes)"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

setup: $(READY) ## make .venv with everything in it

browser: ## install Chromium, which opens the pages in the tests, with apt-get as root or by sudo
	@command -v chromium >/dev/null || { \
	  sudo=; test "$$(id -u)" = 0 || sudo="sudo --non-interactive"; \
	  $$sudo apt-get update -qq && $$sudo apt-get install --yes --quiet --no-install-recommends chromium fonts-liberation; }

demo: $(READY) ## the main job on the embedded digits, offline
	@FEATX="$(abspath $(BIN))/featx" sh pipelines/demo.sh

test: $(READY) ## run the tests; those of pages in a browser are skipped where there is none (make browser)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(READY) ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

docs: $(READY) ## write the pages and the picture made from the code, and build the site into site/
	$(BIN)/python docs/make_cli_reference.py
	$(BIN)/python docs/make_python_reference.py
	$(BIN)/python docs/make_picture.py
	$(BIN)/python docs/make_notebook.py
	$(MKDOCS)

docs-check: $(READY) ## fail where a page, the picture or a link is out of date
	$(BIN)/python docs/make_cli_reference.py --check
	$(BIN)/python docs/make_python_reference.py --check
	$(BIN)/python docs/make_picture.py --check
	$(MKDOCS)

check: lint types docs-check test ## everything CI runs, except the demo

clean: ## remove what was built; features and models stay
	rm -rf $(VENV) site .hypothesis .pytest_cache .mypy_cache .ruff_cache
