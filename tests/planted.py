"""A small data set of real files with planted faults, whose names are as odd as file systems allow, and its inspection."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import featx
from featx.inspection.result import Inspection

CLASSES = ("<b>dark", "li\"ght, 'grey' & so", "\u05e9\u05dc\u05d5\u05dd")
"""Names with markup, quotes, a comma, and from right to left."""

TINTS = (50, 120, 200)

COPIED, COPY = "train/{0}/03.png", "val/{0}/copy of 03.png"
"""One file in two splits, byte for byte: a leak. ``{0}`` is the first class."""

ODD_NAMES = ("<img src=x onerror=alert(1)>.png", "a\nb,\t\"c\"'d'.png", "\u202egnp.\u05d0\u05d1.png", "100%25 #1?.png")
"""Names of files with markup, a line break, quotes, marks of direction, and what addresses would take for their own."""


@dataclass(frozen=True)
class Planted:
    """A data set with faults.

    Attributes:
        root: its folder.
        file: its feature file.
        wrong: path and true class of each image with a wrong label.
    """

    root: Path
    file: Path
    wrong: dict[str, str]

    def inspect(self) -> Inspection:
        """Look at it, with thumbnails."""
        return featx.inspect(self.file, thumbnails=True)


def photograph(seed: int, tint: int, size: tuple[int, int] = (48, 36)) -> Image.Image:
    """A picture of large and small structures whose mean is its tint."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 110, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse) + rng.normal(tint - 55, 8, (size[1], size[0], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def plant(folder: Path, *, train: int = 16, val: int = 8) -> Planted:
    """Make the images, plant the faults, and extract features by the built-in LeNet-5.

    Faults: two wrong labels in each class, one copy across the splits, one copy of another class, one near-duplicate, one
    white image, and one image that is gone.
    """
    root, wrong = folder / "photos", dict[str, str]()
    for number, name in enumerate(CLASSES):
        names = [f"{at:02}.png" for at in range(train + val)]
        names[4 : 4 + len(ODD_NAMES)] = ODD_NAMES
        for at, file in enumerate(names):
            path = f"{'train' if at < train else 'val'}/{name}/{file}"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            is_wrong = at in (1, train + 1)
            true = (number + is_wrong) % len(CLASSES)
            photograph(1000 * number + at, TINTS[true]).save(root / path)
            if is_wrong:
                wrong[path] = CLASSES[true]
    first, second, _ = CLASSES
    shutil.copyfile(root / COPIED.format(first), root / COPY.format(first))
    shutil.copyfile(root / f"train/{first}/02.png", root / f"train/{second}/other.png")
    with Image.open(root / f"train/{second}/02.png") as image:
        image.save(root / f"train/{second}/again.jpg", quality=95)
    Image.new("RGB", (48, 36), (255, 255, 255)).save(root / f"train/{first}/white.png")
    extraction = featx.extract(root, "lenet5", cache=folder / "cache")
    (root / f"train/{first}/00.png").unlink()
    return Planted(root, extraction.file, wrong)
