"""Peak memory and seconds of heads on features that are larger than memory. Prints one JSON line with versions.

    python benchmarks/bench_large_heads.py                          # 250,000 and 1,000,000 rows of 768 float16; some minutes
    python benchmarks/bench_large_heads.py --rows 10000000          # 15.4 GB on the disk of --folder

A fake backbone makes the features: hidden variables of falling variance about the centre of each class, projected, with noise.
They lie in a memory-mapped file, as those of a feature file do. Each fit is a process of its own, with C given, as
``featx fit-head -C 1`` does it: standardisation, folds, the fit. ``table_bytes`` is the memory of the process before the fit:
the labels, splits, paths and keys of all rows. ``peak_bytes`` is its peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_bytes

WIDTH, CLASSES, HIDDEN, BLOCK = 768, 10, 64, 1 << 15


def fake_blocks(rows: int, most: int | None = None, width: int = WIDTH) -> Iterator[np.ndarray]:
    """(rows, width) float16 features, block by block; row i is of class i mod CLASSES.

    Args:
        rows: of all.
        most: a block ends at each multiple of this number of rows.
        width: at most WIDTH.
    """
    rng = np.random.default_rng(0)
    projection = (rng.normal(size=(HIDDEN, WIDTH)) / np.sqrt(HIDDEN)).astype(np.float32)
    centres = (rng.normal(size=(CLASSES, HIDDEN)) * 0.25).astype(np.float32)
    spread = (np.arange(1, HIDDEN + 1) ** -0.5 * 3).astype(np.float32)
    noise = (0.3 * rng.normal(size=(2 * BLOCK, WIDTH))).astype(np.float32)
    for first in range(0, rows, most or rows):
        end = min(first + (most or rows), rows)
        for at in range(first, end, BLOCK):
            which = np.arange(at, min(at + BLOCK, end)) % CLASSES
            hidden = rng.standard_normal((len(which), HIDDEN), dtype=np.float32) * spread + centres[which]
            shift = int(rng.integers(BLOCK))
            noisy = noise[shift : shift + len(which), :width]
            yield (hidden @ projection[:, :width] + noisy + 0.5).astype(np.float16)


def make(path: Path, rows: int) -> None:
    """Write (rows, WIDTH) float16 features, unless they are there."""
    if path.exists() and path.stat().st_size == rows * WIDTH * 2:
        return
    with path.open("wb") as file:
        for block in fake_blocks(rows):
            file.write(block.tobytes())


def feature_set(path: Path, rows: int) -> Any:
    """The features as a feature set, with the tables that a feature file has."""
    import featx
    from featx.features.encoded_paths import EncodedPaths

    return featx.FeatureSet(
        features=np.memmap(path, np.float16, "r", shape=(rows, WIDTH)),
        labels=np.arange(rows) % CLASSES,
        splits=np.array(["train", "test"], dtype=object)[(np.arange(rows) % 100 == 99).astype(np.int64)],
        classes=tuple(f"class {n}" for n in range(CLASSES)),
        paths=EncodedPaths(np.array([b"%d/%08d.jpg" % (n % CLASSES, n) for n in range(rows)])),
        keys=np.random.default_rng(1).integers(0, 256, (rows, 16), dtype=np.uint8),
    )


def measure_here(path: Path, rows: int, model: str) -> dict[str, Any]:
    """Fit a head in this process, and measure it."""
    import featx

    features = feature_set(path, rows)
    table = peak_bytes()
    started = time.perf_counter()
    head = featx.Head(model, C=1.0).fit(features)
    seconds = time.perf_counter() - started
    report = head.evaluate(features)
    return {
        "model": model, "rows": rows, "width": WIDTH, "classes": CLASSES, "feature_bytes": rows * WIDTH * 2,
        "table_bytes": table, "peak_bytes": peak_bytes(), "seconds": round(seconds, 2),
        "accuracy": report.accuracy, "gap": (head.convergence_ or {}).get("gap"), "notes": head.notes_,
    }  # fmt: skip


def measure(folder: Path, rows: int, model: str) -> dict[str, Any]:
    """Fit a head in a process of its own."""
    make(folder / f"{rows}.f16", rows)
    words = [sys.executable, __file__, "--here", model, "--rows", str(rows), "--folder", str(folder)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(found.stderr)
    return dict(json.loads(found.stdout))


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--models", nargs="+", default=["ridge", "logreg"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.folder / f"{options.rows[0]}.f16", options.rows[0], options.here)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        fits = [measure(folder, rows, model) for rows in options.rows for model in options.models]
    print(json.dumps({"fits": fits, "versions": {name: version(name) for name in ("featx", "numpy", "scipy")}}))


if __name__ == "__main__":
    main()
