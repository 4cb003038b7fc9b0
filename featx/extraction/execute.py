"""Carrying out a plan: rows are taken over from other files, and what is left goes through the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from featx.data.store import ImageFile
from featx.extraction.cluster.computation import RayComputation
from featx.extraction.committer import Committer
from featx.extraction.computation import Computation, Setting
from featx.extraction.crew import Crew
from featx.extraction.plan import Plan, Work
from featx.extraction.workforce import Workforce
from featx.features.feature_file import DONE, FeatureFile
from featx.reporter import Reporter
from featx.text import counted, size_text


@dataclass(frozen=True)
class Outcome:
    """A complete feature file, and how it came about.

    Attributes:
        file: the file.
        computed: images that went through the network.
        reused: images whose features were copied, or were there already.
        engine: the engine that ran the network; "" if nothing was computed.
        notes: sentences for the user.
        stages: the images per second of each stage, on a cluster; see ``Extraction``.
    """

    file: FeatureFile
    computed: int
    reused: int
    engine: str
    notes: tuple[str, ...]
    stages: dict[str, float] = field(default_factory=dict)


def execute(plan: Plan, reporter: Reporter) -> Outcome:
    """Write the feature file of a plan. Call it under the same lock as ``plan``.

    Args:
        plan: what is known and what is to do.
        reporter: gets the progress, in images, and a note before engines are measured.

    Raises:
        DatasetError: no image has features, or the run is strict and one failed.
        EngineError: the engine cannot run the network.
        OutputError: the file cannot be written.
    """
    committer = Committer(plan)
    request = plan.inventory.request
    setting = Setting(
        backbone=plan.backbone,
        known=plan.known,
        compute=request.compute,
        batch_size=request.batch_size,
        workers=request.workers,
        max_pixels=request.max_pixels,
        begun_by=committer.engine,
    )
    computation = Computation(setting, committer, reporter, len(plan.keys))
    others: type[Workforce] = RayComputation if request.ray else Crew
    with others(plan, committer, setting, reporter) as crew:
        rows = _take_over(plan, committer, crew, reporter)
        computer = _Computer(plan, committer, computation, crew)
        while len(rows):
            rows = computer.run(rows)
    file = committer.finish()
    return Outcome(
        file=file,
        computed=committer.computed,
        reused=committer.reused,
        engine=computer.engine,
        notes=(*plan.notes, *computer.notes, *crew.notes, *computation.notes),
        stages=crew.stages,
    )


def _take_over(plan: Plan, committer: Committer, crew: Workforce, reporter: Reporter) -> np.ndarray:
    """Fill every row whose image is known, and publish the file; returns the rows that are left, ascending.

    Whatever would be refused later is refused before the file is published.
    """
    try:
        rows = committer.take_over(np.arange(len(plan.inventory.images)))
        unread = rows[~committer.keys[rows].any(axis=1)]
        # If the new file replaces an unfinished one with rows of images that are not recognised, all of them are read, so that
        # none of these is lost. Otherwise only those that may have features in some views: all others are read once, when
        # they are computed.
        if committer.resumes or not plan.unfinished or _has_all_of(plan.unfinished, committer, rows):
            unread = unread[plan.known.may_lack_some(plan.inventory.sizes[unread])]
        if len(unread) and not plan.inventory.request.rehash:
            for image in plan.inventory.read(unread):
                committer.observe(image)
            rows = committer.take_over(rows)
        if len(rows):
            reporter.stage(_budget(plan, rows, unread=~committer.keys[rows].any(axis=1)))
            crew.prepare(rows)
        committer.publish()
    except BaseException:
        committer.discard()
        raise
    return rows


def _budget(plan: Plan, rows: np.ndarray, *, unread: np.ndarray) -> str:
    """What is about to be computed, and the disk that the features take, in words."""
    backbone, total, left = plan.backbone, len(plan.keys), len(rows)
    each = sum(backbone.layers.values()) * np.dtype(backbone.dtype).itemsize
    which = counted(total, "image") if left == total else f"{left:,} of {counted(total, 'image')}"
    may_be_known = plan.known.has_sizes(plan.inventory.sizes[rows[unread]])
    work = f"reading {which}, and computing those that are new" if may_be_known else f"computing {which}"
    return f"{work}; features take {size_text(each)} each, {size_text(each * total)} in all"


def _has_all_of(unfinished: FeatureFile, committer: Committer, left: np.ndarray) -> bool:
    """Whether the features of all images that an interrupted run has done are in the new file, in which some rows are left."""
    done = unfinished.keys[unfinished.status == DONE]
    return {key.tobytes() for key in done} <= {key.tobytes() for key in np.delete(committer.keys, left, axis=0)}


class _Computer:
    """Computes the rows that are left: on a cluster or several devices if they are asked for and pay, or in this process.

    Attributes:
        notes: sentences for the user.
    """

    def __init__(self, plan: Plan, committer: Committer, computation: Computation, crew: Workforce) -> None:
        self.notes: list[str] = []
        self._plan, self._committer, self._computation, self._crew = plan, committer, computation, crew
        self._is_first = True

    @property
    def engine(self) -> str:
        """The name of the engine; "" if no image has needed one."""
        own = self._computation.engine
        return own.name if own else self._crew.engine

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Compute rows; returns those to compute again, ascending, because what was known of them was damaged."""
        again = list[int]()
        for work in self._plan.work(rows, self._committer.keys[rows]):
            total = len(self._plan.backbone.views)
            if known := total - len(work.views):
                self.notes.append(
                    f"{counted(len(work.rows), 'image')} had features in {known} of {total} views; only the other views "
                    "were computed"
                )
            # Other processes do not know which rows turned out to be damaged, so this one computes them again.
            if self._is_first and self._crew.pays(work):
                again += self._crew.run(work, engine=self.engine)
                self._computation.setting = self._crew.setting
            else:
                self._computation.progress.start(self._committer.stored + self._committer.failed)
                again += self._computation.run(work, self._files(work))
        self._is_first = False
        return np.array(sorted(again), dtype=np.int64)

    def _files(self, work: Work) -> Iterator[tuple[int, ImageFile]]:
        images = self._plan.inventory.images
        return ((row, images.file(row)) for row in images.order(work.rows).tolist())
