"""Kill processes of an extraction on three devices, again and again, and compare the file with that of a single run.

    python tests/fuzz_devices.py 50 0

The arguments are the number of kills and the seed. In each round one process of a device, all of them, or the process that
writes is killed by SIGKILL at a random moment. What a round leaves the next one continues; a complete file is compared and
removed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from featx.backbones.backbone import load_backbone
from featx.errors import EngineError
from featx.extraction import crew
from featx.extraction.pipeline import extract

DEVICES = 3
_FAILED = 3
"""The exit status of a run whose devices were all killed."""


def work(data: str, cache: Path, devices: list[str] | None) -> Path:
    """Extract the data set, in small portions."""
    crew.LEAST_IMAGES, crew._FEWEST_AHEAD, crew._AHEAD = 10, {"cpu": 8}, 0.05
    backbone = load_backbone("lenet5", device="cpu")
    return extract(data, backbone, cache=cache, devices=devices, compute="eager", batch_size=2, workers=DEVICES).file


def children(process: int) -> list[int]:
    """The processes of devices that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == process and b"device_process" in command:
            found.append(int(status.parent.name))
    return sorted(found)


def attempt(data: str, cache: Path, chance: random.Random, kills: int) -> tuple[int, int]:
    """Start a run, and kill something of it; returns how many processes were killed, and the exit status."""
    command = [sys.executable, __file__, "run", data, str(cache)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    killed = 0
    for _ in range(chance.choice((1, 1, 2, 4))):
        until = time.monotonic() + chance.uniform(0, 1.5)
        while process.poll() is None and not children(process.pid):
            time.sleep(0.02)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        running = children(process.pid)
        if process.poll() is not None or killed >= kills:
            break
        for victim in chance.choice(([process.pid], running, running[:1], running[:1], running[-1:])):
            os.kill(victim, signal.SIGKILL)
            killed += 1
    err = process.communicate()[1]
    if process.returncode not in (0, -signal.SIGKILL, _FAILED):
        sys.stderr.write(err)
    return killed, process.returncode


def run(data: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill so many processes, and count what happened; ``different`` and ``failed`` are to be 0."""
    chance, cache = random.Random(seed), folder / "cache"
    expected = work(data, folder / "whole", None).read_bytes()
    seen = dict.fromkeys(("kills", "runs", "writer killed", "no device left", "completed", "different", "failed"), 0)
    while seen["kills"] < kills:
        killed, status = attempt(data, cache, chance, kills)
        seen["kills"] += killed
        seen["runs"] += 1
        seen["writer killed"] += status == -signal.SIGKILL
        seen["no device left"] += status == _FAILED
        seen["failed"] += status not in (0, -signal.SIGKILL, _FAILED)
        if status == 0 or seen["kills"] >= kills:
            file = work(data, cache, None)
            seen["completed"] += 1
            seen["different"] += file.read_bytes() != expected
            file.unlink()
    return seen


def main() -> None:
    """Run on the built-in digits."""
    if sys.argv[1] == "run":
        try:
            work(sys.argv[2], Path(sys.argv[3]), ["cpu"] * DEVICES)
        except EngineError as error:
            sys.exit(_FAILED if "no device is left" in str(error) else str(error))
        return
    kills, seed = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        seen = run("digits", Path(folder), kills, seed)
    sys.stdout.write(f"{seen}\n")
    sys.exit(seen["different"] + seen["failed"] > 0)


if __name__ == "__main__":
    main()
