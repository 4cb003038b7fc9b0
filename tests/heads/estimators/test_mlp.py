"""Heads trained on minibatches, against closed forms, scikit-learn and torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.special import softmax as exponentials
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from featx.errors import HeadError
from featx.heads.estimators import minibatches, mlp
from featx.heads.estimators.minibatches import TargetFacts, TensorData
from featx.heads.estimators.mlp import MlpEstimator, SgdLinearEstimator, _validation_rows
from featx.heads.predictors import HiddenLayerPredictor, NotConvergedWarning
from featx.heads.training_data import Rows, TrainingData

pytestmark = pytest.mark.filterwarnings(
    "ignore::featx.heads.predictors.NotConvergedWarning"
)  # a few epochs are enough here

BOTH = pytest.mark.parametrize("model", [SgdLinearEstimator(), MlpEstimator(width=16)], ids=["linear", "mlp"])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for a few epochs, for tests that do not need the optimum."""
    monkeypatch.setattr(mlp, "EPOCHS", 15)


@pytest.fixture
def to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without validation rows, so that training does not stop before the optimum."""
    monkeypatch.setattr(mlp, "MIN_VALIDATION", 10**9)


@pytest.fixture
def from_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read rows from a file, 40 rows of width 5 per buffer, in runs of 4."""
    monkeypatch.setattr("featx.heads.training_data.MOST_IN_MEMORY", 0)
    monkeypatch.setattr(minibatches, "BUFFER_BYTES", 40 * 5 * 4)
    monkeypatch.setattr(minibatches, "RUN_BYTES", 4 * 5 * 4)


def blobs(each: int, *, count: int = 3, gap: float = 6.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count * each, 5) float32 rows around one corner per class, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(count * each) % count
    Z = rng.normal(size=(len(y), 5))
    Z[np.arange(len(y)), y] += gap
    return Z.astype(np.float32), y


def make_training(
    Z: np.ndarray, y: np.ndarray, *, task: str = "classification", weight: np.ndarray | None = None, seed: int = 0
) -> TrainingData:
    count = int(y.max()) + 1 if y.ndim == 1 else y.shape[1]
    return TrainingData(Rows(Z), y, count, task, np.ones(len(y)) if weight is None else weight, seed=seed)


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.asarray(exponentials(scores, axis=1))


def log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    return float(-log_softmax(scores, axis=1)[np.arange(len(y)), y].mean())


def arrays(predictor: object) -> list[np.ndarray]:
    return list(vars(predictor).values())


def same(a: object, b: object) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


@pytest.mark.usefixtures("quick")
@BOTH
def test_classes_that_can_be_separated_are_separated(model: SgdLinearEstimator | MlpEstimator) -> None:
    (Z, y), (other, labels) = blobs(50), blobs(20, seed=1)
    scores = model.fit(make_training(Z, y), model.candidates[0]).decision_function(other)
    assert (scores.shape, scores.dtype) == ((60, 3), np.float64)
    assert (scores.argmax(1) == labels).all()


@pytest.mark.usefixtures("to_the_end")
def test_a_linear_layer_reaches_the_optimum_of_logistic_regression() -> None:
    Z, y = blobs(200, gap=1.0)
    reference = LogisticRegression(C=1e6, tol=1e-10).fit(Z, y)
    scores = SgdLinearEstimator().fit(make_training(Z, y)).decision_function(Z)
    assert log_loss(scores, y) == pytest.approx(log_loss(reference.decision_function(Z), y), rel=1e-3)
    np.testing.assert_allclose(softmax(scores), reference.predict_proba(Z), atol=0.02)


@pytest.mark.usefixtures("to_the_end")
def test_labels_reach_the_optimum_of_one_logistic_regression_each() -> None:
    Z, _ = blobs(150, gap=0.0)
    rng = np.random.default_rng(1)
    y = (Z[:, :4] * [1, 2, -1, 1] - [0, 1, 1, 4] + rng.logistic(size=(len(Z), 4)) > 0).astype(np.float32)
    scores = SgdLinearEstimator().fit(make_training(Z, y, task="multilabel")).decision_function(Z)
    expected = OneVsRestClassifier(LogisticRegression(C=1e6)).fit(Z, y).predict_proba(Z)
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), expected, atol=0.02)


@pytest.mark.usefixtures("to_the_end")
def test_targets_reach_the_least_squares() -> None:
    Z, _ = blobs(150, gap=0.0)
    y = np.stack([1000 + 300 * Z[:, 0], 1e-3 * Z[:, 1] - 2e-3 * Z[:, 2]], axis=1)
    y += np.random.default_rng(1).normal(size=y.shape) * [100, 1e-3]
    found = SgdLinearEstimator().fit(make_training(Z, y, task="regression")).decision_function(Z)
    expected = LinearRegression().fit(Z, y).predict(Z)
    assert (np.abs(found - expected).max(axis=0) < 0.02 * y.std(axis=0)).all()


def test_the_huber_loss_is_less_sensitive_to_outliers() -> None:
    Z, _ = blobs(100, gap=0.0)
    truth = 2.0 * Z[:, :1].astype(np.float64)
    y = truth.copy()
    y[::20] += 100.0
    plain, huber = (
        SgdLinearEstimator(huber=delta).fit(make_training(Z, y, task="regression")).decision_function(Z)
        for delta in (None, 0.1)
    )
    assert np.abs(huber - truth).mean() < 0.3 * np.abs(plain - truth).mean()


@pytest.mark.usefixtures("quick")
@BOTH
def test_a_constant_target_is_predicted(model: SgdLinearEstimator | MlpEstimator) -> None:
    Z, _ = blobs(50)
    scores = model.fit(make_training(Z, np.full((len(Z), 1), 7.0), task="regression"), 1.0).decision_function(Z)
    np.testing.assert_allclose(scores, 7.0, atol=1e-3)


def test_label_smoothing_lowers_the_highest_probability() -> None:
    Z, y = blobs(50, gap=8.0)
    sharp, smooth = (
        softmax(SgdLinearEstimator(smoothing=s).fit(make_training(Z, y)).decision_function(Z)).max(1).mean()
        for s in (0.0, 0.3)
    )
    assert sharp > 0.99
    assert smooth == pytest.approx(0.8, abs=0.05)  # 0.7 and its third of 0.3


def test_a_hidden_layer_learns_what_no_linear_one_can() -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(400, 2)).astype(np.float32)
    y = ((Z[:, 0] > 0) ^ (Z[:, 1] > 0)).astype(np.int64)
    train, test = make_training(Z[:300], y[:300]), slice(300, None)
    assert (MlpEstimator(width=32).fit(train, 0.1).decision_function(Z[test]).argmax(1) == y[test]).mean() > 0.9
    assert (SgdLinearEstimator().fit(train).decision_function(Z[test]).argmax(1) == y[test]).mean() < 0.7


def test_a_hidden_layer_predictor_has_the_outputs_of_torch() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    hidden_weight, hidden_bias, weight, bias = (p.detach().numpy() for p in layers.parameters())
    Z = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    found = HiddenLayerPredictor(
        hidden_weight, hidden_bias, weight.astype(np.float64), bias.astype(np.float64)
    ).decision_function(Z)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, layers(torch.from_numpy(Z)).detach().numpy(), atol=1e-5)


@pytest.mark.usefixtures("quick")
@BOTH
def test_the_same_seed_gives_the_same_head_to_the_last_bit_and_another_seed_another(
    model: SgdLinearEstimator | MlpEstimator,
) -> None:
    Z, y = blobs(50, gap=1.0)
    first, again, other = (model.fit(make_training(Z, y, seed=seed), 1.0) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.usefixtures("quick")
@BOTH
def test_the_global_state_of_torch_is_neither_changed_nor_used(model: SgdLinearEstimator | MlpEstimator) -> None:
    Z, y = blobs(50, gap=1.0)
    expected, threads, drawn = model.fit(make_training(Z, y), 1.0), torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            found = model.fit(make_training(Z, y), 1.0)
            assert torch.is_inference_mode_enabled()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    assert same(found, expected)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("quick")
@BOTH
def test_rows_of_weight_0_are_ignored_even_if_they_are_nan(model: SgdLinearEstimator | MlpEstimator) -> None:
    Z, y = blobs(50, gap=1.0)
    weight = np.ones(len(y))
    weight[::7] = 0.0
    spoilt = np.where(weight[:, None] > 0, Z, np.nan).astype(np.float32)
    used = weight > 0
    assert same(
        model.fit(make_training(spoilt, y, weight=weight), 1.0), model.fit(make_training(Z[used], y[used]), 1.0)
    )


@pytest.mark.usefixtures("to_the_end")
def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    Z, y = blobs(150, gap=1.0)
    weight = np.where(y == 0, 2.0, 1.0)
    twice = np.concatenate([np.arange(len(y)), np.flatnonzero(y == 0)])
    weighted, doubled, plain = (
        softmax(SgdLinearEstimator().fit(training).decision_function(Z))
        for training in (
            make_training(Z, y, weight=weight / weight.mean()),
            make_training(Z[twice], y[twice]),
            make_training(Z, y),
        )
    )
    assert np.abs(weighted - doubled).mean() < 0.005
    assert np.abs(weighted - plain).mean() > 0.05


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@BOTH
def test_a_loss_that_is_not_finite_is_an_error(model: SgdLinearEstimator | MlpEstimator, bad: float) -> None:
    Z, y = blobs(50)
    Z[3, 2] = bad
    with pytest.raises(HeadError, match=r"is nan in epoch [01]; expected a number: .* run featx extract again"):
        model.fit(make_training(Z, y), 1.0)


@pytest.mark.usefixtures("from_file")
def test_rows_of_a_file_give_nearly_the_same_head_as_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Z, y = blobs(150, gap=1.0)
    order = np.argsort(y, kind="stable")  # the order of an image folder
    np.save(tmp_path / "Z.npy", Z[order].astype(np.float16))
    mapped = np.load(tmp_path / "Z.npy", mmap_mode="r")
    training = make_training(mapped, y[order])
    assert not training.rows.fits
    found = SgdLinearEstimator().fit(training)
    assert same(found, SgdLinearEstimator().fit(training))
    monkeypatch.setattr("featx.heads.training_data.MOST_IN_MEMORY", 1 << 30)
    expected = SgdLinearEstimator().fit(training)
    np.testing.assert_allclose(softmax(found.decision_function(Z)), softmax(expected.decision_function(Z)), atol=0.08)
    assert log_loss(found.decision_function(Z), y) == pytest.approx(
        log_loss(expected.decision_function(Z), y), rel=0.02
    )


@pytest.mark.usefixtures("from_file")
def test_batches_of_a_file_have_each_row_once_and_mix_classes() -> None:
    Z, y = blobs(60)
    order = np.argsort(y, kind="stable")
    training = make_training(Z[order], y[order])
    data = TensorData(training, torch.device("cpu"), TargetFacts.of(training), fits=False)
    index = torch.arange(1, len(y))
    batches = list(data.batches(index, torch.Generator().manual_seed(0)))
    row_of = {tuple(row): at for at, row in enumerate(Z[order].astype(np.float32).tolist())}
    parts = [[row_of[tuple(row)] for row in batch.x.tolist()] for batch in batches]
    assert sorted(at for part in parts for at in part) == index.tolist()
    for part, batch in zip(parts, batches, strict=True):
        assert batch.y.tolist() == y[order][part].tolist()
        assert batch.size == len(part)
        assert len(set(batch.y.tolist())) > 1


def test_a_tenth_of_each_class_is_for_validation() -> None:
    y = np.repeat([0, 1, 2], [100, 40, 10])
    held = _validation_rows(make_training(np.zeros((150, 1)), y))
    assert np.bincount(y[held]).tolist() == [10, 4, 1]
    assert len(set(held.tolist())) == len(held)


def test_a_class_is_never_for_validation_as_a_whole() -> None:
    y = np.repeat([0, 1, 2], [1, 2, 120])
    held = [
        np.bincount(y[_validation_rows(make_training(np.zeros((123, 1)), y, seed=seed))], minlength=3)
        for seed in range(30)
    ]
    assert np.max(held, axis=0)[:2].tolist() == [0, 1]


def test_validation_rows_are_none_of_few_rows_and_a_limited_number_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "MAX_VALIDATION", 20)
    assert len(_validation_rows(make_training(np.zeros((99, 1)), np.arange(99) % 2))) == 0
    assert len(_validation_rows(make_training(np.zeros((1000, 1)), np.arange(1000) % 2))) == 20


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_all_views_of_an_image_are_for_validation_or_none(task: str) -> None:
    rng = np.random.default_rng(0)
    y = {"classification": rng.integers(0, 3, 120), "multilabel": rng.integers(0, 2, (120, 3)).astype(np.float32)}.get(
        task, rng.normal(size=(120, 1))
    )
    once = make_training(np.zeros((120, 1)), y, task=task)
    views = dataclasses.replace(once, rows=Rows(np.zeros((360, 1))), views=3)
    held = _validation_rows(once)
    assert len(held) == 12
    np.testing.assert_array_equal(_validation_rows(views.views_as_images), np.add.outer(3 * held, np.arange(3)).ravel())
    some = views.views_as_images.take(np.arange(360).reshape(120, 3)[40:].ravel())
    assert (np.bincount(_validation_rows(some) // 3)[_validation_rows(some)[::3] // 3] == 3).all()


def test_validation_targets_span_the_whole_range() -> None:
    y = np.random.default_rng(0).permutation(200).astype(np.float64)[:, None]
    held = np.sort(y[_validation_rows(make_training(np.zeros((200, 1)), y, task="regression"))][:, 0])
    assert set(np.diff(held)) == {10.0}


@pytest.mark.parametrize("fits", [True, False])
def test_validation_rows_are_trained_on_in_the_end_if_rows_fit_in_memory(
    fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.heads.training_data.MOST_IN_MEMORY", 1 << 30 if fits else 0)
    monkeypatch.setattr(mlp, "EPOCHS", 1)
    Z, y = blobs(50)
    before = SgdLinearEstimator().fit(make_training(Z, y))
    Z[_validation_rows(make_training(Z, y))] *= 2.0
    assert same(before, SgdLinearEstimator().fit(make_training(Z, y))) != fits


def test_the_epoch_with_the_lowest_validation_loss_is_returned() -> None:
    rng = np.random.default_rng(0)
    Z, y = (
        rng.normal(size=(120, 60)).astype(np.float32),
        np.arange(120) % 3,
    )  # labels are independent of the features, which are many enough to overfit
    other, labels = rng.normal(size=(300, 60)), np.arange(300) % 3
    overfitted = LogisticRegression(C=1e6, max_iter=1000).fit(Z, y).decision_function(other)
    assert log_loss(overfitted, labels) > 2.0
    assert log_loss(SgdLinearEstimator().fit(make_training(Z, y)).decision_function(other), labels) < np.log(3) + 0.1


def test_training_that_ends_before_it_converges_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "EPOCHS", 4)
    Z, y = blobs(100, gap=2.0)
    with pytest.warns(NotConvergedWarning, match="--model linear was still improving when its 4 epochs were over"):
        SgdLinearEstimator().fit(make_training(Z, y))


@BOTH
def test_two_images_per_class_are_enough(model: SgdLinearEstimator | MlpEstimator) -> None:
    Z, y = blobs(2, gap=8.0)
    assert (model.fit(make_training(Z, y), 1.0).decision_function(Z).argmax(1) == y).all()


@pytest.mark.usefixtures("quick")
@BOTH
def test_held_out_scores_are_those_of_heads_trained_without_the_row(model: SgdLinearEstimator | MlpEstimator) -> None:
    Z, y = blobs(40)
    rows = np.arange(len(y))
    folds = tuple((rows[rows % 2 != part], rows[rows % 2 == part]) for part in (0, 1))
    training = TrainingData(Rows(Z), y, 3, "classification", np.ones(len(y)), folds)
    ((candidate, scores),) = model.cross_val_scores(training, [1.0])
    assert candidate == 1.0
    expected = model.fit(training.take(folds[0][0]), 1.0).decision_function(Z[folds[0][1]].astype(np.float64))
    np.testing.assert_array_equal(scores[folds[0][1]], expected)
