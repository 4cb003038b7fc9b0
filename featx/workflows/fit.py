"""A head fitted, judged and saved; alone, or the best of all kinds; on few images, or by repeated cross-validation."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.advice.layer_scores import best, measure
from featx.constants import MODELS
from featx.data.image_set import PRETRAIN, UNLABELLED
from featx.errors import HeadError, OutputError
from featx.features.feature_set import FeatureSet, views_in
from featx.heads.folds import draw_shots, make_folds
from featx.heads.groups import read_column, row_groups, with_groups, with_splits
from featx.heads.head import Head
from featx.heads.registry import auto_candidates, get_kind
from featx.heads.targets import require_train_classes, targets_of, task_of
from featx.io import atomic
from featx.layer_spec import PENULTIMATE, LayerSpec
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.metrics.scores import finite
from featx.reporter import SILENT, Reporter
from featx.text import cell

AUTO, BEST = "auto", "best"
"""The kind that stands for all that suit; the layer that stands for the one that suits best."""

HIDDEN_UNITS = 512
"""Of an mlp head, as ``minibatch.HiddenModel`` has them; importing that room takes torch along."""

_WHY_LEFT_OUT = {
    PRETRAIN: ": the backbone was made with them",
    "val": ": they are kept to choose by in promote --finetune",
}


@dataclass(frozen=True)
class Compared:
    """One kind of head among those that ``--model auto`` compared.

    Attributes:
        kind: of head, with its kernel where that is not linear.
        candidate: the hyper-parameter that suited it best, in words.
        loss: mean cross-validated loss on the training rows.
        error: its standard error.
        value: of the report's headline (accuracy, mAP or RMSE) on the same held-out rows.
        seconds: what the fit took.
        why: it could not be fitted, else "".
    """

    kind: str
    candidate: str = ""
    loss: float = math.nan
    error: float = math.nan
    value: float = math.nan
    seconds: float = 0.0
    why: str = ""

    def cells(self) -> tuple[str, ...]:
        """As a line of a table: head, what was chosen, loss, its standard error, value, seconds."""
        if self.why:
            return (self.kind, self.why, "", "", "", "")
        return (
            self.kind, self.candidate, f"{self.loss:.4f}", f"{self.error:.4f}", f"{self.value:.4f}", f"{self.seconds:.2f}"
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fit:
    """A head, what it is worth, and what was written.

    Attributes:
        head: fitted.
        report: on the held-out split; None where there is none and cross-validation judges alone.
        path: of the head.
        picture: of the confusion matrix, or None.
        features: the feature file, or None.
        notes: what the user should know, one sentence each.
        compared: by ``--model auto``.
        layers: by ``--layer best``; the kind of each is the layer's name.
        cross_validated: of ``--cv``.
        shots: of ``--shots``: (images of each class, their repeated results).
        shots_picture: of the curve, or None.
        card: the HTML page, or None.
        unlabelled: the CSV with predictions for images without a label, or None.
    """

    head: Head
    report: Report | None
    path: Path
    picture: Path | None
    features: Path | None
    notes: tuple[str, ...]
    compared: tuple[Compared, ...] = ()
    layers: tuple[Compared, ...] = ()
    cross_validated: CrossValidated | None = None
    shots: tuple[tuple[int, CrossValidated], ...] = ()
    shots_picture: Path | None = None
    card: Path | None = None
    unlabelled: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """As ``featx fit-head --json`` prints it."""
        head = self.head
        report = self.report.as_dict() if self.report else {}
        return {
            "head": str(self.path),
            "model": head.kind,
            "task": head.task_,
            "layer": head.layer,
            "views": head.views,
            **head.parameters,
            "n_train": head.n_train_,
            "n_test": report.pop("n", 0),
            "test_split": report.pop("split", None),
            **{key: value for key, value in report.items() if key != "notes"},
            "search": [tried.as_dict() for tried in head.search_],
            "convergence": head.convergence_,
            "temperature": head.temperature_,
            "compared": [{k: finite(v) for k, v in dataclasses.asdict(c).items()} for c in self.compared],
            "compared_layers": [
                {"layer" if k == "kind" else k: finite(v) for k, v in dataclasses.asdict(c).items()}
                for c in self.layers
            ],
            "cross_validated": self.cross_validated.as_dict() if self.cross_validated else None,
            "shots": [{"shots": n, **result.as_dict()} for n, result in self.shots],
            "picture": _text(self.picture),
            "card": _text(self.card),
            "unlabelled": _text(self.unlabelled),
            "features": _text(self.features),
            "seconds": round(head.seconds_, 4),
            "notes": list(self.notes),
        }


def fit_head(
    features: FeatureSet | str | os.PathLike[str],
    head: Head,
    *,
    layer: str | Sequence[str] = PENULTIMATE,
    views: str | None = None,
    auto: bool = False,
    cv: int | None = None,
    repeat: int = 1,
    shots: Sequence[int] = (),
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    card: bool = False,
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
    reporter: Reporter = SILENT,
) -> Fit:
    """Fit a head to the training rows of a feature file, judge it on the held-out ones, and save both.

    Args:
        features: a feature set or a feature file.
        head: unfitted.
        layer: of the feature file; several are put side by side; "best" is the one of least cross-validated loss, where that is
            two standard errors less than the penultimate's, image by image.
        views: that the file has of each image: "plain", "flip" or "10crop"; by default all. The head is fitted to each, and its
            scores are averaged over those of an image.
        auto: fit every kind that suits instead of the head's own, and keep the best by cross-validation on the training
            rows: the simplest within one standard error.
        cv: also judge by so many folds over all labelled rows, each by a head fitted (its hyper-parameter chosen) without it.
        repeat: how often to cross-validate, or to draw the images of ``shots``.
        shots: also fit to so many images of each class, and judge on the held-out split.
        group: a column of the data set's table; images with the same value never straddle a split or a fold.
        table: the table with that column, if it is not the one that the features were extracted from.
        card: also write an HTML page about the head.
        out: the head's file, instead of ``<models>/<features>--<kind>.safetensors``.
        models: the folder for heads.
        reporter: gets the progress of ``auto``, ``cv`` and ``shots``, in fits.

    Raises:
        HeadError: nothing to fit to or to judge by.
        CacheMissError, CorruptFileError: the feature file is not there or not sound.
        OutputError: the head cannot be written.
    """
    file = features.source if isinstance(features, FeatureSet) else Path(features)
    layer = layer if isinstance(layer, str) else ",".join(dict.fromkeys(layer))
    depths: tuple[Compared, ...] = ()
    if isinstance(features, FeatureSet):
        features = with_groups(features, group, table)
    else:
        views = views or views_in(features, PENULTIMATE if layer == BEST else layer)
        load = _GroupedLoader(features, group, table)
        if layer == BEST:
            tried = measure(features, head, views=views, load=load)
            layer, depths = best(tried).layer, tuple(_compared(depth.head.layer, depth.head) for depth in tried)
        features = load(str(LayerSpec.parse(layer, views)))
    task, _ = task_of(features, head.task)
    if not auto:
        get_kind(head.kind, task=task, kernel=head.kernel)
    path = Path(out) if out else Path(models) / f"{_stem(features, head, auto)}.safetensors"
    written = _Files(path)
    written.require(_most_bytes(features, head))
    split = with_splits(features, task)
    held_out = _held_out(split, task, cv)
    fits = _Counter(reporter, _count_fits(split, task, auto, cv, repeat, shots))
    compared: tuple[Compared, ...] = ()
    if auto:
        head, compared = _best_of_all(features, head, task, len(split.rows("train")) * split.views, fits)
    else:
        head.fit(features, cross_validate=card)
        fits.tick()
    study = _Study(features, split, head, fits)
    report, rows, outputs = head.judge(features, split=held_out) if held_out else (None, None, None)
    crossed = study.cross_validated(cv, repeat) if cv else None
    few = tuple((n, study.few_shot(n, repeat, held_out)) for n in shots)
    notes = [*head.notes_, *(report.notes if report else ()), *_left_out(split, held_out)]
    chosen = [what for what, tried in (("kind of head", compared), ("layer", depths)) if tried]
    if chosen and crossed:
        notes.append(
            f"the {' and the '.join(chosen)} {'were' if chosen[1:] else 'was'} chosen on training images that cross-validation "
            "judges too, which flatters it"
        )
    head.save(path, report=report)
    unlabelled = written.predictions(features, head)
    fit = Fit(head, report, path, None, file, tuple(notes), compared, depths, crossed, few, unlabelled=unlabelled)
    return written.pictures(fit, features, rows, outputs, card)


class _GroupedLoader:
    """Loads layers of one feature file, each with the groups of a column, which is read once."""

    def __init__(self, path: str | os.PathLike[str], group: str | None, table: str | os.PathLike[str] | None) -> None:
        self.path, self.group, self.table = path, group, table
        self.groups: np.ndarray | None = None

    def __call__(self, layer: str) -> FeatureSet:
        features = FeatureSet.load(self.path, layer)
        if self.group is not None and self.groups is None:
            self.groups = read_column(features, self.group, table=self.table)
        return dataclasses.replace(features, groups=self.groups, group=self.group)


def _held_out(split: FeatureSet, task: str, cv: int | None) -> str:
    """The split that judges; "" where there is none and cross-validation judges alone."""
    try:
        held_out = split.held_out()
    except HeadError as error:
        if cv:
            return ""
        raise HeadError(f"{error}; or judge by cross-validation: --cv 5") from error
    require_train_classes(split, task)
    return held_out


def _best_of_all(
    features: FeatureSet, asked: Head, task: str, rows: int, fits: _Counter
) -> tuple[Head, tuple[Compared, ...]]:
    """The simplest head within one standard error of the best, and the table of all."""
    heads: list[Head] = []
    compared = []
    for kind, kernel in auto_candidates(task, rows):
        name = f"{kind}-rbf" if kernel == "rbf" else kind
        head = Head(**{**asked.get_params(), "kind": kind, "kernel": kernel, "C": None, "k": None})
        try:
            head.fit(features, cross_validate=True)
        except HeadError as error:
            compared.append(Compared(name, why=str(error)))
            fits.tick()
            continue
        heads.append(head)
        compared.append(_compared(name, head))
        fits.tick()
    if not heads:
        raise HeadError(f"no kind of head could be fitted: {compared[0].why}")
    lines = [line for line in compared if not line.why]
    known = [line for line in lines if math.isfinite(line.loss)]
    if not known:
        return heads[0], tuple(compared)
    best = min(known, key=lambda line: line.loss)
    most = best.loss + (best.error if math.isfinite(best.error) else 0.0)
    chosen = next(i for i, line in enumerate(lines) if line.loss <= most)
    return heads[chosen], tuple(compared)


def _compared(name: str, head: Head) -> Compared:
    best = min(head.search_, key=lambda t: t.loss) if head.search_ else None
    value = head.held_out_.headline[1] if head.held_out_ else math.nan
    chosen = ", ".join(f"{name}={value:g}" for name, value in head.chosen.items())
    if best is None:
        return Compared(name, chosen, value=value, seconds=head.seconds_)
    return Compared(name, chosen, best.loss, best.error, value, head.seconds_)


@dataclass(frozen=True, eq=False)
class _Study:
    """The same kind of head, fitted again and again to other rows."""

    features: FeatureSet
    split: FeatureSet
    head: Head
    fits: _Counter

    def cross_validated(self, folds: int, repeat: int) -> CrossValidated:
        """Every labelled row judged once in each repeat by a head that saw none of its group; hyper-parameters chosen anew."""
        rows = np.flatnonzero((self.features.labels != UNLABELLED) & (self.features.splits != PRETRAIN))
        groups = row_groups(self.features, rows)
        targets = targets_of(self.features.facts(rows), self.head.task_)
        strata = None if self.head.task_ == "regression" else targets.y
        reports = []
        notes: tuple[str, ...] = ()
        for turn in range(repeat):
            made = make_folds(strata, groups, folds=folds, seed=self.head.seed, repeat=turn)
            if not made:
                raise HeadError("no class has two images that could be told apart, so nothing can be cross-validated")
            left = len(rows) - sum(len(test) for _, test in made)
            if left:
                notes = (f"{left} images are the only ones of their class, or belong to them, and judge nothing",)
            for train, test in made:
                reports.append(self._fitted(rows[train]).evaluate(self.features, rows=rows[test]))
                self.fits.tick()
        return CrossValidated.from_reports(reports, repeats=repeat, notes=notes)

    def few_shot(self, shots: int, repeat: int, held_out: str) -> CrossValidated:
        """Heads fitted to some drawn training rows of each class, judged on the held-out split."""
        if self.head.task_ != "classification":
            raise HeadError(f"--shots draws images of each class; it is not for {self.head.task_}")
        if not held_out:
            raise HeadError("--shots judges on a held-out split, and there is none; name one in the table")
        rows = self.split.rows("train")
        targets = targets_of(self.split.facts(rows), "classification")
        groups, reports = row_groups(self.features, rows), []
        for turn in range(repeat):
            seed = self.head.seed
            drawn = draw_shots(targets.y, groups, shots=shots, classes=targets.names, seed=seed, repeat=turn)
            reports.append(self._fitted(rows[drawn]).evaluate(self.features, rows=self.split.rows(held_out)))
            self.fits.tick()
        return CrossValidated.from_reports(reports, repeats=repeat)

    def _fitted(self, rows: np.ndarray) -> Head:
        return Head(**self.head.get_params()).fit(self.features, rows=rows)


@dataclass(frozen=True)
class _Files:
    """What is written beside a head's file."""

    path: Path

    @property
    def picture(self) -> Path:
        return self.path.with_suffix(".png")

    @property
    def card(self) -> Path:
        return self.path.with_suffix(".html")

    @property
    def curve(self) -> Path:
        return self.path.with_name(f"{self.path.stem}--shots.png")

    @property
    def table(self) -> Path:
        return self.path.with_name(f"{self.path.stem}--unlabelled.csv")

    def require(self, most_bytes: int) -> None:
        """Refuse, before the work begins, what could not be written at its end."""
        if self.path.suffix in (".png", ".html"):
            raise OutputError(
                f"{self.path} is where the head's picture or page goes; name a file that ends in .safetensors with -o"
            )
        atomic.require_writable(self.path, most_bytes)
        for beside in (self.picture, self.card, self.curve, self.table):
            atomic.require_writable(beside)

    def predictions(self, features: FeatureSet, head: Head) -> Path | None:
        """What the head says of the images that have no label, as CSV, if there are any."""
        rows = np.flatnonzero(features.labels == UNLABELLED)
        if not len(rows):
            return None
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["path", "label", "probability"])
        for path, p in zip(features.paths[rows], head.predict_rows(features, rows), strict=True):
            label, probability = _said(head, p)
            table.writerow([cell(path), label if head.task_ == "regression" else cell(label), probability])
        atomic.write_whole(self.table, text.getvalue().encode("utf-8", "surrogateescape"))
        return self.table

    def pictures(
        self, fit: Fit, features: FeatureSet, rows: np.ndarray | None, outputs: np.ndarray | None, card: bool
    ) -> Fit:
        """Draw what there is to draw."""
        from featx.report import plots

        made: dict[str, Any] = {}
        if isinstance(fit.report, ClassificationReport):
            plots.save_confusion(fit.report, self.picture)
            made["picture"] = self.picture
        if fit.shots:
            points = [(n, result.mean("accuracy"), result.deviation("accuracy")) for n, result in fit.shots]
            atomic.write_whole(self.curve, plots.as_png(plots.shots_figure(points)))
            made["shots_picture"] = self.curve
        fit = dataclasses.replace(fit, **made)
        if card:
            from featx.report.head_page import write_head_page

            page = write_head_page(
                self.card, fit.head, features, report=fit.report, rows=rows, predictions=outputs, notes=fit.notes,
                compared=[line.cells() for line in fit.compared], cross_validated=fit.cross_validated, shots=fit.shots,
            )  # fmt: skip
            fit = dataclasses.replace(fit, card=page)
        return fit


class _Counter:
    """Counts fits for a reporter."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.reporter, self.total, self.done = reporter, total, 0

    def tick(self) -> None:
        """One more."""
        self.done += 1
        if self.total > 1:
            self.reporter.progress(min(self.done, self.total), self.total)


def _count_fits(split: FeatureSet, task: str, auto: bool, cv: int | None, repeat: int, shots: Sequence[int]) -> int:
    kinds = len(auto_candidates(task, len(split.rows("train")) * split.views)) if auto else 1
    return kinds + (cv or 0) * repeat + len(shots) * repeat


def _said(head: Head, p: np.ndarray) -> tuple[str, str]:
    """Label and probability of one image's (C,) outputs, for a table."""
    if not np.isfinite(p).all():
        return "", ""
    said = head.decide(p)
    if isinstance(said, float):
        return f"{said:.6g}", ""
    if isinstance(said, list):
        return "|".join(said) or "|", " ".join(f"{p[head.classes_.index(name)]:.6f}" for name in said)
    return said or "", f"{p.max():.6f}"


def _most_bytes(features: FeatureSet, head: Head) -> int:
    """Of the head's file, roughly: its arrays are known before the fit, but for how many rows a kernel keeps."""
    rows = int(np.count_nonzero((features.splits == "train") & (features.labels >= 0)))
    width, count = features.width, len(features.classes)
    keeps_rows = head.kind == "knn" or head.kernel == "rbf"
    predictor = rows * features.views * (4 * width + 8 * count) if keeps_rows else 8 * count * width
    if head.kind == "mlp":
        predictor = HIDDEN_UNITS * (4 * width + 8 * count)
    return predictor + 16 * (width + rows)


def _stem(features: FeatureSet, head: Head, auto: bool) -> str:
    parts = [features.source.stem if features.source else Path(features.dataset.get("name", "features")).name]
    layer, _, views = features.layer.partition("@")
    parts += [layer.replace(":", "_").replace(",", "+")] if layer != PENULTIMATE else []
    parts += [views] if views else []
    parts += [AUTO if auto else f"{head.kind}-rbf" if head.kernel == "rbf" else head.kind]
    return "--".join(parts)


def _left_out(features: FeatureSet, held_out: str) -> list[str]:
    """A note on labelled images that took no part."""
    names, counts = np.unique(features.splits[features.labels >= 0].astype(str), return_counts=True)
    return [
        f"{count} images of split {name} were not used{_WHY_LEFT_OUT.get(name, '')}"
        for name, count in zip(names, counts, strict=True)
        if name not in ("train", held_out)
    ]


def _text(path: Path | None) -> str | None:
    return str(path) if path else None
