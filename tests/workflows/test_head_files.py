"""The files of a head: their names, the space they need, pictures, and predictions for images without a label."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import EVERY_HEAD, in_views, new, photos
from task_features import measured, tagged

from featx.errors import OutputError
from featx.features.feature_set import FeatureSet
from featx.heads.estimators import mlp
from featx.heads.head import Head
from featx.io import atomic
from featx.workflows import head_files
from featx.workflows.fit import fit_head


@pytest.mark.parametrize(
    ("head", "changes", "name"),
    [
        (Head("logreg"), {"source": Path("cache/pets--lenet5.h5")}, "pets--lenet5--logreg.safetensors"),
        (Head("svm", C=1.0, kernel="rbf"), {"layer": "pool"}, "pets--pool--svm-rbf--C1.safetensors"),
        (Head("centroid"), {"dataset": {}}, "features--centroid.safetensors"),
    ],
)
def test_a_head_is_named_after_its_features_layer_and_kind(
    head: Head, changes: dict[str, Any], name: str, tmp_path: Path
) -> None:
    assert fit_head(photos(**changes), head, models=tmp_path).path.name == name


def test_the_picture_does_not_take_the_place_of_the_head(tmp_path: Path) -> None:
    for name in ("head.png", "head.html", "head.PNG", "head.pt", "thesis.docx"):
        with pytest.raises(
            OutputError,
            match=rf"{name} ends in \.\w+, but a head is written; name a file that ends in \.safetensors with -o",
        ):
            fit_head(photos(), Head("centroid"), out=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_an_error_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "fit", lambda *_: pytest.fail("a head was fitted"))
    (tmp_path / "file").touch()
    for beside in (".png", ".html", "--shots.png", "--unlabelled.csv"):
        (tmp_path / f"taken{beside}").mkdir()
    for out, message in [
        (tmp_path, "is a folder; name a file to write with -o"),
        (tmp_path / "taken.safetensors", r"taken\.png is a folder; name a file to write with -o"),
        (tmp_path / "file" / "h", r"cannot write .*: Not a directory; name another file with -o"),
    ]:
        with pytest.raises(OutputError, match=message):
            fit_head(photos(), Head("centroid"), out=out)


@EVERY_HEAD
def test_space_for_the_whole_head_is_required_before_the_fit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = photos(train=300, dim=40)
    required = []
    monkeypatch.setattr(atomic, "require_writable", lambda path, need=0, **_: required.append(need))
    size = fit_head(features, new(name), models=tmp_path).path.stat().st_size
    assert mlp.MlpEstimator.width == head_files.HIDDEN_UNITS
    assert 0.5 * size < required[0] < 3 * size


ODD_NAMES = [
    "$\\frac",
    "$$",
    "\\$",
    "${x}$",
    "$a$b$",
    "_^{",
    "\\",
    "%s{}",
    "\x1b[2J",
    "\u202eabc",
    "\udcff",
    "a\nb",
    "",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_class_of_any_name_is_drawn_printed_and_saved(name: str, tmp_path: Path) -> None:
    fit = fit_head(photos(classes=(name, "bee")), Head("centroid"), models=tmp_path)
    assert fit.picture.read_bytes().startswith(b"\x89PNG")
    assert Head.load(fit.path).classes_ == (name, "bee")
    assert all(line.isprintable() for line in str(fit.report).split("\n"))


def test_a_data_sets_name_leads_out_of_no_folder(tmp_path: Path) -> None:
    features = photos(dataset={"name": "../../pets"})
    assert (
        fit_head(features, Head("centroid"), models=tmp_path / "m").path
        == tmp_path / "m" / "pets--centroid.safetensors"
    )


def unlabelled(features: FeatureSet, rows: Sequence[int]) -> FeatureSet:
    """The same features, some rows without a label."""
    labels = features.labels.copy()
    labels[rows] = -1
    return dataclasses.replace(features, labels=labels)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_images_without_a_label_are_ignored_and_then_predicted(tmp_path: Path) -> None:
    features = unlabelled(photos(), [3, 4, 62])
    fit = fit_head(features, Head("logreg", C=0.1), models=tmp_path)
    assert (fit.head.n_train_, fit.report.n) == (58, 44)
    assert fit.unlabelled == tmp_path / "pets--logreg--C0.1--unlabelled.csv"
    header, *lines = read_csv(fit.unlabelled)
    assert header == ["path", "label", "probability"]
    p = fit.head.predict_proba(features.features[[3, 4, 62]])
    expected = [
        [f"{row}.png", features.classes[i], f"{top:.6f}"]
        for row, i, top in zip([3, 4, 62], p.argmax(1), p.max(1), strict=True)
    ]
    assert lines == expected


def test_a_data_set_that_is_all_labelled_gets_no_table_of_predictions(tmp_path: Path) -> None:
    fit = fit_head(photos(), Head("centroid"), models=tmp_path)
    assert fit.unlabelled is None
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".png", ".safetensors"]


def test_predictions_are_lists_numbers_or_nothing_as_the_head_decides(tmp_path: Path) -> None:
    rows = [0, 5, 7]
    fit = fit_head(unlabelled(tagged(), rows), Head("ridge"), out=tmp_path / "labels")
    for (_, labels, p), features in zip(read_csv(fit.unlabelled)[1:], tagged().features[rows], strict=True):
        (predicted,) = fit.head.predict(features[None])
        assert labels == ("|".join(predicted) or "|")
        assert len(p.split()) == len(predicted)
    fit = fit_head(unlabelled(measured(), rows), Head("ridge", task="regression"), out=tmp_path / "numbers")
    for (_, value, p), features in zip(read_csv(fit.unlabelled)[1:], measured().features[rows], strict=True):
        assert float(value) == pytest.approx(fit.head.predict(features[None])[0], rel=1e-5)
        assert p == ""
    features = unlabelled(photos(gap=0.5), list(range(60, 90)))
    fit = fit_head(features, Head("logreg", reject_below=0.5), out=tmp_path / "sure")
    found = read_csv(fit.unlabelled)[1:]
    assert {label == "" for _, label, p in found if float(p) < 0.5} == {True}
    assert {label == "" for _, label, p in found if float(p) > 0.5} == {False}


def test_an_image_whose_features_are_not_finite_is_predicted_as_nothing(tmp_path: Path) -> None:
    features = unlabelled(photos(), [3, 4])
    features.features[3, 0] = np.nan
    fit = fit_head(features, Head("centroid"), models=tmp_path)
    assert read_csv(fit.unlabelled)[1] == ["3.png", "", ""]
    assert read_csv(fit.unlabelled)[2][1] in features.classes


def test_no_path_or_class_becomes_a_formula_in_the_table_of_predictions(tmp_path: Path) -> None:
    features = unlabelled(photos(classes=("=1+1", "-b")), [0, 1])
    features.paths[:2] = ["@SUM(A1).png", "\x1b[2J.png"]
    fit = fit_head(features, Head("centroid"), models=tmp_path)
    (first, label, _), (second, other, _) = read_csv(fit.unlabelled)[1:]
    assert (first, second) == ("'@SUM(A1).png", "\\x1b[2J.png")
    assert {label, other} <= {"'=1+1", "'-b"}


def test_images_without_a_label_are_predicted_once(two_views: Path, tmp_path: Path) -> None:
    features = FeatureSet.load(two_views, "penultimate@flip")
    features.labels[::5] = -1
    fit = fit_head(features, Head("logreg"), models=tmp_path / "models")
    lines = list(csv.reader(fit.unlabelled.read_text().splitlines()))[1:]
    assert [path for path, _, _ in lines] == features.paths[::5].tolist()
    out = fit.head.predict_values(features.features[::5])
    np.testing.assert_allclose([float(p) for _, _, p in lines], out.max(axis=1), atol=1e-6)


@EVERY_HEAD
def test_space_for_a_head_on_views_is_required_before_the_fit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = []
    monkeypatch.setattr(atomic, "require_writable", lambda path, need=0, **_: required.append(need))
    size = fit_head(in_views(photos(train=300, dim=40)), new(name), models=tmp_path).path.stat().st_size
    assert 0.3 * size < required[0] < 3 * size
