"""Backbones side by side on one data set: what heads on their features are worth, and what they cost."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.advice.transferability import h_score, logme
from featx.backbones.backbone import Backbone, load_backbone
from featx.constants import CACHE, MODELS
from featx.data.image_set import ImageSet
from featx.data.scan import scan_images
from featx.errors import BackboneError, HeadError
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.targets import task_of
from featx.io.atomic import require_writable, write_whole
from featx.metrics.classification import ClassificationReport
from featx.metrics.scores import finite
from featx.reporter import SILENT, Reporter

TIMED = 160
"""Images that are read, decoded and run to measure a speed, where the extraction itself ran fewer."""

MOST_SCORED = 20_000
"""Images that LogME and the H-score look at."""


@dataclass(frozen=True)
class Ranked:
    """One backbone.

    Attributes:
        backbone: its name.
        weights: as they were asked for.
        accuracy: of logistic regression, cross-validated on the training images.
        interval: 95 %, Wilson's.
        log_loss: of the same, in nats.
        knn: accuracy of the k nearest neighbours, k chosen, cross-validated on the same images.
        logme: as ``transferability.logme``.
        h_score: as ``transferability.h_score``.
        embedding: width D of the penultimate layer.
        parameters: of the network without its classifier.
        images_per_second: read, decoded and run here.
        front: no other backbone is both more accurate and faster.
        features: the feature file.
        why: it could not be ranked, else "".
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


@dataclass(frozen=True)
class Ranking:
    """What ``rank`` found.

    Attributes:
        rows: the most accurate backbone first; those that failed last.
        images: training images that judged.
        picture: accuracy against speed.
        notes: what else the user should know.
    """

    rows: tuple[Ranked, ...]
    images: int
    picture: Path
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As ``featx rank --json`` prints it."""
        rows = [{key: finite(value) for key, value in asdict(row).items()} for row in self.rows]
        for row in rows:
            row["interval"] = None if row["accuracy"] is None else list(row["interval"])
        return {"ranking": rows, "images": self.images, "picture": str(self.picture), "notes": list(self.notes)}


def rank(
    data: ImageSet | str | os.PathLike[str],
    backbones: Sequence[str] | Mapping[str, str],
    *,
    device: str = "auto",
    seed: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
    reporter: Reporter = SILENT,
) -> Ranking:
    """Extract the features of each backbone once, and compare what heads on them are worth.

    The training images alone are looked at, by cross-validation: those of test and val have no part in the choice, and judge
    what comes of it.

    Args:
        data: as ``extract``.
        backbones: names, or {name: weights}.
        device: as ``load_backbone``.
        seed: of the folds.
        cache: the folder of feature files.
        workers: as ``extract``.
        out: the picture's file, instead of ``<models>/<data>--rank.png``.
        models: the folder for it.
        reporter: gets a note as each backbone begins, and the progress of its extraction, in images.

    Raises:
        HeadError: labels that are no classes, or no backbone could be ranked.
        OutputError: the picture cannot be written.
    """
    from featx.report.plots import as_png, rank_figure

    images = data if isinstance(data, ImageSet) else scan_images(data)
    picture = Path(out) if out else Path(models) / f"{images.name}--rank.png"
    require_writable(picture)
    wanted = dict(backbones) if isinstance(backbones, Mapping) else dict.fromkeys(backbones, "default")
    rows, counts, remarks = [], set[int](), dict[str, None]()
    for number, (name, weights) in enumerate(wanted.items(), start=1):
        reporter.note(f"{name} ({number} of {len(wanted)})")
        try:
            row, count, said = _ranked(images, name, weights, device, seed, Path(cache), workers, reporter)
            counts.add(count)
            remarks |= dict.fromkeys(said)
        except BackboneError as error:  # the others go on: one of them may lack its weights here
            row = Ranked(name, weights, why=str(error))
        rows.append(row)
    known = [row for row in rows if not row.why]
    if not known:
        raise HeadError(f"no backbone could be ranked: {rows[0].why}" if rows else "no backbone to rank; name some")
    fronts = [dataclasses.replace(row, front=_on_front(row, known)) for row in known]
    ordered = sorted(fronts, key=lambda row: (-row.accuracy, row.log_loss))
    write_whole(
        picture,
        as_png(rank_figure([(r.backbone, r.images_per_second, r.accuracy, *r.interval, r.front) for r in ordered])),
    )
    return Ranking((*ordered, *(row for row in rows if row.why)), max(counts), picture, (*remarks, *_notes(ordered)))


def _ranked(
    images: ImageSet, name: str, weights: str, device: str, seed: int, cache: Path, workers: int | None,
    reporter: Reporter,
) -> tuple[Ranked, int, tuple[str, ...]]:  # fmt: skip
    """One backbone, how many training images judged it, and what the extraction says."""
    backbone = load_backbone(name, weights=weights, device=device)
    clock = _Clock(reporter)
    extraction = extract(images, backbone, cache=cache, workers=workers, reporter=clock)
    features = extraction.load()
    if (task := task_of(features, "auto")[0]) != "classification":
        raise HeadError(f"backbones are ranked by classes; the labels here ask for {task}")
    rows = features.rows("train")
    report, nearest = (_cross_validated(features, kind, seed) for kind in ("logreg", "knn"))
    some = rows[:: math.ceil(len(rows) / MOST_SCORED)]
    X, y = np.asarray(features.features[some]), features.labels[some]
    classifier = backbone.network.get_submodule(backbone.classifier)
    own = sum(p.numel() for p in classifier.parameters())
    found = Ranked(
        name,
        weights,
        accuracy=report.accuracy,
        interval=report.interval,
        log_loss=report.log_loss,
        knn=nearest.accuracy,
        logme=logme(X, y),
        h_score=h_score(X, y),
        embedding=features.width,
        parameters=sum(p.numel() for p in backbone.network.parameters()) - own,
        images_per_second=clock.speed if extraction.computed >= TIMED else _speed(images, backbone, workers),
        features=str(extraction.file),
    )
    return found, report.n, extraction.remarks


def _cross_validated(features: FeatureSet, kind: str, seed: int) -> ClassificationReport:
    head = Head(kind, seed=seed).fit(features, cross_validate=True)
    if not isinstance(head.held_out_, ClassificationReport):
        raise HeadError(f"no class has two training images that could be told apart; {features.where()}")
    return head.held_out_


class _Clock(Reporter):
    """Times an extraction from its first images on; before them an engine is made and proved."""

    def __init__(self, reporter: Reporter = SILENT) -> None:
        self.reporter, self.marks = reporter, list[tuple[float, int]]()

    def progress(self, done: int, total: int, detail: object = "") -> None:
        self.marks.append((time.perf_counter(), done))
        self.reporter.progress(done, total, detail)

    def note(self, sentence: str) -> None:
        self.reporter.note(sentence)

    @property
    def speed(self) -> float:
        """Images per second between the first and the last call."""
        (begin, first), (end, last) = self.marks[0], self.marks[-1]
        return (last - first) / max(end - begin, 1e-9)


def _speed(images: ImageSet, backbone: Backbone, workers: int | None) -> float:
    """Images per second, on some of the images, whose features are there already."""
    rows = np.linspace(0, len(images) - 1, min(TIMED, len(images))).astype(int)
    some = dataclasses.replace(
        images, paths=images.paths[rows], labels=images.labels[rows], splits=np.full(len(rows), "train", dtype=object)
    )
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        extract(some, backbone, cache=folder, workers=workers, reporter=clock)
    return clock.speed


def _on_front(row: Ranked, others: Sequence[Ranked]) -> bool:
    mine = (row.accuracy, row.images_per_second)
    theirs = [(other.accuracy, other.images_per_second) for other in others]
    return not any(a >= mine[0] and s >= mine[1] and (a, s) != mine for a, s in theirs)


def _notes(rows: Sequence[Ranked]) -> Iterator[str]:
    best = rows[0]
    close = [row.backbone for row in rows[1:] if row.accuracy >= best.interval[0]]
    if close:
        yield f"within the interval of {best.backbone}, so hardly told apart from it: {', '.join(close)}"
