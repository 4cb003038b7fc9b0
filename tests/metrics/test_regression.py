from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from featx.errors import MetricError
from featx.metrics.regression import RegressionReport


def test_every_metric_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(50, 20, size=80)
    predicted = targets + rng.normal(1, 5, size=80)
    report = RegressionReport.from_predictions(targets, predicted, split="test")
    assert report.n == 80
    assert report.rmse == pytest.approx(metrics.root_mean_squared_error(targets, predicted))
    assert report.mae == pytest.approx(metrics.mean_absolute_error(targets, predicted))
    assert report.r2 == pytest.approx(metrics.r2_score(targets, predicted))
    mean = np.full(80, targets.mean())
    assert report.baseline_rmse == pytest.approx(metrics.root_mean_squared_error(targets, mean))
    assert report.notes == ()
    assert (report.baseline_answer, report.is_trained) == (pytest.approx(targets.mean()), False)


def test_the_baseline_of_training_images_predicts_their_mean() -> None:
    targets = np.random.default_rng(0).normal(50, 20, size=80)
    alike = RegressionReport.from_predictions(targets, np.full(80, 40.0), split="test", mean=40.0)
    assert alike.baseline_rmse == alike.rmse == pytest.approx(np.sqrt(((targets - 40) ** 2).mean()))
    assert alike.baseline_p_value == 1.0
    assert alike.r2 == pytest.approx(metrics.r2_score(targets, np.full(80, 40.0)))
    found = alike.as_dict()
    assert (found["baseline_answer"], found["baseline_from"]) == (40.0, "training images")
    assert alike.baseline_note.startswith("the model is not shown to be better than always predicting the mean target")


@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_the_interval_of_the_rmse_holds_the_truth_in_about_95_percent_of_samples(draw: str) -> None:
    rng = np.random.default_rng(0)
    errors = getattr(rng, draw)(size=(300, 60))
    truth = 1.0 if draw == "normal" else math.sqrt(2.0)
    intervals = [
        RegressionReport.from_predictions(np.arange(60), np.arange(60) + row, split="test").interval for row in errors
    ]
    held = [interval[0] <= truth <= interval[1] for interval in intervals if interval is not None]
    assert len(held) == 300
    assert (0.92 if draw == "laplace" else 0.94) <= np.mean(held) <= 0.995


def test_the_interval_is_the_same_each_time_and_moves_with_the_unit() -> None:
    rng = np.random.default_rng(1)
    targets, errors = rng.normal(size=30), rng.normal(size=30)
    interval = RegressionReport.from_predictions(targets, targets + errors, split="test").interval
    assert interval is not None
    assert RegressionReport.from_predictions(targets, targets + errors, split="test").interval == interval
    scaled = RegressionReport.from_predictions(targets * 1e6, (targets + errors) * 1e6, split="test")
    assert scaled.interval == pytest.approx((interval[0] * 1e6, interval[1] * 1e6))
    assert interval[0] < scaled.rmse / 1e6 < interval[1]


def test_the_interval_of_many_errors_is_that_of_the_delta_method() -> None:
    errors = np.random.default_rng(2).normal(size=10_001)
    report = RegressionReport.from_predictions(np.zeros(10_001), errors, split="test")
    few = RegressionReport.from_predictions(np.zeros(10_000), errors[:-1], split="test")
    squares = errors**2
    half = 1.96 * squares.std() / np.sqrt(10_001) / (2 * report.rmse)
    assert report.interval == pytest.approx((report.rmse - half, report.rmse + half), rel=2e-4)
    assert few.interval == pytest.approx(report.interval, rel=2e-3)


@pytest.mark.parametrize("errors", [[1.0], [1.0, 3.0], [1.0, 2.0, 3.0], [0.5] * 20, [0.0] * 20, [1.0, -1.0] * 10])
def test_too_few_or_equal_errors_have_no_interval(errors: list[float]) -> None:
    targets = np.arange(len(errors), dtype=float)
    report = RegressionReport.from_predictions(targets, targets + errors, split="test")
    assert report.interval is None
    assert report.as_dict()["interval"] is None
    images = "1 image" if len(errors) == 1 else f"{len(errors)} images"
    assert str(report).startswith(f"Evaluated on {images} of split test\nRMSE  ")
    assert "(too few or too equal errors for an interval; always the mean " in str(report)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_targets_that_are_all_equal_have_no_r2(n: int) -> None:
    report = RegressionReport.from_predictions(np.full(n, 0.1), np.full(n, 0.3), split="val")
    assert (report.r2, report.baseline_rmse) == (None, 0.0)
    assert report.notes == ("all targets of split val are equal, so R2 is undefined",)
    assert str(report).splitlines()[2:] == ["MAE    R2", "0.2  none"]
    assert report.as_dict()["r2"] is None


def test_the_text_is_exactly_this() -> None:
    targets = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 61.0])
    report = RegressionReport.from_predictions(targets, np.array([12.0, 19.0, 33.0, 40.5, 46.0, 60.0]), split="test")
    assert report.interval is not None
    assert str(report) == (
        "Evaluated on 6 images of split test\n"
        "RMSE  2.28218  (95 % interval {:.6g} to {:.6g}; always the mean 17.3245)\n"
        "    MAE      R2\n"
        "1.91667  0.9826"
    ).format(*report.interval)


def test_a_column_of_numbers_is_read_as_a_row_and_never_broadcast_against_it() -> None:
    targets, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0])
    report = RegressionReport.from_predictions(targets[:, None], predicted, split="test")
    assert report.as_dict() == RegressionReport.from_predictions(targets, predicted, split="test").as_dict()
    assert report.rmse == pytest.approx(math.sqrt(2 / 3))


def test_several_numbers_for_an_image_are_an_error() -> None:
    with pytest.raises(MetricError, match=r"numbers of shape \(3, 2\); expected one number for each image, \(N,\)"):
        RegressionReport.from_predictions(np.zeros((3, 2)), np.zeros(3), split="test")
    with pytest.raises(MetricError, match="2 predictions for 3 targets; expected equally many"):
        RegressionReport.from_predictions(np.zeros(3), np.zeros(2), split="test")


@pytest.mark.parametrize("spread", [1e-3, 1e-6])
def test_one_large_error_among_tiny_ones_that_are_alike_gives_no_interval(spread: float) -> None:
    errors = np.linspace(0.004 - spread, 0.004 + spread, 250)
    errors[0] = 1.0
    report = RegressionReport.from_predictions(np.zeros((250, 1)), errors[:, None], split="test")
    assert report.rmse == pytest.approx(0.0634, abs=1e-3)
    assert report.interval is None
