"""Verification of feature files: structure, checksums, finite values, and features recomputed from the images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import path_of
from featx.constants import INPUT
from featx.errors import BackboneError, CacheMissError, CorruptFileError, system_errors
from featx.features.feature_file import DONE, TODO
from featx.features.file_set import Features, open_features
from featx.features.manifest import manifest_path
from featx.io.file_kinds import FEATURE_FILE, FEATURE_SET, HDF5, misplaced
from featx.text import counted, form

TOLERANCE = {"float32": 1e-3, "float16": 5e-3}
"""Relative difference (L2) that a recomputed row may have: other processors, thread counts and versions of torch change a
feature by 1e-7 to 1e-4, another network, transform or image by more than these."""

_BLOCK_VALUES = 1 << 22  # features that are checked for NaN and infinity at a time


@system_errors()
def verify_file(
    path: str | os.PathLike[str],
    *,
    recompute: int = 0,
    backbone: str | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Verify a whole feature file, or a set of them.

    That covers its structure and size, the digest of its tables, the checksum of every row, NaN and infinity, and that copies
    of an image have the same features.

    Args:
        path: the file; what an interrupted extraction left is verified as far as it goes, and reported as a problem.
        recompute: number of rows, drawn at random, whose features are extracted again from the images and compared.
        backbone: with ``recompute``, a replacement for the stored name, needed if that is a Python file.
        weights: with ``recompute``, a replacement for the stored weights if their file has moved.
        device: with ``recompute``, see ``load_backbone``.

    Returns:
        "ok", "rows", "bad_rows", "duplicates" (rows whose image occurs in an earlier row too) and "problems", one sentence
        each. With ``recompute`` also "recomputed", "changed" (drawn images that are gone or have changed, and were skipped)
        and "largest_difference" (relative L2 norm of a row's difference; None if no row could be compared).

    Raises:
        CacheMissError: the file does not exist.
        CorruptFileError: it is a file of another kind, such as a head.
        BackboneError, StaleCacheError: with ``recompute``, the backbone is not available, or is not the one of the file.

    Example:

        result = verify_file("cache/digits--lenet5.h5", recompute=16)
        print(result["ok"], result["problems"], result["largest_difference"])
    """
    path = path_of(path, "path")
    if found := misplaced(path, "a feature file, which featx extract makes", fits=[FEATURE_FILE, FEATURE_SET, HDF5]):
        raise CorruptFileError(found)
    try:
        cache = open_features(path, allow_partial=True)
    except (CorruptFileError, CacheMissError) as error:
        if isinstance(error, CacheMissError) and not manifest_path(Path(path)).is_file():
            raise
        return {"ok": False, "rows": 0, "bad_rows": 0, "duplicates": 0, "problems": [str(error)]}
    done = np.flatnonzero(cache.status == DONE)
    problems, bad_rows = [*_table_problems(cache)], set[int]()
    for layer in cache.layers:
        for problem, rows in (
            (
                ("row does not match its checksum", "rows do not match their checksum"),
                done[~cache.checksums_match(layer, done)],
            ),
            (("row contains NaN or infinity", "rows contain NaN or infinity"), _not_finite(cache, layer, done)),
        ):
            if len(rows):
                problems.append(
                    f"layer {layer}: {counted(len(rows), *problem)}, the first of {image_path(cache, rows[0])}"
                )
                bad_rows.update(rows.tolist())
    result = {"rows": len(cache), "duplicates": len(done) - len(np.unique(cache.keys[done], axis=0))}
    if recompute:
        compared = _recompute(cache, recompute, backbone=backbone, weights=weights, device=device)
        problems += compared.pop("problems")
        result |= compared
    return {"ok": not problems, **result, "bad_rows": len(bad_rows), "problems": problems}


def image_path(cache: Features, row: int) -> str:
    """Return the path of a row's image, as text, relative to the data set's root."""
    return os.fsdecode(cache.images.paths[row])


def _table_problems(cache: Features) -> Iterator[str]:
    """Check the tables: every row present, each path once, a key for every row, and equal features for copies of an image."""
    if not cache.complete:
        present = np.count_nonzero(cache.status != TODO)
        yield f"incomplete: {present} of {counted(len(cache), 'row')}; run the same featx extract again to finish it"
    paths, counts = np.unique(cache.images.paths, return_counts=True)
    if (counts > 1).any():
        first = os.fsdecode(paths[counts > 1][0])
        yield f"{counted(np.count_nonzero(counts > 1), 'path occurs', 'paths occur')} in several rows, the first {first}"
    done = cache.status == DONE
    if (without_key := np.flatnonzero(done & ~cache.keys.any(axis=1))).size:
        rows = counted(len(without_key), "row has", "rows have")
        yield f"{rows} features but no key, the first of {image_path(cache, without_key[0])}"
    yield from _copy_problems(cache, np.flatnonzero(done))


def _copy_problems(cache: Features, rows: np.ndarray) -> Iterator[str]:
    """Compare copies of an image, neighbours once sorted by key, by the checksums of their features."""
    order = rows[np.lexsort(cache.keys[rows].T)]
    copies = np.flatnonzero((cache.keys[order[1:]] == cache.keys[order[:-1]]).all(axis=1))
    for layer in cache.layers:
        checksums = cache.checksums(layer)
        if (different := copies[checksums[order[copies]] != checksums[order[copies + 1]]]).size:
            first, second = order[different[0]], order[different[0] + 1]
            yield (
                f"layer {layer}: {counted(len(different), 'copy of an image has', 'copies of an image have')} features "
                f"that differ from the original's, the first {image_path(cache, second)} from {image_path(cache, first)}"
            )


def _not_finite(cache: Features, layer: str, rows: np.ndarray) -> np.ndarray:
    """Return those of some rows that contain NaN or infinity, read in blocks."""
    features, step = cache.features(layer), max(1, _BLOCK_VALUES // cache.layers[layer].dim)
    blocks = (rows[at : at + step] for at in range(0, len(rows), step))
    bad = [block[~np.isfinite(features[block]).all(axis=1)] for block in blocks]
    return np.concatenate([np.empty(0, np.int64), *bad])


def _recompute(
    cache: Features, count: int, *, backbone: str | None, weights: str | None, device: str
) -> dict[str, Any]:
    """Extract random rows again, and compare them with the stored ones."""
    if any(layer.endswith(INPUT) for layer in cache.layers):
        raise BackboneError(
            f"{cache.path} contains outputs of the frozen part of a network, and only featx promote computes those. Remove the "
            "file if you doubt it; it will be computed again"
        )
    from featx.backbones.restored import restore_backbone  # torch, which nothing else here needs
    from featx.extraction.encode import encode_images

    restored = restore_backbone(cache.backbone, layers=cache.identities, name=backbone, weights=weights, device=device)
    drawn = np.random.default_rng().permutation(np.flatnonzero(cache.status == DONE))
    rows, features, changed = encode_images(cache, drawn, count, restored)
    tolerance = TOLERANCE[restored.dtype]
    largest, problems = None, []
    for layer, recomputed in features.items():
        difference = _relative_difference(cache.features(layer)[rows], recomputed)
        largest = max(largest or 0.0, float(difference.max()))
        if (wrong := difference > tolerance).any():
            problems.append(
                f"layer {layer}: of {counted(len(rows), 'row that was', 'rows that were')} extracted again, "
                f"{np.count_nonzero(wrong):,} {form(np.count_nonzero(wrong), 'differs', 'differ')} by more than "
                f"{tolerance:g} (relative), the first of {image_path(cache, rows[np.argmax(wrong)])}"
            )
    if not len(rows):
        problems.append(
            f"no row could be extracted again: every image is gone from {cache.dataset['root']}, or has changed"
        )
    return {"recomputed": len(rows), "changed": changed, "largest_difference": largest, "problems": problems}


def _relative_difference(stored: np.ndarray, recomputed: np.ndarray) -> np.ndarray:
    """Return the (M,) L2 norms of the difference of (M, D) rows, relative to the recomputed row; infinite for NaN."""
    stored, recomputed = np.asarray(stored, dtype=np.float64), recomputed.astype(np.float64)
    difference = np.linalg.norm(stored - recomputed, axis=1) / np.maximum(np.linalg.norm(recomputed, axis=1), 1e-12)
    return np.where(np.isfinite(difference), difference, np.inf)
