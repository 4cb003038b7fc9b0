"""Parquet files with the bytes of images: one file, a folder of them, or a pattern."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.data.image_set import ImageSet
from featx.data.listing import is_junk, why_left_out
from featx.data.places import expand, is_remote, local_path, place
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.split_names import exact_splits, is_split_alone, worded_splits
from featx.data.store import ImageFile, Store
from featx.errors import DatasetError
from featx.text import listed, portable

if TYPE_CHECKING:
    from featx.data.sources.row_cells import Rows

ENDING = ".parquet"

EXPECTED = "Parquet files with image bytes (a file, a folder, or a pattern such as 'data/train-*.parquet')"

OPTIONS: Collection[str] = ("image_column", "label_column", "label_columns", "split_column", "label_separator")
"""The options of the source; see ``featx.data.scan.Source``."""

_BELOW = "/**/*.parquet"
"""The end of a location that stands for all Parquet files in a folder."""

_SHARD = re.compile(r"(?P<split>.+?)-\d{3,}-of-\d{3,}(?:-[0-9a-f]{8,})?")
"""The names of files as ``datasets`` writes them: ``train-00000-of-00002``."""

_MISSING = "needs pyarrow: pip install 'featx[parquet]'"


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a Parquet file with a column of images, a folder of Parquet files, or a pattern or URL of some."""
    text = os.fspath(data)
    if not isinstance(text, str):
        return False
    if not is_remote(text) and (path := local_path(text)).exists():
        return _holds_parquet_alone(path) if path.is_dir() else _has_images(path)
    files, column = _without_column(text)
    return files.lower().endswith(ENDING) and (is_remote(text) or _is_pattern(files) or bool(column))


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images in the rows of Parquet files; ``scan_images`` describes the columns."""
    store, name, parts = _read(os.fspath(data), options)
    from featx.data.sources.row_cells import assemble_rows

    empty = [part.where for part in parts if not part.names]
    notes = [f"{len(empty)} of {len(parts)} files have no rows: {listed(empty, 3)}"] if empty else []
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
    text, named = _without_column(text)
    location, base, files = _found(text)
    if not _is_pattern(text):
        _refuse_several(base, files)
    column = options.image_column or named or _column_by_content(files)
    splits = _splits_of(base, files)
    parts = []
    for file in files:
        key = file.removeprefix(base).lstrip("/")
        asked = dataclasses.replace(options, image_column=column)
        parts.append(_rows_of(file, f"{key}/" if key else "", splits[file], asked, images_alone))
    return ParquetStore(f"{location}#{column}" if column else location, base, column), _name(base), parts


def opens(location: str) -> bool:
    """Whether a location is that of Parquet files with images."""
    return _without_column(location)[0].lower().endswith(ENDING)


def open_store(location: str) -> Store:
    """Open the images of Parquet files again."""
    try:
        from featx.data.sources import parquet_store
    except ImportError as error:
        raise DatasetError(f"reading {location} {_MISSING}") from error
    files, column = _without_column(location)
    return parquet_store.ParquetStore(location, _base(files), column)


def _without_column(location: str) -> tuple[str, str | None]:
    """The files of a location, and the column of images if it names one."""
    at = location.lower().rfind(f"{ENDING}#") + len(ENDING)
    if at < len(ENDING) or os.path.lexists(location):
        return location, None
    return location[:at], location[at + 1 :]


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) or bool(re.search(r"\{[^{}]*(\.\.|,)[^{}]*\}", text))


def _has_images(path: Path) -> bool:
    """Whether a file is a Parquet file with a column of images."""
    if path.suffix.lower() != ENDING or not path.is_file():
        return False
    try:
        import pyarrow.parquet

        from featx.data.sources.row_schema import features_of, image_columns
    except ImportError:
        return False
    try:
        schema = pyarrow.parquet.read_schema(path)
    except (OSError, pyarrow.ArrowException):
        return False
    return bool(image_columns(schema, features_of(schema.metadata))) or bool(_column_by_content([str(path)]))


def _holds_parquet_alone(folder: Path) -> bool:
    """Whether a folder holds Parquet files, and no images."""
    found = False
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_junk(name)]
        if any(not why_left_out(name) for name in files):
            return False
        found = found or any(map(_is_parquet, files))
        if len(Path(here).relative_to(folder).parts) > 8:
            folders.clear()
    return found


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(ENDING) and not name.startswith((".", "_"))


def _found(text: str) -> tuple[str, str, list[str]]:
    """The location of Parquet files, what the paths of their images are relative to, and the files, sorted.

    Raises:
        DatasetError: there are none.
    """
    if not is_remote(text):
        path = local_path(text)
        if path.is_dir():
            folder = str(path.resolve())
            return folder + _BELOW, folder, _below(folder)
        text = str(path.resolve() if path.is_file() else Path(os.path.abspath(path)))  # noqa: PTH100 - of a pattern
        if path.is_file():
            return text, text, [text]
    files = expand(text)
    if not files:
        raise DatasetError(f"no file matches {text}")
    return text, _base(text), files


def _below(folder: str) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        found += [f"{here}/{name}" for name in files if _is_parquet(name)]
    return sorted(found, key=os.fsencode)


def _base(files: str) -> str:
    """What the paths of images are relative to: the folder of a pattern, or the file itself."""
    if files.endswith(_BELOW) and (is_remote(files) or not os.path.lexists(files)):
        return files.removesuffix(_BELOW)
    if not _is_pattern(files) or (not is_remote(files) and os.path.lexists(files)):
        return files
    parts = files.split("/")
    fixed = next(number for number, part in enumerate(parts) if re.search(r"[*?\[{]", part))
    return "/".join(parts[:fixed])


def _refuse_several(base: str, files: Sequence[str]) -> None:
    """Refuse a folder of several data sets, each in its own folder, as configurations of a Hugging Face data set are."""
    found = set()
    for file in files:
        folders = file.removeprefix(base).strip("/").split("/")[:-1]
        around = [name for name in folders if not is_split_alone(name)]
        if _stem_split(file) or len(around) < len(folders):
            found.add("/".join(around))
    if len(found) > 1:
        raise DatasetError(
            f"{base} holds the Parquet files of several data sets, in the folders {listed(sorted(found))}; name one of these "
            f"folders, or {base}{_BELOW} for all of them"
        )


def _stem_split(file: str) -> str:
    stem = file.rpartition("/")[2][: -len(ENDING)]
    match = _SHARD.fullmatch(stem)
    return match["split"] if match else ""


def _splits_of(base: str, files: Sequence[str]) -> dict[str, str]:
    """The split of each file by its name, or by that of its folder; "" where neither tells it."""
    shards = {file: _stem_split(file) for file in files}
    stems = {file: shards[file] or file.rpartition("/")[2][: -len(ENDING)] for file in files}
    known = {**worded_splits(stems.values()), **{k: v for k, v in exact_splits(stems.values()).items() if v}}
    by_name = {file: known[stem] or shards[file] for file, stem in stems.items()}
    if any(by_name.values()):
        return by_name
    folders = {file: file.removeprefix(base).lstrip("/").split("/")[:-1] for file in files}
    names = {part for parts in folders.values() for part in parts}
    alone = {name: split for name, split in worded_splits(names).items() if is_split_alone(name)}
    return {
        file: next((alone[part] for part in reversed(parts) if part in alone), "") for file, parts in folders.items()
    }


def _rows_of(file: str, prefix: str, split: str, options: ScanOptions, images_alone: bool) -> Rows:
    """The rows of one file.

    Raises:
        DatasetError: it cannot be read, or its columns cannot be told.
    """
    import pyarrow.parquet

    from featx.data.sources import parquet_file, row_cells, row_schema

    try:
        with place(file).open() as source:
            opened = pyarrow.parquet.ParquetFile(source)
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
            features = row_schema.features_of(schema.metadata)
            found = row_schema.read_schema(file, schema, features, options, images_alone=images_alone)
            table = opened.read(columns=found.cells) if found.cells else _of_rows(rows)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {file}") from error
    except parquet_file.FAULTS as error:
        raise DatasetError(f"{file} is not a Parquet file that can be read: {parquet_file.fault(error)}") from error
    return row_cells.read_rows(table, found, where=file, prefix=prefix, split=split)


def _of_rows(count: int) -> Any:
    """A table without columns of use, of so many rows."""
    import pyarrow

    return pyarrow.table({"": pyarrow.nulls(count)})


def _column_by_content(files: Sequence[str]) -> str | None:
    """The only column of plain bytes that begin as an image does, where no type and no name tells it; of the first file."""
    import pyarrow.parquet

    from featx.data.formats import format_of
    from featx.data.sources.row_schema import ImageColumn, features_of, image_columns

    found: list[ImageColumn] = []
    try:
        with place(files[0]).open() as source:
            opened = pyarrow.parquet.ParquetFile(source)
            schema = opened.schema_arrow
            if image_columns(schema, features_of(schema.metadata)):
                return None
            names = [f.name for f in schema if pyarrow.types.is_binary(f.type) or pyarrow.types.is_large_binary(f.type)]
            for batch in opened.iter_batches(batch_size=8, columns=names) if names else ():
                for name in names:
                    values = batch.column(name).drop_null()
                    if len(values) and format_of(values[0].as_py()[:64]):
                        found.append(ImageColumn(name))
                break
    except (OSError, pyarrow.ArrowException):
        return None
    return found[0].name if len(found) == 1 else None


def _name(base: str) -> str:
    """The name of a data set: that of its file or folder; of the folder above one that is called data."""
    parts: Iterator[str] = (part for part in reversed(base.rstrip("/").split("/")) if part)
    last = next(parts, "parquet")
    stem = last[: -len(ENDING)] if last.lower().endswith(ENDING) else last
    stem = _stem_split(last) or stem
    return portable(next(parts, stem) if stem == "data" else stem)
