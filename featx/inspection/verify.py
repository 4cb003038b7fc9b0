"""What a file is, and whether it is sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.constants import INPUT
from featx.errors import BackboneError, CorruptFileError
from featx.features.feature_file import DONE, TODO, FeatureFile

TOLERANCE = {"float32": 1e-3, "float16": 5e-3}
"""By how much (relative L2) a row that is extracted again may differ: other processors, thread counts and versions of torch
move a feature by 1e-7 to 1e-4; another network, transform or image by more than these."""

_BLOCK = 1 << 22
"""Numbers that are looked at at once."""


def verify_file(
    path: str | os.PathLike[str],
    *,
    recompute: int = 0,
    backbone: str | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Check all of a feature file.

    That is its structure and size, the digest of its tables, every row's check, NaN and infinity, and that copies of an
    image have the same features.

    Args:
        path: the file; what an interrupted run left is checked as far as it goes, and is a problem.
        recompute: so many rows, drawn at random, are extracted again from their images and compared.
        backbone: for that, instead of the stored name; needed for a file of code.
        weights: for that, instead of the stored weights, where the file has moved.
        device: for that, as ``load_backbone``.

    Returns:
        ``ok``, ``rows``, ``bad_rows``, ``duplicates`` (rows whose image another row has too) and ``problems``, one sentence
        each; with ``recompute`` also ``recomputed``, ``changed`` (drawn images that are gone or other than they were, and
        are not compared) and ``largest_difference`` (relative L2 of a row; None where nothing could be compared).

    Raises:
        CacheMissError: no such file.
        BackboneError, StaleCacheError: with ``recompute``, the backbone cannot be made, or is another than the file's.
    """
    try:
        cache = FeatureFile(path, allow_partial=True)
    except CorruptFileError as error:
        return {"ok": False, "rows": 0, "bad_rows": 0, "duplicates": 0, "problems": [str(error)]}
    rows = np.flatnonzero(cache.status == DONE)
    bad: set[int] = set()
    problems = list(_table_problems(cache))
    for layer in cache.layers:
        unsound = rows[~cache.sound(layer, rows)]
        for what, found in (
            ("do not fit their check", unsound),
            ("hold NaN or infinity", _infinite(cache, layer, rows)),
        ):
            if len(found):
                problems.append(
                    f"layer {layer}: {len(found)} rows {what}, the first of {absolute_path(cache, found[0])}"
                )
                bad.update(found.tolist())
    result = {"rows": len(cache), "duplicates": _duplicates(cache, rows)}
    if recompute:
        compared = _recompute(cache, recompute, backbone=backbone, weights=weights, device=device)
        problems += compared.pop("problems")
        result |= compared
    return {"ok": not problems, **result, "bad_rows": len(bad), "problems": problems}


def _table_problems(cache: FeatureFile) -> Iterator[str]:
    """What a sound file never has."""
    if not cache.complete:
        done = np.count_nonzero(cache.status != TODO)
        yield f"incomplete: {done} of {len(cache)} rows; run the same featx extract again to finish it"
    paths, counts = np.unique(cache.images.paths, return_counts=True)
    if (counts > 1).any():
        yield f"{np.count_nonzero(counts > 1)} paths stand in several rows, the first {os.fsdecode(paths[counts > 1][0])}"
    done = cache.status == DONE
    if (unkeyed := np.flatnonzero(done & ~cache.keys.any(axis=1))).size:
        yield f"{len(unkeyed)} rows have features but no key, the first of {absolute_path(cache, unkeyed[0])}"
    rows = np.flatnonzero(done)
    order = rows[np.lexsort(cache.keys[rows].T)]
    twins = np.flatnonzero((cache.keys[order[1:]] == cache.keys[order[:-1]]).all(axis=1))
    for layer in cache.layers:
        checks = cache.checks(layer)
        if (differ := twins[checks[order[twins]] != checks[order[twins + 1]]]).size:
            first, second = order[differ[0]], order[differ[0] + 1]
            yield (
                f"layer {layer}: {len(differ)} copies of an image have other features than it, the first "
                f"{absolute_path(cache, second)} than {absolute_path(cache, first)}"
            )


def _duplicates(cache: FeatureFile, rows: np.ndarray) -> int:
    """Rows whose image stands in an earlier row too."""
    return len(rows) - len(np.unique(cache.keys[rows], axis=0))


def _infinite(cache: FeatureFile, layer: str, rows: np.ndarray) -> np.ndarray:
    """Of these rows, those with NaN or infinity; read in blocks."""
    features, step = cache.features(layer), max(1, _BLOCK // cache.layers[layer].dim)
    blocks = (rows[at : at + step] for at in range(0, len(rows), step))
    found = [block[~np.isfinite(features[block]).all(axis=1)] for block in blocks]
    return np.concatenate([np.empty(0, np.int64), *found])


def _recompute(
    cache: FeatureFile, count: int, *, backbone: str | None, weights: str | None, device: str
) -> dict[str, Any]:
    """Extract random rows again."""
    if any(layer.endswith(INPUT) for layer in cache.layers):
        raise BackboneError(
            f"{cache.path} holds what the frozen part of a network gave; only featx promote computes that. Remove the file "
            "if you doubt it, and it is made again"
        )
    from featx.backbones.backbone import restore_backbone  # torch, which nothing else here needs
    from featx.extraction.encode import encode_images

    made = restore_backbone(cache.backbone, layers=cache.identities, name=backbone, weights=weights, device=device)
    drawn = np.random.default_rng().permutation(np.flatnonzero(cache.status == DONE))
    same, features, changed = encode_images(cache, drawn, count, made)
    tolerance = TOLERANCE[made.dtype]
    largest, problems = None, []
    for layer, again in features.items():
        kept, again = np.asarray(cache.features(layer)[same], dtype=np.float64), again.astype(np.float64)
        difference = np.linalg.norm(kept - again, axis=1) / np.maximum(np.linalg.norm(again, axis=1), 1e-12)
        if len(difference):
            difference = np.where(np.isfinite(difference), difference, np.inf)
            largest = max(largest or 0.0, float(difference.max()))
            if (wrong := difference > tolerance).any():
                problems.append(
                    f"layer {layer}: {np.count_nonzero(wrong)} of {len(same)} rows that were extracted again differ by more "
                    f"than {tolerance:g} (relative), the first of {absolute_path(cache, same[np.argmax(wrong)])}"
                )
    if not len(same):
        problems.append(
            f"no row could be extracted again: every image is gone from {cache.dataset['root']}, or has changed"
        )
    return {"recomputed": len(same), "changed": changed, "largest_difference": largest, "problems": problems}


def absolute_path(cache: FeatureFile, row: int) -> str:
    """The file of one row, as text."""
    return os.fsdecode(cache.images.paths[row])
