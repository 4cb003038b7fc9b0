"""What several devices of one machine cost: ``extract(..., devices=["cpu", "cpu"])`` against one process on the same two cores.

    python benchmarks/scale_devices.py                  # about five minutes on two cores that nothing else uses
    python benchmarks/scale_devices.py --rounds 1 --few 1 --many 2

Prints one JSON line. The parts:

- overhead: one process with a thread on each of two cores against two processes of one thread and the one that writes, in
  turns. Photographs are copied with another last byte each. Imports and the loading of the network in this process are over
  when the clock starts; the processes of devices import and load while it runs. So there are two sizes: "steady" is the ratio
  of the time of the images between the two sizes, "start" what the larger one's time is beside that. CPU seconds count all
  processes, and are less disturbed by other programs.
- writing: rows/s that the writing process takes from devices which compute nothing and send random features, by width; and
  for each CPU second. More images/s than that, and it is what limits.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sources_remote import IMAGES, WEIGHTS, copy_images

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.image_set import ImageSet
from featx.data.scan import scan_images
from featx.data.store import FolderStore
from featx.extraction import crew
from featx.extraction.device_process import Asks, Chosen, Images, Ready, Results, _Inbox
from featx.extraction.pipeline import extract
from featx.reporter import Reporter

TWO = ["cpu", "cpu"]

_NETWORK = """
import torch
from featx import Transform

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear({width}, 2)

    def get_classifier(self):
        return self.last

    def forward(self, images):
        return self.last(images.mean(dim=(1, 2, 3))[:, None].repeat(1, {width}))
"""


def _cpu() -> float:
    """CPU seconds of this process, and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _run(images: ImageSet, backbone: Backbone, devices: Sequence[str] | None) -> tuple[float, float, bytes]:
    """Wall and CPU seconds of an extraction, and the file."""
    with tempfile.TemporaryDirectory() as cache:
        wall, cpu = time.perf_counter(), _cpu()
        result = extract(images, backbone, cache=cache, devices=devices, workers=2, compute="eager")
        assert result.computed == len(images)
        return time.perf_counter() - wall, _cpu() - cpu, result.file.read_bytes()


def overhead(folder: Path, few: int, many: int, rounds: int) -> dict[str, Any]:
    """Two processes against one, on two numbers of copies of the photographs."""
    backbone = load_backbone("mobilenet_v1_075", weights=str(WEIGHTS["mobilenet_v1_075"]), device="cpu")
    sets = {}
    for count in (few, many):
        copy_images(IMAGES, folder / str(count), count)
        sets[count] = scan_images(folder / str(count))
    seconds: dict[tuple[int, bool], list[tuple[float, float]]] = {(n, d): [] for n in sets for d in (False, True)}
    same = True
    for _ in range(rounds):
        for count, images in sets.items():
            files = []
            for several in (False, True):
                *spent, file = _run(images, backbone, TWO if several else None)
                seconds[count, several].append((spent[0], spent[1]))
                files.append(file)
            same &= files[0] == files[1]
    median = {case: [statistics.median(some) for some in zip(*spent, strict=True)] for case, spent in seconds.items()}
    found: dict[str, Any] = {"images": [len(images) for images in sets.values()], "same bytes": same}
    for number, kind in enumerate(("wall", "CPU")):
        one, two = ([median[count, several][number] for count in (few, many)] for several in (False, True))
        steady = (two[1] - two[0]) / (one[1] - one[0])
        found[kind] = {
            "one process, s": [round(each, 2) for each in one],
            "two processes, s": [round(each, 2) for each in two],
            "steady": round(steady, 3),
            "start, s": round(two[1] - steady * one[1], 2),
        }
    return found


def writing(folder: Path, width: int, images: int) -> dict[str, Any]:
    """Rows/s of the process that writes, with two devices that compute nothing; their files are missing, so none is read."""
    (folder / f"wide{width}.py").write_text(_NETWORK.format(width=width))
    backbone = load_backbone(f"{folder / f'wide{width}.py'}:Net", device="cpu")
    paths = np.array([f"{number:08}.jpg" for number in range(images)], dtype=object)
    splits = np.full(images, "train", dtype=object)
    listed = ImageSet("made", FolderStore(folder / "none"), paths, np.full(images, -1), splits, ())
    code = crew._CODE.replace("featx.extraction.device_process import main", "scale_devices import device as main")
    crew._CODE, before = code, crew._CODE
    times: list[tuple[float, float, int]] = []

    class Noted(Reporter):
        def progress(self, done: int, total: int, detail: object = "") -> None:  # noqa: ARG002 - of Reporter
            times.append((time.perf_counter(), time.thread_time(), done))

    try:
        extract(listed, backbone, cache=folder / f"c{width}", devices=TWO, compute="eager", reporter=Noted())
    finally:
        crew._CODE = before
    first, last = np.array(next(found for found in times if found[2])), np.array(times[-1])
    wall, cpu, rows = (last - first).tolist()
    return {
        "width": width,
        "rows/s": round(rows / wall),
        "rows/s of a core": round(rows / cpu),
        "GB/s of a core": round(rows / cpu * width * 4 / 1e9, 3),
    }


def device(descriptor: int) -> None:
    """The process of a device that computes nothing."""
    connection = Connection(descriptor)
    inbox = _Inbox(connection)
    start = inbox.get()
    layer = next(iter(start.identities))
    width = int(Path(start.described["name"].partition(":")[0]).stem.removeprefix("wide"))
    features = np.random.default_rng(0).random((256, width), dtype=np.float32)
    connection.send(Ready())
    connection.send(Asks())
    if inbox.choice().decides:
        connection.send(Chosen("eager", None, ()))
    while True:
        message = inbox.get()
        if not isinstance(message, Images):
            continue
        rows, count = message.rows, len(message.rows)
        keys = np.zeros((count, 16), dtype=np.uint8)
        keys[:, :8] = (rows + 1).astype("<i8").view(np.uint8).reshape(-1, 8)
        images = [(row, key.tobytes(), -1, -1, -1, 0) for row, key in zip(rows.tolist(), keys, strict=True)]
        connection.send(Results(images, batches=[(rows, keys, {layer: features[:count]})]))


def measure(few: int, many: int, rounds: int, rows: int) -> dict[str, Any]:
    """Both parts."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "overhead": overhead(Path(folder), few, many, rounds),
            "writing": [writing(Path(folder), width, rows) for width in (256, 1024, 2048)],
            "rounds": rounds,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=2, help="copies of each photograph in the smaller set")
    parser.add_argument("--many", type=int, default=6, help="copies of each photograph in the larger set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=50_000, help="rows that are written")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.few, arguments.many, arguments.rounds, arguments.rows)))


if __name__ == "__main__":
    main()
