from __future__ import annotations

import numpy as np
import pytest

from featx.head import log_loss
from featx.linear import _stratified_share, fit_linear


def blobs(each: int, *, count: int = 3, gap: float = 6.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count * each, 5) rows around one corner per class, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(count * each) % count
    Z = rng.normal(size=(len(y), 5))
    Z[np.arange(len(y)), y] += gap
    return Z, y


def test_classes_that_can_be_separated_are_separated() -> None:
    (Z, y), (other, labels) = blobs(20), blobs(20, seed=1)
    weight, bias = fit_linear(Z, y, 3)
    assert weight.shape == (3, 5)
    assert bias.shape == (3,)
    assert weight.dtype == bias.dtype == np.float64
    assert ((other @ weight.T + bias).argmax(1) == labels).all()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    Z, y = blobs(20, gap=1.0)
    first, again, other = (fit_linear(Z, y, 3, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_a_tenth_of_each_class_is_held_back() -> None:
    y = np.repeat([0, 1, 2], [100, 40, 10])
    held = _stratified_share(y, np.random.default_rng(0))
    assert np.bincount(y[held]).tolist() == [10, 4, 1]
    assert len(set(held.tolist())) == len(held)


def test_a_class_is_never_held_back_whole() -> None:
    y = np.repeat([0, 1, 2], [1, 2, 60])
    held = _stratified_share(y, np.random.default_rng(0))
    assert np.bincount(y[held], minlength=3).tolist() == [0, 0, 6]


def test_what_is_held_back_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    Z, y = blobs(20)
    held = np.array([0, 1, 2])
    monkeypatch.setattr("featx.linear._stratified_share", lambda y, rng: held)
    monkeypatch.setattr("featx.linear.EPOCHS", 1)  # the first epoch is the best so far, whatever the held-back rows say
    before = fit_linear(Z, y, 3)
    Z[held] *= -5.0
    after = fit_linear(Z, y, 3)
    np.testing.assert_array_equal(before[0], after[0])


def test_the_epoch_that_does_best_on_the_held_back_rows_is_kept() -> None:
    Z, y = blobs(20, gap=0.0)  # nothing to learn: every epoch of training makes it worse elsewhere
    held = _stratified_share(y, np.random.default_rng(0))
    weight, bias = fit_linear(Z, y, 3, seed=0)
    assert log_loss(Z[held] @ weight.T + bias, y[held]) < np.log(3) + 0.05


def test_two_images_per_class_are_enough() -> None:
    Z, y = blobs(2, gap=8.0)
    weight, bias = fit_linear(Z, y, 3)
    assert ((Z @ weight.T + bias).argmax(1) == y).all()
