"""Several devices of one machine that compute images together: a process for each, and this one, which writes the rows.

A device gets a few images at a time, as many as it computes in a short while, so that the slowest one holds up nobody. What
became of an image comes back as a message, and the ``Committer`` does with it what it does in a run on one device: so the file
is the same, a run that is killed goes on where it stopped, and a device whose process dies costs the images that it had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from featx import errors
from featx.data.loader import LoadedImage
from featx.data.urls import secrets
from featx.errors import EngineError, FeatxError
from featx.extraction.committer import Committer
from featx.extraction.computation import Setting
from featx.extraction.device_process import Asks, Begin, Choose, Chosen, Fault, Images, Note, Ready, Results, Start
from featx.extraction.plan import Plan, Work
from featx.extraction.workforce import Workforce
from featx.features.header import partial_path
from featx.reporter import Reporter
from featx.text import counted, form, listed

LEAST_IMAGES = 256
"""Images for each device below which its process takes longer to start than it saves."""

_MOST_AT_ONCE, _FEWEST_AT_ONCE = 256, 8
"""Images of one message."""

_AHEAD = 2.0
"""Seconds of work that a device has at a time."""

_FEWEST_AHEAD = {"cpu": 64}
_FEWEST_AHEAD_ELSEWHERE = 1024
"""Images that a device has at least at a time, so that its threads and batches are full."""

_CODE = (
    "import sys; sys.path[:] = sys.argv[2:]; from featx.extraction.device_process import main; main(int(sys.argv[1]))"
)
"""What the process of a device runs. It does not run the program that called ``extract``, as ``multiprocessing`` would."""


@dataclass(eq=False)
class _Member:
    """The process of one device.

    Attributes:
        device: its device.
        process: the process.
        connection: to it.
        is_ready: whether it has loaded the backbone.
        asks: whether it waits to be told which engine to take.
        has: the rows that it was given and that are not settled, in their order.
        settled: how many images it is done with.
        since: when it was done with the first ones, and how many these were.
        fault: why it ended, as far as it could say.
        limit: which stage limits its speed.
    """

    device: torch.device
    process: subprocess.Popen[bytes]
    connection: Connection
    is_ready: bool = False
    asks: bool = False
    has: dict[int, None] = field(default_factory=dict)
    settled: int = 0
    since: tuple[float, int] | None = None
    fault: Fault | None = None
    limit: str = ""

    def settle(self, rows: list[int]) -> None:
        """Record that the device is done with these rows."""
        for row in rows:
            self.settled += self.has.pop(row, 0) is None
        if self.since is None and self.settled:
            self.since = time.monotonic(), self.settled

    def wants(self) -> int:
        """How many images it should have."""
        least = _FEWEST_AHEAD.get(self.device.type, _FEWEST_AHEAD_ELSEWHERE)
        if self.since is None or (elapsed := time.monotonic() - self.since[0]) < 0.2:
            return least
        return max(least, round(_AHEAD * (self.settled - self.since[1]) / elapsed))


class Crew(Workforce):
    """The devices that a request names, with a process for each; ``stages`` stay empty: the progress shows which one limits."""

    def __init__(self, plan: Plan, committer: Committer, setting: Setting, reporter: Reporter) -> None:
        super().__init__(plan, committer, setting, reporter)
        self._members: list[_Member] = []
        self._decider: _Member | None = None
        self._queue: deque[int] = deque()

    def close(self) -> None:
        """End the processes, which have nothing to lose."""
        for member in self._members:
            self._end(member)
        self._members = []

    def pays(self, work: Work) -> bool:
        """Whether some work is worth more than one device."""
        return len(self._devices(work)) > 1

    def run(self, work: Work, engine: str) -> list[int]:
        """Compute the images of some work, as ``Workforce.run``.

        Raises:
            DatasetError: the run is strict, and an image failed.
            StaleCacheError: a process loads another network under the same name.
            EngineError: no device is left.
        """
        if engine:
            self._choose(engine)
        self._queue.extend(self._plan.inventory.images.order(work.rows).tolist())
        if not self._members:
            self._start(work)
        for member in filter(attrgetter("is_ready"), self._members):
            self._send(member, Begin(work.views))
        again: list[int] = []
        self._report()
        while self._queue or any(member.has for member in self._members):
            self._hand_out()
            for connection in wait([member.connection for member in self._members]):
                member = next(member for member in self._members if member.connection is connection)
                try:
                    message = member.connection.recv()
                except (EOFError, OSError):
                    self._lose(member)
                    continue
                again += self._take(member, message, work)
            self._report()
        return again

    def _devices(self, work: Work) -> list[torch.device]:
        """The devices that are worth a process: as many as have enough images to do."""
        devices = self._plan.inventory.request.devices
        return list(devices[: max(1, len(work.rows) // LEAST_IMAGES)])

    def _start(self, work: Work) -> None:
        """Start a process for each device."""
        plan, request, devices = self._plan, self._plan.inventory.request, self._devices(work)
        self._reporter.stage(f"loading {plan.backbone.name} on {counted(len(devices), 'device')}")
        known = [file.path for file in plan.known.files]
        if self._committer.stored:
            known.insert(0, partial_path(plan.inventory.path))
        backbone = plan.backbone
        for device in devices:
            member = _started(device)
            self._members.append(member)
            start = Start(
                described={"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()},
                identities=backbone.identities,
                device=str(device),
                devices=len(devices),
                location=plan.inventory.images.root,
                secrets=secrets(),
                known=known,
                workers=max(1, request.workers // len(devices)),
                measured=request.workers,
                max_pixels=request.max_pixels,
                images=len(work.rows),
            )
            self._send(member, start)

    def _hand_out(self) -> None:
        """Give each device the images that it should have, and tell those that ask which engine to take."""
        for member in filter(attrgetter("asks"), self._members):
            if self.engine or self._decider is None:
                setting = self.setting
                decides = not self.engine
                self._decider = self._decider or member
                member.asks = False
                self._send(member, Choose(setting.compute, setting.batch_size, setting.begun_by, decides))
        paths = self._plan.inventory.images.paths
        for member in filter(attrgetter("is_ready"), self._members):
            while self._queue and len(member.has) < member.wants():
                share = len(self._queue) // (4 * len(self._members))
                count = min(max(share, _FEWEST_AT_ONCE), _MOST_AT_ONCE, len(self._queue))
                rows = np.array([self._queue.popleft() for _ in range(count)], dtype=np.int64)
                member.has.update(dict.fromkeys(rows.tolist()))
                self._send(member, Images(rows, paths[rows].tolist()))

    def _send(self, member: _Member, message: object) -> None:
        with contextlib.suppress(OSError):  # it has ended, which its end of the connection tells
            member.connection.send(message)

    def _take(self, member: _Member, message: object, work: Work) -> list[int]:
        """Act on a message of a device; returns rows to compute again."""
        if isinstance(message, Results):
            return self._commit(member, message, work)
        if isinstance(message, Ready):
            member.is_ready = True
            self._send(member, Begin(work.views))
        elif isinstance(message, Asks):
            member.asks = True
        elif isinstance(message, Chosen):
            self.engine = message.engine
            self.setting = dataclasses.replace(self.setting, compute=message.engine, batch_size=message.batch_size)
            self._committer.record_engine(message.engine)
            self.notes += message.notes
        elif isinstance(message, Note):
            self._reporter.note(message.sentence)
        elif isinstance(message, Fault):
            if message.ends_all:
                raise _error(message)
            member.fault = message
            self._lose(member)
        return []

    def _commit(self, member: _Member, results: Results, work: Work) -> list[int]:
        committer, again, settled = self._committer, list[int](), list[int]()
        for row, key, size, mtime, *marks in results.images:
            committer.observe(LoadedImage(row, key, None, "", size, mtime, (marks[0], marks[1])))
        if results.known:
            known = np.array(results.known)
            again += known[~committer.copy_known(known)].tolist()
            settled += results.known
        for rows, keys, features in results.batches:
            again += committer.store(work, rows, keys, features)
            settled += rows.tolist()
        again += committer.copy_duplicates(results.duplicates, results.first_row)
        settled += [row for row, _ in results.duplicates]
        for row, key, reason in results.failed:
            committer.fail(row, key, reason)
            settled.append(row)
        member.settle(settled)
        member.limit = results.limit or member.limit
        return again

    def _report(self) -> None:
        """Report the progress of all devices together."""
        limits = Counter(member.limit.rpartition(" ")[0] for member in self._members if member.limit)
        stage = limits.most_common(1)[0][0] if limits else ""
        limit = next((member.limit for member in self._members if stage and member.limit.startswith(stage)), "")
        detail = ", ".join(filter(None, [limit, counted(len(self._members), "device")]))
        done = self._committer.stored + self._committer.failed
        self._reporter.progress(done, len(self._committer.keys), detail)

    def _lose(self, member: _Member) -> None:
        """Give the images of a device that has ended to the others, and say so.

        Raises:
            EngineError: it was the last one.
        """
        self._members.remove(member)
        self._end(member)
        self._queue.extendleft(reversed(member.has))
        if self._decider is member:
            self._decider = None
        why = member.fault.sentence if member.fault else f"its process {_how_it_ended(member.process)}"
        if self._members:
            left = listed([other.device for other in self._members], most=8)
            images = counted(len(member.has), "image")
            note = f"{member.device} is out: {why}. The {images} that it had go to {left}"
            self._reporter.note(note)
            self.notes.append(note)
            return
        done = self._committer.stored + self._committer.failed
        raise EngineError(
            f"no device is left: {why} ({member.device}). {done:,} of {counted(len(self._committer.keys), 'image')} "
            f"{form(done, 'is', 'are')} done and kept; the same command goes on"
        )

    @staticmethod
    def _end(member: _Member) -> None:
        """End a process, which has nothing to lose."""
        member.process.kill()
        member.process.wait()
        member.connection.close()


def _started(device: torch.device) -> _Member:
    """Start the process of a device.

    Raises:
        EngineError: the system starts no process.
    """
    ours, theirs = socket.socketpair()
    flags = ["-X", "utf8"] if sys.flags.utf8_mode else []
    command = [sys.executable, *flags, "-c", _CODE, str(theirs.fileno()), *sys.path]
    try:
        with theirs, _ctrl_c_blocked():
            process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
    except OSError as error:
        ours.close()
        raise EngineError(f"cannot start a process for {device}: {error.strerror or error}") from error
    return _Member(device, process, Connection(ours.detach()))


@contextlib.contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Processes that are started in the block never see Ctrl-C, which a terminal sends to all: this process ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    status = process.returncode
    if status >= 0:
        return f"ended with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    memory = ", which the system sends when memory runs out" if -status == signal.SIGKILL else ""
    return f"was ended by {name}{memory}"


def _error(fault: Fault) -> FeatxError:
    """The error of another process."""
    kind: Any = getattr(errors, fault.kind, FeatxError)
    try:
        error: FeatxError = kind(fault.sentence)
    except TypeError:  # it takes more than a message
        error = FeatxError(fault.sentence)
    return error
