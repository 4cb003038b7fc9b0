from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from featx.errors import HeadError
from featx.metrics.calibration import BINS
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.metrics.scores import wilson


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


@pytest.mark.parametrize(("n", "count"), [(40, 2), (200, 5), (33, 11)])
def test_every_metric_is_that_of_scikit_learn(n: int, count: int) -> None:
    labels, probabilities = predictions(n, count, seed=n)
    report = ClassificationReport.of(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
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


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (1, 1), (0, 1), (7, 10), (146, 153), (9_990, 10_000)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_stays_between_zero_and_one() -> None:
    for n in range(1, 200):
        assert wilson(0, n)[0] >= 0.0
        assert wilson(n, n)[1] <= 1.0


def test_a_class_without_images_does_not_count_in_the_means() -> None:
    report = ClassificationReport.of(np.array([0, 0, 1, 1]), certain([0, 0, 1, 2], 3), ["a", "b", "c"], split="test")
    assert report.balanced_accuracy == pytest.approx((1.0 + 0.5) / 2)
    assert report.macro_f1 == pytest.approx((1.0 + 2 / 3) / 2)
    assert np.isnan(report.recall[2])
    assert report.precision[2] == 0.0


def test_a_class_without_images_is_null_in_json_and_nan_in_text() -> None:
    report = ClassificationReport.of(np.array([0, 0, 1]), certain([0, 0, 1], 3), ["a", "b", "c"], split="test")
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


def test_certainty_of_a_wrong_class_costs_much_but_not_everything() -> None:
    report = ClassificationReport.of(np.array([0, 1]), certain([0, 0], 2), ["a", "b"], split="test")
    assert report.log_loss == pytest.approx(-np.log(np.finfo(np.float64).eps) / 2)


def test_the_text_is_exactly_this() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.25, 0.75], [0.5, 0.5]])
    report = ClassificationReport.of(np.array([0, 0, 0, 1, 1]), probabilities, ["ants", "bumblebees"], split="val")
    assert str(report) == (
        "accuracy           0.6000  (95 % interval 0.2307 to 0.8824; 3 of 5 images of split val)\n"
        "balanced accuracy  0.5833\n"
        "macro F1           0.5833\n"
        "log loss           0.4451\n"
        "AUROC              0.8333  (bumblebees against ants)\n"
        "average precision  0.8333  (bumblebees against ants)\n"
        "calibration error  0.3300  (mean confidence 0.7100)\n"
        "\n"
        "class       precision  recall      F1  images\n"
        "ants            0.667   0.667   0.667       3\n"
        "bumblebees      0.500   0.500   0.500       2\n"
        "\n"
        "true \\ predicted  ants  bumblebees\n"
        "ants                 2           1\n"
        "bumblebees           1           1"
    )


def test_no_loss_at_all_has_no_sign() -> None:
    report = ClassificationReport.of(np.array([0, 1]), certain([0, 1], 2), ["a", "b"], split="test")
    assert "log loss           0.0000" in str(report).splitlines()
    assert json.dumps(report.as_dict()["log_loss"]) == "0.0"


def test_the_dict_is_json_without_nan() -> None:
    report = ClassificationReport.of(np.array([0, 0]), certain([1, 1], 3), ["a", "b", "c"], split="all", notes=["look"])
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert found["accuracy"] == 0.0
    assert found["n"] == 2
    assert found["split"] == "all"
    assert found["confusion"] == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert found["notes"] == ["look"]


@pytest.mark.parametrize(("count", "shown"), [(12, True), (13, False)])
def test_the_text_shows_the_confusion_of_up_to_twelve_classes(count: int, shown: bool) -> None:
    labels, probabilities = predictions(60, count, seed=0)
    text = str(ClassificationReport.of(labels, probabilities, [f"c{i}" for i in range(count)], split="test"))
    assert ("true \\ predicted" in text) == shown
    assert text.splitlines()[text.splitlines().index("") + 1].startswith("class ")


ODD = ["new\nline", "$x_{$ costs", "\N{GRINNING FACE} \u6f22\u5b57", "w" * 200, "bad \udcff byte", ""]


def test_odd_class_names_do_not_break_the_text() -> None:
    lines = str(ClassificationReport.of(np.arange(6), certain([0, 1, 2, 3, 4, 5], 6), ODD, split="test")).splitlines()
    assert len(lines) == 8 + 1 + 7 + 1 + 7
    assert lines[10].startswith("new?line ")
    assert lines[11].startswith("$x_{$ costs ")
    assert lines[13].startswith("w" * 23 + "… ")
    assert lines[14].startswith("bad ? byte ")


# How well classes are told apart


@pytest.mark.parametrize(("n", "count", "digits"), [(40, 2, 16), (60, 2, 1), (200, 5, 16), (300, 5, 1), (90, 7, 2)])
def test_auroc_and_average_precision_are_scikit_learns_with_ties_too(n: int, count: int, digits: int) -> None:
    labels, probabilities = predictions(n, count, seed=n)
    probabilities = probabilities.round(digits)
    report = ClassificationReport.of(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
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


def test_areas_are_the_same_however_many_columns_are_turned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = predictions(50, 9, seed=0)
    whole = ClassificationReport.of(labels, probabilities, list("abcdefghi"), split="test")
    monkeypatch.setattr("featx.metrics.scores.BLOCK_BYTES", 50 * 8 * 4)
    blocks = ClassificationReport.of(labels, probabilities, list("abcdefghi"), split="test")
    np.testing.assert_array_equal(blocks.auroc, whole.auroc)
    np.testing.assert_array_equal(blocks.average_precision, whole.average_precision)
    assert [(b.count, b.right) for b in blocks.reliability] == [(b.count, b.right) for b in whole.reliability]
    assert blocks.ece == pytest.approx(whole.ece, rel=1e-12)


def test_probabilities_that_are_all_equal_tell_nothing_apart() -> None:
    report = ClassificationReport.of(np.array([0, 1, 1, 1]), np.full((4, 2), 0.5), ["a", "b"], split="test")
    assert report.auroc.tolist() == [0.5, 0.5]
    assert report.average_precision.tolist() == [0.25, 0.75]


def test_a_class_without_images_or_without_others_has_no_auroc() -> None:
    report = ClassificationReport.of(np.array([1, 1]), certain([1, 0], 3), ["a", "b", "c"], split="test")
    assert np.isnan(report.auroc).all()
    assert math.isnan(report.overall_auroc)
    np.testing.assert_array_equal(report.average_precision, [np.nan, 1.0, np.nan])
    assert report.as_dict()["auroc"] is None
    assert report.as_dict()["average_precision"] == 1.0
    assert "AUROC              nan  (one class against the rest, mean of 0 classes)" in str(report).splitlines()


def test_one_class_of_several_that_is_missing_is_left_out_of_the_mean() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    report = ClassificationReport.of(labels, probabilities, ["a", "b", "c"], split="test")
    np.testing.assert_allclose(report.auroc, [3 / 4, 3.5 / 4, np.nan])
    assert report.overall_auroc == pytest.approx((3 / 4 + 3.5 / 4) / 2)
    assert report.overall_average_precision == pytest.approx(((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2) / 2)
    assert "AUROC              0.8125  (one class against the rest, mean of 2 classes)" in str(report).splitlines()


def test_nan_among_probabilities_is_no_number_rather_than_a_flattering_one() -> None:
    labels, probabilities = predictions(30, 6, seed=0)
    probabilities[3] = np.nan
    report = ClassificationReport.of(labels, probabilities, list("abcdef"), split="test", reject_below=0.1)
    assert np.isnan(report.auroc).all()
    assert report.accepted == 29
    facts = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (facts["log_loss"], facts["auroc"], facts["ece"]) == (None, None, None)
    without = ClassificationReport.of(
        np.delete(labels, 3), np.delete(probabilities, 3, axis=0), list("abcdef"), split="test"
    )
    assert without.top5 is not None
    assert facts["top5"] == pytest.approx(without.top5 * 29 / 30)


# The five most probable


def test_top_5_is_that_of_scikit_learn() -> None:
    labels, probabilities = predictions(300, 11, seed=1)
    report = ClassificationReport.of(labels, probabilities, [f"c{i}" for i in range(11)], split="test")
    assert report.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=5))
    assert f"top-5              {report.top5:.4f}" in str(report).splitlines()


@pytest.mark.parametrize(("count", "told"), [(5, False), (6, True)])
def test_of_five_classes_the_true_one_is_always_among_the_first_five_so_nothing_is_said(count: int, told: bool) -> None:
    labels, probabilities = predictions(20, count, seed=0)
    report = ClassificationReport.of(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
    assert (report.top5 is not None, report.as_dict()["top5"] is not None) == (told, told)
    assert ("top-5" in str(report), "top5" in report.metrics) == (told, told)


def test_a_tie_for_the_fifth_place_is_a_miss() -> None:
    fifth = np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]])
    assert ClassificationReport.of(np.array([5]), fifth, list("abcdef"), split="test").top5 == 0.0
    assert ClassificationReport.of(np.array([3]), fifth, list("abcdef"), split="test").top5 == 0.0
    assert ClassificationReport.of(np.array([2]), fifth, list("abcdef"), split="test").top5 == 1.0


# Calibration


def test_the_calibration_error_is_that_of_the_bins_by_hand() -> None:
    # Confidences 0.55 and 0.56 in (8/15, 9/15], 0.9 and 0.91 in (13/15, 14/15], and 1 in the last.
    highest = np.array([0.55, 0.56, 0.9, 0.91, 1.0])
    labels = np.array([0, 1, 0, 0, 1])
    report = ClassificationReport.of(labels, np.stack([highest, 1 - highest], axis=1), ["a", "b"], split="test")
    expected = (2 * abs(0.5 - 0.555) + 2 * abs(1.0 - 0.905) + 1 * abs(0.0 - 1.0)) / 5
    assert report.ece == pytest.approx(expected)
    assert report.mean_confidence == pytest.approx(highest.mean())
    assert [(i, b.count, b.right) for i, b in enumerate(report.reliability) if b.count] == [
        (8, 2, 1),
        (13, 2, 2),
        (14, 1, 0),
    ]
    assert len(report.reliability) == BINS == 15
    assert report.reliability[8].confidence == pytest.approx(0.555)
    assert report.reliability[8].accuracy == 0.5
    assert report.reliability[8].interval == wilson(1, 2)


def test_a_confidence_on_an_edge_is_in_the_bin_below_it() -> None:
    edges = np.arange(8, 16) / 15
    report = ClassificationReport.of(
        np.zeros(8, dtype=int), np.stack([edges, 1 - edges], axis=1), ["a", "b"], split="test"
    )
    assert [b.count for b in report.reliability] == [0] * 7 + [1] * 8
    assert all(b.low < b.confidence <= b.high for b in report.reliability if b.count)


def test_certainty_that_is_right_is_calibrated() -> None:
    report = ClassificationReport.of(np.array([0, 1, 1]), certain([0, 1, 1], 2), ["a", "b"], split="test")
    assert report.ece == 0.0
    assert report.reliability[-1].as_dict() == {
        "low": 14 / 15,
        "high": 1.0,
        "count": 3,
        "confidence": 1.0,
        "accuracy": 1.0,
        "interval": list(wilson(3, 3)),
    }
    empty = {"low": 0.0, "high": 1 / 15, "count": 0, "confidence": None, "accuracy": None, "interval": None}
    assert report.as_dict()["reliability"][0] == empty


# Abstention


def test_predictions_below_the_threshold_are_rejected_and_those_at_it_are_not() -> None:
    highest = np.array([0.9, 0.75, 0.75, 0.7, 0.6])
    labels = np.array([0, 1, 0, 0, 1])
    probabilities = np.stack([highest, 1 - highest], axis=1)
    report = ClassificationReport.of(labels, probabilities, ["a", "b"], split="test", reject_below=0.75)
    assert report.coverage == 3 / 5
    assert report.selective_accuracy == 2 / 3
    assert report.selective_interval == wilson(2, 3)
    facts = report.as_dict()
    assert (facts["reject_below"], facts["coverage"], facts["selective_accuracy"]) == (0.75, 3 / 5, 2 / 3)
    assert facts["selective_interval"] == list(wilson(2, 3))
    assert report.accuracy == 3 / 5
    lines = str(report).splitlines()
    assert "accepted           0.6000  (probability at least 0.75: 3 of 5 images)" in lines
    assert "accuracy of these  0.6667  (95 % interval 0.2077 to 0.9385; 2 of 3 images)" in lines


def test_where_every_prediction_is_rejected_there_is_no_accuracy_of_the_accepted() -> None:
    report = ClassificationReport.of(np.array([0, 1]), np.full((2, 2), 0.5), ["a", "b"], split="test", reject_below=0.6)
    assert (report.coverage, report.selective_accuracy, report.selective_interval) == (0.0, None, None)
    assert report.as_dict()["coverage"] == 0.0
    assert "accuracy of these" not in str(report)


def test_nothing_is_said_of_rejection_where_none_was_asked_for() -> None:
    report = ClassificationReport.of(np.array([0, 1]), np.full((2, 2), 0.5), ["a", "b"], split="test")
    facts = report.as_dict()
    asked = ("reject_below", "coverage", "selective_accuracy", "selective_interval")
    assert [facts[key] for key in asked] == [None] * 4
    assert "accepted" not in str(report)


# All reports


def decisions(n: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) float32 of 0 and 1, and (n, count) probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, count)) < 0.3).astype(np.float32)
    return targets, 1 / (1 + np.exp(-(rng.normal(size=(n, count)) + 2 * targets - 1)))


def one_of_each() -> list[Report]:
    """Reports of one image, the least there can be."""
    return [
        ClassificationReport.of(np.array([1]), certain([1], 3), ["a", "b", "c"], split="test", reject_below=1.0),
        MultiLabelReport.of(
            np.array([[0, 1]]), np.array([[0.0, 1.0]]), ["a", "b"], thresholds=np.full(2, 0.5), split="test"
        ),
        RegressionReport.of(np.array([2.0]), np.array([3.0]), split="test"),
    ]


@pytest.mark.parametrize("report", one_of_each(), ids=lambda report: type(report).__name__)
def test_a_report_of_one_image_is_json_and_text(report: Report) -> None:
    facts = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (facts["n"], report.n, facts["split"]) == (1, 1, "test")
    name, value = report.headline
    assert str(report).startswith(f"{name:<17}  {value:.4g}")
    assert value == next(iter(report.metrics.values()))


@pytest.mark.parametrize("report", one_of_each(), ids=lambda report: type(report).__name__)
def test_notes_are_added_to_those_that_are_there(report: Report) -> None:
    more = report.with_notes(["one"]).with_notes(["two", "three"])
    assert more.notes == (*report.notes, "one", "two", "three")
    assert more.as_dict() == {**report.as_dict(), "notes": list(more.notes)}


# Labels


def test_every_metric_of_labels_is_that_of_scikit_learn() -> None:
    targets, probabilities = decisions(150, 6, seed=0)
    thresholds = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    report = MultiLabelReport.of(targets, probabilities, list("abcdef"), thresholds=thresholds, split="test")
    predicted = probabilities >= thresholds
    precision, recall, f1, support = metrics.precision_recall_fscore_support(targets, predicted, zero_division=0)
    np.testing.assert_allclose(report.precision, precision)
    np.testing.assert_allclose(report.recall, recall)
    np.testing.assert_allclose(report.f1, f1)
    np.testing.assert_array_equal(report.support, support)
    each = metrics.average_precision_score(targets, probabilities, average=None)
    np.testing.assert_allclose(report.average_precision, each)
    np.testing.assert_allclose(report.auroc, metrics.roc_auc_score(targets, probabilities, average=None))
    assert report.n == 150
    assert report.mean_average_precision == pytest.approx(metrics.average_precision_score(targets, probabilities))
    assert report.macro_auroc == pytest.approx(metrics.roc_auc_score(targets, probabilities))
    assert report.micro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="micro"))
    assert report.macro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    assert report.exact_match == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert report.exact_match_interval == wilson(report.exact, 150)
    assert report.hamming_loss == pytest.approx(metrics.hamming_loss(targets, predicted))
    losses = [metrics.log_loss(targets[:, i], probabilities[:, i]) for i in range(6)]
    assert report.log_loss == pytest.approx(np.mean(losses))
    assert report.notes == ()


def test_ties_between_labels_probabilities_are_scikit_learns() -> None:
    targets, probabilities = decisions(80, 4, seed=1)
    probabilities = probabilities.round(1)
    report = MultiLabelReport.of(targets, probabilities, list("abcd"), thresholds=np.full(4, 0.5), split="test")
    assert report.mean_average_precision == pytest.approx(metrics.average_precision_score(targets, probabilities))
    assert report.macro_auroc == pytest.approx(metrics.roc_auc_score(targets, probabilities))


def test_a_probability_at_the_threshold_predicts_the_label() -> None:
    targets = np.array([[1, 0], [1, 0]])
    probabilities = np.array([[0.3, 0.8], [0.29, 0.79]])
    report = MultiLabelReport.of(targets, probabilities, ["a", "b"], thresholds=np.array([0.3, 0.8]), split="test")
    assert report.found.tolist() == [1, 0]
    assert report.predicted.tolist() == [1, 1]


def test_a_label_on_no_image_is_left_out_of_the_means_and_named() -> None:
    targets = np.array([[1, 0], [0, 0], [1, 0]])
    probabilities = np.array([[0.9, 0.6], [0.6, 0.1], [0.2, 0.1]])
    report = MultiLabelReport.of(
        targets, probabilities, ["a", "b\n"], thresholds=np.full(2, 0.5), split="val", notes=["x"]
    )
    assert report.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert report.macro_auroc == 0.5
    assert report.macro_f1 == 0.5
    assert report.micro_f1 == pytest.approx(2 * 1 / (2 + 3))
    assert report.notes == ("x", "1 of 2 labels are on no image of split val and do not count in means over labels: b?")
    row = report.as_dict()["per_label"][1]
    assert (row["recall"], row["f1"], row["average_precision"], row["auroc"]) == (None, None, None, None)
    assert (row["precision"], row["support"]) == (0.0, 0)


def test_a_label_on_every_image_has_an_average_precision_and_no_auroc() -> None:
    targets, probabilities = np.ones((3, 1)), np.array([[0.2], [0.5], [0.1]])
    report = MultiLabelReport.of(targets, probabilities, ["a"], thresholds=np.array([0.5]), split="test")
    assert report.average_precision.tolist() == [1.0]
    assert np.isnan(report.auroc).all()


def test_images_without_any_label_are_right_when_none_is_predicted() -> None:
    targets, probabilities = np.zeros((2, 2)), np.full((2, 2), 0.1)
    report = MultiLabelReport.of(targets, probabilities, ["a", "b"], thresholds=np.full(2, 0.5), split="test")
    assert (report.exact_match, report.hamming_loss) == (1.0, 0.0)
    facts = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (facts["mAP"], facts["micro_f1"], facts["macro_f1"]) == (None, None, None)
    assert report.log_loss == pytest.approx(-np.log(0.9))


def test_labels_calibration_compares_their_share_with_their_probability() -> None:
    targets = np.array([[1, 0], [0, 0]])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    report = MultiLabelReport.of(targets, probabilities, ["a", "b"], thresholds=np.full(2, 0.5), split="test")
    assert report.ece == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)
    assert [(b.count, b.right) for b in report.reliability if b.count] == [(2, 0), (2, 1)]


def test_the_text_of_labels_is_exactly_this() -> None:
    targets = np.array([[1, 0], [0, 1], [1, 1], [1, 0]])
    probabilities = np.array([[0.9, 0.2], [0.6, 0.8], [0.4, 0.7], [0.7, 0.75]])
    thresholds = np.array([0.5, 0.75])
    report = MultiLabelReport.of(targets, probabilities, ["sky", "water"], thresholds=thresholds, split="test")
    assert str(report) == (
        "mAP                0.8750  (mean of 2 labels; 4 images of split test)\n"
        "micro F1           0.6000\n"
        "macro F1           0.5833\n"
        "exact match        0.2500  (95 % interval 0.0456 to 0.6994; 1 of 4 images)\n"
        "Hamming loss       0.5000\n"
        "log loss           0.5605  (of each label)\n"
        "AUROC              0.7083  (mean of 2 labels)\n"
        "calibration error  0.3312\n"
        "\n"
        "label  threshold  precision  recall      F1      AP   AUROC  images\n"
        "sky        0.500      0.667   0.667   0.667   0.917   0.667       3\n"
        "water      0.750      0.500   0.500   0.500   0.833   0.750       2"
    )


# Numbers


def test_every_metric_of_numbers_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(50, 20, size=80)
    predicted = targets + rng.normal(1, 5, size=80)
    report = RegressionReport.of(targets, predicted, split="test")
    assert report.n == 80
    assert report.rmse == pytest.approx(metrics.root_mean_squared_error(targets, predicted))
    assert report.mae == pytest.approx(metrics.mean_absolute_error(targets, predicted))
    assert report.r2 == pytest.approx(metrics.r2_score(targets, predicted))
    mean = np.full(80, targets.mean())
    assert report.baseline_rmse == pytest.approx(metrics.root_mean_squared_error(targets, mean))
    assert report.notes == ()


@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_the_interval_of_the_rmse_holds_the_truth_about_as_often_as_it_says(draw: str) -> None:
    rng = np.random.default_rng(0)
    errors = getattr(rng, draw)(size=(300, 60))
    truth = 1.0 if draw == "normal" else math.sqrt(2.0)
    intervals = [RegressionReport.of(np.arange(60), np.arange(60) + row, split="test").interval for row in errors]
    held = [interval[0] <= truth <= interval[1] for interval in intervals if interval is not None]
    assert len(held) == 300
    assert 0.90 <= np.mean(held) <= 0.98


def test_the_interval_is_the_same_each_time_and_moves_with_the_unit() -> None:
    rng = np.random.default_rng(1)
    targets, errors = rng.normal(size=30), rng.normal(size=30)
    interval = RegressionReport.of(targets, targets + errors, split="test").interval
    assert interval is not None
    assert RegressionReport.of(targets, targets + errors, split="test").interval == interval
    scaled = RegressionReport.of(targets * 1e6, (targets + errors) * 1e6, split="test")
    assert scaled.interval == pytest.approx((interval[0] * 1e6, interval[1] * 1e6))
    assert interval[0] < scaled.rmse / 1e6 < interval[1]


def test_the_interval_of_many_errors_is_that_of_the_delta_method() -> None:
    errors = np.random.default_rng(2).normal(size=10_001)
    report = RegressionReport.of(np.zeros(10_001), errors, split="test")
    few = RegressionReport.of(np.zeros(10_000), errors[:-1], split="test")
    squares = errors**2
    half = 1.96 * squares.std() / np.sqrt(10_001) / (2 * report.rmse)
    assert report.interval == pytest.approx((report.rmse - half, report.rmse + half), rel=2e-4)
    assert few.interval == pytest.approx(report.interval, rel=2e-3)


@pytest.mark.parametrize("errors", [[1.0], [1.0, 3.0], [1.0, 2.0, 3.0], [0.5] * 20, [0.0] * 20, [1.0, -1.0] * 10])
def test_too_few_or_equal_errors_tell_no_interval(errors: list[float]) -> None:
    targets = np.arange(len(errors), dtype=float)
    report = RegressionReport.of(targets, targets + errors, split="test")
    assert report.interval is None
    assert report.as_dict()["interval"] is None
    assert f"(no interval can be told; {len(errors)} images of split test)" in str(report)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_targets_that_are_all_equal_have_no_r2(n: int) -> None:
    report = RegressionReport.of(np.full(n, 0.1), np.full(n, 0.3), split="val")
    assert (report.r2, report.baseline_rmse) == (None, 0.0)
    assert report.notes == ("all targets of split val are equal, so that R2 says nothing",)
    assert "R2                 none" in str(report).splitlines()
    assert report.as_dict()["r2"] is None


def test_the_text_of_numbers_is_exactly_this() -> None:
    targets = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 61.0])
    report = RegressionReport.of(targets, np.array([12.0, 19.0, 33.0, 40.5, 46.0, 60.0]), split="test")
    assert report.interval is not None
    assert str(report) == (
        "RMSE               2.28218  (95 % interval {:.6g} to {:.6g}, bootstrap; 6 images of split test)\n"
        "MAE                1.91667\n"
        "R2                 0.9826\n"
        "RMSE of the mean   17.3245  (what always predicting the mean target would give)"
    ).format(*report.interval)


def test_a_column_is_as_good_as_a_row_of_numbers_and_never_spread_against_it() -> None:
    targets, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0])
    report = RegressionReport.of(targets[:, None], predicted, split="test")
    assert report.as_dict() == RegressionReport.of(targets, predicted, split="test").as_dict()
    assert report.rmse == pytest.approx(math.sqrt(2 / 3))


def test_several_numbers_for_an_image_are_an_error() -> None:
    with pytest.raises(HeadError, match=r"numbers of shape \(3, 2\); a report is of one number for each image"):
        RegressionReport.of(np.zeros((3, 2)), np.zeros(3), split="test")
    with pytest.raises(HeadError, match="2 predictions for 3 targets; expected as many"):
        RegressionReport.of(np.zeros(3), np.zeros(2), split="test")


# Cross-validation


def folds_of(n: int, count: int, folds: int, seed: int) -> list[ClassificationReport]:
    labels, probabilities = predictions(n, count, seed)
    names = [f"c{i}" for i in range(count)]
    return [ClassificationReport.of(labels[k::folds], probabilities[k::folds], names, split="cv") for k in range(folds)]


def test_cross_validation_sums_up_every_fold() -> None:
    reports = [*folds_of(50, 3, 5, seed=0), *folds_of(50, 3, 5, seed=1)]
    found = CrossValidated.of(reports, repeats=2, notes=["look"])
    assert (found.repeats, found.folds, found.n, found.notes) == (2, 5, 50, ("look",))
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        values = np.array([getattr(report, key) for report in reports])
        assert found.mean(key) == pytest.approx(values.mean())
        assert found.deviation(key) == pytest.approx(values.std(ddof=1))
        assert found.between_repeats(key) == pytest.approx(np.std([values[:5].mean(), values[5:].mean()], ddof=1))
        assert found.range(key) == (values.min(), values.max())
    assert found.mean("auroc") == pytest.approx(np.mean([report.overall_auroc for report in reports]))
    assert found.headline == ("accuracy", found.mean("accuracy"))
    facts = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert (facts["repeats"], facts["folds"], facts["n"], facts["notes"]) == (2, 5, 50, ["look"])
    accuracy = facts["metrics"]["accuracy"]
    assert accuracy["values"] == [
        [report.accuracy for report in reports[:5]],
        [report.accuracy for report in reports[5:]],
    ]
    assert accuracy["mean"] == found.mean("accuracy")
    assert (accuracy["lowest"], accuracy["highest"]) == found.range("accuracy")


def with_accuracy(right: int, of: int) -> ClassificationReport:
    labels = np.arange(of) % 2
    return ClassificationReport.of(
        labels, certain([int(y if i < right else 1 - y) for i, y in enumerate(labels)], 2), ["a", "b"], split="cv"
    )


def test_the_text_of_repeated_cross_validation_starts_like_this() -> None:
    reports = [with_accuracy(right, 10) for right in (8, 9, 10, 7)]
    lines = str(CrossValidated.of(reports, repeats=2)).splitlines()
    assert lines[:2] == [
        "cross-validated (2 x 2 folds, 20 images): mean ± standard deviation over the folds",
        "accuracy           0.8500 ± 0.1291  (lowest 0.7000, highest 1.0000; ± 0.0000 between repeats)",
    ]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "balanced accuracy",
        "macro F1",
        "log loss",
        "AUROC",
        "average precision",
    ]


def test_one_repeat_has_no_spread_between_repeats() -> None:
    found = CrossValidated.of([with_accuracy(right, 10) for right in (8, 9)])
    assert math.isnan(found.between_repeats("accuracy"))
    assert found.as_dict()["metrics"]["accuracy"]["between_repeats"] is None
    assert str(found).splitlines()[:2] == [
        "cross-validated (2 folds, 20 images): mean ± standard deviation over the folds",
        "accuracy           0.8500 ± 0.0707  (lowest 0.8000, highest 0.9000)",
    ]


def test_repeats_without_folds_are_repeats() -> None:
    found = CrossValidated.of([with_accuracy(right, 10) for right in (8, 9, 10)], repeats=3)
    assert found.between_repeats("accuracy") == found.deviation("accuracy") == pytest.approx(0.1)
    assert str(found).splitlines()[:2] == [
        "repeated (3 times, 10 images each): mean ± standard deviation over the repeats",
        "accuracy           0.9000 ± 0.1000  (lowest 0.8000, highest 1.0000)",
    ]


def test_one_report_alone_has_no_spread_at_all() -> None:
    found = CrossValidated.of([with_accuracy(8, 10)])
    assert "accuracy           0.8000  (lowest 0.8000, highest 0.8000)" in str(found).splitlines()
    assert found.as_dict()["metrics"]["accuracy"]["deviation"] is None


def test_folds_of_labels_and_of_numbers_are_summed_up_alike() -> None:
    labels = []
    for seed in (0, 1, 2):
        targets, probabilities = decisions(40, 3, seed)
        labels.append(MultiLabelReport.of(targets, probabilities, list("abc"), thresholds=np.full(3, 0.5), split="cv"))
    found = CrossValidated.of(labels)
    assert found.headline == ("mAP", found.mean("mAP"))
    assert found.mean("mAP") == pytest.approx(np.mean([report.mean_average_precision for report in labels]))
    assert found.mean("micro_f1") == pytest.approx(np.mean([report.micro_f1 for report in labels]))
    numbers = [RegressionReport.of(np.array([0.0, 1e5]), np.array([e, 1e5 - e]), split="cv") for e in (1.0, 3.0)]
    found = CrossValidated.of(numbers)
    assert found.headline == ("RMSE", 2.0)
    assert found.mean("r2") == pytest.approx(np.mean([report.r2 for report in numbers if report.r2 is not None]))
    assert "RMSE               2 ± 1.41421  (lowest 1, highest 3)" in str(found).splitlines()


def test_a_fold_that_leaves_a_metric_undefined_does_not_count_in_its_mean() -> None:
    good = RegressionReport.of(np.array([0.0, 2.0]), np.array([0.0, 1.0]), split="cv")
    constant = RegressionReport.of(np.array([2.0, 2.0]), np.array([0.0, 1.0]), split="cv")
    found = CrossValidated.of([good, constant])
    assert found.mean("r2") == good.r2
    assert found.notes == ("R2 is undefined in 1 of 2 folds, which do not count in its mean",)
    nothing = CrossValidated.of([constant, constant])
    r2 = json.loads(json.dumps(nothing.as_dict(), allow_nan=False))["metrics"]["r2"]
    assert (r2["mean"], r2["lowest"], r2["highest"], r2["values"]) == (None, None, None, [[None, None]])


def test_folds_that_lack_a_class_are_counted() -> None:
    whole = ClassificationReport.of(np.array([0, 1, 2]), certain([0, 1, 2], 3), list("abc"), split="cv")
    part = ClassificationReport.of(np.array([0, 1, 1]), certain([0, 1, 2], 3), list("abc"), split="cv")
    found = CrossValidated.of([whole, part, part])
    assert found.notes == ("2 of 3 folds lack a class; it does not count in that fold's means",)


def test_reports_that_are_no_cross_validation_are_an_error() -> None:
    report = with_accuracy(8, 10)
    with pytest.raises(HeadError, match="3 reports of 2 repeats; expected as many for each, and at least one"):
        CrossValidated.of([report] * 3, repeats=2)
    with pytest.raises(HeadError, match="0 reports of 1 repeats; expected as many for each, and at least one"):
        CrossValidated.of([])
    with pytest.raises(HeadError, match="reports of several tasks; expected one cross-validation's"):
        CrossValidated.of([report, RegressionReport.of(np.zeros(2), np.ones(2), split="cv")])
    with pytest.raises(HeadError, match="reports of several tasks; expected one cross-validation's"):
        CrossValidated.of([report, replace(report, top5=0.5)])
