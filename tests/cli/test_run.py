"""``featx run``: the steps of a recipe, and its dry run."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import featx


def test_a_recipe_runs_its_steps_and_a_dry_run_only_names_them(split_photos: Path, in_tmp: Path) -> None:
    Path("job.toml").write_text(
        f'[extract]\ndata = "{split_photos}"\nbackbone = "lenet5"\n[fit-head]\nmodel = "ridge"\n[promote]\n'
    )
    dry = featx("run", "job.toml", "--dry-run")
    assert dry.stdout == (
        f"featx extract {split_photos} --backbone lenet5\nfeatx fit-head --model ridge\nfeatx promote\n"
    )
    assert not Path("cache").exists()
    done = json.loads(featx("run", "job.toml", "--json").stdout)
    assert list(done) == ["extract", "fit-head", "promote"]
    assert done["promote"]["verdict"] == "assembled"
    text = featx("run", "job.toml").stdout
    assert [line for line in text.splitlines() if line.startswith("$ ")] == [f"$ {c}" for c in dry.stdout.splitlines()]


def test_a_dry_run_shows_control_characters_escaped(in_tmp: Path) -> None:
    (in_tmp / "job.toml").write_text('[extract]\ndata = "photos\\u001b[2K\\r\\u202e"\nbackbone = "evil.py:make"\n')
    dry = featx("run", "job.toml", "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout == "featx extract 'photos\\x1b[2K\\r\\u202e' --backbone evil.py:make\n"
