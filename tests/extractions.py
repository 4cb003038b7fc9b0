"""Helpers of the tests of extraction: comparing features, interrupting runs, and changing data sets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.decode import read_pixels, read_views
from featx.extraction.committer import Committer
from featx.extraction.plan import Work
from featx.extraction.result import Extraction
from featx.features.feature_set import FeatureSet
from featx.layer_spec import VIEWS, LayerSpec

MakeImage = Callable[..., Path]


def counts(result: Extraction) -> tuple[int, int, int, int, int]:
    return result.images, result.computed, result.reused, result.failed, result.removed


def embed(backbone: Backbone, path: Path, layer: str = "penultimate") -> np.ndarray:
    """(D,) features of one image, by the backbone alone."""
    pixels = read_pixels(path.read_bytes(), backbone.transform)
    return backbone.encode(pixels[None])[layer][0]


def assert_own_features(result: Extraction, backbone: Backbone, folder: Path) -> None:
    """Assert that every row is what the backbone gives for its image."""
    features = result.load()
    for path, vector in zip(features.paths, features.features, strict=True):
        np.testing.assert_allclose(vector, embed(backbone, folder / path), atol=1e-5, err_msg=str(path))


def assert_all_views(result: Extraction, backbone: Backbone, folder: Path, layer: str = "penultimate") -> None:
    """Assert that every row is what the backbone gives for the views of its image."""
    features = FeatureSet.load(result.file, str(LayerSpec.parse(layer, result.views)))
    assert features.views == len(backbone.views)
    for path, vectors in zip(features.paths, features.features, strict=True):
        pixels = read_views((folder / path).read_bytes(), backbone.transform, VIEWS[result.views])
        np.testing.assert_allclose(vectors, backbone.encode(pixels)[layer], atol=1e-5, err_msg=str(path))


def viewing_backbone(name: str = "flip", **options: Any) -> Backbone:
    """A backbone whose features are in a set of views."""
    return load_backbone("lenet5", views=name, resize=40, device="cpu", **options)


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Raise KeyboardInterrupt as Ctrl-C does, before the batch after the first ``after`` ones is written."""
    store, calls = Committer.store, []

    def stopped(self: Committer, work: Work, rows: np.ndarray, *batch: Any) -> list[int]:
        calls.append(len(rows))
        if len(calls) > after:
            raise KeyboardInterrupt("Ctrl-C")
        return store(self, work, rows, *batch)

    monkeypatch.setattr(Committer, "store", stopped)


def own_network(folder: Path, name: str, forward: str) -> str:
    """Write a network whose embedding is ``forward`` of ``mean``, the (B, 3) mean colours in 0..1, and return its name."""
    code = f"""
import torch
from featx import Transform

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(3, 2)

    def get_classifier(self):
        return self.last

    def forward(self, images):
        mean = images.mean(dim=(2, 3))
        return self.last({forward})
"""
    (folder / f"{name}.py").write_text(code)
    return f"{folder / name}.py:Net"


# Changes to a data set


def rename(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").rename(folder / "dark" / "renamed.png")


def relabel(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").rename(folder / "light" / "moved.png")


def rename_class(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark").rename(folder / "zebra")


def add_copy(folder: Path, make_image: MakeImage) -> None:
    shutil.copy(folder / "dark" / "1.png", folder / "dark" / "copy.png")


def touch(folder: Path, make_image: MakeImage) -> None:
    os.utime(folder / "dark" / "1.png", (1, 1))


def swap(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").rename(folder / "other")
    (folder / "light" / "1.png").rename(folder / "dark" / "1.png")
    (folder / "other").rename(folder / "light" / "1.png")


def split(folder: Path, make_image: MakeImage) -> None:
    for label in ("dark", "light"):
        (folder / "train").mkdir(exist_ok=True)
        (folder / label).rename(folder / "train" / label)
        (folder / "test" / label).mkdir(parents=True)
        (folder / "train" / label / "3.png").rename(folder / "test" / label / "3.png")


def add(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "000.png", seed=999)


def change_content(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "1.png", seed=999)


def change_within_the_same_nanosecond(folder: Path, make_image: MakeImage) -> None:
    stat = (folder / "dark" / "1.png").stat()
    make_image(folder / "dark" / "1.png", seed=999, size=(50, 50))
    os.utime(folder / "dark" / "1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def delete(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").unlink()


def change_everything(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "000.png", seed=999)
    make_image(folder / "light" / "2.png", seed=998)
    (folder / "dark" / "2.png").unlink()
    rename(folder, make_image)


def touch_all(folder: Path, make_image: MakeImage) -> None:
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))


def rename_all(folder: Path, make_image: MakeImage) -> None:
    for path in list(folder.rglob("*.png")):
        path.rename(path.with_name(f"x{9 - int(path.stem)}.png"))


def add_and_touch_all(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "000.png", seed=999)
    touch_all(folder, make_image)
