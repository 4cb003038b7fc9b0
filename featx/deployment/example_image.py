"""A small picture that nobody photographed, on which a stranger can see that a model works."""

from __future__ import annotations

import numpy as np

_HEIGHT, _WIDTH = 96, 128


def example_pixels() -> np.ndarray:
    """(96, 128, 3) uint8, RGB: two gradients with a disc.

    Examples:
        >>> example_pixels().shape, example_pixels().dtype
        ((96, 128, 3), dtype('uint8'))
    """
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    levels = np.stack([255 * x // (_WIDTH - 1), 255 * y // (_HEIGHT - 1), np.full_like(x, 96)], axis=2)
    levels[(x - 80) ** 2 + (y - 40) ** 2 < 26**2] = (230, 180, 40)
    return levels.astype(np.uint8)


def as_ppm(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as the content of a .ppm file, which needs no library to be read."""
    height, width = pixels.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + np.ascontiguousarray(pixels).tobytes()
