"""``featx inspect``: what it prints, its table and its JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import featx
from inspections import inspection_of
from made import photos, with_labels

from featx.cli.findings import print_findings
from featx.errors import SettingsError
from featx.inspection.pipeline import inspect as run_inspect

SECTIONS = ("duplicates: ", "label errors: ", "outliers: ", "odd images: ")


def test_each_sort_of_finding_is_printed_under_its_title(split_photos: Path, in_tmp: Path) -> None:
    featx("extract", split_photos, "-b", "lenet5")
    done = featx("inspect")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cache/")
    assert "layer penultimate, inspected in" in lines[0]
    for title in SECTIONS:
        assert any(line.startswith(title) for line in lines), title
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("labels", "task", "shown"),
    [
        ("cat|dog dog|cat dog cat", None, ": 4 images with 2 labels, layer"),
        ("1 2 3 4", "regression", ": 4 images with numbers as labels, layer"),
        ("1 2 2 1", "classification", ": 4 images with 2 classes, layer"),
    ],
)
def test_classes_are_counted_by_the_task(
    labels: str, task: str | None, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    features = with_labels(photos(classes=("x",), train=4, test=0, dim=3), labels.split())
    print_findings(inspection_of(features, task=task))
    assert shown in capsys.readouterr().out.splitlines()[0]


def test_an_exact_copy_in_another_split_is_printed_as_a_leak_with_the_accuracy_without_it(
    split_photos: Path, in_tmp: Path
) -> None:
    one = min((split_photos / "train").rglob("*.*"))
    test = next(folder for folder in (split_photos / "test", split_photos / "val") if folder.is_dir())
    (test / one.parent.name / "copy.png").write_bytes(one.read_bytes())
    featx("extract", split_photos, "-b", "lenet5")
    done = featx("inspect", split_photos)
    lines = [line.split() for line in done.stdout.splitlines()]
    path, copy = one.relative_to(split_photos).as_posix(), f"{test.name}/{one.parent.name}/copy.png"
    assert ["same", "file", *sorted([path, copy])] in lines or ["same", "file", path, copy] in lines
    assert any(line[:1] == ["leaks:"] for line in lines)
    assert any(", without the " in line and " leaked one" in line for line in done.stdout.splitlines())


def test_json_has_the_ranked_findings_and_each_image_with_one_under_the_names_of_datalab(
    split_photos: Path, in_tmp: Path
) -> None:
    featx("extract", split_photos, "-b", "lenet5")
    facts = json.loads(featx("inspect", "--json", "-o", "issues.csv").stdout)
    assert facts["files"] == ["issues.csv"]
    with Path("issues.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == facts["images"]
    for issue in facts["issues"]:
        assert str(issue["is_label_issue"]) == rows[issue["path"]]["is_label_issue"]
    assert {issue["path"] for issue in facts["issues"]} == {
        path for path, row in rows.items() if "True" in row.values()
    }


def test_options_without_effect_and_bad_values_are_usage_errors(in_tmp: Path) -> None:
    assert (
        "--images has no effect without --pixels" in featx("inspect", "--no-pixels", "--images", "x", status=2).stderr
    )
    assert "--weights has no effect without --backbone" in featx("inspect", "--weights", "x", status=2).stderr
    assert "--table has no effect without --group" in featx("inspect", "--table", "x.csv", status=2).stderr
    assert "0.0 is not in the range x>0" in featx("inspect", "--threshold", 0, status=2).stderr
    assert "there is no feature file in cache" in featx("inspect", status=1).stderr


def test_images_of_many_bands_are_inspected_through_a_backbone_by_the_options_that_errors_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("field", "forest"):
        (tmp_path / "fields" / label).mkdir(parents=True)
        for number in range(6):
            bands = rng.integers(0, 10_000, (40, 40, 5)).astype(np.uint16)
            np.save(tmp_path / "fields" / label / f"{number}.npy", bands)
    inspect = ("inspect", tmp_path / "fields", "-b", "lenet5", "--cache", tmp_path / "cache", "--json")
    assert "--bands selects some" in featx(*inspect, status=1).stderr
    reading = ("--bands", "4,3,2", "--value-range", "0-10000", "--fit", "pad")
    assert json.loads(featx(*inspect, *reading).stdout)["images"] == 12
    with_them = ("extract", tmp_path / "fields", "-b", "lenet5", *reading, "--cache", tmp_path / "cache")
    assert "no forward pass was needed" in featx(*with_them).stdout
    assert "--bands has no effect without --backbone" in featx("inspect", "--bands", "1", status=2).stderr
    with pytest.raises(SettingsError, match="value_range, bands and fit are for a data set through a backbone"):
        run_inspect(tmp_path / "fields", bands=(4, 3, 2), cache=tmp_path / "cache")
