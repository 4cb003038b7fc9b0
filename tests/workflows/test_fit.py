"""A head fitted, judged and saved by one call, alone or the best of all kinds; cross-validated, and on few images."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import EVERY_HEAD, Recorder, in_views, new, photos, with_labels

from featx.backbones.backbone import load_backbone
from featx.errors import CacheMissError, FoldError, HeadError, OutputError
from featx.extraction.pipeline import extract
from featx.features.feature_file import ImageTable
from featx.features.feature_set import FeatureSet
from featx.features.writer import FeatureFileWriter
from featx.heads import groups
from featx.heads.estimators import mlp, svm
from featx.heads.folds import draw_shots, make_folds
from featx.heads.groups import with_groups
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.search import search
from featx.heads.training_data import TrainingData
from featx.inference import evaluate
from featx.io import atomic, model_file
from featx.layer_spec import by_depth
from featx.workflows import head_files
from featx.workflows.fit import fit_head


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need; tests/test_minibatch.py is about the others."""
    monkeypatch.setattr(mlp, "EPOCHS", 10)


def tagged() -> FeatureSet:
    """Images with any of the labels cat and dog, each by a feature of its own."""
    features = photos(classes=("x",), train=100, test=60, gap=0.0)
    has = features.features[:, :2] > 0.3
    return with_labels(features, ["|".join(np.array(["cat", "dog"])[row]) or "|" for row in has])


def measured() -> FeatureSet:
    """Images with a number each."""
    features = photos(classes=("x",), train=100, test=60, gap=0.0)
    return with_labels(features, [f"{x:.3f}" for x in features.features[:, 0] - 2 * features.features[:, 1]])


TASKS: dict[str, Callable[[], FeatureSet]] = {
    "classification": lambda: photos(gap=1.0),
    "multilabel": tagged,
    "regression": measured,
}


# One head


def test_fit_head_writes_the_head_its_report_and_a_picture(tmp_path: Path) -> None:
    features = photos()
    features.splits[60:63] = "pretrain"
    fit = fit_head(features, Head("svm", C=0.1), models=tmp_path / "models")
    assert fit.path == tmp_path / "models" / "pets--svm.safetensors"
    assert fit.picture == tmp_path / "models" / "pets--svm.png"
    assert sorted(p.name for p in fit.path.parent.iterdir()) == ["pets--svm.png", "pets--svm.safetensors"]
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


@pytest.mark.parametrize(
    ("head", "changes", "name"),
    [
        (Head("logreg", C=1.0), {"source": Path("cache/pets--lenet5.h5")}, "pets--lenet5--logreg.safetensors"),
        (Head("svm", C=1.0, kernel="rbf"), {"layer": "pool"}, "pets--pool--svm-rbf.safetensors"),
        (Head("centroid"), {"dataset": {}}, "features--centroid.safetensors"),
    ],
)
def test_a_head_is_named_after_its_features_layer_and_kind(
    head: Head, changes: dict[str, Any], name: str, tmp_path: Path
) -> None:
    assert fit_head(photos(**changes), head, models=tmp_path).path.name == name


def test_the_picture_does_not_take_the_place_of_the_head(tmp_path: Path) -> None:
    for name in ("head.png", "head.html"):
        with pytest.raises(
            OutputError, match=f"{name} is where the head's picture or page goes; name a file that ends in"
        ):
            fit_head(photos(), Head("centroid"), out=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said_before_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_room_for_the_whole_head_is_asked_for_before_the_fit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = photos(train=300, dim=40)
    asked = []
    monkeypatch.setattr(atomic, "require_writable", lambda path, need=0: asked.append(need))
    size = fit_head(features, new(name), models=tmp_path).path.stat().st_size
    assert mlp.MlpEstimator.width == head_files.HIDDEN_UNITS
    assert 0.5 * size < asked[0] < 3 * size


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


def test_fit_head_without_anything_to_judge_by_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="there is no held-out split"):
        fit_head(photos(test=0), Head("centroid"), models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fit_head_of_a_feature_file_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"none\.h5"):
        fit_head(tmp_path / "none.h5", Head("centroid"), models=tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_heads_of_every_task_are_fitted_judged_and_saved(task: str, tmp_path: Path) -> None:
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


def test_a_class_to_be_judged_that_train_lacks_is_said_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "fit", lambda *_, **__: pytest.fail("a head was fitted"))
    features = photos()
    features.splits[(features.labels == 2) & (features.splits == "train")] = "pretrain"
    message = r"1 classes have images in val or test but none in train: cat \(15 in test\)"
    with pytest.raises(HeadError, match=message):
        fit_head(features, Head("logreg"), models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kind_that_does_not_suit_the_task_is_said_before_the_fit(tmp_path: Path) -> None:
    with pytest.raises(
        HeadError, match="centroid cannot do multilabel; expected one of ridge, logreg, svm, linear, kn"
    ):
        fit_head(tagged(), Head("centroid"), models=tmp_path)


# Images without a label


def unlabelled(features: FeatureSet, rows: Sequence[int]) -> FeatureSet:
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
    assert fit.unlabelled == tmp_path / "pets--logreg--unlabelled.csv"
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


def test_predictions_are_lists_numbers_or_nothing_as_the_head_says(tmp_path: Path) -> None:
    rows = [0, 5, 7]
    fit = fit_head(unlabelled(tagged(), rows), Head("ridge"), out=tmp_path / "labels")
    for (_, labels, p), features in zip(read_csv(fit.unlabelled)[1:], tagged().features[rows], strict=True):
        (said,) = fit.head.predict(features[None])
        assert labels == ("|".join(said) or "|")
        assert len(p.split()) == len(said)
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


# Cross-validation


@pytest.mark.parametrize("task", TASKS)
def test_cross_validation_is_what_a_loop_by_hand_gives(task: str, tmp_path: Path) -> None:
    features = TASKS[task]()
    fit = fit_head(features, Head("ridge", task=task, seed=3), cv=4, repeat=2, models=tmp_path)
    rows = np.arange(len(features))
    strata = None if task == "regression" else features.labels
    if task == "multilabel":
        strata = np.array([[name in features.classes[i] for name in ("cat", "dog")] for i in features.labels])
    key = next(iter(fit.cross_validated.values))
    found = []
    for turn in range(2):
        for train, test in make_folds(strata, rows, folds=4, seed=3, repeat=turn):
            head = Head("ridge", task=task, seed=3).fit(features, rows=train)
            found.append(head.evaluate(features, rows=test).metrics[key])
    crossed = fit.cross_validated
    np.testing.assert_array_equal(crossed.values[key].ravel(), found)
    assert (crossed.repeats, crossed.folds, crossed.n) == (2, 4, len(features))
    assert crossed.mean(key) == pytest.approx(np.mean(found))
    assert crossed.deviation(key) == pytest.approx(np.std(found, ddof=1))
    kept = fit.as_dict()["cross_validated"]
    assert kept["metrics"][key]["mean"] == pytest.approx(np.mean(found))


def test_in_each_fold_the_hyper_parameter_is_chosen_without_the_rows_that_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def spy(model: Any, training: TrainingData, **options: Any) -> Any:
        seen.append(training.rows.index)
        return search(model, training, **options)

    monkeypatch.setattr("featx.heads.fitting.search", spy)
    judged: list[np.ndarray] = []
    evaluate = Head.evaluate

    def judge(head: Head, features: FeatureSet, **options: Any) -> Any:
        judged.append(options["rows"])
        return evaluate(head, features, **options)

    monkeypatch.setattr(Head, "evaluate", judge)
    features = photos(gap=1.0)
    fit_head(features, Head("logreg"), cv=3, models=tmp_path)
    assert len(seen) == 1 + 3
    np.testing.assert_array_equal(np.sort(np.concatenate(judged)), np.arange(len(features)))
    for chosen_on, rows in zip(seen[1:], judged, strict=True):
        np.testing.assert_array_equal(np.union1d(chosen_on, rows), np.arange(len(features)))
        assert not len(np.intersect1d(chosen_on, rows))


def test_groups_straddle_no_fold_of_a_cross_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = photos(gap=1.0)
    patients = np.array([f"p{row // 6}" for row in range(60)] + [f"q{row // 5}" for row in range(45)])
    lines = [f"{path},{patient}" for path, patient in zip(features.paths, patients, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["path,patient", *lines]))
    features = dataclasses.replace(features, dataset={**features.dataset, "table": str(tmp_path / "table.csv")})
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    fit, evaluate = Head.fit, Head.evaluate
    monkeypatch.setattr(Head, "fit", lambda head, *a, **o: pairs.append([o.get("rows")]) or fit(head, *a, **o))
    monkeypatch.setattr(Head, "evaluate", lambda head, *a, **o: pairs[-1].append(o["rows"]) or evaluate(head, *a, **o))
    fit_head(features, Head("ridge"), group="patient", cv=5, models=tmp_path)
    assert len(pairs) == 6
    for train, test in pairs[1:]:
        assert not set(patients[train]) & set(patients[test])


def test_without_a_held_out_split_cross_validation_judges_alone(tmp_path: Path) -> None:
    features = photos(test=0, gap=1.0)
    fit = fit_head(features, Head("logreg", C=0.1), cv=5, models=tmp_path)
    assert (fit.report, fit.picture) == (None, None)
    assert fit.cross_validated.n == 60
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))
    assert (found["n_test"], found["test_split"]) == (0, None)
    assert model_file.read_metadata(fit.path, HEAD)["report"] is None


def test_images_that_no_fold_can_judge_are_counted(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    features = features.take(np.setdiff1d(np.arange(105), np.flatnonzero(features.labels == 2)[1:]))
    (note,) = fit_head(features, Head("ridge"), cv=5, models=tmp_path).cross_validated.notes[:1]
    assert note == "1 images are the only ones of their class, or grouped with them, and are not evaluated"


def test_what_cannot_be_cross_validated_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        HeadError, match="no class has two images that may be in different folds, so nothing can be cross-val"
    ):
        fit_head(photos(train=1, test=0), Head("ridge"), cv=5, models=tmp_path)


# Few images


def test_few_shots_are_heads_on_drawn_rows_judged_on_the_held_out_split(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    told = Recorder()
    fit = fit_head(features, Head("ridge", seed=5), shots=(1, 4), repeat=3, models=tmp_path, reporter=told)
    assert [n for n, _ in fit.shots] == [1, 4]
    for shots, result in fit.shots:
        found = []
        for turn in range(3):
            drawn = draw_shots(features.labels[:60], shots=shots, classes=features.classes, seed=5, repeat=turn)
            head = Head("ridge", seed=5).fit(features, rows=drawn)
            assert head.n_train_ == 3 * shots
            found.append(head.evaluate(features, split="test").accuracy)
        np.testing.assert_array_equal(result.values["accuracy"].ravel(), found)
        assert (result.repeats, result.n) == (3, 45)
    assert fit.shots_picture == tmp_path / "pets--ridge--shots.png"
    assert fit.shots_picture.read_bytes().startswith(b"\x89PNG")
    assert [line["shots"] for line in fit.as_dict()["shots"]] == [1, 4]
    assert told.calls == [(n, 7) for n in range(1, 8)]


@pytest.mark.parametrize(
    ("made", "shots", "message"),
    [
        (lambda: photos(train=3), 4, r"4 shots are more than the training images of 3 of 3 classes: ant \(3\)"),
        (measured, 1, "--shots draws images of each class; it is not for regression"),
        (lambda: photos(test=0), 1, "--shots evaluates on a held-out split, and there is none"),
    ],
)
def test_shots_that_cannot_be_drawn_or_judged_are_refused(
    made: Callable[[], FeatureSet], shots: int, message: str, tmp_path: Path
) -> None:
    features = made()
    task = "regression" if len(features.classes) > 3 else "auto"
    cv = None if "test" in features.splits else 3
    with pytest.raises((HeadError, FoldError), match=message):
        fit_head(features, Head("ridge", task=task), shots=(shots,), cv=cv, models=tmp_path)


# The best of all


def layered(path: Path, *, inner: float, last: float) -> Path:
    """A feature file of two classes that are so far apart in an inner and in the penultimate layer."""
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
    ("inner", "last", "kept"), [(3.0, 0.0, "inner"), (0.0, 3.0, "penultimate"), (1.0, 0.9, "penultimate")]
)
def test_the_best_layer_is_the_penultimate_unless_another_is_better_by_more_than_chance(
    inner: float, last: float, kept: str, tmp_path: Path
) -> None:
    path = layered(tmp_path / "f.h5", inner=inner, last=last)
    fit = fit_head(path, Head("ridge"), layer="best", cv=3, models=tmp_path)
    assert (fit.head.layer_, [line.kind for line in fit.layers]) == (kept, ["inner", "penultimate"])
    assert all(0 < line.error < line.loss for line in fit.layers)
    losses = {line.kind: line.loss for line in fit.layers}
    assert losses[kept] <= min(losses.values()) + max(line.error for line in fit.layers)
    assert any(note.startswith("the layer was chosen on training images that cross-valid") for note in fit.notes)
    assert [line["layer"] for line in fit.as_dict()["compared_layers"]] == ["inner", "penultimate"]
    plain = fit_head(path, Head("ridge"), layer=kept, models=tmp_path / "other")
    assert plain.as_dict()["accuracy"] == fit.as_dict()["accuracy"]
    assert not plain.layers


@pytest.mark.parametrize("options", [{}, {"cv": 3, "repeat": 2}, {"shots": (2,)}, {"layer": "best"}, {"model": "auto"}])
def test_one_fit_reads_the_table_of_groups_once(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layered(tmp_path / "f.h5", inner=3.0, last=3.0)
    rows = [f"{row:03}.png,p{row // 4}" for row in range(80)]
    (tmp_path / "groups.csv").write_text("\n".join(["path,patient", *rows]))
    read, read_table = [], groups.read_table
    monkeypatch.setattr(groups, "read_table", lambda *args: read.append(args) or read_table(*args))
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


@pytest.mark.parametrize("task", TASKS)
def test_auto_compares_every_kind_and_keeps_the_simplest_within_one_standard_error(task: str, tmp_path: Path) -> None:
    told = Recorder()
    fit = fit_head(TASKS[task](), "auto", task=task, models=tmp_path, reporter=told)
    names = [line.kind for line in fit.compared]
    expected = ["centroid", "ridge", "logreg", "svm", "knn", "svm-rbf", "mlp"]
    unsuited = {"classification": (), "multilabel": ("centroid",), "regression": ("centroid", "logreg")}[task]
    assert names == [name for name in expected if name not in unsuited]
    assert all(math.isfinite(line.loss) and line.error > 0 and not line.why for line in fit.compared)
    best = min(fit.compared, key=lambda line: line.loss)
    kept = next(line for line in fit.compared if line.loss <= best.loss + best.error)
    assert kept.kind == (f"{fit.head.kind}-rbf" if fit.head.kernel == "rbf" else fit.head.kind)
    assert kept.loss == pytest.approx(min(t.loss for t in fit.head.search_))
    assert kept.value == pytest.approx(fit.head.held_out_.headline[1])
    assert fit.path == tmp_path / "pets--auto.safetensors"
    assert Head.load(fit.path).kind == fit.head.kind
    assert [line["kind"] for line in json.loads(json.dumps(fit.as_dict(), allow_nan=False))["compared"]] == names
    assert told.calls == [(n, len(names)) for n in range(1, len(names) + 1)]


def test_auto_prefers_a_simple_head_to_one_that_is_hardly_better(tmp_path: Path) -> None:
    fit = fit_head(photos(gap=1.5), "auto", models=tmp_path)
    best = min(fit.compared, key=lambda line: line.loss)
    assert fit.compared[0].loss <= best.loss + best.error
    assert fit.compared[0].loss > best.loss
    assert fit.head.kind == "centroid"


def test_auto_takes_a_kernel_where_nothing_straight_will_do(tmp_path: Path) -> None:
    features = photos(classes=("in", "out"), train=100, test=60, dim=2, gap=0.0)
    far = (features.features**2).sum(axis=1) > 1.4
    features = dataclasses.replace(features, labels=far.astype(np.int64))
    fit = fit_head(features, "auto", models=tmp_path)
    assert fit.head.kind in ("knn", "svm", "mlp")
    assert fit.head.kind != "svm" or fit.head.kernel == "rbf"
    assert fit.report.accuracy > 0.85


def test_a_kind_that_fails_stands_in_the_table_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "MAX_ROWS", 10)
    fit = fit_head(photos(), "auto", models=tmp_path)
    (failed,) = [line for line in fit.compared if line.why]
    assert failed.kind == "svm-rbf"
    assert failed.why.startswith("60 rows are too many for a support vector machine with a kernel")
    assert failed.cells() == ("svm-rbf", failed.why, "", "", "", "")
    assert math.isnan(failed.loss)
    assert len(fit.compared) == 7


def test_where_no_kind_can_be_fitted_the_first_reason_is_said(tmp_path: Path) -> None:
    features = photos()
    features.features[1, 2] = np.nan
    with pytest.raises(
        HeadError, match="no kind of head could be fitted: 1 rows of features of the split 'train' are Na"
    ):
        fit_head(features, "auto", models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_compared_auto_takes_the_simplest(tmp_path: Path) -> None:
    fit = fit_head(photos(train=1, gap=30.0), "auto", models=tmp_path)
    assert fit.head.kind == "centroid"
    assert all(math.isnan(line.loss) for line in fit.compared)
    json.dumps(fit.as_dict(), allow_nan=False)


def test_cross_validation_of_what_auto_kept_says_that_the_kind_was_chosen_on_the_same_images(tmp_path: Path) -> None:
    fit = fit_head(photos(), "auto", cv=3, models=tmp_path)
    assert (
        "the kind of head was chosen on training images that cross-validation evaluates too, so its result is optimistic"
        in fit.notes
    )
    assert fit.cross_validated.n == 105


# The page


def test_a_page_is_written_where_one_is_asked_for(tmp_path: Path) -> None:
    fit = fit_head(photos(), Head("centroid"), report=True, models=tmp_path)
    assert fit.card == tmp_path / "pets--centroid.html"
    assert fit.as_dict()["card"] == str(fit.card)
    assert "centroid" in fit.card.read_text(encoding="utf-8")
    assert fit.head.held_out_ is not None
    assert fit_head(photos(), Head("centroid"), out=tmp_path / "plain").card is None


def test_layers_are_listed_from_the_input_on() -> None:
    names = ["penultimate", "features.11", "features.3", "features.3:max", "layer2", "features.1"]
    assert sorted(names, key=by_depth) == [
        "features.1", "features.3", "features.3:max", "features.11", "layer2", "penultimate"
    ]  # fmt: skip


# Several views of each image


@pytest.fixture
def seen(split_photos: Path, tmp_path: Path) -> Path:
    """A file of two layers in two views."""
    backbone = load_backbone("lenet5", layers=("hidden",), views="flip", device="cpu")
    return extract(split_photos, backbone, cache=tmp_path / "cache").file


def test_a_head_is_fitted_to_all_views_that_the_file_has(seen: Path, tmp_path: Path) -> None:
    fit = fit_head(seen, Head("logreg"), cv=3, shots=(2,), models=tmp_path / "models")
    assert fit.path.name == "split--lenet5--flip--logreg.safetensors"
    said = fit.as_dict()
    assert (said["layer"], said["views"]) == ("penultimate", "flip")
    assert (said["n_train"], said["n_test"]) == (32, 16)
    features = FeatureSet.load(seen, "penultimate@flip")
    assert Head.load(fit.path).evaluate(features).as_dict() == fit.report.as_dict()
    assert fit.head.identity_ == features.identity
    assert fit.cross_validated.as_dict()["n"] == 48


def test_fewer_views_are_taken_where_they_are_asked_for(seen: Path, tmp_path: Path) -> None:
    plain = fit_head(seen, Head("logreg"), views="plain", models=tmp_path / "models")
    assert plain.path.name == "split--lenet5--logreg.safetensors"
    assert plain.as_dict()["views"] == "plain"
    assert plain.head.identity_ == FeatureSet.load(seen).identity
    with pytest.raises(
        CacheMissError, match=r"has no layer 'penultimate@top-left', .*; featx extract --views 10crop adds it"
    ):
        fit_head(seen, Head("logreg"), views="10crop", models=tmp_path / "models")


def test_layers_are_put_side_by_side_and_compared_in_all_views(seen: Path, tmp_path: Path) -> None:
    both = fit_head(seen, Head("logreg"), layer=["hidden", "penultimate"], models=tmp_path / "models")
    assert both.path.name == "split--lenet5--hidden+penultimate--flip--logreg.safetensors"
    assert (both.head.layer, both.head.views) == ("hidden,penultimate", "flip")
    found = fit_head(seen, Head("logreg"), layer="best", models=tmp_path / "models")
    assert [line.kind for line in found.layers] == ["hidden", "penultimate"]
    assert (found.head.layer, found.head.views) == ("penultimate", "flip")


def test_every_kind_is_compared_in_all_views(seen: Path, tmp_path: Path) -> None:
    fit = fit_head(seen, "auto", models=tmp_path / "models")
    assert all(not line.why for line in fit.compared)
    assert fit.head.views == "flip"


def test_images_without_a_label_are_predicted_once(seen: Path, tmp_path: Path) -> None:
    features = FeatureSet.load(seen, "penultimate@flip")
    features.labels[::5] = -1
    fit = fit_head(features, Head("logreg"), models=tmp_path / "models")
    lines = list(csv.reader(fit.unlabelled.read_text().splitlines()))[1:]
    assert [path for path, _, _ in lines] == features.paths[::5].tolist()
    out = fit.head.predict_values(features.features[::5])
    np.testing.assert_allclose([float(p) for _, _, p in lines], out.max(axis=1), atol=1e-6)


@EVERY_HEAD
def test_room_for_a_head_on_views_is_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(atomic, "require_writable", lambda path, need=0: asked.append(need))
    size = fit_head(in_views(photos(train=300, dim=40)), new(name), models=tmp_path).path.stat().st_size
    assert 0.3 * size < asked[0] < 3 * size


# By the options of the command


def test_a_head_is_made_of_the_options_that_are_given(tmp_path: Path) -> None:
    fit = fit_head(
        photos(gap=1.0), "svm", C=0.5, class_weight="balanced", target_precision=0.9, seed=3, models=tmp_path
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
