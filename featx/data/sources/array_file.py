"""Arrays of numbers in ``.npz`` files and in the idx files of MNIST, by rows and without unpickling anything."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from featx.errors import DatasetError
from featx.text import brief

NPZ = ".npz"

_IDX_NAME = re.compile(r"[-.]idx(\d)[-.]ubyte(\.gz)?$", re.IGNORECASE)
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PIECE = 1 << 20
_MOST_READ = 1 << 30
_LARGEST_RATIO, _SMALL = 100, 1 << 30
"""A file that unpacks to more than so many times its size, and to more than so many bytes, is refused."""


def is_idx_name(name: str) -> bool:
    """Whether a file is one of idx, by its name.

    Examples:
        >>> is_idx_name("train-images-idx3-ubyte"), is_idx_name("t10k-labels.idx1-ubyte.gz"), is_idx_name("a.jpg")
        (True, True, False)
    """
    return bool(_IDX_NAME.search(name))


def name_in_idx(name: str) -> str:
    """The name of an array in an idx file: that of the file without its ending.

    Examples:
        >>> name_in_idx("t10k-images-idx3-ubyte.gz")
        't10k-images'
    """
    return _IDX_NAME.sub("", name)


class Rows:
    """An array in a file, of which rows are read when they are asked for, by any thread. The file stays open.

    Args:
        file: that holds it; one that is cut off meanwhile is noticed.
        start: where its first byte is.
        dtype: of the array.
        shape: of the array.
        by_columns: whether it is stored in the order of Fortran; then it is read as a whole.
    """

    def __init__(
        self, file: IO[bytes], start: int, dtype: np.dtype[Any], shape: tuple[int, ...], by_columns: bool = False
    ) -> None:
        self._file, self._start, self.dtype, self.shape = file, start, dtype, shape
        self._stored: np.ndarray | None = (
            self._read(0, math.prod(shape)).reshape(shape, order="F") if by_columns else None
        )

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    @property
    def row_size(self) -> int:
        """The bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def row(self, number: int) -> np.ndarray:
        """Read one row.

        Raises:
            EOFError: the file has been cut off.
        """
        if self._stored is not None:
            return np.asarray(self._stored[number])
        count = math.prod(self.shape[1:])
        return self._read(number * count, count).reshape(self.shape[1:])

    def whole(self) -> np.ndarray:
        """Read all rows.

        Raises:
            EOFError: the file has been cut off.
        """
        return self._stored if self._stored is not None else self._read(0, math.prod(self.shape)).reshape(self.shape)

    def _read(self, first: int, count: int) -> np.ndarray:
        size, at, pieces = count * self.dtype.itemsize, self._start + first * self.dtype.itemsize, list[bytes]()
        while size and (piece := os.pread(self._file.fileno(), min(size, _MOST_READ), at)):
            pieces.append(piece)
            size, at = size - len(piece), at + len(piece)
        if size:
            raise EOFError("the file has been cut off")
        return np.frombuffer(b"".join(pieces), self.dtype, count)


def read_arrays(path: Path) -> Mapping[str, Rows]:
    """Open the arrays of a file, without reading those that lie in it uncompressed. Others are unpacked to a temporary file.

    Args:
        path: an ``.npz`` or an idx file.

    Returns:
        The arrays by their names.

    Raises:
        DatasetError: the file is damaged, or an array holds Python objects.
    """
    try:
        return _of_npz(path) if path.suffix.lower() == NPZ else {name_in_idx(path.name): _of_idx(path)}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error, OSError, NotImplementedError) as error:
        if isinstance(error, DatasetError):
            raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else brief(error)
        raise DatasetError(f"{path} cannot be read as arrays: {why}") from error


def _of_npz(path: Path) -> dict[str, Rows]:
    found = {}
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            if member.filename.endswith(".npy"):
                found[member.filename.removesuffix(".npy")] = _of_member(path, file, member)
    return found


def _of_member(path: Path, file: zipfile.ZipFile, member: zipfile.ZipInfo) -> Rows:
    name = f"{path}, {member.filename}"
    with file.open(member) as raw:
        dtype, shape, by_columns = _header(raw, name)
        start = raw.tell()
        size = math.prod(shape) * dtype.itemsize
        if start + size > member.file_size:
            raise DatasetError(f"{name}: the array is cut off ({member.file_size - start:,} of {size:,} bytes)")
        if member.compress_type == zipfile.ZIP_STORED:
            return Rows(path.open("rb"), _start_of(path, member) + start, dtype, shape, by_columns)
        return Rows(_unpacked(raw, name, size, member.compress_size), 0, dtype, shape, by_columns)


def _header(raw: IO[bytes], name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    major = npy.read_magic(raw)[0]
    read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
    try:
        shape, by_columns, dtype = read(raw, max_header_size=4096)
    except Exception as error:  # a header is a Python literal, which may be anything
        raise DatasetError(f"{name}: the header of the array is damaged") from error
    if dtype.hasobject:
        raise DatasetError(f"{name}: the array holds Python objects, which featx never unpickles")
    if any(type(length) is not int or length < 0 for length in shape):
        raise DatasetError(f"{name}: the header of the array is damaged")
    return dtype, tuple(int(length) for length in shape), bool(by_columns)


def _start_of(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin, by its own header, whose extra field may differ from that of the list."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise DatasetError(f"{path}: the header of {member.filename} is damaged")
    name, extra = struct.unpack("<HH", header[26:30])
    return member.header_offset + 30 + int(name) + int(extra)


def _of_idx(path: Path) -> Rows:
    is_packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if is_packed else path.open("rb") as raw:
        magic = raw.read(4)
        dtype = (
            np.dtype(_IDX_TYPES[magic[2]]) if magic[:2] == b"\0\0" and magic[2:3] and magic[2] in _IDX_TYPES else None
        )
        if len(magic) < 4 or dtype is None or not 1 <= magic[3] <= 4:
            raise DatasetError(f"{path} has the name of an idx file, but other content")
        shape = struct.unpack(f">{magic[3]}I", raw.read(4 * magic[3]))
        start, size = 4 + 4 * magic[3], math.prod(shape) * dtype.itemsize
        there = path.stat().st_size
        if is_packed:
            return Rows(_unpacked(raw, str(path), size, there), 0, dtype, shape)
        if start + size > there:
            raise DatasetError(f"{path}: the array is cut off ({there - start:,} of {size:,} bytes)")
        return Rows(path.open("rb"), start, dtype, shape)


def _unpacked(raw: Any, name: str, size: int, packed: int) -> IO[bytes]:
    """The bytes of an array, unpacked to a temporary file, which is gone with the array."""
    if size > max(_SMALL, _LARGEST_RATIO * packed):
        raise DatasetError(f"{name}: {packed:,} bytes unpack to {size:,}, as no images do")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the array keeps it
    left = size
    while left and (piece := raw.read(min(_PIECE, left))):
        file.write(piece)
        left -= len(piece)
    if left:
        file.close()
        raise DatasetError(f"{name}: the array is cut off ({size - left:,} of {size:,} bytes)")
    raw.read(1)  # the checksum is compared at the end
    file.flush()
    return file
