"""What an export holds: matrices, which stay in their file and are read in blocks, and the small columns beside them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featx._version import __version__
from featx.data.image_set import UNLABELLED
from featx.errors import CorruptFileError, HeadError, SettingsError
from featx.features.checksums import damaged_rows
from featx.features.exchange.vectors import let_go
from featx.features.feature_file import DONE
from featx.features.feature_set import FeatureSet
from featx.features.file_set import Features, open_features
from featx.layer_spec import PENULTIMATE, LayerSpec
from featx.text import counted, to_utf8

FIRST_COLUMNS = ("path", "label", "label_index", "split", "key")
"""The columns of every export; those of the data set's table follow."""

MARK = "featx export of features"
"""A text in every file that an export writes."""

_BLOCK_BYTES = 16 << 20
"""Bytes of features that are read at a time."""


@dataclass(frozen=True, eq=False)
class Content:
    """The rows to export.

    Attributes:
        layers: the matrix of each layer in each view, by its name: (M, D), or (M, V, D) for V views in one; memory-mapped.
        rows: (N,) int64, which rows of the matrices; None: all.
        paths: (N,) str.
        labels: (N,) int64 into ``classes``, -1 for none.
        classes: (C,) names.
        splits: (N,) str.
        keys: (N, 16) uint8.
        columns: further columns, (N,) str each, by names that are not in ``FIRST_COLUMNS``.
        provenance: where the features come from, as JSON-compatible values.
        left_out: the number of images that have no features.
        notes: for the user, one sentence each.
    """

    layers: Mapping[str, np.ndarray]
    rows: np.ndarray | None
    paths: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    splits: np.ndarray
    keys: np.ndarray
    columns: Mapping[str, np.ndarray]
    provenance: Mapping[str, Any]
    left_out: int = 0
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def texts(self) -> dict[str, np.ndarray]:
        """All columns of text: the (N,) path, label ("" for none), split, key in hexadecimal digits, and further columns."""
        names = np.array([*self.classes, ""], dtype=object)
        return {
            "path": self.paths,
            "label": names[np.where(self.labels == UNLABELLED, len(self.classes), self.labels)],
            "split": self.splits,
            "key": np.array([key.tobytes().hex() for key in self.keys], dtype=object),
            **self.columns,
        }

    def clean_texts(self) -> dict[str, list[str]]:
        """The same as ``texts``, as text that every reader can decode; bytes that are not UTF-8 become �, with a note."""
        return {name: self.clean(values, name) for name, values in self.texts().items()}

    def clean(self, values: Iterable[str], column: str) -> list[str]:
        """Text that every reader can decode."""
        own = list(values)
        found = [to_utf8(value).decode("utf-8", "replace") for value in own]
        changed = sum(value != clean for value, clean in zip(own, found, strict=True))
        if changed:
            cells = counted(changed, f"cell of {column}", f"cells of {column}")
            note = f"{cells} hold bytes that are not UTF-8, which are � in the export; .parquet keeps them"
            self.notes.extend([note] if note not in self.notes else [])
        return found

    def blocks(self, layers: Sequence[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Read some layers block by block, with little memory.

        Yields:
            Which of the N rows, and their features in each layer, as arrays in memory.
        """
        width = sum(math.prod(self.layers[name].shape[1:]) * self.layers[name].itemsize for name in layers)
        step = max(1, _BLOCK_BYTES // max(1, width))
        for at in range(0, len(self), step):
            part = slice(at, min(at + step, len(self)))
            which = part if self.rows is None else self.rows[part]
            yield part, {name: np.array(self.layers[name][which]) for name in layers}
            for name in layers:
                let_go(self.layers[name])

    def shape(self, layer: str) -> tuple[int, ...]:
        """(N, D), or (N, V, D)."""
        return (len(self), *self.layers[layer].shape[1:])


def content_of(
    features: FeatureSet | str | os.PathLike[str], layers: Sequence[str] | None, *, one_matrix: bool
) -> Content:
    """Gather what an export holds.

    Args:
        features: a feature set, or a feature file.
        layers: layer specs; None: all of the file, or where the format holds one matrix, the penultimate or only one.
        one_matrix: whether the format holds one matrix: several layers are put side by side.

    Raises:
        CacheMissError, CorruptFileError: there is no such file or layer, or it is damaged.
        SettingsError: layers of a feature set, which has one; or the format holds one matrix, and which one is not clear.
        HeadError: there is no row.
    """
    if isinstance(features, FeatureSet):
        if layers not in (None, [features.layer], (features.layer,)):
            raise SettingsError(f"the feature set holds the layer {features.layer}; expected no other to be named")
        return _of_set(features)
    file = open_features(features)
    names = list(layers or ())
    if one_matrix:
        return _of_set(FeatureSet.load(file.path, names or _only_layer(file)), file)
    stored = list(file.layers)
    if names:
        stored = list(dict.fromkeys(name for each in names for view in LayerSpec.parse(each).stored for name in view))
    return _of_file(file, stored)


def _only_layer(file: Features) -> str:
    if PENULTIMATE in file.layers or len(file.layers) == 1:
        return PENULTIMATE if PENULTIMATE in file.layers else next(iter(file.layers))
    raise SettingsError(
        f"{file.path} has the layers {', '.join(file.layers)}, and this format holds one matrix; name one or more with --layer"
    )


def _of_file(file: Features, stored: Sequence[str]) -> Content:
    rows = np.flatnonzero(file.status == DONE)
    matches = file.checksums_match_in_all(stored, rows)
    if not matches.all():
        first = file.paths[rows[np.argmin(matches)]]
        raise CorruptFileError(
            f"{file.path}: {damaged_rows(matches)}, the first of {first}; the same featx extract with --rehash computes "
            "what is damaged again"
        )
    columns, notes = _distinct_columns({name: file.column(name)[rows] for name in file.column_names})
    layers = {name: file.features(name) for name in stored}
    return Content(
        layers=layers,
        rows=None if len(rows) == len(file) else rows,
        paths=np.array(file.paths, dtype=object)[rows],
        labels=file.images.labels[rows],
        classes=file.classes,
        splits=file.splits[rows],
        keys=file.keys[rows],
        columns=columns,
        provenance=_provenance(
            file.identity, file.backbone, file.dataset, layers, {name: file.layers[name].identity for name in stored}
        ),
        left_out=len(file) - len(rows),
        notes=notes,
    )


def _of_set(features: FeatureSet, file: Features | None = None) -> Content:
    if not len(features):
        raise HeadError("there is no row to export")
    columns = dict(features.columns)
    if features.groups is not None:
        columns.setdefault(features.group or "group", features.groups)
    columns, notes = _distinct_columns(columns)
    layers = {features.layer: features.features}
    return Content(
        layers=layers,
        rows=None,
        paths=np.asarray(features.paths),
        labels=features.labels,
        classes=features.classes,
        splits=features.splits,
        keys=features.keys,
        columns=columns,
        provenance=_provenance(
            features.identity, features.backbone, features.dataset, layers, {features.layer: features.identity}
        ),
        left_out=0 if file is None else len(file) - len(features),
        notes=notes,
    )


def _distinct_columns(columns: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Further columns under names that the export does not use itself."""
    found, notes = dict[str, np.ndarray](), list[str]()
    for name, cells in columns.items():
        free = name
        while free in FIRST_COLUMNS or free in found or (free != name and free in columns):
            free += "_"
        found[free] = cells
        if free != name:
            notes.append(
                f"the column {name!r} of the data set is {free!r} in the export, whose own column has that name"
            )
    return found, notes


def _provenance(
    identity: str,
    backbone: Mapping[str, Any],
    dataset: Mapping[str, Any],
    layers: Mapping[str, np.ndarray],
    identities: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "format": MARK,
        "version": 1,
        "featx": __version__,
        "identity": identity,
        "backbone": dict(backbone),
        "dataset": dict(dataset),
        "layers": {
            name: {"width": int(matrix.shape[-1]), "dtype": matrix.dtype.name, "identity": identities[name]}
            for name, matrix in layers.items()
        },
    }
