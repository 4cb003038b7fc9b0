"""Figures of hyperparameter searches, few-shot learning, backbones, layers and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featx.metrics.scores import wilson_interval
from featx.report.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    horizontal_grid,
    label,
    log_axis,
    new_figure,
    set_subject,
    style,
    ticks,
)
from featx.text import counted


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
    with style():
        figure = new_figure(WIDTH, 3.7)
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
            log_axis(axes, "y")
        if x.min() > 0 and len(x) > 1:
            log_axis(axes, "x")
            if x.max() < 100 * x.min():
                ticks(axes, x)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _candidates(count: int) -> str:
    return counted(count, "candidate")


def shots_figure(rows: Sequence[tuple[int, float, float]], *, subject: str = "") -> Figure:
    """Few-shot accuracy: mean and standard deviation over the repeats, by the number of training images of each class.

    Args:
        rows: (images of each class, mean accuracy, standard deviation).
        subject: what the figure is about, such as the data set and the head; its title.
    """
    shots, mean, spread = np.array(sorted(rows), dtype=np.float64).reshape(-1, 3).T
    with style():
        figure = new_figure(WIDTH, 3.5)
        axes = figure.add_subplot()
        axes.set_xscale("log", base=2)
        low, high = np.maximum(mean - spread, 0), np.minimum(mean + spread, 1)
        axes.fill_between(shots, low, high, color=BLUE, alpha=0.2, linewidth=0, label="± 1 standard deviation")
        axes.errorbar(
            shots,
            mean,
            np.maximum([mean - low, high - mean], 0),
            fmt="o-",
            color=BLUE,
            capsize=3,
            label="mean accuracy",
        )
        ticks(axes, shots)
        axes.set(xlabel="training images per class", ylabel="accuracy")
        horizontal_grid(axes)
        axes.legend(loc="lower right")
        set_subject(figure, subject)
    return figure


def rank_figure(rows: Sequence[tuple[str, float, float, float, float, bool]], *, subject: str = "") -> Figure:
    """Accuracy of heads, with 95 % intervals, against the speed of their backbones; the Pareto front is connected.

    Args:
        rows: (backbone, images per second, accuracy, low and high end of its interval, whether it is on the Pareto front: no
            other is at least as fast and as accurate).
        subject: what the figure is about, such as the data set and the head; its title.
    """
    with style():
        figure = new_figure(WIDTH, 4)
        axes = figure.add_subplot()
        for on_front, colour, name in ((True, ORANGE, "Pareto front"), (False, BLUE, "others")):
            group = [row for row in rows if row[5] == on_front]
            if group:
                x, y, low, high = np.array([row[1:5] for row in group], dtype=np.float64).T
                axes.errorbar(x, y, np.maximum([y - low, high - y], 0), fmt="o", color=colour, capsize=3, label=name)
        front = sorted((row[1], row[2]) for row in rows if row[5])
        axes.plot(*zip(*front, strict=True), color=ORANGE, linewidth=1)
        for name, speed, accuracy, *_ in rows:
            axes.annotate(label(name), (speed, accuracy), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if len(rows) > 1:
            log_axis(axes, "x")
        axes.margins(x=0.15)
        axes.set(xlabel="images per second", ylabel="cross-validated accuracy")
        horizontal_grid(axes)
        figure.legend(loc="outside lower center", ncols=2)
        set_subject(figure, subject)
    return figure


def advice_figure(
    depths: Mapping[str, float],
    together: Mapping[str, float],
    untrained: Mapping[str, float],
    guess: float,
    points: Sequence[tuple[int, float, float]],
    law: np.ndarray,
    images: int,
    *,
    subject: str = "",
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
        subject: what the figure is about, such as the data set and the head; its title.
    """
    with style():
        figure = new_figure(WIDTH * 1.6, 4.2)
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
            horizontal_grid(axes)
        set_subject(figure, subject)
    return figure


def _draw_depths(
    axes: Axes,
    depths: Mapping[str, float],
    together: Mapping[str, float],
    untrained: Mapping[str, float],
    guess: float,
) -> None:
    places = {layer: place for place, layer in enumerate(depths)}
    for accuracies, colour, line, name in (
        (depths, BLUE, "o-", "one layer"),
        (together, ORANGE, "s--", "it and all later layers"),
        (untrained, GREY, "^:", "one layer, random weights"),
    ):
        layers = [layer for layer in accuracies if layer in places]
        if layers:
            x, y = [places[layer] for layer in layers], [accuracies[layer] for layer in layers]
            axes.plot(x, y, line, color=colour, label=name)
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
    log_axis(axes, "x")
    ticks(axes, np.array([*sizes, images, x[-1]]))
    axes.set(xlabel="training images", title="by training images, up to twice as many")


def training_figure(
    log: Sequence[Mapping[str, float | None]],
    curve: Mapping[float, float],
    *,
    best_epoch: int = 0,
    alpha: float | None = None,
    subject: str = "",
) -> Figure:
    """Training history: losses and validation accuracy by epoch, and the log loss of interpolated weights.

    The third panel shows the validation log loss along the line from the head's weights (0) to the fine-tuned ones (1). The
    best epoch and the weights that were chosen are marked.

    Args:
        log: an entry for each epoch, the first for the head: ``epoch``, ``loss``, ``accuracy``, ``log_loss``.
        curve: interpolation coefficient alpha to the log loss on the validation images.
        best_epoch: the epoch of the lowest validation log loss; 0 before the first epoch has ended.
        alpha: the coefficient of the chosen weights; None before they are chosen.
        subject: what the figure is about, such as the data set and the head; its title.
    """

    def of(name: str) -> tuple[list[float], list[float]]:
        """Epochs and values of one metric, where it is known."""
        entries = [(float(entry["epoch"] or 0), entry[name]) for entry in log if entry[name] is not None]
        return [x for x, _ in entries], [float(y or 0) for _, y in entries]

    with style():
        figure = new_figure(WIDTH * 1.8, 3.6)
        losses, accuracy, between = figure.subplots(1, 3)
        losses.plot(*of("loss"), color=GREY, marker=".", label="training loss")
        losses.plot(*of("log_loss"), color=BLUE, marker="o", label="validation")
        losses.set(xlabel="epoch (0 is the head)", title="loss (nats)")
        accuracy.plot(*of("accuracy"), color=BLUE, marker="o")
        accuracy.set(xlabel="epoch (0 is the head)", title="validation accuracy")
        between.plot(list(curve), list(curve.values()), color=BLUE, marker="o")
        between.set(xlabel="from head (0) to fine-tuned (1)", title="log loss of interpolated weights")
        if best_epoch:
            best = {"color": ORANGE, "marker": "D", "markersize": 8, "linestyle": "none", "zorder": 5}
            losses.plot(best_epoch, log[best_epoch]["log_loss"] or 0, label=f"best epoch ({best_epoch})", **best)
            accuracy.plot(best_epoch, log[best_epoch]["accuracy"] or 0, **best)
        if alpha is not None and alpha in curve:
            mark = {"color": "black", "marker": "*", "markersize": 13, "linestyle": "none", "zorder": 6}
            between.plot(alpha, curve[alpha], label=f"chosen weights ({alpha:g})", **mark)
        for axes, end in ((losses, len(log) - 1), (accuracy, len(log) - 1), (between, 1)):
            axes.set_xlim(-0.05 * max(end, 1), 1.05 * max(end, 1))
        for axes in (losses, accuracy):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=4)
        set_subject(figure, subject)
    return figure


def courses_figure(
    courses: Sequence[tuple[str, Sequence[float], Sequence[float], int]], *, subject: str = ""
) -> Figure:
    """Validation accuracy of several trainings, against epochs and against seconds, with 95 % intervals.

    Args:
        courses: name, accuracy before the first epoch and after each, the seconds until then, and the number of images.
        subject: what the figure is about; its title.
    """
    with style():
        figure = new_figure(WIDTH * 1.8, 3.8)
        by_epoch, by_time = figure.subplots(1, 2, sharey=True)
        for at, (name, accuracies, seconds, n) in enumerate(courses):
            color = (BLUE, ORANGE, GREY)[at % 3]
            low, high = zip(*(wilson_interval(accuracy * n, n) for accuracy in accuracies), strict=True)
            for axes, places in ((by_epoch, range(len(accuracies))), (by_time, seconds)):
                axes.plot(places, accuracies, color=color, marker=".", label=name if axes is by_epoch else None)
                axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
        by_epoch.set(xlabel="epoch", title="validation accuracy")
        by_time.set(xlabel="seconds of training", title="validation accuracy")
        by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=3)
        set_subject(figure, subject)
    return figure
