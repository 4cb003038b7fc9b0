"""Cross-validation and few-shot evaluation of a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import Recorder, photos
from task_features import TASKS, measured

from featx.errors import FoldError, HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.folds import draw_shots, make_folds
from featx.heads.head import Head
from featx.heads.search import search
from featx.heads.training_data import TrainingData
from featx.workflows.fit import fit_head


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
    summary = fit.as_dict()["cross_validated"]
    assert summary["metrics"][key]["mean"] == pytest.approx(np.mean(found))


def test_in_each_fold_the_hyper_parameter_is_chosen_without_the_held_out_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched_rows: list[np.ndarray] = []

    def spy(model: Any, training: TrainingData, **options: Any) -> Any:
        searched_rows.append(training.rows.index)
        return search(model, training, **options)

    monkeypatch.setattr("featx.heads.fitting.search", spy)
    evaluated_rows: list[np.ndarray] = []
    judge = Head.judge

    def judge_and_record(head: Head, features: FeatureSet, **options: Any) -> Any:
        evaluated_rows.extend([options["rows"]] if "rows" in options else [])
        return judge(head, features, **options)

    monkeypatch.setattr(Head, "judge", judge_and_record)
    features = photos(gap=1.0)
    fit_head(features, Head("logreg"), cv=3, models=tmp_path)
    assert len(searched_rows) == 1 + 3
    np.testing.assert_array_equal(np.sort(np.concatenate(evaluated_rows)), np.arange(len(features)))
    for chosen_on, rows in zip(searched_rows[1:], evaluated_rows, strict=True):
        np.testing.assert_array_equal(np.union1d(chosen_on, rows), np.arange(len(features)))
        assert not len(np.intersect1d(chosen_on, rows))


def test_groups_straddle_no_fold_of_a_cross_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = photos(gap=1.0)
    patients = np.array([f"p{row // 6}" for row in range(60)] + [f"q{row // 5}" for row in range(45)])
    lines = [f"{path},{patient}" for path, patient in zip(features.paths, patients, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["path,patient", *lines]))
    features = dataclasses.replace(features, dataset={**features.dataset, "table": str(tmp_path / "table.csv")})
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    fit, judge = Head.fit, Head.judge
    monkeypatch.setattr(Head, "fit", lambda head, *a, **o: pairs.append([o.get("rows")]) or fit(head, *a, **o))
    monkeypatch.setattr(Head, "judge", lambda head, *a, **o: pairs[-1].append(o.get("rows")) or judge(head, *a, **o))
    fit_head(features, Head("ridge"), group="patient", cv=5, models=tmp_path)
    assert len(pairs) == 6
    for train, test in pairs[1:]:
        assert not set(patients[train]) & set(patients[test])


def test_images_that_no_fold_can_evaluate_are_counted(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    features = features.take(np.setdiff1d(np.arange(105), np.flatnonzero(features.labels == 2)[1:]))
    fit = fit_head(features, Head("ridge"), cv=5, models=tmp_path)
    note = fit.cross_validated.notes[0]
    assert note == (
        "cross-validation leaves out what it cannot judge: 1 image is the only one of its class, or grouped with all others "
        "of it"
    )
    assert note in fit.notes


def test_data_that_cannot_be_cross_validated_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="cross-validation needs two classes or more, each with two images"):
        fit_head(photos(train=1, test=0), Head("ridge"), cv=5, models=tmp_path)


def test_few_shot_heads_are_fitted_to_drawn_rows_and_evaluated_on_the_held_out_split(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    recorder = Recorder()
    fit = fit_head(features, Head("ridge", seed=5), shots=(1, 4), repeat=3, models=tmp_path, reporter=recorder)
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
    assert fit.shots_picture == tmp_path / "pets--ridge--seed5--shots.png"
    assert fit.shots_picture.read_bytes().startswith(b"\x89PNG")
    assert [line["shots"] for line in fit.as_dict()["shots"]] == [1, 4]
    assert recorder.calls == [(n, 7) for n in range(1, 8)]


@pytest.mark.parametrize(
    ("made", "shots", "message"),
    [
        (lambda: photos(train=3), 4, r"4 shots are more than the training images of 3 of 3 classes: ant \(3\)"),
        (measured, 1, "--shots draws images of each class; it is not for regression"),
        (lambda: photos(test=0), 1, "--shots evaluates on a held-out split, and there is none"),
    ],
)
def test_shots_that_cannot_be_drawn_or_evaluated_are_refused(
    made: Callable[[], FeatureSet], shots: int, message: str, tmp_path: Path
) -> None:
    features = made()
    task = "regression" if len(features.classes) > 3 else "auto"
    cv = None if "test" in features.splits else 3
    with pytest.raises((HeadError, FoldError), match=message):
        fit_head(features, Head("ridge", task=task), shots=(shots,), cv=cv, models=tmp_path)


def test_few_images_and_folds_need_no_threshold_of_a_target_precision(tmp_path: Path) -> None:
    features = photos(train=200, gap=2.0)
    options = {"shots": (1, 4), "repeat": 2, "cv": 3, "models": tmp_path}
    fit = fit_head(features, "ridge", target_precision=0.9, **options)
    without = fit_head(features, "ridge", **options)
    assert fit.head.reject_below_ is not None
    for (_, one), (_, other) in zip(fit.shots, without.shots, strict=True):
        np.testing.assert_array_equal(one.values["accuracy"], other.values["accuracy"])
    one, other = (dict(each.cross_validated.as_dict(), seconds=0) for each in (fit, without))
    assert one == other


def test_what_fails_on_few_images_names_the_shots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Head.fit

    def fails_on_few(head: Head, features: FeatureSet, **options: Any) -> Head:
        if options.get("rows") is not None:
            raise HeadError("no")
        return fit(head, features, **options)

    monkeypatch.setattr(Head, "fit", fails_on_few)
    with pytest.raises(HeadError, match=r"^--shots 4, a head fitted to 4 images of each class: no$"):
        fit_head(photos(gap=1.0), "ridge", shots=(4,), models=tmp_path)
