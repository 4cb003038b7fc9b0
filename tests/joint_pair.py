"""A head on two small backbones side by side, with the images that it was fitted to: what several test files are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featx.backbones.backbone import Backbone, load_backbone
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inference import HeadOnBackbone, load_model

CODE = '''
import torch
from torch import nn

from featx import Transform


class Tiny(nn.Module):
    """A network of grey images of 24 pixels."""

    transform = Transform(resize=26, crop=24, mean=(0.4,), std=(0.3,), channels=1, interpolation="bicubic")

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, 2)
        self.fc = nn.Linear(12, 5)

    def forward(self, images):
        maps = torch.relu(self.conv2(torch.relu(self.norm(self.conv1(images)))))
        return self.fc(maps.mean((2, 3)))


def tiny():
    return Tiny()
'''


@dataclass(frozen=True)
class JointPair:
    """A folder with images, a cache folder with a feature file for each of two backbones, and a head on both.

    Attributes:
        folder: holds all of it.
        code: the name of the second backbone; the first is lenet5.
    """

    folder: Path
    code: str

    @property
    def photos(self) -> Path:
        """The images, in a folder for each of three classes."""
        return self.folder / "photos"

    @property
    def cache(self) -> Path:
        """The folder of feature files."""
        return self.folder / "cache"

    @property
    def head(self) -> Path:
        """The file of the head, in the views "flip"."""
        return self.folder / "joint.safetensors"

    @property
    def files(self) -> list[Path]:
        """The feature files, in the order of the columns."""
        return [self.cache / "photos--lenet5.h5", self.cache / "photos--tiny-tiny.h5"]

    @property
    def images(self) -> list[str]:
        """Some of the images."""
        return [str(path) for path in sorted(self.photos.glob("*/*.png"))[::5]]

    def features(self) -> FeatureSet:
        """The features of both backbones, joined."""
        layers = ["penultimate@flip", "penultimate,conv2:max@flip"]
        return FeatureSet.join([FeatureSet.load(file, layer) for file, layer in zip(self.files, layers, strict=True)])

    def model(self) -> HeadOnBackbone:
        """The head on its backbones."""
        model = load_model(self.head, backbone=self.code, device="cpu")
        assert isinstance(model, HeadOnBackbone)
        return model

    def second(self, **options: Any) -> Backbone:
        """The second backbone."""
        return load_backbone(self.code, layers="conv2:max", views="flip", device="cpu", **options)


def make_joint_pair(folder: Path) -> JointPair:
    """Make the images, extract the features, and fit the head."""
    rng = np.random.default_rng(0)
    for label, name in enumerate("abc"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(16):
            height, width = rng.integers(30, 60, 2)
            y, x = np.mgrid[:height, :width]
            stripes = [x % 8 < 4, y % 8 < 4, (x + y) % 8 < 4][label]
            pixels = stripes[..., None] * rng.integers(100, 255, 3) + rng.integers(0, 60, (height, width, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "photos" / name / f"{number:02}.png")
    (folder / "tiny.py").write_text(CODE)
    pair = JointPair(folder, f"{folder / 'tiny.py'}:tiny")
    for backbone in (load_backbone("lenet5", views="flip", device="cpu"), pair.second()):
        extract(pair.photos, backbone, cache=pair.cache, workers=1)
    features = pair.features()
    head = Head("logreg", C=1.0).fit(features, rows=features.rows("train"))
    head.save(pair.head, report=head.judge(features, split="test")[0])
    return pair
