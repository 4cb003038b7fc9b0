from __future__ import annotations

import json

import numpy as np
import pytest
from made_predictions import decisions
from sklearn import metrics

from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.scores import wilson_interval


def test_every_metric_is_that_of_scikit_learn() -> None:
    targets, probabilities = decisions(150, 6, seed=0)
    thresholds = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    report = MultiLabelReport.from_predictions(
        targets, probabilities, list("abcdef"), thresholds=thresholds, split="test"
    )
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
    assert report.exact_match_interval == wilson_interval(report.exact, 150)
    assert report.hamming_loss == pytest.approx(metrics.hamming_loss(targets, predicted))
    losses = [metrics.log_loss(targets[:, i], probabilities[:, i]) for i in range(6)]
    assert report.log_loss == pytest.approx(np.mean(losses))
    assert report.notes == ()


def test_ties_between_labels_probabilities_are_scikit_learns() -> None:
    targets, probabilities = decisions(80, 4, seed=1)
    probabilities = probabilities.round(1)
    report = MultiLabelReport.from_predictions(
        targets, probabilities, list("abcd"), thresholds=np.full(4, 0.5), split="test"
    )
    assert report.mean_average_precision == pytest.approx(metrics.average_precision_score(targets, probabilities))
    assert report.macro_auroc == pytest.approx(metrics.roc_auc_score(targets, probabilities))


def test_a_probability_at_the_threshold_predicts_the_label() -> None:
    targets = np.array([[1, 0], [1, 0]])
    probabilities = np.array([[0.3, 0.8], [0.29, 0.79]])
    report = MultiLabelReport.from_predictions(
        targets, probabilities, ["a", "b"], thresholds=np.array([0.3, 0.8]), split="test"
    )
    assert report.found.tolist() == [1, 0]
    assert report.predicted.tolist() == [1, 1]


def test_a_label_on_no_image_is_left_out_of_the_means_and_named() -> None:
    targets = np.array([[1, 0], [0, 0], [1, 0]])
    probabilities = np.array([[0.9, 0.6], [0.6, 0.1], [0.2, 0.1]])
    report = MultiLabelReport.from_predictions(
        targets, probabilities, ["a", "b\n"], thresholds=np.full(2, 0.5), split="val", notes=["x"]
    )
    assert report.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert report.macro_auroc == 0.5
    assert report.macro_f1 == 0.5
    assert report.micro_f1 == pytest.approx(2 * 1 / (2 + 3))
    assert report.notes == (
        "x",
        "1 of 2 labels is on no image of split val and does not count in means over labels: b?",
    )
    row = report.as_dict()["per_label"][1]
    assert (row["recall"], row["f1"], row["average_precision"], row["auroc"]) == (None, None, None, None)
    assert (row["precision"], row["support"]) == (0.0, 0)


def test_a_label_on_every_image_has_an_average_precision_and_no_auroc() -> None:
    targets, probabilities = np.ones((3, 1)), np.array([[0.2], [0.5], [0.1]])
    report = MultiLabelReport.from_predictions(targets, probabilities, ["a"], thresholds=np.array([0.5]), split="test")
    assert report.average_precision.tolist() == [1.0]
    assert np.isnan(report.auroc).all()


def test_images_without_any_label_are_right_when_none_is_predicted() -> None:
    targets, probabilities = np.zeros((2, 2)), np.full((2, 2), 0.1)
    report = MultiLabelReport.from_predictions(
        targets, probabilities, ["a", "b"], thresholds=np.full(2, 0.5), split="test"
    )
    assert (report.exact_match, report.hamming_loss) == (1.0, 0.0)
    facts = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (facts["mAP"], facts["micro_f1"], facts["macro_f1"]) == (None, None, None)
    assert report.log_loss == pytest.approx(-np.log(0.9))


def test_multilabel_calibration_compares_label_frequency_with_probability() -> None:
    targets = np.array([[1, 0], [0, 0]])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    report = MultiLabelReport.from_predictions(
        targets, probabilities, ["a", "b"], thresholds=np.full(2, 0.5), split="test"
    )
    assert report.ece == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)
    assert [(b.count, b.correct) for b in report.reliability if b.count] == [(2, 0), (2, 1)]


def test_the_text_is_exactly_this() -> None:
    targets = np.array([[1, 0], [0, 1], [1, 1], [1, 0]])
    probabilities = np.array([[0.9, 0.2], [0.6, 0.8], [0.4, 0.7], [0.7, 0.75]])
    thresholds = np.array([0.5, 0.75])
    report = MultiLabelReport.from_predictions(
        targets, probabilities, ["sky", "water"], thresholds=thresholds, split="test"
    )
    assert str(report) == (
        "Evaluated on 4 images of split test\n"
        "mAP          0.8750  (mean of 2 labels; by chance 0.6250)\n"
        "exact match  0.2500  (95 % interval 0.0456 to 0.6994; 1 of 4 right; always 'sky' 0.5000)\n"
        "micro F1  macro F1  Hamming loss  log loss   AUROC     ECE\n"
        "  0.6000    0.5833        0.5000    0.5605  0.7083  0.3312\n"
        "\n"
        "label  threshold  precision  recall      F1      AP   AUROC  images\n"
        "sky        0.500      0.667   0.667   0.667   0.917   0.667       3\n"
        "water      0.750      0.500   0.500   0.500   0.833   0.750       2"
    )
