"""``write_predictions``: predictions of any number of images as a table, row by row, that an interrupted run goes on with."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx._version import __version__
from featx.arguments import path_of
from featx.constants import CACHE
from featx.data.file_bytes import NO_KEY
from featx.data.scan_options import ScanOptions
from featx.errors import CacheLockedError, DatasetError, OutputError, SettingsError, system_errors
from featx.features.feature_set import FeatureSet
from featx.features.lock import write_lock
from featx.heads.head import Head
from featx.heads.own_features import Named, in_groups
from featx.inference import HeadOnBackbone, Model, as_model, load_scorer
from featx.io.digests import file_digest
from featx.io.outputs import Output, require_outputs
from featx.io.tables import PARQUET
from featx.progress import shows_progress
from featx.promotion.model import PromotedModel
from featx.reporter import SILENT, Reporter
from featx.streaming import finished
from featx.streaming.computing import FeatureBlocks, HeadEngine, image_blocks, threads
from featx.streaming.inputs import FeatureRows, ListedImages, Part, StreamedImages, parts_of
from featx.streaming.layout import PREDICTIONS, Block, Layout, Scorer, ending_of
from featx.streaming.partial import Partial, State
from featx.text import counted


@dataclass(frozen=True)
class WrittenPredictions:
    """The table that ``write_predictions`` wrote, and what is in it.

    Attributes:
        file: the table.
        images: its rows.
        failed: images that could not be read, with the reason in the column ``error``.
        rejected: images whose prediction is rejected.
        computed: images that went through the network, in all runs that the table took.
        reused: images whose features were known.
        resumed: rows that were there when this run began.
        seconds: that this run took.
        columns: the names of the columns.
        model: the file of the head or model; "" if it was given as an object.
        notes: sentences for the user.
        last_error: the last of the failed images, and why it failed.
    """

    file: Path
    images: int
    failed: int
    rejected: int
    computed: int
    reused: int
    resumed: int
    seconds: float
    columns: tuple[str, ...]
    model: str
    notes: tuple[str, ...]
    last_error: str = ""

    @property
    def images_per_second(self) -> float:
        """The images of this run for each second that it took."""
        return (self.images - self.resumed) / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``featx predict -o FILE --json`` prints."""
        facts = dataclasses.asdict(self)
        del facts["last_error"]
        return {
            **facts,
            "file": str(self.file),
            "columns": list(self.columns),
            "notes": list(self.notes),
            "images_per_second": round(self.images_per_second, 3),
        }

    def __str__(self) -> str:
        if self.resumed == self.images:
            counts = f"{self.failed:,} failed, {self.rejected:,} rejected"
            return f"{counted(self.images, 'image')}: {counts}\npredictions: {self.file}"
        before = f", {self.resumed:,} of them before" if self.resumed else ""
        speed = f" ({self.images_per_second:,.0f} images/s)" if self.images > self.resumed else ""
        return (
            f"{counted(self.images, 'image')}: {self.computed:,} computed, {self.reused:,} reused, {self.failed:,} failed, "
            f"{self.rejected:,} rejected{before}, in {self.seconds:.1f} s{speed}\npredictions: {self.file}"
        )


@system_errors()
@shows_progress("predict", "images")
def write_predictions(
    model: Head | Model | str | os.PathLike[str],
    data: Any,
    out: str | os.PathLike[str],
    *,
    top: int = 1,
    probabilities: bool = False,
    cache: str | os.PathLike[str] | None = CACHE,
    workers: int | None = None,
    options: ScanOptions | None = None,
    restart: bool = False,
    model_file: str | os.PathLike[str] | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
    **fields: Any,
) -> WrittenPredictions:
    """Predict images, and write a row for each to a table as soon as it is predicted.

    The images may be more than memory holds. A run that was interrupted, even killed, leaves its rows in ``<out>.partial``; the
    same call goes on after them, and the table is then byte for byte that of a run which was never interrupted (of Parquet, row
    for row). The table gets its name when it is complete, and an older one stays until then.

    Args:
        model: a head, a model, or a file of either.
        data: what ``predict`` takes, a data set as ``scan_images`` takes it, a feature file, or a list of several of these, in
            which an iterator stands for its images.
        out: a .csv, .jsonl or .parquet file. Its columns are ``path``, ``prediction``, ``probability``, ``error`` and ``key``
            (the content hash of the image), and the further columns of the data; docs/predict.md describes them.
        top: classes with their probabilities in each row: ``prediction_2``, ``probability_2``, ...
        probabilities: with a column ``p_<class>`` for each class or label.
        cache: the folder of feature files, in which a head finds the features of images that were extracted before, by the hash
            of their content. None: nothing is looked up.
        workers: threads that read and decode, and on the CPU run the network too, each on one core; one per core by default.
        options: how data sets are read.
        restart: start anew where an interrupted run with another model, options or images has left rows.
        model_file: the file that ``model`` was loaded from, if it is an object.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress, in images.
        fields: of ``ScanOptions``, as keyword arguments.

    Returns:
        The file, with counts and notes. If the table is complete already, by the same model and of images that have not
        changed, nothing is done.

    Raises:
        DatasetError: there are no images, or the data cannot be read.
        OutputError: the table cannot be written, another file is at its path, or an interrupted run with another model, options
            or images has left rows.
        CacheLockedError: another process writes the same table.
        StaleCacheError: the head's backbone, as installed here, gives other features.

    Example:

        done = featx.write_predictions("models/photos--resnet50--logreg.safetensors", "new/", "new.csv", top=3)
        print(done.images, done.failed, done.file)
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise SettingsError(f"top is {top!r}; expected a whole number above 0")
    path, began = Path(path_of(out, "out")), time.perf_counter()
    name = model_file if model_file is not None else model if isinstance(model, str | os.PathLike) else ""
    require_outputs([Output(path, PREDICTIONS, named=True)], _files([name, data]))
    parts = parts_of(data, ScanOptions.of(options, fields))
    run = _Run.of(model, parts, path, top=top, probabilities=probabilities, reporter=reporter)
    run.facts |= {"model": _digest(model, name), "model_file": os.fspath(name)}
    try:
        with write_lock(path):
            state, resumed = run.written(cache=cache, workers=workers, restart=restart)
    except CacheLockedError as error:
        raise CacheLockedError(str(error).replace("; --wait waits for it, or end that process", "")) from error
    return WrittenPredictions(
        file=path,
        images=state.rows,
        failed=state.failed,
        rejected=state.rejected,
        computed=state.computed,
        reused=state.reused,
        resumed=resumed,
        seconds=time.perf_counter() - began,
        columns=tuple(run.layout.names),
        model=os.fspath(name),
        notes=tuple(dict.fromkeys(run.notes)),
        last_error=state.last_error,
    )


def _with_joined_files(
    parts: Sequence[Part], scorer: Head | PromotedModel
) -> Iterator[ListedImages | StreamedImages | FeatureSet | Named]:
    """The parts, of which consecutive feature files that hold one data set for several backbones are one."""
    for are_files, some in itertools.groupby(parts, _is_file):
        if are_files and isinstance(scorer, Head):
            yield from in_groups(scorer, [str(part.features) for part in some if isinstance(part, FeatureRows)])
            continue
        for part in some:
            yield part.features if isinstance(part, FeatureRows) else part


def _is_file(part: Part) -> bool:
    return isinstance(part, FeatureRows) and not isinstance(part.features, FeatureSet)


def _files(given: Sequence[Any]) -> list[str | os.PathLike[str]]:
    """The paths among arguments, and among the items of lists."""
    each = [item for value in given for item in (value if isinstance(value, list | tuple) else [value])]
    return [item for item in each if isinstance(item, str | os.PathLike) and os.fspath(item)]


def _digest(model: Any, name: str | os.PathLike[str]) -> str:
    """The SHA-256 of the file of a head or model, in hex."""
    if name:
        return file_digest(Path(name))
    with tempfile.TemporaryDirectory() as folder:
        kept = model.head if isinstance(model, HeadOnBackbone) else model
        return file_digest(kept.save(Path(folder, "model.safetensors")))


_DIFFERENCES = {
    "model": "the model is another one",
    "featx": "it was another version of featx",
    "device": "the network ran on another kind of device",
    "top": "--top was different",
    "probabilities": "--probabilities was different",
    "columns": "the data have other columns",
}
"""What can differ between two runs, by the names of the facts."""


@dataclass(eq=False)
class _Run:
    """One table in the making.

    Attributes:
        path: of the table.
        model: what predicts images; None if there are none.
        parts: of the data, those of features opened.
        layout: of the table.
        facts: what must be the same in a run that goes on.
        notes: sentences for the user.
        reporter: gets the progress.
    """

    path: Path
    model: Model | None
    parts: Sequence[ListedImages | StreamedImages | FeatureBlocks]
    layout: Layout
    facts: dict[str, Any]
    notes: list[str]
    reporter: Reporter

    @classmethod
    def of(
        cls, model: Any, parts: Sequence[Part], path: Path, *, top: int, probabilities: bool, reporter: Reporter
    ) -> _Run:
        """Load what the parts need: the network only if there are images, and open the features."""
        has_images = not all(isinstance(part, FeatureRows) for part in parts) or not parts
        loaded = as_model(model) if has_images else None
        scorer = load_scorer(model if loaded is None else loaded)
        opened = [
            FeatureBlocks(part, scorer) if not isinstance(part, ListedImages | StreamedImages) else part
            for part in _with_joined_files(parts, scorer)
        ]
        further = list(dict.fromkeys(name for part in opened for name in part.columns))
        task, classes = (
            (scorer.task_, scorer.names_) if isinstance(scorer, Head) else ("classification", scorer.classes)
        )
        if top > 1 and task != "classification":
            raise SettingsError(f"top has no effect on a {task} head, which predicts no classes in order")
        top = min(top, len(classes))
        predicts = Scorer(task, classes, scorer.decide, scorer.conformal_)
        layout = Layout(ending_of(path), predicts, top, probabilities and task != "regression", further)
        facts = {
            "featx": __version__,
            "device": loaded.device.type if loaded is not None else "",
            "top": top,
            "probabilities": layout.probabilities,
            "columns": layout.names,
        }
        notes = [note for part in opened for note in part.notes]
        return cls(path, loaded, opened, layout, facts, notes, reporter)

    def written(self, *, cache: str | os.PathLike[str] | None, workers: int | None, restart: bool) -> tuple[State, int]:
        """Write the table, under its lock; returns how far it is, and the rows that were there before."""
        partial = Partial(self.path)
        found = None if restart else partial.found()
        digest = hashlib.blake2b(digest_size=16)
        if found:
            starts = self._going_on(partial, *found, digest)
        elif not restart and (done := self._complete()):
            return done, done.rows
        else:
            self._note_replaced()
            starts = [0] * len(self.parts)
        began = found[1].rows if found else 0
        try:
            if found:
                partial.resume(self.facts, found[1])
            else:
                partial.begin(self.facts, self.layout.header)
            self._predict(partial, starts, digest, cache=cache, workers=workers)
            if not partial.state.rows:
                raise DatasetError("no images were given")
            partial.finish(self.layout.finish if self.layout.ending == PARQUET else None)
        finally:
            partial.close()
        finished.remember(self.path, self.facts, partial.state)
        return partial.state, began

    def _predict(
        self,
        partial: Partial,
        starts: Sequence[int],
        digest: Any,
        *,
        cache: str | os.PathLike[str] | None,
        workers: int | None,
    ) -> None:
        """Append the rows that are missing."""
        streamed = any(isinstance(part, StreamedImages) for part in self.parts)
        total = 0 if streamed else sum(len(part) for part in self.parts if not isinstance(part, StreamedImages))
        engine = None
        if isinstance(self.model, HeadOnBackbone):
            left = max(0, total - partial.state.rows)
            engine = HeadEngine(
                self.model, images=left, workers=threads(workers), begun_by=partial.state.engine, reporter=self.reporter
            )
        self.reporter.stage(f"predicting {counted(total, 'image') if total else 'images'}")
        self.reporter.progress(partial.state.rows, total)
        further = self.layout.further
        for part, start in zip(self.parts, starts, strict=True):
            if not isinstance(part, StreamedImages) and start == len(part):
                continue
            if isinstance(part, FeatureBlocks):
                blocks = part.blocks(further, start)
            else:
                assert self.model
                blocks = image_blocks(
                    part, self.model, further, start, engine=engine, cache=cache, workers=workers
                )  # fmt: skip
            with contextlib.closing(blocks):
                for block in blocks:
                    text, rejected = self.layout.text(block)
                    digest.update(b"".join(block.marks))
                    partial.add(text, _after(partial.state, block, rejected, digest.hexdigest(), engine))
                    self.reporter.progress(partial.state.rows, total)
        self.notes += engine.notes if engine else []

    def _going_on(self, partial: Partial, facts: Mapping[str, Any], state: State, digest: Any) -> list[int]:
        """The images of each part that an interrupted run has predicted.

        Raises:
            OutputError: it was another model, other options or other images.
        """
        rows = f"{partial.rows} has {counted(state.rows, 'prediction')} of an interrupted run"
        remedy = "--restart starts anew, and -o names another file"
        why = [_DIFFERENCES[name] for name in _DIFFERENCES if facts.get(name) != self.facts[name]]
        why = why[:-1] if len(why) > 1 and facts.get("columns") != self.facts["columns"] else why  # a consequence
        if why:
            named = facts.get("model_file")
            other = f" ({named})" if facts.get("model") != self.facts["model"] and named else ""
            raise OutputError(f"{rows}{other}, and {', and '.join(why)}; {remedy}")
        starts = self._taken(state.rows, digest)
        if starts is None or digest.hexdigest() != state.inputs:
            raise OutputError(f"{rows}, and the images that they are of are others now, or have changed; {remedy}")
        self.reporter.note(f"going on after {counted(state.rows, 'image')} of an interrupted run")
        return starts

    def _taken(self, rows: int, digest: Any) -> list[int] | None:
        """Take the first images of all parts into a hash; returns how many are of each part, None if there are fewer."""
        starts = []
        for part in self.parts:
            taken = 0
            for mark in itertools.islice(self._marks(part), rows):
                digest.update(mark)
                taken += 1
            starts.append(taken)
            rows -= taken
        return starts if not rows else None

    def _marks(self, part: ListedImages | StreamedImages | FeatureBlocks) -> Iterator[bytes]:
        if isinstance(part, FeatureBlocks):
            return part.marks(self.layout.further)
        return (entry.mark for entry in part.entries(self.layout.further))

    def _complete(self) -> State | None:
        """The state of the table if it is complete, and of the same images; None if there is something to do."""
        known = finished.recall(self.path)
        if known is None or any(known[0].get(name) != self.facts[name] for name in _DIFFERENCES):
            return None
        state, digest = known[1], hashlib.blake2b(digest_size=16)
        if state.unread:  # these may be there by now
            return None
        self.parts = [  # what comes on standard input is needed again if it turns out to be something else
            ListedImages(list(part.images)) if isinstance(part, StreamedImages) else part for part in self.parts
        ]
        images = sum(len(part) for part in self.parts if not isinstance(part, StreamedImages))
        if images != state.rows or self._taken(images, digest) is None or digest.hexdigest() != state.inputs:
            return None
        self.notes.append(f"{self.path} is complete: model, options and images are those that it was written with")
        return state

    def _note_replaced(self) -> None:
        """Tell that there is a table at the path, which is replaced at the end."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        known = finished.recall(self.path)
        of = f" by {known[0].get('model_file') or 'a model'} for {counted(known[1].rows, 'image')}" if known else ""
        self.reporter.note(f"{self.path} has predictions{of}; the new ones take their place when all are there")


def _after(state: State, block: Block, rejected: int, inputs: str, engine: HeadEngine | None) -> State:
    """How far the table is with one more block."""
    failed = [row for row, error in enumerate(block.errors) if error]
    known = sum(known and not error for known, error in zip(block.known, block.errors, strict=True))
    return dataclasses.replace(
        state,
        rows=state.rows + len(block),
        inputs=inputs,
        failed=state.failed + len(failed),
        unread=state.unread + sum(block.keys[row] == NO_KEY for row in failed),
        rejected=state.rejected + rejected,
        computed=state.computed + len(block) - len(failed) - known,
        reused=state.reused + known,
        last_error=f"{block.names[failed[-1]]}: {block.errors[failed[-1]]}" if failed else state.last_error,
        engine=engine.name if engine else state.engine,
    )
