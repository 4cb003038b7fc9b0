"""Data sets in several feature files: writing, opening, reading and fitting, with little memory. Prints one JSON line.

    python benchmarks/bench_sets.py                                       # 1,000,000 rows of 768 float16 in 4 files, 1.6 GB
    python benchmarks/bench_sets.py --rows 10000000 --split-rows 2500000 --folder /data   # 16 GB on the disk of --folder
    python benchmarks/bench_sets.py --rows 5000000 --split-rows 5000000 --width 8 --measure file   # one file of many images

A fake backbone makes the features, those of ``bench_large_heads.py``; featx's own writer writes them, and the set is removed at
the end. Each measurement is a process of its own: ``load`` is ``FeatureSet.load``, which checks the checksum of every row;
``file`` is the same with the first file alone;
``blocks`` goes through all rows once; ``gather`` reads 100,000 rows drawn at random; the heads are fitted with C = 1.
``peak_bytes`` is the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_large_heads import CLASSES, WIDTH, fake_blocks
from common import peak_bytes

from featx.features.feature_file import ImageTable
from featx.features.feature_set import FeatureSet
from featx.features.manifest import ListedFile, Manifest
from featx.features.writer import FeatureFileWriter

IDENTITY = "f" * 64
LOADS = ("load", "blocks", "gather")


def make(folder: Path, rows: int, split_rows: int, width: int = WIDTH) -> float:
    """Write a set of fake features, and return the seconds that it took."""
    started = time.perf_counter()
    folder.mkdir(parents=True)
    blocks, listed = fake_blocks(rows, split_rows, width), []
    for number, first in enumerate(range(0, rows, split_rows), 1):
        which = np.arange(first, min(first + split_rows, rows))
        digits = np.char.zfill(which.astype("S10"), 10)
        images = ImageTable(
            paths=np.char.add(digits, b".jpg"),
            labels=which % CLASSES,
            splits=np.where(which % 100 == 99, b"test", b"train"),
            sizes=which + 1000,
            mtimes=which,
        )
        writer = FeatureFileWriter(
            folder / f"{number:04d}.h5", images=images, classes=[f"class {n}" for n in range(CLASSES)],
            layers={"penultimate": (width, IDENTITY)}, dtype="float16", identity=IDENTITY,
            backbone={"name": "fake", "weights": "none", "parts": {}},
            dataset={"name": "photos", "root": "/photos", "splits": "given"},
        )  # fmt: skip
        writer.publish()
        keys, at = np.random.default_rng(number).integers(1, 256, (len(which), 16), dtype=np.uint8), 0
        while at < len(which):
            features = next(blocks)
            some = np.arange(at, at + len(features))
            writer.write(some, keys[some], {"penultimate": features})
            at += len(features)
        file = writer.finish()
        listed.append(ListedFile(file.path.name, len(file), file.digest, file.paths[0]))
    Manifest(IDENTITY, "photos", "/photos", "fake", split_rows, tuple(listed)).write(folder)
    return time.perf_counter() - started


def measure_here(folder: Path, what: str) -> dict[str, Any]:
    """Do one thing in this process, and measure it."""
    started = time.perf_counter()
    features = FeatureSet.load(folder / "0001.h5" if what == "file" else folder)
    found: dict[str, Any] = {
        "what": what,
        "rows": len(features),
        "load_seconds": round(time.perf_counter() - started, 2),
    }
    found["load_peak_bytes"] = peak_bytes()
    started = time.perf_counter()
    if what == "blocks":
        total = sum(float(X[:, 0].astype(np.float64).sum()) for _, X, _ in features.blocks())
        found["sum"] = round(total, 3)
    elif what == "gather":
        rows = np.random.default_rng(0).permutation(len(features))[:100_000]
        for at in range(0, len(rows), 1000):
            assert features.features[rows[at : at + 1000]].shape[1] == WIDTH
    elif what not in ("load", "file"):
        import featx

        head = featx.Head(what, C=1.0).fit(features)
        found["fit_seconds"] = round(time.perf_counter() - started, 2)
        found["accuracy"] = head.evaluate(features).accuracy
    return {**found, "seconds": round(time.perf_counter() - started, 2), "peak_bytes": peak_bytes()}


def measure(folder: Path, rows: int, split_rows: int, whats: list[str], width: int = WIDTH) -> dict[str, Any]:
    """Make a set, measure each thing in a process of its own, and remove the set."""
    place = folder / "photos--fake.set"
    try:
        seconds = make(place, rows, split_rows, width)
        size = sum(path.stat().st_size for path in place.iterdir())
        found = []
        for what in whats:
            words = [sys.executable, __file__, "--here", what, "--folder", str(place)]
            run = subprocess.run(words, capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(run.stderr)
            found.append(json.loads(run.stdout))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {
        "rows": rows,
        "split_rows": split_rows,
        "width": width,
        "bytes": size,
        "write_seconds": round(seconds, 2),
        "measured": found,
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--split-rows", type=int, default=250_000)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--measure", nargs="+", default=[*LOADS, "ridge", "logreg"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.folder, options.here)))
        return
    with tempfile.TemporaryDirectory() as made:
        found = measure(options.folder or Path(made), options.rows, options.split_rows, options.measure, options.width)
    print(json.dumps({**found, "versions": {name: version(name) for name in ("featx", "numpy", "scipy")}}))


if __name__ == "__main__":
    main()
