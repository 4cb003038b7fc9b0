from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import photos

from featx.constants import KINDS, TASKS, ZERO_SHOT
from featx.errors import CorruptFileError, HeadError
from featx.heads.head import Head
from featx.heads.predictors import LinearPredictor
from featx.heads.registry import (
    HEAD_KINDS,
    MAX_BILINEAR_ROWS,
    MAX_RBF_ROWS,
    EstimatorOptions,
    HeadKind,
    auto_candidates,
    get_kind,
    kind_names,
    predictor_classes,
    register_head,
)
from featx.heads.training_data import Estimator, Rows, TrainingData, fold_by_fold

EVERY = [
    (name, task, kernel)
    for name, kind in HEAD_KINDS.items()
    if kind.is_fitted
    for task in kind.tasks
    for kernel in (("linear", "rbf") if name == "svm" else ("linear",))
]


def estimator(name: str, task: str, kernel: str = "linear") -> Estimator:
    return get_kind(name).estimator(EstimatorOptions(task, kernel))


def draw(task: str) -> TrainingData:
    """Twelve rows of four features, three classes, labels or one number."""
    rng = np.random.default_rng(0)
    y = {
        "classification": np.arange(12) % 3,
        "multilabel": (np.arange(12)[:, None] % [2, 3, 4] == 0).astype(np.float32),
        "regression": rng.normal(size=(12, 1)),
    }[task]
    count = 1 if task == "regression" else 3
    folds = tuple((np.setdiff1d(np.arange(12), test), test) for test in np.array_split(rng.permutation(12), 2))
    return TrainingData(Rows(rng.normal(size=(12, 4))), y, count, task, np.ones(12), folds)


def test_every_kind_that_can_be_named_is_known() -> None:
    assert HEAD_KINDS.keys() == {*KINDS, ZERO_SHOT}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "tree"},
            "there is no head 'tree'; expected one of logreg, linear, svm, ridge, knn, centroid, bilinear, mlp",
        ),
        ({"name": "svm", "kernel": "poly"}, "kernel is 'poly' for svm; expected linear or rbf, and only for svm"),
        ({"name": "ridge", "kernel": "rbf"}, "kernel is 'rbf' for ridge; expected linear or rbf, and only for svm"),
        (
            {"name": "centroid", "task": "regression"},
            "centroid cannot do regression; expected one of ridge, svm, linear, knn, bilinear, mlp",
        ),
        ({"name": "logreg", "task": "regression"}, "logreg cannot do regression"),
        ({"name": "centroid", "task": "multilabel"}, "centroid cannot do multilabel; expected one of ridge, logreg"),
    ],
)
def test_a_kind_that_is_none_or_does_not_suit_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        get_kind(**options)


@pytest.mark.parametrize(("name", "task", "kernel"), EVERY)
def test_each_kind_is_fitted_by_an_estimator_that_makes_a_predictor_of_its_form(
    name: str, task: str, kernel: str
) -> None:
    assert get_kind(name, task=task, kernel=kernel) is HEAD_KINDS[name]
    model, training = estimator(name, task, kernel), draw(task)
    predictor = model.fit(training, model.candidates[0])
    assert type(predictor) is predictor_classes()[get_kind(name).form(task, kernel)]
    assert predictor.decision_function(np.zeros((5, 4))).shape == (5, training.count)
    (found,) = model.cross_val_scores(training, model.candidates[:1])
    assert found[0] == model.candidates[0]
    assert found[1].shape == (12, training.count)
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize(("name", "task", "kernel"), EVERY)
def test_there_is_something_to_choose_where_a_kind_has_a_parameter(name: str, task: str, kernel: str) -> None:
    candidates = estimator(name, task, kernel).candidates
    assert (len(candidates) > 1) == bool(HEAD_KINDS[name].parameter)
    assert len(set(candidates)) == len(candidates)


@pytest.mark.parametrize("name", [name for name, kind in HEAD_KINDS.items() if kind.parameter])
def test_candidates_begin_with_the_simplest(name: str) -> None:
    candidates = estimator(name, "classification").candidates
    more_is_simpler = HEAD_KINDS[name].parameter in ("k", "weight_decay")  # of C, less
    assert candidates == tuple(sorted(candidates, reverse=more_is_simpler))


@pytest.mark.parametrize("task", TASKS)
def test_auto_compares_all_that_suit_in_the_order_of_the_table(task: str) -> None:
    found = auto_candidates(task, 100)
    names = [name for name, kernel in found if kernel == "linear"]
    assert names == [
        name for name, kind in HEAD_KINDS.items() if task in kind.tasks and name not in ("linear", ZERO_SHOT)
    ]
    assert found[-2:] == [("svm", "rbf"), ("mlp", "linear")]


def test_auto_leaves_out_a_kernel_where_rows_are_many() -> None:
    assert ("svm", "rbf") in auto_candidates("classification", MAX_RBF_ROWS)
    assert ("svm", "rbf") not in auto_candidates("classification", MAX_RBF_ROWS + 1)
    assert ("bilinear", "linear") in auto_candidates("classification", MAX_BILINEAR_ROWS)
    assert ("bilinear", "linear") not in auto_candidates("classification", MAX_BILINEAR_ROWS + 1)
    assert ("mlp", "linear") in auto_candidates("classification", 10**9)


def test_only_heads_of_minibatches_take_torch_along() -> None:
    others = [(name, task, kernel) for name, task, kernel in EVERY if name not in ("linear", "mlp")]
    code = (
        "import sys\nfrom featx.heads.registry import EstimatorOptions, get_kind\n"
        f"for name, task, kernel in {others!r}:\n    get_kind(name).estimator(EstimatorOptions(task, kernel))\n"
        "assert 'torch' not in sys.modules\nget_kind('mlp').estimator(EstimatorOptions('regression'))\n"
        "assert 'torch' in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")


# A kind of one's own


class NearestSquare:
    """Scores each class by minus the squared distance to its mean, times the candidate."""

    candidates = (0.5, 1.0)

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        Z = training.rows.whole(np.float64)
        means = np.stack([Z[training.y == label].mean(axis=0) for label in range(training.count)])
        return LinearPredictor(2 * candidate * means, -candidate * (means**2).sum(axis=1))

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        return fold_by_fold(self, training, candidates)


def kind(name: str = "square", **changes: Any) -> HeadKind:
    made = HeadKind(name, ("classification",), LinearPredictor, lambda options: NearestSquare(), "weight_decay")
    return dataclasses.replace(made, **changes)


@pytest.fixture
def square() -> Iterator[HeadKind]:
    yield register_head(kind())
    del HEAD_KINDS["square"]


def test_a_registered_kind_is_checked_fitted_judged_saved_and_loaded(square: HeadKind, tmp_path: Path) -> None:
    assert get_kind("square") is square
    assert kind_names() == (*KINDS, ZERO_SHOT, "square")
    features = photos(gap=3.0)
    with pytest.raises(HeadError, match="C is only for logreg, svm, ridge, bilinear; square has none"):
        Head("square", C=1.0)
    head = Head("square").fit(features)
    assert head.weight_decay_ in NearestSquare.candidates
    assert len(head.search_) == 2
    assert head.temperature_ != 1.0
    assert head.evaluate(features).accuracy > 0.9
    assert head.is_linear
    loaded = Head.load(head.save(tmp_path / "square.safetensors"))
    assert (loaded.kind, loaded.parameters) == ("square", head.parameters)
    np.testing.assert_array_equal(loaded.predict_proba(features.features), head.predict_proba(features.features))
    with pytest.raises(HeadError, match="square cannot do multilabel"):
        Head("square", task="multilabel").fit(features)
    assert ("square", "linear") in auto_candidates("classification", 10)
    assert ("square", "linear") not in auto_candidates("regression", 10)


def test_the_file_of_a_kind_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    register_head(kind())
    path = Head("square").fit(photos()).save(tmp_path / "square.safetensors")
    del HEAD_KINDS["square"]
    with pytest.raises(CorruptFileError, match='kind is "square"; expected one of logreg, linear, svm'):
        Head.load(path)


@dataclass(frozen=True)
class Foreign:
    FORM = "linear"
    ARRAYS = LinearPredictor.ARRAYS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: kind("ridge"), "there is already a head 'ridge'"),
        (lambda: kind(tasks=("ranking",)), "tasks of the head 'square': 'ranking'; expected 'classification', 'multi"),
        (lambda: kind(tasks=()), "tasks of the head 'square': empty"),
        (lambda: kind(kernels=("poly",)), "kernels of the head 'square': 'poly'; expected 'linear', 'rbf'"),
        (lambda: kind(parameter="depth"), "parameter of the head 'square': 'depth'; expected '', 'C', 'k', 'weight_d"),
        (lambda: kind(predictor=NearestSquare), "NearestSquare of the head 'square' needs FORM and ARRAYS"),
        (lambda: kind(predictor=Foreign), "Foreign has the FORM 'linear' of LinearPredictor; give it another"),
    ],
)
def test_a_kind_that_cannot_work_is_not_registered(wrong: Callable[[], HeadKind], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        register_head(wrong())
    assert kind_names() == (*KINDS, ZERO_SHOT)
