"""What a file is, and whether it is sound."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from featx import modelfile
from featx.cache import DONE, FAILED, FeatureCache
from featx.errors import CacheMissError, CorruptCacheError

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a feature file, head or promoted model says of itself, as JSON keeps it.

    Raises:
        CacheMissError, CorruptCacheError: no such file, or none of these.
    """
    path = Path(path)
    if not path.is_file():
        raise CacheMissError(f"there is no file {path}")
    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    return _describe_features(path) if is_hdf5 else _describe_model(path)


def verify_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Check a feature file: its format, the digest of its tables, every row's check, NaN and infinity.

    Returns:
        ``ok``, ``rows``, ``bad_rows`` and ``problems``, one sentence each.

    Raises:
        CacheMissError: no such file.
    """
    try:
        cache = FeatureCache(path)
    except CorruptCacheError as error:
        return {"ok": False, "rows": 0, "bad_rows": 0, "problems": [str(error)]}
    rows = np.flatnonzero(cache.status == DONE)
    bad: set[int] = set()
    problems = []
    for layer in cache.layers:
        unsound = rows[~cache.sound(layer, rows)]
        features = cache.features(layer)
        infinite = [int(row) for row in rows if not np.isfinite(features[row]).all()]
        for what, found in (("do not fit their check", unsound), ("hold NaN or infinity", infinite)):
            if len(found):
                problems.append(f"layer {layer}: {len(found)} rows {what}, the first of {cache.paths[int(found[0])]}")
        bad.update(map(int, unsound), infinite)
    return {"ok": not problems, "rows": len(cache), "bad_rows": len(bad), "problems": problems}


def _describe_features(path: Path) -> dict[str, Any]:
    cache = FeatureCache(path, allow_partial=True)
    failed = np.flatnonzero(cache.status == FAILED)
    splits = Counter(split or "(none)" for split in cache.splits)
    classes = np.bincount(cache.images.labels[cache.images.labels >= 0], minlength=len(cache.classes))
    return {
        "kind": "feature file",
        "complete": cache.complete,
        "images": len(cache),
        "failed": len(failed),
        "layers": {name: f"{entry.dim} x {entry.dtype}" for name, entry in cache.layers.items()},
        "splits": dict(sorted(splits.items())),
        "classes": dict(zip(cache.classes, classes.tolist(), strict=True)),
        "dataset": cache.dataset,
        "backbone": cache.backbone,
        "identity": cache.identity,
        "bytes": path.stat().st_size,
        "failures": {cache.paths[row]: cache.error(int(row)) for row in failed},
    }


def _describe_model(path: Path) -> dict[str, Any]:
    metadata = modelfile.read_metadata(path)
    kind = "head" if metadata.pop("format") == modelfile.HEAD else "promoted model"
    if kind == "head":
        metadata["model"] = metadata.pop("kind")  # the word of --model
    for report in ("report", "head_report"):
        if metadata.get(report):
            metadata[report] = {k: v for k, v in metadata[report].items() if k not in ("per_class", "confusion")}
    return {"kind": kind, **metadata, "bytes": path.stat().st_size}
