"""``featx info``: what a file is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import CacheMissError, CorruptFileError
from featx.features.feature_file import DONE, FAILED, FeatureFile
from featx.features.hdf5 import SIGNATURE
from featx.heads.head_file import HEAD
from featx.inspection.verify import absolute_path
from featx.io import model_file
from featx.promotion.model_file import MODEL
from featx.system import MISSING, why_unreadable


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a feature file, head or promoted model says of itself, as JSON keeps it.

    Raises:
        CacheMissError, CorruptFileError: no such file, or none of these.
    """
    path = Path(path)
    why = why_unreadable(path)
    if why == MISSING:
        raise CacheMissError(f"there is no file {path}")
    if why:
        raise CorruptFileError(f"{path} cannot be read: {why}")
    with path.open("rb") as file:
        is_hdf5 = file.read(len(SIGNATURE)) == SIGNATURE
    return _describe_features(path) if is_hdf5 else _describe_model(path)


def _describe_features(path: Path) -> dict[str, Any]:
    cache = FeatureFile(path, allow_partial=True)
    failed = np.flatnonzero(cache.status == FAILED)
    names = [*cache.classes, "(unlabelled)"]  # where a label of -1 leads
    splits = cache.splits
    rows = {
        split or "(undecided)": {
            names[label]: int(count)
            for label, count in zip(*np.unique(cache.images.labels[splits == split], return_counts=True), strict=True)
        }
        for split in sorted(set(splits.tolist()))
    }
    classes = np.bincount(cache.images.labels[cache.images.labels >= 0], minlength=len(cache.classes))
    return {
        "kind": "feature file",
        "complete": cache.complete,
        "images": len(cache),
        "done": int(np.count_nonzero(cache.status == DONE)),
        "failed": len(failed),
        "layers": {name: f"{entry.dim} x {entry.dtype}" for name, entry in cache.layers.items()},
        "rows": rows,
        "splits": {split: sum(counts.values()) for split, counts in rows.items()},
        "classes": dict(zip(cache.classes, classes.tolist(), strict=True)),
        "dataset": cache.dataset,
        "backbone": cache.backbone,
        "identity": cache.identity,
        "bytes": path.stat().st_size,
        "failures": {absolute_path(cache, row): cache.error(row) for row in failed.tolist()},
    }


_LONG = ("per_class", "per_label", "confusion", "reliability")  # tables that nobody reads in a list of facts


def _describe_model(path: Path) -> dict[str, Any]:
    metadata = model_file.read_metadata(path, HEAD, MODEL)
    kind = "head" if metadata.pop("format") == HEAD.format else "promoted model"
    if kind == "head":
        metadata["model"] = metadata.pop("kind")  # the word of --model
    for report in ("report", "head_report", "finetuned_report", "held_out"):
        if metadata.get(report):
            metadata[report] = {k: v for k, v in metadata[report].items() if k not in _LONG}
    first: dict[str, Any] = {key: metadata.pop(key) for key in ("verdict", "why", "paired") if key in metadata}
    return {"kind": kind, **first, **metadata, "bytes": path.stat().st_size}
