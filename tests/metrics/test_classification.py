from __future__ import annotations

import json
import re

import numpy as np
import pytest
from made_predictions import certain, predictions
from sklearn import metrics

from featx.metrics.classification import ClassificationReport
from featx.metrics.scores import wilson_interval


@pytest.mark.parametrize(("n", "count"), [(40, 2), (200, 5), (33, 11)])
def test_every_metric_is_that_of_scikit_learn(n: int, count: int) -> None:
    labels, probabilities = predictions(n, count, seed=n)
    report = ClassificationReport.from_predictions(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    assert report.n == n
    assert report.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert report.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert report.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert report.log_loss == pytest.approx(metrics.log_loss(labels, probabilities))
    np.testing.assert_array_equal(report.confusion, metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(report.precision, precision)
    np.testing.assert_allclose(report.recall, recall)
    np.testing.assert_allclose(report.f1, f1)
    np.testing.assert_array_equal(report.confusion.sum(axis=1), support)


def test_a_class_without_images_does_not_count_in_the_means() -> None:
    report = ClassificationReport.from_predictions(
        np.array([0, 0, 1, 1]), certain([0, 0, 1, 2], 3), ["a", "b", "c"], split="test"
    )
    assert report.balanced_accuracy == pytest.approx((1.0 + 0.5) / 2)
    assert report.macro_f1 == pytest.approx((1.0 + 2 / 3) / 2)
    assert np.isnan(report.recall[2])
    assert report.precision[2] == 0.0


def test_a_class_without_images_is_null_in_json_and_nan_in_text() -> None:
    report = ClassificationReport.from_predictions(
        np.array([0, 0, 1]), certain([0, 0, 1], 3), ["a", "b", "c"], split="test"
    )
    assert report.as_dict()["per_class"][2] == {
        "class": "c",
        "precision": 0.0,
        "recall": None,
        "f1": None,
        "auroc": None,
        "average_precision": None,
        "support": 0,
    }
    assert "c          0.000     nan     nan       0" in str(report).splitlines()


def test_a_certain_but_wrong_prediction_has_a_large_finite_log_loss() -> None:
    report = ClassificationReport.from_predictions(np.array([0, 1]), certain([0, 0], 2), ["a", "b"], split="test")
    assert report.log_loss == pytest.approx(-np.log(np.finfo(np.float64).eps) / 2)


def tabled(report: ClassificationReport) -> dict[str, str]:
    """The table of metrics in the text of a report."""
    names, values = (re.split("  +", line.strip()) for line in str(report).splitlines()[2:4])
    return dict(zip(names, values, strict=True))


def test_the_text_is_exactly_this() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.25, 0.75], [0.5, 0.5]])
    report = ClassificationReport.from_predictions(
        np.array([0, 0, 0, 1, 1]), probabilities, ["ants", "bumblebees"], split="val"
    )
    assert str(report) == (
        "Evaluated on 5 images of split val\n"
        "accuracy  0.6000  (95 % interval 0.2307 to 0.8824; 3 of 5 right; always 'ants' 0.6000)\n"
        "balanced accuracy  macro F1  log loss   AUROC  average precision     ECE\n"
        "           0.5833    0.5833    0.4451  0.8333             0.8333  0.3300\n"
        "\n"
        "class       precision  recall      F1  images\n"
        "ants            0.667   0.667   0.667       3\n"
        "bumblebees      0.500   0.500   0.500       2\n"
        "\n"
        "true \\ predicted  ants  bumblebees\n"
        "ants                 2           1\n"
        "bumblebees           1           1"
    )


def test_a_log_loss_of_zero_has_no_sign() -> None:
    report = ClassificationReport.from_predictions(np.array([0, 1]), certain([0, 1], 2), ["a", "b"], split="test")
    assert tabled(report)["log loss"] == "0.0000"
    assert json.dumps(report.as_dict()["log_loss"]) == "0.0"


def test_the_dict_is_json_without_nan() -> None:
    report = ClassificationReport.from_predictions(
        np.array([0, 0]), certain([1, 1], 3), ["a", "b", "c"], split="all", notes=["look"]
    )
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert found["accuracy"] == 0.0
    assert found["n"] == 2
    assert found["split"] == "all"
    assert found["confusion"] == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert found["notes"] == ["look"]


@pytest.mark.parametrize(("count", "shown"), [(12, True), (13, False)])
def test_the_text_shows_the_confusion_of_up_to_twelve_classes(count: int, shown: bool) -> None:
    labels, probabilities = predictions(60, count, seed=0)
    text = str(
        ClassificationReport.from_predictions(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
    )
    assert ("true \\ predicted" in text) == shown
    assert text.splitlines()[text.splitlines().index("") + 1].startswith("class ")


ODD = ["new\nline", "$x_{$ costs", "\N{GRINNING FACE} \u6f22\u5b57", "w" * 200, "bad \udcff byte", ""]


def test_odd_class_names_do_not_break_the_text() -> None:
    lines = str(
        ClassificationReport.from_predictions(np.arange(6), certain([0, 1, 2, 3, 4, 5], 6), ODD, split="test")
    ).splitlines()
    assert len(lines) == 4 + 1 + 7 + 1 + 7
    assert lines[6].startswith("new?line ")
    assert lines[7].startswith("$x_{$ costs ")
    assert lines[9].startswith("w" * 23 + "… ")
    assert lines[10].startswith("bad ? byte ")


def test_one_class_of_several_that_is_missing_is_left_out_of_the_mean() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    report = ClassificationReport.from_predictions(labels, probabilities, ["a", "b", "c"], split="test")
    np.testing.assert_allclose(report.auroc, [3 / 4, 3.5 / 4, np.nan])
    assert report.overall_auroc == pytest.approx((3 / 4 + 3.5 / 4) / 2)
    assert report.overall_average_precision == pytest.approx(((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2) / 2)
    assert tabled(report)["AUROC"] == "0.8125"


def test_nan_among_probabilities_makes_a_metric_undefined_rather_than_flattering() -> None:
    labels, probabilities = predictions(30, 6, seed=0)
    probabilities[3] = np.nan
    report = ClassificationReport.from_predictions(
        labels, probabilities, list("abcdef"), split="test", reject_below=0.1
    )
    assert np.isnan(report.auroc).all()
    assert report.accepted == 29
    facts = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (facts["log_loss"], facts["auroc"], facts["ece"]) == (None, None, None)
    without = ClassificationReport.from_predictions(
        np.delete(labels, 3), np.delete(probabilities, 3, axis=0), list("abcdef"), split="test"
    )
    assert without.top5 is not None
    assert facts["top5"] == pytest.approx(without.top5 * 29 / 30)


# The five most probable


def test_top_5_is_that_of_scikit_learn() -> None:
    labels, probabilities = predictions(300, 11, seed=1)
    report = ClassificationReport.from_predictions(labels, probabilities, [f"c{i}" for i in range(11)], split="test")
    assert report.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=5))
    assert tabled(report)["top-5"] == f"{report.top5:.4f}"


@pytest.mark.parametrize(("count", "reported"), [(5, False), (6, True)])
def test_top_5_is_left_out_for_up_to_five_classes(count: int, reported: bool) -> None:
    labels, probabilities = predictions(20, count, seed=0)
    report = ClassificationReport.from_predictions(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
    assert (report.top5 is not None, report.as_dict()["top5"] is not None) == (reported, reported)
    assert ("top-5" in str(report), "top5" in report.metrics) == (reported, reported)


def test_a_tie_for_the_fifth_place_is_a_miss() -> None:
    fifth = np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]])
    assert ClassificationReport.from_predictions(np.array([5]), fifth, list("abcdef"), split="test").top5 == 0.0
    assert ClassificationReport.from_predictions(np.array([3]), fifth, list("abcdef"), split="test").top5 == 0.0
    assert ClassificationReport.from_predictions(np.array([2]), fifth, list("abcdef"), split="test").top5 == 1.0


# Rejection


def test_predictions_below_the_threshold_are_rejected_and_those_at_it_are_not() -> None:
    highest = np.array([0.9, 0.75, 0.75, 0.7, 0.6])
    labels = np.array([0, 1, 0, 0, 1])
    probabilities = np.stack([highest, 1 - highest], axis=1)
    report = ClassificationReport.from_predictions(labels, probabilities, ["a", "b"], split="test", reject_below=0.75)
    assert report.coverage == 3 / 5
    assert report.selective_accuracy == 2 / 3
    assert report.selective_interval == wilson_interval(2, 3)
    facts = report.as_dict()
    assert (facts["reject_below"], facts["coverage"], facts["selective_accuracy"]) == (0.75, 3 / 5, 2 / 3)
    assert facts["selective_interval"] == list(wilson_interval(2, 3))
    assert report.accuracy == 3 / 5
    lines = str(report).splitlines()
    assert "accepted           0.6000  (probability at least 0.75: 3 of 5 images)" in lines
    assert "accuracy of these  0.6667  (95 % interval 0.2077 to 0.9385; 2 of 3 images)" in lines


def test_where_every_prediction_is_rejected_there_is_no_accuracy_of_the_accepted() -> None:
    report = ClassificationReport.from_predictions(
        np.array([0, 1]), np.full((2, 2), 0.5), ["a", "b"], split="test", reject_below=0.6
    )
    assert (report.coverage, report.selective_accuracy, report.selective_interval) == (0.0, None, None)
    assert report.as_dict()["coverage"] == 0.0
    assert "accuracy of these" not in str(report)


def test_without_a_rejection_threshold_nothing_is_reported_about_rejection() -> None:
    report = ClassificationReport.from_predictions(np.array([0, 1]), np.full((2, 2), 0.5), ["a", "b"], split="test")
    facts = report.as_dict()
    asked = ("reject_below", "coverage", "selective_accuracy", "selective_interval")
    assert [facts[key] for key in asked] == [None] * 4
    assert "accepted" not in str(report)
