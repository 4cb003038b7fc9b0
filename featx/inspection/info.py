"""Descriptions of the files that featx writes, as ``featx info`` prints them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import path_of
from featx.errors import CacheMissError, CorruptFileError, ModelNotFoundError, system_errors
from featx.features.feature_file import DONE, FAILED
from featx.features.file_set import FeatureFileSet, Features, is_set, open_features
from featx.features.hdf5 import SIGNATURE
from featx.heads import head_file
from featx.inspection.verify import image_path
from featx.io import file_kinds, model_file
from featx.io.file_kinds import misplaced
from featx.promotion import model_file as promoted_file
from featx.system import MISSING, why_unreadable

FEATURE_FILE, HEAD, PROMOTED_MODEL = "feature file", "head", "promoted model"
"""The kinds of files."""

_KINDS = (file_kinds.FEATURE_FILE, file_kinds.FEATURE_SET, file_kinds.HDF5, file_kinds.HEAD, file_kinds.MODEL)
_REPORTS = ("report", "head_report", "finetuned_report", "held_out")
_TABLES = ("per_class", "per_label", "confusion", "reliability")  # of a report; too long for a description


@system_errors()
def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a feature file, a head or a promoted model.

    Args:
        path: the file; what an interrupted extraction left is described as far as it goes.

    Returns:
        What the file contains, as values that JSON can express; "kind" is one of "feature file", "head", "promoted model".

    Raises:
        CacheMissError, ModelNotFoundError: the file does not exist.
        CorruptFileError: it is damaged, or of no kind that featx writes.

    Example:

        facts = describe_file("cache/digits--lenet5.h5")
        print(facts["kind"], facts["images"], facts["layers"])  # feature file 1797 {'penultimate': '84 x float32'}
    """
    path = Path(path_of(path, "path"))
    return _DESCRIPTIONS[file_kind(path)](path)


def file_kind(path: str | os.PathLike[str]) -> str:
    """Determine the kind of a file by its contents.

    Args:
        path: the file.

    Returns:
        "feature file" for any HDF5 file and for a set of feature files, otherwise "head" or "promoted model".

    Raises:
        CacheMissError, ModelNotFoundError: the file does not exist.
        CorruptFileError: it is neither an HDF5 file nor a valid head or model.
    """
    path = Path(path_of(path, "path"))
    if is_set(path):
        return FEATURE_FILE
    why = why_unreadable(path)
    if why == MISSING:
        raise (CacheMissError if path.suffix == ".h5" else ModelNotFoundError)(f"there is no file {path}")
    if why:
        raise CorruptFileError(
            misplaced(path, "a feature file, a head or a promoted model", fits=_KINDS)
            or f"{path} cannot be read: {why}"
        )
    if found := misplaced(path, "a feature file, a head or a promoted model", fits=_KINDS):
        raise CorruptFileError(found)
    with system_errors(path), path.open("rb") as file:
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return FEATURE_FILE
    return HEAD if _read_metadata(path)["format"] == head_file.HEAD.format else PROMOTED_MODEL


def _describe_features(path: Path) -> dict[str, Any]:
    cache = open_features(path, allow_partial=True)
    failed = np.flatnonzero(cache.status == FAILED)
    rows = _rows_by_split(cache)
    labels = cache.images.labels
    class_counts = np.bincount(labels[labels >= 0], minlength=len(cache.classes))
    return {
        "kind": FEATURE_FILE,
        "complete": cache.complete,
        "images": len(cache),
        "done": int(np.count_nonzero(cache.status == DONE)),
        "failed": len(failed),
        "layers": {name: f"{layer.dim} x {layer.dtype}" for name, layer in cache.layers.items()},
        "rows": rows,
        "splits": {split: sum(counts.values()) for split, counts in rows.items()},
        "classes": dict(zip(cache.classes, class_counts.tolist(), strict=True)),
        "columns": list(cache.column_names),
        "dataset": cache.dataset,
        "backbone": cache.backbone,
        "identity": cache.identity,
        "bytes": cache.size if isinstance(cache, FeatureFileSet) else path.stat().st_size,
        **({"files": [str(file.path) for file in cache.files]} if isinstance(cache, FeatureFileSet) else {}),
        "failures": {image_path(cache, row): cache.error(row) for row in failed.tolist()},
    }


def _rows_by_split(cache: Features) -> dict[str, dict[str, int]]:
    """Count the rows of each split by class: {split: {class: rows}}."""
    names = [*cache.classes, "(unlabelled)"]  # the label -1 indexes the last one
    splits, labels = cache.splits, cache.images.labels
    counts = {}
    for split in sorted(set(splits.tolist())):
        present, rows = np.unique(labels[splits == split], return_counts=True)
        counts[split or "(undecided)"] = {
            names[label]: int(n) for label, n in zip(present.tolist(), rows.tolist(), strict=True)
        }
    return counts


def _describe_head(path: Path) -> dict[str, Any]:
    metadata = _metadata(path)
    metadata["model"] = metadata.pop("kind")  # the kind of head is named as by --model
    return {"kind": HEAD, **metadata, "bytes": path.stat().st_size}


def _describe_promoted_model(path: Path) -> dict[str, Any]:
    metadata = _metadata(path)
    verdict: dict[str, Any] = {key: metadata.pop(key) for key in ("verdict", "why", "paired") if key in metadata}
    return {"kind": PROMOTED_MODEL, **verdict, **metadata, "bytes": path.stat().st_size}


def _read_metadata(path: Path) -> dict[str, Any]:
    return model_file.read_metadata(path, head_file.HEAD, promoted_file.MODEL)


def _metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a head or model, without the format's name and the long tables of its reports."""
    metadata = _read_metadata(path)
    del metadata["format"]
    for name in _REPORTS:
        if metadata.get(name):
            metadata[name] = {key: value for key, value in metadata[name].items() if key not in _TABLES}
    return metadata


_DESCRIPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    FEATURE_FILE: _describe_features,
    HEAD: _describe_head,
    PROMOTED_MODEL: _describe_promoted_model,
}
"""The function that describes each kind of file. A new kind is one entry here and one answer of ``file_kind``."""
