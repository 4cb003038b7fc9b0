"""How fast images are read from archives, against the same images in a folder, and how fast a large tar is listed.

    python benchmarks/sources_archive.py                                  # 1,000 photos of ../shared, five rounds: a minute
    python benchmarks/sources_archive.py --images 200 --rounds 3 --members 10000

Prints one JSON line. "ratio" is the time of the folder divided by that of the source, both medians of interleaved rounds of one
process, for reading all images in the order of the store and hashing them, as an extraction does before the network; above 1
the source is faster than the folder. "first list, s" and "second list, s" are the times of ``scan_images`` without and with
the list of members from an earlier run. The pages of all files are in the system's cache.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.image_set import ImageSet
from featx.data.loader import read_images
from featx.data.scan import scan_images
from featx.data.sources import archive_store
from featx.system import cores

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
SHARDS = 10


def copies(source: Path, folder: Path, count: int) -> list[tuple[str, Path]]:
    """Copy photos into a folder of classes: (path in the folder, file) of each."""
    found = sorted(path for path in source.rglob("*.jpg"))[:: max(1, len(list(source.rglob("*.jpg"))) // count)][:count]
    made = []
    for number, path in enumerate(found):
        name = f"{path.parent.name}/{number:06}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        made.append((name, Path(shutil.copy(path, folder / name))))
    return made


def archives(files: Sequence[tuple[str, Path]], folder: Path) -> dict[str, str]:
    """Write the same files as every kind of archive: {name: what ``scan_images`` takes}."""
    for name, method in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", method) as archive:
            for inner, path in files:
                archive.write(path, inner)
    for name, mode in (("plain.tar", "w"), ("packed.tar.gz", "w:gz")):
        with tarfile.open(folder / name, mode, **({"compresslevel": 6} if mode == "w:gz" else {})) as tar:  # type: ignore[call-overload]
            for inner, path in files:
                tar.add(path, inner)
    (folder / "shards").mkdir()
    classes = sorted({inner.split("/")[0] for inner, _ in files})
    for shard in range(SHARDS):
        with tarfile.open(folder / f"shards/{shard:03}.tar", "w") as tar:
            for inner, path in files[shard::SHARDS]:
                key, label = Path(inner).stem, classes.index(inner.split("/")[0])
                for ending, data in (("jpg", path.read_bytes()), ("cls", str(label).encode())):
                    add(tar, f"{key}.{ending}", data)
    names = ["stored.zip", "deflated.zip", "plain.tar", "packed.tar.gz", "shards"]
    return {name: str(folder / name) for name in names}


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member to a tar."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def large_tar(path: Path, members: int) -> None:
    """Write a tar of many small members."""
    data = os.urandom(2000)
    with tarfile.open(path, "w") as tar:
        for number in range(members):
            add(tar, f"{number % 100:02}/{number:07}.jpg", data)


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_all(images: ImageSet) -> set[bytes]:
    """The keys of all images, read in the order of the store."""
    files = ((row, images.file(row)) for row in images.order(np.arange(len(images))).tolist())
    return {image.key for image in read_images(files, None, workers=cores())}


def listed(location: str) -> tuple[float, float]:
    """How long it takes to list archives, without and with the list of an earlier run."""
    times = []
    for _ in range(2):
        archive_store._archive.cache_clear()
        times.append(seconds(lambda: scan_images(location)))
    return times[0], times[1]


def measure(source: Path, images: int, rounds: int, members: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory() as home:
        os.environ["FEATX_HOME"] = home
        folder = Path(temporary)
        files = copies(source, folder / "folder", images)
        sources = {"folder": str(folder / "folder"), **archives(files, folder)}
        first = {name: listed(location) for name, location in sources.items()}
        sets = {name: scan_images(location) for name, location in sources.items()}
        keys = {name: read_all(found) for name, found in sets.items()}
        assert all(found == keys["folder"] for found in keys.values())
        times: dict[str, list[float]] = {name: [] for name in sets}
        for _ in range(rounds):
            for name, found in sets.items():
                times[name].append(seconds(lambda found=found: read_all(found)))  # type: ignore[misc]
        median = {name: statistics.median(of) for name, of in times.items()}
        size = int(sets["folder"].facts().sizes.sum())
        large_tar(folder / "large.tar", members)
        large = listed(str(folder / "large.tar"))
    return {
        "images": len(files),
        "megabytes": round(size / 1e6, 1),
        "sources": {
            name: {
                "read, s": round(median[name], 4),
                "ratio": round(median["folder"] / median[name], 3),
                "first list, s": round(first[name][0], 4),
                "second list, s": round(first[name][1], 4),
            }
            for name in sets
        },
        "large tar": {"members": members, "first list, s": round(large[0], 3), "second list, s": round(large[1], 3)},
        "rounds": rounds,
        "cores": cores(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED / "datasets" / "trashnet", help="folder of photos")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--members", type=int, default=100_000, help="members of the large tar")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.source, arguments.images, arguments.rounds, arguments.members)))


if __name__ == "__main__":
    main()
