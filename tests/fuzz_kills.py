"""Kill and pause processes that extract, again and again, and compare what they make in the end with a single run.

    python tests/fuzz_kills.py shards 4 50 0     # four workers on shards, and a committer that merges them meanwhile
    python tests/fuzz_kills.py devices 2 50 0    # --devices cpu,cpu: the process that writes, and those of the devices
    python tests/fuzz_kills.py set 1 50 0        # --split-rows
    python tests/fuzz_kills.py set-shards 4 50 0 # shards that become a set

The arguments are the kind, the number of processes, that of kills, and the seed. In each round some processes get SIGKILL, one
or several at once, or SIGSTOP: at a random time, or while they do something that takes little time and is picked at random.
Most calls of the system that write are slowed down, so that signals come between them. A paused process goes on later; before
that, its lock may be given to another process that does the same work, as a file server does when a machine is suspended for
long. Then the same commands run to their end. What they make must be, byte for byte, what one process makes, nothing else may
be left, and each command must have ended with status 0, or with one line that begins with "Error:".

Prints what processes did when they were killed ("killed while"), how commands ended, and how many rounds ended with other
bytes ("different"), with other files beside ("left"), or with an end that is none of these ("failed"); these are to be 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from featx.cli.main import main as featx
from featx.extraction import crew, device_process, one_file
from featx.extraction.committer import Committer
from featx.extraction.computation import Computation
from featx.features import shards
from featx.features.manifest import Manifest
from featx.features.set_update import SetUpdate
from featx.features.structured_file import StructuredFile
from featx.features.writer import FeatureFileWriter

IMAGES = 240

_SETTINGS = ["-b", "lenet5", "--compute", "eager", "--batch-size", "2", "-q"]

_SLOW, _SLOWER = 0.001, 0.008
"""Seconds that a call of the system may take longer; and where a signal is expected."""

_WORKER = {
    "looking up what is known": (one_file, "plan"),
    "laying out the file": (FeatureFileWriter, "__init__"),
    "publishing": (Committer, "publish"),
    "computing": (Computation, "run"),
    "writing rows": (FeatureFileWriter, "write"),
    "completing the file": (FeatureFileWriter, "finish"),
    "renaming": (StructuredFile, "rename"),
}
_COMMITTER = {
    "reading shards": (shards, "read_shards"),
    "laying out the file": (FeatureFileWriter, "__init__"),
    "copying rows": (shards._Merging, "_copy_features"),
    "writing rows": (FeatureFileWriter, "write"),
    "completing the file": (FeatureFileWriter, "finish"),
    "renaming": (StructuredFile, "rename"),
    "removing shards": (shards, "_remove"),
}
_SET = {
    "settling splits": (SetUpdate, "with_splits"),
    "writing the manifest": (Manifest, "write"),
    "removing replaced files": (SetUpdate, "_remove_others"),
}
_DRIVER = {**_WORKER, "computing": (crew.Crew, "run")}
_DEVICE = {
    "loading": (device_process, "_loaded"),
    "computing": (Computation, "run"),
    "sending rows": (device_process._Sender, "flush"),
}
ROLES: dict[str, dict[str, tuple[Any, str]]] = {
    "worker": _WORKER,
    "committer": _COMMITTER,
    "driver": _DRIVER,
    "device": _DEVICE,
    "set": {**_WORKER, **_SET},
    "committer of a set": {**_COMMITTER, "writing the manifest": (Manifest, "write")},
}
"""What the processes of each role do, and the functions that do it."""

_SLOWED = [(os, n) for n in ("pwrite", "ftruncate", "posix_fallocate", "fsync", "replace", "unlink", "rmdir")]


# In the processes that are killed


@dataclass(frozen=True)
class Wish:
    """What a process shall be doing when it gets a signal: something, for the n-th time."""

    doing: str
    times: int


class Moment:
    """What a process is doing, in a file that outlives it; ``wished`` is set when it does what it shall be killed in."""

    def __init__(self, folder: Path, process: int, role: str = "") -> None:
        file = os.open(folder / str(process), os.O_RDWR | os.O_CREAT)
        os.ftruncate(file, 64)  # whoever comes first, the process or the one that started it
        self._shared = mmap.mmap(file, 64)
        os.close(file)
        self._stack, self._wish, self._seen = [f"{role}: starting"], Wish("", 0), 0
        if role:
            self._write()

    @property
    def wished(self) -> bool:
        return self._shared[63] == 1

    def __str__(self) -> str:
        return bytes(self._shared[:63]).rstrip(b"\0").decode() or "starting"

    def watch(self, role: str, wish: Wish) -> None:
        """Note from now on what this process does, and slow it down."""
        self._wish, functions = wish, ROLES[role]
        for doing, (place, name) in functions.items():
            setattr(place, name, self._noted(f"{role}: {doing}", getattr(place, name)))
        for place, name in [*_SLOWED, (fcntl, "flock")]:
            setattr(place, name, self._slowed(getattr(place, name)))

    def _write(self) -> None:
        self._shared[:63] = self._stack[-1].encode().ljust(63, b"\0")[:63]

    def _noted(self, doing: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._stack.append(doing)
            self._write()
            if doing.partition(": ")[2] == self._wish.doing:
                self._seen += 1
                if self._seen == self._wish.times:
                    self._shared[63] = 1
                    time.sleep(random.uniform(0, 2 * _SLOWER))
            try:
                return function(*args, **kwargs)
            finally:
                self._stack.pop()
                self._write()

        return call

    def _slowed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = function(*args, **kwargs)
            time.sleep(random.uniform(0, _SLOWER if self.wished else _SLOW))
            return found

        return call


class _Forked:
    """A forked process, as ``Crew`` uses one; it starts at once, since it imports nothing."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _forked_device(moments: Path) -> Callable[[torch.device], Any]:
    """What starts the process of a device in the place of a new interpreter, which takes seconds."""

    def start(device: torch.device) -> Any:
        ours, theirs = socket.socketpair()
        if (pid := os.fork()) == 0:
            try:
                os.closerange(3, theirs.fileno())
                os.closerange(theirs.fileno() + 1, 1 << 12)
                Moment(moments, os.getpid(), "device").watch("device", Wish("", 0))
                device_process.main(theirs.detach())
            finally:
                os._exit(0)
        theirs.close()
        return crew._Member(device, _Forked(pid), Connection(ours.detach()))

    return start


# The process that kills them


@dataclass
class Command:
    """A command of featx in a forked process.

    Attributes:
        arguments: of the command.
        role: what the process does.
        repeats: how often it is run.
    """

    arguments: Sequence[str]
    role: str
    repeats: int = 1
    wish: Wish = Wish("", 0)
    pid: int = 0
    status: int | None = None
    moment: Moment | None = None
    output: Path = Path()

    def start(self, folder: Path) -> None:
        """Fork, and run it."""
        sys.stdout.flush()
        self.output = folder / f"output{time.monotonic_ns()}"
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                status = self._run(folder)
            finally:
                os._exit(status)
        self.moment = Moment(folder, self.pid)

    def _run(self, folder: Path) -> int:
        handle = os.open(self.output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        random.seed(os.getpid())
        Moment(folder, os.getpid(), self.role).watch(self.role, self.wish)
        if self.role == "driver":
            crew.LEAST_IMAGES, crew._FEWEST_AHEAD, crew._AHEAD = 10, {"cpu": 8}, 0.05
            crew._started = _forked_device(folder)  # type: ignore[assignment]
        worst = 0
        for _ in range(self.repeats):
            try:
                featx(list(self.arguments))
            except SystemExit as end:
                worst = max(worst, int(end.code or 0))
            sys.stdout.flush()
            sys.stderr.flush()
            time.sleep(random.uniform(0, 0.1) if self.repeats > 1 else 0)
        return worst

    def ended(self, *, wait: bool = False) -> bool:
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, 0 if wait else os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def fault(self) -> str:
        """What is wrong with how it ended; "" if nothing is."""
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        if "Traceback" in text or self.status not in (0, 1, -signal.SIGKILL):
            return f"{' '.join(self.arguments)} ended with status {self.status}: {text[-3000:]}"
        return "" if self.status != 1 or self.errors() else f"{' '.join(self.arguments)} ended without a line"

    def errors(self) -> list[str]:
        """The lines of errors, without numbers and paths."""
        lines = self.output.read_text(errors="replace").splitlines() if self.output.exists() else []
        return [re.sub(r"\S*/\S+|\d[\d:-]*", "…", line) for line in lines if line.startswith("Error:")]


@dataclass
class Seen:
    """What happened."""

    kills: int = 0
    paused: int = 0
    locks_lost: int = 0
    rounds: int = 0
    different: int = 0
    left: int = 0
    failed: int = 0
    killed_while: Counter[str] = field(default_factory=Counter)
    paused_while: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


class Trial:
    """One cache folder, in which processes work, are killed and go on.

    Args:
        kind: "shards", "devices", "set" or "set-shards".
        processes: workers or devices.
        folder: for everything.
        seed: of all that is random.
    """

    def __init__(self, kind: str, processes: int, folder: Path, seed: int) -> None:
        self.kind, self.processes, self.folder = kind, processes, folder
        self.chance, self.seen = random.Random(seed), Seen()
        self.data, self.cache, self.moments = folder / "photos", folder / "cache", folder / "moments"
        self.moments.mkdir()
        _make_images(self.data)
        whole = folder / "whole"
        self._finish([Command(self._extract("--cache", str(whole), *self._of_set()), "set")])
        self.expected = _contents(whole)
        assert self.expected
        assert not self.seen.failed

    def _extract(self, *options: str) -> list[str]:
        return ["extract", str(self.data), *_SETTINGS, "-j", "1" if self.has_shards else "2", *options]

    @property
    def has_shards(self) -> bool:
        """Whether workers make shards."""
        return self.kind in ("shards", "set-shards")

    def _of_set(self) -> list[str]:
        return ["--split-rows", "100"] if self.kind in ("set", "set-shards") else []

    def _commands(self) -> list[Command]:
        """The commands of a round."""
        cache = ["--cache", str(self.cache)]
        if self.kind == "devices":
            return [Command(self._extract(*cache, "--devices", ",".join(["cpu"] * self.processes)), "driver")]
        if self.kind == "set":
            return [Command(self._extract(*cache, *self._of_set()), "set")]
        numbers = list(range(1, self.processes + 1))
        if self.chance.random() < 0.2:
            numbers[0] = numbers[-1]  # two on the same
        shard = [*cache, *self._of_set(), "--shard"]
        work = [Command(self._extract(*shard, f"{k}/{self.processes}"), "worker") for k in numbers]
        return [*work, self._merge(repeats=8)]

    def _merge(self, *options: str, repeats: int = 1) -> Command:
        role = "committer of a set" if self.kind == "set-shards" else "committer"
        return Command(["cache", "merge", "--cache", str(self.cache), *options], role, repeats)

    def round(self, most: int) -> None:
        """Kill and pause some processes, one or more times, and complete what they have left."""
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            if self.seen.kills < most:
                self._wave(most)
        last = self._commands()
        if self.has_shards:
            for number, command in enumerate(last[:-1], start=1):
                command.arguments = [*command.arguments[:-1], f"{number}/{self.processes}"]
            self._finish(last[:-1])
            last = [self._merge("--strict")]
        self._finish(last)
        self.seen.failed += any(command.status for command in last)
        self.seen.rounds += 1
        found = _contents(self.cache)
        self.seen.different += any(found.get(name) != data for name, data in self.expected.items())
        if others := sorted(found.keys() - self.expected.keys()):
            self.seen.left += 1
            sys.stderr.write(f"left: {others}\n")
        if self.chance.random() < 0.7:
            shutil.rmtree(self.cache)

    def _wave(self, most: int) -> None:
        """Start all commands, and send signals to some of them."""
        commands = self._commands()
        victims = self.chance.sample(commands, self.chance.choice((1, 1, 1, min(2, len(commands)))))
        if self.has_shards and self.chance.random() < 0.3:
            victims = [commands[-1]]
        for command in victims:
            if self.chance.random() < 0.8:
                doing = self.chance.choice(list(ROLES[command.role]))
                many = doing == "writing rows"
                command.wish = Wish(doing, self.chance.randint(1, 40) if many else self.chance.choice((1, 1, 2)))
        for command in commands:
            command.start(self.moments)
        paused = [command for command in victims if self._signal(command, most)]
        for command in paused:
            if self.chance.random() < 0.6:
                self._replace(command)
            else:
                time.sleep(self.chance.uniform(0, 0.3))
            os.kill(command.pid, signal.SIGCONT)
        for command in commands:
            self._note_end(command)
        self._await_orphans()

    def _signal(self, command: Command, most: int) -> bool:
        """Kill a process, or what it has started, or pause it; returns whether it is paused."""
        if self.seen.kills >= most or not self._await(command):
            return False
        if command.role == "driver" and self.chance.random() < 0.7:
            self._kill_devices(command, most)
        elif self.chance.random() < 0.25:
            os.kill(command.pid, signal.SIGSTOP)
            self.seen.paused += 1
            self.seen.paused_while[str(command.moment)] += 1
            return True
        else:
            os.kill(command.pid, signal.SIGKILL)
        return False

    def _await(self, command: Command) -> bool:
        """Wait until a process does what it is to be killed in, or for a random time; returns whether it still runs."""
        assert command.moment
        until = time.monotonic() + self.chance.uniform(0, 0.8)
        while not command.ended() and (not command.moment.wished if command.wish.doing else time.monotonic() < until):
            time.sleep(0.001)
        long = command.wish.doing == "computing"
        time.sleep(self.chance.uniform(0, 0.4 if long else 2 * _SLOWER))
        return not command.ended()

    def _kill_devices(self, driver: Command, most: int) -> None:
        """Kill processes of devices, one, two or all of them, perhaps together with the one that writes."""
        until = time.monotonic() + self.chance.uniform(0, 0.4)
        while not driver.ended() and (time.monotonic() < until or not _children(driver.pid)):
            time.sleep(0.001)
        running = _children(driver.pid)
        if driver.ended() or not running:
            return
        several = self.chance.choice((1, 1, 2, len(running)))
        victims = self.chance.sample(running, min(several, len(running), most - self.seen.kills))
        if self.chance.random() < 0.15:  # a device that stands still for a while
            os.kill(victims[0], signal.SIGSTOP)
            time.sleep(self.chance.uniform(0, 0.3))
            self.seen.paused += 1
            self.seen.paused_while[str(Moment(self.moments, victims[0]))] += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(victims[0], signal.SIGCONT)
            return
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.seen.kills += 1
                self.seen.killed_while[str(Moment(self.moments, pid))] += 1
        if self.chance.random() < 0.2 and not driver.ended():
            os.kill(driver.pid, signal.SIGKILL)

    def _replace(self, paused: Command) -> None:
        """Take the locks of a paused process away, and let another one do the same work."""
        locks = [path for path in self.cache.rglob(".*.lock") if f"process {paused.pid} on" in _text(path)]
        for lock in locks:
            lock.unlink()
            self.seen.locks_lost += 1
        if locks:
            again = [Command(paused.arguments, paused.role)]
            if self.has_shards and self.chance.random() < 0.5:
                again.append(self._merge())
            for command in again:
                self._finish([command])

    def _finish(self, commands: Sequence[Command]) -> None:
        """Run commands to their end."""
        for command in commands:
            command.start(self.moments)
        for command in commands:
            self._note_end(command)

    def _note_end(self, command: Command) -> None:
        command.ended(wait=True)
        if command.status == -signal.SIGKILL:
            self.seen.kills += 1
            self.seen.killed_while[str(command.moment)] += 1
        self.seen.errors.update(f"{command.role}: {error}" for error in command.errors())
        if fault := command.fault():
            self.seen.failed += 1
            sys.stderr.write(f"{fault}\n")

    def _await_orphans(self) -> None:
        """Devices end when the process that writes is gone."""
        until = time.monotonic() + 10
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < until:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    time.sleep(0.005)
            self.seen.failed += 1
            sys.stderr.write("processes of devices are left\n")


def _make_images(folder: Path) -> None:
    """Two classes of images, with copies, two that are damaged and one that is empty."""
    for number in range(IMAGES):
        path = folder / ("ants", "bees")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number % (IMAGES - 20)).integers(0, 256, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    for number in (7, 100):
        (folder / "ants" / f"damaged{number}.png").write_bytes(path.read_bytes()[:60] + bytes([number]))
    (folder / "bees" / "empty.png").touch()


def _children(process: int) -> list[int]:
    """The processes that a process has started and that run."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in _text(path).split() if " Z " not in _text(Path(f"/proc/{child}/stat"))]
    return sorted(found)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def _contents(cache: Path) -> dict[str, bytes]:
    """The bytes of all files in a cache folder, by their paths; folders of shards count as files.

    Temporary files of less than a minute do not count; the next write of the same name removes them.
    """
    return dict(_files(cache))


def _files(cache: Path) -> Iterator[tuple[str, bytes]]:
    for path in cache.rglob("*"):
        name = str(path.relative_to(cache))
        if path.is_file() and path.suffix != ".featx-temporary":
            yield name, path.read_bytes()
        elif path.suffix == shards.SHARDS:
            yield name, b""


def run(kind: str, processes: int, kills: int, seed: int, folder: Path) -> Seen:
    """Kill so many processes, and count what happened."""
    torch.set_num_threads(1)
    os.environ["FEATX_HOME"] = str(folder / "home")
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: the devices of a process that was killed are ours
    trial = Trial(kind, processes, folder, seed)
    try:
        while trial.seen.kills < kills:
            trial.round(kills)
    finally:
        for pid in _children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
    return trial.seen


def main() -> None:
    """Run in a temporary folder."""
    kind, (processes, kills, seed) = sys.argv[1], map(int, sys.argv[2:])
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seen = run(kind, processes, kills, seed, Path(folder))
    sys.stdout.write(f"{kind}, {processes} processes, {time.monotonic() - started:.0f} s\n")
    for name, value in vars(seen).items():
        shown = value if isinstance(value, int) else "".join(f"\n  {n:4} {what}" for what, n in sorted(value.items()))
        sys.stdout.write(f"{name.replace('_', ' ')}: {shown}\n")
    sys.exit(seen.different + seen.left + seen.failed > 0)


if __name__ == "__main__":
    main()
