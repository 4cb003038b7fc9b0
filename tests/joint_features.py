"""Made features of the same images through two or three backbones, which tests join."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.features.feature_file import ImageTable
from featx.features.feature_set import FeatureSet
from featx.features.writer import FeatureFileWriter

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


def written(
    folder: Path, features: FeatureSet, *, layers: Sequence[str] = ("penultimate",), name: str = "", **changes: Any
) -> Path:
    """A feature file with these features in each of some layers and views."""
    by_view = features.features if features.features.ndim == 3 else features.features[:, None]
    stored = {
        f"{layer}{view}": by_view[:, at]
        for layer in layers
        for at, view in zip(range(by_view.shape[1]), ("", "@mirrored"), strict=False)
    }
    order = np.argsort([path.encode() for path in features.paths])
    dataset = {"name": "pets", "root": str(folder / "pets"), "splits": "given", **changes}
    identities = {
        layer: hashlib.sha256(f"{features.backbone['name']} {layer}".encode()).hexdigest() for layer in stored
    }
    file = folder / (name or f"pets--{features.backbone['name']}.h5")
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = FeatureFileWriter(
        file,
        images=ImageTable(
            paths=np.array([path.encode() for path in features.paths[order]]),
            labels=features.labels[order],
            splits=np.array([split.encode() for split in features.splits[order]]),
            sizes=np.arange(len(features)),
            mtimes=np.arange(len(features)) + 10**18,
        ),
        classes=features.classes,
        layers={layer: (features.width, identities[layer]) for layer in stored},
        dtype="float32",
        identity=hashlib.sha256("".join(identities.values()).encode()).hexdigest(),
        backbone=features.backbone,
        dataset=dataset,
    )
    writer.publish()
    writer.write(
        list(range(len(order))), features.keys[order], {layer: values[order] for layer, values in stored.items()}
    )
    writer.finish()
    return file
