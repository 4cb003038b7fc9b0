"""Features, labels and names in memory. numpy only."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.errors import CorruptFileError, HeadError, OutputError
from featx.features.feature_file import DONE, FeatureFile
from featx.identity import joint_features, joint_identity
from featx.io.atomic import reserve
from featx.layer_spec import PENULTIMATE, LayerSpec, largest_views
from featx.text import size_text

MOST_IN_MEMORY = 1 << 30
"""Bytes of features of several layers or views that are put together in memory; more are in a file."""

_BLOCK = 64 << 20  # bytes that are put together at once


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of one layer of one data set, a row per image.

    Attributes:
        features: (N, D) float32 or float16, or (N, V, D) of images that are seen in several views; memory-mapped where it is
            one layer in one view of a file, or large.
        labels: (N,) int64 into ``classes``, -1 unlabelled.
        splits: (N,) str.
        classes: (C,) names.
        paths: (N,) str, relative to ``root``.
        keys: (N, 16) uint8, the images' content hashes.
        layer: which layer of the backbone, or layers, and how they are seen, as ``views.py`` names them.
        identity: SHA-256 of all that the features depend on.
        backbone: how to make the backbone again, as the file keeps it.
        dataset: name, root and origin of the splits.
        source: the feature file, or None.
        groups: (N,) object array of str: images with the same value belong together, such as one patient's, and "" belongs
            to none; or None. ``featx.heads.groups.with_groups`` reads them from a table.
        group: the name of the column that ``groups`` come from, or None.
    """

    features: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    paths: np.ndarray
    keys: np.ndarray
    layer: str = PENULTIMATE
    identity: str = ""
    backbone: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    groups: np.ndarray | None = None
    group: str | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], layer: str = PENULTIMATE) -> FeatureSet:
        """Read a feature file; images that failed are left out.

        Args:
            path: of the file.
            layer: one of its layers; several with commas between them are side by side; behind an @ is the set of views they
                are seen in, plain without. Several of either are put together, in memory up to ``MOST_IN_MEMORY``.

        Raises:
            CacheMissError: no such file or layer.
            BackboneError: there is no such set of views.
            CorruptFileError: a row that does not fit its check.
            OutputError: there is no room on the disk to put together what is too large for memory.
        """
        cache = FeatureFile(path)
        rows = np.flatnonzero(cache.status == DONE)
        names = LayerSpec.parse(layer).stored
        layers = [name for view in names for name in view]
        sound = cache.sound_in_all(layers, rows)
        if not sound.all():
            bad = cache.paths[rows[np.argmin(sound)]]
            raise CorruptFileError(
                f"{cache.path}: {np.count_nonzero(~sound)} of {len(rows)} rows of layer {layer} do not fit their checks, "
                f"the first of {bad}; the same featx extract with --rehash computes those again"
            )
        return cls(
            features=_together([[cache.features(name) for name in view] for view in names], rows, cache.path.parent),
            labels=cache.images.labels[rows],
            splits=cache.splits[rows],
            classes=cache.classes,
            paths=np.array(cache.paths, dtype=object)[rows],
            keys=cache.keys[rows],
            layer=layer,
            identity=joint_identity([cache.layers[name].identity for name in layers]),
            backbone=cache.backbone,
            dataset=cache.dataset,
            source=cache.path.resolve(),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """D."""
        return int(self.features.shape[-1])

    @property
    def views(self) -> int:
        """V, how often each image is seen."""
        return 1 if self.features.ndim == 2 else int(self.features.shape[1])

    @property
    def plain(self) -> np.ndarray:
        """(N, D) of the first view, which is the plain one of every set of views."""
        return self.features if self.features.ndim == 2 else self.features[:, 0]

    def take(self, rows: np.ndarray) -> FeatureSet:
        """The same with these rows alone."""
        parts = {n: getattr(self, n)[rows] for n in ("features", "labels", "splits", "paths", "keys")}
        if self.groups is not None:
            parts["groups"] = self.groups[rows]
        return dataclasses.replace(self, **parts)

    def facts(self, rows: np.ndarray) -> FeatureSet:
        """These rows alone, without their features, (n, 0): nothing large is copied."""
        nothing = np.empty((len(self), 0), dtype=np.float32)
        return dataclasses.replace(self, features=nothing).take(rows)

    def rows(self, name: str) -> np.ndarray:
        """(n,) int64, the labelled rows of one split; "all" is every labelled row.

        Raises:
            HeadError: there are none.
        """
        rows = np.flatnonzero((self.labels != UNLABELLED) & ((self.splits == name) | (name == "all")))
        if not len(rows):
            raise HeadError(f"there are no labelled images in the split {name!r}; {self.where()}")
        return rows

    def split(self, name: str) -> FeatureSet:
        """The labelled rows of one split, as ``rows``."""
        return self.take(self.rows(name))

    def held_out(self) -> str:
        """The split that judges: "test" where there is one, else "val".

        Raises:
            HeadError: there is neither.
        """
        labelled = set(self.splits[self.labels != UNLABELLED])
        for name in ("test", "val"):
            if name in labelled:
                return name
        raise HeadError(
            f"there is no split to judge by: no labelled images in test or val; {self.where()}. Name a split in the table or "
            "make folders train/ and test/; a data set that names none is split by featx"
        )

    def where(self) -> str:
        """How many labelled images each split has, in words."""
        counts = Counter(self.splits[self.labels != UNLABELLED])
        unlabelled = np.count_nonzero(self.labels == UNLABELLED)
        parts = [f"{n} in {name or 'no split'}" for name, n in sorted(counts.items())]
        return "found " + ", ".join([*parts, *([f"{unlabelled} unlabelled"] if unlabelled else [])])


def _together(views: Sequence[Sequence[np.ndarray]], rows: np.ndarray, folder: Path) -> np.ndarray:
    """Some rows of several layers in several views, as ``joint_features``.

    Args:
        views: for each view the (M, D) features of each layer, memory-mapped.
        rows: (N,) int64.
        folder: for a file, without a name, that holds what is too large for memory.
    """
    first = views[0][0]
    every = len(rows) == len(first)
    if every and len(views) == len(views[0]) == 1:
        return first

    def some(wanted: Any) -> np.ndarray:
        return joint_features([[part[wanted] for part in layers] for layers in views])

    shape = (len(rows), *some(slice(0)).shape[1:])
    row = math.prod(shape[1:]) * first.itemsize
    if len(rows) * row <= MOST_IN_MEMORY:
        return some(slice(None) if every else rows)
    with _unnamed(folder, len(rows) * row) as file:
        out = np.memmap(file, first.dtype, "r+", shape=shape)
        step = max(1, _BLOCK // row)
        for at in range(0, len(rows), step):
            out[at : at + step] = some(rows[at : at + step])
        out.flush()
        return np.memmap(file, first.dtype, "r", shape=shape)


@contextlib.contextmanager
def _unnamed(folder: Path, size: int) -> Iterator[IO[bytes]]:
    """A file of so many bytes, which is gone with its last mapping; beside the features, or where others may write."""
    with contextlib.ExitStack() as stack:
        try:
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            except OSError:
                file = stack.enter_context(tempfile.TemporaryFile())
            reserve(file.fileno(), size)
        except OSError as error:
            raise OutputError(
                f"there is no room for {size_text(size)} of features that are put together: {error.strerror}"
            ) from error
        yield file


def views_in(path: str | os.PathLike[str], layer: str) -> str:
    """The largest set of views that a feature file has of one layer, or of each of several with commas between them.

    Raises:
        CacheMissError, CorruptFileError: the file is not there or not sound.
    """
    return largest_views(FeatureFile(path).layers, LayerSpec.parse(layer).layers)
