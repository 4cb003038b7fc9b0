"""Kill processes that extract and merge shards, again and again, and compare what they make in the end with a single run.

    python tests/fuzz_shards.py 50 0

The arguments are the number of kills and the seed. In each round four processes work on one cache folder: three on shards, of
which two may be the same, and one that merges what is there. One of them is killed by SIGKILL at a random moment.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from featx.backbones.backbone import load_backbone
from featx.data.scan import scan_images
from featx.errors import CacheLockedError, CacheMissError, DatasetError
from featx.extraction.pipeline import extract
from featx.features.shards import merge_shards, shard_folders

OF = 4


class Folder:
    """A cache folder in which processes work and are killed."""

    def __init__(self, data: str, folder: Path) -> None:
        self.images, self.backbone = scan_images(data), load_backbone("lenet5", device="cpu")
        self.cache, self.whole = folder / "cache", folder / "whole"
        started = time.perf_counter()
        self.expected = self.extract(self.whole).read_bytes()
        self.seconds = time.perf_counter() - started

    def extract(self, cache: Path, shard: str | None = None) -> Path:
        return extract(
            self.images, self.backbone, cache=cache, shard=shard, compute="eager", batch_size=2, workers=1
        ).file

    def work(self, shard: int) -> None:
        """Extract a shard, or merge for 0."""
        if shard:
            self.extract(self.cache, f"{shard}/{OF}")
            return
        for place in shard_folders(self.cache):
            merge_shards(place)

    def child(self, shard: int) -> int:
        """Work in a process of its own; returns its number."""
        if (process := os.fork()) == 0:
            status = 1
            try:
                self.work(shard)
                status = 0
            except (CacheLockedError, CacheMissError, DatasetError):  # another is at it, or nothing is there yet
                status = 0
            finally:
                os._exit(status)
        return process

    def completed(self) -> bool:
        """Complete the file, compare it with that of a single run, and begin again."""
        for shard in (*range(1, OF + 1), 0):
            self.work(shard)
        (file,) = self.cache.glob("*.h5")
        same = file.read_bytes() == self.expected and not shard_folders(self.cache)
        file.unlink()
        return same


def run(data: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill so many processes, and count what happened; ``different`` and ``failed`` are to be 0."""
    torch.set_num_threads(1)
    chance, place = random.Random(seed), Folder(data, folder)
    seen = dict.fromkeys(("kills", "completed", "different", "failed"), 0)
    while seen["kills"] < kills or not seen["completed"]:
        children = [place.child(shard) for shard in (*(chance.randint(1, OF) for _ in range(3)), 0)]
        time.sleep(chance.uniform(0, place.seconds / 3))
        os.kill(chance.choice(children), signal.SIGKILL)
        for process in children:
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            seen["kills"] += status == -signal.SIGKILL
            seen["failed"] += status not in (0, -signal.SIGKILL)
        if chance.random() < 0.2:
            seen["completed"] += 1
            seen["different"] += not place.completed()
    return seen


def main() -> None:
    """Run on the built-in digits."""
    kills, seed = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        seen = run("digits", Path(folder), kills, seed)
    sys.stdout.write(f"{seen}\n")
    sys.exit(seen["different"] + seen["failed"] > 0)


if __name__ == "__main__":
    main()
