"""The table of what is predicted for each labelled image."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made import in_views, photos, with_labels
from made_heads import assert_same_state, measured, tagged

import featx
from featx.errors import OutputError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.prediction_table import PREDICTION_COLUMNS
from featx.workflows.fit import fit_head
from featx.workflows.fit_result import Fit


def fitted(features: FeatureSet, folder: Path, **options: object) -> tuple[Fit, list[dict[str, str]]]:
    fit = fit_head(features, out=folder / "head.safetensors", predictions=folder / "p.csv", **options)  # type: ignore[arg-type]
    assert fit.predictions == folder / "p.csv"
    assert fit.as_dict()["predictions"] == str(folder / "p.csv")
    with fit.predictions.open(newline="") as file:
        return fit, list(csv.DictReader(file))


def test_training_images_are_predicted_out_of_fold_and_the_others_by_the_head(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    features.labels[0] = -1
    fit, rows = fitted(features, tmp_path)
    assert list(rows[0]) == [*PREDICTION_COLUMNS, "p_ant", "p_bee", "p_cat"]
    assert [row["path"] for row in rows] == features.paths[1:].tolist()
    train = [row for row in rows if row["split"] == "train"]
    test = [row for row in rows if row["split"] == "test"]
    assert {row["predicted_by"] for row in train} == {"out of fold"}
    assert {row["fold"] for row in train} == set("01234")
    assert {(row["predicted_by"], row["fold"]) for row in test} == {("head", "")}
    assert {row["trained_on"] for row in train} == {"True"}
    assert {row["trained_on"] for row in test} == {"False"}
    kept_rows, kept = fit.head.out_of_fold_
    np.testing.assert_allclose([[float(row[f"p_{c}"]) for c in fit.head.classes_] for row in train], kept, rtol=1e-8)
    assert len(kept_rows) == len(train)
    right = [row["correct"] == "True" for row in test]
    assert np.mean(right) == fit.report.accuracy
    for row in rows:
        p = {c: float(row[f"p_{c}"]) for c in fit.head.classes_}
        assert row["prediction"] == max(p, key=p.__getitem__)
        assert float(row["probability"]) == max(p.values())
        assert float(row["label_probability"]) == p[row["label"]]
        assert (row["correct"] == "True") == (row["prediction"] == row["label"])
    assert rows[0]["key"] == bytes(features.keys[1]).hex()


def test_the_head_and_its_report_are_the_same_with_and_without_the_table(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    fit, _ = fitted(features, tmp_path)
    plain = fit_head(features, out=tmp_path / "plain.safetensors")
    assert_same_state(fit.head, plain.head)
    assert fit.report.as_dict() == plain.report.as_dict()


@pytest.mark.parametrize("model", ["svm", "knn", "centroid", "ridge"])
def test_other_kinds_and_views_are_predicted_out_of_fold_too(model: str, tmp_path: Path) -> None:
    _, rows = fitted(in_views(photos(train=10, test=5, gap=4.0), 2), tmp_path, model=model)
    train = [row for row in rows if row["split"] == "train"]
    assert {row["predicted_by"] for row in train} == {"out of fold"}
    assert np.mean([row["correct"] == "True" for row in train]) > 0.8


def test_a_given_penalty_leaves_the_training_images_out_of_fold(tmp_path: Path) -> None:
    _, rows = fitted(photos(gap=0.0, dim=200, train=30), tmp_path, C=1e4)
    train = [row for row in rows if row["split"] == "train"]
    assert np.mean([row["correct"] == "True" for row in train]) < 0.6


def test_sets_of_labels_are_right_as_a_whole_and_as_probable_as_their_least_probable_label(tmp_path: Path) -> None:
    fit, rows = fitted(tagged(), tmp_path)
    for row in rows:
        p = {c: float(row[f"p_{c}"]) for c in fit.head.classes_}
        for name, labels in (("probability", row["prediction"]), ("label_probability", row["label"])):
            has = set(labels.split("|")) - {""}
            assert float(row[name]) == pytest.approx(min(p[c] if c in has else 1 - p[c] for c in p), abs=1e-8)
        assert (row["correct"] == "True") == (set(row["prediction"].split("|")) == set(row["label"].split("|")))
    assert "|" in {row["prediction"] for row in rows}
    assert 0.3 < np.mean([row["correct"] == "True" for row in rows]) < 1


def test_numbers_have_an_error_and_no_probability(tmp_path: Path) -> None:
    fit, rows = fitted(measured(), tmp_path, task="regression")
    assert list(rows[0]) == [*PREDICTION_COLUMNS, "error"]
    test = [row for row in rows if row["split"] == "test"]
    errors = np.array([float(row["error"]) for row in test])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(fit.report.headline[1], rel=1e-6)
    for row in rows:
        assert float(row["error"]) == pytest.approx(float(row["prediction"]) - float(row["label"]), abs=1e-6)
        assert row["probability"] == row["label_probability"] == row["correct"] == ""


def test_what_cannot_be_predicted_or_is_rejected_has_empty_cells(tmp_path: Path) -> None:
    features = photos(train=20, gap=1.0)
    features = dataclasses.replace(features, classes=(*features.classes, "dog", "=eel"))
    features.labels[0] = 3  # the only one of its class
    features.labels[1], features.splits[1] = 4, "later"
    _, rows = fitted(features, tmp_path, reject_below=0.8)
    assert rows[0]["prediction"] == rows[0]["probability"] == rows[0]["correct"] == rows[0]["predicted_by"] == ""
    assert rows[1]["predicted_by"] == "head"
    assert rows[1]["label"] == "'=eel"
    assert rows[1]["label_probability"] == ""
    rejected = [row for row in rows[1:] if float(row["probability"]) < 0.8]
    assert rejected
    assert {(row["prediction"], row["correct"]) for row in rejected} == {("", "")}


def test_copies_of_training_images_are_marked(tmp_path: Path) -> None:
    features = photos()
    features.keys[70] = features.keys[3]
    _, rows = fitted(features, tmp_path)
    assert [row["path"] for row in rows if row["split"] == "test" and row["trained_on"] == "True"] == ["70.png"]


def test_images_that_chose_thresholds_are_marked(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    features.splits[features.rows("test")[:9]] = "val"
    fit = featx.fit_head(
        features,
        "logreg",
        out=tmp_path / "h.safetensors",
        conformal=0.2,
        calibrate_on="val",
        predictions=tmp_path / "p.csv",
    )
    assert fit.predictions is not None
    with fit.predictions.open(newline="") as file:
        marks = [(row["validated_on"], row["split"] == "val") for row in csv.DictReader(file)]
    assert set(marks) == {("True", True), ("False", False)}


def test_an_evaluation_writes_the_predictions_that_it_judges(tmp_path: Path) -> None:
    features = with_labels(photos(gap=1.0), [f"a, {label}\n" for label in photos().labels])
    head = Head("logreg").fit(features)
    report = featx.evaluate(head, features, predictions=tmp_path / "e.csv")
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report.n
    assert {(row["predicted_by"], row["fold"], row["split"]) for row in rows} == {("head", "", "test")}
    assert np.mean([row["correct"] == "True" for row in rows]) == report.accuracy
    assert [name for name in rows[0] if name.startswith("p_")] == [rf"p_a, {label}\n" for label in range(3)]
    featx.evaluate(head, features, predictions=tmp_path / "e.csv", split="train")  # its own kind is replaced
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 61


def test_parquet_has_the_same_rows_with_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    fit_head(photos(), out=tmp_path / "h.safetensors", predictions=tmp_path / "p.parquet")
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.num_rows == 105
    kinds = {name: str(table.schema.field(name).type) for name in ("path", "probability", "correct", "fold", "p_ant")}
    assert kinds == {"path": "string", "probability": "double", "correct": "bool", "fold": "int64", "p_ant": "double"}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("mine.csv", r"mine\.csv exists and is not a table of predictions for each image of featx.*--predictions"),
        ("p.txt", r"p\.txt ends in \.txt.* ends in \.csv or \.parquet with --predictions"),
        ("head--unlabelled.csv", "would both go"),
        ("no/such/folder/p.csv", "no/such/folder|cannot|not"),
    ],
)
def test_nothing_is_fitted_where_the_table_cannot_be_written(name: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,label\n")
    (tmp_path / "no").write_text("a file, no folder")
    with pytest.raises(OutputError, match=match):
        fit_head(photos(), out=tmp_path / "head.safetensors", predictions=tmp_path / name)
    assert not (tmp_path / "head.safetensors").exists()
    if name != "head--unlabelled.csv":
        with pytest.raises(OutputError, match=match):
            featx.evaluate(Head("logreg").fit(photos()), photos(), predictions=tmp_path / name)
