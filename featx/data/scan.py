"""``scan_images``: one entrance for every source of images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from featx.data.image_set import ImageSet, check_classes
from featx.data.path_labels import with_path_labels
from featx.data.scan_options import ScanOptions
from featx.data.sources import archive, digits, folder, hugging_face, parquet, remote, table
from featx.errors import DatasetError, FeatxError, system_errors
from featx.io.file_kinds import IMAGE, kind_of_file, misplaced
from featx.text import brief, described


class Source(Protocol):
    """What a module of ``featx.data.sources`` offers.

    Attributes:
        EXPECTED: a few words that name the source in an error message.
        OPTIONS: the fields of ``ScanOptions`` that it reads, besides ``COMMON``; ``scan_images`` refuses all others.
    """

    EXPECTED: str
    OPTIONS: Collection[str]

    def matches(self, data: str | os.PathLike[str]) -> bool:
        """Whether the source can scan the data, judged by the look of the path alone."""
        ...

    def scan(self, data: str | os.PathLike[str], options: ScanOptions) -> ImageSet:
        """List the images, sorted by path, without opening one.

        Raises:
            DatasetError: the data cannot be read.
        """
        ...


SOURCES: Sequence[Source] = (hugging_face, parquet, archive, folder, table, digits, remote)
"""The first source that matches scans the data. A new source is one module and its name here."""

COMMON = ("label_pattern", "group_level")
"""The options that ``scan_images`` itself applies, to the images of every source."""


@system_errors()
def scan_images(source: str | os.PathLike[str], options: ScanOptions | None = None, **fields: Any) -> ImageSet:
    """List the images of a data set without opening one.

    Args:
        source: a folder ``class/...``, a folder ``train|val|test/class/...``, a flat folder (unlabelled), or a table
            (.csv, .tsv, .jsonl, .parquet) with the columns ``path``, ``label`` and, optionally, ``split``, whose paths are
            relative to the table; or "digits", the built-in scans ("./digits" is a folder of that name). Folders around these
            are passed over, and names such as ``train2017`` or ``test_set`` mean splits; a note states how they were read.
        options: the columns of a table, classes in the names of files, and what else the layout does not tell.
        fields: the same as keyword arguments, by the names of the fields of ``ScanOptions``: ``path_column="file"``.

    Returns:
        The images, sorted by path. If the source names no splits, ``splits`` is "" until ``hash_splits`` decides.

    Raises:
        DatasetError: there is nothing, there are no images, the layout of a folder has two readings, or a table is malformed,
            contradicts itself, or names no file that is there; or an option has no effect on this kind of data.
        SettingsError: there is no option of such a name or type.

    Example:

        images = featx.scan_images("photos")
        images = featx.scan_images("train.csv", path_column="file", label_column="species")
        print(len(images), images.classes)
    """
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        found = "an empty path" if isinstance(source, str) else described(source)
        raise DatasetError(
            f"found {found}; expected the path of a folder or of a table. Images in several places are listed in a table"
        )
    options = ScanOptions.of(options, fields)
    try:
        for kind in SOURCES:
            if kind.matches(source):
                options.require_only((*kind.OPTIONS, *COMMON), source, kind.EXPECTED)
                images = with_path_labels(kind.scan(source, options), options)
                return dataclasses.replace(images, notes=(*images.notes, *check_classes(images)))
    except FeatxError:
        raise
    except OSError as error:
        raise DatasetError(f"cannot read {os.fspath(source)[:200]!r}: {error.strerror or brief(error)}") from error
    expected = _expected()
    if found := misplaced(source, expected):
        raise DatasetError(found + ("; name the folder that holds it" if kind_of_file(source) == IMAGE else ""))
    found = f"{Path(source)} is a file" if Path(source).is_file() else f"there is no {Path(source)}"
    raise DatasetError(f"{found}; expected {expected}")


def _expected() -> str:
    """The kinds of data as the end of a sentence, the most common ones first."""
    kinds: dict[Source, None] = dict.fromkeys([folder, table, *SOURCES])
    return f"{', '.join(kind.EXPECTED for kind in kinds if kind is not digits)} or {digits.EXPECTED}"
