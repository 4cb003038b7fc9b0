"""The right to write a feature file: one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from featx.errors import CacheLockedError, OutputError
from featx.features.writer import output_error

_TELLING = 0.05
"""Seconds within which whoever has locked a file has also said so in it."""


@contextlib.contextmanager
def write_lock(path: Path, *, wait: bool = False, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the right to write a feature file. The system lets go of it when the process ends, however it ends.

    Args:
        path: the feature file.
        wait: until another process has let go of it, rather than raise.
        waiting: told who holds it, once, before a wait.

    Raises:
        CacheLockedError: another process holds it.
        OutputError: the folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _claim(lock, path, wait=wait, waiting=waiting)
    except CacheLockedError:
        raise
    except OSError as error:
        raise folder_error(path.parent, error) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is held: whoever waits sees that the file is gone, and makes another
        os.close(handle)


def _claim(lock: Path, path: Path, *, wait: bool, waiting: Callable[[str], None] | None) -> int:
    """A descriptor of the lock's file, locked."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                time.sleep(_TELLING)
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                if not wait:
                    raise CacheLockedError(
                        f"{path} is being written by {holder}; --wait waits for it, or end that process"
                    ) from error
                if waiting:
                    waiting(holder)
                    waiting = None
                fcntl.flock(handle, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(handle).st_ino == lock.stat().st_ino:
                    os.ftruncate(handle, 0)
                    since = time.strftime("%Y-%m-%d %H:%M:%S")
                    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever held it has removed it: the next is another file


def folder_error(folder: Path, error: OSError) -> OutputError:
    """The error for a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return output_error(folder, 0, error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        return OutputError(f"cannot write into {folder}: a file is in its place; name another folder with --cache")
    return OutputError(f"cannot write into {folder}: {error.strerror}; name another folder with --cache")
