"""Labels that are probably wrong, checked against cleanlab."""

from __future__ import annotations

import numpy as np
import pytest
from made import photos

from featx.heads.head import Head
from featx.inspection.label_issues import LabelIssues, confident_errors, find_label_issues
from featx.inspection.out_of_fold import OutOfFold, predict_out_of_fold


def predicted(
    y: np.ndarray, outputs: np.ndarray, task: str = "classification", rows: np.ndarray | None = None
) -> OutOfFold:
    names = tuple("abcdefgh"[: outputs.shape[1]]) if task != "regression" else ("value",)
    return OutOfFold(np.arange(len(y)) if rows is None else rows, y, outputs, names, task, Head())


def noisy(n: int = 400, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes, some of them wrong, and probabilities that know better."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) * 1.5
    logits[np.arange(n), true] += 3
    p = np.exp(logits)
    y = np.where(rng.random(n) < 0.15, rng.integers(0, classes, n), true)
    return y, p / p.sum(axis=1, keepdims=True)


def test_the_score_is_the_out_of_fold_probability_of_the_given_class() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    found = find_label_issues(predicted(np.array([0, 0, 1]), p, rows=np.array([1, 2, 4])), 5)
    np.testing.assert_array_equal(found.scores, [np.nan, 0.9, 0.2, np.nan, 0.7])
    assert found.given.tolist() == ["", "a", "a", "", "b"]
    assert found.suggested.tolist() == ["", "a", "b", "", "b"]
    np.testing.assert_array_equal(found.confidence, [np.nan, 0.9, 0.8, np.nan, 0.7])
    assert found.ranked.tolist() == [2]


@pytest.mark.parametrize("seed", range(5))
def test_confident_learning_finds_what_cleanlab_finds(seed: int) -> None:
    cleanlab = pytest.importorskip("cleanlab.filter", reason="the comparison needs cleanlab")
    for classes in (2, 4, 7):
        y, p = noisy(classes=classes, seed=seed)
        expected = cleanlab.find_label_issues(y, p, filter_by="confident_learning", n_jobs=1)
        assert 0 < expected.sum() < len(y) / 2
        np.testing.assert_array_equal(confident_errors(y, p), expected)


def test_flipped_labels_are_ranked_first() -> None:
    features = photos(train=40, test=0, gap=4.0)
    features.labels[:3] = (features.labels[:3] + 1) % 3
    found = find_label_issues(predict_out_of_fold(features, Head("logreg")), len(features))
    assert set(found.ranked[:3]) == {0, 1, 2}
    assert isinstance(found, LabelIssues)
    assert found.is_issue[:3].all()
