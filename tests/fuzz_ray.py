"""Kill processes of an extraction on a cluster of Ray, again and again, and compare the file with that of a single run.

    python tests/fuzz_ray.py 20 0

The arguments are the number of rounds and the seed. The cluster has two machines on this one. In each round the driver, a
process that runs the network, or all of the second machine is killed by SIGKILL, when a random number of images is done or
after a random time. What a round leaves the next one continues; a complete file is compared and removed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conftest import write_image
from ray_cluster import NODE, two_machines

from featx.backbones.backbone import load_backbone
from featx.errors import FeatxError
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FeatureFile

IMAGES, LONGEST = 400, 240.0
"""Images of the data set; seconds after which a round counts as one that hangs."""

CODE = """
import os, pathlib, time, torch
from featx import Transform

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(192, 5), torch.nn.Linear(5, 2)

    def get_classifier(self):
        return self.last

    def forward(self, images):
        time.sleep(0.1)
        return self.last(self.first(images.flatten(1)))
"""


def done(cache: Path) -> int:
    """Images that have features in the unfinished file."""
    try:
        return int((FeatureFile(next(cache.glob("*.partial")), allow_partial=True).status == DONE).sum())
    except (StopIteration, FeatxError, OSError):
        return 0


def actors() -> list[int]:
    """The processes that run the network."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if command.read_bytes().startswith(b"ray::MapWorker"):
                found.append(int(command.parent.name))
    return sorted(found)


class Rounds:
    """Runs and kills on one cluster."""

    def __init__(self, cluster: object, folder: Path, seed: int) -> None:
        self.cluster, self.folder, self.cache = cluster, folder, folder / "cache"
        self.chance = random.Random(seed)
        self.network = f"{folder / 'net.py'}:Net"
        kinds = ("driver", "process", "machine", "completed", "different", "failed", "hung")
        self.seen = dict.fromkeys(kinds, 0)
        options = [
            "--compute",
            "eager",
            "--batch-size",
            "2",
            "--ray-gpus",
            "0",
            "--ray-actors",
            "2",
            "--ray",
            cluster.address,
        ]
        self.command = [sys.executable, "-m", "featx", "extract", str(folder / "photos"), "--backbone", self.network]
        self.command += ["--cache", str(self.cache), *options]

    def expected(self) -> bytes:
        """The file that one process makes."""
        (self.folder / "net.py").write_text(CODE)
        for number in range(IMAGES):
            write_image(self.folder / "photos" / "ab"[number % 2] / f"{number:03}.png", seed=number)
        return self.alone(self.folder / "alone").read_bytes()

    def alone(self, cache: Path) -> Path:
        """The same extraction in this process."""
        backbone = load_backbone(self.network, device="cpu")
        return extract(self.folder / "photos", backbone, cache=cache, compute="eager", batch_size=2).file

    def round(self, expected: bytes) -> None:
        """Start a run, kill something of it, and wait for its end."""
        what = self.chance.choice(("driver", "driver", "process", "process", "machine"))
        began, before = time.monotonic(), done(self.cache)
        until, number = began + LONGEST, before + 1 + self.chance.randrange(max(1, IMAGES - before))
        if number >= IMAGES or self.chance.random() < 0.3:
            until, number = began + self.chance.uniform(0, 20), IMAGES + 1
        driver = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while driver.poll() is None and time.monotonic() < until and done(self.cache) < number:
            time.sleep(0.02)
        if driver.poll() is None:
            self.kill(what, driver)
        try:
            said = driver.communicate(timeout=LONGEST)[0]
        except subprocess.TimeoutExpired:
            self.seen["hung"] += 1
            driver.kill()
            said = driver.communicate()[0]
        if driver.returncode not in (0, -signal.SIGKILL):
            self.seen["failed"] += 1
            sys.stderr.write(said)
        sys.stderr.write(
            f"{what} at {number}: {driver.returncode}, {time.monotonic() - began:.0f} s, {done(self.cache)} done\n"
        )
        if driver.returncode == 0:
            self.compare(expected)

    def kill(self, what: str, driver: subprocess.Popen[str]) -> None:
        """Kill the driver, a process of the cluster, or the second machine, in whose place another one comes."""
        if what == "driver":
            driver.kill()
        elif what == "process":
            running = actors()
            if not running:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(running), signal.SIGKILL)
        else:
            self.cluster.remove_node(self.cluster.second, allow_graceful=False)
            self.cluster.second = self.cluster.add_node(**NODE)
        self.seen[what] += 1

    def compare(self, expected: bytes) -> None:
        """Complete the file in this process, compare and remove it."""
        file = self.alone(self.cache)
        self.seen["completed"] += 1
        self.seen["different"] += file.read_bytes() != expected
        file.unlink()


def main() -> None:
    """Print what happened; ``different``, ``failed`` and ``hung`` are to be 0."""
    rounds, seed = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as name, two_machines(Path(tempfile.gettempdir(), "fuzz_ray.lock")) as cluster:
        trials = Rounds(cluster, Path(name), seed)
        expected = trials.expected()
        for _ in range(rounds):
            trials.round(expected)
        trials.compare(expected)
    sys.stdout.write(f"{trials.seen}\n")
    sys.exit(trials.seen["different"] + trials.seen["failed"] + trials.seen["hung"] > 0)


if __name__ == "__main__":
    main()
