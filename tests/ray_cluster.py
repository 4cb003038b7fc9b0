"""A cluster of Ray for tests: two machines, as far as Ray can tell, in processes that surely end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NODE: dict[str, Any] = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
"""What Ray is told that each machine has."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",  # a machine that is lost is missed in 3 s rather than 15 s
    "RAY_health_check_failure_threshold": "5",
}

_STARTS = 3
"""How often the start is tried: Ray's raylet ends itself if its agents, which import much, take 15 s on a busy machine."""


@contextlib.contextmanager
def two_machines(lock: Path, *, wait: float = 300.0) -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` whose ``second`` machine may be removed; this process is connected to the first.

    Args:
        lock: a file that keeps other processes from starting another cluster meanwhile.
        wait: seconds to wait for it.
    """
    import ray

    with _locked(lock, wait):
        folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path, since sockets are there
        (folder / "ray").mkdir()  # Ray keeps the address of a test's cluster in this folder, and does not make it
        settings = {**_SETTINGS, "RAY_TMPDIR": str(folder)}
        os.environ |= settings
        try:
            found = _started(folder)
            ray.init(found.address, log_to_driver=False, logging_level="ERROR")
            ray.data.DataContext.get_current().execution_no_progress_timeout_s = 120.0
            yield found
        finally:
            ray.shutdown()
            end_all(folder)
            shutil.rmtree(folder, ignore_errors=True)
            for name in settings:
                os.environ.pop(name, None)


def _started(folder: Path) -> Any:
    """Start both machines; a start that fails is cleared away before the next."""
    from ray.cluster_utils import Cluster

    for left in reversed(range(_STARTS)):
        try:
            found = Cluster(initialize_head=True, head_node_args={**NODE, "temp_dir": str(folder)})
            found.second = found.add_node(**NODE)
            return found
        except Exception:  # of any type
            end_all(folder)
            if not left:
                raise
    raise AssertionError


def processes(folder: Path) -> list[int]:
    """The processes of a cluster: those that were started with its folder, or have a file of it open."""
    found, sought = [], os.fsencode(folder)
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if sought in command or any(
                os.fsencode(file.readlink()).startswith(sought) for file in (process / "fd").iterdir()
            ):
                found.append(int(process.name))
    return found


def end_all(folder: Path, seconds: float = 20.0) -> None:
    """End all processes of a cluster.

    Raises:
        TimeoutError: some are still there.
    """
    until = time.monotonic() + seconds
    while left := processes(folder):
        for number in left:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > until:
            raise TimeoutError(f"processes {left} of Ray do not end")
        time.sleep(0.05)


@contextlib.contextmanager
def _locked(path: Path, seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"another process has had a cluster of Ray for {seconds:.0f} s") from None
                time.sleep(0.2)
        yield


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
