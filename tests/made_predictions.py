"""Labels and probabilities for the tests of reports and figures."""

from __future__ import annotations

import numpy as np

from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport

SCRIPT = "<script>alert(1)</script>"


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


def classification_report(names: list[str], reject_below: float | None = None) -> ClassificationReport:
    """A report of five images of each class, most of them classified correctly."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(names)), 5)
    logits = rng.normal(size=(len(labels), len(names)))
    logits[np.arange(len(labels)), labels] += 2
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return ClassificationReport.from_predictions(labels, probabilities, names, split="test", reject_below=reject_below)


def multilabel_report() -> MultiLabelReport:
    """A report of 40 images with three labels, one of which is named like a script."""
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 3)) < 0.4).astype(np.float32)
    probabilities = np.clip(0.6 * targets + 0.4 * rng.random((40, 3)), 0, 1)
    return MultiLabelReport.from_predictions(
        targets, probabilities, ["a", "b", SCRIPT], thresholds=np.full(3, 0.5), split="val"
    )
