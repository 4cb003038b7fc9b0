"""The parts of a page that show a report: its headline, its numbers, and sections of figures and tables."""

from __future__ import annotations

import numpy as np

from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.prediction_sets import IntervalReport
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.metrics.tables import baseline_text, images_text
from featx.report.html import Number, Picture, Section, Table, decimals
from featx.report.plots import MOST_BARS, as_png, as_svg, confusion_figure, per_class_figure, reliability_figure
from featx.text import counted

_MOST_PAIRS = 10  # confused pairs of classes that are listed
_MOST_CLASSES_IN_SVG = 100  # beyond it, a confusion matrix is smaller as a PNG


def headline_of(report: Report) -> str:
    """The most important metric of a report with its interval, in one line.

    Examples:
        >>> report = RegressionReport.from_predictions(np.arange(9.0), np.arange(9.0) + 1000, split="test")
        >>> headline_of(report)
        'RMSE 1000 on 9 images of split test; always the mean 2.58199'
    """
    name, value = report.headline
    text_of = _six_digits if isinstance(report, RegressionReport) else decimals
    interval = None if isinstance(report, MultiLabelReport) else report.interval
    uncertainty = "" if interval is None else " (95 % interval {} to {})".format(*map(text_of, interval))
    return f"{name} {text_of(value)}{uncertainty} on {images_text(report)}; {_baseline(report)}"


def numbers_of(report: Report) -> tuple[Number, ...]:
    """The metrics of a report, for the top of a page."""
    if isinstance(report, RegressionReport):
        return _regression_numbers(report)
    if isinstance(report, MultiLabelReport):
        return _multilabel_numbers(report)
    return _classification_numbers(report)


def sections_of(report: Report) -> tuple[Section, ...]:
    """Figures and tables of a report; none for a regression, whose figure needs targets and predictions."""
    if isinstance(report, RegressionReport):
        return ()
    calibration = Picture(
        as_svg(reliability_figure(report)),
        f"Reliability diagram; expected calibration error {decimals(report.ece)}",
        "Above: accuracy by confidence; where the line is below the diagonal, the head is overconfident. "
        "Below: the number of predictions of each confidence.",
    )
    kind = "label" if isinstance(report, MultiLabelReport) else "class"
    bars = Picture(
        as_svg(per_class_figure(report)),
        f"Recall and precision of each {kind}; the table has the same numbers",
        f"Lowest recall first; at most {MOST_BARS}. Grey: number of images of split {report.split}.",
    )
    return (
        Section("Labels" if kind == "label" else "Classes", pictures=(bars,), tables=(_per_class(report, kind),)),
        *(() if isinstance(report, MultiLabelReport) else (_confusions(report),)),
        Section("Calibration", pictures=(calibration,)),
    )


def _classification_numbers(report: ClassificationReport) -> tuple[Number, ...]:
    correct = int(np.trace(report.confusion))
    averaged = f"one-vs-rest, mean of {counted(int(np.isfinite(report.auroc).sum()), 'class', 'classes')}"
    if len(report.classes) == 2:
        averaged = f"{report.classes[1]} against {report.classes[0]}"
    numbers = [
        _share("accuracy", report.accuracy, report.interval, f"{correct} of {_in_groups(report)}; {report.baseline}"),
        Number(
            "balanced accuracy",
            decimals(report.balanced_accuracy),
            f"mean recall of the classes; always one class {decimals(report.baseline_balanced_accuracy)}",
        ),
        Number("macro F1", decimals(report.macro_f1), "mean F1 of the classes"),
        *(() if report.top5 is None else (Number("top-5 accuracy", decimals(report.top5)),)),
        Number("AUROC", decimals(report.overall_auroc), averaged),
        Number("average precision", decimals(report.overall_average_precision), averaged),
        Number("log loss", decimals(report.log_loss), "nats"),
        Number("calibration error", decimals(report.ece), f"mean confidence {decimals(report.mean_confidence)}"),
    ]
    if report.selective_accuracy is not None and report.selective_interval is not None:
        accepted = f"{report.accepted} with a probability of at least {report.reject_below:.4g}"
        detail = f"{report.accepted_right} of the {accepted}"
        numbers.append(_share("accuracy of the accepted", report.selective_accuracy, report.selective_interval, detail))
    if report.sets is not None:
        sets = report.sets
        detail = (
            f"{sets.wanted:.4g} wanted; {sets.mean_size:.2f} classes in a set, {100 * sets.singletons:.1f} % have one"
        )
        numbers.append(_share("prediction sets with the class", sets.coverage, sets.interval, detail))
    return tuple(numbers)


def _multilabel_numbers(report: MultiLabelReport) -> tuple[Number, ...]:
    labels = int(np.isfinite(report.average_precision).sum())
    exact = f"{report.exact} of {_in_groups(report)}; {report.baseline}"
    return (
        Number(
            "mAP",
            decimals(report.mean_average_precision),
            f"mean average precision of {counted(labels, 'label')}; {_baseline(report)}",
        ),
        Number("micro F1", decimals(report.micro_f1), "of all decisions"),
        Number("macro F1", decimals(report.macro_f1), "mean F1 of the labels"),
        _share("exact match", report.exact_match, report.exact_match_interval, exact),
        Number("Hamming loss", decimals(report.hamming_loss), "share of wrong decisions"),
        Number("AUROC", decimals(report.macro_auroc), "mean of the labels"),
        Number("log loss", decimals(report.log_loss), "nats, of each label"),
        Number("calibration error", decimals(report.ece)),
    )


def _regression_numbers(report: RegressionReport) -> tuple[Number, ...]:
    interval = "" if report.interval is None else "95 % interval {} to {}".format(*map(_six_digits, report.interval))
    mean = f"the mean of {'the training' if report.is_trained else 'these'} targets"
    return (
        Number("RMSE", _six_digits(report.rmse), interval),
        Number("MAE", _six_digits(report.mae), "mean absolute error"),
        Number("R2", "none" if report.r2 is None else decimals(report.r2), "share of the variance explained"),
        Number("RMSE of the mean", _six_digits(report.baseline_rmse), f"of always predicting {mean}"),
        *_interval_number(report.prediction_intervals),
    )


def _interval_number(report: IntervalReport | None) -> tuple[Number, ...]:
    if report is None:
        return ()
    detail = f"{report.wanted:.4g} wanted; {_six_digits(report.mean_width)} wide on average"
    return (_share("prediction intervals with the number", report.coverage, report.interval, detail),)


def _baseline(report: Report) -> str:
    """The most important metric of a model that gives every image the same answer, in words."""
    answer = report.baseline.answer if isinstance(report, ClassificationReport) else ""
    return baseline_text(next(iter(report.metrics)), report.baseline_headline, answer)


def _in_groups(report: Report) -> str:
    """The images of a report, and their groups where some images share one."""
    return counted(report.n, "image") + (f" in {counted(report.groups, 'group')}" if report.groups < report.n else "")


def _share(name: str, value: float, interval: tuple[float, float], counts: str) -> Number:
    """A share with its interval, as text and as a bar."""
    low, high = map(decimals, interval)
    return Number(name, decimals(value), f"95 % interval {low} to {high}; {counts}", interval)


def _confusions(report: ClassificationReport) -> Section:
    """The confusion matrix, and a table of its largest cells off the diagonal."""
    wrong = report.confusion - np.diag(np.diag(report.confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [(int(true), int(predicted)) for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    rows = [
        (
            report.classes[true],
            report.classes[predicted],
            str(wrong[true, predicted]),
            decimals(wrong[true, predicted] / report.support[true]),
        )
        for true, predicted in pairs
        if wrong[true, predicted]
    ]
    count = len(report.classes)
    figure = confusion_figure(report)
    data = as_svg(figure) if count <= _MOST_CLASSES_IN_SVG else as_png(figure)
    picture = Picture(data, f"Confusion matrix of {count} classes, {count} by {count}")
    table = Table(("true", "predicted", "images", "share of the true class"), rows, "The most frequent confusions")
    return Section("Confusions", pictures=(picture,), tables=(table,) if rows else ())


def _per_class(report: ClassificationReport | MultiLabelReport, kind: str) -> Table:
    columns = {
        **({"threshold": report.thresholds} if isinstance(report, MultiLabelReport) else {}),
        "precision": report.precision,
        "recall": report.recall,
        "F1": report.f1,
        "AUROC": report.auroc,
        "average precision": report.average_precision,
    }
    if isinstance(report, ClassificationReport) and report.sets is not None:
        columns["in its set"] = report.sets.class_coverage
    rows = [
        (name, *(decimals(values[row]) for values in columns.values()), str(report.support[row]))
        for row, name in enumerate(report.classes)
    ]
    return Table((kind, *columns, "images"), rows, "All classes" if kind == "class" else "All labels")


def _six_digits(value: float) -> str:
    """A number in the target's unit, with six significant digits."""
    return f"{value:.6g}"
