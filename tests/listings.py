"""Folders and tables of empty files, for tests that only list them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from featx.data.file_bytes import image_key
from featx.data.image_set import UNLABELLED, ImageSet

MakeImage = Callable[..., Path]


def touch(root: Path, *names: str) -> Path:
    """Files that need no content, since a scan opens none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def table(path: Path, text: str, *images: str, encoding: str = "utf-8") -> Path:
    """A table, and the files it names, beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    touch(path.parent, *images)
    path.write_bytes(text.encode(encoding))
    return path


def label_names(images: ImageSet) -> list[str | None]:
    return [None if label == UNLABELLED else images.classes[label] for label in images.labels]


# The split by content


def keys_of(count: int, start: int = 0) -> np.ndarray:
    data = b"".join(image_key(str(number).encode()) for number in range(start, start + count))
    return np.frombuffer(data, np.uint8).reshape(-1, 16)


def keys_named(*names: object) -> np.ndarray:
    """The (n, 16) uint8 keys of images whose contents are these names; equal names are copies."""
    return np.frombuffer(b"".join(image_key(str(name).encode()) for name in names), np.uint8).reshape(-1, 16)


def words(*values: str) -> np.ndarray:
    """A column of text, (n,) object."""
    return np.array(values, dtype=object)
