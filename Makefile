# The two commands of the README do all their set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types docs check clean

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

demo: $(READY) ## the main job on the embedded digits, offline
	@FEATX="$(abspath $(BIN))/featx" sh pipelines/demo.sh

test: $(READY) ## run the tests
	$(BIN)/python -m pytest

lint: $(READY) ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

docs: $(READY) ## write docs/cli-reference.md from the commands
	$(BIN)/python docs/make_cli_reference.py

check: lint types test ## everything CI runs

clean: ## remove what was built; features and models stay
	rm -rf $(VENV) .hypothesis .pytest_cache .mypy_cache .ruff_cache
