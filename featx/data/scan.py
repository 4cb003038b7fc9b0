"""``scan_images``: one entry for every source of images."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from featx.data.image_set import ImageSet, check_classes
from featx.data.sources.digits import digits_folder
from featx.data.sources.folder import scan_folder
from featx.data.sources.table import TABLE_ENDINGS, scan_table
from featx.errors import DatasetError


def scan_images(source: str | os.PathLike[str]) -> ImageSet:
    """List the images of a data set without opening one.

    Args:
        source: a folder ``class/...``, a folder ``train|val|test/class/...``, a flat folder (unlabelled), a table
            (.csv, .tsv, .jsonl, .parquet) with the columns ``path``, ``label`` and, if wanted, ``split``, whose paths are
            relative to it; or "digits", the built-in scans ("./digits" is a folder of that name).

    Returns:
        The images, sorted by path. Where nothing names a split, ``splits`` is "" until ``hash_splits`` decides.

    Raises:
        DatasetError: nothing there, no images, contradictory or missing labels, or a class that cannot be learned.
    """
    if str(source) == "digits":
        return dataclasses.replace(scan_folder(digits_folder()), name="digits")
    path = Path(source)
    if path.is_dir():
        images = scan_folder(path)
    elif path.is_file() and path.suffix.lower() in TABLE_ENDINGS:
        images = scan_table(path)
    elif path.is_file():
        raise DatasetError(f"{path} is a file; expected a folder of images or a table ({', '.join(TABLE_ENDINGS)})")
    else:
        raise DatasetError(
            f"there is no {path}; expected a folder of images, a table ({', '.join(TABLE_ENDINGS)}) or 'digits'"
        )
    return dataclasses.replace(images, notes=(*images.notes, *check_classes(images)))
