"""Figures of evaluation: confusion matrix, reliability diagram, recall by class, predictions against targets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.report.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    PALE,
    WIDTH,
    as_png,  # noqa: F401 - of the example
    label,
    new_figure,
    set_subject,
    style,
)
from featx.text import counted

MOST_BARS = 40
"""Number of classes that ``per_class_figure`` shows: those with the lowest recall."""

_MOST_CLASSES_WITH_NUMBERS = 30
_MOST_CLASSES_WITH_NAMES = 100
_MOST_TARGETS = 6
_MOST_POINTS = 2000  # more points are rasterised: as vectors, they would make an SVG of many megabytes

_RIGHT = ScalarMappable(Normalize(0, 1), LinearSegmentedColormap.from_list("right", ["white", BLUE]))
_WRONG = ScalarMappable(
    PowerNorm(0.5, 0, 1), LinearSegmentedColormap.from_list("wrong", ["white", ORANGE])
)  # few show too


def confusion_figure(report: ClassificationReport, *, subject: str = "") -> Figure:
    """Confusion matrix: true classes as rows, predicted ones as columns, shaded by the share of the true class.

    Right predictions are blue, wrong ones orange. Up to 30 classes have the number of images in the cells, and up to 100 their
    names at the axes; of more, every second, third, ... class is named.

    Args:
        report: of the predictions.
        subject: what was evaluated, such as the data set and the head; the first line of the title.

    Examples:
        >>> report = ClassificationReport.from_predictions(np.array([0, 1]), np.eye(2), ["ants", "bees"], split="test")
        >>> as_png(confusion_figure(report))[1:4]
        b'PNG'
    """
    count = len(report.classes)
    share = report.confusion / np.maximum(report.confusion.sum(axis=1, keepdims=True), 1)
    side = _side(count)
    with style():
        figure = new_figure(side + 0.6, side + 1.3)
        axes = figure.add_subplot()
        axes.imshow(np.where(np.eye(count, dtype=bool)[..., None], _RIGHT.to_rgba(share), _WRONG.to_rgba(share)))
        axes.spines[:].set_visible(True)
        for shades, name in ((_WRONG, "wrong"), (_RIGHT, "right")):
            bar = figure.colorbar(
                shades, ax=axes, location="bottom", shrink=0.8, pad=0.02, fraction=0.3 / side, aspect=6.5 * side
            )
            bar.set_label(f"{name}, share of the true class", size=9)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(f"accuracy {report.accuracy:.4f} on {counted(report.n, 'image')} ({label(report.split)})")
        set_subject(figure, subject)
        _name_classes(axes, report.classes)
        if count <= _MOST_CLASSES_WITH_NUMBERS:
            _number_cells(axes, report.confusion, share)
    return figure


def _side(count: int) -> float:
    """The height in inches of the confusion matrix of so many classes."""
    if count <= _MOST_CLASSES_WITH_NUMBERS:
        return max(3.5, 2 + min(0.45 * count, 2 + 0.3 * count))
    if count <= _MOST_CLASSES_WITH_NAMES:
        return max(10.0, 2.5 + 0.13 * count)
    return min(13 + count / 100, 18)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    """Class names at the axes; of too many classes every second, third, ..."""
    step = -(-len(classes) // _MOST_CLASSES_WITH_NAMES)
    places = range(0, len(classes), step)
    names = [label(classes[place]) for place in places]
    size = 10 if len(classes) <= _MOST_CLASSES_WITH_NUMBERS else 7
    axes.set_xticks(places, names, rotation=45 if size == 10 else 90, ha="right", rotation_mode="anchor", size=size)
    axes.set_yticks(places, names, size=size)
    if size != 10:
        for tick in axes.get_xticklabels():
            tick.set(va="center")
    if step > 1:
        axes.set(xlabel=f"predicted (one of {step} classes is named)", ylabel=f"true (one of {step} classes is named)")


def _number_cells(axes: Axes, confusion: np.ndarray, share: np.ndarray) -> None:
    """The number of images in each cell that is not 0."""
    for row, column in np.argwhere(confusion > 0):
        is_dark = share[row, column] > (0.5 if row == column else 0.35)
        number = str(confusion[row, column])
        size = min(9, 28 / len(number))
        axes.text(column, row, number, ha="center", va="center", color="white" if is_dark else "black", size=size)


def reliability_figure(report: ClassificationReport | MultiLabelReport) -> Figure:
    """Reliability diagram (Guo et al., 2017): accuracy by confidence with 95 % intervals, above a histogram.

    A calibrated model is on the diagonal. Of a multi-label model, each decision on one label of one image counts as a
    prediction.
    """
    bins = [b for b in report.reliability if b.count]
    multilabel = isinstance(report, MultiLabelReport)
    x, y = np.array([b.confidence for b in bins]), np.array([b.accuracy for b in bins])
    low, high = np.array([b.interval for b in bins], dtype=np.float64).T
    with style():
        figure = new_figure(WIDTH, 5.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
        error = np.maximum([y - low, high - y], 0)
        upper.errorbar(x, y, error, fmt="o-", color=BLUE, linewidth=1.5, capsize=3, label="this head, 95 % interval")
        upper.set(ylabel="share with the label" if multilabel else "accuracy", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
        upper.legend(loc="upper left")
        upper.set_title(
            f"expected calibration error {report.ece:.4f} on {counted(report.n, 'image')} ({label(report.split)})"
        )
        counts, widths = [b.count for b in bins], [b.high - b.low for b in bins]
        lower.bar([b.low for b in bins], counts, widths, align="edge", color=BLUE, edgecolor="white")
        lower.set_xlabel("probability of the label" if multilabel else "confidence of the prediction")
        lower.set_ylabel("decisions" if multilabel else "images")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def per_class_figure(report: ClassificationReport | MultiLabelReport) -> Figure:
    """Recall of each class as a bar with its 95 % interval, precision as a mark; the lowest recall is on top.

    Of more than ``MOST_BARS`` classes, those with the lowest recall are shown. Classes without images have no recall and are
    left out.
    """
    present = np.flatnonzero(report.support)
    worst = present[np.lexsort((report.precision[present], report.recall[present]))][:MOST_BARS]
    recall, places = report.recall[worst], np.arange(len(worst))
    bounds = report.recall_intervals[worst].reshape(-1, 2).T
    error = np.maximum([recall - bounds[0], bounds[1] - recall], 0)
    with style():
        figure = new_figure(WIDTH, 1.3 + 0.24 * len(worst))
        axes = figure.add_subplot()
        axes.barh(places, recall, 0.68, color=PALE, label="recall")
        axes.errorbar(
            recall, places, xerr=error, fmt="none", ecolor=BLUE, elinewidth=1.3, capsize=2, label="its 95 % interval"
        )
        axes.plot(report.precision[worst], places, "D", color=ORANGE, markersize=4.5, label="precision")
        axes.set_yticks(places, [label(report.classes[i]) for i in worst], size=9)
        axes.set(ylim=(len(worst) - 0.4, -0.6), xlim=(0, 1.02), xlabel="share of images")
        axes.tick_params(axis="y", length=0)
        axes.text(1.02, 1, "images", transform=axes.transAxes, va="bottom", size=9, color=GREY)
        beside = axes.get_yaxis_transform()
        for place, i in enumerate(worst):
            axes.text(1.02, place, str(report.support[i]), transform=beside, va="center", size=9, color=GREY)
        kinds = ("label", "labels") if isinstance(report, MultiLabelReport) else ("class", "classes")
        axes.set_title(
            counted(len(present), *kinds)
            if len(worst) == len(present)
            else f"the {len(worst)} of {counted(len(present), *kinds)} with the lowest recall"
        )
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def scatter_figure(targets: np.ndarray, predictions: np.ndarray, *, names: Sequence[str] = ()) -> Figure:
    """Predictions against targets, one panel for each of the first six targets; the diagonal marks perfect predictions.

    Args:
        targets: (N,) or (N, T) float.
        predictions: the same shape, up to a trailing 1; rows that are not finite are left out.
        names: (T,) names of the targets.
    """
    Y, P = (np.asarray(array, dtype=np.float64).reshape(len(array), -1) for array in (targets, predictions))
    count = min(Y.shape[1], _MOST_TARGETS)
    columns = 1 if count == 1 else 2
    rows = math.ceil(count / columns)
    with style():
        figure = new_figure(4.6 if count == 1 else 6.4, 4.4 if count == 1 else 3.2 * rows)
        for i in range(count):
            axes = figure.add_subplot(rows, columns, i + 1)
            _agreement(axes, Y[:, i], P[:, i])
            if i < len(names):
                axes.set_title(label(names[i]))
    return figure


def _agreement(axes: Axes, y: np.ndarray, p: np.ndarray) -> None:
    rows = np.isfinite(y) & np.isfinite(p)
    y, p = y[rows], p[rows]
    ends = (min(y.min(), p.min()), max(y.max(), p.max())) if len(y) else (0.0, 1.0)
    dense = len(y) > _MOST_POINTS
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
    axes.scatter(y, p, 5 if dense else 16, color=BLUE, alpha=0.15 if dense else 0.5, linewidths=0, rasterized=dense)
    axes.set(xlabel="target", ylabel="prediction")
    axes.set_aspect("equal", adjustable="datalim")
