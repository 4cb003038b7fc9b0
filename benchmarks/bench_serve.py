r"""Requests per second of ``featx serve``, against extraction of the same images, and against one request at a time.

    python benchmarks/bench_serve.py                                    # the ants and bees of ../shared, about 4 minutes
    python benchmarks/bench_serve.py --rounds 1 --seconds 2             # a trial
    python benchmarks/bench_serve.py --images FOLDER --backbone resnet18 --clients 1 16

Prints one JSON line; progress goes to stderr. All contenders take turns in each round, each in processes of its own, on the
same cores; figures are medians over the rounds.

- extraction: ``featx.extract`` of copies of the images, in images/s from the first progress to the last, so that loading the
  network does not count.
- serve: ``featx serve``, one image per request, from a client in a process of its own (``serve_client.py``), which takes its
  share of the same cores ("client_ms" per request).
- form: the same with the image in a form (multipart/form-data).
- one_thread: ``featx serve --workers 1``: one image after the other on one core.
- simple: what is written first: FastAPI with a function that calls ``featx.predict`` for each request, one at a time.

"ratio" is serve's images/s at 16 clients by those of extraction, the median over the rounds ("ratios"). "cpu_ms" are
milliseconds of processor time for each image, of all threads of the service or the extraction, and "cpu_ratio" is that of
extraction by that of serve and its client: other load on the machine changes it little. "largest_difference" is that between a
probability of serve and the one of ``featx.predict``, which takes no features from files, over all images; "other_labels"
counts those with another label.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared"
CLIENT = Path(__file__).with_name("serve_client.py")
LIKE_EXTRACTION = 16
"""Clients at which serve is compared with extraction."""

SIMPLE = """
import sys, threading
import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
import featx

model, app, one = featx.load_model(sys.argv[1]), FastAPI(), threading.Lock()

def predicted(data):
    with one:
        return featx.predict(model, data, cache=None)[0].as_dict()

@app.post("/predict")
async def predict(request: Request):
    return await run_in_threadpool(predicted, await request.body())

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
"""The service that is written first."""

PREDICT = """
import json, sys
from pathlib import Path
import featx

files = sorted(Path(sys.argv[2]).rglob("*.jpg"))
print(json.dumps([each.as_dict() for each in featx.predict(sys.argv[1], files, cache=None)]))
"""

EXTRACT = """
import json, sys, time
import featx

class Times(featx.Reporter):
    seen = []
    def progress(self, done, total, detail=""):
        self.seen.append((time.perf_counter(), time.process_time(), done))

backbone = featx.load_backbone(sys.argv[2], weights=sys.argv[3])
featx.extract(sys.argv[1], backbone, cache=sys.argv[4], reporter=Times())
seen = [each for each in Times.seen if each[2]]
(first, before, begun), (last, after, done) = seen[0], seen[-1]
print(json.dumps({"per_second": (done - begun) / (last - first), "cpu_ms": 1000 * (after - before) / (done - begun)}))
"""


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def copies(images: Path, folder: Path, count: int) -> None:
    """So many files of the classes of a folder; a comment, behind a JPEG's first marker, makes every one another."""
    files = sorted(images.rglob("*.jpg"))
    for number in range(count):
        file = files[number % len(files)]
        data, comment = file.read_bytes(), b"\xff\xfe\x00\x0a" + b"%08d" % number
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / f"{number:06}.jpg").write_bytes(data[:2] + comment + data[2:])


def python(*arguments: str) -> str:
    """What a Python process prints."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def featx(*arguments: str) -> str:
    """What a command of featx prints."""
    return python("-m", "featx", *arguments)


def extraction(images: Path, backbone: str, weights: str) -> dict[str, float]:
    """Images/s of an extraction into an empty folder, and milliseconds of processor time for each."""
    with tempfile.TemporaryDirectory() as cache:
        found = json.loads(python("-c", EXTRACT, str(images), backbone, weights, cache))
    return {name: round(value, 3) for name, value in found.items()}


@contextmanager
def service(model: Path, *options: str) -> Iterator[int]:
    """The port of a running ``featx serve``."""
    command = [sys.executable, "-m", "featx", "serve", str(model), "--port", "0", "--json", "-q", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        finally:
            process.terminate()


@contextmanager
def simple(model: Path) -> Iterator[int]:
    """The port of the service that is written first."""
    port = 18_765
    with subprocess.Popen([sys.executable, "-c", SIMPLE, str(model), str(port)]) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def loaded(port: int, clients: int, seconds: float, images: Path, *kind: str) -> dict[str, float]:
    """What the client measures, after a short load that does not count."""
    found: dict[str, float] = {}
    for duration in (min(1.0, seconds), seconds):
        before = processor_seconds(port)
        found = json.loads(python(str(CLIENT), str(port), str(clients), str(duration), str(images), *kind))
        if before is not None:
            used = (processor_seconds(port) or 0.0) - before
            found["cpu_ms"] = round(1000 * used / found["requests"], 3)
    return found


def processor_seconds(port: int) -> float | None:
    """The processor time that a service has used, by its own metrics; None where it has none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
    except urllib.error.HTTPError:
        return None
    return next(float(line.split()[1]) for line in lines if line.startswith("process_cpu_seconds_total"))


def differences(model: Path, images: Path) -> dict[str, Any]:
    """The predictions of a service and of ``featx predict``, compared."""
    files = sorted(images.rglob("*.jpg"))
    table = json.loads(python("-c", PREDICT, str(model), str(images)))
    largest, others = 0.0, 0
    with service(model) as port:
        for file, expected in zip(files, table, strict=True):
            call = urllib.request.Request(
                f"http://127.0.0.1:{port}/predict", file.read_bytes(), {"Content-Type": "image/jpeg"}
            )
            with urllib.request.urlopen(call) as answer:
                (found,) = json.load(answer)["predictions"]
            largest = max(largest, abs(found["probability"] - expected["probability"]))
            others += found["label"] != expected["label"]
    return {"images": len(files), "largest_difference": largest, "other_labels": others}


def one_round(model: Path, images: Path, copied: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All contenders, once."""
    found: dict[str, Any] = {"extraction": extraction(copied, asked.backbone, asked.weights)}
    say(f"extraction: {found['extraction']}")
    for name, start, kind in (
        ("serve", lambda: service(model), ()),
        ("form", lambda: service(model), ("form",)),
        ("one_thread", lambda: service(model, "--workers", "1"), ()),
        ("simple", lambda: simple(model), ()),
    ):
        with start() as port:
            for clients in asked.clients if name in ("serve", "simple") else [LIKE_EXTRACTION]:
                found[f"{name}_{clients}"] = loaded(port, clients, asked.seconds, images, *kind)
                say(f"{name}, {clients} clients: {found[f'{name}_{clients}']}")
    return found


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Extract, fit a head, and run the rounds."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        featx(
            "extract", str(asked.images), "--backbone", asked.backbone, "--weights", asked.weights,
            "--cache", str(folder / "cache"), "-q",
        )  # fmt: skip
        featx("fit-head", str(next((folder / "cache").glob("*.h5"))), "--models", str(folder), "-q")
        model = next(folder.glob("*.safetensors"))
        copies(asked.images, folder / "copies", asked.copies)
        say(f"comparing the predictions of {model.name}")
        agreement = differences(model, asked.images)
        rounds = [one_round(model, asked.images, folder / "copies", asked) for _ in range(asked.rounds)]
        shutil.rmtree(folder / "copies")
    key = f"serve_{LIKE_EXTRACTION}"
    ratios = [each[key]["per_second"] / each["extraction"]["per_second"] for each in rounds]
    costs = [each["extraction"]["cpu_ms"] / (each[key]["cpu_ms"] + each[key]["client_ms"]) for each in rounds]
    return {
        "backbone": asked.backbone,
        "cores": len(os.sched_getaffinity(0)),
        **{name: medians([each[name] for each in rounds]) for name in rounds[0]},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "cpu_ratio": round(statistics.median(costs), 3),
        **agreement,
    }


def medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=SHARED / "datasets" / "hymenoptera")
    parser.add_argument("--backbone", default="mobilenet_v1_075")
    parser.add_argument("--weights", default=str(SHARED / "weights" / "mobilenet_v1_075.safetensors"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=1200)
    asked = parser.parse_args()
    if LIKE_EXTRACTION not in asked.clients:
        asked.clients.append(LIKE_EXTRACTION)
    found = measure(asked)
    names = ("featx", "torch", "fastapi", "starlette", "uvicorn", "httptools", "h11", "onnxruntime", "pillow")
    print(
        json.dumps({**found, "python": platform.python_version(), "versions": {name: version(name) for name in names}})
    )


if __name__ == "__main__":
    main()
