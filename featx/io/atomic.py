"""Write files whole or not at all: check the space, write beside the final name, sync, rename."""

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


def keep(name: str, data: bytes) -> None:
    """Store a file below ``system.home()`` for later runs, whole or not at all; ignore a failure, which only costs time."""
    with contextlib.suppress(OSError, OutputError):
        path = home() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def require_writable(path: Path, need: int = 0) -> None:
    """Check before long work that its result can be written. Leaves nothing behind.

    Args:
        path: the future file; its folder need not exist.
        need: its size in bytes, as far as it is known.

    Raises:
        OutputError: a folder or device has this name, the folder cannot be written, or the disk lacks the space.
    """
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
                raise OutputError(f"{path} is {kind}; name a file to write with -o")
        folder = nearest_folder(path.parent)
        with tempfile.TemporaryFile(dir=folder):  # the only check that also holds for root, read-only disks and quotas
            free = shutil.disk_usage(folder).free
    except FeatxError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; name another file with -o") from error
    if need > free:
        raise OutputError(f"{path} needs {size_text(need)}, and {size_text(free)} are free; name another disk with -o")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its final name, sync it, and rename it. After a crash the path holds the old or the new file, whole.

    Raises:
        OutputError: the file cannot be written.
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
    """The operating system's explanation of a failure."""
    return getattr(error, "strerror", None) or str(error)
