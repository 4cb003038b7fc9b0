"""Shards: feature files of the parts of one data set, made by several processes or machines, and merged into one file.

A shard is a feature file like any other, whose ``dataset`` tells which part of what it holds (``featx.data.shard``). So what
holds for a feature file holds for it: a killed run goes on where it stopped, rows have checksums, and features of other
identities are not mixed. Merging copies rows; it opens no image and needs no network.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.shard import Shard
from featx.data.splits import hash_splits
from featx.errors import (
    CacheLockedError,
    CacheMissError,
    CorruptFileError,
    DatasetError,
    OutputError,
    SettingsError,
    UnreadableFileError,
    system_errors,
)
from featx.features.feature_file import DONE, FAILED, FeatureFile, ImageTable
from featx.features.folder import SHARDS, feature_file_path, files_in, set_aside
from featx.features.header import partial_path
from featx.features.lock import write_lock
from featx.features.writer import FeatureFileWriter
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.text import counted, listed

_BLOCK = 1 << 25
"""Bytes of features that are copied at once."""


@dataclass(frozen=True)
class MergedShards:
    """What merging the shards of one data set did.

    Attributes:
        file: the feature file; None if none was written.
        folder: the folder of the shards.
        dataset: the name of the data set.
        backbone: the name of the backbone.
        images: images of the data set.
        merged: images that the file has rows of.
        failed: of these, images that have no features, because they could not be read.
        of: how many shards there are to be.
        missing: what is not there yet, one sentence per shard.
        removed: shards that were removed, since the file has all their rows.
        seconds: wall time.
        notes: what else the user should know, one sentence each.
    """

    file: Path | None
    folder: Path
    dataset: str
    backbone: str
    images: int
    merged: int
    failed: int
    of: int
    missing: tuple[str, ...] = ()
    removed: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx cache merge --json`` prints for it."""
        return {
            "file": str(self.file) if self.file else None,
            "folder": str(self.folder),
            "dataset": self.dataset,
            "backbone": self.backbone,
            "images": self.images,
            "merged": self.merged,
            "failed": self.failed,
            "shards": self.of,
            "missing": list(self.missing),
            "removed": self.removed,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("merge", "images")
def merge_shards(
    folder: str | Path,
    *,
    strict: bool = False,
    keep: bool = False,
    wait: bool = False,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> MergedShards:
    """Merge the shards of a data set, which ``extract(..., shard="3/16")`` writes, into its feature file.

    The file is, byte for byte, the one that a single run on the whole data set writes. Merging may be repeated at any time,
    while shards are being written too: then the file has the images that are done, and the next merge replaces it.

    Args:
        folder: the folder of the shards, ``<dataset>--<backbone>--<hash>.shards`` in the folder of feature files.
        strict: write nothing as long as an image is missing, and raise.
        keep: keep the shards when the file has all their rows.
        wait: wait while another process writes the same file, rather than raise.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: gets the progress, in images.

    Returns:
        What the file has, and what is missing.

    Raises:
        CacheMissError: there are no shards.
        DatasetError: no image has features; or the merge is strict, and images are missing.
        CacheLockedError: another process is writing the same file.
        OutputError: the file cannot be written.

    Example:

        for number in range(1, 5):  # on as many machines
            featx.extract("photos/", "resnet50", cache="cache", shard=f"{number}/4")
        print(featx.merge_shards("cache/photos--resnet50--1e21e4f2.shards").file)
    """
    started = time.perf_counter()
    shards = _read_shards(Path(folder))
    while True:
        rows = shards.rows()
        missing = tuple(shards.missing(rows))
        if missing and strict:
            raise DatasetError(f"{folder} is not complete: {listed(missing, most=3)}")
        try:
            file, notes = _write(shards, rows, whole=not missing, wait=wait, reporter=reporter)
            break
        except _DamagedError:
            continue  # without those rows
    removed = _remove(shards) if file and not missing and not keep else 0
    first = shards.files[0]
    return MergedShards(
        file=file,
        folder=shards.folder,
        dataset=first.dataset["name"],
        backbone=first.backbone["name"],
        images=shards.images,
        merged=len(rows),
        failed=int((rows.status == FAILED).sum()),
        of=shards.of,
        missing=missing,
        removed=removed,
        seconds=time.perf_counter() - started,
        notes=(*shards.notes, *notes),
    )


def shard_folders(cache: Path) -> list[Path]:
    """The folders of shards in a folder of feature files.

    Raises:
        CacheMissError: there is no such folder.
    """
    if not cache.is_dir():
        raise CacheMissError(f"there is no folder {cache}; featx extract makes one")
    return sorted(path for path in cache.iterdir() if path.suffix == SHARDS and path.is_dir())


class _DamagedError(Exception):
    """Rows of shards do not match their checksums."""


@dataclass(frozen=True)
class _Rows:
    """Rows of shards, sorted by path.

    Attributes:
        source: (M,) the number of the file in ``_Shards.files``.
        row: (M,) the row in it.
        paths, keys, status: of the images.
    """

    source: np.ndarray
    row: np.ndarray
    paths: np.ndarray
    keys: np.ndarray
    status: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


@dataclass
class _Shards:
    """The shards of one state of one data set.

    Attributes:
        folder: where they are.
        files: their feature files, those that are complete first.
        notes: what is wrong with others in the folder.
        damaged: rows that do not match their checksums, by the number of the file.
    """

    folder: Path
    files: list[FeatureFile]
    notes: list[str]
    damaged: dict[int, set[int]] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Images of the whole data set."""
        return int(self.files[0].dataset["shard"]["images"])

    @property
    def of(self) -> int:
        """How many shards there are to be."""
        return int(self.files[0].dataset["shard"]["of"])

    @cached_property
    def layers(self) -> list[str]:
        """The layers of each file."""
        return list(self.files[0].layers)

    def number(self, source: int) -> int:
        """The number of the shard that a file is."""
        return int(self.files[source].dataset["shard"]["number"])

    def rows(self) -> _Rows:
        """The rows to merge: of several of one image those that have features, and of these the first file's."""
        found: list[tuple[int, np.ndarray]] = []
        for state in (DONE, FAILED):
            for number, file in enumerate(self.files):
                rows = np.flatnonzero(file.status == state)
                if not file.complete:  # no checksum covers the reason of a failure
                    rows = rows[file.vouched(rows)] if state == DONE else rows[:0]
                found.append((number, np.setdiff1d(rows, list(self.damaged.get(number, ())))))
        paths = np.concatenate([self.files[number].images.paths[rows] for number, rows in found])
        source = np.repeat([number for number, _ in found], [len(rows) for _, rows in found])
        row = np.concatenate([rows for _, rows in found])
        paths, first = np.unique(paths, return_index=True)
        taken = source[first], row[first]
        return _Rows(*taken, paths, self.column(*taken, "keys"), self.column(*taken, "status"))

    def column(self, source: np.ndarray, row: np.ndarray, name: str) -> np.ndarray:
        """The values of a table, an attribute of ``FeatureFile``, in these rows of these files."""

        def table(file: FeatureFile) -> np.ndarray:
            found: np.ndarray = attrgetter(name)(file)
            return found

        tables = list(map(table, self.files))
        out = np.zeros((len(row), *tables[0].shape[1:]), dtype=np.result_type(*tables))
        for number, values in enumerate(tables):
            some = source == number
            out[some] = values[row[some]]
        return out

    def missing(self, rows: _Rows) -> Iterator[str]:
        """What is not there yet, one sentence per shard."""
        there = Counter(map(self.number, rows.source.tolist()))
        known = set(map(self.number, range(len(self.files))))
        for number in range(1, self.of + 1):
            expected = len(Shard(number, self.of).rows(self.images))
            if there[number] >= expected:
                continue
            state = f"{there[number]:,} of {expected:,} images" if number in known else "not begun"
            yield f"shard {number}/{self.of}: {state}"


def _read_shards(folder: Path) -> _Shards:
    """Open the shards in a folder; of several states of the data set, those of the newest one count.

    Raises:
        CacheMissError: there are none.
    """
    states: dict[tuple[Any, ...], list[FeatureFile]] = {}
    notes: list[str] = []
    if not folder.is_dir():
        raise CacheMissError(f"there is no folder {folder}; featx extract DATA --shard K/N makes one")
    for path in files_in(folder):
        if path.name.endswith(".new"):
            continue
        try:
            file = FeatureFile(path, allow_partial=True)
        except (CacheMissError, CorruptFileError, UnreadableFileError) as error:
            notes.append(f"{error}. It is not merged; the same featx extract makes it again")
            continue
        shard = _description(file)
        if shard is None:
            notes.append(f"{path} is a feature file, but no shard. It is not merged")
            continue
        file.release()
        described = {**file.dataset, "shard": {**shard, "number": 0}}
        states.setdefault((file.identity, repr(sorted(described.items()))), []).append(file)
    if not states:
        raise CacheMissError(f"there are no shards in {folder}" + (f": {notes[0]}" if notes else ""))
    newest, *others = sorted(states.values(), key=_newest, reverse=True)
    for files in others:
        names = listed([file.path.name for file in files], most=3)
        what = "other features" if files[0].identity != newest[0].identity else "an earlier state of the data set"
        notes.append(
            f"{counted(len(files), 'file')} of {what} {'is' if len(files) == 1 else 'are'} not merged: {names}"
        )
    newest.sort(key=lambda file: (not file.complete, file.path.name))
    return _Shards(folder, newest, notes)


def _newest(files: Sequence[FeatureFile]) -> float:
    times = []
    for file in files:
        with contextlib.suppress(OSError):
            times.append(file.path.stat().st_mtime)
    return max(times, default=0.0)


def _description(file: FeatureFile) -> dict[str, Any] | None:
    """What a feature file tells of the shard that it is; None if it is none."""
    shard = file.dataset.get("shard")
    if not isinstance(shard, dict):
        return None
    number, of, images = (shard.get(name) for name in ("number", "of", "images"))
    if type(number) is not int or type(of) is not int or type(images) is not int:
        return None
    with contextlib.suppress(SettingsError):
        return shard if len(Shard(number, of).rows(images)) == len(file) else None
    return None


def _write(
    shards: _Shards, rows: _Rows, *, whole: bool, wait: bool, reporter: Reporter
) -> tuple[Path | None, tuple[str, ...]]:
    """Write the feature file of these rows; returns its path, or None if an earlier file must stay, and notes.

    Raises:
        _DamagedError: rows do not match their checksums; ``shards.damaged`` has them.
    """
    first = shards.files[0]
    if not (rows.status == DONE).any():
        raise DatasetError(f"no image in the shards in {shards.folder} has features")
    path, note = feature_file_path(
        shards.folder.parent,
        dataset=first.dataset["name"],
        root=first.dataset["root"],
        backbone=first.backbone["name"],
        identities=first.identities,
    )
    notes = [note] if note else []

    def note_wait(holder: str) -> None:
        reporter.note(f"waiting for {holder}, which writes the same file")

    with write_lock(path, wait=wait, waiting=note_wait):
        if not whole and _has_others(path, rows):
            return None, (
                *notes,
                f"{path} has images that are not merged yet, so it stays as it is until all are there",
            )
        unfinished = partial_path(path)
        if _has_others(unfinished, rows):
            notes.append(f"an interrupted run left other rows, now stored in {set_aside(unfinished, 'other')}")
        merging = _Merging(shards, rows, path)
        merging.copy(reporter)
        return path, tuple(notes)


def _has_others(path: Path, rows: _Rows) -> bool:
    """Whether a feature file, complete or not, has features of images that are not among these rows."""
    try:
        file = FeatureFile(path, allow_partial=True)
    except CacheMissError:
        return False
    except CorruptFileError:
        return path.name.endswith(".partial")  # it is set aside
    have = set(map(bytes, rows.keys[rows.status == DONE]))
    return any(bytes(key) not in have for key in file.keys[file.status == DONE])


class _Merging:
    """Writes one feature file from the rows of shards."""

    def __init__(self, shards: _Shards, rows: _Rows, path: Path) -> None:
        self._shards, self._rows = shards, rows
        first = shards.files[0]
        self._labels = shards.column(rows.source, rows.row, "images.labels")
        self._is_hashed = first.dataset["splits"] == "hash"
        splits = shards.column(rows.source, rows.row, "images.splits")
        self._writer = FeatureFileWriter(
            path,
            images=ImageTable(
                paths=rows.paths,
                labels=self._labels,
                splits=np.full(len(rows), b"", dtype="S1") if self._is_hashed else splits,
                sizes=shards.column(rows.source, rows.row, "images.sizes"),
                mtimes=shards.column(rows.source, rows.row, "images.mtimes"),
            ),
            classes=first.classes,
            layers={name: (layer.dim, layer.identity) for name, layer in first.layers.items()},
            dtype=next(iter(first.layers.values())).dtype.name,
            identity=first.identity,
            backbone=first.backbone,
            dataset={name: value for name, value in first.dataset.items() if name != "shard"},
            columns=self._further_columns(),
        )

    def _further_columns(self) -> dict[str, np.ndarray]:
        source, row = self._rows.source, self._rows.row
        found = {name: np.empty(len(row), dtype=object) for name in self._shards.files[0].column_names}
        for number, file in enumerate(self._shards.files):
            some = source == number
            for name, cells in found.items():
                cells[some] = file.column(name)[row[some]]
        return found

    def copy(self, reporter: Reporter) -> FeatureFile:
        """Copy all rows, and complete the file."""
        rows, writer = self._rows, self._writer
        try:
            kept = np.zeros(len(rows), dtype=bool)
            if writer.resumed:
                kept = writer.kept & (writer.resumed.keys == rows.keys).all(axis=1)
            self._copy_features(np.flatnonzero((rows.status == DONE) & ~kept), reporter)
        except _DamagedError:
            writer.discard()
            raise
        writer.publish()
        for row in np.flatnonzero(rows.status == FAILED).tolist():
            file = self._shards.files[int(rows.source[row])]
            writer.fail(row, rows.keys[row].tobytes(), file.error(int(rows.row[row])))
        if self._is_hashed:
            splits = np.full(len(rows), "", dtype=object)
            readable = rows.keys.any(axis=1)
            splits[readable] = hash_splits(rows.keys[readable], self._labels[readable])
            writer.set_splits(splits.tolist())
        return writer.finish()

    def _copy_features(self, todo: np.ndarray, reporter: Reporter) -> None:
        rows, shards = self._rows, self._shards
        width = sum(layer.dim * layer.dtype.itemsize for layer in shards.files[0].layers.values())
        step = max(1, _BLOCK // width)
        for at in range(0, len(todo), step):
            some = todo[at : at + step]
            for number in np.unique(rows.source[some]).tolist():
                file, mine = shards.files[number], some[rows.source[some] == number]
                theirs = rows.row[mine]
                with file.needed():
                    sound = file.checksums_match_in_all(shards.layers, theirs)
                    if not sound.all():
                        self._report_damage(number, theirs[~sound])
                    features = {layer: file.features(layer)[theirs] for layer in shards.layers}
                self._writer.write(mine, rows.keys[mine], features)
            reporter.progress(min(at + step, len(todo)), len(todo))

    def _report_damage(self, number: int, rows: np.ndarray) -> None:
        file = self._shards.files[number]
        self._shards.damaged.setdefault(number, set()).update(rows.tolist())
        self._shards.notes.append(
            f"{counted(len(rows), 'row')} of {file.path} {'does' if len(rows) == 1 else 'do'} not match the checksums, and "
            "count as missing; the same featx extract with --rehash makes them again"
        )
        raise _DamagedError


def _remove(shards: _Shards) -> int:
    """Remove shards whose rows are all in the file, unless a process is writing them; returns how many were removed."""
    removed = 0
    for file in shards.files:
        path = file.path
        final = path.with_name(path.name.removesuffix(".partial"))
        with contextlib.suppress(CacheLockedError, OSError, OutputError), write_lock(final):
            if FeatureFile(path, allow_partial=True).digest == file.digest:
                path.unlink()
                removed += 1
    with contextlib.suppress(OSError):
        for lock in shards.folder.glob(".*.lock"):
            lock.unlink()
        shards.folder.rmdir()
    return removed
