"""Where the images are, what they are called and which split they belong to. No pixels.

``scan_images`` reads a folder, a table or the built-in digits into an ``ImageSet``. It opens no image.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.errors import DatasetError

UNLABELLED = -1
"""The label of an image that has none."""

PRETRAIN = "pretrain"
"""The split of images that a backbone has seen while it was made. No head is fitted or judged on them."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    PRETRAIN: PRETRAIN,
}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a data set, sorted by path.

    Attributes:
        name: the folder's or table's name.
        root: what the paths are relative to.
        paths: (N,) str, with forward slashes; bytes that are not UTF-8 as surrogate escapes (``os.fsdecode``).
        labels: (N,) int64, indices into ``classes``; -1 is unlabelled.
        splits: (N,) str: "train", "val", "test", "pretrain" or a table's own; "" is to be decided by ``hash_splits``.
        classes: (C,) class names, sorted.
        notes: what was left out or looks odd, one sentence each, for the user to read.
        table: the table that names the images, or None.
    """

    name: str
    root: Path
    paths: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    table: Path | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def absolute(self, row: int) -> Path:
        """The file of one row."""
        return self.root / str(self.paths[row])


def image_key(data: bytes) -> bytes:
    """The key of an image: 16 bytes, BLAKE2b of its file's bytes. A renamed or copied image keeps its key."""
    return hashlib.blake2b(data, digest_size=16).digest()


# What every source shares


def assemble(
    name: str,
    root: Path,
    paths: Sequence[str],
    names: Sequence[str | None],
    splits: Sequence[str],
    notes: Sequence[str],
) -> ImageSet:
    """Build an ``ImageSet`` from the lists that a source gives: sort it by path and number its classes."""
    classes = tuple(sorted({name for name in names if name is not None}))
    index = {name: label for label, name in enumerate(classes)}
    order = sorted(range(len(paths)), key=lambda row: os.fsencode(paths[row]))
    labels = [UNLABELLED if names[row] is None else index[names[row]] for row in order]  # type: ignore[index]
    return ImageSet(
        name=re.sub(r"[^\w.+-]+", "-", name),
        root=root,
        paths=np.array([paths[row] for row in order], dtype=object),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array([splits[row] for row in order], dtype=object),
        classes=classes,
        notes=tuple(notes),
    )


def check_classes(images: ImageSet) -> Iterator[str]:
    """Notes on odd classes; raises where a folder has a class that is to be judged and could never be learned."""
    by_lower: dict[str, list[str]] = {}
    for name in images.classes:
        by_lower.setdefault(name.lower(), []).append(name)
    for _, same in sorted(by_lower.items()):
        if len(same) > 1:
            yield f"classes {' and '.join(map(repr, same))} differ by case alone; they are kept apart"
    if len(images.classes) == 1:
        yield f"there is one class only, {images.classes[0]!r}: features can be extracted, but a head needs two"
    strange = _classes_without_train(images) if "train" in images.splits else np.zeros(0, dtype=np.int64)
    if not len(strange):
        return
    name, rows = images.classes[strange[0]], np.flatnonzero(images.labels == strange[0])
    splits, example = Counter(images.splits[rows]), images.paths[rows[0]]
    where = " and ".join(f"{splits[s]} in {s}" for s in ("val", "test") if splits[s])
    if images.table is None:
        raise DatasetError(
            f"class {name!r} has no images in train but {where} (such as {example}): no head can learn it. "
            f"Add train images of it or take those out, in {images.root}"
        )
    # What a table calls a label may be a number or a list of labels, of which no two rows need be alike.
    others = f" and {len(strange) - 1} other classes have" if len(strange) > 1 else " has"
    yield (
        f"class {name!r}{others} no images in train but in val or test (such as {example}): no head can learn such a class; "
        "all is well where labels are numbers (--task regression) or lists (--task multilabel)"
    )


def _classes_without_train(images: ImageSet) -> np.ndarray:
    """The labels that have images in val or test, and none in train."""
    labelled = images.labels != UNLABELLED
    judged = labelled & ((images.splits == "val") | (images.splits == "test"))
    return np.setdiff1d(images.labels[judged], images.labels[labelled & (images.splits == "train")])
