"""A map of a set of images: two coordinates of each, so that similar images are near each other.

N is the number of images, D the width of the features, K the number of neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, svds

from featx.constants import MAPS
from featx.errors import FeatxError
from featx.features.feature_set import FeatureSet
from featx.heads import nearest
from featx.inspection.neighbours import NEIGHBOURS, Neighbours, nearest_neighbours
from featx.reporter import SILENT, Reporter

MOST_FITTED = 50_000
"""The most images that the directions of the principal components are computed from; the others are projected on them."""

_MOST_BYTES = 256 << 20  # of the features of those images, as float32
_BLOCK = 4096  # rows that are projected at a time
_FEWEST = 8  # images with which t-SNE is of use
_DENSE = 64  # rows or columns up to which all singular vectors are computed
_SPREAD = 1e-4  # standard deviation of the first coordinate where t-SNE begins


def map_coordinates(
    features: FeatureSet,
    neighbours: Neighbours | None = None,
    *,
    method: str = "pca",
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> np.ndarray:
    """Place N images on a plane, the more similar the nearer.

    "pca" takes the first two principal components of the features, each image divided by its length, so that distances follow
    cosines; it keeps the large structure, in a second. "tsne" (van der Maaten and Hinton, 2008; the package openTSNE) arranges
    the images so that each is near its nearest neighbours, in about a minute for 10,000 images. It begins at the principal
    components, so that the large structure is kept as far as possible (Kobak and Berens, 2019), and each of the neighbours
    has the same weight (Böhm et al., 2022).

    The same features and seed give the same map.

    Args:
        features: N images; the plain view counts.
        neighbours: of these images, for "tsne"; None: they are found here.
        method: one of ``MAPS``.
        seed: of the draw of images where there are more than ``MOST_FITTED``, and of "tsne".
        reporter: receives the stages.

    Returns:
        (N, 2) float32; NaN for an image whose features are not finite.

    Raises:
        FeatxError: an unknown method, or openTSNE is not installed.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> features = FeatureSet(
        ...     features=rng.normal(size=(20, 5)).astype(np.float32),
        ...     labels=np.zeros(20, dtype=np.int64),
        ...     splits=np.full(20, "train", dtype=object),
        ...     classes=("ant",),
        ...     paths=np.arange(20).astype(str).astype(object),
        ...     keys=np.zeros((20, 16), dtype=np.uint8),
        ... )
        >>> map_coordinates(features).shape
        (20, 2)
    """
    if method not in MAPS:
        raise FeatxError(f"there is no map {method!r}; expected one of {', '.join(MAPS)}")
    library = _opentsne() if method == "tsne" else None
    X = features.plain
    finite = finite_rows(X)
    out = np.full((len(X), 2), np.nan, dtype=np.float32)
    reporter.stage("placing the images on a map by their principal components")
    places = _principal_components(X, finite, seed)
    if library is not None and len(finite) >= _FEWEST and places.any():
        reporter.stage(f"arranging {len(finite):,} images by t-SNE")
        if neighbours is None or not neighbours.indices.shape[1] or len(finite) < len(X):
            neighbours = nearest_neighbours(features.take(finite) if len(finite) < len(X) else features, NEIGHBOURS)
        places = _tsne(library, neighbours, places, seed)
    out[finite] = places
    return out


def finite_rows(X: np.ndarray) -> np.ndarray:
    """Find the rows without NaN and infinity, block by block: (n,) int64."""
    blocks = (np.isfinite(X[at : at + _BLOCK]).all(axis=1) for at in range(0, len(X), _BLOCK))
    return np.flatnonzero(np.concatenate([np.empty(0, bool), *blocks]))


def _principal_components(X: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """Project rows, each of length 1, on their first two principal components.

    Args:
        X: (N, D), may be memory-mapped.
        rows: (n,) int64, the rows that count.
        seed: of the draw of those that the components are computed from.

    Returns:
        (n, 2) float32; 0 where there is no second direction. The largest entry of each direction is positive, so that the map
        does not depend on the order of the computation.
    """
    places = np.zeros((len(rows), 2), dtype=np.float32)
    if len(rows) < 2 or not X.shape[1]:
        return places
    most = min(MOST_FITTED, max(2, _MOST_BYTES // (4 * X.shape[1])))
    fitted = rows
    if len(rows) > most:
        fitted = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    sample = nearest.unit(X[fitted])
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    directions = _directions(sample, mean)
    for at in range(0, len(rows), _BLOCK):
        block = nearest.unit(X[rows[at : at + _BLOCK]]) - mean
        places[at : at + _BLOCK, : len(directions)] = block @ directions.T
    return places


def _directions(sample: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Find the first two principal directions of (n, D) float32 rows with a (D,) mean: (k, D) float32, k at most 2."""
    count, width = sample.shape
    if min(count, width) <= _DENSE:
        _, lengths, vectors = np.linalg.svd(sample - mean, full_matrices=False)
    else:
        if not _varies(sample):
            return np.zeros((0, width), dtype=np.float32)
        centred = LinearOperator(  # the rows are centred in each product, so that they are not copied
            sample.shape,
            matvec=lambda v: sample @ v.ravel() - mean @ v.ravel(),
            rmatvec=lambda u: u.ravel() @ sample - u.sum() * mean,
            dtype=np.float32,
        )
        start = np.random.default_rng(0).normal(size=min(count, width)).astype(np.float32)
        _, lengths, vectors = svds(centred, k=2, v0=start, return_singular_vectors="vh")
        lengths, vectors = lengths[::-1], vectors[::-1]
    vectors = vectors[:2][lengths[:2] > 1e-6 * np.sqrt(count)]
    largest = np.abs(vectors).argmax(axis=1)
    directions: np.ndarray = vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
    return directions.astype(np.float32)


def _varies(sample: np.ndarray) -> bool:
    """Whether some row differs from the first by more than rounding."""
    return any(np.abs(sample[at : at + _BLOCK] - sample[0]).max() > 1e-6 for at in range(0, len(sample), _BLOCK))


def _tsne(library: Any, neighbours: Neighbours, places: np.ndarray, seed: int) -> np.ndarray:
    """Arrange (n, 2) places by t-SNE so that neighbours are near each other.

    It runs on one thread: on several, the order of its sums and so the map would differ from run to run.
    """
    spread = max(float(places[:, 0].std()), 1e-12)
    start = places.astype(np.float64) * (_SPREAD / spread)
    start += np.random.default_rng(seed).normal(0, _SPREAD / 100, start.shape)  # copies need not stay in one place
    index = library.nearest_neighbors.PrecomputedNeighbors(neighbours.indices, neighbours.distances.astype(np.float64))
    affinities = library.affinity.Uniform(knn_index=index)
    arranged = library.TSNE(random_state=seed, n_jobs=1).fit(affinities=affinities, initialization=start)
    return np.asarray(arranged, dtype=np.float32)


def _opentsne() -> Any:
    """Import openTSNE.

    Raises:
        FeatxError: it is not installed.
    """
    try:
        import openTSNE
        import openTSNE.affinity
        import openTSNE.nearest_neighbors
    except ImportError as error:
        raise FeatxError("a t-SNE map needs openTSNE: pip install 'featx[map]'") from error
    return openTSNE
