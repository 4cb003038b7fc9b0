"""The cached activations of a frozen prefix."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import featx
from featx.backbones.backbone import normalise
from featx.data.decode import read_pixels
from featx.errors import StaleCacheError
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.layer_spec import RandomView
from featx.promotion.config import FineTuning
from featx.promotion.param_groups import trained_blocks
from featx.promotion.prefix import Prefix, split_network
from featx.promotion.prefix_cache import ActivationCache, ActivationSet

VIEW = RandomView(0, 0, 0.35, flip=True)


def cache_of(features: FeatureSet) -> ActivationCache:
    backbone = featx.load_backbone("lenet5")
    side = backbone.transform.crop
    trained = trained_blocks(backbone.network, backbone.classifier, FineTuning(last=1))
    parts = split_network(backbone.network, trained, torch.rand(2, 3, side, side))
    assert parts is not None
    return ActivationCache(parts, backbone, trained.first_layer, features, Path("frozen"))


def test_activations_are_the_outputs_of_the_prefix_and_are_computed_once(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(features)
    rows = np.flatnonzero(features.splits == "train")[::-1]

    def run(view: RandomView | None) -> np.ndarray:
        images = ActivationSet(rows, view)
        cache.fill(images, workers=2)
        return cache.load(images).take(rows)

    needed = cache.missing_bytes([ActivationSet(rows, None), ActivationSet(rows, VIEW)])
    plain = run(None)
    assert plain.dtype == np.float16
    assert needed == 2 * plain.nbytes
    assert cache.missing_bytes([ActivationSet(rows, None), ActivationSet(rows, VIEW)]) == plain.nbytes, (
        "the plain activations are there"
    )
    root, transform = Path(features.dataset["root"]), cache.backbone.transform
    pixels = np.stack([read_pixels((root / str(path)).read_bytes(), transform) for path in features.paths[rows]])
    with torch.inference_mode():
        expected = cache.parts.prefix(normalise(torch.from_numpy(pixels), transform)).flatten(1)
    np.testing.assert_allclose(plain, expected.numpy(), rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(cache.load(ActivationSet(rows, None)).take(rows[[3, 1]]), plain[[3, 1]])
    crops = [run(RandomView(k, 0, 0.35, flip=True)) for k in range(2)]
    assert not np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], plain)
    monkeypatch.setattr(Prefix, "forward", lambda *_: pytest.fail("it was computed again"))
    np.testing.assert_array_equal(run(VIEW), crops[0])
    assert not (
        set(cache.backbone.identities.values()) & {FeatureFile(p).identity for p in Path("frozen").glob("*.h5")}
    )


def test_an_image_that_changed_is_named(features: FeatureSet, split_photos: Path, make_image) -> None:
    cache, images = cache_of(features), ActivationSet(np.arange(len(features.paths)), None)
    make_image(split_photos / "train" / "dark" / "00.png", seed=999)
    cache.fill(images, workers=1)
    with pytest.raises(StaleCacheError, match=r"train/dark/00\.png: it has changed since its features were extracted"):
        cache.load(images)


def test_activations_may_take_half_of_the_free_disk(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    cache = cache_of(features)
    assert cache.has_room(500)
    assert not cache.has_room(501)
