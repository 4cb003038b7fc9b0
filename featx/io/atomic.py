"""Write files whole or not at all: check the space, write beside the final name, sync, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from featx.errors import FeatxError, OutputError
from featx.system import home, nearest_folder
from featx.text import size_text

_TEMPORARY = ".featx-temporary"
"""The ending of a file that is being written."""

_MOST_OF_NAME = 32
"""Characters of the final name that a temporary name begins with."""

_ABANDONED_AFTER = 60.0
"""Seconds after which a temporary file that is not locked belongs to a process that is gone."""


def reserve(file: int, size: int) -> None:
    """Reserve disk space for an open file, if the file system can.

    Args:
        file: a descriptor that is open for writing.
        size: in bytes.

    Raises:
        OSError: the disk has no space left.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system cannot reserve space
                raise


def keep(name: str, data: bytes, *, most: int | None = None) -> None:
    """Store a file below ``system.home()`` for later runs, whole or not at all; ignore a failure, which only costs time.

    Args:
        name: of the file, with its folder.
        data: its content.
        most: the number of files in its folder above which those that were written longest ago are removed.
    """
    with contextlib.suppress(OSError, OutputError):
        path = home() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with replacing(path, sync=False) as file:
            file.write(data)
        if most is not None and is_new:
            by_age = sorted(path.parent.iterdir(), key=lambda each: each.stat().st_mtime)
            for old in by_age[:-most]:
                old.unlink()


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a new file beside a path, which takes the path's place when the block ends without an exception.

    Its name cannot be predicted and is never that of an existing file or link. It gets the permissions of the file that it
    replaces, or those that the umask leaves. What killed processes left beside the same path is removed.

    Args:
        path: the final path; its folder exists.
        sync: wait until the content is on the disk before it takes the path's place.

    Raises:
        OSError: the file cannot be written.
    """
    beginning = f".{path.name[:_MOST_OF_NAME]}."
    for left in temporaries_of(path):
        with contextlib.suppress(OSError):
            _remove_if_abandoned(left)
    temporary = path.with_name(f"{beginning}{secrets.token_hex(4)}{_TEMPORARY}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "w+b") as file:  # noqa: PTH123 - a descriptor
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH)
            yield file
            file.flush()
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode) & 0o777)
            if sync:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # not in the place of the real error
            temporary.unlink(missing_ok=True)
        raise


def temporaries_of(path: Path) -> list[Path]:
    """The files beside a path that are written to take its place, or were when a process was killed."""
    beginning = f".{path.name[:_MOST_OF_NAME]}."
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(path.parent) if name.startswith(beginning)]  # noqa: PTH208 - names are enough
        return [path.with_name(name) for name in names if name.endswith(_TEMPORARY)]
    return []


def _remove_if_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_AFTER:  # a younger one may not be locked yet
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(descriptor)


def require_writable(path: Path, need: int = 0, *, option: str = "-o") -> None:
    """Check before long work that its result can be written. Leaves nothing behind.

    Args:
        path: the future file; its folder need not exist.
        need: its size in bytes, as far as it is known.
        option: the option that names the file, for messages.

    Raises:
        OutputError: a folder or device has this name, the folder cannot be written, or the disk lacks the space.
    """
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
                raise OutputError(f"{path} is {kind}; name a file to write with {option}")
        folder = nearest_folder(path.parent)
        with tempfile.TemporaryFile(dir=folder):  # the only check that also holds for root, read-only disks and quotas
            free = shutil.disk_usage(folder).free
    except FeatxError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; name another file with {option}") from error
    if need > free:
        raise OutputError(
            f"{path} needs {size_text(need)}, and {size_text(free)} are free; name another disk with {option}"
        )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its final name, sync it, and rename it. After a crash the path holds the old or the new file, whole.

    Raises:
        OutputError: the file cannot be written.
    """
    require_writable(path, len(data))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        why = reason(error) + full_disk(path.parent, len(data), error)
        raise OutputError(f"cannot write {path} ({size_text(len(data))}): {why}; name another file with -o") from error


def full_disk(folder: Path, need: int, error: OSError) -> str:
    """What to know of a disk that takes no more, as the end of a sentence; "" for any other error.

    Args:
        folder: where a file could not be written.
        need: the size of the file in bytes; 0 if it is not known.
        error: why it could not be written.
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    try:
        system = os.statvfs(folder)
        free = system.f_bavail * system.f_frsize
    except OSError:
        return ""
    if error.errno == errno.EFBIG:
        size = f"file of {size_text(need)}" if need else "larger file"
        return f"; the file system or the limit of this process (ulimit -f) allows no {size}"
    if error.errno == errno.ENOSPC and system.f_files and not system.f_favail:
        return f"; the disk has no room for further files (df -i), though {size_text(free)} are free"
    if error.errno == errno.ENOSPC and not need:
        return ""  # what is free now was taken by the file
    if error.errno == errno.EDQUOT or need <= free:
        return f"; {size_text(free)} are free, so a quota may be used up (quota -s)"
    return f"; it needs {size_text(need)}, {size_text(free)} free"


def output_error(path: Path, need: int, error: OSError) -> OutputError:
    """The error for a file that cannot be written, with the free space if the disk is full."""
    return OutputError(f"cannot write {path}: {error.strerror or error}{full_disk(nearest_folder(path), need, error)}")


def reason(error: OSError | ValueError) -> str:
    """The operating system's explanation of a failure."""
    return getattr(error, "strerror", None) or str(error)
