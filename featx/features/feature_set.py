"""The features of one data set in memory, with labels, splits and names. It depends on numpy only."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from featx.arguments import names_of
from featx.data.image_set import UNLABELLED
from featx.errors import CorruptFileError, HeadError, OutputError
from featx.features.arrays import checked_fields
from featx.features.feature_file import DONE, FeatureFile
from featx.identity import joint_features, joint_identity
from featx.io.atomic import reserve
from featx.layer_spec import PENULTIMATE, LayerSpec, largest_views
from featx.text import size_text

MOST_IN_MEMORY = 1 << 30
"""The most bytes of features that are joined in memory, for several layers or views; larger ones go to a temporary file."""

_BLOCK = 64 << 20
"""Bytes of features that are joined at once in a temporary file."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of one layer of one data set, or of several layers side by side: one row per image.

    Attributes:
        features: (N, D) float32 or float16; (N, V, D) for V views of each image (test-time augmentation, TTA). One layer in one
            view of a file is memory-mapped, and so are features that are too large for memory.
        labels: (N,) int64 into ``classes``; -1 for an unlabelled image. Lists and whole floats are converted; NaN is -1.
        splits: (N,) str.
        classes: (C,) names of the classes.
        paths: (N,) str, relative to the data set's root.
        keys: (N, 16) uint8, the content hashes of the images.
        layer: the layer spec of the features, as in ``LayerSpec.parse``.
        identity: SHA-256, in hex, of everything that the features depend on; "" for features that are not from a backbone.
        backbone: what is needed to build the backbone again, as a feature file stores it.
        dataset: name, root and origin of the splits, as a feature file stores them.
        source: the feature file, or None.
        groups: (N,) object array of str: images with the same value belong together, such as one patient's, and "" belongs
            to none; or None. ``featx.heads.with_groups`` reads them from a table.
        group: the name of the column that ``groups`` come from, or None.
        columns: further columns of the table that lists the images, by their names: (N,) object arrays of str, "" where a
            cell is empty. Numbers are converted to text.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> features = FeatureSet(
        ...     features=rng.normal(size=(4, 3)).astype(np.float32),
        ...     labels=np.array([0, 1, 0, -1]),
        ...     splits=np.array(["train", "train", "test", "train"], dtype=object),
        ...     classes=("ant", "bee"),
        ...     paths=np.array(["1.png", "2.png", "3.png", "4.png"], dtype=object),
        ...     keys=np.zeros((4, 16), dtype=np.uint8),
        ... )
        >>> len(features), features.width, features.held_out()
        (4, 3, 'test')
        >>> features.split("train").paths.tolist()  # without the unlabelled image
        ['1.png', '2.png']
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
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Turn lists into arrays and whole floats into integers, and check the fields against one another.

        Raises:
            HeadError: a field has an unexpected type or shape, or a label is no index of a class.
        """
        for name, value in checked_fields(vars(self)).items():
            object.__setattr__(self, name, value)

    @classmethod
    def load(cls, path: str | os.PathLike[str], layer: str | Sequence[str] = PENULTIMATE) -> FeatureSet:
        """Read a feature file, without the images that failed.

        Args:
            path: the path of the file.
            layer: a layer spec, as in ``LayerSpec.parse``: one of the file's layers, or a list or several with commas, whose
                features are concatenated; after an ``@``, the views. Several layers or views are joined in memory up to
                ``MOST_IN_MEMORY`` bytes.

        Raises:
            CacheMissError: there is no such file or layer.
            BackboneError: there is no such set of views.
            CorruptFileError: the file is damaged, or a row does not match its checksum.
            OutputError: the disk has no room for features that are too large to be joined in memory.
        """
        file = FeatureFile(path)
        rows = np.flatnonzero(file.status == DONE)
        layer = ",".join(names_of(layer, "layer"))
        names = LayerSpec.parse(layer).stored
        layers = [name for view in names for name in view]
        matches = file.checksums_match_in_all(layers, rows)
        if not matches.all():
            first = file.paths[rows[np.argmin(matches)]]
            raise CorruptFileError(
                f"{file.path}: {np.count_nonzero(~matches)} of {len(rows)} rows of layer {layer} do not match their "
                f"checksums, the first of {first}; the same featx extract with --rehash computes those again"
            )
        return cls(
            features=_join([[file.features(name) for name in view] for view in names], rows, file.path.parent),
            labels=file.images.labels[rows],
            splits=file.splits[rows],
            classes=file.classes,
            paths=np.array(file.paths, dtype=object)[rows],
            keys=file.keys[rows],
            layer=layer,
            identity=joint_identity([file.layers[name].identity for name in layers]),
            backbone=file.backbone,
            dataset=file.dataset,
            source=file.path.resolve(),
            columns={name: file.column(name)[rows] for name in file.column_names},
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """Width D of the features."""
        return int(self.features.shape[-1])

    @property
    def views(self) -> int:
        """The number V of views of each image."""
        return 1 if self.features.ndim == 2 else int(self.features.shape[1])

    @property
    def plain(self) -> np.ndarray:
        """The features of the first view, (N, D). In every set of views that is the plain one."""
        return self.features if self.features.ndim == 2 else self.features[:, 0]

    def take(self, rows: np.ndarray) -> FeatureSet:
        """Select rows, by number or mask."""
        parts = {n: getattr(self, n)[rows] for n in ("features", "labels", "splits", "paths", "keys")}
        parts["columns"] = {name: cells[rows] for name, cells in self.columns.items()}
        if self.groups is not None:
            parts["groups"] = self.groups[rows]
        return dataclasses.replace(self, **parts)

    def without_features(self, rows: np.ndarray) -> FeatureSet:
        """Select rows with features of shape (n, 0), so that nothing large is copied."""
        nothing = np.empty((len(self), 0), dtype=np.float32)
        return dataclasses.replace(self, features=nothing).take(rows)

    def rows(self, name: str) -> np.ndarray:
        """The numbers of the labelled rows of one split: (n,) int64.

        Args:
            name: the split, or "all" for every labelled row.

        Raises:
            HeadError: the split has no labelled rows.
        """
        rows = np.flatnonzero((self.labels != UNLABELLED) & ((self.splits == name) | (name == "all")))
        if not len(rows):
            hint = self._how_to_split()
            raise HeadError(f"there are no labelled images in the split {name!r}; {self.describe_splits()}{hint}")
        return rows

    def split(self, name: str) -> FeatureSet:
        """Select the labelled rows of one split, or of all splits with "all".

        Raises:
            HeadError: the split has no labelled rows.
        """
        return self.take(self.rows(name))

    def held_out(self) -> str:
        """The name of the held-out split: "test" if it has labelled images, otherwise "val".

        Raises:
            HeadError: neither has labelled images.
        """
        labelled = set(self.splits[self.labels != UNLABELLED])
        for name in ("test", "val"):
            if name in labelled:
                return name
        raise HeadError(
            f"there is no held-out split: no labelled images in test or val; {self.describe_splits()}. Name a split in the "
            f"table or make folders train/ and test/; featx splits a data set that names none{self._how_to_split()}"
        )

    def _how_to_split(self) -> str:
        """Where all labelled images are in one split: how to have them split, as the end of a message."""
        labelled = self.labels != UNLABELLED
        if not self.source or len(set(self.splits[labelled])) != 1 or self.dataset.get("splits") == "hash":
            return ""
        if self.dataset.get("table"):
            return f". To have them split, run featx extract on {self.dataset['table']} without the column split"
        folders = [os.path.dirname(os.path.dirname(path)) for path in self.paths[labelled].tolist()]  # noqa: PTH120 - of str
        folder = os.path.commonpath(folders)
        return f". To have them split, run featx extract {Path(self.dataset['root'], folder)}" if folder else ""

    def describe_splits(self) -> str:
        """The number of labelled images in each split, as a phrase for messages."""
        counts = Counter(self.splits[self.labels != UNLABELLED])
        unlabelled = np.count_nonzero(self.labels == UNLABELLED)
        parts = [f"{n} in {name or 'no split'}" for name, n in sorted(counts.items())]
        return "found " + ", ".join([*parts, *([f"{unlabelled} unlabelled"] if unlabelled else [])])


def _join(views: Sequence[Sequence[np.ndarray]], rows: np.ndarray, folder: Path) -> np.ndarray:
    """Join some rows of several layers in several views, as ``joint_features`` does.

    Args:
        views: for each view, the (M, D) features of each layer, memory-mapped.
        rows: (N,) int64 row numbers.
        folder: where the temporary file goes if the result is too large for memory.

    Returns:
        (N, D) of one view, or (N, V, D) of several.
    """
    first = views[0][0]
    all_rows = len(rows) == len(first)
    if all_rows and len(views) == len(views[0]) == 1:
        return first

    def select(which: Any) -> np.ndarray:
        return joint_features([[part[which] for part in layers] for layers in views])

    shape = (len(rows), *select(slice(0)).shape[1:])
    row_bytes = math.prod(shape[1:]) * first.itemsize
    if len(rows) * row_bytes <= MOST_IN_MEMORY:
        return select(slice(None) if all_rows else rows)
    with _temporary_file(folder, len(rows) * row_bytes) as file:
        out = np.memmap(file, first.dtype, "r+", shape=shape)
        step = max(1, _BLOCK // row_bytes)
        for at in range(0, len(rows), step):
            out[at : at + step] = select(rows[at : at + step])
        out.flush()
        return np.memmap(file, first.dtype, "r", shape=shape)


@contextlib.contextmanager
def _temporary_file(folder: Path, size: int) -> Iterator[IO[bytes]]:
    """An unnamed file of ``size`` bytes, which disappears with its last mapping.

    It lies beside the features, or in the system's temporary folder if that folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            except OSError:
                file = stack.enter_context(tempfile.TemporaryFile())
            reserve(file.fileno(), size)
        except OSError as error:
            raise OutputError(
                f"there is no room for {size_text(size)} of joined features: {error.strerror}; free some space, or name "
                "fewer layers or views"
            ) from error
        yield file


def views_in(path: str | os.PathLike[str], layer: str) -> str:
    """The name of the largest set of views in which a feature file stores a layer, or each of several.

    Args:
        path: the path of the file.
        layer: layers with commas between them.

    Raises:
        CacheMissError: there is no such file.
        CorruptFileError: the file is damaged.
    """
    return largest_views(FeatureFile(path).layers, LayerSpec.parse(layer).layers)
