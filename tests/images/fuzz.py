"""Damage the images of this folder at random, and see that decoding ends as it promises.

    python tests/images/fuzz.py 3000 0            # how many mutations, and the seed
    python tests/images/fuzz.py 3000 0 --jpeg     # of JPEGs alone, which Pillow by itself must read or refuse likewise

Prints nothing and exits 0 where every mutation gave an image or an ImageError, in a process of its own so that a crash of
Pillow's shows as well. A mutation that raised anything else is written to the current folder, and the error is raised.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from make import FOLDER, PICTURE, UPRIGHT
from PIL import Image

from featx.data.decode import decode
from featx.errors import ImageError

ENDINGS = {".jpg", ".mpo", ".png", ".gif", ".webp", ".bmp", ".pgm", ".ppm", ".tif", ".avif", ".jp2", ".j2k"}
TELLING = (0, 1, 2, 3, 8, 16, 0x7F, 0x80, 0xFE, 0xFF)
"""Bytes that headers care about."""


def every() -> list[tuple[str, bytes]]:
    """Names and bytes of the images of this folder."""
    return [(path.name, path.read_bytes()) for path in sorted(FOLDER.iterdir()) if path.suffix in ENDINGS]


def jpegs() -> list[tuple[str, bytes]]:
    """Names and bytes of its JPEGs, and of some with more blocks and scans, and other samplings."""
    large = Image.fromarray(np.random.default_rng(0).permutation(np.tile(PICTURE, (4, 3, 1))))
    found = [(name, data) for name, data in every() if name.endswith((".jpg", ".mpo")) and data]
    for number, options in enumerate(
        [
            {"subsampling": 0},
            {"subsampling": 1, "optimize": True},
            {"subsampling": 2, "restart_marker_blocks": 2},
            {"subsampling": 2, "progressive": True},
            {"subsampling": 0, "progressive": True, "restart_marker_rows": 1, "comment": b"some words"},
            {"keep_rgb": True},
        ]
    ):
        buffer = io.BytesIO()
        large.save(buffer, "JPEG", quality=60, **options)
        found.append((f"{number}.jpg", buffer.getvalue()))
    return found


def damaged(seed: int, originals: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes without end: flipped, overwritten, cut, repeated and removed, the beginning and end more often."""
    rng = random.Random(seed)
    while True:
        name, original = rng.choice(originals)
        data = bytearray(original)
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            if not data:
                break
            at = rng.randrange(rng.choice((len(data), min(len(data), 64), min(len(data), 300))))
            if rng.random() < 0.1:
                at = len(data) - 1 - at
            match rng.randrange(8):
                case 0 | 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2 | 3:
                    data[at] = rng.choice(TELLING)
                case 4 | 5:
                    data[at] = rng.randrange(256)
                case 6:
                    data[at : at + rng.randrange(1, 9)] = data[at : at + 4] * rng.randrange(3)
                case 7 if rng.random() < 0.3:
                    del data[at:]
        yield name, bytes(data)


def check(mutation: tuple[str, bytes]) -> None:
    name, data = mutation
    try:
        pixels = decode(data, max_pixels=1_000_000)
    except ImageError:
        return
    except BaseException:
        Path(f"fuzz-{name}").write_bytes(data)
        raise
    assert pixels.dtype == np.uint8, name
    assert pixels.ndim == 3, name
    assert pixels.shape[2] == 3, name
    assert 0 < pixels.size <= 3_000_000, name


def compare(mutation: tuple[str, bytes]) -> None:
    name, data = mutation
    try:
        pixels = decode(data, max_pixels=1_000_000)
    except ImageError as error:
        pixels = None
        if str(error).endswith("(--max-pixels)"):
            return
    try:
        np.testing.assert_array_equal(pixels, by_pillow(data), name)
    except BaseException:
        Path(f"fuzz-{name}").write_bytes(data)
        raise


def by_pillow(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8, upright; None for what Pillow does not read as a JPEG."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        image = Image.OPEN["JPEG"][0](io.BytesIO(data), "")
        pixels = np.asarray(image.convert("RGB"))
    except Exception:
        return None
    try:
        return UPRIGHT.get(image.getexif()[0x0112], UPRIGHT[1])(pixels)
    except Exception:
        return pixels


if __name__ == "__main__":
    count, seed, *options = sys.argv[1:]
    task, originals = (compare, jpegs()) if options == ["--jpeg"] else (check, every())
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(task, islice(damaged(int(seed), originals), int(count))):
            pass
