"""Shards: feature files of the parts of one data set, made by several processes or machines, and merged into one file or a set.

A shard is a feature file like any other, whose ``dataset`` tells which part of what it holds (``featx.data.shard``). So what
holds for a feature file holds for it: a killed run goes on where it stopped, rows have checksums, and features of other
identities are not mixed. Merging copies rows; it opens no image and needs no network.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.splits import hash_splits_of_readable
from featx.errors import (
    CacheLockedError,
    CacheMissError,
    CorruptFileError,
    DatasetError,
    OutputError,
    system_errors,
)
from featx.features.feature_file import DONE, FAILED, FeatureFile, ImageTable, are_among, read_verified
from featx.features.folder import (
    SHARDS,
    feature_file_path,
    files_in,
    final_path,
    set_aside,
    set_folder,
    tagged_name,
)
from featx.features.header import FeatureFileHeader, partial_path
from featx.features.lock import note_waits, write_lock
from featx.features.manifest import SETS, require_split_rows
from featx.features.set_update import SetUpdate
from featx.features.shard_files import ShardRows, Shards, by_source, is_newer, narrow, read_shards
from featx.features.writer import FeatureFileWriter
from featx.io.file_kinds import MANIFEST
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.text import counted, listed, portable

_SPAN = 1 << 25
"""Bytes of consecutive features of the file whose shards are read one after the other."""

_BLOCK = 1 << 22
"""The most bytes of features that are read at once."""

_READERS, _AHEAD = 2, 8
"""Threads that read shards, and blocks that they are ahead of the writer."""

_MOST_ATTEMPTS = 20
"""How often shards are read again that others complete meanwhile, besides once for each."""

_Block = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]
"""What was read: (R,) bool, (R, D) of each layer, (R,) uint32 of each layer."""


@dataclass(frozen=True)
class MergedShards:
    """What merging the shards of one data set did.

    Attributes:
        file: the feature file, or the folder of the set of them; None if none was written.
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
    split_rows: int | None = None,
    strict: bool = False,
    keep: bool = False,
    wait: bool = False,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> MergedShards:
    """Merge the shards of a data set, which ``extract(..., shard="3/16")`` writes, into its feature file.

    The file is, byte for byte, the one that a single run on the whole data set writes. Merging may be repeated at any time,
    while shards are being written too: then the file has the images that are done, and the next merge replaces it. Shards that
    were extracted with ``split_rows`` become a set of files in the same way; a file whose splits change after an earlier merge
    gets another name, and the same contents.

    Args:
        folder: the folder of the shards, ``<dataset>--<backbone>--<hash>.shards`` in the folder of feature files.
        split_rows: make a set of files of at most as many images each; by default as the shards were extracted.
        strict: write nothing as long as an image is missing, and raise.
        keep: keep the shards when the file has all their rows.
        wait: wait while another process writes the same file, rather than raise.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: gets the progress, in images.

    Returns:
        What the file has, and what is missing.

    Raises:
        SettingsError: ``split_rows`` is no number of images.
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
    if split_rows is not None:
        require_split_rows(split_rows)
    shards = read_shards(Path(folder))
    for attempt in itertools.count(1):
        try:
            rows = shards.rows()
            missing = tuple(shards.missing(rows))
            if missing and strict:
                raise DatasetError(f"{folder} is not complete: {listed(missing, most=3)}")
            file, notes = _write(shards, rows, split_rows or shards.split_rows, wait=wait, reporter=reporter)
            break
        except _DamagedError:
            continue  # without those rows
        except CacheMissError:  # a process has completed, replaced or removed a shard meanwhile
            if attempt > _MOST_ATTEMPTS + shards.of:
                raise
            shards = read_shards(Path(folder))
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
        there = f"{cache} is no folder" if cache.exists() else f"there is no folder {cache}"
        raise CacheMissError(f"{there}; expected one that featx extract DATA --shard K/N has written into")
    return sorted(path for path in cache.iterdir() if path.suffix == SHARDS and path.is_dir())


class _DamagedError(Exception):
    """Rows of shards do not match their checksums."""


def _write(
    shards: Shards, rows: ShardRows, split_rows: int | None, *, wait: bool, reporter: Reporter
) -> tuple[Path | None, tuple[str, ...]]:
    """Write the feature file of these rows, or the set; returns its path, or None if an earlier one must stay, and notes.

    Raises:
        _DamagedError: rows do not match their checksums; ``shards.damaged`` has them.
        CacheMissError: a shard is no longer there, or the file gets another name, so that the shards are to be read again.
    """
    if not (rows.status == DONE).any():
        raise DatasetError(f"no image in the shards in {shards.folder} has features")
    path, notes = _target(shards, is_set=split_rows is not None)
    missing = shards.images - len(rows)
    waiting = note_waits(reporter, "set" if split_rows else "file")
    with write_lock(path / MANIFEST if split_rows else path, wait=wait, waiting=waiting):
        shards.require_unchanged()
        if _target(shards, is_set=split_rows is not None)[0] != path:
            raise CacheMissError(f"{path} has become the file of another extraction meanwhile")
        if is_newer(path, shards, rows):
            stays = f"{path} is newer than the shards, and has other images or labels, so it stays as it is"
            return None, (*notes, f"{stays}; featx extract brings it up to date")
        update = SetUpdate(path, split_rows) if split_rows else None
        if missing and (update.is_whole if update else _has_others(path, rows)):
            stays = f"{path} has images that are not merged yet, so it stays as it is until all are there"
            return None, (*notes, stays)
        merging = _Merging(shards, rows, reporter)
        if update:
            notes += merging.write_set(update)
        else:
            notes += _set_others_aside(path, rows)
            merging.write(slice(0, len(rows)), path)
        return path, tuple(notes)


def _target(shards: Shards, *, is_set: bool) -> tuple[Path, list[str]]:
    """The path of the feature file, or of the set, that the shards become, and notes.

    One with further layers, which the shards lack, keeps its name.
    """
    first, folder = shards.files[0], shards.folder.parent
    dataset, root, backbone, identities = first.dataset["name"], first.root, first.backbone["name"], first.identities
    described = (dataset, portable(root), backbone, identities)
    if is_set:
        path, note = set_folder(folder, *described), ""
        present = files_in(path)[:1]
    else:
        path, note = feature_file_path(
            folder, dataset=dataset, root=portable(root), backbone=backbone, identities=identities
        )
        present = [path]
    notes = [note] if note else []
    for file in present:
        with contextlib.suppress(CacheMissError, CorruptFileError):
            if len(FeatureFileHeader(file).layers) > len(first.layers):
                notes.append(f"{path} has layers that the shards lack, so it stays as it is")
                tagged = folder / tagged_name(*described)
                path = tagged.with_suffix(SETS) if is_set else tagged
    return path, notes


def _set_others_aside(path: Path, rows: ShardRows) -> list[str]:
    """Rename what an interrupted run left at a path, if it has rows that are not merged; returns notes."""
    unfinished = partial_path(path)
    if not _has_others(unfinished, rows):
        return []
    return [f"an interrupted run left other rows, now stored in {set_aside(unfinished, 'other')}"]


def _has_others(path: Path, rows: ShardRows) -> bool:
    """Whether a feature file, complete or not, has features of images that are not among these rows."""
    try:
        file = FeatureFile(path, allow_partial=True)
    except CacheMissError:
        return False
    except CorruptFileError:
        return path.name.endswith(".partial")  # it is set aside
    return not are_among(file.keys[file.status == DONE], rows.keys[rows.status == DONE])


class _Merging:
    """Writes feature files from the rows of shards.

    Args:
        shards: the shards.
        rows: of them.
        reporter: gets the progress, in images of all files.
    """

    def __init__(self, shards: Shards, rows: ShardRows, reporter: Reporter) -> None:
        self._shards, self._rows, self._reporter = shards, rows, reporter
        self._locks = [threading.Lock() for _ in shards.files]  # since a file is opened and closed again for each block
        first = shards.files[0]
        self._labels, self._sizes, self._mtimes = (
            shards.column(rows.source, rows.row, f"images.{name}") for name in ("labels", "sizes", "mtimes")
        )
        self._is_hashed = first.dataset["splits"] == "hash"
        if self._is_hashed:
            self._splits = hash_splits_of_readable(rows.keys, self._labels)
        else:
            self._splits = shards.column(rows.source, rows.row, "images.splits")
        self._dataset = shards.dataset
        self._columns = self._further_columns()
        self._done, self._total = 0, int((rows.status == DONE).sum())

    def _further_columns(self) -> dict[str, np.ndarray]:
        row = self._rows.row
        found = {name: np.empty(len(row), dtype=object) for name in self._shards.files[0].column_names}
        for number, some in self._rows.by_source:
            for name, cells in found.items():
                cells[some] = self._shards.files[number].column(name)[row[some]]
        return found

    def write_set(self, update: SetUpdate) -> list[str]:
        """Write the files of a set that are not there yet, and its manifest, under the lock of the set; returns notes."""
        rows, missing = self._rows, self._shards.images - len(self._rows)
        if missing:
            ranges = update.ranges_so_far(self._shards.positions(rows), self._shards.images)
        else:
            ranges = update.ranges(rows.paths)
        files, notes = list[FeatureFile](), list[str]()
        for each in ranges:
            part = slice(*each.rows)
            names = filter(None, dict.fromkeys((each.present, each.successor)))
            file = next(filter(None, (self._written(part, update.folder / name) for name in names)), None)
            if file is None:
                path = update.folder / each.successor
                with write_lock(path, wait=True):
                    notes += _set_others_aside(path, rows)
                    file = self.write(part, path)
            file.release()
            files.append(file)
        update.finish(files, missing)
        return notes

    def write(self, part: slice, path: Path) -> FeatureFile:
        """Write some of the rows to a file, under its lock.

        Raises:
            _DamagedError: a row of a shard does not match its checksum.
        """
        rows, first = self._rows.take(part), self._shards.files[0]
        splits = np.full(len(rows), b"", dtype="S1") if self._is_hashed else narrow(self._splits[part])
        writer = FeatureFileWriter(
            path,
            images=ImageTable(
                paths=narrow(rows.paths),
                labels=self._labels[part],
                splits=splits,
                sizes=self._sizes[part],
                mtimes=self._mtimes[part],
            ),
            classes=first.classes,
            layers={name: (layer.dim, layer.identity) for name, layer in first.layers.items()},
            dtype=next(iter(first.layers.values())).dtype.name,
            identity=first.identity,
            backbone=first.backbone,
            dataset=self._dataset,
            columns={name: cells[part] for name, cells in self._columns.items()},
        )
        try:
            kept = np.zeros(len(rows), dtype=bool)
            if writer.resumed:
                kept = writer.kept & (writer.resumed.keys == rows.keys).all(axis=1)
            self._done += int(np.count_nonzero(kept))
            self._copy_features(writer, rows, np.flatnonzero((rows.status == DONE) & ~kept))
        except BaseException:
            writer.discard()
            raise
        writer.publish()
        for row in np.flatnonzero(rows.status == FAILED).tolist():
            file = self._shards.files[int(rows.source[row])]
            writer.fail(row, rows.keys[row].tobytes(), file.error(int(rows.row[row])))
        if self._is_hashed:
            writer.set_splits(self._splits[part].tolist())
        return writer.finish()

    def _written(self, part: slice, path: Path) -> FeatureFile | None:
        """The file at a path if it has just these rows, as far as its tables tell; else None."""
        with contextlib.suppress(CacheMissError, CorruptFileError):
            file, rows, first = FeatureFile(path), self._rows.take(part), self._shards.files[0]
            table = file.images
            facts = (file.identity, file.dataset, file.classes, file.column_names, len(file))
            if facts != (first.identity, self._dataset, first.classes, first.column_names, len(rows)):
                return None
            splits = file.splits if self._is_hashed else table.splits
            pairs = [
                (table.paths, rows.paths),
                (table.labels, self._labels[part]),
                (splits, self._splits[part]),
                (table.sizes, self._sizes[part]),
                (table.mtimes, self._mtimes[part]),
                (file.keys, rows.keys),
                (file.status, rows.status),
                *((file.column(name), cells[part]) for name, cells in self._columns.items()),
            ]
            if all(np.array_equal(one, other) for one, other in pairs):
                self._done += int((rows.status == DONE).sum())
                return file
        return None

    def _copy_features(self, writer: FeatureFileWriter, rows: ShardRows, todo: np.ndarray) -> None:
        """Read rows in threads, some blocks ahead, and write them in this one, in order."""
        ahead: deque[tuple[int, np.ndarray, Future[_Block]]] = deque()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="featx-merge") as pool:
            try:
                for number, mine in self._blocks(rows, todo):
                    ahead.append((number, mine, pool.submit(self._read, number, rows.row[mine])))
                    if len(ahead) > _AHEAD:
                        self._write_block(writer, rows, *ahead.popleft())
                while ahead:
                    self._write_block(writer, rows, *ahead.popleft())
            finally:
                for _, _, reading in ahead:
                    reading.cancel()

    def _blocks(self, rows: ShardRows, todo: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Rows to copy, in blocks from one file each."""
        width = sum(layer.dim * layer.dtype.itemsize for layer in self._shards.files[0].layers.values())
        step, most = max(1, _SPAN // width), max(1, _BLOCK // width)
        for at in range(0, len(todo), step):
            some = todo[at : at + step]
            for number, mine in by_source(rows.source[some]):
                for first in range(0, len(mine), most):
                    yield number, some[mine[first : first + most]]

    def _read(self, number: int, rows: np.ndarray) -> _Block:
        """Rows of a file: which of them match their checksums, their features, and these checksums."""
        file, layers = self._shards.files[number], self._shards.layers
        with self._locks[number], file.needed():
            found = {layer: read_verified(file, layer, rows) for layer in layers}
        sound = np.logical_and.reduce([each[0] for each in found.values()])
        return (
            sound,
            {layer: each[1] for layer, each in found.items()},
            {layer: each[2] for layer, each in found.items()},
        )

    def _write_block(
        self, writer: FeatureFileWriter, rows: ShardRows, number: int, mine: np.ndarray, reading: Future[_Block]
    ) -> None:
        sound, features, known = reading.result()
        if not sound.all():
            self._report_damage(number, rows.row[mine][~sound])
        writer.write(mine, rows.keys[mine], features, known)
        self._done += len(mine)
        self._reporter.progress(self._done, self._total)

    def _report_damage(self, number: int, rows: np.ndarray) -> None:
        file = self._shards.files[number]
        self._shards.damaged.setdefault(number, set()).update(rows.tolist())
        does, counts, them = ("does", "counts", "it") if len(rows) == 1 else ("do", "count", "them")
        self._shards.notes.append(
            f"{counted(len(rows), 'row')} of {file.path} {does} not match the checksums, and {counts} as missing; the same "
            f"featx extract with --rehash makes {them} again"
        )
        raise _DamagedError


def _remove(shards: Shards) -> int:
    """Remove shards whose rows are all in the file, unless a process is writing them; returns how many were removed."""
    removed = 0
    for file in shards.files:
        path = file.path
        with contextlib.suppress(CacheLockedError, OSError, OutputError), write_lock(final_path(path)):
            if FeatureFile(path, allow_partial=True).digest == file.digest:
                path.unlink()
                removed += 1
    with contextlib.suppress(OSError):  # a process may be writing one
        shards.folder.rmdir()
    return removed
