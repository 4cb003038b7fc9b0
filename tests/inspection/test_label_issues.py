"""Labels that are probably wrong, checked against cleanlab."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made import photos
from made_heads import measured, tagged

from featx.heads.head import Head
from featx.inspection.label_issues import LabelIssues, confident_errors, find_label_issues, with_votes
from featx.inspection.neighbours import Neighbours, nearest_neighbours
from featx.inspection.out_of_fold import OutOfFold, predict_out_of_fold


def predicted(
    y: np.ndarray, outputs: np.ndarray, task: str = "classification", rows: np.ndarray | None = None, **fields: object
) -> OutOfFold:
    names = tuple("abcdefgh"[: outputs.shape[1]]) if task != "regression" else ("value",)
    return OutOfFold(np.arange(len(y)) if rows is None else rows, y, outputs, names, task, Head(), **fields)  # type: ignore[arg-type]


def noisy(n: int = 400, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes, some of them wrong, and probabilities that know better."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) * 1.5
    logits[np.arange(n), true] += 3
    p = np.exp(logits)
    y = np.where(rng.random(n) < 0.15, rng.integers(0, classes, n), true)
    return y, p / p.sum(axis=1, keepdims=True)


def noisy_sets(n: int = 300, labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sets of labels, some of them wrong, and probabilities that know better."""
    rng = np.random.default_rng(seed)
    true = rng.random((n, labels)) < [0.5, 0.3, 0.2, 0.4][:labels]
    p = 1 / (1 + np.exp(-(rng.normal(size=(n, labels)) * 1.5 + np.where(true, 2.5, -2.5))))
    return (true ^ (rng.random((n, labels)) < 0.05)).astype(np.float32), p


def test_the_score_is_the_out_of_fold_probability_of_the_given_class() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    found = find_label_issues(predicted(np.array([0, 0, 1]), p, rows=np.array([1, 2, 4])), 5)
    np.testing.assert_array_equal(found.scores, [np.nan, 0.9, 0.2, np.nan, 0.7])
    assert found.given.tolist() == ["", "a", "a", "", "b"]
    assert found.suggested.tolist() == ["", "a", "b", "", "b"]
    np.testing.assert_array_equal(found.confidence, [np.nan, 0.9, 0.8, np.nan, 0.7])
    assert found.ranked.tolist() == [2]


def test_columns_have_the_names_of_datalab() -> None:
    found = find_label_issues(predicted(np.array([0, 1]), np.array([[0.1, 0.9], [0.2, 0.8]])), 2)
    columns = {name: values.tolist() for name, values in found.columns().items()}
    assert columns == {
        "is_label_issue": [True, False], "label_score": [0.1, 0.8], "given_label": ["a", "b"], "predicted_label": ["b", "b"],
        "confidence": [0.9, 0.8],
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_confident_learning_finds_and_counts_what_cleanlab_does(seed: int) -> None:
    cleanlab = pytest.importorskip("cleanlab.filter", reason="the comparison needs cleanlab")
    count = pytest.importorskip("cleanlab.count", reason="the comparison needs cleanlab")
    for classes in (2, 4, 7):
        y, p = noisy(classes=classes, seed=seed)
        expected = cleanlab.find_label_issues(y, p, filter_by="confident_learning", n_jobs=1)
        assert 0 < expected.sum() < len(y) / 2
        np.testing.assert_array_equal(confident_errors(y, p), expected)
        found = find_label_issues(predicted(y, p), len(y))
        assert found.expected == count.num_label_issues(y, p)
        np.testing.assert_array_equal(found.is_issue, expected)


@pytest.mark.parametrize("seed", range(3))
def test_sets_of_labels_have_the_scores_and_issues_of_cleanlab(seed: int) -> None:
    rank = pytest.importorskip("cleanlab.multilabel_classification.rank", reason="the comparison needs cleanlab")
    issues = pytest.importorskip("cleanlab.multilabel_classification.filter", reason="the comparison needs cleanlab")
    y, p = noisy_sets(seed=seed)
    lists = [np.flatnonzero(row).tolist() for row in y]
    found = find_label_issues(predicted(y, p, "multilabel"), len(y))
    np.testing.assert_allclose(found.scores, rank.get_label_quality_scores(lists, p), rtol=1e-12)
    expected = issues.find_label_issues(lists, p, filter_by="confident_learning", n_jobs=1)
    assert 0 < expected.sum() < len(y)
    np.testing.assert_array_equal(found.is_issue, expected)
    per_label = issues.find_multilabel_issues_per_class(lists, p, filter_by="confident_learning", n_jobs=1)
    np.testing.assert_array_equal(found.missing | found.superfluous, per_label)


def test_missing_and_superfluous_labels_are_told_apart() -> None:
    y = np.array([[1, 0]] * 5 + [[0, 1]] * 5 + [[1, 1], [0, 0]], dtype=np.float32)
    p = np.where(y, 0.9, 0.1)
    p[10], p[11] = [0.95, 0.02], [0.95, 0.03]
    found = find_label_issues(predicted(y, p, "multilabel", rows=np.arange(1, 13)), 13)
    assert found.given[[11, 12]].tolist() == ["a|b", "|"]
    assert found.suggested[[11, 12]].tolist() == ["a", "a"]
    np.testing.assert_allclose(found.confidence[[11, 12]], [0.95, 0.95])
    assert found.ranked.tolist() == [11, 12]
    assert found.missing[:, 0].nonzero()[0].tolist() == [12]
    assert found.superfluous[:, 1].nonzero()[0].tolist() == [11]
    np.testing.assert_allclose(found.scores_of_labels[11], [0.95, 0.02])
    assert np.isnan(found.scores_of_labels[0]).all()


def test_numbers_far_from_their_prediction_are_issues() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=200) * 10
    y = values + rng.normal(size=200)
    y[[3, 7]] += [8.0, -30.0]
    found = find_label_issues(predicted(y[:, None], values[:, None], "regression"), 200)
    assert found.ranked[:2].tolist() == [7, 3]
    assert found.is_issue[[3, 7]].all()
    assert found.expected == found.is_issue.sum() <= 6
    assert found.suggested[7] == f"{values[7]:.6g}"
    assert np.isnan(found.confidence).all()
    assert (np.diff(found.scores[found.ranked]) >= 0).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_numbers_that_are_predicted_exactly_are_no_issue() -> None:
    y = np.array([[1.0], [2.0], [3.0], [4.0]])
    found = find_label_issues(predicted(y, y.copy(), "regression"), 4)
    assert found.scores.tolist() == [1, 1, 1, 1]
    assert found.expected == len(found.ranked) == 0


def test_the_given_label_is_the_text_of_the_data_set() -> None:
    features = tagged(train=60, test=0)
    swapped = dataclasses.replace(
        features, classes=tuple(" dog|cat" if c == "cat|dog" else c for c in features.classes)
    )
    found = find_label_issues(predict_out_of_fold(swapped, Head()), len(features))
    assert " dog|cat" in found.given
    assert not set(found.ranked) & set(np.flatnonzero((found.given == " dog|cat") & (found.suggested == "cat|dog")))


def test_neighbours_of_other_groups_vote_and_the_head_counts_as_ten_of_them() -> None:
    p = np.array([[0.6, 0.4]] * 4)
    neighbours = Neighbours(
        np.array([[1, 2, 4], [0, 2, 3], [0, 1, -1], [5, 4, -1], [0, 1, 2], [-1, -1, -1]]), np.zeros((6, 3))
    )
    of = predicted(np.array([0, 1, 1, 0]), p, groups=np.array([0, 1, 1, 3]))  # rows 4 and 5 have no label
    expected = [[6 / 12, 6 / 12], [8 / 12, 4 / 12], [7 / 11, 4 / 11], [0.6, 0.4]]
    np.testing.assert_allclose(with_votes(of, 6, neighbours), expected)
    np.testing.assert_allclose(find_label_issues(of, 6, neighbours).scores[:4], [0.5, 4 / 12, 4 / 11, 0.6])


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_flipped_labels_are_ranked_first(task: str) -> None:
    if task == "classification":
        features = photos(train=40, test=0, gap=4.0)
        features.labels[:3] = (features.labels[:3] + 1) % 3
    elif task == "multilabel":
        features = tagged(train=150, test=0, noise=0.05)
        opposite = {c: "|".join(n for n in ("cat", "dog", "red") if n not in c) or "|" for c in features.classes}
        features.labels[:3] = [
            features.classes.index(opposite[features.classes[label]]) for label in features.labels[:3]
        ]
    else:
        features = measured(train=150, test=0, noise=0.05)
        values = np.array([float(name) for name in features.classes])
        features.labels[:3] = [np.abs(values - values[label]).argmax() for label in features.labels[:3]]
    neighbours = nearest_neighbours(features)
    found = find_label_issues(predict_out_of_fold(features, Head(task=task)), len(features), neighbours)
    assert isinstance(found, LabelIssues)
    assert set(found.ranked[:3]) == {0, 1, 2}
    assert found.is_issue[:3].all()
    assert 3 <= found.expected <= 30
