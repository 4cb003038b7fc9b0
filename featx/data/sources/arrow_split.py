"""One split of a Hugging Face data set in Arrow files, memory-mapped: its rows, its images and their sizes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from featx.data.file_bytes import MISSING_FACTS, let_age
from featx.data.places import LocalFile
from featx.data.sources.row_cells import cells_of, python_values, sizes_of
from featx.data.sources.row_schema import ImageColumn
from featx.data.sources.row_store import Cell
from featx.errors import DatasetError
from featx.text import brief


class ArrowFiles:
    """The files of one split, in order.

    Args:
        folder: in which they lie, to which embedded paths are relative.
        files: their paths.
        indices: the file with the rows that count and their order, or None.
        version: what tells this content from another, such as a fingerprint and a commit; "" where the times of the files do.
        features: the descriptions of the columns by ``datasets``.

    Attributes:
        facts: what stands in for the facts of a file: one modification time that stands for the version of all files.
    """

    def __init__(
        self, folder: Path, files: Sequence[Path], indices: Path | None, version: str, features: dict[str, Any]
    ) -> None:
        self.folder, self.files, self.indices, self.features = folder, list(files), indices, features
        self._version = version
        self.facts = self.facts_now()

    def facts_now(self) -> tuple[int, int, int, int]:
        """``facts`` by the files as they are now; ``MISSING_FACTS`` if one is gone."""
        named = [*self.files, *([self.indices] if self.indices else [])]
        each = [LocalFile(file).facts() for file in named]
        if MISSING_FACTS in each:
            return MISSING_FACTS
        parts = [(file.name, facts[0] if self._version else facts) for file, facts in zip(named, each, strict=True)]
        digest = hashlib.blake2b(repr((self._version, parts)).encode("utf-8", "surrogateescape"), digest_size=8)
        return 0, int.from_bytes(digest.digest(), "little") >> 1, 0, 0

    @cached_property
    def tables(self) -> list[Any]:
        """The tables of Arrow of the files.

        Raises:
            DatasetError: a file is damaged.
        """
        return [_table(file) for file in self.files]

    @cached_property
    def order(self) -> np.ndarray | None:
        """(rows,) int64: the row in the files of each row of the split; None where they are the same."""
        if self.indices is None:
            return None
        return np.asarray(_table(self.indices).column(0), dtype=np.int64)

    @property
    def schema(self) -> Any:
        """The schema of Arrow."""
        return self.tables[0].schema

    def cells(self, names: Sequence[str], image: ImageColumn) -> Any:
        """A table of Arrow with some columns, in the order of the rows of the split, and with the paths of the images alone.

        Args:
            names: of the columns.
            image: the column of images, which is there even if it has no paths.
        """
        table = pyarrow.concat_tables([each.select([*names, image.name]) for each in self.tables])
        images = [_without_bytes(chunk, image) for chunk in table.column(image.name).chunks]
        table = table.drop_columns([image.name])
        if images:
            table = table.append_column(image.name, pyarrow.chunked_array(images))
        return table if self.order is None else table.take(pyarrow.array(self.order))


class ArrowSplit:
    """The images of one split; see ``featx.data.sources.row_store.RowTable``.

    Args:
        files: of the split.
        column: the column of images.

    Raises:
        DatasetError: a file is damaged.
    """

    def __init__(self, files: ArrowFiles, column: ImageColumn) -> None:
        self.location, self.facts = f"{files.folder}/", files.facts
        self._order = files.order
        chunks = [chunk for table in files.tables for chunk in table.column(column.name).chunks if len(chunk)]
        self._chunks = [cells_of(chunk, column) for chunk in chunks]
        self._starts = np.concatenate([[0], np.cumsum([len(data) for data, _ in self._chunks], dtype=np.int64)])
        self.rows = int(self._starts[-1]) if self._order is None else len(self._order)
        if self._order is not None and self.rows and not 0 <= self._order.min() <= self._order.max() < self._starts[-1]:
            raise DatasetError(f"{files.folder}: the file of indices names rows that are not there")

    @cached_property
    def _sizes(self) -> np.ndarray:
        parts = [sizes_of(data, paths) for data, paths in self._chunks]
        sizes = np.concatenate([np.empty(0, np.int64), *parts])
        return sizes if self._order is None else sizes[self._order]

    def sizes_of(self, rows: np.ndarray) -> np.ndarray:
        """As ``RowTable.sizes_of``."""
        return np.asarray(self._sizes[rows])

    def paths(self, rows: np.ndarray) -> list[str]:
        """As ``RowTable.paths``."""
        return [self.read(int(row))[1] or "" for row in rows]

    def read(self, row: int) -> Cell:
        """As ``RowTable.read``."""
        row = row if self._order is None else int(self._order[row])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        data, paths = self._chunks[number]
        at = row - int(self._starts[number])
        return data[at].as_py(), python_values(paths.slice(at, 1))[0] if paths is not None else None


def _without_bytes(images: Any, column: ImageColumn) -> Any:
    """An array of images without their bytes, which are not read."""
    if not column.path:
        return pyarrow.nulls(len(images))
    return pyarrow.StructArray.from_arrays([cells_of(images, column)[1]], names=[column.path])


def schema_of(file: Path) -> Any:
    """The schema of an Arrow file; raises as ``first_rows``."""
    with _opened(file) as reader:
        return reader.schema


def first_rows(file: Path) -> Any:
    """A table of the first rows of an Arrow file.

    Raises:
        DatasetError: it is damaged, or gone.
    """
    with _opened(file) as reader:
        if isinstance(reader, pyarrow.RecordBatchStreamReader):
            batch = next(iter(reader), None)
        else:
            batch = reader.get_batch(0) if reader.num_record_batches else None
        return pyarrow.Table.from_batches([] if batch is None else [batch.slice(0, 8)], reader.schema)


def _table(file: Path) -> Any:
    """The table in an Arrow file, memory-mapped, of either format."""
    with _opened(file) as reader:
        return reader.read_all()


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The reader of an Arrow file, of either format."""
    try:
        found = file.stat()
        let_age(found.st_mtime_ns, found.st_ctime_ns)
        with pyarrow.memory_map(str(file)) as source:
            is_file = bytes(source.read(6)) == b"ARROW1"
            source.seek(0)
            yield (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(source)
    except FileNotFoundError as error:
        raise DatasetError(f"{file} is not there") from error
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{file} is not an Arrow file that can be read: {brief(error)}") from error
