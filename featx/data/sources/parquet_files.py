"""Parquet files by what the user names: a file, a folder of them, a pattern, or a URL; and the splits that names tell."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from featx.data.listing import is_junk, why_left_out
from featx.data.places import expand, is_remote, local_path
from featx.data.split_names import exact_splits, is_split_alone, worded_splits
from featx.data.urls import as_stored, is_http
from featx.errors import DatasetError
from featx.text import listed, portable

ENDING = ".parquet"

_BELOW = "/**/*.parquet"
"""The end of a location that stands for all Parquet files in a folder."""

_SHARD = re.compile(r"(?P<split>.+?)-\d{3,}-of-\d{3,}(?:-[0-9a-f]{8,})?")
"""The names of files as ``datasets`` writes them: ``train-00000-of-00002``."""

_COLUMN = re.compile(r"(?P<files>.*\.parquet(?:\?[^#]*)?)#(?P<column>.+)", re.IGNORECASE | re.DOTALL)
"""A location that names a column, too."""

_MAGIC, _ESCAPED = re.compile(r"[*?\[{]"), re.compile(r"\[([*?\[])\]")
"""What makes a part of a path a pattern, and what ``glob.escape`` makes of it where it is none."""


def is_parquet_name(location: str) -> bool:
    """Whether a location is that of a Parquet file, by its name; that of a URL may be followed by a query."""
    return (location.partition("?")[0] if is_http(location) else location).lower().endswith(ENDING)


def without_column(location: str) -> tuple[str, str | None]:
    """The files of a location, and the column of images if it names one.

    Examples:
        >>> without_column("data/train-*.parquet#front"), without_column("data/train-*.parquet")
        (('data/train-*.parquet', 'front'), ('data/train-*.parquet', None))
    """
    match = _COLUMN.fullmatch(location)
    if match is None or (not is_remote(location) and os.path.lexists(location)):
        return location, None
    return match["files"], match["column"]


def is_pattern(files: str) -> bool:
    """Whether a name stands for several files by a pattern or by braces; the query of a URL is neither."""
    text = files.partition("?")[0] if is_http(files) else files
    return glob.has_magic(text) or bool(re.search(r"\{[^{}]*(\.\.|,)[^{}]*\}", text))


def holds_parquet_alone(folder: Path) -> bool:
    """Whether a folder holds Parquet files, and no images."""
    found = False
    for _, files in _walk(folder):
        if any(not why_left_out(name) for name in files):
            return False
        found = found or any(map(_is_listed, files))
    return found


def pattern_of_folder(folder: str, names: Sequence[str]) -> str:
    """The location of all Parquet files below a remote folder; "" if there are none.

    Args:
        folder: its URL.
        names: of all files that are there, relative to it.

    Raises:
        DatasetError: they are several data sets.
    """
    files = [f"{folder}/{name}" for name in names if _is_listed(name.rpartition("/")[2])]
    _refuse_several(folder, files)
    return glob.escape(folder) + _BELOW if files else ""


def find_files(text: str) -> tuple[str, str, list[str]]:
    """The Parquet files that a text stands for.

    Returns:
        Their location, as ``Store.location`` without a column; what the paths of their images are relative to; and they.

    Raises:
        DatasetError: there are none; or they are several data sets.
    """
    if not is_remote(text):
        path = local_path(text)
        if path.is_dir():
            folder = str(path.resolve())
            files = [f"{here}/{name}" for here, names in _walk(Path(folder)) for name in names if _is_listed(name)]
            _refuse_several(folder, files)
            return folder + _BELOW, folder, sorted(files, key=os.fsencode)
        if path.is_file():
            location = str(path.resolve())
            return location, location, [location]
        text = os.path.abspath(path)  # noqa: PTH100 - of a pattern
    elif not is_pattern(text):
        text = os.fspath(as_stored(text))  # without what grants access
        return text, text, [text]
    files = expand(text)
    if not files:
        raise DatasetError(f"no file matches {text}")
    base = base_of(text)
    return text, base, [_below(base, file) for file in files] if is_remote(text) else files


def base_of(location: str) -> str:
    """What the paths of images are relative to: the folder of a pattern, or the file itself.

    Examples:
        >>> base_of("/data/train-*.parquet"), base_of("/data/train.parquet"), base_of("s3://bucket/data/{a,b}.parquet")
        ('/data', '/data/train.parquet', 's3://bucket/data')
    """
    if not is_pattern(location) or (not is_remote(location) and os.path.lexists(location)):
        return location
    if not is_remote(location) and Path(folder := location.removesuffix(_BELOW)).is_dir():
        return folder
    parts = location.split("/")
    magic = (at for at, part in enumerate(parts) if _MAGIC.search(_ESCAPED.sub("", part)))
    fixed = next(magic, len(parts) - 1)
    return "/".join(_ESCAPED.sub(r"\1", part) for part in parts[:fixed])


def splits_of_files(base: str, files: Sequence[str]) -> dict[str, str]:
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


def name_of_files(base: str) -> str:
    """The name of a data set: that of its file or folder; of the folder above one that is called data."""
    parts: Iterator[str] = (part for part in reversed(base.rstrip("/").split("/")) if part)
    last = next(parts, "parquet")
    stem = last[: -len(ENDING)] if last.lower().endswith(ENDING) else last
    stem = _stem_split(last) or stem
    return portable(next(parts, stem) if stem == "data" else stem)


def _below(base: str, file: str) -> str:
    """A URL of a file as one below the base; fsspec may spell it in another way, as ``memory:///a`` for ``memory://a``."""
    inside = file.partition(base.partition("://")[2].strip("/") + "/")[2]
    return file if file.startswith(f"{base}/") or not inside else f"{base}/{inside}"


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below one that is not hidden, links followed once, and the names of its files."""
    seen = {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(here, name))  # noqa: PTH118 - os.walk deals in str
            if not is_junk(name) and real not in seen:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        yield here, files


def _is_listed(name: str) -> bool:
    return name.lower().endswith(ENDING) and not name.startswith((".", "_"))


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
