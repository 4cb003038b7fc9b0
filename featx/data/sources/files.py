"""Single image files: one, several, URLs, or a pattern such as ``'photos/*.jpg'``."""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from featx.data.formats import ENDINGS
from featx.data.image_set import ImageSet, assemble
from featx.data.openers import open_store
from featx.data.places import expand, is_remote, local_path
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.sources.paths_store import stored_path
from featx.data.urls import folder_location, public
from featx.errors import DatasetError
from featx.io.file_kinds import PICTURE, kind_of_file
from featx.text import form, listed, portable

EXPECTED = "an image file"

OPTIONS: Collection[str] = ()
"""The options of the source; see ``featx.data.scan.Source``."""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are an image file, by its name, or a pattern that only such files match.

    A picture that featx drew is none of the images of a data set.
    """
    text = os.fspath(data)
    if is_remote(text):
        return urlsplit(text).path.lower().endswith(ENDINGS)
    if Path(text).is_file():
        return text.lower().endswith(ENDINGS) and kind_of_file(text) != PICTURE
    return glob.has_magic(text) and text.lower().endswith(ENDINGS)


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List one image file, or those that match a pattern."""
    return scan_files([data], options)


def scan_files(items: Sequence[str | os.PathLike[str]], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List image files, without labels.

    Their paths are relative to the folder that holds them all. An image that is listed twice counts once.

    Args:
        items: paths or URLs of image files, and patterns.
        options: how the data were read.

    Raises:
        DatasetError: one of them is not there or is not an image file by its name.
    """
    listed_files = [path for item in items for path in _paths_of(item)]
    found = dict.fromkeys(listed_files)
    local = [path for path in found if not is_remote(path)]
    root = os.path.commonpath([posixpath.dirname(path) for path in local]) if local else _folder_of(next(iter(found)))
    paths = sorted((path if is_remote(path) else os.path.relpath(path, root) for path in found), key=os.fsencode)
    repeated = len(listed_files) - len(found)
    notes = (
        [f"{repeated:,} of the images {form(repeated, 'is', 'are')} listed twice; each counts once"] if repeated else []
    )
    return assemble(
        _name(root, paths), open_store(root), paths, [None] * len(paths), [""] * len(paths), notes, options=options
    )


def _folder_of(url: str) -> str:
    return folder_location(url.partition("?")[0].rpartition("/")[0])


def _paths_of(item: str | os.PathLike[str]) -> list[str]:
    text = os.fspath(item)
    if is_remote(text):
        return _addresses(text)
    names = expand(os.fspath(local_path(text)))
    if not names:
        raise DatasetError(f"no file matches {text}")
    for name in names:
        if Path(name).is_dir():
            raise DatasetError(
                f"{name} is a folder among several items; expected image files. Name the folder that holds all images, or "
                "list them in a table"
            )
        if not Path(name).is_file():
            raise DatasetError(f"there is no {name}")
        if not name.lower().endswith(ENDINGS):
            raise DatasetError(f"{name} is not an image file by its ending; expected one of {listed(ENDINGS, most=8)}")
    return [os.path.abspath(name) for name in names]  # noqa: PTH100 - of str


def _addresses(text: str) -> list[str]:
    names = expand(text)
    if not names:
        raise DatasetError(f"no file matches {public(text)}")
    for name in names:
        if not urlsplit(name).path.lower().endswith(ENDINGS):
            raise DatasetError(
                f"{public(name)} is not an image file by its ending; expected one of {listed(ENDINGS, most=8)}"
            )
    return list(map(stored_path, names))


def _name(root: str, paths: Sequence[str]) -> str:
    """The name of the data set: other images of the same folder have another, so that their feature files stay apart."""
    digest = hashlib.sha256("\0".join(map(portable, (root, *paths))).encode()).hexdigest()[:8]
    first = Path(paths[0]).stem if len(paths) == 1 else f"{Path(root).name or 'root'}-{len(paths)}-images"
    return f"{portable(first)}-{digest}"
