"""Fixtures of the tests of promotion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.data.decode import read_pixels
from featx.features.feature_set import FeatureSet


@pytest.fixture
def features(split_photos: Path, in_tmp: Path) -> FeatureSet:
    """LeNet-5's features of 32 train and 16 val photographs."""
    return featx.extract(split_photos, "lenet5").load()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """The digits through a LeNet-5 with random weights: there is something to win by fine-tuning."""
    backbone = featx.load_backbone("lenet5", weights="random")
    return featx.extract("digits", backbone, cache=tmp_path_factory.mktemp("digits")).load()


@pytest.fixture
def pixels_of() -> Callable[[FeatureSet, featx.Transform], np.ndarray]:
    """Reads the (N, 3, H, W) uint8 pixels of all images of a feature set."""

    def read(features: FeatureSet, transform: featx.Transform) -> np.ndarray:
        root = Path(features.dataset["root"])
        return np.stack([read_pixels((root / str(path)).read_bytes(), transform) for path in features.paths])

    return read
