"""How well near-duplicates are found, and how fast. Prints one JSON line with versions.

    python benchmarks/inspect_near.py                      # both photographic sets, both backbones: four minutes, once
    python benchmarks/inspect_near.py --speed 10000        # and the time against cleanlab's Datalab
    python benchmarks/inspect_near.py --sets --speed 100000 --alone  # only featx's own time, with its peak of memory

Of 100 images of a set, drawn by seed 0, changed copies are added: halved in size, saved as JPEG of quality 30, mirrored,
cropped to 75 % of the width and height at a random place (``crop``) or to 75 % of the area (``crop_area``), or grey. The set
and the copies of one kind are inspected together. For each kind:

``average_precision`` of the 100 pairs of an image and its copy among all pairs of an image and a copy, ranked by the distance
that ``find_duplicates`` gives; ``recall`` at its default threshold; and ``originals``, the pairs it flags among the images of
the set, which has some duplicates of its own. ``plain`` has the average precision of the cosine of the features themselves, the
recall at half the median distance to the nearest neighbour, and at 0.13 times that median (Datalab's rule).

``speed`` compares ``nearest_neighbours``, ``find_duplicates`` and ``find_outliers`` with Datalab's ``find_issues`` for the same
two sorts of findings, on made features of 768, in turns, three times.

The features stay in ``--cache``, so a second run needs no backbone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_bytes
from PIL import Image, ImageOps
from sklearn.metrics import average_precision_score

import featx
from featx.features.feature_set import FeatureSet
from featx.inspection.duplicates import find_duplicates
from featx.inspection.neighbours import nearest_neighbours
from featx.inspection.outliers import find_outliers

SHARED = Path(__file__).resolve().parents[2] / "shared"
BACKBONES = {"mobilenet_v1_075": "mobilenet_v1_075", "timm/tf_efficientnet_lite0": "efficientnet_lite0"}
COPIES = 100


def cropped(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    """A crop of some share of the width and the height, at a random place."""
    width, height = round(image.width * share), round(image.height * share)
    x, y = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((x, y, x + width, y + height))


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "halved": lambda image, _: image.resize((max(1, image.width // 2), max(1, image.height // 2))),
    "jpeg30": lambda image, _: image,
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "crop": lambda image, rng: cropped(image, rng, 0.75),
    "crop_area": lambda image, rng: cropped(image, rng, 0.75**0.5),
    "grey": lambda image, _: image.convert("L").convert("RGB"),
}


def plant(root: Path, paths: Sequence[str], folder: Path, *, seed: int = 0) -> np.ndarray:
    """Write changed copies of some images of a set: ``folder/KIND/NNN``; the rows of the images, in this order."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(paths))[:COPIES]
    for kind, change in KINDS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(rows):
            with Image.open(root / paths[row]) as image:
                copy = change(ImageOps.exif_transpose(image).convert("RGB"), rng)
            if kind == "jpeg30":
                copy.save(folder / kind / f"{number:03d}.jpg", quality=30)
            else:
                copy.save(folder / kind / f"{number:03d}.png", compress_level=1)
    return rows


def judge(Z: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Judge what is found in the features of a set, and of copies of some of its rows behind them."""
    features = unlabelled(Z)
    count = len(Z) - len(rows)
    neighbours = nearest_neighbours(features)
    found = find_duplicates(features, neighbours)
    everything = find_duplicates(features, neighbours, threshold=2.1)
    ranked = np.full((len(Z), len(Z)), 2.1)
    ranked[tuple(everything.pairs.T)] = everything.distances
    flagged = np.zeros(ranked.shape, dtype=bool)
    flagged[tuple(found.pairs.T)] = True
    unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    cosine = 1 - unit @ unit.T
    median = np.median(neighbours.distances[:, 0])
    pairs = rows, count + np.arange(len(rows))
    planted = np.zeros((count, len(rows)), dtype=bool)
    planted[rows, np.arange(len(rows))] = True

    def precision(distances: np.ndarray) -> float:
        return round(float(average_precision_score(planted.ravel(), -distances[:count, count:].ravel())), 3)

    return {
        "average_precision": precision(ranked),
        "recall": round(float(flagged[pairs].mean()), 3),
        "originals": int(flagged[:count, :count].sum()),
        "plain": {
            "average_precision": precision(cosine),
            "recall": round(float((cosine[pairs] < 0.5 * median).mean()), 3),
            "recall_datalab": round(float((cosine[pairs] < 0.13 * median).mean()), 3),
        },
    }


def unlabelled(Z: np.ndarray) -> FeatureSet:
    """A feature set of images that nothing is known about."""
    return FeatureSet(
        features=Z,
        labels=np.full(len(Z), -1),
        splits=["train"] * len(Z),
        classes=(),
        paths=[f"{row}.jpg" for row in range(len(Z))],
        keys=np.zeros((len(Z), 16), dtype=np.uint8),
    )


def measure(
    sets: Sequence[str] = ("trashnet", "hymenoptera"), *, cache: str | Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """Judge the copies of each set, by each backbone."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for name, file in BACKBONES.items():
            weights = str(SHARED / "weights" / f"{file}.safetensors")
            backbone = featx.load_backbone(name, weights=weights)
            for each in sets:
                kept = Path(cache) if cache else place / "cache"
                root = SHARED / "datasets" / each
                originals = featx.extract(root, backbone, cache=kept / "originals").load()
                rows = plant(root, originals.paths.tolist(), place / each, seed=seed)
                copies = featx.extract(place / each, backbone, cache=kept / "copies").load()
                names = copies.paths.astype(str)
                result[f"{each} {file}"] = {
                    kind: judge(
                        np.concatenate([originals.plain, copies.plain[_numbered(names, kind)]]).astype(np.float64), rows
                    )
                    for kind in KINDS
                }
    return result


def _numbered(names: np.ndarray, kind: str) -> np.ndarray:
    """The rows of the copies of one kind, by number."""
    rows = np.flatnonzero(np.char.startswith(names, f"{kind}/"))
    return rows[np.argsort(names[rows])]


def measure_speed(images: int, *, width: int = 768, repeats: int = 3, alone: bool = False) -> dict[str, Any]:
    """The seconds of featx and of Datalab for duplicates and outliers, medians of several in turns."""
    rng = np.random.default_rng(0)
    Z = np.empty((images, width), dtype=np.float16)
    mixing = rng.normal(size=(64, width)).astype(np.float32) / 8
    for at in range(0, images, 10_000):
        part = Z[at : at + 10_000]
        made = rng.normal(size=(len(part), 64)).astype(np.float32) @ mixing
        part[:] = np.maximum(made + 0.5 * rng.standard_normal(part.shape, dtype=np.float32), 0)
    features = unlabelled(Z)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(1 if alone else repeats):
        began = time.perf_counter()
        neighbours = nearest_neighbours(features)
        duplicates = find_duplicates(features, neighbours)
        find_outliers(neighbours, duplicates)
        ours.append(time.perf_counter() - began)
        if not alone:
            theirs.append(_datalab(Z))
    result = {"images": images, "width": width, "featx": round(statistics.median(ours), 2)}
    if alone:
        return {**result, "peak_bytes": peak_bytes()}
    ratio = statistics.median(np.divide(ours, theirs).tolist())
    return {**result, "datalab": round(statistics.median(theirs), 2), "ratio": round(ratio, 3)}


def _datalab(Z: np.ndarray) -> float:
    from cleanlab import Datalab

    Datalab(data={"n": np.arange(50)}, verbosity=0).find_issues(features=Z[:50], issue_types={"outlier": {}})  # imports
    Z = Z.astype(np.float32)
    began = time.perf_counter()
    lab = Datalab(data={"n": np.arange(len(Z))}, verbosity=0)
    lab.find_issues(features=Z, issue_types={"near_duplicate": {}, "outlier": {}})
    return time.perf_counter() - began


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["trashnet", "hymenoptera"])
    parser.add_argument("--cache", help="folder of the features; by default, they are computed again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", type=int, help="number of images of the speed part")
    parser.add_argument("--alone", action="store_true", help="without Datalab")
    options = parser.parse_args()
    result: dict[str, Any] = measure(options.sets, cache=options.cache, seed=options.seed) if options.sets else {}
    if options.speed:
        result["speed"] = measure_speed(options.speed, alone=options.alone)
    names = ["numpy", "scikit-learn", *(["cleanlab"] if options.speed and not options.alone else [])]
    versions = {"featx": featx.__version__, **{name: version(name) for name in names}}
    print(json.dumps({"benchmark": "inspect_near", **result, "versions": versions}))


if __name__ == "__main__":
    main()
