"""Labels and probabilities for the tests of reports and figures."""

from __future__ import annotations

import numpy as np


def predictions(n: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) labels of every class, and (n, count) probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % count)
    logits = rng.normal(size=(n, count))
    logits[np.arange(n), labels] += 1.0
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def certain(predicted: list[int], count: int) -> np.ndarray:
    """(N, count) probabilities of 0 and 1."""
    return np.eye(count)[predicted]


def decisions(n: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) float32 of 0 and 1, and (n, count) probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, count)) < 0.3).astype(np.float32)
    return targets, 1 / (1 + np.exp(-(rng.normal(size=(n, count)) + 2 * targets - 1)))
