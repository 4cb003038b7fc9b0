"""Kill runs that make and change a set of feature files, and compare the set with that of runs that were not killed.

    python tests/fuzz_sets.py 40 0

The arguments are the number of kills and the seed. A run makes a set of some of the built-in digits, or adds digits to a set,
so that files are divided and splits change. It is killed by SIGKILL: every other time at a random moment, else just before or
after a file is synced or renamed, which is where a file is closed, gets other splits, or the manifest is written. After each
kill the earlier set, if there was one, has to be whole. The same command is repeated until one is not killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from featx.backbones.backbone import load_backbone
from featx.data.image_set import ImageSet
from featx.data.scan import scan_images
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.features.manifest import Manifest

MANY, ROWS = 120, 40
"""Digits of the larger set, and the most rows of a file. The smaller set has three quarters of them."""

_MARKS = ("fsync", "replace", "rename")
"""The calls of the system at which a run is killed."""


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a set, and of what is left beside them."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def forked(work: Callable[[], object]) -> int:
    """Work in a process of its own, whose exit status is 0 unless that goes wrong; returns its number."""
    if (process := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


class Sets:
    """A cache folder with a set that runs make or change."""

    def __init__(self, data: str, folder: Path, split_rows: int) -> None:
        self.split_rows = split_rows
        self.backbone, self.cache = load_backbone("lenet5", device="cpu"), folder / "cache"
        images = scan_images(data)
        many = min(MANY, len(images))
        rows = sorted(random.Random(0).sample(range(len(images)), many))
        self.larger = images.take(rows)  # type: ignore[arg-type]
        self.smaller = self.larger.take([row for row in range(many) if row % 4])  # type: ignore[arg-type]
        self.first = folder / "first"
        self.extract(self.first, self.smaller)
        self.made, self.calls = contents(self.set_in(self.first)), 0
        shutil.copytree(self.first, folder / "changed")
        started = time.perf_counter()
        with_marks(self._count, lambda: self.extract(folder / "changed", self.larger))
        self.seconds = time.perf_counter() - started
        self.changed = contents(self.set_in(folder / "changed"))

    def _count(self) -> None:
        self.calls += 1

    def extract(self, cache: Path, images: ImageSet) -> None:
        """Extract into a set."""
        extract(
            images, self.backbone, cache=cache, split_rows=self.split_rows, compute="eager", batch_size=2, workers=1
        )

    @staticmethod
    def set_in(cache: Path) -> Path:
        """The one set of a cache folder."""
        (found,) = cache.glob("*.set")
        return found

    def trial(self, chance: random.Random, kills: int) -> tuple[int, bool]:
        """Make a set, or change one, with up to so many kills; returns how many there were, and whether all went well."""
        shutil.rmtree(self.cache, ignore_errors=True)
        changes = chance.random() < 0.6
        if changes:
            shutil.copytree(self.first, self.cache)
        images, expected = (self.larger, self.changed) if changes else (self.smaller, self.made)
        killed, well, times = 0, True, list[str]()
        while True:
            dies = killed < kills
            dies_at = chance.randrange(1, 2 * self.calls) if dies and chance.random() < 0.5 else 0
            process = forked(lambda: self._work(images, dies_at))  # noqa: B023 - it runs now
            if dies and not dies_at:
                time.sleep(chance.uniform(0, 1.2 * self.seconds))
                os.kill(process, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if status != -signal.SIGKILL:
                found = contents(self.set_in(self.cache)) if status == 0 else {}
                if found != expected:
                    differ = sorted(name for name in found | expected if found.get(name) != expected.get(name))
                    sys.stderr.write(f"status {status} after {killed} kills at {times}: {', '.join(differ)} differ\n")
                return killed, well and found == expected
            killed += 1
            times.append(f"call {dies_at} of {self.calls}" if dies_at else "a random moment")
            if changes:
                rows = Manifest.read(self.set_in(self.cache)).rows
                whole = rows in (len(self.smaller), len(self.larger))
                well = well and whole and 0 < len(FeatureSet.load(self.set_in(self.cache))) <= rows

    def _work(self, images: ImageSet, dies_at: int) -> None:
        left = dies_at

        def mark() -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        with_marks(mark, lambda: self.extract(self.cache, images))


def with_marks(mark: Callable[[], None], work: Callable[[], None]) -> None:
    """Work, and call ``mark`` before and after each call of the system that syncs or renames a file."""
    before = {name: getattr(os, name) for name in _MARKS}

    def marked(call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*args: Any, **options: Any) -> Any:
            mark()
            found = call(*args, **options)
            mark()
            return found

        return around

    try:
        for name, call in before.items():
            setattr(os, name, marked(call))
        work()
    finally:
        for name, call in before.items():
            setattr(os, name, call)


def run(data: str, folder: Path, kills: int, seed: int, split_rows: int = ROWS) -> dict[str, int]:
    """Kill so many runs, and count what happened; ``wrong`` is to be 0."""
    torch.set_num_threads(1)
    chance, sets = random.Random(seed), Sets(data, folder, split_rows)
    seen = dict.fromkeys(("kills", "trials", "wrong"), 0)
    while seen["kills"] < kills:
        killed, well = sets.trial(chance, kills - seen["kills"])
        seen["kills"] += killed
        seen["trials"] += 1
        seen["wrong"] += not well
    return seen


def main() -> None:
    """Run on the built-in digits."""
    kills, seed = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        seen = run("digits", Path(folder), kills, seed)
    sys.stdout.write(f"{seen}\n")
    sys.exit(seen["wrong"] > 0)


if __name__ == "__main__":
    main()
