"""Tables in Parquet files, and in Arrow and Feather files."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from featx.data.places import place
from featx.data.table_base import reading, refuse_twice, why_twice
from featx.errors import DatasetError
from featx.text import brief

ARROW_ENDINGS = (".arrow", ".feather")


class ArrowTable:
    """A table in a Parquet, Arrow or Feather file; see ``featx.data.table_base.TableFile``.

    Args:
        where: a local path, or a URL.
        asked: names of columns that the options name; ``label.name`` is the field ``name`` of the structures in
            the column label.
    """

    unit, numbered = "line", False

    def __init__(self, where: str, asked: Collection[str] = ()) -> None:
        try:
            import pyarrow
            import pyarrow.feather
            import pyarrow.parquet
        except ImportError as error:
            raise DatasetError(f"reading {where} needs pyarrow: pip install 'featx[parquet]'") from error
        self.where = where
        self.notes: list[str] = []
        self._arrow = pyarrow
        with self._opened() as (schema, _):
            self._schema = schema
        self._inner = {name for name in asked if name not in self._schema.names and self._field(name) is not None}
        self.names: Sequence[str] = [*self._schema.names, *sorted(self._inner)]

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """As ``TableFile.read``."""
        refuse_twice(self.where, self.names, names)
        present = [name for name in names if name in self.names]
        tops = list(dict.fromkeys(name.partition(".")[0] if name in self._inner else name for name in present))
        columns: dict[str, list[Any]] = {name: [] for name in present}
        rows = 0
        with self._opened() as (_, batches):
            for batch in batches(tops):
                rows += batch.num_rows
                for name in present:
                    columns[name] += self._values(self._column(batch, name))
        return range(1, rows + 1), {**columns}

    def why_left_out(self, name: str) -> str:
        """As ``TableFile.why_left_out``."""
        if fault := why_twice(self.names, name):
            return fault
        kind, types = self._schema.field(name).type, self._arrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            inner = kind.value_type
            if types.is_floating(inner) or types.is_nested(inner) or types.is_binary(inner):
                return f"its cells are of type {kind}"
            return ""
        is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
        return f"its cells are of type {kind}" if types.is_nested(kind) or is_bytes else ""

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """The schema, and a function that yields batches of some columns."""
        is_parquet = not self.where.partition("?")[0].lower().endswith(ARROW_ENDINGS)
        try:
            with reading(self.where), place(self.where).open() as source:
                if is_parquet:
                    with self._arrow.parquet.ParquetFile(source) as file:
                        yield file.schema_arrow, lambda names: file.iter_batches(columns=names)
                else:
                    is_file = source.read(6) == b"ARROW1"
                    source.seek(0)
                    ipc = (self._arrow.ipc.open_file if is_file else self._arrow.ipc.open_stream)(source)
                    yield ipc.schema, lambda names: ipc.read_all().select(names).to_batches()
        except self._arrow.ArrowException as error:
            kind = "a Parquet file" if is_parquet else "an Arrow file"
            raise DatasetError(f"{self.where} is not {kind} that can be read: {brief(error)}") from error

    def _field(self, name: str) -> Any:
        """The field at a path of names with dots between; None if there is none."""
        top, *inner = name.split(".")
        if self._schema.names.count(top) != 1:
            return None
        field = self._schema.field(top)
        for each in inner:
            if not self._arrow.types.is_struct(field.type) or field.type.get_field_index(each) < 0:
                return None
            field = field.type.field(each)
        return field

    def _column(self, batch: Any, name: str) -> Any:
        if name not in self._inner:
            return batch.column(name)
        import pyarrow.compute

        top, *inner = name.split(".")
        return pyarrow.compute.struct_field(batch.column(top), inner)

    def _values(self, column: Any) -> list[Any]:
        """The values of a column in Python; times as text, since those in nanoseconds have no other form there."""
        if self._arrow.types.is_temporal(column.type):
            with contextlib.suppress(self._arrow.ArrowException):  # durations, and times of unknown zones
                column = column.cast(self._arrow.string())
        values: list[Any] = column.to_pylist()
        return values
