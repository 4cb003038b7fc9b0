"""The features of one data set in memory, with labels, splits and names. It depends on numpy only."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from featx.arguments import names_of
from featx.errors import CorruptFileError, OutputError
from featx.features.array_set import array_fields
from featx.features.arrays import checked_fields
from featx.features.checksums import damaged_rows
from featx.features.encoded_paths import EncodedPaths
from featx.features.exchange.frame import as_frame
from featx.features.feature_file import DONE
from featx.features.file_set import each_file, folder_of, is_set, open_features
from featx.features.joint_sets import joint_fields, subset_fields
from featx.features.manifest import Manifest
from featx.features.remote_folder import local_file
from featx.features.shared_reading import read_shared
from featx.features.split_rows import SplitRows
from featx.features.stacked_rows import BLOCK_BYTES, StackedRows, release_pages, select
from featx.identity import joint_features, joint_identity
from featx.io.atomic import reserve
from featx.layer_spec import PENULTIMATE, LayerSpec, largest_views
from featx.text import size_text

MOST_IN_MEMORY = 1 << 30
"""The most bytes of features that are joined in memory, for several layers or views; larger ones go to a temporary file."""

_BLOCK = 64 << 20
"""Bytes of features that are joined at once in a temporary file."""


@dataclass(frozen=True, eq=False)
class FeatureSet(SplitRows):
    """The features of one layer of one data set, or of several layers side by side: one row per image.

    Attributes:
        features: (N, D) float32 or float16; (N, V, D) for V views of each image (test-time augmentation, TTA). One layer in one
            view of a file is memory-mapped, and so are features that are too large for memory. Those of several files are
            ``StackedRows``, which are read as an array is.
        labels: (N,) int64 into ``classes``; -1 for an unlabelled image. Lists and whole floats are converted; NaN is -1.
        splits: (N,) str.
        classes: (C,) names of the classes.
        paths: (N,) str, relative to the data set's root; from files ``EncodedPaths``, which take less memory than an array.
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
        """Read a feature file, or a set of them, without the images that failed.

        Args:
            path: the path of the file, or of the folder or the manifest of a set; or the URL of a file, from which it is
                fetched unless the same is here.
            layer: a layer spec, as in ``LayerSpec.parse``: one of the file's layers, or a list or several with commas, whose
                features are concatenated; after an ``@``, the views. Several layers or views are joined in memory up to
                ``MOST_IN_MEMORY`` bytes.

        Raises:
            CacheMissError: there is no such file or layer.
            BackboneError: there is no such set of views.
            CorruptFileError: the file is damaged, or a row does not match its checksum.
            OutputError: the disk has no room for features that are too large to be joined in memory.
        """
        return cls(**_read_fields(local_file(path) if isinstance(path, str) and path else path, layer))

    @classmethod
    def from_arrays(
        cls,
        X: Any,
        y: Any = None,
        *,
        paths: Any = None,
        classes: Sequence[str] | None = None,
        splits: Any = None,
        keys: Any = None,
        groups: Any = None,
        columns: Mapping[str, Any] | None = None,
        name: str = "arrays",
    ) -> FeatureSet:
        """Make a feature set of arrays, data frames, tensors or lists.

        Args:
            X: (N, D) features, or (N, V, D) of V views of each image.
            y: the labels, or None: names or whole numbers are classes, floats with fractions are numbers to predict, and lists
                of names, or a (N, C) array of 0 and 1, are several labels of each row; ``featx.features.array_labels`` has the
                details. None, NaN and "" are no label.
            paths: (N,) names of the rows; by default the index of a data frame, if it is of text, else numbers.
            classes: names of the classes, in their order; ``y`` may then hold indices into them, and -1 for no label.
            splits: (N,) names such as "train" and "test", or one name for all rows. By default the rows are split by the hash
                of their content, as images are: 70 % train, 10 % val, 20 % test.
            keys: (N, 16) uint8, or 32 hexadecimal digits each; by default hashes of the rows of ``X``.
            groups: (N,) names: rows with the same name are never in two splits or folds.
            columns: further columns of N cells each, by their names.
            name: of the data set.

        Raises:
            HeadError: an argument has an unexpected type or shape, or the lengths differ.

        Examples:
            >>> rng = np.random.default_rng(0)
            >>> features = FeatureSet.from_arrays(rng.normal(size=(4, 3)), ["ant", "bee", "bee", None], splits="train")
            >>> features.classes, features.labels.tolist()
            (('ant', 'bee'), [0, 1, 1, -1])
        """
        return cls(
            **array_fields(
                X, y, paths=paths, classes=classes, splits=splits, keys=keys, groups=groups, columns=columns, name=name
            )
        )

    @classmethod
    def join(cls, sets: Sequence[FeatureSet]) -> FeatureSet:
        """Join the features of several backbones side by side, image by image.

        Args:
            sets: of the same images, which are found by their keys, in the same views.

        Returns:
            The images that all sets hold, in the order of the first set, with its labels and splits. The columns are those of
            each set, one after the other; ``backbone`` lists the parts.

        Raises:
            HeadError: fewer than two sets, sets of other views, no image that all hold, or an image with two labels.
        """
        return cls(**joint_fields(sets)[0])

    def parts(self, numbers: Sequence[int]) -> FeatureSet:
        """Some of the backbones of a joint set alone, by their numbers from 0, for the same images."""
        return dataclasses.replace(self, **subset_fields(self, numbers))

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
        if isinstance(self.features, StackedRows):
            return cast(np.ndarray, self.features if self.views == 1 else self.features.view(0))
        return self.features if self.features.ndim == 2 else self.features[:, 0]

    def to_pandas(self, *, embeddings: bool = True) -> Any:
        """Make a data frame of pandas (``pip install 'featx[pandas]'``).

        Args:
            embeddings: with a column for each number of the features: ``embedding_0``, ... Of several views, the plain one's.

        Returns:
            A frame whose index is ``path``, with the columns ``label`` (categorical), ``split``, ``key`` (hexadecimal), the
            further columns and the features.

        Raises:
            HeadError: pandas is missing.
        """
        columns = dict(self.columns) | ({self.group or "group": self.groups} if self.groups is not None else {})
        return as_frame(
            features=self.plain if embeddings else None, labels=self.labels, classes=self.classes, splits=self.splits,
            paths=self.paths, keys=self.keys, columns=columns,
        )  # fmt: skip

    def take(self, rows: np.ndarray) -> FeatureSet:
        """Select rows, by number or mask."""
        parts = {n: getattr(self, n)[rows] for n in ("labels", "splits", "keys")}
        parts["paths"] = self.paths.take(rows) if isinstance(self.paths, EncodedPaths) else self.paths[rows]
        parts["features"] = select(self.features, rows, MOST_IN_MEMORY)
        parts["columns"] = {name: cells[rows] for name, cells in self.columns.items()}
        if self.groups is not None:
            parts["groups"] = self.groups[rows]
        return dataclasses.replace(self, **parts)

    def blocks(
        self, rows: np.ndarray | None = None, *, most: int = BLOCK_BYTES
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Read rows in blocks of bounded memory, however large the features are.

        Args:
            rows: (n,) int64 row numbers, in the order in which they are read; ascending ones are read fastest. By default all.
            most: bytes of features in a block, at most, but at least one row.

        Yields:
            (B,) int64 row numbers, their (B, D) or (B, V, D) features as they are stored, and their (B,) labels. A block is
            valid until the next one is asked for: of mapped files, its memory is released then.

        Example:

            for rows, X, y in features.blocks(features.rows("train")):
                gram += X.astype(np.float64).T @ X
        """
        step = max(1, most // max(1, self.views * self.width * self.features.itemsize))
        count = len(self) if rows is None else len(rows)
        for at in range(0, count, step):
            some = np.arange(at, min(at + step, count)) if rows is None else np.asarray(rows[at : at + step])
            consecutive = len(some) > 1 and some[-1] - some[0] == len(some) - 1 and (np.diff(some) == 1).all()
            yield some, self.features[slice(some[0], some[-1] + 1) if consecutive else some], self.labels[some]
            release_pages(self.features)

    def without_features(self, rows: np.ndarray) -> FeatureSet:
        """Select rows with features of shape (n, 0), so that nothing large is copied."""
        nothing = np.empty((len(self), 0), dtype=np.float32)
        return dataclasses.replace(self, features=nothing).take(rows)


def _read_fields(path: str | os.PathLike[str], layer: str | Sequence[str]) -> dict[str, Any]:
    """The fields of a feature set by name, from the files that a path stands for; arguments and errors as of ``load``."""
    layer = ",".join(names_of(layer, "layer"))
    return read_shared(layer, lambda number, of: _read_checked(path, layer, number, of))


def _read_checked(path: str | os.PathLike[str], layer: str, number: int, of: int) -> dict[str, Any]:
    """The fields, where process ``number`` of ``of`` that read the same files checks its part of the rows."""
    spec = LayerSpec.parse(layer)
    names = spec.stored
    layers = [name for view in names for name in view]
    parts: list[dict[str, Any]] = []
    matrices: list[tuple[Sequence[Sequence[np.ndarray]], np.ndarray]] = []
    several, at = is_set(path), 0
    total = Manifest.read(Path(path)).rows if several else 0
    for file in each_file(path):
        file.require(spec)
        rows = np.flatnonzero(file.status == DONE)
        total = total or len(file)
        first, last = (np.searchsorted(rows, total * part // of - at) for part in (number, number + 1))
        at += len(file)
        matches = file.checksums_match_in_all(layers, rows[first:last])
        if not matches.all():
            bad = file.paths[rows[first + np.argmin(matches)]]
            raise CorruptFileError(
                f"{file.path}: {damaged_rows(matches, f' of layer {layer}')}, the first of {bad}; the same featx extract with "
                "--rehash computes what is damaged again"
            )
        matrices.append(([[file.features(name) for name in view] for view in names], rows))
        parts.append(
            {
                "labels": file.images.labels[rows],
                "splits": file.splits[rows],
                "paths": file.images.paths[rows],
                "keys": file.keys[rows],
                "columns": {name: file.column(name)[rows] for name in file.column_names},
            }
        )
    joined = {
        name: np.concatenate([part.pop(name) for part in parts]) for name in ("labels", "splits", "paths", "keys")
    }
    place = folder_of(Path(path)) if several else file.path
    return {
        **joined,
        "paths": EncodedPaths(joined["paths"]),
        "features": _stack(matrices) if several else _join(*matrices[0], place.parent),
        "classes": file.classes,
        "layer": layer,
        "identity": joint_identity([file.layers[name].identity for name in layers]),
        "backbone": file.backbone,
        "dataset": file.dataset,
        "source": place.resolve(),
        "columns": {name: np.concatenate([part["columns"][name] for part in parts]) for name in file.column_names},
    }


def _stack(matrices: Sequence[tuple[Sequence[Sequence[np.ndarray]], np.ndarray]]) -> StackedRows:
    """The features of some rows of several files, which stay in the files."""
    sizes = [len(views[0][0]) for views, _ in matrices]
    parts = [views for views, _ in matrices]
    if all(len(rows) == size for (_, rows), size in zip(matrices, sizes, strict=True)):
        return StackedRows(parts)
    starts = np.cumsum([0, *sizes[:-1]])
    return StackedRows(parts, np.concatenate([rows + start for (_, rows), start in zip(matrices, starts, strict=True)]))


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
    return largest_views(open_features(path).layers, LayerSpec.parse(layer).layers)
