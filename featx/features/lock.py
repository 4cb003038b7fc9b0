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
from dataclasses import dataclass
from pathlib import Path

from featx.errors import CacheLockedError, FeatxError, OutputError
from featx.io.atomic import output_error
from featx.reporter import Reporter

_HOLDER_DELAY = 0.05
"""Seconds within which a process that has locked the file also writes its name into it."""

_MOST = 200
"""Bytes of a lock file that are read."""

_TRUSTED = 0.1
"""Seconds for which a lock that was seen is taken to be there still; servers keep that of a silent machine for longer."""


@contextlib.contextmanager
def write_lock(path: Path, *, wait: bool = False, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the write lock of a feature file. The system releases it when the process ends, however it ends.

    Args:
        path: the feature file.
        wait: wait until another process releases the lock, instead of raising an error.
        waiting: called once before a wait, with a description of the process that holds the lock.

    Raises:
        CacheLockedError: another process holds the lock; or the block failed after this process had lost it.
        OutputError: the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, write_lock(Path(folder) / "photos--resnet50.h5"):
        ...     print([path.name for path in Path(folder).iterdir()])
        ['.photos--resnet50.h5.lock']
    """
    lock = _lock_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, mark = _claim(lock, path, wait=wait, waiting=waiting)
    except CacheLockedError:
        raise
    except OSError as error:
        raise folder_error(path.parent, error) from error
    owner = os.getpid()
    held = _held[handle] = _Held(path, lock, mark, _clock())
    try:
        yield
    except (FeatxError, OSError) as error:
        if os.getpid() == owner and not isinstance(error, CacheLockedError) and held.is_lost(handle):
            raise held.error() from error  # what the other process did is the cause
        raise
    finally:
        if os.getpid() == owner:  # a forked child has closed it
            del _held[handle]
            # Removed while it is locked: a waiting process notices that the file is gone, and creates another. Where it cannot
            # be removed it does no harm, and the error of the block matters more.
            with contextlib.suppress(OSError):
                if not held.is_lost(handle):
                    lock.unlink()
            os.close(handle)


def require_locks() -> None:
    """Check that this process still has all locks that it holds, as before each write of what they protect.

    A machine that does not answer for long, since it is suspended or cut off, loses its locks on a file server, and wakes up
    without knowing. Lock files may be removed by hand, too. Another process may then be writing the same file, or have
    completed it.

    Raises:
        CacheLockedError: another process has the lock, or may have it.
    """
    for handle, held in list(_held.items()):
        if not 0 <= (now := _clock()) - held.seen <= _TRUSTED:
            if held.is_lost(handle):
                raise held.error()
            held.seen = now


def remove_abandoned_lock(path: Path) -> None:
    """Remove the lock file that a killed process has left beside a file which nobody writes."""
    if os.path.lexists(_lock_of(path)):
        with contextlib.suppress(CacheLockedError, OutputError), write_lock(path):
            pass


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def note_waits(reporter: Reporter, what: str = "file") -> Callable[[str], None]:
    """What ``write_lock`` takes as ``waiting``: a note that tells which process is waited for."""
    return lambda holder: reporter.note(f"waiting for {holder}, which writes the same {what}")


@dataclass
class _Held:
    """A lock that this process holds.

    Attributes:
        path: what it protects.
        lock: the lock file.
        mark: what that holds: the name of this process, unless the file cannot be written.
        seen: when the lock was last seen to be there.
    """

    path: Path
    lock: Path
    mark: bytes
    seen: float

    def is_lost(self, handle: int) -> bool:
        """Whether the lock file is gone, is another one, or names another process."""
        try:
            again = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # which asks a server; stat may not
            try:
                same = os.path.samestat(os.fstat(handle), os.fstat(again))
                return not same or os.pread(again, _MOST, 0) != self.mark
            finally:
                os.close(again)
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ESTALE)

    def error(self) -> CacheLockedError:
        """The error for a lock that is lost."""
        return CacheLockedError(
            f"{self.path} is no longer locked by this process: its lock went to another one, as it may when a machine is "
            "suspended for long, or the lock file was removed; what is done is kept, and the same command goes on"
        )


_held: dict[int, _Held] = {}
"""The locks that this process holds, by their descriptors."""


def _clock() -> float:
    """Seconds that pass while the machine is suspended, too, where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _let_go_in_child() -> None:
    """Close the locks of the parent in a forked child, which would otherwise hold them after the parent's end."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


def _claim(lock: Path, path: Path, *, wait: bool, waiting: Callable[[str], None] | None) -> tuple[int, bytes]:
    """Lock the lock file; returns its descriptor and what it holds."""
    while True:
        handle, writable = _open(lock)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                time.sleep(_HOLDER_DELAY)
                holder = os.pread(handle, _MOST, 0).decode(errors="replace").strip() or "another process"
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
                return handle, os.pread(handle, _MOST, 0)
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
