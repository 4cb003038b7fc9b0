"""``featx advise``: the printed tables and recommendation."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from featx.cli.main import main


def test_the_terminal_shows_tables_recommendation_and_command(split_photos: Path, in_tmp: Path) -> None:
    done = CliRunner().invoke(main, ["advise", str(split_photos), "-b", "lenet5", "--device", "cpu", "-o", "here.png"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "split through lenet5: 32 training images of 2 classes, 16 to 16 of each"
    assert lines[2].split() == [
        "layer", "width", "accuracy", "log", "loss", "with", "all", "later", "ones", "random", "weights"
    ]  # fmt: skip
    assert any(line.startswith("next: featx fit-head cache/split--lenet5.h5") for line in lines)
    assert any(line.startswith("advice: fit a head on ") for line in lines)
    assert any(line.startswith("certainty: ") and line.endswith(" lead to the same advice") for line in lines)
    assert lines[-1] == "picture: here.png"
    assert Path("here.png").exists()
