"""Flip single bits of what an interrupted extraction left, and see that no later run takes over anything wrong.

    python tests/fuzz_partial.py 10000 0           # how many flips, and the seed

Prints how the runs ended. Exits with status 1 if any of them ended with other features, keys, labels, splits or reasons than a
run that was never interrupted, without an error. A third of the flips hit the tables of keys, states and reasons. Every image
has the same size and time, so that a wrong path is never found out by these.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import FeatxError
from featx.extraction.committer import Committer
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FeatureFile

IMAGES, LEFT_AFTER = 14, 3
"""How many images there are, two of them damaged, and after how many batches of two the first run is interrupted."""

_SECOND = 1_500_000_000 * 10**9


class InterruptedRunError(Exception):
    pass


def make_images(folder: Path) -> Path:
    """Two classes of images of one size and time, with names that differ in one bit; two images cannot be decoded."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / ("ants", "bees")[number % 2] / f"{number // 2}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    for path in (folder / "ants" / "1.bmp", folder / "bees" / "5.bmp"):
        path.write_bytes(bytes(path.stat().st_size))
    for path in folder.rglob("*.bmp"):
        os.utime(path, ns=(_SECOND, _SECOND))
    return folder


def contents(path: Path) -> list[bytes]:
    """Everything in a complete file that a user may see, except names that differ between two files."""
    file = FeatureFile(path)
    done = file.status == DONE
    assert file.checksums_match("penultimate", np.flatnonzero(done)).all()
    t = file.images
    columns = [
        t.paths,
        t.labels,
        t.splits,
        t.sizes,
        t.mtimes,
        file.keys,
        file.status,
        file.features("penultimate")[done],
    ]
    return [np.ascontiguousarray(c).tobytes() for c in columns] + [file.error(row).encode() for row in range(len(file))]


def interrupt(images: Path, backbone: Backbone, out: Path) -> bytes:
    """Interrupt a run, and return the bytes of the file that it leaves."""
    store, calls = Committer.store, []

    def stopped(self: Committer, *batch: object) -> list[int]:
        calls.append(1)
        if len(calls) > LEFT_AFTER:
            raise InterruptedRunError
        return store(self, *batch)  # type: ignore[arg-type]

    Committer.store = stopped  # type: ignore[method-assign]
    try:
        extract(images, backbone, out=out, batch_size=2, workers=1)
    except InterruptedRunError:
        pass
    finally:
        Committer.store = store  # type: ignore[method-assign]
    return out.with_name(out.name + ".partial").read_bytes()


def places(partial: Path, rng: random.Random, count: int) -> list[int]:
    """The offsets of bits to flip."""
    file = FeatureFile(partial, allow_partial=True)
    tables = [file.structure.tables[f"images/{name}"] for name in ("key", "status", "error", "path", "size")]
    found = []
    for number in range(count):
        if number % 3:
            found.append(rng.randrange(8 * file.structure.size))
        else:
            table = tables[number // 3 % len(tables)]
            found.append(8 * table.offset + rng.randrange(8 * table.nbytes))
    return found


def run(folder: Path, count: int, seed: int) -> Counter[str]:
    """Flip ``count`` bits, one at a time, and count how the next run ends; "wrong" must not occur."""
    images = make_images(folder / "images")
    backbone = load_backbone("lenet5", device="cpu")
    right = contents(extract(images, backbone, out=folder / "whole" / "f.h5", batch_size=2, workers=1).file)
    left = interrupt(images, backbone, folder / "c" / "f.h5")
    partial, seen = folder / "c" / "f.h5.partial", Counter[str]()
    for number, bit in enumerate(places(partial, random.Random(seed), count)):
        data = bytearray(left)
        data[bit // 8] ^= 1 << bit % 8
        partial.write_bytes(data)
        out = (
            folder / "c" / ("f.h5" if number % 2 else "other.h5")
        )  # continued in place, or a file beside it that shares rows
        try:
            result = extract(images, backbone, out=out, batch_size=2, workers=1)
            is_right = contents(result.file) == right
            seen[f"{result.reused} rows kept" if is_right else "wrong"] += 1
            if not is_right:
                sys.stderr.write(f"bit {bit % 8} of byte {bit // 8} gives a wrong file\n")
        except FeatxError as error:
            seen[f"{type(error).__name__}"] += 1
        for path in (folder / "c").iterdir():
            path.unlink()
    return seen


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        ended = run(Path(temporary), int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.writelines(f"{number:>7}  {how}\n" for how, number in sorted(ended.items()))
    sys.exit(ended["wrong"] > 0)
