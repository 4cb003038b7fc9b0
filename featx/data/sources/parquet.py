"""Parquet files with the bytes of images: one file, a folder of them, or a pattern."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from featx.data.image_set import ImageSet
from featx.data.places import is_remote, local_path, place
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.sources.parquet_files import (
    base_of,
    find_files,
    holds_parquet_alone,
    is_parquet_name,
    is_pattern,
    name_of_files,
    splits_of_files,
    without_column,
)
from featx.data.store import ImageFile, Store
from featx.errors import DatasetError
from featx.io.file_kinds import TABLE, misplaced
from featx.text import form, listed

if TYPE_CHECKING:
    from featx.data.sources.row_cells import Rows

EXPECTED = "Parquet files with image bytes (a file, a folder, or a pattern such as 'data/train-*.parquet')"

OPTIONS: Collection[str] = ("image_column", "label_column", "label_columns", "split_column", "label_separator")
"""The options of the source; see ``featx.data.scan.Source``."""

_MISSING = "needs pyarrow: pip install 'featx[parquet]'"


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a Parquet file with a column of images, a folder of Parquet files, or a pattern or URL of some."""
    text = os.fspath(data)
    if not isinstance(text, str):
        return False
    if not is_remote(text) and (path := local_path(text)).is_dir():
        return holds_parquet_alone(path)
    files, column = without_column(text)
    if not is_parquet_name(files):
        return False
    return bool(column) or is_pattern(files) or _has_images(files)


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images in the rows of Parquet files; ``scan_images`` describes the columns."""
    store, name, parts = _read(os.fspath(data), options)
    from featx.data.sources.row_cells import assemble_rows

    empty = [part.where for part in parts if not part.names]
    notes = (
        [f"{len(empty)} of {len(parts)} files {form(len(empty), 'has', 'have')} no rows: {listed(empty, 3)}"]
        if empty
        else []
    )
    return assemble_rows(name, store, [part for part in parts if part.names] or parts, options, notes)


def list_images(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> list[ImageFile]:
    """List the images in the rows of Parquet files, in their order, whatever their labels and splits.

    Raises:
        DatasetError: a file cannot be read, or has no column of images.
    """
    store, _, parts = _read(os.fspath(data), options, images_alone=True)
    return [ImageFile(store, path) for part in parts for path in part.paths]


def _read(text: str, options: ScanOptions, *, images_alone: bool = False) -> tuple[Store, str, list[Rows]]:
    """The store of Parquet files, the name of the data set, and the rows of each file."""
    try:
        from featx.data.sources.parquet_store import ParquetStore
    except ImportError as error:
        raise DatasetError(f"reading {text} {_MISSING}") from error
    text, named = without_column(text)
    location, base, files = find_files(text)
    column = options.image_column or named or _column_by_content(files[0])
    splits = splits_of_files(base, files)
    parts = []
    for file in files:
        key = file.removeprefix(base).lstrip("/")
        asked = dataclasses.replace(options, image_column=column)
        parts.append(_rows_of(file, f"{key}/" if key else "", splits[file], asked, images_alone))
    return ParquetStore(f"{location}#{column}" if column else location, base, column), name_of_files(base), parts


def opens(location: str) -> bool:
    """Whether a location is that of Parquet files with images."""
    return is_parquet_name(without_column(location)[0])


def open_store(location: str) -> Store:
    """Open the images of Parquet files again."""
    try:
        from featx.data.sources import parquet_store
    except ImportError as error:
        raise DatasetError(f"reading {location} {_MISSING}") from error
    files, column = without_column(location)
    return parquet_store.ParquetStore(location, base_of(files), column)


def _has_images(file: str) -> bool:
    """Whether a file is a Parquet file with a column of images."""
    try:
        import pyarrow.parquet

        from featx.data.sources.row_schema import features_of, image_columns
    except ImportError:
        return False
    try:
        with place(file).open() as source:
            schema = pyarrow.parquet.ParquetFile(source).schema_arrow
    except (OSError, pyarrow.ArrowException):
        return False
    return bool(image_columns(schema, features_of(schema.metadata))) or bool(_column_by_content(file))


def _rows_of(file: str, prefix: str, split: str, options: ScanOptions, images_alone: bool) -> Rows:
    """The rows of one file.

    Raises:
        DatasetError: it cannot be read, or its columns cannot be told.
    """
    import pyarrow.parquet

    from featx.data.sources import parquet_file, row_cells, row_schema

    try:
        with parquet_file.open_parquet(place(file)) as source:
            opened = pyarrow.parquet.ParquetFile(source)
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
            features = row_schema.features_of(schema.metadata)
            found = row_schema.read_schema(file, schema, features, options, images_alone=images_alone)
            parquet_file.expect_columns(source, opened.metadata, found.cells)
            table = opened.read(columns=found.cells, use_threads=False) if found.cells else _of_rows(rows)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {file}") from error
    except parquet_file.FAULTS as error:
        if not is_remote(file) and (other := misplaced(file, EXPECTED, fits=[TABLE])):
            raise DatasetError(other) from error
        raise DatasetError(f"{file} is not a Parquet file that can be read: {parquet_file.fault(error)}") from error
    return row_cells.read_rows(table, found, where=file, prefix=prefix, split=split)


def _of_rows(count: int) -> Any:
    """A table without columns of use, of so many rows."""
    import pyarrow

    return pyarrow.table({"": pyarrow.nulls(count)})


def _column_by_content(file: str) -> str | None:
    """As ``row_schema.column_by_content``; None for a file that cannot be read."""
    import pyarrow.parquet

    from featx.data.sources.row_schema import column_by_content, features_of

    try:
        with place(file).open() as source:
            opened = pyarrow.parquet.ParquetFile(source)
            schema = opened.schema_arrow
            return column_by_content(
                schema,
                features_of(schema.metadata),
                lambda names: next(opened.iter_batches(batch_size=8, columns=names), None),
            )
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException):
        return None
