"""One part of a data set, for one of several processes or machines that extract it together."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.data.image_set import ImageSet
from featx.errors import SettingsError

_BLOCK = 256
"""The most images in a row that go to one shard: neighbours in an archive, and few enough to deal them out evenly."""

MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``of`` parts of a data set, counted from 1.

    Blocks of up to 256 images that follow one another are dealt out in turn. So the parts depend on the number of images alone,
    have the same size but for one block, and read archives and folders in their order.

    Examples:
        >>> Shard.parse("2/3").rows(10)
        array([1, 4, 7])
        >>> [len(Shard(number, 4).rows(100_000)) for number in (1, 2, 3, 4)]
        [25088, 25088, 24992, 24832]
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST_SHARDS:
            raise SettingsError(f"shard is {self}; expected K/N with K from 1 to N, and N at most {MOST_SHARDS:,}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str | Shard) -> Shard:
        """A shard from text such as ``3/16``.

        Raises:
            SettingsError: it is something else.
        """
        if isinstance(text, Shard):
            return text
        match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", str(text))
        if not match:
            raise SettingsError(f"shard is {text!r}; expected K/N, such as 3/16 for the third of 16 parts")
        return cls(int(match[1]), int(match[2]))

    def rows(self, images: int) -> np.ndarray:
        """(M,) int64: the rows of the images that belong to the shard, ascending, of a data set of N images."""
        block = self._block(images)
        return np.flatnonzero(np.arange(images) // block % self.of == self.number - 1)

    def size(self, images: int) -> int:
        """M, the number of these rows.

        Examples:
            >>> [Shard(number, 3).size(10) for number in (1, 2, 3)]
            [4, 3, 3]
        """
        block = self._block(images)
        turns, rest = divmod(images, block * self.of)
        return turns * block + min(block, max(0, rest - block * (self.number - 1)))

    def positions(self, rows: np.ndarray, images: int) -> np.ndarray:
        """(M,) int64: the rows of a data set of N images that these rows of the shard are.

        Examples:
            >>> Shard(2, 3).positions(np.array([0, 2]), 10)
            array([1, 7])
        """
        block = self._block(images)
        turns, rest = np.divmod(np.asarray(rows, dtype=np.int64), block)
        return (turns * self.of + self.number - 1) * block + rest

    def numbers(self, positions: np.ndarray, images: int) -> np.ndarray:
        """(M,) int64: the numbers of the shards, of as many as of this one, that these rows of a data set belong to.

        Examples:
            >>> Shard(2, 3).numbers(np.array([1, 7, 9]), 10)
            array([2, 2, 1])
        """
        return np.asarray(positions, dtype=np.int64) // self._block(images) % self.of + 1

    def _block(self, images: int) -> int:
        return max(1, min(_BLOCK, images // (8 * self.of)))

    def of_images(self, images: ImageSet) -> ImageSet:
        """The images of the shard."""
        return images.take(self.rows(len(images)))

    def described(self, images: ImageSet, split_rows: int | None = None) -> dict[str, Any]:
        """What the feature file of the shard stores about it, as part of ``dataset``.

        Args:
            images: the whole data set.
            split_rows: the most images of a file, if the shards become a set of files.
        """
        found = {"number": self.number, "of": self.of, "images": len(images), "listing": _listing(images)}
        return found if split_rows is None else {**found, "split_rows": split_rows}


def _listing(images: ImageSet) -> str:
    """A hash of the paths, labels and splits of a data set, by which shards of the same state of it are known."""
    digest = hashlib.blake2b(digest_size=16)
    for names in (images.classes, map(os.fsencode, images.paths), images.splits, images.columns):
        for name in names:
            digest.update((name if isinstance(name, bytes) else name.encode(errors="surrogateescape")) + b"\0")
        digest.update(b"\0")
    digest.update(images.labels.tobytes())
    return digest.hexdigest()
