"""Figures of reports, hyperparameter searches, learning curves and training. The only module that imports matplotlib.

Every figure is created as a ``Figure``, never through pyplot, so that no global state is kept or shown and the user's
``matplotlibrc`` has no effect. Class names may be any text. The colours are those of Okabe and Ito (2008), which readers with
colour blindness can tell apart.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from featx.io.outputs import CONFUSION, OutputKind, picture_metadata, write_output
from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.scores import wilson_interval

BLUE, ORANGE, PALE, GREY = "#0072B2", "#D55E00", "#9CC9E3", "#6E6E6E"
_GRID = "#E4E4E4"

MOST_BARS = 40
"""Number of classes that ``per_class_figure`` shows: those with the lowest recall."""

_MOST_CLASSES_WITH_NUMBERS = 30
_MOST_TARGETS = 6
_MOST_POINTS = 2000  # more points are rasterised: as vectors, they would make an SVG of many megabytes

_WIDTH = 5.6  # inches, of most figures: the text stays readable when a phone shrinks the figure to two thirds
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
    "svg.fonttype": "none",  # browsers have glyphs for every script, matplotlib's own font does not
    "svg.hashsalt": "featx",  # the same figure gives the same bytes
}
_STYLE = {key: value for key, value in _STYLE.items() if not key.startswith(("backend", "interactive", "toolbar"))}


# Files


def as_svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element, without a date or external references; equal figures give equal text."""
    file = io.StringIO()
    _save(figure, file, format="svg", dpi=144, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    return text[text.index("<svg") :]


def as_png(figure: Figure, *, dpi: int = 144) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    _save(figure, file, format="png", dpi=dpi)
    return file.getvalue()


def save_png(figure: Figure, path: Path, kind: OutputKind, *, dpi: int = 144) -> None:
    """Write a figure as a PNG file that names its kind, in the place of an older one of that kind.

    Raises:
        OutputError: the file cannot be written, or there is another file at the path.
    """
    file = io.BytesIO()
    _save(figure, file, format="png", dpi=dpi, metadata=picture_metadata(kind.noun))
    write_output(path, file.getvalue(), kind)


def save_confusion(report: ClassificationReport, path: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix into a PNG file.

    Raises:
        OutputError: the file cannot be written, or there is another file at the path.
    """
    save_png(confusion_figure(report), Path(path), CONFUSION, dpi=120)


def _save(figure: Figure, file: Any, **options: Any) -> None:
    with _style(), warnings.catch_warnings():
        # A character that no installed font has is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(file, **options)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


def _figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


# Evaluation


def confusion_figure(report: ClassificationReport) -> Figure:
    """Confusion matrix: true classes as rows, predicted ones as columns, shaded by the share of the true class.

    Up to 30 classes have their names at the axes and the number of images in the cells.

    Examples:
        >>> report = ClassificationReport.from_predictions(np.array([0, 1]), np.eye(2), ["ants", "bees"], split="test")
        >>> as_png(confusion_figure(report))[1:4]
        b'PNG'
    """
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
            _names_and_counts(axes, report, share)
    return figure


def _names_and_counts(axes: Axes, report: ClassificationReport, share: np.ndarray) -> None:
    """Class names at the axes and the number of images in each cell that is not 0."""
    names = [label(name) for name in report.classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for row, column in np.argwhere(report.confusion > 0):
        colour = "white" if share[row, column] > 0.5 else "black"
        number = str(report.confusion[row, column])
        size = min(9, 28 / len(number))
        axes.text(column, row, number, ha="center", va="center", color=colour, size=size)


def reliability_figure(report: ClassificationReport | MultiLabelReport) -> Figure:
    """Reliability diagram (Guo et al., 2017): accuracy by confidence with 95 % Wilson intervals, above a histogram.

    A calibrated model is on the diagonal. Of a multi-label model, each decision on one label of one image counts as a
    prediction.
    """
    bins = [b for b in report.reliability if b.count]
    multilabel = isinstance(report, MultiLabelReport)
    x, y = np.array([b.confidence for b in bins]), np.array([b.accuracy for b in bins])
    low, high = np.array([wilson_interval(b.correct, b.count) for b in bins]).T
    with _style():
        figure = _figure(_WIDTH, 5.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
        error = np.maximum([y - low, high - y], 0)
        upper.errorbar(x, y, error, fmt="o-", color=BLUE, linewidth=1.5, capsize=3, label="this head, 95 % interval")
        upper.set(ylabel="share with the label" if multilabel else "accuracy", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
        upper.legend(loc="upper left")
        upper.set_title(f"expected calibration error {report.ece:.4f} on {report.n} images ({label(report.split)})")
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
    true_positives = report.found if isinstance(report, MultiLabelReport) else np.diag(report.confusion)
    recall, places = report.recall[worst], np.arange(len(worst))
    bounds = np.array([wilson_interval(int(true_positives[i]), int(report.support[i])) for i in worst]).reshape(-1, 2).T
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
        axes.set_title(
            f"{len(present)} {kind}"
            if len(worst) == len(present)
            else f"the {len(worst)} of {len(present)} {kind} with the lowest recall"
        )
        figure.legend(loc="outside lower center", ncols=3)
    return figure


# Hyperparameters, few-shot learning, backbones and layers


def path_figure(
    rows: Sequence[tuple[float, float, float]], chosen: float, *, name: str = "C", loss: str = "log loss"
) -> Figure:
    """Cross-validated loss of each candidate for a hyperparameter, with its standard error and the chosen one marked.

    Args:
        rows: (candidate, mean loss, standard error); candidates whose loss is not finite are left out.
        chosen: the chosen candidate.
        name: of the hyperparameter.
        loss: name of the loss; lower is better.

    Raises:
        ValueError: no candidate has a finite loss.
    """
    finite = sorted(row for row in rows if np.isfinite(row).all())
    if not finite:
        raise ValueError(f"no candidate for {name} has a finite {loss}; expected at least one to draw")
    x, mean, spread = np.array(finite, dtype=np.float64).T
    best = int(mean.argmin())
    chosen_at = int(np.abs(x - chosen).argmin())
    with _style():
        figure = _figure(_WIDTH, 3.7)
        axes = figure.add_subplot()
        low = np.maximum(mean - spread, mean * 0.1) if mean.min() > 0 else mean - spread
        axes.fill_between(x, low, mean + spread, color=BLUE, alpha=0.2, linewidth=0, label="± 1 standard error")
        axes.plot(x, mean, "o-", color=BLUE, markersize=3.5, linewidth=1.5, label="mean over the folds")
        axes.axhline(
            mean[best] + spread[best], color=GREY, linestyle=":", linewidth=1.2, label="lowest + 1 standard error"
        )
        axes.plot(x[chosen_at], mean[chosen_at], "D", color=ORANGE, markersize=8, label="chosen", zorder=5)
        loss_text = f"{label(loss)} {mean[chosen_at]:.4g} ± {spread[chosen_at]:.2g}"
        axes.set_title(f"{label(name)} = {x[chosen_at]:.4g} of {_candidates(len(x))}: {loss_text}")
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
    """Few-shot accuracy: mean and standard deviation over the repeats, by the number of training images of each class.

    Args:
        rows: (images of each class, mean accuracy, standard deviation).
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
        _horizontal_grid(axes)
        axes.legend(loc="lower right")
    return figure


def rank_figure(rows: Sequence[tuple[str, float, float, float, float, bool]]) -> Figure:
    """Accuracy of heads, with 95 % intervals, against the speed of their backbones; the Pareto front is connected.

    Args:
        rows: (backbone, images per second, accuracy, low and high end of its interval, whether it is on the Pareto front: no
            other is at least as fast and as accurate).
    """
    with _style():
        figure = _figure(_WIDTH, 4)
        axes = figure.add_subplot()
        for on_front, colour, name in ((True, ORANGE, "Pareto front"), (False, BLUE, "others")):
            group = [row for row in rows if row[5] == on_front]
            if group:
                x, y, low, high = np.array([row[1:5] for row in group], dtype=np.float64).T
                axes.errorbar(x, y, [y - low, high - y], fmt="o", color=colour, capsize=3, label=name)
        front = sorted((row[1], row[2]) for row in rows if row[5])
        axes.plot(*zip(*front, strict=True), color=ORANGE, linewidth=1)
        for name, speed, accuracy, *_ in rows:
            axes.annotate(label(name), (speed, accuracy), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if len(rows) > 1:
            _log_axis(axes, "x")
        axes.margins(x=0.15)
        axes.set(xlabel="images per second", ylabel="cross-validated accuracy")
        _horizontal_grid(axes)
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
    """Accuracy of heads by the depth of their layer (left), and by the number of training images (right).

    Args:
        depths: layer to the accuracy of a head on it, from the input to the output.
        together: the same for heads on a layer and all later ones.
        untrained: the same for heads on one layer of the network with random weights.
        guess: accuracy of always predicting the most frequent class.
        points: the learning curve of the best head, (images, accuracy, standard error); empty if there are too few images.
        law: (X, 4) float: images, accuracy of the power law, and the ends of its 95 % interval.
        images: number of images available.
    """
    with _style():
        figure = _figure(_WIDTH * 1.6, 4.2)
        left = figure.add_subplot(1, 2, 1)
        _draw_depths(left, depths, together, untrained, guess)
        right = figure.add_subplot(1, 2, 2)
        if points:
            _draw_learning_curve(right, points, law, images)
        else:
            right.set_axis_off()
            right.text(0.5, 0.5, "too few images for a learning curve", ha="center", transform=right.transAxes)
        for axes in (left, right):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2)
            _horizontal_grid(axes)
    return figure


def _draw_depths(
    axes: Axes,
    depths: Mapping[str, float],
    together: Mapping[str, float],
    untrained: Mapping[str, float],
    guess: float,
) -> None:
    places = {layer: place for place, layer in enumerate(depths)}
    for accuracies, colour, style, name in (
        (depths, BLUE, "o-", "one layer"),
        (together, ORANGE, "s--", "it and all later layers"),
        (untrained, GREY, "^:", "one layer, random weights"),
    ):
        layers = [layer for layer in accuracies if layer in places]
        if layers:
            x, y = [places[layer] for layer in layers], [accuracies[layer] for layer in layers]
            axes.plot(x, y, style, color=colour, label=name)
    axes.axhline(guess, color=GREY, linewidth=1, label="most frequent class")
    axes.set_xticks(range(len(places)), [label(name) for name in places], rotation=30, ha="right")
    axes.set(ylabel="cross-validated accuracy", title="by depth, from the input on")


def _draw_learning_curve(axes: Axes, points: Sequence[tuple[int, float, float]], law: np.ndarray, images: int) -> None:
    x, mean, low, high = law.T
    sizes, accuracy, error = np.array(points, dtype=np.float64).T
    axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % of the fits")
    axes.plot(x, mean, color=BLUE, linewidth=1, label="power law")
    axes.errorbar(sizes, accuracy, error, fmt="o", color=BLUE, capsize=3, label="measured")
    axes.axvline(images, color=GREY, linestyle=":", linewidth=1.2, label="all images")
    _log_axis(axes, "x")
    _ticks(axes, np.array([*sizes, images, x[-1]]))
    axes.set(xlabel="training images", title="by training images, up to twice as many")


def training_figure(log: Sequence[Mapping[str, float | None]], curve: Mapping[float, float]) -> Figure:
    """Training history: losses and validation accuracy by epoch, and the log loss of interpolated weights.

    The third panel shows the validation log loss along the line from the head's weights (0) to the fine-tuned ones (1).

    Args:
        log: an entry for each epoch, the first for the head: ``epoch``, ``loss``, ``accuracy``, ``log_loss``.
        curve: interpolation coefficient alpha to the log loss on the validation images.
    """

    def of(name: str) -> tuple[list[float], list[float]]:
        """Epochs and values of one metric, where it is known."""
        entries = [(float(entry["epoch"] or 0), entry[name]) for entry in log if entry[name] is not None]
        return [x for x, _ in entries], [float(y or 0) for _, y in entries]

    with _style():
        figure = _figure(_WIDTH * 1.8, 3)
        losses, accuracy, between = figure.subplots(1, 3)
        losses.plot(*of("loss"), color=GREY, marker=".", label="training")
        losses.plot(*of("log_loss"), color=BLUE, marker="o", label="validation")
        losses.set(xlabel="epoch (0 is the head)", title="loss (nats)")
        losses.legend()
        accuracy.plot(*of("accuracy"), color=BLUE, marker="o")
        accuracy.set(xlabel="epoch (0 is the head)", title="validation accuracy")
        between.plot(list(curve), list(curve.values()), color=ORANGE, marker="o")
        between.set(xlabel="from head (0) to fine-tuned (1)", title="log loss of interpolated weights")
        for axes, end in ((losses, len(log) - 1), (accuracy, len(log) - 1), (between, 1)):
            axes.set_xlim(-0.05 * max(end, 1), 1.05 * max(end, 1))
        for axes in (losses, accuracy):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _horizontal_grid(axes: Axes) -> None:
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with ticks such as 0.001 and 1e+05: browsers render plain text better than mathtext."""
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _ticks(axes: Axes, values: np.ndarray) -> None:
    """Set ticks of a logarithmic axis at these values; those less than a tenth of the axis apart are dropped."""
    ordered = np.unique(values)
    least = (math.log(ordered[-1]) - math.log(ordered[0])) / 10
    ticks = [ordered[0]]
    for value in ordered[1:]:
        if math.log(value) - math.log(ticks[-1]) >= least:
            ticks.append(value)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}" if value < 100 else f"{value:,.0f}"))


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
    dense = len(y) > _MOST_POINTS
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
    axes.scatter(y, p, 5 if dense else 16, color=BLUE, alpha=0.15 if dense else 0.5, linewidths=0, rasterized=dense)
    axes.set(xlabel="target", ylabel="prediction")
    axes.set_aspect("equal", adjustable="datalim")


# Text


def label(text: str, most: int = 24) -> str:
    """Text as a label of a figure: one line, at most ``most`` columns wide, without mathtext.

    Chinese, Japanese and Korean characters and emoji are two columns wide. matplotlib reserves less space for them if its
    font lacks them, so each adds spaces on the left, which keeps right-aligned labels inside the figure.

    Examples:
        >>> label("golden retriever, long-haired")
        'golden retriever, long-…'
    """
    shown, used, wide = "", 0, 0
    for character in text:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used + columns > most - 1 and len(shown) + 1 < len(text):
            shown += "…"
            break
        shown += character if character.isprintable() else "?"
        used, wide = used + columns, wide + columns - 1
    return "\N{NO-BREAK SPACE}" * (2 * wide) + shown.replace("$", r"\$")
