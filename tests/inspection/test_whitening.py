"""Whitened features."""

from __future__ import annotations

import numpy as np
import pytest

from featx.inspection.whitening import whiten


def test_variances_are_evened_out() -> None:
    Z = np.random.default_rng(0).normal(size=(5000, 10)) * np.logspace(0, 0.5, 10) + 7
    whitened = whiten(Z, np.arange(5000))
    assert np.linalg.norm(whitened, axis=1) == pytest.approx(1, abs=1e-5)
    variances = whitened.var(axis=0)
    assert variances.max() / variances.min() < 3 < 9 < Z.var(axis=0).max() / Z.var(axis=0).min()


def test_cosines_are_those_of_the_shrunk_inverse_covariance() -> None:
    Z = np.random.default_rng(0).normal(size=(12, 20)).astype(np.float16)
    unit = Z / np.linalg.norm(Z.astype(np.float64), axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    covariance = centred.T @ centred / 12
    inner = centred @ np.linalg.inv(covariance + np.trace(covariance) / 11 * np.eye(20)) @ centred.T
    length = np.sqrt(np.diag(inner))
    whitened = whiten(Z, np.arange(12))
    assert whitened @ whitened.T == pytest.approx(inner / length / length[:, None], abs=1e-4)


def test_features_that_are_never_negative_are_replaced_by_their_roots() -> None:
    roots = np.random.default_rng(0).exponential(size=(40, 6))
    centred = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    centred -= centred.mean(axis=0)
    covariance = centred.T @ centred / 40
    inner = centred @ np.linalg.inv(covariance + np.trace(covariance) / 6 * np.eye(6)) @ centred.T
    length = np.sqrt(np.diag(inner))
    whitened = whiten(roots**2, np.arange(40))
    assert whitened @ whitened.T == pytest.approx(inner / length / length[:, None], abs=1e-4)


def test_the_memory_of_blocks_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Z = np.random.default_rng(0).normal(size=(50, 6))
    whole = whiten(Z, np.arange(5, 50))
    monkeypatch.setattr("featx.heads.nearest.BLOCK_BYTES", 8 * 6 * 7)
    assert whiten(Z, np.arange(5, 50)) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    "Z", [np.zeros((3, 4)), np.ones((2, 1)), np.empty((0, 4)), np.eye(1), np.arange(1, 31)[:, None] * np.ones(6) * 1.1]
)
def test_features_without_variance_stay_finite(Z: np.ndarray) -> None:
    assert np.isfinite(whiten(Z, np.arange(len(Z)))).all()
