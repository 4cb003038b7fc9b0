"""Several backbones compared on one data set: what heads on their features are worth, and what the features cost."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.advice.forward_selection import SelectionStep, select_forward
from featx.advice.transferability import h_score, logme
from featx.advice.wording import next_fit
from featx.arguments import names_of
from featx.backbones.backbone import Backbone, load_backbone
from featx.constants import CACHE, MODELS
from featx.data.image_set import ImageSet
from featx.data.scan import scan_images
from featx.errors import AdviceError, BackboneError, HeadError, SettingsError, system_errors
from featx.extraction.clock import Clock
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.features.speeds import keep_speed
from featx.heads.groups import with_groups, with_splits
from featx.heads.head import Head
from featx.heads.nested import nested_report
from featx.heads.targets import task_of
from featx.io.outputs import RANKING, Output, require_outputs
from featx.metrics.classification import ClassificationReport
from featx.metrics.scores import finite
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter

TIMED_IMAGES = 160
"""Number of images that are read, decoded and run to measure the speed, if the extraction itself ran fewer."""

MAX_SCORED = 20_000
"""Largest number of images that LogME and the H-score are computed on."""


@dataclass(frozen=True)
class RankedBackbone:
    """One backbone of a ranking.

    Attributes:
        backbone: its name.
        weights: its weights, as they were requested.
        accuracy: of logistic regression, cross-validated on the training images; C is chosen within each fold's training
            images (``heads.nested``).
        interval: the 95 % interval of the accuracy, by groups (``proportion_interval``).
        log_loss: of the same predictions, in nats.
        knn: accuracy of k nearest neighbours, with k chosen likewise, cross-validated on the same images.
        logme: see ``transferability.logme``.
        h_score: see ``transferability.h_score``.
        embedding: width D of the penultimate layer.
        parameters: number of parameters without the classifier.
        images_per_second: speed of reading, decoding and running the network on this machine.
        front: whether it is on the Pareto front: no other backbone is as accurate and faster, or as fast and more accurate.
        features: the feature file.
        why: why it could not be ranked, otherwise "".
        label: what tells it from the other rows: its name, with its weights where a name occurs more than once.
    """

    backbone: str
    weights: str = "default"
    accuracy: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    log_loss: float = math.nan
    knn: float = math.nan
    logme: float = math.nan
    h_score: float = math.nan
    embedding: int = 0
    parameters: int = 0
    images_per_second: float = 0.0
    front: bool = False
    features: str = ""
    why: str = ""
    label: str = ""


@dataclass(frozen=True)
class Ranking:
    """The result of ``rank``.

    Attributes:
        rows: the most accurate backbone first, those that failed last. The feature file of the first is the newest of the
            folder afterwards, so that ``fit_head`` takes it by default.
        images: number of training images that were held out to compute the accuracies.
        picture: the figure of accuracy against speed, a PNG file.
        command: the command to run next, which fits a head to the features of the most accurate backbone.
        notes: what else the user should know, one sentence each.
        groups: number of groups that these images belong to, such as patients; as many as images where each is its own.
        baseline: "always 'glass' 0.1687", the accuracy of always the commonest class on these images.
        steps: greedy forward selection: the most accurate backbone, the best pair with it, and so on as long as a paired test
            shows a gain; () for one backbone.
    """

    rows: tuple[RankedBackbone, ...]
    images: int
    picture: Path
    command: str = ""
    notes: tuple[str, ...] = ()
    groups: int = 0
    baseline: str = ""
    steps: tuple[SelectionStep, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the ranking as ``featx rank --json`` prints it."""
        rows = [{key: finite(value) for key, value in asdict(row).items()} for row in self.rows]
        for row in rows:
            row["interval"] = None if row["accuracy"] is None else list(row["interval"])
        return {
            "ranking": rows,
            "images": self.images,
            "groups": self.groups,
            "baseline": self.baseline,
            "steps": [step.as_dict() for step in self.steps],
            "picture": str(self.picture),
            "command": self.command,
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("rank", "images")
def rank(
    data: ImageSet | str | os.PathLike[str],
    backbones: str | Sequence[str | tuple[str, str]] | Mapping[str, str],
    *,
    device: str = "auto",
    value_range: str | int | tuple[float, float] | None = None,
    bands: str | Sequence[int] | None = None,
    fit: str | None = None,
    seed: int = 0,
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Ranking:
    """Extract the features of each backbone once, and compare what heads on them are worth.

    Heads are cross-validated on the training images. Those of val and test have no part in the choice, so that they can
    evaluate what comes of it.

    Args:
        data: see ``extract``.
        backbones: names; pairs (name, weights), in which a name may occur with several weights; or {name: weights}.
        device: see ``load_backbone``.
        value_range: see ``load_backbone``; applies to all backbones.
        bands: see ``load_backbone``; apply to all backbones.
        fit: see ``load_backbone``; applies to all backbones.
        seed: of the folds.
        group: a column of the data set's table; images of one group never straddle a split or a fold, and the intervals are
            by groups.
        table: the table with that column, where it is not the data set's own.
        cache: the folder of feature files, or its URL.
        workers: see ``extract``.
        out: the figure's file, instead of ``<models>/<data>--rank.png``.
        models: the folder for the figure.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives a stage as each backbone begins, and the progress of its extraction, in images.

    Raises:
        AdviceError: the labels are not classes, no backbone was named, or none could be ranked.
        HeadError, DatasetError: the groups cannot be read, see ``with_groups``.
        OutputError: the figure cannot be written.

    Example:

        ranking = featx.rank("photos/", ["mobilenet_v3_small", "resnet50"])
        for row in ranking.rows:
            print(row.backbone, row.accuracy, row.images_per_second)
    """
    images = data if isinstance(data, ImageSet) else scan_images(data)
    picture = Path(out) if out else Path(models) / f"{images.name}--rank.png"
    requested = _labelled(backbones)
    sources = [
        *(weights for _, weights in requested.values()),
        *(name.rpartition(":")[0] for name, _ in requested.values()),
    ]
    require_outputs(
        [Output(picture, RANKING, named=bool(out))],
        [path for path in (images.table, *sources) if path],
        images=(images.root, set(images.paths)),
    )
    ranked, failed = list[RankedBackbone](), list[RankedBackbone]()
    counts, notes, baseline = set[tuple[int, int]](), dict[str, None](), ""
    folding = _Folding(seed, group, table)
    for number, (label, (name, weights)) in enumerate(requested.items(), start=1):
        reporter.stage(f"{label} ({number} of {len(requested)})")
        try:
            backbone = load_backbone(
                name, weights=weights, device=device, value_range=value_range, bands=bands, fit=fit
            )
            row, report, remarks = _rank_one(images, backbone, (name, weights), folding, cache, workers, reporter)
            row = dataclasses.replace(row, label=label)
        except BackboneError as error:  # its weights may be missing here; the other backbones are still ranked
            failed.append(RankedBackbone(name, weights, why=str(error), label=label))
        else:
            ranked.append(row)
            counts.add((report.n, report.groups))
            baseline = str(report.baseline)
            notes |= dict.fromkeys(remarks)
    if not ranked:
        why = failed[0].why if failed else "none was named; name at least one"
        raise AdviceError(f"no backbone could be ranked: {why}")
    ranked = [dataclasses.replace(row, front=_on_front(row, ranked)) for row in ranked]
    ranked.sort(key=lambda row: (-row.accuracy, row.log_loss))
    judged, groups = max(counts)
    _draw(ranked, picture, f"{images.name}: {judged} training images, logistic regression")
    with contextlib.suppress(OSError):  # a file of somebody else's cannot be touched; then it is just not the newest
        os.utime(ranked[0].features)
    steps, chosen = _selected(ranked, folding, reporter)
    command = next_fit(chosen, Path(models), group, table)
    return Ranking((*ranked, *failed), judged, picture, command, (*notes, *_notes(ranked)), groups, baseline, steps)


def _selected(
    ranked: Sequence[RankedBackbone], folding: _Folding, reporter: Reporter
) -> tuple[tuple[SelectionStep, ...], list[str]]:
    """Select backbones to put side by side.

    Args:
        ranked: the most accurate first.
        folding: how images are divided into folds.
        reporter: receives a stage.

    Returns:
        The steps, and the feature files of the backbones that are worth it.
    """
    if len(ranked) < 2:
        return (), [ranked[0].features]
    reporter.stage("comparing backbones side by side")
    sets = [with_groups(FeatureSet.load(row.features), folding.group, folding.table) for row in ranked]
    for row, features in zip(ranked, sets, strict=True):
        keep_speed(features.backbone, views=1, images_per_second=row.images_per_second)
    names = [row.label for row in ranked]
    steps = select_forward(sets, Head("logreg", seed=folding.seed, task="classification"), names)
    last = [step for step in steps if step.added][-1]
    return steps, [ranked[names.index(name)].features for name in last.judged.backbones]


def _labelled(
    backbones: str | Sequence[str | tuple[str, str]] | Mapping[str, str],
) -> dict[str, tuple[str, str]]:
    """The backbones to compare, as {label: (name, weights)}; one that is given twice with the same weights counts once.

    Raises:
        SettingsError: something other than a name or a pair of name and weights.
    """
    wrong = SettingsError(f"backbones is {backbones!r}; expected names, or pairs of a name and its weights")
    if not isinstance(backbones, Iterable):
        raise wrong
    items = backbones.items() if isinstance(backbones, Mapping) else backbones
    pairs = dict.fromkeys(
        tuple(names_of(item, "backbones")) if isinstance(item, tuple) else (*names_of(item, "backbones"), "default")
        for item in ([items] if isinstance(items, str) else items)
    )
    if any(len(pair) != 2 for pair in pairs):
        raise wrong
    names = Counter(name for name, _ in pairs)
    return {name if names[name] == 1 else f"{name}={weights}": (name, weights) for name, weights in pairs}


@dataclass(frozen=True)
class _Folding:
    """How images are divided into folds.

    Attributes:
        seed: of the folds.
        group: the column of the table that names groups, or None.
        table: the table with that column, where it is not the data set's own.
    """

    seed: int
    group: str | None
    table: str | os.PathLike[str] | None


def _rank_one(
    images: ImageSet,
    backbone: Backbone,
    requested: tuple[str, str],
    folding: _Folding,
    cache: str | os.PathLike[str],
    workers: int | None,
    reporter: Reporter,
) -> tuple[RankedBackbone, ClassificationReport, tuple[str, ...]]:
    """Measure one backbone.

    Args:
        images: the data set.
        backbone: the backbone.
        requested: the name and weights that it was requested by.
        folding: how the images are divided into folds.
        cache: the folder of feature files, or its URL.
        workers: see ``extract``.
        reporter: receives the progress of the extraction.

    Returns:
        Its row, the report on the training images that were held out, and the notes of its extraction.
    """
    clock = Clock(reporter)
    extraction = extract(images, backbone, cache=cache, workers=workers, reporter=clock)
    features = with_groups(extraction.load(), folding.group, folding.table)
    task, doubts = task_of(features, ask=False)
    if task != "classification":
        raise AdviceError(
            f"the labels are for {task}, but rank compares heads for classification; give it images with one class each"
        )
    report, neighbours = (_cross_validate(features, kind, folding.seed) for kind in ("logreg", "knn"))
    train = with_splits(features, task).rows("train")
    sample = train[:: math.ceil(len(train) / MAX_SCORED)]
    X, y = np.asarray(features.features[sample]), features.labels[sample]
    row = RankedBackbone(
        *requested,
        accuracy=report.accuracy,
        interval=report.interval,
        log_loss=report.log_loss,
        knn=neighbours.accuracy,
        logme=logme(X, y),
        h_score=h_score(X, y),
        embedding=features.width,
        parameters=_parameters(backbone),
        images_per_second=clock.speed if extraction.computed >= TIMED_IMAGES else _speed(images, backbone, workers),
        features=str(extraction.file),
    )
    return row, report, (*extraction.remarks, *doubts)


def _parameters(backbone: Backbone) -> int:
    """Count the parameters of a network without its classifier."""
    classifier = backbone.network.get_submodule(backbone.classifier)
    total, own = (sum(p.numel() for p in module.parameters()) for module in (backbone.network, classifier))
    return total - own


def _cross_validate(features: FeatureSet, kind: str, seed: int) -> ClassificationReport:
    """Return the report of nested cross-validation on the training rows."""
    try:
        return nested_report(Head(kind, seed=seed, task="classification"), features, coarse=True)
    except HeadError as error:
        raise AdviceError(f"{error}; {features.describe_splits()}") from error


def _speed(images: ImageSet, backbone: Backbone, workers: int | None) -> float:
    """Measure images per second on a sample of the images, whose features are cached already."""
    rows = np.linspace(0, len(images) - 1, min(TIMED_IMAGES, len(images))).astype(int)
    train = np.full(len(rows), "train", dtype=object)
    sample = dataclasses.replace(images.take(rows), splits=train)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        extract(sample, backbone, cache=folder, workers=workers, reporter=clock)
    return clock.speed


def _on_front(row: RankedBackbone, rows: Sequence[RankedBackbone]) -> bool:
    """Return whether no other row is at least as good in both accuracy and speed, and better in one."""
    own = (row.accuracy, row.images_per_second)
    all_rows = [(other.accuracy, other.images_per_second) for other in rows]
    return not any(a >= own[0] and s >= own[1] and (a, s) != own for a, s in all_rows)


def _draw(rows: Sequence[RankedBackbone], picture: Path, subject: str) -> None:
    """Write the figure of accuracy against speed."""
    from featx.report.plots import rank_figure, save_png  # matplotlib, loaded late

    points = [(row.label, row.images_per_second, row.accuracy, *row.interval, row.front) for row in rows]
    save_png(rank_figure(points, subject=subject), picture, RANKING)


def _notes(rows: Sequence[RankedBackbone]) -> list[str]:
    """Name the backbones that cannot be told apart from the best one."""
    best = rows[0]
    close = [row.label for row in rows[1:] if row.accuracy >= best.interval[0]]
    if not close:
        return []
    return [f"within the 95 % interval of {best.label}, so hardly distinguishable from it: {', '.join(close)}"]
