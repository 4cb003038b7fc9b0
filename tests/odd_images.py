"""Images that look like photographs, and feature sets that name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from featx.data.file_bytes import image_key
from featx.features.feature_set import FeatureSet


def photograph(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """An image with smooth areas, edges and fine detail, from black to white."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.NEAREST)
    fine = rng.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8))


def set_of(folder: Path, images: Mapping[str, Image.Image | bytes]) -> FeatureSet:
    """Save images, and make a feature set that names them."""
    keys = []
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path)
        keys.append(image_key(path.read_bytes()))
    count = len(images)
    return FeatureSet(
        features=np.zeros((count, 2), dtype=np.float32),
        labels=np.full(count, -1),
        splits=np.array(["train"] * count, dtype=object),
        classes=(),
        paths=np.array(list(images), dtype=object),
        keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16),
        dataset={"root": str(folder)},
    )
