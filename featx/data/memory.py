"""A budget for the memory of images that are being decoded: large ones wait for one another. Standard library only.

Threads decode many images at once, and a small file may hold a very large image. Each decode states its need before it
allocates. Needs of less than ``SMALL`` are never counted, so that ordinary images cost one comparison.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import threading
from pathlib import Path
from typing import Self

SMALL = 1 << 25
"""Bytes below which a need is not counted."""

_SHARE, _LEAST = 8, 1 << 30
"""The budget is one eighth of the memory of this machine, and at least 1 GiB."""

_LARGE = 1 << 28
"""Bytes from which freed memory is returned to the system at once."""

_CGROUP = Path("/sys/fs/cgroup/memory.max")


class MemoryBudget:
    """Grants memory to threads while their sum stays below a limit. A single need above the limit is granted alone.

    Attributes:
        limit: bytes.

    Examples:
        >>> budget = MemoryBudget(1 << 30)
        >>> with budget.lease() as lease:
        ...     lease.take(1 << 28)  # waits while other threads hold more than 768 MiB
        ...     budget.held == 1 << 28
        True
        >>> budget.held
        0
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._changed = threading.Condition()

    def lease(self) -> Lease:
        """A lease for one image, which gives back what it took at the end of a ``with`` block."""
        return Lease(self)

    def take(self, need: int) -> None:
        """Wait until ``need`` bytes fit, or until nothing else is held."""
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + need <= self.limit)
            self.held += need

    def give_back(self, need: int) -> None:
        """Give back what ``take`` granted."""
        with self._changed:
            self.held -= need
            self._changed.notify_all()


class Lease:
    """What one image holds of a budget.

    Attributes:
        held: bytes; 0 for a small image.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.give_back()

    def take(self, need: int) -> None:
        """State how many bytes the image needs, and wait until there is room. Called again, it replaces the earlier need.

        A lease never waits while it holds memory, so that two of them cannot wait for each other.
        """
        self.give_back()
        if need >= SMALL:
            self._budget.take(need)
            self.held = need

    def give_back(self) -> None:
        """End the lease."""
        if self.held:
            if self.held >= _LARGE:
                _return_to_system()
            self._budget.give_back(self.held)
            self.held = 0


def _return_to_system() -> None:
    """Let glibc return the memory that was freed in all threads, of which it otherwise keeps hundreds of megabytes each."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def machine_memory() -> int:
    """The bytes of memory that this process may use: of the machine, its container or its ``ulimit -v``, the least."""
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        found.append(int(_CGROUP.read_text(encoding="ascii")))  # "max" where there is no limit
    with contextlib.suppress(OSError, ValueError):
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [limit] if limit != resource.RLIM_INFINITY else []
    return min((size for size in found if size > 0), default=_LEAST * _SHARE)


BUDGET = MemoryBudget(max(_LEAST, machine_memory() // _SHARE))
"""The budget that all threads of this process share."""
