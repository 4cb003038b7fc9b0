"""Folds that a column of the table names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listings import words
from task_features import photos

from featx.errors import FoldError, HeadError, SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.folds import predefined_folds
from featx.heads.head import Head
from featx.workflows.fit import fit_head

GROUPS = np.array([f"g{row // 2}" for row in range(240)], dtype=object)


def in_folds(*names: str, **options: Any) -> FeatureSet:
    """Photographs whose folds repeat some names."""
    features = photos(train=60, test=20, **options)
    cells = np.array([names[row % len(names)] for row in range(len(features))], dtype=object)
    return dataclasses.replace(features, columns={"fold": cells})


def test_folds_are_those_of_scikit_learn() -> None:
    split = pytest.importorskip("sklearn.model_selection").PredefinedSplit
    names = np.random.default_rng(0).integers(-1, 12, 100)
    ours = predefined_folds(np.array(list(map(str, names)), dtype=object))
    for (train, test), (name, (own_train, own_test)) in zip(split(names).split(), ours.items(), strict=True):
        assert name == str(names[test[0]])
        np.testing.assert_array_equal(own_train, train)
        np.testing.assert_array_equal(own_test, test)


def test_rows_without_a_fold_are_always_trained_on() -> None:
    ((train, test),) = predefined_folds(words("a", "", "-1", "a")).values()
    assert (train.tolist(), test.tolist()) == ([1, 2], [0, 3])


@pytest.mark.parametrize(
    ("names", "fault"), [(["", "-1"], "no image names a fold"), (["a", "a"], "every image is in the fold 'a'")]
)
def test_folds_that_cannot_judge_are_refused(names: list[str], fault: str) -> None:
    with pytest.raises(FoldError, match=fault):
        predefined_folds(words(*names))


def test_a_head_is_judged_by_the_folds_of_a_column(tmp_path: Path) -> None:
    features = in_folds("2", "10", "-1", "2", "10", "7", "2")
    fit = fit_head(features, Head("ridge"), cv="fold", models=tmp_path)
    result = fit.cross_validated
    assert result is not None
    assert (result.column, result.fold_names, result.repeats) == ("fold", ("2", "7", "10"), 1)
    rows = [np.flatnonzero(features.columns["fold"] == name) for name in ("2", "7", "10")]
    assert result.n == sum(map(len, rows))
    for value, test in zip(result.values["accuracy"][0], rows, strict=True):
        head = Head("ridge").fit(features, rows=np.setdiff1d(np.arange(len(features)), test))
        assert value == head.evaluate(features, rows=test).accuracy
    assert str(result).startswith(f"Cross-validated: 3 folds of {result.n} images, by the column 'fold'\n")
    assert fit.as_dict()["cross_validated"]["fold_names"] == ["2", "7", "10"]
    assert any("are in no fold of the column 'fold'" in note for note in result.notes)


def test_folds_that_tear_groups_apart_are_noted(tmp_path: Path) -> None:
    features = dataclasses.replace(in_folds("a", "b"), groups=GROUPS, group="patient")
    features = dataclasses.replace(features, splits=np.full(240, "train", dtype=object))
    result = fit_head(features, Head("ridge"), cv="fold", models=tmp_path).cross_validated
    assert result is not None
    assert result.notes[0].startswith(
        "120 groups (copies of an image, or images of one value of --group) lie in several folds"
    )


def test_a_column_that_names_no_folds_is_refused(tmp_path: Path) -> None:
    features = in_folds("a", "b")
    with pytest.raises(HeadError, match=r"no table to read the column 'other' from"):
        fit_head(features, Head("ridge"), cv="other", models=tmp_path)
    by_class = dataclasses.replace(
        features, columns={"fold": np.array(features.classes, dtype=object)[features.labels]}
    )
    with pytest.raises(HeadError, match="--cv fold, the fold 'ant' holds all images of ant, so no head could learn"):
        fit_head(by_class, Head("ridge"), cv="fold", models=tmp_path)
    with pytest.raises(SettingsError, match=r"repeat has no effect on the folds of a column \(fold\)"):
        fit_head(features, Head("ridge"), cv="fold", repeat=2, models=tmp_path)
