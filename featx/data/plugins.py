"""HEIF and JPEG XL, which Pillow reads by plug-ins that are optional dependencies."""

from __future__ import annotations

import importlib
import io
import struct
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from PIL import Image

from featx.errors import MachineError

EXTRAS = {"HEIF": ("heif", "pillow-heif"), "JXL": ("jxl", "pillow-jxl-plugin"), "DICOM": ("dicom", "pydicom")}
"""The extra of featx and the package that a format needs."""

_MODULES = {"HEIF": ("pillow_heif", "HeifImageFile"), "JXL": ("pillow_jxl.JpegXLImagePlugin", "JXLImageFile")}

_DECODERS = ("pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm", "pyjpegls")
"""The packages by which pydicom reads more kinds of compression."""


def installed() -> list[str]:
    """The packages that are here, with their versions: what they read, another machine may not."""
    names = [package for _, package in EXTRAS.values()]
    return [f"{name} {found}" for name in (*names, *_DECODERS) if (found := _version(name))]


def missing(kind: str) -> MachineError:
    """The error about a file of a format whose package is not here."""
    return MachineError(f"cannot be decoded on this machine: {kind} needs pip install 'featx[{EXTRAS[kind][0]}]'")


def opener(kind: str) -> Any:
    """The class of Pillow's that opens files of a format: of a plug-in, or of Pillow itself.

    Raises:
        MachineError: the plug-in is not installed.
        KeyError: this Pillow has no such class.
    """
    if kind not in _MODULES:
        return Image.OPEN[kind][0]
    module, name = _MODULES[kind]
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, OSError) as error:
        raise missing(kind) from error


def heif_samples(data: bytes) -> np.ndarray:
    """The samples of a HEIF's primary image of more than 8 bits, shifted to 16: (H, W) or (H, W, C) uint16, upright.

    Pillow's class, which ``opener`` returns, keeps the high 8 bits of colours.
    """
    file = importlib.import_module("pillow_heif").HeifFile(io.BytesIO(data), convert_hdr_to_8bit=False)
    return np.asarray(file[file.primary_index])


def ignores_exif_orientation(image: Image.Image) -> bool:
    """Whether a decoder has turned an image upright already: libjxl does, unless it has made the original JPEG again."""
    return image.format == "JXL" and not getattr(image, "jpeg", False)


def jxl_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a JPEG XL as its header has them, before turning; the plug-in decodes a file when it opens it.

    Raises:
        ValueError: there is no codestream.
    """
    bits = _Bits(data if data.startswith(b"\xff\x0a") else _codestream(data))
    if bits.take(16) != 0x0AFF:
        raise ValueError("no codestream")
    small = bits.take(1)
    height = bits.side(small)
    ratio = bits.take(3)
    if not ratio:
        return bits.side(small), height
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * across // down, height


class _Bits:
    """The bits of a JPEG XL header, the lowest of each byte first; zeros after its end."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data[:32], "little")

    def take(self, count: int) -> int:
        """The next bits as a number."""
        found = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return found

    def side(self, small: int) -> int:
        """A height or a width."""
        if small:
            return 8 * (self.take(5) + 1)
        return 1 + self.take((9, 13, 18, 30)[self.take(2)])


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream within the boxes of a file."""
    at = 0
    while at + 8 <= len(data):
        (length,), name = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        start = at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if name in (b"jxlc", b"jxlp"):
            return data[start + 4 * (name == b"jxlp") :][:64]
        if length < 8:  # 0 is a box up to the end
            break
        at += length
    raise ValueError("no codestream")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
