"""The bytes of an image file, its key, and the facts by which it counts as unchanged."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.data.boxes import Box, box_suffix
from featx.errors import ImageError, MachineError

NO_KEY = bytes(16)
"""The key of an image that could not be read, or not be decoded for a reason that lies in the machine. Such an image has no
lasting failure: the next run tries it again."""

MAX_BYTES = 1 << 30
"""Larger files are not read into memory."""

UNKNOWN = np.iinfo(np.int64).min
"""A change time that equals none: nothing tells whether the image is still the one that was read."""

_TRIES = 3

_HAS_CHANGE_TIME = os.name != "nt"
_LARGEST = (1 << 63) - 1
"""The largest int64, to which inode numbers are cut."""

_TICK, _COARSE_TICK = 10_000_000, 2_000_000_000
"""Nanoseconds within which two changes of a file may get one time stamp: usually, and on file systems of whole seconds."""


def image_key(data: bytes, box: Box | None = None) -> bytes:
    """The key of an image: BLAKE2b-128 of its file's bytes, 16 bytes. Renaming and copying do not change it.

    Args:
        data: the bytes of the file.
        box: the part of the image that is meant; its text, ``#xywh=...``, is hashed after the bytes. None for the whole image.

    Examples:
        >>> image_key(b"the bytes of a file").hex()
        '6fd5fbb6a74fb7abd7c00fa5403424c3'
    """
    digest = hashlib.blake2b(data, digest_size=16)
    digest.update(box_suffix(box).encode())
    return digest.digest()


@dataclass(frozen=True)
class FileBytes:
    """The bytes of a whole image file as it was read.

    Attributes:
        data: the bytes.
        size: their number.
        mtime_ns: the modification time in ns; of a file without one, 63 bits of a hash of its version (an ETag). -1 for bytes
            that come from no file.
        marks: the change time in ns and the inode number, as ``file_marks`` returns them.
        box: the part of the image that is meant, or None for all of it.
    """

    data: bytes
    size: int
    mtime_ns: int
    marks: tuple[int, int] = (-1, 0)
    box: Box | None = None

    @property
    def key(self) -> bytes:
        """The key of the image, as ``image_key`` makes it."""
        return image_key(self.data, self.box)


@dataclass(frozen=True)
class FileFacts:
    """What is known of N image files without reading them, by which they count as unchanged. All are (N,) int64.

    Attributes:
        sizes: bytes of each; -1 where there is no such file.
        mtimes: modification times in ns, or 63 bits of a hash of a version such as an ETag; -1 where there is no such file.
        ctimes: change times in ns: 0 where ``mtimes`` tell versions apart by themselves, ``UNKNOWN`` where nothing does and the
            bytes must be read; -1 where there is no such file.
        inodes: inode numbers; 0 where they are not compared.
    """

    sizes: np.ndarray
    mtimes: np.ndarray
    ctimes: np.ndarray
    inodes: np.ndarray

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> FileFacts:
        """From (N, 4) int64: size, modification time, change time and inode number of each file."""
        sizes, mtimes, ctimes, inodes = np.asarray(rows, dtype=np.int64).reshape(-1, 4).T.copy()
        return cls(sizes, mtimes, ctimes, inodes)

    @classmethod
    def unasked(cls, count: int) -> FileFacts:
        """Of images that nothing is known of before they are read."""
        return cls.of_rows(np.tile(np.array([0, 0, UNKNOWN, 0], dtype=np.int64), (count, 1)))


MISSING_FACTS = (-1, -1, -1, -1)
"""The row of ``FileFacts.of_rows`` of a file that is not there."""


def facts_of(found: os.stat_result) -> tuple[int, int, int, int]:
    """The row of ``FileFacts.of_rows`` of a local file; ``MISSING_FACTS`` if it is not a regular file."""
    if not stat.S_ISREG(found.st_mode):
        return MISSING_FACTS
    return found.st_size, found.st_mtime_ns, *file_marks(found)


def file_marks(found: os.stat_result) -> tuple[int, int]:
    """The change time in ns and the inode number, which tell swapped files of equal size and modification time apart.

    Returns:
        Two int64; the time is 0 on Windows, where ``st_ctime`` is the time of creation.
    """
    return found.st_ctime_ns if _HAS_CHANGE_TIME else 0, found.st_ino & _LARGEST


def read_file(path: Path, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
    """Read an image file that does not change meanwhile.

    If the file has only just been written, renamed or given another time, wait for one tick of the file system's clock first,
    so that the next change gets a different time stamp.

    Args:
        path: of the file.
        admit: called with the size in bytes before the file is read into memory; it may wait.

    Raises:
        ImageError: it cannot be read, is not a regular file (reading a pipe would block), or keeps changing.
    """
    try:
        for _ in range(_TRIES):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                before = os.fstat(handle)
                if not stat.S_ISREG(before.st_mode):
                    raise ImageError("is not a regular file")
                require_size(before.st_size)
                admit(before.st_size)
                _let_age(before.st_mtime_ns)
                _let_age_since_change(before.st_ctime_ns)
                with os.fdopen(handle, "rb", closefd=False) as file:
                    # At most one byte more, however fast the file grows; None if reading would block.
                    data = file.read(before.st_size + 1) or b""
                after = os.fstat(handle)
            finally:
                os.close(handle)
            if len(data) == after.st_size == before.st_size and after.st_mtime_ns == before.st_mtime_ns:
                return FileBytes(data, after.st_size, after.st_mtime_ns, file_marks(before))
    except MemoryError as error:
        raise MachineError("cannot be read on this machine: there is too little memory") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise ImageError("changes while it is being read")


def require_size(size: int) -> None:
    """Refuse an image file that is too large for memory.

    Args:
        size: of the file, in bytes.

    Raises:
        ImageError: it has more than ``MAX_BYTES``.
    """
    if size > MAX_BYTES:
        raise ImageError(f"has {size:,} bytes; at most {MAX_BYTES:,} are read")


def let_age(mtime_ns: int, ctime_ns: int) -> None:
    """Wait until a second change of a file, of whatever kind, would get other times than these, in ns.

    Call it before the file is read, so that the times tell the bytes that were read from later ones.
    """
    _let_age(mtime_ns)
    _let_age_since_change(ctime_ns)


def _let_age(mtime_ns: int) -> None:
    """Wait until a second edit of a file would get another modification time."""
    _wait_for_tick(mtime_ns)


def _let_age_since_change(ctime_ns: int) -> None:
    """Wait until a second change of a file, of whatever kind, would get another change time."""
    if _HAS_CHANGE_TIME:
        _wait_for_tick(ctime_ns)


def _wait_for_tick(stamp_ns: int) -> None:
    tick = _TICK if stamp_ns % 1_000_000_000 else _COARSE_TICK
    age = time.time_ns() - stamp_ns
    if 0 <= age < tick:
        time.sleep((tick - age) / 1e9)
