"""One Parquet file with the bytes of images, read by row groups, of which the last few are kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from featx.data.file_bytes import MISSING_FACTS, let_age
from featx.data.places import Place, is_remote
from featx.data.sources.ranges import RangesFile
from featx.data.sources.row_cells import python_values
from featx.data.sources.row_group import RowGroup
from featx.data.sources.row_schema import features_of, named_image
from featx.data.sources.row_store import UNREAD, Cell
from featx.io.atomic import keep
from featx.system import home
from featx.text import brief

BUDGET = 1 << 27
"""The most bytes of images that the row groups of a data set keep in memory, besides what is being decoded."""

_BATCH = 1 << 20
"""About the bytes of images that are decoded at once."""

_BUFFER = {False: 1 << 20, True: 1 << 23}
"""Bytes that are read at once from a local and from a remote file."""

_FOLDER, _MOST_RECORDS = "sizes", 500
"""Where the sizes of images are kept for later runs, and of how many files."""

FAULTS = (OSError, pyarrow.ArrowException)
"""What pyarrow raises for files that are damaged or gone."""


def fault(error: Exception) -> str:
    """Why pyarrow cannot read a file, in a line."""
    return getattr(error, "strerror", None) or brief(error)


def open_parquet(place: Place, size: int = -1) -> Any:
    """Open a file for pyarrow; a remote one fetches several ranges at once.

    Args:
        place: the file.
        size: in bytes; 0 where a server does not tell it, -1 where it has not been asked for.

    Raises:
        OSError: it cannot be opened.
    """
    if not is_remote(place.location):
        return place.open()
    size = size if size >= 0 else place.facts()[0]
    return RangesFile(place, size) if size > 0 else place.open()


def expect_columns(source: Any, metadata: Any, names: Sequence[str]) -> None:
    """Tell a remote file which columns will be read, if it is one.

    Args:
        source: as ``open_parquet`` returns it.
        metadata: of the Parquet file.
        names: of the columns, or of fields of columns with dots between.
    """
    if not isinstance(source, RangesFile):
        return
    paths = [metadata.schema.column(number).path for number in range(len(metadata.schema))]
    wanted = [at for at, path in enumerate(paths) if any(f"{path}.".startswith(f"{name}.") for name in names)]
    ranges = []
    for number in range(metadata.num_row_groups):
        for at in wanted:
            chunk = metadata.row_group(number).column(at)
            starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
            start = min(offset for offset in starts if offset is not None and offset > 0)
            ranges.append((start, start + chunk.total_compressed_size))
    source.expect(ranges)


class ParquetFile:
    """A Parquet file with images. Its methods may be called from several threads.

    Args:
        place: the file.
        asked: the column of images; None: the only one that there is.

    Attributes:
        location: of the file.
        facts: the row of ``FileFacts`` of the file when it was opened.
        rows: the number of its rows.

    Raises:
        OSError: it cannot be opened, or is no Parquet file.
        DatasetError: it has no such column of images.
    """

    def __init__(self, place: Place, asked: str | None) -> None:
        self._place, self._lock = place, threading.Lock()
        self.location, self.facts = place.location, place.facts()
        if self.facts == MISSING_FACTS:
            raise FileNotFoundError(f"there is no file {place.location}")
        remote = is_remote(place.location)
        if not remote:
            let_age(self.facts[1], self.facts[2])
        self._source = open_parquet(place, self.facts[0])
        if not remote and place.facts() != self.facts:
            raise OSError("it changes while it is opened")
        try:
            self._file = pyarrow.parquet.ParquetFile(self._source, buffer_size=_BUFFER[remote])
        except pyarrow.ArrowException as error:
            raise OSError(fault(error)) from error
        schema, meta = self._file.schema_arrow, self._file.metadata
        self.column = named_image(place.location, schema, features_of(schema.metadata), asked)
        counts = [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.rows = int(self._starts[-1])
        self._leaves = self._places_of_leaves()
        expect_columns(self._source, meta, self.column.leaves)
        self._groups: OrderedDict[int, RowGroup] = OrderedDict()
        self.sizes = self._remembered()
        self._may_lack_bytes = self._groups_that_may_lack_bytes()

    def read(self, row: int, budget: int = BUDGET) -> Cell:
        """Read the bytes of an image, or its path.

        Raises:
            OSError: the file is damaged or gone.
        """
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            group = self._groups.setdefault(number, self._groups.get(number) or self._group(number))
            self._groups.move_to_end(number)
            try:
                found = group.read(row, budget)
            except pyarrow.ArrowException as error:
                raise OSError(fault(error)) from error
            for earlier in list(self._groups.values())[:-1]:
                if self.bytes <= budget:
                    break
                earlier.forget()
            return found

    def _group(self, number: int) -> RowGroup:
        meta = self._file.metadata.row_group(number)
        sizes = [meta.column(at).total_uncompressed_size for at in self._leaves]
        rows_at_once = int(np.clip(_BATCH * meta.num_rows // max(1, sum(sizes)), 1, 1024))

        def batches() -> Iterator[Any]:
            return iter(
                self._file.iter_batches(
                    batch_size=rows_at_once, row_groups=[number], columns=self.column.leaves, use_threads=False
                )
            )

        rows = int(self._starts[number]), int(self._starts[number + 1])
        return RowGroup(batches, self.column, rows, sum(sizes), self._learn)

    @property
    def bytes(self) -> int:
        """The bytes of images that are in memory."""
        return sum(group.bytes for group in list(self._groups.values()))

    def forget(self) -> None:
        """Drop the images that are in memory."""
        with self._lock:
            for group in self._groups.values():
                group.forget()

    def sizes_of(self, rows: np.ndarray) -> np.ndarray:
        """(M,) int64: the sizes of some images, as far as they are known; see ``UNREAD``.

        Row groups in which some images may have a path alone are read once, since nothing else tells which.
        """
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        unread = self._may_lack_bytes[numbers] & (self.sizes[rows] == UNREAD)
        for number in np.unique(numbers[unread]).tolist():
            self.read(int(self._starts[number + 1]) - 1)
        return np.asarray(self.sizes[rows])

    def paths(self, rows: np.ndarray) -> list[str]:
        """The embedded paths of the images of some rows."""
        with self._lock:
            column = self._file.read(columns=self.column.leaves[1:]).column(0).combine_chunks()
        return python_values(pyarrow.compute.struct_field(column, self.column.path).take(pyarrow.array(rows)))

    def _places_of_leaves(self) -> list[int]:
        """The numbers of the columns of Parquet with the bytes and the paths of the images."""
        schema = self._file.metadata.schema
        named = {schema.column(number).path: number for number in range(len(schema))}
        return [named[leaf] for leaf in self.column.leaves]

    def _groups_that_may_lack_bytes(self) -> np.ndarray:
        """Which row groups may have images with a path alone, by the counts of missing values."""
        meta = self._file.metadata
        found = np.zeros(max(1, meta.num_row_groups), dtype=bool)
        for number in range(meta.num_row_groups if self.column.path else 0):
            statistics = meta.row_group(number).column(self._leaves[0]).statistics
            found[number] = statistics is None or not statistics.has_null_count or statistics.null_count > 0
        return found

    def _learn(self, start: int, sizes: np.ndarray) -> None:
        """Keep the sizes of images; those of a whole file are stored for later runs."""
        part = self.sizes[start : start + len(sizes)]
        if not (part == UNREAD).any():
            return
        part[:] = sizes
        if not (self.sizes == UNREAD).any() or start + len(sizes) == self.rows:
            keep(self._record, self._seal + self.sizes.astype("<i8").tobytes(), most=_MOST_RECORDS)

    def _remembered(self) -> np.ndarray:
        """(rows,) int64: the sizes of the images, where an earlier run has read them; else ``UNREAD``."""
        named = f"{self._place.location}\0{self.column.name}"
        self._record = f"{_FOLDER}/{hashlib.sha256(named.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
        self._seal = np.array([*self.facts, self.rows], dtype="<i8").tobytes()
        try:
            data = (home() / self._record).read_bytes()
        except (OSError, ValueError):
            data = b""
        if data.startswith(self._seal) and len(data) == len(self._seal) + 8 * self.rows:
            return np.frombuffer(data, dtype="<i8", offset=len(self._seal)).astype(np.int64)
        return np.full(self.rows, UNREAD, dtype=np.int64)
