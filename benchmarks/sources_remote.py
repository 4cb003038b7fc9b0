r"""How fast images behind a web server with latency are extracted, against the same images in a local folder.

    python benchmarks/sources_remote.py
    python benchmarks/sources_remote.py --copies 12
    python benchmarks/sources_remote.py --backbone lenet5 --images FOLDER --latency 0.05 --rounds 3

Prints one JSON line; progress goes to stderr. A server in a process of its own, which keeps the files in memory, waits for the
latency before each answer. In each round both take turns, with an empty cache, and the listing and the facts of the images
count. "seconds" are medians; "share" is the median of local / remote seconds over the rounds. "cpu_seconds" are those of this
process, which show how much work the requests cost where other programs use the machine too. The engine is fixed, so that
nothing is measured by the way. ``--copies`` makes the data set larger by copies of each image that differ in the last byte.

The server needs a part of a core, which a bucket would not, and the images come with an ETag, as from a bucket.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

SHARED = Path(__file__).resolve().parents[2] / "shared"
IMAGES = SHARED / "datasets" / "hymenoptera"
WEIGHTS = {
    "mobilenet_v1_075": SHARED / "weights" / "mobilenet_v1_075.safetensors",
    "timm/tf_efficientnet_lite0": SHARED / "weights" / "efficientnet_lite0.safetensors",
}


class _Answering(asyncio.Protocol):
    """One connection; requests that come before the last is answered are answered in turn."""

    def __init__(self, answers: dict[bytes, tuple[bytes, bytes]], latency: float) -> None:
        self._answers, self._latency = answers, latency
        self._unread = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        for request in requests:
            method, path, _ = request.split(b"\r\n", 1)[0].split(b" ")
            head, body = self._answers.get(path, (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b""))
            answer = head if method == b"HEAD" else head + body
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)


def serve(folder: str, latency: float, port: Any) -> None:
    """Serve a folder from memory, with pages that list its folders, after a pause before each answer."""
    answers = {quote(path).encode(): answer for path, answer in _answers(Path(folder)).items()}

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Answering(answers, latency), "127.0.0.1", 0, backlog=512)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def _answers(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    """The answer to each request, as its head and its body."""
    bodies: dict[str, bytes] = {}
    for here, folders, files in os.walk(folder):
        url = "/" + Path(here).relative_to(folder).as_posix().removeprefix(".")
        url = url if url == "/" else url + "/"
        links = [f"{name}/" for name in folders] + files
        bodies[url] = "".join(f'<a href="{quote(link)}">{link}</a>\n' for link in links).encode()
        bodies |= {url + name: Path(here, name).read_bytes() for name in files}
    return {
        url: (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: "
            f'{"text/html" if url.endswith("/") else "image/jpeg"}\r\nETag: "{hashlib.md5(body).hexdigest()}"\r\n\r\n'.encode(),
            body,
        )
        for url, body in bodies.items()
    }


def copy_images(images: Path, folder: Path, copies: int) -> None:
    """Fill a folder with copies of images whose bytes differ, though the pictures do not."""
    for path in images.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(images)
            target.parent.mkdir(parents=True, exist_ok=True)
            for number in range(copies):
                target.with_stem(f"{target.stem}-{number}").write_bytes(path.read_bytes() + bytes([number]))


def measure(
    images: Path = IMAGES,
    backbone: str = "mobilenet_v1_075",
    latency: float = 0.05,
    rounds: int = 3,
    compute: str = "onnxruntime",
    copies: int = 1,
) -> dict[str, Any]:
    """Extract the images from the folder and from the server in turns.

    Returns:
        The seconds and the images per second of both, and the share of the local speed that is reached.
    """
    import featx

    if copies > 1:
        with tempfile.TemporaryDirectory() as folder:
            copy_images(images, Path(folder), copies)
            return measure(Path(folder), backbone, latency, rounds, compute)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    server = context.Process(target=serve, args=(str(images), latency, theirs), daemon=True)
    server.start()
    try:
        places = {"local": str(images), "remote": f"http://127.0.0.1:{ours.recv()}"}
        network = featx.load_backbone(backbone, weights=str(WEIGHTS.get(backbone, "default")))
        taken: dict[str, list[tuple[float, float]]] = {place: [] for place in places}
        count = 0
        for turn in range(rounds + 1):  # the first warms caches and engines up, and does not count
            for place, data in places.items():
                with tempfile.TemporaryDirectory() as cache:
                    began, cpu = time.perf_counter(), time.process_time()
                    result = featx.extract(data, network, cache=cache, compute=compute)
                    seconds = (time.perf_counter() - began, time.process_time() - cpu)
                if result.computed + result.reused != result.images:
                    raise RuntimeError(f"{result.failed} images failed: {result.failures[:1]}")
                count = result.images
                print(f"round {turn}, {place}: {seconds[0]:.2f} s, {seconds[1]:.2f} s of a core", file=sys.stderr)
                if turn:
                    taken[place].append(seconds)
    finally:
        server.terminate()
    wall = {place: statistics.median(each[0] for each in all_of) for place, all_of in taken.items()}
    return {
        "images": count,
        "backbone": backbone,
        "latency": latency,
        "seconds": {place: round(seconds, 3) for place, seconds in wall.items()},
        "cpu_seconds": {
            place: round(statistics.median(each[1] for each in all_of), 3) for place, all_of in taken.items()
        },
        "images_per_second": {place: round(count / seconds, 1) for place, seconds in wall.items()},
        "share": round(statistics.median(a[0] / b[0] for a, b in zip(*taken.values(), strict=True)), 3),
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compute", default="onnxruntime")
    parser.add_argument("--copies", type=int, default=1)
    given = parser.parse_args()
    found = [
        measure(given.images, backbone, given.latency, given.rounds, given.compute, given.copies)
        for backbone in given.backbone or (*WEIGHTS, "lenet5")
    ]
    versions = {name: version(name) for name in ("torch", "onnxruntime")}
    print(json.dumps({"results": found, "cores": os.cpu_count(), "machine": platform.machine(), **versions}))


if __name__ == "__main__":
    main()
