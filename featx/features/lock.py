"""The write lock of a feature file: one process at a time writes it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from featx.errors import CacheLockedError, OutputError
from featx.features.structured_file import output_error
from featx.reporter import Reporter

_HOLDER_DELAY = 0.05
"""Seconds within which a process that has locked the file also writes its name into it."""


@contextlib.contextmanager
def write_lock(path: Path, *, wait: bool = False, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the write lock of a feature file. The system releases it when the process ends, however it ends.

    Args:
        path: the feature file.
        wait: wait until another process releases the lock, instead of raising an error.
        waiting: called once before a wait, with a description of the process that holds the lock.

    Raises:
        CacheLockedError: another process holds the lock.
        OutputError: the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, write_lock(Path(folder) / "photos--resnet50.h5"):
        ...     print([path.name for path in Path(folder).iterdir()])
        ['.photos--resnet50.h5.lock']
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _claim(lock, path, wait=wait, waiting=waiting)
    except CacheLockedError:
        raise
    except OSError as error:
        raise folder_error(path.parent, error) from error
    owner = os.getpid()
    _held.add(handle)
    try:
        yield
    finally:
        if os.getpid() == owner:  # a forked child has closed it
            _held.discard(handle)
            # Removed while it is locked: a waiting process notices that the file is gone, and creates another. Where it cannot
            # be removed it does no harm, and the error of the block matters more.
            with contextlib.suppress(OSError):
                if _is_at(handle, lock):
                    lock.unlink()
            os.close(handle)


def note_waits(reporter: Reporter, what: str = "file") -> Callable[[str], None]:
    """What ``write_lock`` takes as ``waiting``: a note that tells which process is waited for."""
    return lambda holder: reporter.note(f"waiting for {holder}, which writes the same {what}")


_held: set[int] = set()
"""The descriptors of the locks that this process holds."""


def _let_go_in_child() -> None:
    """Close the locks of the parent in a forked child, which would otherwise hold them after the parent's end."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


def _claim(lock: Path, path: Path, *, wait: bool, waiting: Callable[[str], None] | None) -> int:
    """Lock the lock file and return its descriptor."""
    while True:
        handle, writable = _open(lock)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                time.sleep(_HOLDER_DELAY)
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                if not wait:
                    raise CacheLockedError(
                        f"{path} is being written by {holder}; --wait waits for it, or end that process"
                    ) from error
                if waiting:
                    waiting(holder)
                    waiting = None
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, lock):
                if writable:
                    os.ftruncate(handle, 0)
                    since = time.strftime("%Y-%m-%d %H:%M:%S")
                    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder has removed the file: try again with a new one


def _open(lock: Path) -> tuple[int, bool]:
    """Open the lock file, or make it, and tell whether this process may write its name into it.

    Whoever may write into the folder may lock: a new lock file gets the permissions of its folder, whatever the umask, and the
    file of another user, which a killed process may have left, is locked without being written.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileExistsError):
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o600)
        with contextlib.suppress(OSError):  # a file system without permissions
            os.fchmod(handle, 0o600 | stat.S_IMODE(lock.parent.stat().st_mode) & 0o666)
        return handle, True
    try:
        try:
            return os.open(lock, os.O_RDWR | flags), True
        except PermissionError:
            return os.open(lock, os.O_RDONLY | flags), False
    except FileNotFoundError:  # its holder has just removed it
        return _open(lock)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def folder_error(folder: Path, error: OSError) -> OutputError:
    """The error for a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return output_error(folder, 0, error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        return OutputError(
            f"cannot write into {folder}: there is a file at that path; name another folder with --cache"
        )
    return OutputError(f"cannot write into {folder}: {error.strerror}; name another folder with --cache")
