"""Files that are written whole or not at all: room is checked first, then written beside, synced and renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

from featx.errors import FeatxError, OutputError
from featx.system import home, nearest_folder
from featx.text import size_text


def reserve(file: int, size: int) -> None:
    """Take so many bytes of the disk for an open file now, where the system can.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that reserves nothing
                raise


def keep(name: str, data: bytes) -> None:
    """Write a file below ``home()`` for the next time, whole or not at all; where that fails, the next time takes longer."""
    with contextlib.suppress(OSError, OutputError):
        path = home() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


# Writing


def require_writable(path: Path, need: int = 0) -> None:
    """Refuse, before the work begins, a file that could not be written at its end. Leaves nothing behind.

    Args:
        path: the file that is to be made; its folder may not be there yet.
        need: its size in bytes, as far as it is known.

    Raises:
        OutputError: a folder or device is there, its folder cannot be written, or the disk has no room for it.
    """
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
                raise OutputError(f"{path} is {kind}; name a file to write with -o")
        folder = nearest_folder(path.parent)
        with tempfile.TemporaryFile(dir=folder):  # the one proof that holds for root, read-only disks and quotas
            free = shutil.disk_usage(folder).free
    except FeatxError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; name another file with -o") from error
    if need > free:
        raise OutputError(f"{path} needs {size_text(need)}, {size_text(free)} free; name another disk with -o")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its final name, sync it and rename it: it is there whole, or as it was before.

    Raises:
        OutputError: it cannot be written.
    """
    require_writable(path, len(data))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:32]}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        size = size_text(len(data))
        raise OutputError(f"cannot write {path} ({size}): {reason(error)}; name another file with -o") from error


def reason(error: OSError | ValueError) -> str:
    """Why a system call failed, in the words of the system."""
    return getattr(error, "strerror", None) or str(error)
