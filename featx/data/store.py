"""Where the images of a data set lie: a folder, archives, tables with image bytes, or a remote folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from featx.data.boxes import split_box
from featx.data.file_bytes import MISSING_FACTS, FileBytes, FileFacts, facts_of, read_file
from featx.data.places import is_remote

READ_AHEAD = 32
"""The number of images that are read at once from a server, so that its latency does not limit the speed."""


class Store(Protocol):
    """Images by their paths. A module of ``featx.data.sources`` brings the store of its kind of data.

    The methods may be called from several threads. Paths are those of an ``ImageSet`` without boxes.

    Attributes:
        location: an absolute path or a URL, by which ``open_store`` opens the store again; a feature file stores it as the root
            of the data set. A path of an image after it, with a slash between, names the image uniquely.
        concurrency: how many images are worth reading at once ahead of decoding, because each read waits for a network; 0 where
            the threads that decode read, too.
    """

    location: str
    concurrency: int

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """What is known of N images without reading them, by which a later run finds them unchanged."""
        ...

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """Read one image.

        Args:
            path: of the image.
            admit: called with its size in bytes before it is read into memory; it may wait.

        Raises:
            ImageError: it is missing, cannot be read, is too large, or has changed while it was read.
        """
        ...

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """(N,) int64: the order in which reading N images is fastest, as a permutation of their numbers."""
        ...

    def name(self, path: str) -> str:
        """The image as messages name it: what a user would look for."""
        ...

    def exists(self) -> bool:
        """Whether the data are still there; True where that cannot be told without a network."""
        ...


class FolderStore:
    """Images in a local folder; the paths are relative to it or absolute.

    Examples:
        >>> FolderStore("/photos").name("cat/1.jpg")
        '/photos/cat/1.jpg'
    """

    concurrency = 0

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.location = os.fspath(folder)

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``."""
        rows = np.full((len(paths), 4), MISSING_FACTS, dtype=np.int64)
        for row, path in enumerate(paths):
            try:
                rows[row] = facts_of(os.stat(os.path.join(self.location, path)))  # noqa: PTH116, PTH118 - Path is slow
            except (OSError, ValueError):  # ValueError: a null character in the path
                continue
        return FileFacts.of_rows(rows)

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        return read_file(Path(self.location, path), admit)

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: as they come."""
        return np.arange(len(paths))

    def name(self, path: str) -> str:
        """As ``Store.name``: the path of the file."""
        return str(Path(self.location, path))

    def exists(self) -> bool:
        """As ``Store.exists``."""
        return os.path.lexists(self.location)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of a store.

    Attributes:
        store: where it lies.
        path: its path in the store, with its box if only a part of the image is meant.
    """

    store: Store
    path: str

    @property
    def name(self) -> str:
        """The image as messages name it."""
        path, box = split_box(self.path)
        return self.store.name(path) + self.path[len(path) :] if box else self.store.name(self.path)

    @property
    def concurrency(self) -> int:
        """How many images are worth reading at once ahead of decoding; see ``Store``. A path may be a URL of its own."""
        return READ_AHEAD if is_remote(self.path) else self.store.concurrency

    def exists(self) -> bool:
        """Whether the image is there."""
        return bool(self.store.facts([split_box(self.path)[0]]).sizes[0] >= 0)

    def read(self, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """Read the image; see ``Store.read``."""
        path, box = split_box(self.path)
        file = self.store.read(path, admit)
        return dataclasses.replace(file, box=box) if box else file
