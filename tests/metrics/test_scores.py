from __future__ import annotations

import math

import numpy as np
import pytest
from made_predictions import certain, predictions
from scipy.stats import binomtest
from sklearn import metrics

from featx.metrics.classification import ClassificationReport
from featx.metrics.scores import wilson_interval


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (1, 1), (0, 1), (7, 10), (146, 153), (9_990, 10_000)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_stays_between_zero_and_one() -> None:
    for n in range(1, 200):
        assert wilson_interval(0, n)[0] >= 0.0
        assert wilson_interval(n, n)[1] <= 1.0


@pytest.mark.parametrize(("n", "count", "digits"), [(40, 2, 16), (60, 2, 1), (200, 5, 16), (300, 5, 1), (90, 7, 2)])
def test_auroc_and_average_precision_are_scikit_learns_with_ties_too(n: int, count: int, digits: int) -> None:
    labels, probabilities = predictions(n, count, seed=n)
    probabilities = probabilities.round(digits)
    report = ClassificationReport.from_predictions(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
    own = np.eye(count)[labels]
    np.testing.assert_allclose(report.auroc, metrics.roc_auc_score(own, probabilities, average=None), rtol=1e-12)
    expected = metrics.average_precision_score(own, probabilities, average=None)
    np.testing.assert_allclose(report.average_precision, expected, rtol=1e-12)
    facts = report.as_dict()
    assert [row["auroc"] for row in facts["per_class"]] == report.auroc.tolist()
    assert [row["average_precision"] for row in facts["per_class"]] == report.average_precision.tolist()
    if count == 2:
        assert facts["auroc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]))
        assert facts["average_precision"] == pytest.approx(metrics.average_precision_score(labels, probabilities[:, 1]))
    else:
        assert facts["auroc"] == pytest.approx(metrics.roc_auc_score(own, probabilities, average="macro"))
        assert facts["average_precision"] == pytest.approx(metrics.average_precision_score(own, probabilities))


def test_areas_are_the_same_however_many_columns_are_transposed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = predictions(50, 9, seed=0)
    whole = ClassificationReport.from_predictions(labels, probabilities, list("abcdefghi"), split="test")
    monkeypatch.setattr("featx.metrics.scores.BLOCK_BYTES", 50 * 8 * 4)
    blocks = ClassificationReport.from_predictions(labels, probabilities, list("abcdefghi"), split="test")
    np.testing.assert_array_equal(blocks.auroc, whole.auroc)
    np.testing.assert_array_equal(blocks.average_precision, whole.average_precision)
    assert [(b.count, b.correct) for b in blocks.reliability] == [(b.count, b.correct) for b in whole.reliability]
    assert blocks.ece == pytest.approx(whole.ece, rel=1e-12)


def test_equal_probabilities_have_an_auroc_of_one_half() -> None:
    report = ClassificationReport.from_predictions(
        np.array([0, 1, 1, 1]), np.full((4, 2), 0.5), ["a", "b"], split="test"
    )
    assert report.auroc.tolist() == [0.5, 0.5]
    assert report.average_precision.tolist() == [0.25, 0.75]


def test_a_class_without_images_or_without_others_has_no_auroc() -> None:
    report = ClassificationReport.from_predictions(np.array([1, 1]), certain([1, 0], 3), ["a", "b", "c"], split="test")
    assert np.isnan(report.auroc).all()
    assert math.isnan(report.overall_auroc)
    np.testing.assert_array_equal(report.average_precision, [np.nan, 1.0, np.nan])
    assert report.as_dict()["auroc"] is None
    assert report.as_dict()["average_precision"] == 1.0
    assert str(report).splitlines()[2:4] == [
        "balanced accuracy  macro F1  log loss  AUROC  average precision     ECE",
        "           0.5000    0.6667   18.0218   none             1.0000  0.5000",
    ]
