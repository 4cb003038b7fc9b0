"""A file that is open for reading: reads that are complete or fail, and a descriptor that is closed while nothing needs it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from featx.errors import CacheMissError, CorruptFileError, FeatxError, UnreadableFileError

_CHUNK = 1 << 24
"""The most bytes that are asked of the system at once."""


class OpenFile:
    """The descriptor of a feature file.

    It stays open, so that the file stays readable when a newer one replaces it, unless ``release`` closes it. Then it is opened
    again where it is needed, and only if the path still leads to the same file.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            CacheMissError: there is no such file.
            CorruptFileError: it is not a regular file.
            UnreadableFileError: the system cannot open it.
        """
        self.path = path
        self._descriptor: int | None = None
        self._descriptor, self._is = _open(path)

    def fileno(self) -> int:
        """The descriptor, which is opened again if it was released.

        Raises:
            CacheMissError: the path leads to another file by now, or to none.
            UnreadableFileError: the system cannot open the file.
        """
        if self._descriptor is None:
            descriptor, found = _open(self.path)
            if found != self._is:
                os.close(descriptor)
                raise CacheMissError(f"{self.path} was replaced by another file while it was in use")
            self._descriptor = descriptor
        return self._descriptor

    def release(self) -> None:
        """Close the descriptor until it is needed again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @property
    def released(self) -> bool:
        """Whether the descriptor is closed."""
        return self._descriptor is None

    @contextlib.contextmanager
    def needed(self) -> Iterator[int]:
        """The descriptor, for as long as the block lasts if it was released."""
        released = self.released
        try:
            yield self.fileno()
        finally:
            if released:
                self.release()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.release()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"the descriptor of {self.path} belongs to this process and cannot be pickled")


def read_at(file: int, count: int, offset: int) -> bytes:
    """Read ``count`` bytes at an offset; fewer only where the file ends. A system may return less than it is asked for."""
    data = os.pread(file, count, offset)
    if len(data) in (0, count):
        return data
    parts, got = [data], len(data)
    while got < count and (data := os.pread(file, count - got, offset + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def read_array(file: int, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Read an array at an offset.

    Raises:
        ValueError: the file ends before the array does.
    """
    array = np.empty(shape, dtype)
    bytes_ = array.reshape(-1).view(np.uint8)
    for at in range(0, len(bytes_), _CHUNK):
        part = bytes_[at : at + _CHUNK]
        data = read_at(file, len(part), offset + at)
        if len(data) < len(part):
            raise ValueError("it ends before its tables do")
        part[:] = np.frombuffer(data, np.uint8)
    return array


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn the errors of the system into an UnreadableFileError, and contents that cannot be into a CorruptFileError."""
    try:
        yield
    except FeatxError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise CorruptFileError(f"{path} cannot be read: {error}") from error


def unreadable(path: Path, error: OSError) -> UnreadableFileError:
    """The error for a path that the system cannot read."""
    return UnreadableFileError(f"{path} cannot be read: {error.strerror or error}")


def is_denied(error: UnreadableFileError) -> bool:
    """Whether a file cannot be read because it belongs to somebody else, rather than for a reason that may pass."""
    return isinstance(error.__cause__, PermissionError)


def _open(path: Path) -> tuple[int, tuple[int, int, int]]:
    """Open a regular file for reading, and tell which file it is. Never blocks, as opening a pipe would."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise CorruptFileError(f"{path} is a folder; expected a feature file")
        if not stat.S_ISREG(mode):
            raise CorruptFileError(f"{path} is not a regular file; expected a feature file")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor, (found.st_dev, found.st_ino, found.st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheMissError(f"there is no feature file {path}; featx extract makes one") from error
    except FeatxError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # a null character in the path
        raise CorruptFileError(f"{path} cannot be read: {error}") from error
