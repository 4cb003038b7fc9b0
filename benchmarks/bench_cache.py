"""How fast a feature file is written, read and checked, against plain np.memmap and the naive h5py append.

    python benchmarks/bench_cache.py                                  # 100,000 x 2048 float16, five rounds
    python benchmarks/bench_cache.py --extract 1000000 --rounds 1     # and a whole extraction of a million images
    python benchmarks/bench_cache.py --sizes 1000 10000 100000        # nothing but extractions: what grows with the data set

Prints one JSON line. Rates are GB/s of features; every ratio is of medians, from interleaved rounds of one process. "cold"
reads come after the file's pages were dropped from the system's cache (posix_fadvise). Files are made in --folder, which
needs about four times the features' size. Extractions are of tiny images through a tiny network, each in a process of its own,
so that what is left is reading, decoding, hashing and writing, and "growth, GB" is what the data set took of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
from common import peak_bytes

from featx.features.feature_file import FeatureFile, ImageTable
from featx.features.writer import FeatureFileWriter

BATCH = 64

NETWORK = """
import torch
from featx import Transform

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(192, {dim})
        self.last = torch.nn.Linear({dim}, 2)

    def get_classifier(self):
        return self.last

    def forward(self, images):
        return self.last(self.body(images.flatten(1)))
"""


def write_featx(path: Path, blocks: list[np.ndarray], rows: int, dim: int) -> None:
    """Rows through FeatureFileWriter, their checks and the digest included."""
    table = ImageTable(
        paths=np.char.mod("%08d.jpg", np.arange(rows)).astype("S"),
        labels=np.zeros(rows, np.int64),
        splits=np.full(rows, b"train"),
        sizes=np.ones(rows, np.int64),
        mtimes=np.ones(rows, np.int64),
    )
    facts = {"name": "bench", "root": "/bench", "splits": "given"}
    backbone = {"name": "bench", "weights": "none", "parts": {}}
    writer = FeatureFileWriter(
        path, images=table, classes=["one"], layers={"penultimate": (dim, "0" * 64)}, dtype="float16", identity="0" * 64,
        backbone=backbone, dataset=facts,
    )  # fmt: skip
    writer.publish()
    keys = np.random.default_rng(0).integers(1, 256, (BATCH, 16), dtype=np.uint8)
    for at in range(0, rows, BATCH):
        block = blocks[at // BATCH % len(blocks)][: rows - at]
        writer.write(np.arange(at, at + len(block)), keys[: len(block)], {"penultimate": block})
    writer.finish()


def write_memmap(path: Path, blocks: list[np.ndarray], rows: int, dim: int) -> None:
    """The bare features: no checks, no keys, nothing that survives a crash."""
    out = np.memmap(path, np.float16, "w+", shape=(rows, dim))
    for at in range(0, rows, BATCH):
        block = blocks[at // BATCH % len(blocks)][: rows - at]
        out[at : at + len(block)] = block
    out.flush()


def write_h5py(path: Path, blocks: list[np.ndarray], rows: int, dim: int) -> None:
    """What one writes first: a resizable data set with automatic chunks, grown batch by batch."""
    with h5py.File(path, "w") as file:
        out = file.create_dataset("features", (0, dim), np.float16, maxshape=(None, dim), chunks=True)
        for at in range(0, rows, BATCH):
            block = blocks[at // BATCH % len(blocks)][: rows - at]
            out.resize(at + len(block), axis=0)
            out[at : at + len(block)] = block
        file.flush()
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def read_featx(path: Path) -> None:
    """Open the file with its digest, and copy the features into memory."""
    np.array(FeatureFile(path).features("penultimate"))


def check_and_read_featx(path: Path) -> None:
    """The same as ``fit-head`` does it: every row against its check first."""
    cache = FeatureFile(path)
    assert cache.checksums_match("penultimate", np.arange(len(cache))).all()
    np.array(cache.features("penultimate"))


def read_h5py(path: Path) -> None:
    """All of the naive file."""
    with h5py.File(path) as file:
        file["features"][()]


def forget(path: Path) -> None:
    """Drop a file's pages from the system's cache."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def timed(action: Callable[[], object]) -> float:
    """Seconds of wall time."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def storage(folder: Path, rows: int, dim: int, rounds: int) -> dict[str, object]:
    """Write and read rates, in GB/s, and their ratios."""
    rng = np.random.default_rng(0)
    blocks = [rng.standard_normal((BATCH, dim), dtype=np.float32).astype(np.float16) for _ in range(32)]
    gigabytes = rows * dim * 2 / 1e9
    files = {name: folder / f"{name}.bin" for name in ("memmap", "h5py")} | {"featx": folder / "featx.h5"}
    writers = {"featx": write_featx, "memmap": write_memmap, "h5py": write_h5py}
    readers: dict[str, tuple[Path, Callable[[Path], object]]] = {
        "memmap": (files["memmap"], lambda path: np.array(np.memmap(path, np.float16, "r", shape=(rows, dim)))),
        "featx": (files["featx"], read_featx),
        "featx, checked": (files["featx"], check_and_read_featx),
        "h5py": (files["h5py"], read_h5py),
    }
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, write in writers.items():
            files[name].unlink(missing_ok=True)
            seconds.setdefault(f"write {name}", []).append(
                timed(lambda write=write, name=name: write(files[name], blocks, rows, dim))
            )
        for name, (path, read) in readers.items():
            forget(path)
            seconds.setdefault(f"cold read {name}", []).append(timed(lambda read=read, path=path: read(path)))
        for name, (path, read) in readers.items():
            seconds.setdefault(f"warm read {name}", []).append(timed(lambda read=read, path=path: read(path)))
    for path in files.values():
        path.unlink()
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        "write, against memmap": median["write memmap"] / median["write featx"],
        "write, against h5py append": median["write h5py"] / median["write featx"],
    }
    for state in ("cold", "warm"):
        ratios |= {
            f"{state} read, against memmap": median[f"{state} read memmap"] / median[f"{state} read featx"],
            f"{state} read, against h5py append": median[f"{state} read h5py"] / median[f"{state} read featx"],
            f"{state} check, share of the read": median[f"{state} read featx, checked"] / median[f"{state} read featx"]
            - 1,
        }
    return {
        "rows": rows,
        "dim": dim,
        "dtype": "float16",
        "rounds": rounds,
        "GB/s": {name: round(gigabytes / value, 2) for name, value in median.items()},
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
    }


def make_images(folder: Path, count: int) -> None:
    """Tiny distinct images: 2 x 2 pixels, PPM, a thousand to a folder."""
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"{number // 1000:04}").mkdir(parents=True)
        data = b"P6 2 2 255\n" + number.to_bytes(4, "little") * 3
        (folder / f"{number // 1000:04}" / f"{number:07}.ppm").write_bytes(data)


def extraction(folder: Path, count: int, dim: int) -> dict[str, object]:
    """A whole extraction, and its confirmation, each in a process of its own: time and peak memory."""
    make_images(folder / "images", count)
    (folder / "net.py").write_text(NETWORK.format(dim=dim))
    found: dict[str, object] = {"images": count, "dim": dim}
    for name in ("extract", "confirm"):
        command = [sys.executable, __file__, "--child", str(folder)]
        measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        found[name] = {**measured, "microseconds per image": round(1e6 * measured["seconds"] / count, 1)}
    return found


def child(folder: Path) -> None:
    """One ``featx.extract``, and what it took."""
    import featx

    started = time.perf_counter()
    backbone = featx.load_backbone(f"{folder}/net.py:Net", weights="random", dtype="float16", device="cpu")
    loaded, before = time.perf_counter(), peak_bytes()
    result = featx.extract(folder / "images", backbone, out=folder / "images.h5", batch_size=256)
    seconds, peak = time.perf_counter() - loaded, peak_bytes()
    print(
        json.dumps(
            {
                "computed": result.computed,
                "reused": result.reused,
                "load seconds": round(loaded - started, 1),
                "seconds": round(seconds, 3),
                "peak RSS, GB": round(peak / 1e9, 3),
                "growth, GB": round((peak - before) / 1e9, 3),
            }
        )
    )


def main() -> None:
    """Run, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--extract", type=int, default=0, metavar="N", help="also extract so many tiny images")
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="N", help="only extract so many tiny images, size by size"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where to make the files; a temporary folder")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    result: dict[str, object] = {}
    if options.sizes:
        result["growth"] = []
        for count in options.sizes:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                result["growth"].append(extraction(Path(folder), count, options.dim))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            result["storage"] = storage(Path(folder), options.rows, options.dim, options.rounds)
            if options.extract:
                result["extraction"] = extraction(Path(folder), options.extract, options.dim)
    versions = {name: version(name) for name in ("featx", "numpy", "h5py", "torch")}
    result["versions"] = {**versions, "hdf5": h5py.version.hdf5_version, "python": platform.python_version()}
    result["cpus"] = os.cpu_count()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
