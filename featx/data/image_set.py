"""``ImageSet``: the paths, labels and splits of a data set, without its pixels."""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featx.data.boxes import split_box
from featx.data.columns import storable
from featx.data.file_bytes import FileFacts
from featx.data.places import is_remote
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.store import ImageFile, Store
from featx.errors import DatasetError
from featx.text import counted

UNLABELLED = -1
"""The label of an unlabelled image."""

PRETRAIN = "pretrain"
"""The split of images that the backbone was trained on. No head is fitted or judged on them."""

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
"""Names of folders and table cells to names of splits."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a data set, sorted by path.

    Attributes:
        name: the name of the folder or table.
        store: where the images lie; a path is the path of a folder of images.
        paths: (N,) str with forward slashes; bytes that are not UTF-8 are surrogate escapes (``os.fsdecode``).
        labels: (N,) int64, indices into ``classes``; -1 means unlabelled.
        splits: (N,) str: "train", "val", "test", "pretrain" or another name from a table; "" until ``hash_splits`` decides.
        classes: (C,) class names, sorted.
        notes: sentences for the user about what was left out or looks odd.
        table: the table that lists the images, a path or a URL, or None.
        columns: further columns of the table by their names, (N,) object arrays of str; "" where a cell is empty.
        options: how the data were read.
    """

    name: str
    store: Store
    paths: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    table: Path | str | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    options: ScanOptions = NO_OPTIONS

    def __post_init__(self) -> None:
        """Check the arrays against one another.

        Raises:
            DatasetError: their lengths differ, a label is no index of a class, or a name cannot be stored.
        """
        count = len(self.paths)
        if not len(self.labels) == len(self.splits) == count:
            raise DatasetError(
                f"found {counted(count, 'path')}, {counted(len(self.labels), 'label')} and "
                f"{counted(len(self.splits), 'split')}; expected one of each per image"
            )
        if wrong_lengths := {name: len(cells) for name, cells in self.columns.items() if len(cells) != count}:
            raise DatasetError(
                f"found {counted(count, 'path')}, and columns of other lengths: {wrong_lengths}; expected one cell per image"
            )
        if count and not (self.labels.min() >= UNLABELLED and self.labels.max() < len(self.classes)):
            raise DatasetError(
                f"labels are {self.labels.min()} to {self.labels.max()}; expected indices of the "
                f"{counted(len(self.classes), 'class', 'classes')}, or {UNLABELLED} for none"
            )
        for what, names in (("class", self.classes), ("path", self.paths), ("split", sorted(set(self.splits)))):
            wrong = next((name for name in names if "\0" in name or (not name and what != "split")), None)
            if wrong is not None:
                raise DatasetError(f"the {what} {wrong!r} is empty or holds a null character; expected text")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def root(self) -> str:
        """What the paths are relative to: an absolute local path or a URL."""
        return self.store.location

    @property
    def is_remote(self) -> bool:
        """Whether images lie on other machines, so that each question about them takes a while."""
        return self.store.concurrency > 0 or any(map(is_remote, self.paths))

    @property
    def asks_for_each(self) -> bool:
        """Whether what is known of images costs a request for each of them, as on a web server."""
        return bool(getattr(self.store, "asks_for_each", False)) or any(map(is_remote, self.paths))

    def file(self, row: int) -> ImageFile:
        """The image in one row."""
        return ImageFile(self.store, str(self.paths[row]))

    def facts(self) -> FileFacts:
        """What is known of the N images without reading them."""
        return self.store.facts([split_box(path)[0] for path in self.paths])

    def take(self, rows: np.ndarray) -> ImageSet:
        """The images in (M,) rows, ascending, as a data set of the same name, root and classes."""
        return dataclasses.replace(
            self,
            paths=self.paths[rows],
            labels=self.labels[rows],
            splits=self.splits[rows],
            columns={name: cells[rows] for name, cells in self.columns.items()},
        )

    def order(self, rows: np.ndarray) -> np.ndarray:
        """(M,) int64: the same rows in the order in which reading their images is fastest."""
        ordered: np.ndarray = rows[self.store.order([split_box(path)[0] for path in self.paths[rows]])]
        return ordered


def assemble(
    name: str,
    store: Store,
    paths: Sequence[str],
    names: Sequence[str | None],
    splits: Sequence[str],
    notes: Sequence[str],
    *,
    table: Path | str | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    options: ScanOptions = NO_OPTIONS,
) -> ImageSet:
    """Build an ``ImageSet`` from the lists of a source: sort the images by path and number the classes.

    Args:
        name: the name of the data set.
        store: where the images lie.
        paths: N paths.
        names: N class names; None means unlabelled.
        splits: N names of splits, all "" if they are to be decided later.
        notes: sentences for the user.
        table: the table that lists the images.
        columns: N cells of each further column, by its name; what a feature file cannot hold is left out, with a note.
        options: how the data were read.
    """
    kept, on_columns = storable(columns or {})
    classes = tuple(sorted({name for name in names if name is not None}))
    index = {name: label for label, name in enumerate(classes)}
    order = sorted(range(len(paths)), key=lambda row: os.fsencode(paths[row]))
    labels = [UNLABELLED if names[row] is None else index[names[row]] for row in order]  # type: ignore[index]
    return ImageSet(
        name=re.sub(r"[^\w.+-]+", "-", name),
        store=store,
        paths=np.array([paths[row] for row in order], dtype=object),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array([splits[row] for row in order], dtype=object),
        classes=classes,
        notes=(*notes, *on_columns),
        table=table,
        columns={name: np.array([cells[row] for row in order], dtype=object) for name, cells in kept.items()},
        options=options,
    )


def check_classes(images: ImageSet) -> Iterator[str]:
    """Yield a note about each odd class."""
    alike: dict[str, list[str]] = {}
    for name in images.classes:
        alike.setdefault("".join(unicodedata.normalize("NFKC", name).lower().split()), []).append(name)
    for _, same in sorted(alike.items()):
        if len(same) > 1:
            by_case = len({name.lower() for name in same}) == 1
            names = " and ".join(map(repr if by_case else ascii, same))
            how = "case" if by_case else "case, spaces or the form of Unicode"
            yield f"classes {names} differ only by {how}; they remain separate classes"
    if len(images.classes) == 1:
        yield f"there is one class only, {images.classes[0]!r}: features can be extracted, but a head needs two"
    if (
        len(images.classes) > 10
        and 2 * len(images.classes) > np.count_nonzero(images.labels >= 0)
        and _are_names(images)
    ):
        yield (
            f"there are {len(images.classes):,} classes in {np.count_nonzero(images.labels >= 0):,} images, such as "
            f"{images.classes[0]!r} and {images.classes[1]!r}. If those are ids, of patients or of products, they are groups "
            "(--group-level, --group) and no classes"
        )
    strange = _classes_without_train(images) if "train" in images.splits else np.zeros(0, dtype=np.int64)
    if not len(strange):
        return
    name, rows = images.classes[strange[0]], np.flatnonzero(images.labels == strange[0])
    others = f" and {counted(len(strange) - 1, 'other class', 'other classes')} have" if len(strange) > 1 else " has"
    if images.table is None:
        splits = Counter(images.splits[rows])
        where = " and ".join(f"{splits[s]} in {s}" for s in ("val", "test") if splits[s])
        yield (
            f"class {name!r}{others} no images in train but {where} (such as {images.paths[rows[0]]}): features can be "
            "extracted, but a head can be fitted only if train has images of the class, or if those are removed"
        )
        return
    # The labels of a table may be numbers or lists of labels, which need not repeat.
    yield (
        f"class {name!r}{others} no images in train but in val or test (such as {images.paths[rows[0]]}): no head can learn "
        "such a class; ignore this if the labels are numbers (--task regression) or lists (--task multilabel)"
    )


def _are_names(images: ImageSet) -> bool:
    """Whether the classes are neither numbers nor lists of labels."""
    return not any("|" in name or re.fullmatch(r"-?[\d.,]+(e-?\d+)?", name) for name in images.classes)


def _classes_without_train(images: ImageSet) -> np.ndarray:
    """The labels that occur in val or test but not in train."""
    labelled = images.labels != UNLABELLED
    judged = labelled & ((images.splits == "val") | (images.splits == "test"))
    return np.setdiff1d(images.labels[judged], images.labels[labelled & (images.splits == "train")])
