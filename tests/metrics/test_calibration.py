from __future__ import annotations

import numpy as np
import pytest
from made_predictions import certain

from featx.metrics.calibration import BIN_COUNT
from featx.metrics.classification import ClassificationReport
from featx.metrics.scores import wilson_interval


def test_the_calibration_error_is_that_of_the_bins_by_hand() -> None:
    # Confidences 0.55 and 0.56 in (8/15, 9/15], 0.9 and 0.91 in (13/15, 14/15], and 1 in the last.
    highest = np.array([0.55, 0.56, 0.9, 0.91, 1.0])
    labels = np.array([0, 1, 0, 0, 1])
    report = ClassificationReport.from_predictions(
        labels, np.stack([highest, 1 - highest], axis=1), ["a", "b"], split="test"
    )
    expected = (2 * abs(0.5 - 0.555) + 2 * abs(1.0 - 0.905) + 1 * abs(0.0 - 1.0)) / 5
    assert report.ece == pytest.approx(expected)
    assert report.mean_confidence == pytest.approx(highest.mean())
    assert [(i, b.count, b.correct) for i, b in enumerate(report.reliability) if b.count] == [
        (8, 2, 1),
        (13, 2, 2),
        (14, 1, 0),
    ]
    assert len(report.reliability) == BIN_COUNT == 15
    assert report.reliability[8].confidence == pytest.approx(0.555)
    assert report.reliability[8].accuracy == 0.5
    assert report.reliability[8].interval == wilson_interval(1, 2)


def test_a_confidence_on_an_edge_is_in_the_bin_below_it() -> None:
    edges = np.arange(8, 16) / 15
    report = ClassificationReport.from_predictions(
        np.zeros(8, dtype=int), np.stack([edges, 1 - edges], axis=1), ["a", "b"], split="test"
    )
    assert [b.count for b in report.reliability] == [0] * 7 + [1] * 8
    assert all(b.low < b.confidence <= b.high for b in report.reliability if b.count)


def test_certainty_that_is_right_is_calibrated() -> None:
    report = ClassificationReport.from_predictions(np.array([0, 1, 1]), certain([0, 1, 1], 2), ["a", "b"], split="test")
    assert report.ece == 0.0
    assert report.reliability[-1].as_dict() == {
        "low": 14 / 15,
        "high": 1.0,
        "count": 3,
        "confidence": 1.0,
        "accuracy": 1.0,
        "interval": list(wilson_interval(3, 3)),
    }
    empty = {"low": 0.0, "high": 1 / 15, "count": 0, "confidence": None, "accuracy": None, "interval": None}
    assert report.as_dict()["reliability"][0] == empty
