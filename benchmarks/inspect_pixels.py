"""Odd images against cleanvision: faults planted from a fixed seed, both tools on one folder in one run.

    python benchmarks/inspect_pixels.py ../shared/datasets/hymenoptera ../shared/datasets/trashnet

needs ``pip install cleanvision`` and takes a minute at most. The result is one line of JSON, for 400 images of each data set:
the area under the ROC curve, the recall, the precision among originals and planted images of each fault, how often both tools
agree on the originals, the rank correlation of their scores, and images per second of one thread.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score

from featx.data.decode import read_pixels
from featx.data.file_bytes import image_key
from featx.data.scan import scan_images
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.features.feature_set import FeatureSet
from featx.inspection.pixels import KINDS, inspect_pixels

ORIGINALS, PLANTED = 300, 20
"""Images of each data set that stay as they are, and that get each fault."""


def _blank(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    noise = rng.normal(rng.integers(40, 216, 3), 2, (image.height, image.width, 3))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


def _darkened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.1, 0.3)
    return image.point(lambda level: round(level * share))


def _overexposed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    low = rng.integers(236, 246)
    return image.point(lambda level: min(255, round(low + level / 6)))


def _blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(2, 8) * max(image.size) / 512))


def _strip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    height = round(image.width * rng.uniform(0.1, 0.3))
    top = max(0, (image.height - height) // 2)
    return image.crop((0, top, image.width, min(image.height, top + height)))


FAULTS: dict[str, tuple[Callable[[Image.Image, np.random.Generator], Image.Image], str]] = {
    "blank": (_blank, "low_information"),
    "darkened": (_darkened, "dark"),
    "overexposed": (_overexposed, "light"),
    "blurred": (_blurred, "blurry"),
    "strip": (_strip, "odd_aspect_ratio"),
}
"""What is planted: the function that makes it of an image, and the kind that should find it."""


def plant(data: Path, folder: Path, *, seed: int = 0) -> dict[str, str]:
    """Write originals and faulty images as JPEG files into a folder.

    Returns:
        {name of the file: fault}, "" for the originals.
    """
    images, rng = scan_images(data), np.random.default_rng(seed)
    faults = ["", *FAULTS]
    counts = [ORIGINALS, *[PLANTED] * len(FAULTS)]
    planted: dict[str, str] = {}
    drawn = rng.permutation(len(images)).tolist()
    for fault in np.repeat(faults, counts).tolist():
        while drawn:
            row = drawn.pop()
            try:
                image = Image.open(images.absolute(row))
                if image.format != "JPEG":
                    continue
            except OSError:
                continue
            name = f"{len(planted):04}.jpg"
            planted[name] = fault
            if fault:
                FAULTS[fault][0](image.convert("RGB"), rng).save(folder / name, quality=92)
            else:
                (folder / name).write_bytes(images.absolute(row).read_bytes())
            break
    return planted


def feature_set(folder: Path, names: list[str]) -> FeatureSet:
    """A feature set that names the files of a folder."""
    keys = [image_key((folder / name).read_bytes()) for name in names]
    return FeatureSet(
        features=np.zeros((len(names), 1), dtype=np.float32),
        labels=np.full(len(names), -1),
        splits=np.array(["train"] * len(names), dtype=object),
        classes=(),
        paths=np.array(names, dtype=object),
        keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16),
        dataset={"root": str(folder)},
    )


def by_featx(folder: Path, names: list[str]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The columns of featx, and the seconds of one thread: without and with thumbnails, and once all images are known."""
    features, seconds = feature_set(folder, names), {}
    for what, more in (("thumbnails", {"thumbnails": True}), ("second", {})):
        started = time.perf_counter()
        found = inspect_pixels(features, workers=1, **more)
        seconds[what] = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as home:
        os.environ["FEATX_HOME"] = home
        started = time.perf_counter()
        inspect_pixels(features, workers=1)
        seconds["first"] = time.perf_counter() - started
    return found.columns(), seconds


def by_cleanvision(folder: Path, names: list[str]) -> tuple[dict[str, np.ndarray], float]:
    """The columns of cleanvision for the same kinds, and the seconds of one process."""
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Imagelab(filepaths=[str(folder / name) for name in names])
        started = time.perf_counter()
        lab.find_issues({kind: {} for kind in KINDS}, n_jobs=1, verbose=False)
        seconds = time.perf_counter() - started
    table = lab.issues.loc[[str(folder / name) for name in names]]
    return {column: table[column].to_numpy() for column in table.columns}, seconds


def decode_seconds(folder: Path, names: list[str]) -> float:
    """The seconds that an extraction takes to decode, resize and crop the images in one thread."""
    started = time.perf_counter()
    for name in names:
        with contextlib.suppress(ImageError):
            read_pixels((folder / name).read_bytes(), Transform())
    return time.perf_counter() - started


def measure(data: Path, *, seed: int = 0) -> dict[str, Any]:
    """Plant faults in images of a data set, and compare what both tools find."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        os.environ["FEATX_HOME"] = home
        planted = plant(data, Path(folder), seed=seed)
        names, faults = list(planted), np.array(list(planted.values()))
        found, seconds = by_featx(Path(folder), names)
        theirs, their_seconds = by_cleanvision(Path(folder), names)
        decoding = decode_seconds(Path(folder), names)
    original = faults == ""
    result: dict[str, Any] = {"images": len(names)}
    for fault, (_, kind) in FAULTS.items():
        here = original | (faults == fault)
        result[fault] = {
            tool: _found(columns, kind, here, faults == fault)
            for tool, columns in (("featx", found), ("cleanvision", theirs))
        }
    result["agree_on_originals"] = {
        kind: float(np.mean(found[f"is_{kind}_issue"][original] == theirs[f"is_{kind}_issue"][original]))
        for kind in KINDS
    }
    result["rank_correlation"] = {
        kind: _rank_correlation(found[f"{kind}_score"], theirs[f"{kind}_score"])
        for kind in ("dark", "light", "low_information", "odd_aspect_ratio")
    }
    result["images_per_second"] = {
        "featx": len(names) / seconds["first"],
        "featx with thumbnails": len(names) / seconds["thumbnails"],
        "featx, known": len(names) / seconds["second"],
        "cleanvision": len(names) / their_seconds,
        "decoding of an extraction": len(names) / decoding,
    }
    result["times_as_fast"] = their_seconds / seconds["first"]
    return result


def _found(columns: dict[str, np.ndarray], kind: str, here: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    flags, scores = columns[f"is_{kind}_issue"], columns[f"{kind}_score"]
    return {
        "auroc": float(roc_auc_score(planted[here], -scores[here].astype(np.float64))),
        "recall": float(flags[planted].mean()),
        "precision": float(planted[here & flags.astype(bool)].mean()) if (here & flags.astype(bool)).any() else 0.0,
    }


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def main() -> None:
    """Print the measurements of each data set as one line of JSON."""
    versions = {name: version(name) for name in ("featx", "cleanvision", "pillow", "numpy")}
    print(json.dumps({"versions": versions} | {Path(data).name: measure(Path(data)) for data in sys.argv[1:]}))


if __name__ == "__main__":
    main()
