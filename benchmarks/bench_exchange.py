"""Exports and imports of features: time, rate and peak memory of each format, against what one would write by hand.

    python benchmarks/bench_exchange.py [--rows 250000] [--dim 2048] [--folder FOLDER]

Each export and import runs in a process of its own, whose peak resident memory beyond that of an export of four rows is
measured. By hand: the whole feature set in memory, then ``numpy.save``, ``save_file``, ``AnnData.write_h5ad``,
``DataFrame.to_parquet`` and ``to_csv``. AnnData and Parquet by hand are measured on a tenth of the rows, and their seconds
multiplied; CSV is measured on a tenth throughout. The disk needs about three times the size of the features; 2 GB take two
minutes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_bytes

import featx
from featx.features.feature_file import FeatureFile, ImageTable
from featx.features.writer import FeatureFileWriter

ENDINGS = (".npy", ".safetensors", ".h5ad", ".parquet", ".csv")
_BLOCK = 4096
_NEEDED = {
    ".npy": (),
    ".safetensors": ("safetensors.numpy",),
    ".h5ad": ("anndata", "pandas"),
    ".parquet": ("pandas", "pyarrow.parquet"),
    ".csv": ("pandas",),
}
"""What is imported before the time of a format written by hand begins."""


def make(path: Path, rows: int, dim: int) -> None:
    """A feature file of random features with labels and a column."""
    numbers = np.arange(rows)
    writer = FeatureFileWriter(
        path,
        images=ImageTable(
            paths=np.array([b"class%d/%08d.jpg" % (row % 10, row) for row in range(rows)]),
            labels=numbers % 10,
            splits=np.where(numbers % 5 == 0, b"test", b"train"),
            sizes=numbers,
            mtimes=numbers,
        ),
        classes=[f"class{label}" for label in range(10)],
        layers={"penultimate": (dim, "a" * 64)},
        dtype="float32",
        identity="a" * 64,
        backbone={"name": "made", "weights": "none", "parts": {}},
        dataset={"name": "made", "root": str(path.parent), "splits": "given"},
        columns={"patient": np.array([f"p{row // 7}" for row in range(rows)], dtype=object)},
    )
    rng = np.random.default_rng(0)
    for at in range(0, rows, _BLOCK):
        some = np.arange(at, min(at + _BLOCK, rows))
        keys = rng.integers(0, 256, (len(some), 16), dtype=np.uint8)
        writer.write(some, keys, {"penultimate": rng.standard_normal((len(some), dim), dtype=np.float32)})
    writer.finish()


def run(task: str, *arguments: str) -> dict[str, float]:
    """One task in a process of its own: its seconds and its peak memory."""
    done = subprocess.run([sys.executable, __file__, task, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def task(name: str, arguments: list[str]) -> dict[str, float]:
    """What a process of its own does."""
    source, target = Path(arguments[0]), Path(arguments[1])
    for module in _NEEDED[target.suffix] if name == "hand" else ():
        importlib.import_module(module)
    began = time.perf_counter()
    if name == "export":
        featx.export_features(source, target)
    elif name == "import":
        featx.import_features(source, out=target)
    else:
        by_hand(source, target, share=float(arguments[2]))
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes()}


def by_hand(source: Path, target: Path, share: float) -> None:
    """What one writes without featx: all of it in memory."""
    features = featx.FeatureSet.load(source)
    features = features.take(np.arange(round(share * len(features))))
    matrix = np.array(features.features)
    if target.suffix == ".npy":
        np.save(target, matrix)
    elif target.suffix == ".h5ad":
        import anndata

        anndata.AnnData(matrix, features.to_pandas(embeddings=False)).write_h5ad(target)
    elif target.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"penultimate": matrix, "labels": features.labels}, target)
    elif target.suffix == ".parquet":
        frame = features.to_pandas(embeddings=False)
        frame["penultimate"] = list(matrix)
        frame.to_parquet(target)
    else:
        features.to_pandas().to_csv(target)


def measure(rows: int = 250_000, dim: int = 2048, folder: str | None = None) -> dict[str, Any]:
    """Seconds, MB/s and peak MB beyond a tiny file's, of each export and import and of the same by hand."""
    found: dict[str, Any] = {"rows": rows, "dim": dim, "size_mb": round(rows * dim * 4 / 1e6)}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        large, tenth, tiny = (Path(name, f"{each}.h5") for each in ("large", "tenth", "tiny"))
        for path, count in ((large, rows), (tenth, rows // 10), (tiny, 4)):
            make(path, count, dim)
        for ending in ENDINGS:
            source = tenth if ending == ".csv" else large
            size = len(FeatureFile(source)) * dim * 4
            least = run("export", str(tiny), str(Path(name, f"tiny-{ending[1:]}{ending}")))["peak_bytes"]
            out = Path(name, f"out-{ending[1:]}{ending}")
            exported = run("export", str(source), str(out))
            back = run("import", str(out), str(Path(name, "back.h5")))
            share = 1.0 if ending in (".npy", ".safetensors") else 0.1 if ending != ".csv" else 1.0
            hand = run("hand", str(source), str(Path(name, f"hand{ending}")), str(share))
            found[ending] = {
                "export_s": round(exported["seconds"], 2),
                "export_mb_per_s": round(size / 1e6 / exported["seconds"]),
                "export_peak_mb": round((exported["peak_bytes"] - least) / 1e6),
                "import_s": round(back["seconds"], 2),
                "import_mb_per_s": round(size / 1e6 / back["seconds"]),
                "import_peak_mb": round((back["peak_bytes"] - least) / 1e6),
                "hand_s": round(hand["seconds"] / share, 2),
                "hand_peak_mb": round((hand["peak_bytes"] - least) / 1e6),
                "hand_share": share,
            }
            for path in (out, Path(name, "back.h5"), Path(name, f"hand{ending}")):
                path.unlink()
    return found


def main() -> None:
    """Print one JSON line."""
    if sys.argv[1:2] and sys.argv[1] in ("export", "import", "hand"):
        print(json.dumps(task(sys.argv[1], sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--folder")
    asked = parser.parse_args()
    versions = {name: version(name) for name in ("numpy", "h5py", "pyarrow", "pandas", "anndata")}
    print(
        json.dumps(
            measure(asked.rows, asked.dim, asked.folder) | {"versions": {"featx": featx.__version__, **versions}}
        )
    )


if __name__ == "__main__":
    main()
