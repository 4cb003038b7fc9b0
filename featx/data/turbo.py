"""JPEGs by libjpeg-turbo itself, through simplejpeg, an optional dependency; checked against Pillow."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from featx.data.transform import channels


class Turbo:
    """libjpeg-turbo without Pillow around it, through simplejpeg if that is installed.

    The two packages ship libraries of their own, so simplejpeg is used alone only after its pixels have equalled Pillow's
    for the first files. Pillow decides about every file for which simplejpeg warns or fails.

    Attributes:
        left: the number of files that are still decoded both ways.
    """

    def __init__(self, left: int = 8) -> None:
        self.left = left
        self._library: Any = None
        with contextlib.suppress(ImportError):
            import simplejpeg

            self._library = simplejpeg

    @property
    def is_proved(self) -> bool:
        """Whether comparing has ended."""
        return self.left <= 0

    def decode(self, data: bytes, size: tuple[int, int]) -> np.ndarray | None:
        """Decode a file of size (width, height) to (H, W) uint32 as in ``with_pixels``; None leaves the file to Pillow."""
        if self._library is None:
            return None
        pixels = np.empty(size[::-1], np.uint32)
        try:
            found = self._library.decode_jpeg(data, "RGBA", buffer=pixels, strict=True)
        except Exception:  # damaged, or of a kind that simplejpeg does not read: Pillow decides
            return None
        return pixels if found.shape == (*pixels.shape, 4) else None

    def prove(self, found: np.ndarray, wanted: np.ndarray) -> None:
        """Compare pixels with Pillow's, and stop using simplejpeg if any differ."""
        self.left -= 1
        if not np.array_equal(channels(found)[..., :3], channels(wanted)[..., :3]):
            self._library = None


LIBRARY = Turbo()
"""The one that all threads share."""
