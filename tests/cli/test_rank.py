"""``featx rank``: the printed table."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from command_line import featx

from featx.cli.main import main


def test_the_table_is_printed_with_what_failed(split_photos: Path, in_tmp: Path) -> None:
    options = ["-b", "lenet5", "-b", "mobilenet_v1_025=random", "-b", "resnet=no.pth", "-o", "here.png"]
    done = CliRunner().invoke(main, ["rank", str(split_photos), *options])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "backbone", "accuracy", "95", "%", "interval", "kNN", "LogME", "H-score", "width", "parameters", "images/s"
    ]  # fmt: skip
    assert sum(line.startswith("*") for line in lines[1:3]) >= 1
    assert "resnet failed: there is no backbone 'resnet'" in done.stdout
    assert lines[-1] == "picture: here.png"
    assert Path("here.png").exists()


def test_one_backbone_with_several_weights_is_ranked_once_for_each(split_photos: Path, in_tmp: Path) -> None:
    facts = json.loads(featx("rank", split_photos, "-b", "lenet5=default", "-b", "lenet5=random", "--json").stdout)
    assert {(row["backbone"], row["weights"]) for row in facts["ranking"]} == {
        ("lenet5", "default"),
        ("lenet5", "random"),
    }
    shown = featx("rank", split_photos, "-b", "lenet5=random", "-b", "lenet5").stdout
    assert "lenet5=default" in shown
    assert "lenet5=random" in shown
    assert f"next: {facts['command']}" in shown.splitlines()
    assert facts["command"] == f"featx fit-head {facts['ranking'][0]['features']}"
