"""Pictures of what a head is worth. The only room that knows matplotlib.

Every figure is made by ``Figure`` itself, never by pyplot, so that nothing is kept, shown or shared, and none minds the user's
``matplotlibrc``. Class names may be any text. Colours are those of Okabe and Ito (2008), which the colour-blind can tell apart.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from featx.errors import OutputError
from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.scores import wilson_interval

BLUE, ORANGE, PALE, GREY = "#0072B2", "#D55E00", "#9CC9E3", "#6E6E6E"

MOST_BARS = 40
"""Classes that ``per_class_figure`` shows: those found worst."""

_MOST_CLASSES_WITH_NUMBERS = 30
_MOST_TARGETS = 6
_MOST_POINTS = 2000  # above it, points are pixels in an SVG, which would else be of many megabytes

_WIDTH = 5.6  # inches, of most figures: letters stay readable where a telephone shows it at two thirds
_STYLE = {
    **mpl.rcParamsDefault,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # the browser has letters for every script; matplotlib's own font does not
    "svg.hashsalt": "featx",  # the same figure, the same bytes
}
_STYLE = {key: value for key, value in _STYLE.items() if not key.startswith(("backend", "interactive", "toolbar"))}


# Files


def as_svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element: the same text for the same figure, without a date or any reference to elsewhere."""
    file = io.StringIO()
    _save(figure, file, format="svg", dpi=144, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    return text[text.index("<svg") :]


def as_png(figure: Figure, *, dpi: int = 144) -> bytes:
    """A figure as a PNG file."""
    file = io.BytesIO()
    _save(figure, file, format="png", dpi=dpi)
    return file.getvalue()


def save_confusion(report: ClassificationReport, path: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix into a PNG file.

    Raises:
        OutputError: the picture cannot be written.
    """
    try:
        _save(confusion_figure(report), path, format="png", dpi=120)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; name another file with -o") from error


def _save(figure: Figure, file: Any, **options: Any) -> None:
    with _style(), warnings.catch_warnings():
        # A box will do for a letter that no font here has.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(file, **options)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


# Classification


def confusion_figure(report: ClassificationReport) -> Figure:
    """The confusion matrix, shaded by the share of each true class; with names and numbers for up to 30 classes."""
    count = len(report.classes)
    side = (
        max(3.5, 2 + min(0.45 * count, 2 + 0.3 * count))
        if count <= _MOST_CLASSES_WITH_NUMBERS
        else min(8 + count / 100, 18)
    )
    with _style():
        figure = _figure(side + 1, side)
        axes = figure.add_subplot()
        total = report.confusion.sum(axis=1, keepdims=True)
        share = report.confusion / np.maximum(total, 1)
        shades = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.spines[:].set_visible(True)
        figure.colorbar(shades, ax=axes, label="share of the true class", shrink=0.8)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(f"accuracy {report.accuracy:.4f} on {report.n} images ({label(report.split)})")
        if count <= _MOST_CLASSES_WITH_NUMBERS:
            names = [label(name) for name in report.classes]
            axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(count), names)
            for row, column in np.argwhere(report.confusion > 0):
                colour = "white" if share[row, column] > 0.5 else "black"
                number = str(report.confusion[row, column])
                size = min(9, 28 / len(number))
                axes.text(column, row, number, ha="center", va="center", color=colour, size=size)
    return figure


def reliability_figure(report: ClassificationReport | MultiLabelReport) -> Figure:
    """How often predictions of each confidence are right, with 95 % intervals, over how many there are of it.

    The reliability diagram of Guo et al. (2017), with Wilson's intervals: on the diagonal, confidence is what it says. Of a
    multi-label head every label of every image is a prediction.
    """
    bins = [b for b in report.reliability if b.count]
    many = isinstance(report, MultiLabelReport)
    x, y = np.array([b.confidence for b in bins]), np.array([b.accuracy for b in bins])
    low, high = np.array([wilson_interval(b.correct, b.count) for b in bins]).T
    with _style():
        figure = _figure(_WIDTH, 5.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
        error = np.maximum([y - low, high - y], 0)
        upper.errorbar(x, y, error, fmt="o-", color=BLUE, linewidth=1.5, capsize=3, label="this head, 95 % interval")
        upper.set(ylabel="share with the label" if many else "accuracy", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
        upper.legend(loc="upper left")
        upper.set_title(f"expected calibration error {report.ece:.4f} on {report.n} images ({label(report.split)})")
        counts, widths = [b.count for b in bins], [b.high - b.low for b in bins]
        lower.bar([b.low for b in bins], counts, widths, align="edge", color=BLUE, edgecolor="white")
        lower.set_xlabel("probability of the label" if many else "confidence of the prediction")
        lower.set_ylabel("decisions" if many else "images")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def per_class_figure(report: ClassificationReport | MultiLabelReport) -> Figure:
    """Recall as bars with 95 % intervals, precision as marks, the class that is found worst on top.

    Of more than ``MOST_BARS`` classes, the worst; classes without images have no recall and are left out.
    """
    present = np.flatnonzero(report.support)
    worst = present[np.lexsort((report.precision[present], report.recall[present]))][:MOST_BARS]
    found = report.found if isinstance(report, MultiLabelReport) else np.diag(report.confusion)
    recall, places = report.recall[worst], np.arange(len(worst))
    bounds = np.array([wilson_interval(int(found[i]), int(report.support[i])) for i in worst]).reshape(-1, 2).T
    error = np.maximum([recall - bounds[0], bounds[1] - recall], 0)
    with _style():
        figure = _figure(_WIDTH, 1.3 + 0.24 * len(worst))
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
        kind = "labels" if isinstance(report, MultiLabelReport) else "classes"
        axes.set_title(_which(len(worst), len(present), kind))
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _which(shown: int, present: int, kind: str) -> str:
    return f"{present} {kind}" if shown == present else f"the {shown} of {present} {kind} that are found worst"


# Choices


def path_figure(
    rows: Sequence[tuple[float, float, float]], chosen: float, *, name: str = "C", loss: str = "log loss"
) -> Figure:
    """What each candidate for a hyper-parameter was worth in cross-validation.

    Args:
        rows: (candidate, mean of the loss, its standard error); candidates whose loss is not finite are not drawn.
        chosen: the candidate that was taken.
        name: of the hyper-parameter.
        loss: what was measured; less is better.
    """
    finite = sorted(row for row in rows if np.isfinite(row).all())
    if not finite:
        raise ValueError(f"no candidate for {name} has a finite {loss}; expected at least one to draw")
    x, mean, spread = np.array(finite, dtype=np.float64).T
    best = int(mean.argmin())
    taken = int(np.abs(x - chosen).argmin())
    with _style():
        figure = _figure(_WIDTH, 3.7)
        axes = figure.add_subplot()
        low = np.maximum(mean - spread, mean * 0.1) if mean.min() > 0 else mean - spread
        axes.fill_between(x, low, mean + spread, color=BLUE, alpha=0.2, linewidth=0, label="± 1 standard error")
        axes.plot(x, mean, "o-", color=BLUE, markersize=3.5, linewidth=1.5, label="mean over the folds")
        axes.axhline(
            mean[best] + spread[best], color=GREY, linestyle=":", linewidth=1.2, label="the least + 1 standard error"
        )
        axes.plot(x[taken], mean[taken], "D", color=ORANGE, markersize=8, label="chosen", zorder=5)
        axes.set_title(
            f"{label(name)} = {x[taken]:.4g} of {_candidates(len(x))}: {label(loss)} {mean[taken]:.4g} ± {spread[taken]:.2g}"
        )
        axes.set(xlabel=label(name), ylabel=f"cross-validated {label(loss)}")
        if mean.min() > 0 and mean.max() > 10 * mean.min():
            _log_axis(axes, "y")
        if x.min() > 0 and len(x) > 1:
            _log_axis(axes, "x")
            if x.max() < 100 * x.min():
                _ticks(axes, x)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _candidates(count: int) -> str:
    return "1 candidate" if count == 1 else f"{count} candidates"


def shots_figure(rows: Sequence[tuple[int, float, float]]) -> Figure:
    """Accuracy by the number of training images of each class.

    Args:
        rows: (shots, mean accuracy, its standard deviation over the repeats).
    """
    shots, mean, spread = np.array(sorted(rows), dtype=np.float64).reshape(-1, 3).T
    with _style():
        figure = _figure(_WIDTH, 3.5)
        axes = figure.add_subplot()
        axes.set_xscale("log", base=2)
        low, high = np.maximum(mean - spread, 0), np.minimum(mean + spread, 1)
        axes.fill_between(shots, low, high, color=BLUE, alpha=0.2, linewidth=0, label="± 1 standard deviation")
        axes.errorbar(shots, mean, [mean - low, high - mean], fmt="o-", color=BLUE, capsize=3, label="mean accuracy")
        _ticks(axes, shots)
        axes.set(xlabel="training images per class", ylabel="accuracy")
        axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="lower right")
    return figure


def rank_figure(rows: Sequence[tuple[str, float, float, float, float, bool]]) -> Figure:
    """Accuracy of heads against the speed of their backbones.

    Args:
        rows: (backbone, images per second, accuracy, low and high end of its interval, whether no other is better in both).
    """
    with _style():
        figure = _figure(_WIDTH, 4)
        axes = figure.add_subplot()
        for on_front, colour, words in ((True, ORANGE, "none is faster and as accurate"), (False, BLUE, "others")):
            some = [row for row in rows if row[5] == on_front]
            if some:
                x, y, low, high = np.array([row[1:5] for row in some], dtype=np.float64).T
                axes.errorbar(x, y, [y - low, high - y], fmt="o", color=colour, capsize=3, label=words)
        front = sorted((row[1], row[2]) for row in rows if row[5])
        axes.plot(*zip(*front, strict=True), color=ORANGE, linewidth=1)
        for name, speed, accuracy, *_ in rows:
            axes.annotate(label(name), (speed, accuracy), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if len(rows) > 1:
            _log_axis(axes, "x")
        axes.margins(x=0.15)
        axes.set(xlabel="images per second", ylabel="cross-validated accuracy")
        axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def advice_figure(
    depths: Mapping[str, float],
    together: Mapping[str, float],
    untrained: Mapping[str, float],
    guess: float,
    points: Sequence[tuple[int, float, float]],
    law: np.ndarray,
    images: int,
) -> Figure:
    """Accuracy of heads by depth, and of one by the number of its images.

    Args:
        depths: {layer: accuracy}, from the input on.
        together: the same of heads on a layer and all later ones.
        untrained: the same of random weights.
        guess: accuracy of naming the commonest class.
        points: (images, accuracy, its standard error) of the best of them; none where there are too few images.
        law: (X, 4) images, accuracy, and the ends of its 95 % interval, as the power law has them.
        images: that there are.
    """
    with _style():
        figure = _figure(_WIDTH * 1.6, 4.2)
        left = figure.add_subplot(1, 2, 1)
        places = {layer: place for place, layer in enumerate(depths)}
        for found, colour, style, words in (
            (depths, BLUE, "o-", "one layer"),
            (together, ORANGE, "s--", "it and all later ones"),
            (untrained, GREY, "^:", "one layer, random weights"),
        ):
            known = [layer for layer in found if layer in places]
            if known:
                left.plot([places[n] for n in known], [found[n] for n in known], style, color=colour, label=words)
        left.axhline(guess, color=GREY, linewidth=1, label="the commonest class")
        left.set_xticks(range(len(places)), [label(name) for name in places], rotation=30, ha="right")
        left.set(ylabel="cross-validated accuracy", title="by depth, from the input on")
        right = figure.add_subplot(1, 2, 2)
        if points:
            x, mean, low, high = law.T
            sizes, accuracy, deviation = np.array(points, dtype=np.float64).T
            right.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % of the fits")
            right.plot(x, mean, color=BLUE, linewidth=1, label="power law")
            right.errorbar(sizes, accuracy, deviation, fmt="o", color=BLUE, capsize=3, label="measured")
            right.axvline(images, color=GREY, linestyle=":", linewidth=1.2, label="images there are")
            _log_axis(right, "x")
            _ticks(right, np.array([*sizes, images, x[-1]]))
            right.set(xlabel="training images", title="by training images, up to twice as many")
        else:
            right.set_axis_off()
            right.text(0.5, 0.5, "too few images for a learning curve", ha="center", transform=right.transAxes)
        for axes in (left, right):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)
            axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
            axes.set_axisbelow(True)
    return figure


def training_figure(log: Sequence[Mapping[str, float | None]], curve: Mapping[float, float]) -> Figure:
    """How fine-tuning went: losses and accuracy by epoch, and the log loss between the head's weights and the tuned ones.

    Args:
        log: an entry for each epoch, the first for the head: ``epoch``, ``loss``, ``accuracy``, ``log_loss``.
        curve: {alpha: log loss} on the images that choose.
    """

    def of(name: str) -> tuple[list[float], list[float]]:
        known = [(float(entry["epoch"] or 0), entry[name]) for entry in log if entry[name] is not None]
        return [x for x, _ in known], [float(y or 0) for _, y in known]

    with _style():
        figure = _figure(_WIDTH * 1.8, 3)
        losses, accuracy, between = figure.subplots(1, 3)
        losses.plot(*of("loss"), color=GREY, marker=".", label="training")
        losses.plot(*of("log_loss"), color=BLUE, marker="o", label="images that choose")
        losses.set(xlabel="epoch (0 is the head)", title="loss (nats)")
        losses.legend()
        accuracy.plot(*of("accuracy"), color=BLUE, marker="o")
        accuracy.set(xlabel="epoch (0 is the head)", title="accuracy on the images that choose")
        between.plot(list(curve), list(curve.values()), color=ORANGE, marker="o")
        between.set(xlabel="share of the way, head to tuned", title="log loss between the weights")
        for axes, end in ((losses, len(log) - 1), (accuracy, len(log) - 1), (between, 1)):
            axes.set_xlim(-0.05 * max(end, 1), 1.05 * max(end, 1))
        for axes in (losses, accuracy):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis with ticks like 0.001 and 1e+05, never as mathematics: the browser sets plain text better."""
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _ticks(axes: Axes, values: np.ndarray) -> None:
    """Ticks at these values, as far as there is room for their labels: at least a tenth of the axis apart."""
    ordered = np.unique(values)
    least = (math.log(ordered[-1]) - math.log(ordered[0])) / 10
    kept = [ordered[0]]
    for value in ordered[1:]:
        if math.log(value) - math.log(kept[-1]) >= least:
            kept.append(value)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}" if value < 100 else f"{value:,.0f}"))


# Regression


def scatter_figure(targets: np.ndarray, predictions: np.ndarray, *, names: Sequence[str] = ()) -> Figure:
    """Predictions against targets, one square for each of the first six targets; on the line they agree.

    Args:
        targets: (N,) or (N, T).
        predictions: as ``targets``; rows that are not finite are not drawn.
        names: (T,) of the targets.
    """
    Y, P = (np.asarray(array, dtype=np.float64).reshape(len(array), -1) for array in (targets, predictions))
    count = min(Y.shape[1], _MOST_TARGETS)
    columns = 1 if count == 1 else 2
    rows = math.ceil(count / columns)
    with _style():
        figure = _figure(4.6 if count == 1 else 6.4, 4.4 if count == 1 else 3.2 * rows)
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
    many = len(y) > _MOST_POINTS
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
    axes.scatter(y, p, 5 if many else 16, color=BLUE, alpha=0.15 if many else 0.5, linewidths=0, rasterized=many)
    axes.set(xlabel="target", ylabel="prediction")
    axes.set_aspect("equal", adjustable="datalim")


# Text


def label(text: str, most: int = 24) -> str:
    """Any text as a label of a figure: one line, at most ``most`` columns, nothing of it read as mathematics.

    Chinese, Japanese and Korean letters and emoji take two columns. Where matplotlib's font lacks them it allots them less, so
    each brings spaces, by which a right-aligned label has room to its left.
    """
    kept, used, wide = "", 0, 0
    for letter in text:
        columns = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used + columns > most - 1 and len(kept) + 1 < len(text):
            kept += "…"
            break
        kept, used, wide = kept + (letter if letter.isprintable() else "?"), used + columns, wide + columns - 1
    return "\N{NO-BREAK SPACE}" * (2 * wide) + kept.replace("$", r"\$")
