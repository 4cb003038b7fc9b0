"""Made features of the same images through two or three backbones, which tests join."""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.features.feature_set import FeatureSet

WIDTHS = {"one": 6, "two": 10, "three": 4}


def part(
    name: str = "one", *, count: int = 90, seed: int = 0, signal: float = 1.0, views: int = 1, **changes: Any
) -> FeatureSet:
    """The features of one backbone: those of another name are of the same images and other numbers."""
    rng = np.random.default_rng([seed, WIDTHS[name]])
    labels = np.arange(count) % 3
    X = rng.normal(size=(count, views, WIDTHS[name]))
    X[..., :3] += signal * 2 * np.eye(3)[labels][:, None]
    keys = np.random.default_rng(5).integers(0, 256, (count, 16), dtype=np.uint8)
    fields: dict[str, Any] = {
        "features": (X[:, 0] if views == 1 else X).astype(np.float32),
        "labels": labels,
        "splits": np.array(["train", "train", "test"], dtype=object)[np.arange(count) // 3 % 3],
        "classes": ("ant", "bee", "cow"),
        "paths": np.array([f"{row:03}.png" for row in range(count)], dtype=object),
        "keys": keys,
        "identity": f"{len(name)}{WIDTHS[name]}".rjust(64, "0"),
        "layer": "penultimate" if views == 1 else "penultimate@flip",
        "backbone": {
            "name": name,
            "weights": "default",
            "parts": {"dtype": "float32", "transform": {
                "resize": 8, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
            }},
        },
        "dataset": {"name": "pets", "root": "/data/pets", "splits": "given"},
    }  # fmt: skip
    return FeatureSet(**{**fields, **changes})
