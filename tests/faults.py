"""Fails one call of the operating system at a time: a read, write, stat, open, rename, unlink, fsync or flock of a command.

The tests take a sample of the calls; ``benchmarks/failing_calls.py`` takes one from every line of featx that makes any. Only
calls that Python makes on files below the scenario's folder fail; reads of memory-mapped pages do not.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from featx.cli.main import main
from featx.features.feature_file import DONE, FeatureFile

FUNCTIONS = {
    "stat": [(os, "stat"), (os, "lstat"), (os, "fstat")],
    "open": [(os, "open"), (os, "scandir"), (os, "listdir")],
    "read": [(os, "read"), (os, "pread"), (np, "fromfile")],
    "write": [(os, "write"), (os, "pwrite"), (os, "ftruncate"), (os, "posix_fallocate"), (os, "utime"), (os, "mkdir")],
    "rename": [(os, "rename"), (os, "replace")],
    "unlink": [(os, "unlink"), (os, "remove")],
    "fsync": [(os, "fsync")],
    "flock": [(fcntl, "flock")],
}
"""The calls that fail, by kind."""

KINDS = tuple(FUNCTIONS)
NUMBER, CAUSE = errno.EIO, os.strerror(errno.EIO)


@dataclass(frozen=True)
class Call:
    """One call of the system.

    Attributes:
        kind: a key of ``FUNCTIONS``.
        site: the lines of featx that it comes from, the innermost last.
        number: how many calls of the kind from this site came before.
    """

    kind: str
    site: tuple[str, ...]
    number: int


class Faults:
    """Records all calls on files below a folder, and fails one of them.

    Args:
        folder: where calls count.
        failing: the call that fails, or None.
    """

    def __init__(self, folder: Path, failing: Call | None = None) -> None:
        self.folder, self.failing = os.path.realpath(folder), failing
        self.calls = dict[tuple[str, tuple[str, ...]], int]()
        self.failed: str | None = None
        self.lock = threading.Lock()
        self.inside = threading.local()

    def happens(self, kind: str, target: Any) -> None:
        """Count a call; raise OSError if it is the one that fails."""
        if getattr(self.inside, "busy", False):
            return
        self.inside.busy = True
        try:
            path = self.path_of(target)
            if path is None:
                return
            site = self.site()
            with self.lock:
                number = self.calls.get((kind, site), 0)
                self.calls[kind, site] = number + 1
                if self.failing != Call(kind, site, number):
                    return
                self.failed = path
        finally:
            self.inside.busy = False
        raise OSError(NUMBER, CAUSE) if isinstance(target, int) else OSError(NUMBER, CAUSE, target)

    def path_of(self, target: Any) -> str | None:
        """The path of a call's first argument, if it lies below the folder."""
        if hasattr(target, "fileno"):
            target = target.fileno()
        if isinstance(target, int):
            try:
                path = os.readlink(f"/proc/self/fd/{target}")  # noqa: PTH115 - as the others
            except OSError:
                return None
        elif isinstance(target, str | bytes | os.PathLike):
            path = os.path.join(os.getcwd(), os.fsdecode(target))  # noqa: PTH109, PTH118
        else:
            return None
        return path if os.path.abspath(path).startswith(self.folder) else None  # noqa: PTH100

    def site(self) -> tuple[str, ...]:
        """The lines of featx on the stack."""
        frame: Any = sys._getframe(2)
        lines = []
        while frame is not None:
            name = frame.f_code.co_filename
            if "/featx/" in name:
                lines.append(f"{name.rpartition('/featx/')[2]}:{frame.f_lineno}")
            frame = frame.f_back
        return tuple(reversed(lines))[-6:]

    @contextlib.contextmanager
    def injected(self) -> Iterator[None]:
        """Patch the functions."""
        with contextlib.ExitStack() as stack:
            for kind, functions in FUNCTIONS.items():
                for module, name in functions:
                    stack.enter_context(_patched(module, name, self._failing_function(kind, getattr(module, name))))
            opener = self._open(builtins.open)
            stack.enter_context(_patched(builtins, "open", opener))
            stack.enter_context(_patched(io, "open", opener))
            yield

    def _failing_function(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.happens(kind, args[0] if args else None)
            return function(*args, **kwargs)

        return call

    def _open(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            self.happens("open", file)
            opened = original(file, mode, *args, **kwargs)
            if self.path_of(opened) is None:
                return opened
            buffer = opened.buffer if isinstance(opened, io.TextIOWrapper) else opened
            cls = next(
                (c for c in (io.BufferedRandom, io.BufferedReader, io.BufferedWriter) if isinstance(buffer, c)), None
            )
            if cls is None:
                return opened
            faulty = self._buffer_class(cls)(buffer.detach())
            if not isinstance(opened, io.TextIOWrapper):
                return faulty
            encoding, errors, newline = opened.encoding, opened.errors, kwargs.get("newline")
            return io.TextIOWrapper(faulty, encoding=encoding, errors=errors, newline=newline)

        return call

    def _buffer_class(self, base: type) -> type:
        faults = self

        class Faulty(base):  # type: ignore[misc]
            def read(self, *args: Any) -> Any:
                faults.happens("read", self.fileno())
                return super().read(*args)

            def readinto(self, *args: Any) -> Any:
                faults.happens("read", self.fileno())
                return super().readinto(*args)

            def write(self, *args: Any) -> Any:
                faults.happens("write", self.fileno())
                return super().write(*args)

        return Faulty


@contextlib.contextmanager
def _patched(module: Any, name: str, replacement: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, original)


# Scenarios


@dataclass(frozen=True)
class Scenario:
    """A command in a prepared folder.

    Attributes:
        command: its arguments.
        prepare: makes what the command needs, in the current folder.
        ending: the files that a run without faults leaves, in the end, as globs.
    """

    command: tuple[str, ...]
    prepare: Callable[[], None]
    ending: tuple[str, ...]


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, list(arguments))


def _images() -> None:
    for split in ("train", "test"):
        for label, tint in (("dark", 60), ("light", 190)):
            folder = Path("set", split, label)
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = np.random.default_rng(number + tint + 10 * (split == "test")).normal(tint, 9, (20, 20, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    for path in Path("set").rglob("*.png"):
        os.utime(path, (10**9, 10**9))


def _extracted() -> None:
    _images()
    assert run("extract", "set", "-b", "lenet5").exit_code == 0


def _interrupted() -> None:
    """An extraction that failed at the tenth row."""
    _images()
    faults = Faults(Path.cwd())
    with faults.injected():
        assert run("extract", "set", "-b", "lenet5", "-o", "other.h5", "--batch-size", "1").exit_code == 0
    writes = {
        site: count for (kind, site), count in faults.calls.items() if kind == "write" and "committer" in str(site)
    }
    site = max(writes, key=lambda site: writes[site])
    with Faults(Path.cwd(), Call("write", site, 9)).injected():
        assert run("extract", "set", "-b", "lenet5", "--batch-size", "1").exit_code == 1
    Path("other.h5").unlink()
    assert Path("cache/set--lenet5.h5.partial").is_file()


def _fitted() -> None:
    _extracted()
    assert run("fit-head", "--model", "ridge").exit_code == 0


def _grown() -> None:
    _extracted()
    shutil.copy("set/train/dark/0.png", "set/train/dark/copy.png")
    pixels = np.full((20, 20, 3), 90, dtype=np.uint8)
    Image.fromarray(pixels).save("set/train/dark/new.png")
    for name in ("copy", "new"):
        os.utime(f"set/train/dark/{name}.png", (10**9, 10**9))


_FEATURES = ("cache/set--lenet5.h5",)
_HEAD = "models/set--lenet5--ridge.safetensors"
_EXTRACT = ("extract", "set", "-b", "lenet5", "-j", "1")

SCENARIOS = {
    "first": Scenario(_EXTRACT, _images, _FEATURES),
    "resumed": Scenario(_EXTRACT, _interrupted, _FEATURES),
    "beside": Scenario(_EXTRACT, _grown, _FEATURES),
    "unchanged": Scenario(_EXTRACT, _extracted, _FEATURES),
    "fit-head": Scenario(
        ("fit-head", "--model", "ridge", "--report"), _extracted, (*_FEATURES, _HEAD, "models/*.png", "models/*.html")
    ),
    "promote": Scenario(("promote", _HEAD), _fitted, (*_FEATURES, _HEAD, "models/*--promoted.safetensors")),
    "finetune": Scenario(
        ("promote", _HEAD, "--finetune", "--epochs", "1", "--last", "1", "--repeats", "0"),
        _fitted,
        (*_FEATURES, _HEAD, *(f"models/*--promoted--epochs1--*.{end}" for end in ("safetensors", "csv", "png"))),
    ),
    "predict": Scenario(("predict", _HEAD, "set/test/dark"), _fitted, (*_FEATURES, _HEAD)),
    "evaluate": Scenario(("evaluate", _HEAD, "set"), _fitted, (*_FEATURES, _HEAD)),
    "rank": Scenario(("rank", "set", "-b", "lenet5"), _images, (*_FEATURES, "models/*--rank.png")),
    "advise": Scenario(("advise", "set", "-b", "lenet5"), _images, ("cache/set--lenet5.h5", "models/*--advice.png")),
    "verify": Scenario(("verify", *_FEATURES), _extracted, _FEATURES),
    "info": Scenario(("info", *_FEATURES), _extracted, _FEATURES),
}  # fmt: skip


def calls_of(name: str, folder: Path) -> list[Call]:
    """The first call from each site of a scenario that runs without faults."""
    with prepared(name, folder):
        faults = Faults(Path.cwd())
        with faults.injected():
            result = run(*SCENARIOS[name].command)
        assert result.exit_code == 0, result.output
    return [Call(kind, site, 0) for kind, site in faults.calls]


@contextlib.contextmanager
def prepared(name: str, folder: Path) -> Iterator[None]:
    """Run in a new copy of a scenario's folder."""
    template, place, before = folder / f"{name}.template", folder / "run", Path.cwd()
    os.chdir(folder)
    shutil.rmtree(place, ignore_errors=True)
    if not template.is_dir():  # always at the same path, which feature files name
        place.mkdir()
        os.chdir(place)
        SCENARIOS[name].prepare()
        shutil.copytree(place, template, symlinks=True)
    else:
        shutil.copytree(template, place, symlinks=True)
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def _done() -> int:
    """The rows that are done, in the final file or in the unfinished one, whichever has more."""
    counts = [0]
    for path in Path("cache").glob("set--lenet5.h5*"):
        with contextlib.suppress(Exception):
            counts.append(int((FeatureFile(path, allow_partial=True).status == DONE).sum()))
    return max(counts)


def faults_of(name: str, call: Call, folder: Path) -> list[str]:
    """Fail one call of a scenario, then run it again without faults; what is wrong with either."""
    with prepared(name, folder):
        begun = _done()
        faults = Faults(Path.cwd(), call)
        with faults.injected():
            result = run(*SCENARIOS[name].command)
        if faults.failed is None:
            return []  # the run took another way
        done = _done()
        wrong = [*_wrong_with(result, Path(faults.failed))]
        if done < begun:
            wrong.append(f"{begun} rows were done, {done} after the fault")
        return [*wrong, *_wrong_again(name, done)]


def _wrong_with(result: Result, failed: Path) -> Iterator[str]:
    """What is wrong with the end of a command in which a call on a file failed."""
    if result.exit_code not in (0, 1) or not isinstance(result.exception, SystemExit | None):
        yield f"exit {result.exit_code}, {result.exception!r}"
    elif result.exit_code == 1 and CAUSE not in result.stderr:
        yield f"no cause: {result.stderr}"
    elif result.exit_code == 1 and not any(part in result.stderr for part in (failed.name, failed.parent.name)):
        yield f"no path {failed}: {result.stderr}"


def _wrong_again(name: str, done: int) -> Iterator[str]:
    """What is wrong with a scenario that runs again without faults; some rows are done."""
    counts = name in ("first", "resumed", "beside")
    again = run(*SCENARIOS[name].command, *(("--json",) if counts else ()))
    if again.exit_code != 0:
        yield f"again: exit {again.exit_code}, {again.stderr} {again.exception!r}"
        return
    if counts:
        facts = json.loads(again.stdout)
        if facts["failed"] or facts["computed"] > facts["images"] - done:
            yield f"again: {facts['computed']} computed, {facts['failed']} failed; {done} were done"
    if missing := [pattern for pattern in SCENARIOS[name].ending if not list(Path.cwd().glob(pattern))]:
        yield f"again: no {missing}"
    elif (checked := run("verify", _FEATURES[0])).exit_code:
        yield f"verify: {checked.output}"
    if litter := [path.name for path in Path.cwd().rglob("*") if path.suffix in (".new", ".partial")]:
        yield f"litter: {litter}"
