"""How fast images are read from Parquet files and saved data sets, against the same images in a folder, and with what memory.

    python benchmarks/sources_rows.py                                   # 1,000 photos of ../shared, and 1 GB: two minutes
    python benchmarks/sources_rows.py --images 200 --rounds 3 --large 200

Prints one JSON line. "ratio" is the time of the folder divided by that of the source, both medians of interleaved rounds of one
process, for reading all images in the order of the store and hashing them, as an extraction does before the network; above 1
the source is faster than the folder. "large" are Parquet files of so many megabytes, of images of 100 kB, in row groups of 100
rows (as ``datasets`` writes them) and in one row group: the rate of reading all images in order and a few at random, and by
how much the memory of the process grows meanwhile. The pages of all files are in the system's cache.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from common import peak_bytes

from featx.data.image_set import ImageSet
from featx.data.loader import read_images
from featx.data.scan import scan_images
from featx.system import cores

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
RANDOM = 100
"""Images that are read at random."""


def photos(source: Path, count: int) -> list[Path]:
    """Some photos of a folder of classes."""
    found = sorted(source.rglob("*.jpg"))
    return found[:: max(1, len(found) // count)][:count]


def table_of(files: Sequence[Path]) -> Any:
    """The photos as a table of Arrow, as ``datasets`` lays one out."""
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    images = pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    return pyarrow.table({"image": images, "label": [path.parent.name for path in files]})


def sources(files: Sequence[Path], folder: Path) -> dict[str, str]:
    """Write the same photos in every form: {name: what ``scan_images`` takes}."""
    for path in files:
        (folder / "folder" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / "folder" / path.parent.name / path.name).write_bytes(path.read_bytes())
    table = table_of(files)
    write = pyarrow.parquet.write_table
    write(table, folder / "groups.parquet", row_group_size=100, compression="none", use_dictionary=False)
    write(table, folder / "snappy.parquet", row_group_size=100)
    write(table, folder / "one.parquet")
    names = {
        "folder": "folder",
        "groups of 100": "groups.parquet",
        "snappy": "snappy.parquet",
        "one group": "one.parquet",
    }
    try:
        import datasets
    except ImportError:
        return {name: str(folder / file) for name, file in names.items()}
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(folder / "saved")
    return {name: str(folder / file) for name, file in {**names, "saved": "saved"}.items()}


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_rows(images: ImageSet, rows: np.ndarray) -> set[bytes]:
    """The keys of some images."""
    files = ((row, images.file(row)) for row in rows.tolist())
    return {image.key for image in read_images(files, None, workers=cores())}


def in_order(images: ImageSet) -> np.ndarray:
    """All rows in the order of the store."""
    return images.order(np.arange(len(images)))


def write_large(path: Path, megabytes: int, rows: int) -> None:
    """Write a Parquet file of images of 100 kB that cannot be compressed."""
    rng = np.random.default_rng(0)
    schema = pyarrow.schema([("image", pyarrow.binary()), ("label", pyarrow.int64())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        left = megabytes * 10
        while left:
            count = min(rows, left)
            data = rng.bytes(count * 100_000)
            images = [data[at * 100_000 : (at + 1) * 100_000] for at in range(count)]
            writer.write_table(pyarrow.table([images, list(range(count))], schema=schema), row_group_size=count)
            left -= count


def measure_large(path: Path) -> dict[str, Any]:
    """Rates and memory of one large file, in this process."""
    images = scan_images(path)
    order = in_order(images)
    read_rows(images, order[:1])
    before = peak_bytes()
    ordered = seconds(lambda: read_rows(images, order))
    grown = peak_bytes() - before
    some = np.random.default_rng(1).permutation(len(images))[:RANDOM]
    random = seconds(lambda: read_rows(images, some))
    return {
        "in order, images/s": round(len(images) / ordered),
        "at random, images/s": round(RANDOM / random),
        "memory in order, MB": round(grown / 1e6),
        "memory in all, MB": round((peak_bytes() - before) / 1e6),
    }


def in_own_process(path: Path) -> dict[str, Any]:
    """``measure_large`` in a process of its own, whose memory is its own."""
    command = [sys.executable, __file__, "--one", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def measure(source: Path, images: int, rounds: int, large: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory() as home:
        os.environ["FEATX_HOME"] = home
        folder = Path(temporary)
        sets = {name: scan_images(data) for name, data in sources(photos(source, images), folder).items()}
        keys = {name: read_rows(found, in_order(found)) for name, found in sets.items()}
        assert all(found == keys["folder"] for found in keys.values())
        times: dict[str, list[float]] = {name: [] for name in sets}
        for _ in range(rounds):
            for name, found in sets.items():
                times[name].append(seconds(lambda found=found: read_rows(found, in_order(found))))  # type: ignore[misc]
        median = {name: statistics.median(of) for name, of in times.items()}
        size = int(sets["folder"].facts().sizes.sum())
        big = {}
        for name, rows in (("groups of 100 rows", 100), ("one group", large * 10)):
            write_large(folder / "large.parquet", large, rows)
            big[name] = in_own_process(folder / "large.parquet")
    return {
        "images": len(sets["folder"]),
        "megabytes": round(size / 1e6, 1),
        "sources": {
            name: {"read, s": round(median[name], 4), "ratio": round(median["folder"] / median[name], 3)}
            for name in sets
        },
        "large": {"megabytes": large, **big},
        "rounds": rounds,
        "cores": cores(),
        "python": platform.python_version(),
        "pyarrow": pyarrow.__version__,
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED / "datasets" / "trashnet", help="folder of photos")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=1000, help="megabytes of the large files")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_large(arguments.one)))
        return
    print(json.dumps(measure(arguments.source, arguments.images, arguments.rounds, arguments.large)))


if __name__ == "__main__":
    main()
