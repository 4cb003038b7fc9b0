"""The map of a set: two coordinates of each image."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from made import photos
from sklearn.decomposition import PCA

from featx.constants import MAPS
from featx.errors import FeatxError
from featx.features.feature_set import FeatureSet
from featx.heads.nearest import unit
from featx.inspection import coordinates
from featx.inspection.coordinates import map_coordinates
from featx.inspection.neighbours import Neighbours, nearest_neighbours


def feature_set(X: np.ndarray) -> FeatureSet:
    """An unlabelled set with these features."""
    count = len(X)
    return FeatureSet(
        features=X.astype(np.float32),
        labels=np.full(count, -1),
        splits=np.full(count, "train", dtype=object),
        classes=(),
        paths=np.arange(count).astype(str).astype(object),
        keys=np.zeros((count, 16), dtype=np.uint8),
    )


@pytest.mark.parametrize(("count", "width"), [(300, 90), (90, 300), (40, 10), (10, 40)])
def test_a_map_by_pca_is_the_first_two_principal_components_of_the_rows_of_length_1(count: int, width: int) -> None:
    X = np.random.default_rng(0).normal(size=(count, width)) * np.linspace(3, 1, width)
    places = map_coordinates(feature_set(X))
    expected = PCA(2, svd_solver="full").fit_transform(unit(X).astype(np.float64))
    assert places.dtype == np.float32
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=2e-5)


def test_the_sign_of_a_map_is_fixed() -> None:
    X = np.random.default_rng(0).normal(size=(300, 90)) * np.linspace(3, 1, 90)
    order = np.random.default_rng(1).permutation(300)
    np.testing.assert_allclose(
        map_coordinates(feature_set(X))[order], map_coordinates(feature_set(X[order])), atol=2e-5
    )


def test_components_of_a_sample_place_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(2000, 80)) * np.linspace(9, 1, 80) ** 2
    whole = map_coordinates(feature_set(X))
    monkeypatch.setattr(coordinates, "MOST_FITTED", 1000)
    sampled = map_coordinates(feature_set(X))
    assert np.isfinite(sampled).all()
    assert np.corrcoef(whole[:, 0], sampled[:, 0])[0, 1] > 0.98
    assert (map_coordinates(feature_set(X)) == sampled).all()
    assert (map_coordinates(feature_set(X), seed=1) != sampled).any()


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize(
    "X", [np.zeros((0, 4)), np.ones((1, 4)), np.eye(2, 4), np.eye(3, 4), np.ones((20, 4)), np.ones((90, 80))]
)
def test_few_images_and_copies_have_finite_places(X: np.ndarray, method: str) -> None:
    if method == "tsne":
        pytest.importorskip("openTSNE", reason="the extra map is not installed")
    places = map_coordinates(feature_set(X), method=method)
    assert places.shape == (len(X), 2)
    assert np.isfinite(places).all()


@pytest.mark.parametrize("method", MAPS)
def test_an_image_that_is_not_finite_has_no_place(method: str) -> None:
    if method == "tsne":
        pytest.importorskip("openTSNE", reason="the extra map is not installed")
    X = np.random.default_rng(0).normal(size=(30, 6))
    X[4, 2], X[9, 0] = np.nan, np.inf
    without = map_coordinates(feature_set(np.delete(X, [4, 9], axis=0)), method=method)
    places = map_coordinates(
        feature_set(X), Neighbours(np.zeros((30, 3), np.int64), np.zeros((30, 3), np.float32)), method=method
    )
    assert np.isnan(places[[4, 9]]).all()
    np.testing.assert_array_equal(np.delete(places, [4, 9], axis=0), without)


def test_t_sne_keeps_more_neighbours_than_pca_and_repeats_itself() -> None:
    pytest.importorskip("openTSNE", reason="the extra map is not installed")
    features = photos(train=30, test=20, classes=tuple("abcdefgh"), dim=20)
    neighbours = nearest_neighbours(features)

    def kept(places: np.ndarray) -> float:
        distances = ((places[:, None] - places) ** 2).sum(axis=-1)
        near = distances.argsort(axis=1)[:, 1:11]
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(near, neighbours.indices, strict=True)]))

    arranged = map_coordinates(features, neighbours, method="tsne", seed=3)
    assert kept(arranged) > kept(map_coordinates(features)) + 0.2
    np.testing.assert_array_equal(map_coordinates(features, method="tsne", seed=3), arranged)


def test_an_unknown_method_and_a_missing_package_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FeatxError, match="there is no map 'umap'; expected one of pca, tsne"):
        map_coordinates(photos(), method="umap")
    whole = builtins.__import__

    def without(name: str, *args: Any, **extra: Any) -> Any:
        if name.startswith("openTSNE"):
            raise ImportError(name)
        return whole(name, *args, **extra)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FeatxError, match=r"a t-SNE map needs openTSNE: pip install 'featx\[map\]'"):
        map_coordinates(photos(), method="tsne")
