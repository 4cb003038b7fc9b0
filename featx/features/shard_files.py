"""The shards of a data set as they are on the disk: which there are, which rows they have, and what is missing."""

from __future__ import annotations

import contextlib
from collections import Counter
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
from featx.features.folder import files_in
from featx.text import counted, listed

_SPLIT_ROWS = "split_rows"


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

    @property
    def split_rows(self) -> int | None:
        """The most rows of a file, if a set is to be made of them: as the shard says that was written last."""
        last = max(self.files, key=lambda file: _newest([file]))
        found: int | None = last.dataset["shard"].get(_SPLIT_ROWS)
        return found

    @cached_property
    def layers(self) -> list[str]:
        """The layers of each file."""
        return list(self.files[0].layers)

    def number(self, source: int) -> int:
        """The number of the shard that a file is."""
        return int(self.files[source].dataset["shard"]["number"])

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
            found[some] = Shard(self.number(source), self.of).rows(self.images)[rows.row[some]]
        return found

    def missing(self, rows: ShardRows) -> Iterator[str]:
        """What is not there yet, one sentence per shard."""
        there: Counter[int] = Counter()
        for source, some in rows.by_source:
            there[self.number(source)] += len(some)
        known = set(map(self.number, range(len(self.files))))
        for number in range(1, self.of + 1):
            expected = Shard(number, self.of).size(self.images)
            if there[number] >= expected:
                continue
            state = f"{there[number]:,} of {expected:,} images" if number in known else "not begun"
            yield f"shard {number}/{self.of}: {state}"


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
        described = {**file.dataset, "shard": {**shard, "number": 0, _SPLIT_ROWS: 0}}
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
    return Shards(folder, newest, notes)


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
    number, of, images, most = (shard.get(name) for name in ("number", "of", "images", _SPLIT_ROWS))
    if most is not None and (type(most) is not int or most < 1):
        return None
    if type(number) is not int or type(of) is not int or type(images) is not int:
        return None
    with contextlib.suppress(SettingsError):
        return shard if Shard(number, of).size(images) == len(file) else None
    return None
