"""The shards of a data set as they are on the disk: which there are, which rows they have, and what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.shard import Shard
from featx.errors import CacheMissError, CorruptFileError, SettingsError, UnreadableFileError
from featx.features.feature_file import DONE, FAILED, FeatureFile
from featx.features.file_set import open_features
from featx.features.folder import SHARDS, files_in, is_lost, when_modified
from featx.text import counted, listed

_SPLIT_ROWS = "split_rows"

_READER = "reader"
"""What describes the decoders of a machine in ``dataset``. Which images fail depends on them, and features do not."""


@dataclass(frozen=True)
class ShardRows:
    """Rows of shards, sorted by path.

    Attributes:
        source: (M,) the number of the file in ``Shards.files``.
        row: (M,) the row in it.
        paths, keys, status: of the images.
    """

    source: np.ndarray
    row: np.ndarray
    paths: np.ndarray
    keys: np.ndarray
    status: np.ndarray

    @cached_property
    def by_source(self) -> list[tuple[int, np.ndarray]]:
        """The number of each file that rows are taken from, and which of the M these are, ascending."""
        return by_source(self.source)

    def __len__(self) -> int:
        return len(self.row)

    def take(self, part: slice) -> ShardRows:
        """Some of the rows, one after the other."""
        return ShardRows(*(getattr(self, name)[part] for name in ("source", "row", "paths", "keys", "status")))


@dataclass
class Shards:
    """The shards of one state of one data set, which may have been divided into different numbers of them.

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

    @cached_property
    def of(self) -> int:
        """How many shards there are to be: as many as of the one that was written last."""
        return self.shard(self._last).of

    @property
    def split_rows(self) -> int | None:
        """The most rows of a file, if a set is to be made of them: as the shard says that was written last."""
        found: int | None = self.files[self._last].dataset["shard"].get(_SPLIT_ROWS)
        return found

    @cached_property
    def _last(self) -> int:
        """The number of the file that was written last."""
        return max(range(len(self.files)), key=lambda source: modified(self.files[source : source + 1]))

    @cached_property
    def layers(self) -> list[str]:
        """The layers of each file."""
        return list(self.files[0].layers)

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """The description of the data set for the merged file.

        If images failed on machines whose decoders differ, no decoders are named, so that the next extraction tries them again.
        """
        described = {name: value for name, value in self.files[0].dataset.items() if name != "shard"}
        failing = {file.dataset.get(_READER) for file in self.files if (file.status == FAILED).any()}
        if failing - {described.get(_READER)}:
            described.pop(_READER, None)
        return described

    def shard(self, source: int) -> Shard:
        """Which shard a file is."""
        found = self.files[source].dataset["shard"]
        return Shard(int(found["number"]), int(found["of"]))

    def require_unchanged(self) -> None:
        """Check that the files are still there.

        Raises:
            CacheMissError: one was removed or replaced, or has got its final name.
        """
        for file in self.files:
            with file.needed():
                pass

    def rows(self) -> ShardRows:
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
        return ShardRows(*taken, paths, self.column(*taken, "keys"), self.column(*taken, "status"))

    def column(self, source: np.ndarray, row: np.ndarray, name: str) -> np.ndarray:
        """The values of a table, an attribute of ``FeatureFile``, in these rows of these files."""

        def table(file: FeatureFile) -> np.ndarray:
            found: np.ndarray = attrgetter(name)(file)
            return found

        tables = list(map(table, self.files))
        out = np.zeros((len(row), *tables[0].shape[1:]), dtype=np.result_type(*tables))
        for number, some in by_source(source):
            out[some] = tables[number][row[some]]
        return out

    def positions(self, rows: ShardRows) -> np.ndarray:
        """(M,) int64: which rows of the whole data set these are."""
        found = np.empty(len(rows), dtype=np.int64)
        for source, some in rows.by_source:
            found[some] = self.shard(source).positions(rows.row[some], self.images)
        return found

    def missing(self, rows: ShardRows) -> Iterator[str]:
        """What is not there yet, one sentence per shard."""
        of = self.of
        there = np.bincount(Shard(1, of).numbers(self.positions(rows), self.images), minlength=of + 1)
        known = {shard.number for shard in map(self.shard, range(len(self.files))) if shard.of == of}
        for number in range(1, of + 1):
            expected = Shard(number, of).size(self.images)
            if there[number] >= expected:
                continue
            begun = number in known or there[number]
            state = f"{there[number]:,} of {counted(expected, 'image')}" if begun else "not begun"
            yield f"shard {number}/{of}: {state}"


def by_source(source: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Group (M,) numbers: each number that occurs, and where it does, ascending."""
    order = np.argsort(source, kind="stable")
    numbers, first = np.unique(source[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(order, first[1:]), strict=True)) if len(source) else []


def narrow(texts: np.ndarray) -> np.ndarray:
    """(N,) bytes in an array whose items are no wider than the longest of them."""
    width = int(np.char.str_len(texts).max(initial=1))
    return texts.astype(f"S{width}") if width < texts.dtype.itemsize else texts


def read_shards(folder: Path) -> Shards:
    """Open the shards in a folder; of several states of the data set, those of the newest one count.

    Raises:
        CacheMissError: there are none.
    """
    states: dict[tuple[Any, ...], list[FeatureFile]] = {}
    notes: list[str] = []
    if not folder.is_dir():
        there = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
        raise CacheMissError(f"{there}; featx extract DATA --shard K/N makes one, whose name ends in {SHARDS}")
    for path in files_in(folder):
        if path.name.endswith(".new"):
            continue
        file, note = _opened(path)
        notes += [note] if note else []
        if file is None:
            continue
        states.setdefault(_state(file), []).append(file)
    if not states:
        raise CacheMissError(f"there are no shards in {folder}" + (f": {notes[0]}" if notes else ""))
    newest, *others = sorted(states.values(), key=modified, reverse=True)
    for files in others:
        names = listed([file.path.name for file in files], most=3)
        is_, what = "is" if len(files) == 1 else "are", _difference(files[0], newest[0])
        notes.append(f"{counted(len(files), 'file')} of {what} {is_} not merged: {names}")
    newest.sort(key=lambda file: (not file.complete, file.path.name))
    return Shards(folder, newest, notes)


def _opened(path: Path) -> tuple[FeatureFile | None, str]:
    """The feature file of a shard, released; or None, and a note that tells what is there instead."""
    try:
        file = FeatureFile(path, allow_partial=True)
    except CacheMissError:  # it has just been completed or removed
        return None, ""
    except UnreadableFileError as error:
        return None, f"{error}. It is not merged until it can be read"
    except CorruptFileError as error:
        again = "; the same featx extract makes it again" if is_lost(path, error) else ""
        return None, f"{error}. It is not merged{again}"
    if _description(file) is None:
        return None, f"{path} is a feature file, but no shard. It is not merged"
    if not file.complete and not path.name.endswith(".partial"):
        return None, f"{path} has the name of a finished file, and is marked as unfinished. It is not merged"
    file.release()
    return file, ""


def is_newer(path: Path, shards: Shards, rows: ShardRows) -> bool:
    """Whether a feature file, or a set, was written after all shards, and has rows that are not the same among theirs.

    So it is of a later state of the data set, which a merge must not undo.

    Args:
        path: the feature file, or the folder of the set; there may be none.
        shards: the shards.
        rows: of them.
    """
    try:
        if when_modified(path) <= modified(shards.files):
            return False
        file = open_features(path)
    except (CacheMissError, CorruptFileError):
        return False
    first = shards.files[0]
    table, done = file.images, file.status == DONE
    at = np.searchsorted(rows.paths, table.paths).clip(max=len(rows) - 1)
    same = rows.paths[at] == table.paths
    same &= shards.column(rows.source, rows.row, "images.labels")[at] == table.labels
    same &= ~done | (rows.keys[at] == file.keys).all(axis=1) & (rows.status[at] == DONE)
    if first.dataset["splits"] != "hash":
        same &= shards.column(rows.source, rows.row, "images.splits")[at] == table.splits
    return not same.all() or (file.classes, file.column_names) != (first.classes, first.column_names)


def modified(files: Sequence[FeatureFile]) -> float:
    """When the newest of some files was written, in seconds since 1970."""
    times = []
    for file in files:
        with contextlib.suppress(OSError):
            times.append(file.path.stat().st_mtime)
    return max(times, default=0.0)


def _state(file: FeatureFile) -> tuple[str, str]:
    """What shards have in common that can be merged: not their number, nor that of all, nor the version of the decoders."""
    described = {name: value for name, value in file.dataset.items() if name != _READER}
    described["shard"] = {
        name: value for name, value in described["shard"].items() if name not in ("number", "of", _SPLIT_ROWS)
    }
    return file.identity, repr(sorted(described.items()))


def _difference(file: FeatureFile, newest: FeatureFile) -> str:
    """Of what a shard is that cannot be merged with the newest one."""
    if file.identity != newest.identity:
        return "other features"
    if any(file.dataset["shard"].get(name) != newest.dataset["shard"].get(name) for name in ("images", "listing")):
        return "an earlier state of the data set"
    names = sorted({*file.dataset, *newest.dataset} - {"shard", _READER})
    differ = [name for name in names if file.dataset.get(name) != newest.dataset.get(name)]
    return f"extractions with other options ({listed(differ, most=3)})"


def _description(file: FeatureFile) -> dict[str, Any] | None:
    """What a feature file tells of the shard that it is; None if it is none."""
    shard = file.dataset.get("shard")
    if not isinstance(shard, dict):
        return None
    number, of, images, most = (shard.get(name) for name in ("number", "of", "images", _SPLIT_ROWS))
    if most is not None and (type(most) is not int or most < 1):
        return None
    if type(number) is not int or type(of) is not int or type(images) is not int:
        return None
    with contextlib.suppress(SettingsError):
        return shard if Shard(number, of).size(images) == len(file) else None
    return None
