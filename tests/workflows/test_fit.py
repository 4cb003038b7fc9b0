"""``fit_head``: one call that fits a head, evaluates it and saves it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import photos
from task_features import TASKS, measured, tagged

from featx.errors import CacheMissError, HeadError, SettingsError
from featx.extraction.pipeline import extract
from featx.features.feature_file import ImageTable
from featx.features.feature_set import FeatureSet
from featx.features.writer import FeatureFileWriter
from featx.heads import groups
from featx.heads.groups import with_groups
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.inference import evaluate
from featx.io import model_file
from featx.workflows.fit import fit_head


def test_fit_head_writes_the_head_its_report_and_a_picture(tmp_path: Path) -> None:
    features = photos()
    features.splits[60:63] = "pretrain"
    fit = fit_head(features, Head("svm", C=0.1), models=tmp_path / "models")
    assert fit.path == tmp_path / "models" / "pets--svm--C0.1.safetensors"
    assert fit.picture == tmp_path / "models" / "pets--svm--C0.1.png"
    assert sorted(p.name for p in fit.path.parent.iterdir()) == ["pets--svm--C0.1.png", "pets--svm--C0.1.safetensors"]
    assert fit.picture.read_bytes().startswith(b"\x89PNG")
    assert model_file.read_metadata(fit.path, HEAD)["report"] == fit.report.as_dict()
    assert Head.load(fit.path).evaluate(features).as_dict() == fit.report.as_dict()
    (note,) = fit.notes
    assert note.startswith("3 images of split pretrain were ")


def test_the_dict_of_a_fit_is_json_with_what_a_script_needs(tmp_path: Path) -> None:
    fit = fit_head(photos(), Head("ridge"), out=tmp_path / "mine.safetensors")
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))
    expected = {"head", "model", "layer", "C", "n_train", "n_test", "test_split", "accuracy", "interval"}
    expected |= {"balanced_accuracy", "macro_f1", "log_loss", "seconds"}
    assert expected <= found.keys()
    assert found["head"] == str(tmp_path / "mine.safetensors")
    assert found["picture"] == str(tmp_path / "mine.png")
    assert (found["model"], found["layer"], found["n_train"], found["n_test"]) == ("ridge", "penultimate", 60, 45)
    assert found["test_split"] == "test"
    assert found["C"] == fit.head.C_
    assert found["accuracy"] == fit.report.accuracy
    assert found["seconds"] > 0


def test_fit_head_without_anything_to_evaluate_on_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="there is no held-out split"):
        fit_head(photos(test=0), Head("centroid"), models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fit_head_of_a_feature_file_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"none\.h5"):
        fit_head(tmp_path / "none.h5", Head("centroid"), models=tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_heads_of_every_task_are_fitted_evaluated_and_saved(task: str, tmp_path: Path) -> None:
    features = TASKS[task]()
    fit = fit_head(features, Head("ridge", task=task), models=tmp_path)
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))
    assert (found["task"], found["n_test"], found["test_split"]) == (task, len(features.rows("test")), "test")
    headline = {"classification": "accuracy", "multilabel": "mAP", "regression": "rmse"}[task]
    assert found[headline] == pytest.approx(fit.report.headline[1])
    assert (fit.picture is not None) == (task == "classification")
    assert found["search"] == [
        {"candidate": t.candidate, "mean": t.loss, "standard_error": t.error} for t in fit.head.search_
    ]
    assert Head.load(fit.path).evaluate(features).as_dict() == fit.report.as_dict()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("given", [None, "auto", "head"])
def test_every_task_is_fitted_without_a_kind_being_named(task: str, given: str | None, tmp_path: Path) -> None:
    features, kind = TASKS[task](), {"regression": "ridge"}.get(task, "logreg")
    requested = {"task": task} if task == "regression" else {}  # the labels tell the others
    model = Head(**requested) if given == "head" else given
    fit = fit_head(features, model, models=tmp_path, **({} if given == "head" else requested))
    assert fit.head.task_ == task
    if given != "auto":
        assert fit.head.kind == kind
        assert fit.path == tmp_path / f"pets--{kind}.safetensors"
        assert Head(kind, task=task).fit(features).C_ == fit.head.C_
    assert not any("promote" in note for note in fit.notes) or task == "classification"


def test_validation_images_are_kept_for_promotion_only_where_a_head_can_be_promoted(tmp_path: Path) -> None:
    for task, make in TASKS.items():
        features = make()
        features.splits[:20] = "val"
        notes = fit_head(features, task=task, models=tmp_path).notes
        end = ", but kept as the validation set of promote --finetune" if task == "classification" else ""
        assert f"20 images of split val were not used{end}" in notes


def test_a_class_to_evaluate_that_train_lacks_is_an_error_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "fit", lambda *_, **__: pytest.fail("a head was fitted"))
    features = photos()
    features.splits[(features.labels == 2) & (features.splits == "train")] = "pretrain"
    message = r"1 class has images in val or test but none in train: cat \(15 in test\)"
    with pytest.raises(HeadError, match=message):
        fit_head(features, Head("logreg"), models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kind_that_does_not_suit_the_task_is_an_error_before_the_fit(tmp_path: Path) -> None:
    with pytest.raises(
        HeadError, match="centroid cannot do multilabel; expected one of ridge, logreg, svm, linear, kn"
    ):
        fit_head(tagged(), Head("centroid"), models=tmp_path)


def test_without_a_held_out_split_cross_validation_alone_evaluates_the_head(tmp_path: Path) -> None:
    features = photos(test=0, gap=1.0)
    fit = fit_head(features, Head("logreg", C=0.1), cv=5, models=tmp_path)
    assert (fit.report, fit.picture) == (None, None)
    assert fit.cross_validated.n == 60
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))
    assert (found["n_test"], found["test_split"]) == (0, None)
    assert model_file.read_metadata(fit.path, HEAD)["report"] is None


def layered(path: Path, *, inner: float, last: float) -> Path:
    """Write a feature file of two classes whose means differ by ``inner`` and ``last`` in its two layers."""
    rng, y = np.random.default_rng(0), np.arange(80) % 2
    writer = FeatureFileWriter(
        path,
        images=ImageTable(
            paths=np.array([f"{row:03}.png".encode() for row in range(80)]),
            labels=y, splits=np.array([b"train"] * 60 + [b"test"] * 20), sizes=np.arange(80), mtimes=np.arange(80),
        ),
        classes=("a", "b"),
        layers={"inner": (4, "1" * 64), "penultimate": (6, "2" * 64)},
        dtype="float32", identity="3" * 64,
        backbone=photos().backbone, dataset={"name": "letters", "root": "/letters", "splits": "given"},
    )  # fmt: skip
    writer.publish()
    gaps = {"inner": (4, inner), "penultimate": (6, last)}
    vectors = {
        name: (rng.normal(size=(80, d)) + gap * y[:, None]).astype(np.float32) for name, (d, gap) in gaps.items()
    }
    writer.write(np.arange(80), rng.integers(0, 256, (80, 16), dtype=np.uint8), vectors)
    writer.finish()
    return path


@pytest.mark.parametrize(
    ("inner", "last", "selected"), [(3.0, 0.0, "inner"), (0.0, 3.0, "penultimate"), (1.0, 0.9, "penultimate")]
)
def test_the_best_layer_is_the_penultimate_unless_another_is_better_by_more_than_chance(
    inner: float, last: float, selected: str, tmp_path: Path
) -> None:
    path = layered(tmp_path / "f.h5", inner=inner, last=last)
    fit = fit_head(path, Head("ridge"), layer="best", cv=3, models=tmp_path)
    assert (fit.head.layer_, [line.kind for line in fit.layers]) == (selected, ["inner", "penultimate"])
    assert all(0 < line.error < line.loss for line in fit.layers)
    losses = {line.kind: line.loss for line in fit.layers}
    assert losses[selected] <= min(losses.values()) + max(line.error for line in fit.layers)
    assert any(note.startswith("the layer was chosen on training images that cross-valid") for note in fit.notes)
    assert [line["layer"] for line in fit.as_dict()["compared_layers"]] == ["inner", "penultimate"]
    plain = fit_head(path, Head("ridge"), layer=selected, models=tmp_path / "other")
    assert plain.as_dict()["accuracy"] == fit.as_dict()["accuracy"]
    assert not plain.layers
    others = [note for note in plain.notes if "the feature file holds inner too: --layer best compares them" in note]
    assert len(others) == (selected == "penultimate")
    assert not any("the feature file holds inner too" in note for note in fit.notes)


@pytest.mark.parametrize("options", [{}, {"cv": 3, "repeat": 2}, {"shots": (2,)}, {"layer": "best"}, {"model": "auto"}])
def test_one_fit_reads_the_table_of_groups_once(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layered(tmp_path / "f.h5", inner=3.0, last=3.0)
    rows = [f"{row:03}.png,p{row // 4}" for row in range(80)]
    (tmp_path / "groups.csv").write_text("\n".join(["path,patient", *rows]))
    read, read_cells = [], groups.read_cells
    monkeypatch.setattr(groups, "read_cells", lambda *args: read.append(args) or read_cells(*args))
    options = {"model": Head("ridge"), **options}
    fit = fit_head(path, group="patient", table=tmp_path / "groups.csv", models=tmp_path, **options)
    assert len(read) == 1
    assert fit.head.group_ == "patient"
    assert fit.as_dict()["group"] == "patient"
    assert Head.load(fit.path).group_ == "patient"


def test_a_loaded_head_gets_its_groups_where_features_have_none(tmp_path: Path) -> None:
    features = photos(train=60, test=40, gap=1.0, dataset={"name": "pets", "root": "photos", "splits": "hash"})
    rows = [f"{path},p{row // 3}" for row, path in enumerate(features.paths)]
    (tmp_path / "table.csv").write_text("\n".join(["path,patient", *rows]))
    features = dataclasses.replace(features, dataset={**features.dataset, "table": str(tmp_path / "table.csv")})
    fit = fit_head(features, Head("ridge"), group="patient", models=tmp_path)
    loaded = Head.load(fit.path)
    with pytest.raises(
        HeadError, match=r"fitted with the groups of the column 'patient', and these features have none; "
    ):
        loaded.evaluate(features)
    assert evaluate(loaded, features, split="test").as_dict() == fit.report.as_dict()
    assert loaded.evaluate(with_groups(features, loaded.group_)).as_dict() == fit.report.as_dict()
    plain = fit_head(features, Head("ridge"), models=tmp_path / "plain")  # whose splits are not made by group
    assert plain.head.evaluate(with_groups(features, "patient")).as_dict() == plain.report.as_dict()


def test_a_head_may_be_fitted_to_several_layers(tmp_path: Path) -> None:
    path = layered(tmp_path / "f.h5", inner=1.0, last=1.0)
    fit = fit_head(path, Head("ridge"), layer=("inner", "penultimate", "inner"), models=tmp_path)
    assert fit.head.layer_ == "inner,penultimate"
    assert fit.path.name == "f--inner+penultimate--ridge.safetensors"
    assert len(Head.load(fit.path).mean_) == 10


def test_cross_validation_of_the_head_that_auto_selected_notes_that_its_kind_was_chosen_on_the_same_images(
    tmp_path: Path,
) -> None:
    fit = fit_head(photos(), "auto", cv=3, models=tmp_path)
    assert (
        "the kind of head was chosen on training images that cross-validation evaluates too, so its result is optimistic"
        in fit.notes
    )
    assert fit.cross_validated.n == 105


def test_a_page_is_written_on_request(tmp_path: Path) -> None:
    fit = fit_head(photos(), Head("centroid"), report=True, models=tmp_path)
    assert fit.card == tmp_path / "pets--centroid.html"
    assert fit.as_dict()["card"] == str(fit.card)
    assert "centroid" in fit.card.read_text(encoding="utf-8")
    assert fit.head.held_out_ is not None
    assert fit_head(photos(), Head("centroid"), out=tmp_path / "plain").card is None


def test_a_head_is_fitted_to_all_views_that_the_file_has(two_views: Path, tmp_path: Path) -> None:
    fit = fit_head(two_views, Head("logreg"), cv=3, shots=(2,), models=tmp_path / "models")
    assert fit.path.name == "split--lenet5--flip--logreg.safetensors"
    facts = fit.as_dict()
    assert (facts["layer"], facts["views"]) == ("penultimate", "flip")
    assert (facts["n_train"], facts["n_test"]) == (32, 16)
    features = FeatureSet.load(two_views, "penultimate@flip")
    assert Head.load(fit.path).evaluate(features).as_dict() == fit.report.as_dict()
    assert fit.head.identity_ == features.identity
    assert fit.cross_validated.as_dict()["n"] == 48


def test_fewer_views_are_used_on_request(two_views: Path, tmp_path: Path) -> None:
    plain = fit_head(two_views, Head("logreg"), views="plain", models=tmp_path / "models")
    assert plain.path.name == "split--lenet5--logreg.safetensors"
    assert plain.as_dict()["views"] == "plain"
    assert plain.head.identity_ == FeatureSet.load(two_views).identity
    with pytest.raises(
        CacheMissError,
        match=r"has no layer 'penultimate@10crop', .*: featx extract .* --backbone lenet5 --layer hidden --views 10crop",
    ):
        fit_head(two_views, Head("logreg"), views="10crop", models=tmp_path / "models")


def test_layers_are_put_side_by_side_and_compared_in_all_views(two_views: Path, tmp_path: Path) -> None:
    both = fit_head(two_views, Head("logreg"), layer=["hidden", "penultimate"], models=tmp_path / "models")
    assert both.path.name == "split--lenet5--hidden+penultimate--flip--logreg.safetensors"
    assert (both.head.layer, both.head.views) == ("hidden,penultimate", "flip")
    found = fit_head(two_views, Head("logreg"), layer="best", models=tmp_path / "models")
    assert [line.kind for line in found.layers] == ["hidden", "penultimate"]
    assert (found.head.layer, found.head.views) == ("penultimate", "flip")


def test_a_head_has_the_options_that_are_given(tmp_path: Path) -> None:
    fit = fit_head(
        photos(train=200, gap=2.0), "svm", C=0.5, class_weight="balanced", target_precision=0.9, seed=3, models=tmp_path
    )
    assert (fit.head.kind, fit.head.C_, fit.head.class_weight, fit.head.seed) == ("svm", 0.5, "balanced", 3)
    assert fit.head.reject_below_ is not None
    same = fit_head(photos(gap=1.0), Head("ridge"), models=tmp_path)
    by_name = fit_head(photos(gap=1.0), "ridge", models=tmp_path)
    assert by_name.report.as_dict() == same.report.as_dict()


def test_the_newest_feature_file_is_fitted_to_where_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    path = layered(tmp_path / "cache" / "f.h5", inner=1.0, last=3.0)
    fit = fit_head(model="centroid", cache=tmp_path / "cache", models=tmp_path)
    assert (fit.features, fit.path.name) == (path, "f--centroid.safetensors")
    with pytest.raises(CacheMissError, match=r"there is no folder .*nowhere|there is no feature file in .*nowhere"):
        fit_head(cache=tmp_path / "nowhere")


# Typed labels of a table


def typed_table(folder: Path, *labels: object) -> Path:
    """A table of JSON lines that gives these labels to the images of a folder in turn."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    rows = [{"path": name, "label": labels[number % len(labels)]} for number, name in enumerate(names)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "t.jsonl"


def test_lists_of_labels_in_a_table_are_several_labels_of_a_head(request: pytest.FixtureRequest, in_tmp: Path) -> None:
    file = extract(typed_table(request.getfixturevalue("photos"), ["y", "x"], ["x"], [], None), "lenet5").file
    fit = fit_head(file, "ridge")
    assert (fit.head.task_, fit.head.classes_) == ("multilabel", ("x", "y"))
    assert FeatureSet.load(file).classes == ("x", "x|y", "|")
    assert fit.unlabelled is not None


def test_numbers_of_a_table_need_the_task_named(request: pytest.FixtureRequest, in_tmp: Path) -> None:
    file = extract(typed_table(request.getfixturevalue("photos"), *(number / 2 for number in range(13))), "lenet5").file
    with pytest.raises(
        HeadError, match=r"13 different numbers on 40 images of t\.jsonl, .* --task classification or --task reg"
    ):
        fit_head(file)
    assert fit_head(file, "ridge", task="regression").head.task_ == "regression"
    assert len(fit_head(file, "centroid", task="classification", cv=2).head.classes_) == 13


def test_numbers_given_in_python_are_a_regression_whose_head_is_ridge(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    numbers = FeatureSet.from_arrays(X, X @ np.array([1.0, -2.0, 0.5, 0.0]))
    fit = fit_head(numbers, cv=0, models=tmp_path)
    assert (fit.head.kind, fit.head.task_) == ("ridge", "regression")
    assert fit.report.r2 > 0.99
    with pytest.raises(HeadError, match="logreg cannot do regression"):
        fit_head(numbers, "logreg", models=tmp_path)


def test_a_regression_takes_no_calibration(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="calibrate has no effect on a regression, which has no probabilities"):
        fit_head(measured(), Head("ridge", task="regression", calibrate="isotonic"), models=tmp_path)
