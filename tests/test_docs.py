"""The docs say what is there, and what is there is in the docs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import featx
from featx.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "cache" / "README.md"])


@pytest.mark.parametrize("script", ["make_cli_reference.py", "make_python_reference.py"])
def test_a_page_made_from_the_code_is_up_to_date(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_is_in_the_readme_or_the_changelog_and_in_the_json_page(command: str) -> None:
    assert f"| `{command}` |" in (ROOT / "docs" / "json.md").read_text()
    assert (
        f"featx {command}" in (ROOT / "README.md").read_text() or f"`{command}`" in (ROOT / "CHANGELOG.md").read_text()
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_a_page_names_exists(page: Path) -> None:
    commands = [c for top in main.commands.values() for c in (top, *getattr(top, "commands", {}).values())]
    known = {o for c in commands for p in c.params for o in [*p.opts, *p.secondary_opts]}
    known |= {"--help", "--version", "--check"}
    for block in re.findall(r"`(featx [^`]*)`|^    (featx .*)$|^\$ (featx .*)$", page.read_text(), flags=re.MULTILINE):
        line = next(text for text in block if text).split("#")[0]
        assert line.split()[1].rstrip("`") in main.commands or line.split()[1].startswith("-"), line
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line):
            assert option in known, f"{page.name}: {line}"


def test_the_readmes_python_runs(photos: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    real = featx.load_backbone
    monkeypatch.setattr(featx, "load_backbone", lambda *_, **__: real("lenet5", layers=["features.5"]))
    Path("new.jpg").write_bytes((photos / "dark" / "00.png").read_bytes())
    block = block.replace("finetune=True", "finetune=False")
    exec(compile(block, "README.md", "exec"), {})
    assert Path("models/photos.safetensors").is_file()


@pytest.mark.parametrize("command", ["extract", "fit-head", "promote", "evaluate", "predict", "verify", "cache"])
def test_the_json_page_lists_every_key(command: str, photos: Path, in_tmp: Path) -> None:
    """Printed keys and documented keys are the same."""

    def run(*arguments: str) -> dict[str, object]:
        result = CliRunner().invoke(main, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        facts: dict[str, object] = json.loads(result.stdout)
        return facts

    printed = {"extract": run("extract", str(photos), "-b", "lenet5")}
    if command in ("fit-head", "promote", "evaluate", "predict"):
        printed["fit-head"] = run("fit-head")
    if command == "promote":
        printed["promote"] = run("promote")
    head = str(printed.get("fit-head", {}).get("head"))
    if command == "evaluate":
        printed["evaluate"] = run("evaluate", head, str(photos))
    if command == "predict":
        image = str(photos / "dark" / "00.png")
        printed["predict"] = {**run("predict", head, image), **run("predict", head, image, "-o", "out.csv")}
    if command == "verify":
        printed["verify"] = run("verify", "--recompute", "2", str(printed["extract"]["file"]))
    if command == "cache":
        printed["cache"] = {**run("cache"), **run("cache", "rm", "--yes"), **run("cache", "merge")}
    row = next(
        line for line in (ROOT / "docs" / "json.md").read_text().splitlines() if line.startswith(f"| `{command}`")
    )
    documented = set(re.findall(r"`(\w+)`", re.sub(r"[\[{][^\]}]*[\]}]", "", row.split("|")[2])))
    assert documented == set(printed[command])


def test_no_page_or_room_names_a_folder_of_somebodys_machine() -> None:
    files = [
        *PAGES,
        *(ROOT / "featx").glob("*.py"),
        *(ROOT / "pipelines").glob("*"),
        *(ROOT / "benchmarks").glob("*.*"),
        ROOT / "Makefile",
    ]
    for file in files:
        found = re.findall(r"(?<![\w.])/(?:home|root|work|Users)/\S+", file.read_text())
        assert not found, f"{file.name}: {found}"


def test_every_recipe_says_its_command_and_what_to_expect() -> None:
    recipes = sorted((ROOT / "pipelines").glob("*.toml"))
    assert [recipe.stem for recipe in recipes] == [
        "hymenoptera",
        "quickstart",
        "rethinking",
        "rethinking_trashnet",
        "trashnet",
    ]
    for recipe in recipes:
        header = recipe.read_text().split("\n\n")[0]
        assert header.startswith(f"# featx run pipelines/{recipe.name}\n")
        assert re.search(r"accuracy.* of 0\.\d{4}", header.replace("\n# ", " "))
        assert re.search(r"Time: ", header)


def test_the_embedded_weights_are_small() -> None:
    assert (ROOT / "featx" / "backbones" / "lenet5-digits.safetensors").stat().st_size < 300_000
