"""What a page shows of a fitted head: its facts, its numbers with intervals, its figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from featx._version import __version__
from featx.features.feature_set import FeatureSet
from featx.heads.conformal import name_of_sets
from featx.heads.head import Head
from featx.heads.rejection import rejected_text
from featx.heads.targets import targets_of
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.report import plots
from featx.report.html import Number, Picture, Section, Table, decimals
from featx.report.sections import sections_of
from featx.text import counted


def head_sections(
    head: Head,
    features: FeatureSet,
    *,
    report: Report | None = None,
    rows: np.ndarray | None = None,
    predictions: np.ndarray | None = None,
    compared: Sequence[Sequence[str]] = (),
    cross_validated: CrossValidated | None = None,
    shots: Sequence[tuple[int, CrossValidated]] = (),
) -> tuple[Section, ...]:
    """The sections of a page that show how well a head predicts, and how it was chosen.

    Args:
        head: fitted.
        features: the features that the head was fitted to and evaluated on.
        report: the evaluation on the held-out rows; None shows the cross-validation on the training rows instead, if any.
        rows: (n,) int64, the evaluated rows; None without a report.
        predictions: (n, C) float64, the head's probabilities for these rows; predicted numbers for a regression.
        compared: rows of the table of ``--model auto``: (kind, parameters, loss, error, value, seconds).
        cross_validated: the result of ``--cv``.
        shots: the results of ``--shots``: (images of each class, repeated results).

    Example:

        report, rows, outputs = head.judge(features)
        sections = head_sections(head, features, report=report, rows=rows, predictions=outputs)
    """
    shown = report or head.held_out_
    sections = sections_of(shown) if shown else ()
    if isinstance(report, RegressionReport) and rows is not None and predictions is not None:
        sections += (_scatter(features, rows, head, predictions),)
    return (
        *sections,
        *_search_sections(head),
        *_compared_sections(compared),
        *_cross_validated_sections(cross_validated),
        *_shots_sections(shots),
    )


def head_summary(head: Head, report: Report | None) -> str:
    """What a head is and what it was evaluated on, in one sentence."""
    what = f"A {head.kind} head on features of {_backbone(head)}, for {head.task_}"
    if not report:
        return f"{what}; it was not evaluated."
    return f"{what}; evaluated on split {report.split}, on images that it was not fitted to."


def head_facts(head: Head, features: FeatureSet) -> dict[str, str]:
    """What a head is and where it comes from: name and value pairs."""
    parameters = {
        key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in head.parameters.items() if value
    }
    facts = {
        "model": head.kind,
        "task": head.task_,
        **parameters,
        "classes": f"{len(head.names_):,}",
        "training images": f"{head.n_train_:,}",
        "data set": f"{head.dataset_.get('name', '')} ({head.dataset_.get('root', '')})",
        "features": str(features.source or "in memory"),
        "layer": head.layer,
        "views": head.views,
        "backbone": _backbone(head),
        "weights": str(head.backbone_.get("weights", "")),
        "identity": head.identity_,
        "seed": str(head.seed),
        "fitted in": f"{head.seconds_:.2f} s",
        "featx": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if head.convergence_:
        facts["convergence"] = (
            f"{counted(int(head.convergence_['iterations']), 'iteration')}, to a relative gap of {head.convergence_['gap']:.1g}"
        )
    if head.reject_below_ is not None:
        facts["rejects"] = rejected_text(head.reject_below_)
    if head.conformal_ is not None:
        facts[name_of_sets(head.task_)] = head.conformal_.sentence
    return {key: value for key, value in facts.items() if value}


def _backbone(head: Head) -> str:
    return str(head.backbone_.get("name", "an unknown backbone"))


def _scatter(features: FeatureSet, rows: np.ndarray, head: Head, predictions: np.ndarray) -> Section:
    y = targets_of(features.without_features(rows), "regression", head.names_).y
    picture = Picture(plots.as_svg(plots.scatter_figure(y, predictions)), "Predictions against targets")
    return Section("Predictions", pictures=(picture,))


def _search_sections(head: Head) -> list[Section]:
    """The cross-validated loss of every candidate for the hyperparameter."""
    candidates = [(tried.candidate, tried.loss, tried.error) for tried in head.search_]
    if len(candidates) < 2 or not head.chosen:
        return []
    ((name, chosen),) = head.chosen.items()
    loss = "squared error" if head.task_ == "regression" else "log loss"
    figure = plots.as_svg(plots.path_figure(candidates, float(chosen), name=name, loss=loss))
    rows = [(f"{c:.4g}", f"{mean:.4f}", f"{error:.4f}") for c, mean, error in candidates]
    text = (
        "Candidates are compared by cross-validation on the training images. The one with the lowest loss is chosen; if "
        "several are equally good, the most regularised of them."
    )
    return [
        Section(
            f"Choice of {name}",
            text,
            pictures=(Picture(figure, f"Loss against {name}"),),
            tables=(Table((name, loss, "standard error"), rows, "All candidates"),),
        )
    ]


def _compared_sections(compared: Sequence[Sequence[str]]) -> list[Section]:
    """The heads that ``--model auto`` compared."""
    if not compared:
        return []
    header = ("head", "chosen", "loss", "standard error", "value", "seconds")
    text = (
        "Every head is cross-validated on the same training images. The simplest one within one standard error of the "
        "best is kept."
    )
    return [Section("Heads compared", text, tables=(Table(header, [tuple(row) for row in compared]),))]


def _cross_validated_sections(result: CrossValidated | None) -> list[Section]:
    if not result:
        return []
    rows = [
        (name, f"{result.mean(name):.4f}", _ends(result.interval(name)), decimals(result.deviation(name)))
        for name in result.values
    ]
    text = (
        f"{result.repeats} x {result.folds} folds over {result.n:,} images; each image is predicted by a head that was "
        "fitted without it."
    )
    text += f" The means estimate {result.estimates}." if result.estimates else ""
    table = Table(("metric", "mean", "95 % interval", "standard deviation over the folds"), rows)
    return [Section("Cross-validated", text, tables=(table,))]


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else "{:.4f} to {:.4f}".format(*interval)


def cross_validated_number(result: CrossValidated) -> Number:
    """The main metric of a cross-validation with its interval, for the top of a page."""
    (name, value), metric = result.headline, next(iter(result.values))
    interval = result.interval(metric)
    detail = [f"95 % interval {_ends(interval)}"] if interval else []
    detail.append(f"{result.n:,} images, each predicted by heads that were fitted without it")
    detail.append(result.headline_baseline)
    return Number(
        f"{name}, cross-validated", f"{value:.4f}", "; ".join(detail), interval if name == "accuracy" else None
    )


def _shots_sections(shots: Sequence[tuple[int, CrossValidated]]) -> list[Section]:
    """Accuracy by the number of training images of each class."""
    if not shots:
        return []
    points = [(n, result.mean("accuracy"), result.deviation("accuracy")) for n, result in shots]
    rows = [(str(n), f"{mean:.4f}", decimals(deviation)) for n, mean, deviation in points]
    picture = Picture(plots.as_svg(plots.shots_figure(points)), "Accuracy by shots")
    table = Table(("images of each class", "accuracy", "standard deviation"), rows)
    return [Section("With few images", pictures=(picture,), tables=(table,))]
