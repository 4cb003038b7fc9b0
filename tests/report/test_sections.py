from __future__ import annotations

import re

import numpy as np
from made_predictions import classification_report, multilabel_report

from featx.metrics.classification import ClassificationReport
from featx.metrics.regression import RegressionReport
from featx.report.sections import headline_of, numbers_of, sections_of


def test_the_headline_is_one_line_with_its_interval() -> None:
    judged = ClassificationReport.from_predictions(
        np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 1, 1]], ["a", "b"], split="val"
    )
    assert (
        headline_of(judged)
        == "accuracy 0.7500 (95 % interval 0.3006 to 0.9544) on 4 images of split val; always 'a' 0.7500"
    )
    assert re.fullmatch(r"mAP [\d.]+ on 40 images of split val; by chance [\d.]+", headline_of(multilabel_report()))
    exact = RegressionReport.from_predictions(np.arange(9.0), np.arange(9.0) + 1000, split="test")
    assert headline_of(exact) == "RMSE 1000 on 9 images of split test; always the mean 2.58199"


def test_the_numbers_are_those_of_the_report() -> None:
    judged = classification_report(["a", "b", "c", "d", "e", "f"], reject_below=0.4)
    shown = {number.name: number for number in numbers_of(judged)}
    expected = {
        "accuracy": judged.accuracy,
        "balanced accuracy": judged.balanced_accuracy,
        "macro F1": judged.macro_f1,
        "top-5 accuracy": judged.top5,
        "AUROC": judged.overall_auroc,
        "average precision": judged.overall_average_precision,
        "log loss": judged.log_loss,
        "calibration error": judged.ece,
        "accuracy of the accepted": judged.selective_accuracy,
    }
    assert {name: number.value for name, number in shown.items()} == {k: f"{v:.4f}" for k, v in expected.items()}
    low, high = judged.interval
    right = int(np.trace(judged.confusion))
    assert shown["accuracy"].interval == (low, high)
    assert shown["accuracy"].detail == f"95 % interval {low:.4f} to {high:.4f}; {right} of 30 images; always 'a' 0.1667"
    assert shown["accuracy of the accepted"].interval == judged.selective_interval


def test_undefined_metrics_are_shown_as_none() -> None:
    flat = RegressionReport.from_predictions(np.ones(3), np.array([1.0, 2.0, 3.0]), split="test")
    assert {n.name: n.value for n in numbers_of(flat)}["R2"] == "none"
    absent = ClassificationReport.from_predictions(np.array([0, 0]), np.eye(3)[[0, 1]], ["a", "b", "c"], split="test")
    (classes, *_) = sections_of(absent)
    assert classes.tables[0].rows[2] == ("c", "0.0000", "none", "none", "none", "none", "0")


def test_the_most_frequent_confusions_are_listed_first() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] * 5)
    predicted = [0] * 6 + [1] * 3 + [2] + [1] * 3 + [2] * 2 + [2] * 5
    judged = ClassificationReport.from_predictions(labels, np.eye(3)[predicted], ["a", "b", "c"], split="test")
    (confusions,) = [section for section in sections_of(judged) if section.title == "Confusions"]
    assert confusions.tables[0].rows == [
        ("a", "b", "3", "0.3000"),
        ("b", "c", "2", "0.4000"),
        ("a", "c", "1", "0.1000"),
    ]


def test_without_confusions_there_is_no_table_of_them() -> None:
    judged = ClassificationReport.from_predictions(np.array([0, 1]), np.eye(2), ["a", "b"], split="test")
    (confusions,) = [section for section in sections_of(judged) if section.title == "Confusions"]
    assert confusions.tables == ()
