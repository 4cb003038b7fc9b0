"""``inspect``: the parts together, on made features and on files."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from made import photos, with_labels
from task_features import TASKS

import featx
from featx.errors import FeatxError, HeadError, OutputError, SettingsError
from featx.features.feature_set import FeatureSet


def with_copies(features: FeatureSet, pairs: list[tuple[int, int]]) -> FeatureSet:
    """Features in which the second of each pair is nearly the first, with another content."""
    Z = features.features.copy()
    for first, second in pairs:
        Z[second] = Z[first] * 1.0001
    return dataclasses.replace(features, features=Z)


@pytest.mark.parametrize("task", TASKS)
def test_an_inspection_of_each_task_finds_a_planted_copy_and_a_planted_wrong_label(task: str) -> None:
    features = photos(gap=4.0) if task == "classification" else TASKS[task]()
    train, test = np.flatnonzero(features.splits == "train"), np.flatnonzero(features.splits == "test")
    features = with_copies(features, [(train[0], test[0])])
    wrong = int(train[5])
    labels = [features.classes[label] for label in features.labels]
    labels[wrong] = {
        "classification": next(name for name in features.classes if name != labels[wrong]),
        "multilabel": "cat|dog" if labels[wrong] == "|" else "|",
        "regression": "99",
    }[task]
    inspection = featx.inspect(with_labels(features, labels), task=task, threshold=1e-6, pixels=False)

    assert inspection.duplicates.pairs[0].tolist() == sorted((train[0], test[0]))
    assert inspection.leaks.leaked.tolist() == [test[0]]
    assert inspection.leaks.report is not None
    assert inspection.leaks.report.n == len(test)
    assert inspection.leaks.report_without is not None
    assert inspection.leaks.report_without.n == len(test) - 1
    assert inspection.labels is not None
    assert wrong in inspection.labels.ranked[:10]
    assert inspection.pixels is None


def test_near_copies_of_a_wrong_label_are_not_in_the_training_rows_of_its_fold() -> None:
    """Otherwise its own copy, with the same wrong label, would vouch for it."""
    features = photos(gap=3.0)
    rows = np.flatnonzero((features.splits == "train") & (features.labels == 0))[:2]
    features = with_copies(features, [tuple(rows.tolist())])
    labels = features.labels.copy()
    labels[rows] = 1
    inspection = featx.inspect(dataclasses.replace(features, labels=labels), threshold=1e-6, pixels=False)
    assert inspection.labels is not None
    assert set(inspection.labels.ranked[:2].tolist()) == set(rows.tolist())


def test_unlabelled_images_are_compared_and_no_label_is_judged() -> None:
    features = photos()
    inspection = featx.inspect(dataclasses.replace(features, labels=np.full(len(features), -1)), pixels=False)
    assert inspection.labels is None
    assert inspection.judged is None
    assert "no image has a label, so no label is judged" in inspection.notes
    assert len(inspection.outliers.scores) == len(features)
    assert inspection.as_dict()["label_issues"] == []


def test_one_class_two_images_and_no_held_out_split_are_inspected_with_a_note() -> None:
    features = photos()
    one_class = dataclasses.replace(features, labels=np.zeros(len(features), dtype=np.int64))
    assert any(note.startswith("no label is judged") for note in featx.inspect(one_class, pixels=False).notes)
    assert len(featx.inspect(features.take(np.array([0, 1])), pixels=False).outliers.scores) == 2
    train_only = dataclasses.replace(features, splits=np.full(len(features), "train", dtype=object))
    found = featx.inspect(train_only, pixels=False)
    assert found.labels is not None
    assert any(note.startswith("no head is judged") for note in found.notes)


def test_one_image_is_too_few() -> None:
    with pytest.raises(HeadError, match="there is 1 image; an inspection compares images, so it needs at least two"):
        featx.inspect(photos().take(np.array([0])))


def test_arguments_that_fit_nothing_are_refused_before_anything_is_read(in_tmp: Path) -> None:
    with pytest.raises(SettingsError, match="threshold is -1; expected a distance above 0"):
        featx.inspect(photos(), threshold=-1)
    with pytest.raises(HeadError, match="there is no head 'logref'"):
        featx.inspect("missing.h5", model="logref")
    with pytest.raises(SettingsError, match=r"issues.txt ends in .txt; expected"):
        featx.inspect("missing.h5", out="issues.txt")
    with pytest.raises(SettingsError, match="backbone is for a data set"):
        featx.inspect(photos(), backbone="resnet50")
    with pytest.raises(FeatxError, match="missing"):
        featx.inspect("missing.h5")


def test_a_data_set_is_inspected_by_its_newest_features_or_extracted(split_photos: Path, in_tmp: Path) -> None:
    first = featx.inspect(split_photos, backbone="lenet5", cache="cache")
    assert first.pixels is not None
    assert first.pixels.unread == 0
    again = featx.inspect(split_photos, cache="cache")  # not resnet50, the default of an extraction
    assert again.features.backbone["name"] == "lenet5"
    assert again.file == first.file
    np.testing.assert_array_equal(again.duplicates.pairs, first.duplicates.pairs)


def test_an_inspection_goes_on_without_images_that_are_gone(split_photos: Path, in_tmp: Path) -> None:
    features = featx.extract(split_photos, "lenet5").load()
    shutil.rmtree(split_photos)
    inspection = featx.inspect(features)
    assert inspection.pixels is not None
    assert inspection.pixels.unread == len(features)
    assert inspection.labels is not None


def test_the_table_has_a_row_for_each_image_and_only_a_table_of_an_inspection_is_replaced(in_tmp: Path) -> None:
    features = photos()
    inspection = featx.inspect(features, pixels=False, out=["issues.csv"])
    with Path("issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == features.paths.tolist()
    assert {"is_label_issue", "label_score", "near_duplicate_sets", "is_outlier_issue", "outlier_score"} <= rows[
        0
    ].keys()
    assert inspection.files == (Path("issues.csv"),)
    featx.inspect(features, pixels=False, out="issues.csv")
    Path("mine.csv").write_text("path,label\na.jpg,cat\n")
    with pytest.raises(OutputError, match=r"mine.csv exists and is not a table of an inspection"):
        featx.inspect(features, pixels=False, out="mine.csv")
    assert Path("mine.csv").read_text() == "path,label\na.jpg,cat\n"


def test_the_features_are_not_changed_by_an_inspection() -> None:
    features = photos()
    before = {name: np.array(getattr(features, name)) for name in ("features", "labels", "splits", "paths", "keys")}
    featx.inspect(features, pixels=False)
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(features, name), values)
    assert features.groups is None


def test_images_that_failed_in_the_extraction_are_named(split_photos: Path, tmp_path: Path) -> None:
    (split_photos / "train" / "dark" / "broken.png").write_bytes(b"no image")
    inspection = featx.inspect(split_photos, backbone="lenet5", cache=tmp_path / "cache", pixels=False)
    reason = "not an image of a known format (it begins with b'no image')"
    assert inspection.failures == (("train/dark/broken.png", reason),)
    assert inspection.as_dict()["failures"] == [{"path": "train/dark/broken.png", "error": reason}]
    assert (
        f"1 image could not be read when the features were extracted: train/dark/broken.png ({reason})"
        in inspection.notes
    )
