"""Options that describe data, in the commands that take data."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from command_line import featx


@pytest.fixture
def listed(split_photos: Path, in_tmp: Path) -> Path:
    """A table without a header, separated by spaces, of ids of images in another folder, with folds."""
    rows = [
        f"{number} {path.parent.name}/{path.stem} {path.parent.name} {number % 3}"
        for number, path in enumerate(sorted((split_photos / "train").rglob("*.png")))
    ]
    (in_tmp / "list.txt").write_text("\n".join(rows) + "\n")
    return in_tmp / "list.txt"


OPTIONS = ("--path-column", "2", "--separator", "space")


def test_commands_take_the_same_options_of_a_table(listed: Path, split_photos: Path) -> None:
    data = (listed, *OPTIONS, "--label-column", "3", "--root", split_photos / "train")
    shown = featx("extract", *data, "-b", "lenet5")
    assert "32 images: 32 computed" in shown.stdout
    assert "32 names without an ending are read with .png" in shown.stderr
    fit = json.loads(featx("fit-head", "--model", "ridge", "--cv", "4", "--json").stdout)
    assert fit["cross_validated"]["column"] is None
    named = json.loads(featx("fit-head", "--model", "ridge", "--cv", "4", "--group", "1", "--json").stdout)
    assert named["group"] == "1"
    assert "no forward pass was needed" in featx("extract", *data, "-b", "lenet5").stdout
    assert featx("evaluate", fit["head"], *data).stdout.startswith("Evaluated on ")
    assert featx("inspect", *data, "--no-pixels").stdout.startswith("cache/list--lenet5.h5: 32 images")
    rows = csv.DictReader(
        io.StringIO(featx("predict", fit["head"], listed, *OPTIONS, "--root", split_photos / "train").stdout)
    )
    assert [row["label"] for row in rows] == ["dark"] * 16 + ["light"] * 16
    found = featx(
        "search", "cache/list--lenet5.h5", listed, *OPTIONS, "--root", split_photos / "train", "--top", "1"
    ).stdout
    assert len(found.splitlines()) == 33


def test_options_of_data_have_no_effect_on_files_that_were_made_of_data(fitted: Path, split_photos: Path) -> None:
    file = next(Path("cache").glob("*.h5"))
    for command in ("inspect", "suggest", "advise"):
        refused = featx(command, file, "--root", "photos", status=2)
        assert "--root has no effect with a feature file, whose data set was read already" in refused.stderr
    image = split_photos / "val" / "dark" / "00.png"
    assert "--root has no effect on" in featx("predict", fitted, image, "--root", "photos", status=1).stderr
    assert "--separator has no effect on" in featx("extract", split_photos, "--separator", ";", status=1).stderr


def test_folds_are_a_number_or_a_column() -> None:
    assert "1 is not in the range x>=2" in featx("fit-head", "--cv", "1", status=2).stderr
