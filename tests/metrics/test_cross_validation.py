from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from made_predictions import certain, decisions, predictions

from featx.errors import MetricError
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated, stored
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport
from featx.metrics.scores import wilson_interval
from featx.metrics.stored import StoredCrossValidation


def folds_of(n: int, count: int, folds: int, seed: int) -> list[ClassificationReport]:
    labels, probabilities = predictions(n, count, seed)
    names = [f"c{i}" for i in range(count)]
    return [
        ClassificationReport.from_predictions(labels[k::folds], probabilities[k::folds], names, split="cv")
        for k in range(folds)
    ]


def test_the_summary_covers_every_fold() -> None:
    reports = [*folds_of(50, 3, 5, seed=0), *folds_of(50, 3, 5, seed=1)]
    found = CrossValidated.from_reports(reports, repeats=2, notes=["look"])
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
    return ClassificationReport.from_predictions(
        labels, certain([int(y if i < right else 1 - y) for i, y in enumerate(labels)], 2), ["a", "b"], split="cv"
    )


def test_the_text_of_repeated_cross_validation_is_exactly_this() -> None:
    reports = [with_accuracy(right, 10) for right in (8, 9, 10, 7)]
    found = CrossValidated.from_reports(reports, repeats=2)
    assert str(found).splitlines() == [
        "Cross-validated: 2 x 2 folds of 20 images",
        "accuracy  0.8500  (95 % interval 0.5035 to 0.9694; always 'a' 0.5000)",
        "balanced accuracy  macro F1  log loss   AUROC  average precision",
        f"           0.8500    0.8490    {found.mean('log_loss'):.4f}  0.8500             0.8225",
    ]
    assert found.as_dict()["estimates"] == (
        "what heads fitted to 50 % of so many images reach on new images of the same kind"
    )


def test_one_repeat_has_no_spread_between_repeats() -> None:
    found = CrossValidated.from_reports([with_accuracy(right, 10) for right in (8, 9)])
    assert math.isnan(found.between_repeats("accuracy"))
    assert found.as_dict()["metrics"]["accuracy"]["between_repeats"] is None
    assert str(found).splitlines()[:2] == [
        "Cross-validated: 2 folds of 20 images",
        "accuracy  0.8500  (95 % interval 0.4711 to 0.9730; always 'a' 0.5000)",
    ]


def test_repeats_without_folds_are_repeats() -> None:
    found = CrossValidated.from_reports([with_accuracy(right, 10) for right in (8, 9, 10)], repeats=3)
    assert found.between_repeats("accuracy") == found.deviation("accuracy") == pytest.approx(0.1)
    assert str(found).splitlines()[:2] == [
        "Repeated 3 times, on 10 images each time",
        "accuracy  0.9000  (standard deviation 0.1000; always 'a' 0.5000)",
    ]


def test_one_report_alone_has_no_spread_at_all() -> None:
    found = CrossValidated.from_reports([with_accuracy(8, 10)])
    assert "accuracy  0.8000  (always 'a' 0.5000)" in str(found).splitlines()
    assert found.as_dict()["metrics"]["accuracy"]["deviation"] is None


def test_multilabel_and_regression_folds_are_summarised_alike() -> None:
    labels = []
    for seed in (0, 1, 2):
        targets, probabilities = decisions(40, 3, seed)
        labels.append(
            MultiLabelReport.from_predictions(
                targets, probabilities, list("abc"), thresholds=np.full(3, 0.5), split="cv"
            )
        )
    found = CrossValidated.from_reports(labels)
    assert found.headline == ("mAP", found.mean("mAP"))
    assert found.mean("mAP") == pytest.approx(np.mean([report.mean_average_precision for report in labels]))
    assert found.mean("micro_f1") == pytest.approx(np.mean([report.micro_f1 for report in labels]))
    numbers = [
        RegressionReport.from_predictions(np.array([0.0, 1e5]), np.array([e, 1e5 - e]), split="cv") for e in (1.0, 3.0)
    ]
    found = CrossValidated.from_reports(numbers)
    assert found.headline == ("RMSE", 2.0)
    assert found.mean("r2") == pytest.approx(np.mean([report.r2 for report in numbers if report.r2 is not None]))
    assert "RMSE  2  (95 % interval 0 to 24.0078; always the mean 50000)" in str(found).splitlines()


def test_r2_of_folds_is_against_the_baseline_of_all_folds() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=40)
    predictions, means = targets + rng.normal(size=40) / 2, []
    folds = []
    for fold in range(20):  # of two images, whose targets may be close
        held, mean = np.arange(40) % 20 == fold, float(targets[np.arange(40) % 20 != fold].mean())
        means.append(np.where(held, mean, 0.0))
        folds.append(RegressionReport.from_predictions(targets[held], predictions[held], split="cv", mean=mean))
    wanted = 1 - ((predictions - targets) ** 2).sum() / ((targets - np.sum(means, axis=0)) ** 2).sum()
    found = CrossValidated.from_reports(folds)
    assert found.mean("r2") == pytest.approx(wanted)
    assert wanted > 0.5 > np.mean([report.r2 for report in folds if report.r2 is not None])
    assert found.range("r2")[0] > -2


def test_a_fold_that_leaves_a_metric_undefined_does_not_count_in_its_mean() -> None:
    good = ClassificationReport.from_predictions(np.array([0, 1, 1]), certain([0, 1, 0], 2), list("ab"), split="cv")
    alone = ClassificationReport.from_predictions(np.array([1, 1]), certain([1, 0], 2), list("ab"), split="cv")
    found = CrossValidated.from_reports([good, alone])
    assert found.mean("auroc") == good.metrics["auroc"]
    assert "AUROC is undefined in 1 of 2 folds, which does not count in its mean" in found.notes
    constant = RegressionReport.from_predictions(np.array([2.0, 2.0]), np.array([0.0, 1.0]), split="cv")
    nothing = CrossValidated.from_reports([constant, constant])
    r2 = json.loads(json.dumps(nothing.as_dict(), allow_nan=False))["metrics"]["r2"]
    assert (r2["mean"], r2["lowest"], r2["highest"], r2["values"]) == (None, None, None, [[None, None]])


def test_folds_that_lack_a_class_are_counted() -> None:
    whole = ClassificationReport.from_predictions(np.array([0, 1, 2]), certain([0, 1, 2], 3), list("abc"), split="cv")
    part = ClassificationReport.from_predictions(np.array([0, 1, 1]), certain([0, 1, 2], 3), list("abc"), split="cv")
    found = CrossValidated.from_reports([whole, part, part])
    assert found.notes == (
        "2 of 3 folds lack a class, which does not count in that fold's means, so that always one class has a balanced "
        "accuracy of 0.4444",
    )


def test_values_that_differ_by_rounding_alone_have_no_interval_of_no_width() -> None:
    found = CrossValidated({"macro_f1": np.array([[1 / 3, 1 / 3 + 1e-16, 1 / 3 - 1e-16]])}, n=9)
    assert found.interval("macro_f1") is None


def test_reports_that_are_no_cross_validation_are_an_error() -> None:
    report = with_accuracy(8, 10)
    with pytest.raises(MetricError, match="3 reports of 2 repeats; expected equally many for each, and at least one"):
        CrossValidated.from_reports([report] * 3, repeats=2)
    with pytest.raises(MetricError, match="0 reports of 1 repeat; expected equally many for each, and at least one"):
        CrossValidated.from_reports([])
    with pytest.raises(MetricError, match="reports with different metrics; expected those of one cross-validation"):
        CrossValidated.from_reports([report, RegressionReport.from_predictions(np.zeros(2), np.ones(2), split="cv")])
    with pytest.raises(MetricError, match="reports with different metrics; expected those of one cross-validation"):
        CrossValidated.from_reports([report, replace(report, top5=0.5)])


# Intervals


def test_the_interval_of_a_share_is_wilsons_of_as_many_images_as_the_folds_are_worth() -> None:
    found = CrossValidated.from_reports([*folds_of(50, 3, 5, seed=0), *folds_of(50, 3, 5, seed=1)], repeats=2)
    size = 50 / (1 / 2 + 5 / 4)
    assert found.interval("accuracy") == pytest.approx(wilson_interval(found.mean("accuracy") * size, size))
    narrow = replace(found, effective=(25.0, 9.0)).interval("accuracy")
    assert np.diff(narrow) > 1.4 * np.diff(found.interval("accuracy")), "images in groups tell less"
    assert replace(found, effective=(0.0, 0.0)).interval("accuracy") == (0.0, 1.0)


def test_the_interval_of_another_metric_is_the_corrected_resampled_t_interval() -> None:
    found = CrossValidated.from_reports([*folds_of(80, 2, 5, seed=0), *folds_of(80, 2, 5, seed=1)], repeats=2)
    values = found.values["balanced_accuracy"].ravel()
    error = values.std(ddof=1) * math.sqrt(1 / 10 + 1 / 4)
    low, high = found.interval("balanced_accuracy")
    assert (low, high) == pytest.approx((values.mean() - 2.262157 * error, values.mean() + 2.262157 * error), rel=1e-6)
    assert found.interval("auroc")[1] <= 1.0


def test_repeats_of_one_fold_have_no_interval() -> None:
    found = CrossValidated.from_reports([with_accuracy(right, 10) for right in (8, 9, 10)], repeats=3)
    assert found.interval("accuracy") is None
    assert found.as_dict()["metrics"]["accuracy"]["interval"] is None
    assert math.isnan(found.baseline_p_value)


def test_heads_that_do_not_beat_the_commonest_class_are_noted() -> None:
    poor = CrossValidated.from_reports([with_accuracy(right, 10) for right in (6, 5, 4, 6)], repeats=2)
    good = CrossValidated.from_reports([with_accuracy(right, 40) for right in (38, 39, 37, 38)], repeats=2)
    assert poor.baseline_note.startswith(
        "cross-validation does not show the heads to be better than always 'a' 0.5000 (p = "
    )
    assert good.baseline_note == ""
    assert good.baseline_p_value < 0.01


def test_what_a_file_stores_of_a_cross_validation_can_be_read_again() -> None:
    found = CrossValidated.from_reports([*folds_of(50, 3, 5, seed=0), *folds_of(50, 3, 5, seed=1)], repeats=2)
    read = StoredCrossValidation.of(json.loads(json.dumps(stored(found), allow_nan=False)))
    assert (read.name, read.value, read.n, read.design) == (
        "accuracy",
        found.mean("accuracy"),
        50,
        "2 x 5 folds",
    )
    assert read.interval == pytest.approx(found.interval("accuracy"))
    for strange in (None, 3, {}, {"value": "high"}, {"value": math.nan}):
        assert StoredCrossValidation.of(strange) is None
