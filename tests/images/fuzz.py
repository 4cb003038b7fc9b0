"""Damage the images of this folder at random, and see that decoding ends as it promises.

    python tests/images/fuzz.py 3000 0    # how many mutations, and the seed

Prints nothing and exits 0 where every mutation gave an image or an ImageError, in a process of its own so that a crash of
Pillow's shows as well. A mutation that raised anything else is written to the current folder, and the error is raised.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from featx.decode import decode
from featx.errors import ImageError

ENDINGS = {".jpg", ".mpo", ".png", ".gif", ".webp", ".bmp", ".pgm", ".ppm", ".tif"}
TELLING = (0, 1, 2, 3, 8, 16, 0x7F, 0x80, 0xFE, 0xFF)
"""Bytes that headers care about."""


def damaged(seed: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes without end: flipped, overwritten, cut, repeated and removed, the beginning and end more often."""
    rng = random.Random(seed)
    files = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in ENDINGS)
    originals = [(path.name, path.read_bytes()) for path in files]
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


if __name__ == "__main__":
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(check, islice(damaged(int(sys.argv[2])), int(sys.argv[1]))):
            pass
