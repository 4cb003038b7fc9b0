"""The built-in data set: scikit-learn's scanned digits as PNG files."""

from __future__ import annotations

import dataclasses
import os
import struct
import tempfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from featx.data.file_bytes import image_key
from featx.data.image_set import PRETRAIN, ImageSet
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.sources import folder as folder_source
from featx.data.splits import hash_splits
from featx.data.store import ImageFile
from featx.errors import DatasetError
from featx.system import home

EXPECTED = "'digits'"

OPTIONS: Collection[str] = ()
"""The options of the source; see ``featx.data.scan.Source``."""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the built-in digits are requested by name."""
    return str(data) == "digits"


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:  # noqa: ARG001 - every source takes it
    """List the built-in digits."""
    return dataclasses.replace(folder_source.scan(digits_folder()), name="digits")


def list_images(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> list[ImageFile]:  # noqa: ARG001 - of every source
    """List the files of the built-in digits."""
    return folder_source.list_images(digits_folder())


def digits_folder() -> Path:
    """Write scikit-learn's 1,797 scanned digits as PNG files on first use, and return their folder.

    The digits 0-4 are in the split "pretrain", since the embedded LeNet-5 was trained on them; 5-9 are split by their content.
    The folder is $FEATX_HOME/digits, by default ~/.cache/featx/digits.
    """
    folder = home() / "digits"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            _write_digits(Path(beside, "digits"))
            try:
                Path(beside, "digits").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process has written the same files meanwhile
                    raise
    except OSError as error:
        raise DatasetError(
            f"cannot write the built-in digits to {folder}: {error.strerror}; set FEATX_HOME to a writable folder"
        ) from error
    return folder


def _write_digits(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    files = [_png(image) for image in pixels]
    keys = np.frombuffer(b"".join(map(image_key, files)), dtype=np.uint8).reshape(-1, 16)
    splits = np.where(digits.target < 5, PRETRAIN, hash_splits(keys, digits.target.astype(np.int64)))
    for number, (data, split, label) in enumerate(zip(files, splits, digits.target, strict=True)):
        path = folder / str(split) / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _png(grey: np.ndarray) -> bytes:
    """Encode (H, W) uint8 as an uncompressed 8-bit grey PNG: the same bytes, and so the same split, on every machine."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = grey.shape
    raw = b"".join(b"\0" + row.tobytes() for row in grey)
    stored = (
        b"\x78\x01\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw + struct.pack(">I", zlib.adler32(raw))
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")
