"""The HTML page about a head: what it is, what it is worth, and where it errs. Only this room knows both heads and pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from featx._version import __version__
from featx.data.decode import thumbnail
from featx.errors import ImageError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.targets import targets_of
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.report import html, plots
from featx.system import why_unreadable

_SIDE = 192  # pixels of a thumbnail's longer side


def write_head_card(
    path: Path,
    head: Head,
    features: FeatureSet,
    *,
    report: Report | None,
    rows: np.ndarray | None,
    outputs: np.ndarray | None,
    notes: Sequence[str],
    compared: Sequence[Sequence[str]] = (),
    cross_validated: CrossValidated | None = None,
    shots: Sequence[tuple[int, CrossValidated]] = (),
) -> Path:
    """Write one self-contained page.

    Args:
        path: of the page.
        head: fitted.
        features: that it was fitted to and judged on.
        report: on the held-out rows; None: what cross-validation on the training rows said.
        rows: (n,) int64, the rows that were judged; None without a report.
        outputs: (n, C) float64, what the head says of them.
        notes: what the reader should know.
        compared: lines of the table of ``--model auto``, (kind, parameters, loss, error, value, seconds).
        cross_validated: of ``--cv``.
        shots: of ``--shots``.

    Raises:
        OutputError: the page cannot be written.
    """
    judged = report or head.held_out_
    sections = list(html.sections_of(judged)) if judged else []
    if report is not None and rows is not None and outputs is not None:
        sections += _errors(head, features, report, rows, outputs)
    sections += _search(head) + _tables(compared, cross_validated, shots)
    told = f"its numbers are those on split {judged.split}, of images that it was not fitted to" if judged else ""
    name = str(head.dataset_.get("name", "features"))
    page = html.Card(
        title=f"{name}: {head.kind}",
        summary=f"A {head.kind} head on features of {_backbone(head)}, for {head.task_}; {told or 'it was not judged'}.",
        facts=_facts(head, features),
        headline=html.headline_of(judged) if judged else "",
        numbers=html.numbers_of(judged) if judged else (),
        notes=tuple(notes),
        sections=tuple(sections),
    )
    return html.write_card(path, page)


def _facts(head: Head, features: FeatureSet) -> dict[str, str]:
    chosen = {
        key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in head.parameters.items() if value
    }
    facts = {
        "model": head.kind,
        "task": head.task_,
        **chosen,
        "classes": f"{len(head.classes_):,}",
        "training images": f"{head.n_train_:,}",
        "data set": f"{head.dataset_.get('name', '')} ({head.dataset_.get('root', '')})",
        "features": str(features.source or "made by hand"),
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
            f"{head.convergence_['iterations']} iterations, to a relative gap of {head.convergence_['gap']:.1g}"
        )
    if head.reject_below_ is not None:
        facts["rejects below"] = f"{head.reject_below_:.4f}"
    return {key: value for key, value in facts.items() if value}


def _backbone(head: Head) -> str:
    return str(head.backbone_.get("name", "a backbone that is not known"))


def _errors(
    head: Head, features: FeatureSet, report: Report, rows: np.ndarray, outputs: np.ndarray
) -> list[html.Section]:
    facts = features.without_features(rows)
    if isinstance(report, RegressionReport):
        y = targets_of(facts, "regression", head.classes_).y
        picture = html.Picture(plots.as_svg(plots.scatter_figure(y, outputs)), "Predictions against targets")
        return [html.Section("Predictions", pictures=(picture,))]
    if not isinstance(report, ClassificationReport):
        return []
    y = targets_of(facts, "classification", head.classes_).y
    predicted, sure = outputs.argmax(axis=1), outputs.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][: html.MOST_MISTAKES]
    root = Path(str(features.dataset.get("root", "")))
    mistakes = tuple(
        html.Mistake(
            str(facts.paths[i]), _thumbnail(root / str(facts.paths[i])),
            head.classes_[y[i]], head.classes_[predicted[i]], float(sure[i]),
        )
        for i in worst
    )  # fmt: skip
    text = f"{len(wrong):,} of {len(y):,} images are taken for another class. These the head was surest of."
    return [html.Section("The most confident mistakes", text, mistakes=mistakes)] if mistakes else []


def _thumbnail(path: Path) -> bytes | None:
    if why_unreadable(path):  # a pipe, say, that a stranger's feature file names: nothing waits for it
        return None
    try:
        return thumbnail(path.read_bytes(), _SIDE)
    except (ImageError, OSError, ValueError):
        return None


def _search(head: Head) -> list[html.Section]:
    lines = [(t.candidate, t.loss, t.error) for t in head.search_]
    if len(lines) < 2 or not head.chosen:
        return []
    ((name, chosen),) = head.chosen.items()
    loss = "squared error" if head.task_ == "regression" else "log loss"
    figure = plots.as_svg(plots.path_figure(lines, float(chosen), name=name, loss=loss))
    table = html.Table(
        (name, loss, "standard error"), [(f"{c:.4g}", f"{m:.4f}", f"{s:.4f}") for c, m, s in lines], "All candidates"
    )
    text = (
        "Judged by cross-validation on the training images alone. Chosen is the one of least loss; of those that are as good, "
        "the most regularised."
    )
    return [
        html.Section(
            f"Choice of {name}", text, pictures=(html.Picture(figure, f"Loss against {name}"),), tables=(table,)
        )
    ]


def _tables(
    compared: Sequence[Sequence[str]], crossed: CrossValidated | None, shots: Sequence[tuple[int, CrossValidated]]
) -> list[html.Section]:
    sections = []
    if compared:
        header = ("head", "chosen", "loss", "standard error", "value", "seconds")
        text = (
            "Each fitted and cross-validated on the same training images; kept is the simplest within one standard error of "
            "the best."
        )
        sections.append(
            html.Section("Heads compared", text, tables=(html.Table(header, [tuple(c) for c in compared]),))
        )
    if crossed:
        lines = [(n, f"{crossed.mean(n):.4f}", f"{crossed.deviation(n):.4f}") for n in crossed.values]
        text = (
            f"{crossed.repeats} x {crossed.folds} folds over {crossed.n:,} images; each judged by a head that was fitted "
            "without it."
        )
        table = html.Table(("metric", "mean", "standard deviation"), lines)
        sections.append(html.Section("Cross-validated", text, tables=(table,)))
    if shots:
        lines = [(str(n), f"{r.mean('accuracy'):.4f}", f"{r.deviation('accuracy'):.4f}") for n, r in shots]
        picture = plots.as_svg(plots.shots_figure([(n, r.mean("accuracy"), r.deviation("accuracy")) for n, r in shots]))
        table = html.Table(("images of each class", "accuracy", "standard deviation"), lines)
        sections.append(
            html.Section("With few images", pictures=(html.Picture(picture, "Accuracy by shots"),), tables=(table,))
        )
    return sections
