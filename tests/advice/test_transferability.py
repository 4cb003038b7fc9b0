"""LogME and the H-score against their definitions, computed in another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf

from featx.advice.transferability import h_score, logme

SHAPES = [(60, 5), (40, 39), (30, 80)]


def drawn(
    count: int, width: int, *, gap: float = 0.5, classes: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    centres = rng.normal(size=(classes, width)) * gap
    return (rng.normal(size=(count, width)) + centres[labels] + 0.3).astype(np.float32), labels


def evidence(F: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """log N(y; 0, I / beta + F F' / alpha): the weights integrated out, by the targets' own Gaussian."""
    covariance = np.eye(len(y)) / beta + F @ F.T / alpha
    _, logdet = np.linalg.slogdet(covariance)
    return float(-0.5 * (y @ np.linalg.solve(covariance, y) + logdet + len(y) * np.log(2 * np.pi)))


@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_logme_is_the_greatest_evidence_of_the_targets_own_gaussian(count: int, width: int) -> None:
    F, labels = drawn(count, width)
    expected = []
    for label in range(3):
        y = (labels == label).astype(np.float64)

        def loss(logs: np.ndarray, y: np.ndarray = y) -> float:
            return -evidence(F.astype(np.float64), y, *np.exp(logs))

        starts = [minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
                  for start in ([0.0, 0.0], [3.0, 2.0])]  # fmt: skip
        expected.append(-min(found.fun for found in starts) / count)
    assert logme(F, labels) == pytest.approx(np.mean(expected), rel=1e-6)


def test_logme_of_columns_that_repeat_others_is_their_own_evidence() -> None:
    F, labels = drawn(50, 6)
    twice = np.hstack([F, F]) / np.sqrt(2)  # the same kernel, so the same evidence
    assert logme(twice, labels) == pytest.approx(logme(F, labels), rel=1e-6)


def test_better_features_have_a_higher_score() -> None:
    near, far = drawn(90, 8, gap=0.2), drawn(90, 8, gap=1.5)
    assert logme(*near) < logme(*far)
    assert h_score(*near) < h_score(*far)


def test_labels_that_a_line_gives_without_error_have_infinite_evidence() -> None:
    F, labels = drawn(30, 80)
    one_hot = np.eye(3)[labels]
    assert logme(np.hstack([one_hot, np.zeros((30, 2))]), labels) > 10 * logme(F, labels)


@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_the_h_score_is_the_trace_of_its_definition(count: int, width: int) -> None:
    F, labels = drawn(count, width)
    found = LedoitWolf().fit(F.astype(np.float64))
    means = np.stack([F[labels == label].astype(np.float64).mean(axis=0) for label in range(3)])[labels]
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.inv(found.covariance_) @ between) * (1 - found.shrinkage_)
    assert h_score(F, labels) == pytest.approx(expected, rel=1e-8)


def test_the_h_score_lies_between_none_and_all() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(400) % 4
    assert 0 <= h_score(rng.normal(size=(400, 5)), labels) < 0.1
    centres = 1e3 * np.eye(4)
    assert h_score(centres[labels] + rng.normal(size=(400, 4)), labels) == pytest.approx(3.0, rel=0.05)
    assert h_score(np.ones((10, 3)), np.arange(10) % 2) == 0.0
