"""``featx suggest``."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from command_line import featx
from conftest import write_image


@pytest.fixture
def flat(in_tmp: Path) -> Path:
    """A folder of 40 images without labels, and its features."""
    for number in range(40):
        write_image(in_tmp / "photos" / f"{number:02}.png", seed=number, tint=190 if number % 2 else 60)
    featx("extract", "photos", "-b", "lenet5")
    return in_tmp / "photos"


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def fill(path: str) -> int:
    """Fill in the labels of the suggested images as a person would, and count them."""
    rows = rows_of(path)
    for row in rows:
        if row["rank"]:
            row["label"] = "light" if int(Path(row["path"]).stem) % 2 else "dark"
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return sum(row["rank"] != "" for row in rows)


def test_the_first_suggestions_are_printed(flat: Path) -> None:
    result = featx("suggest", "photos", "--budget", 12)
    lines = result.stdout.splitlines()
    assert lines[0] == "12 images to label next, of 32 without a label"
    assert lines[2].split() == ["rank", "path", "why"]
    assert lines[3].startswith("1     ")
    assert lines[13:] == ["… and 2 more", "", "-o FILE.csv writes them into a table to fill in, --json prints them all"]
    assert "Note: no training image has a label" in result.stderr


def test_labels_are_filled_in_extracted_and_fitted_round_after_round(flat: Path) -> None:
    first = featx("suggest", "-n", 8, "--test", 4, "-o", "todo.csv")
    assert "next: fill in the column label, then featx extract todo.csv --backbone lenet5" in first.stdout
    assert len(rows_of("todo.csv")) == 40
    assert list(rows_of("todo.csv")[0]) == ["path", "label", "rank", "predicted", "probability", "why", "split"]
    assert fill("todo.csv") == 12

    extracted = json.loads(featx("extract", "todo.csv", "-b", "lenet5", "--json").stdout)
    assert (extracted["computed"], extracted["reused"]) == (0, 40)
    assert json.loads(featx("fit-head", "--json").stdout)["n_train"] == 8

    second = json.loads(featx("suggest", "-n", 5, "-o", "todo.csv", "--json").stdout)
    assert second["labelled"] == 8
    assert [each["rank"] for each in second["suggestions"]] == [1, 2, 3, 4, 5]
    assert {each["predicted"] for each in second["suggestions"]} <= {"light", "dark"}
    rows = rows_of("todo.csv")
    assert [row["rank"] for row in rows[:6]] == ["1", "2", "3", "4", "5", ""]
    assert sum(row["label"] != "" for row in rows) == 12
    assert fill("todo.csv") == 5
    featx("extract", "todo.csv", "-b", "lenet5")
    assert json.loads(featx("fit-head", "--json").stdout)["n_train"] == 13


def test_chosen_images_never_judge_a_head(flat: Path) -> None:
    featx("suggest", "-n", 8, "-o", "todo.csv")
    splits = {row["path"]: row["split"] for row in rows_of("todo.csv")}
    assert fill("todo.csv") == 8
    featx("extract", "todo.csv", "-b", "lenet5")
    assert (
        "no held-out split: no labelled images in test or val; found 8 in train" in featx("fit-head", status=1).stderr
    )
    second = json.loads(featx("suggest", "-n", 5, "--test", 3, "-o", "todo.csv", "--json").stdout)
    assert second["labelled"] == 8
    assert {row["path"]: row["split"] for row in rows_of("todo.csv")} == splits


def test_labels_that_were_not_extracted_are_not_overwritten(flat: Path) -> None:
    featx("suggest", "-n", 8, "-o", "todo.csv")
    fill("todo.csv")
    before = Path("todo.csv").read_bytes()
    result = featx("suggest", "-n", 8, "-o", "todo.csv", status=1)
    assert "todo.csv has labels, or images, that the features lack (8 images: photos/" in result.stderr
    assert Path("todo.csv").read_bytes() == before
    Path("mine.csv").write_text("path,label\nphotos/00.png,dark\n")
    result = featx("suggest", "-o", "mine.csv", status=1)
    assert "mine.csv exists and is not a table of suggestions of featx, so it is not overwritten" in result.stderr


def test_splits_groups_and_images_that_fail_stay_in_the_table(in_tmp: Path) -> None:
    lines = ["path,label,split,patient"]
    for number in range(24):
        write_image(in_tmp / f"{number:02}.png", seed=number, tint=190 if number % 2 else 60)
        split = "test" if number < 6 else "pool" if number > 20 else "train"
        label = ("light" if number % 2 else "dark") if number < 12 else ""
        lines.append(f"{number:02}.png,{label},{split},p{number // 2}")
    (in_tmp / "23.png").write_text("no image")
    Path("photos.csv").write_text("\n".join(lines) + "\n")
    featx("extract", "photos.csv", "-b", "lenet5")
    found = json.loads(featx("suggest", "-n", 11, "--group", "patient", "-o", "todo.csv", "--json").stdout)
    rows = {row["path"]: row for row in rows_of("todo.csv")}
    assert len(rows) == 24
    assert rows["23.png"]["split"] == "pool"
    assert {row["split"] for row in rows.values() if row["rank"]} == {"train"}
    assert rows["22.png"]["patient"] == "p11"
    assert len({rows[each["path"]]["patient"] for each in found["suggestions"][:6]}) == 6
    assert "split" not in {row["split"] for row in rows.values()}
    featx("extract", "todo.csv", "-b", "lenet5")
    featx("fit-head", "--group", "patient")


def test_a_table_in_another_folder_names_its_images(flat: Path) -> None:
    Path("tables").mkdir()
    result = featx("suggest", "-n", 3, "-o", "tables/todo.csv")
    assert "absolute" in result.stderr
    fill("tables/todo.csv")
    assert json.loads(featx("extract", "tables/todo.csv", "-b", "lenet5", "--json").stdout)["reused"] == 40
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    featx("suggest", "photos", "-n", 3, "-o", "todo.parquet")
    assert json.loads(featx("extract", "todo.parquet", "-b", "lenet5", "--json").stdout)["reused"] == 40


def test_what_cannot_be_suggested_is_one_message(photos: Path, in_tmp: Path) -> None:
    featx("extract", photos, "-b", "lenet5")
    assert "all 40 images have a label" in featx("suggest", status=1).stderr
    assert "has no features of" in featx("suggest", shutil.copytree(photos, in_tmp / "other"), status=1).stderr
    assert "there is no feature file" in featx("suggest", "--cache", "nowhere", status=1).stderr
    assert "--table has no effect without --group" in featx("suggest", "--table", "x.csv", status=2).stderr
    assert (
        "todo.txt ends in .txt, but a table of suggestions is written"
        in featx("suggest", "-o", "todo.txt", status=1).stderr
    )
