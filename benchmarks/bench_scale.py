"""What scaling out costs: the overhead of shards, how fast they are merged, and what a billion images on 64 GPUs would take.

    python benchmarks/bench_scale.py                        # all of it, about twelve minutes
    python benchmarks/bench_scale.py --part merging --part model
    python benchmarks/bench_scale.py --realtime             # as root, where other programs use the machine too
    python benchmarks/bench_scale.py --tiny                 # a trial in some seconds, which measures nothing

Prints one JSON line; progress goes to stderr. The parts:

- overhead: one process with a thread on each of two cores, against two processes of one thread that make four shards, and
  the merge of these, in turns. Images are those of ``../shared/datasets/hymenoptera``, each often, with other last bytes.
  Imports, the loading of the network and a first extraction of two images are over when the clock starts ("start_seconds").
  Every shard opens and proves the engine again, so there are two sizes: "overhead_of_all" is of each, "overhead_steady" that of
  the images between the two.
- ray: one process with two threads against ``--ray local``, two processes of Ray Data with a core each, both with torch itself
  ("eager"), in turns, for two numbers of images. "images_per_second" is that of the images between the two, and
  "start_seconds" what the larger one takes beside that, with the start of the cluster and of its processes.
- listing: seconds for each image of ``scan_images`` and of the sizes and times of files, of a folder and of tar files.
- decoding: images/s of one core, from a file to a crop. writing: rows/s that a worker writes, in batches of 64.
- merging: ``merge_shards`` of synthetic shards with rows of 4 kB and less; "disk" is a file of the same size, written and
  synced.
- model: ``cost`` with these figures.

Medians of rounds. With ``--realtime`` each measurement runs before all other programs, for less than a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_cache import write_featx
from sources_remote import IMAGES, WEIGHTS, copy_images

SHARDS, PROCESSES = 4, 2

_PAUSE = 3.0
"""Seconds between measurements that leave nothing to other programs."""


# The model


@dataclass(frozen=True)
class Cluster:
    """Machines that extract a data set together.

    Attributes:
        machines: how many.
        gpus: of each machine.
        per_gpu: images/s of a network on one of them.
        cores: of each machine.
        storage: bytes/s that the store of the images delivers to all machines together.
        network: bytes/s of one machine's connection.
    """

    machines: int = 8
    gpus: int = 8
    per_gpu: float = 5000.0
    cores: int = 96
    storage: float = 40e9
    network: float = 12.5e9


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        listing: seconds for each image that a process lists.
        decoding: images/s of one core, from a file to a crop.
        writing: rows/s that one process writes into its shard.
        merging_image: seconds that merging takes for each image, whatever its row.
        merging_byte: seconds that merging takes for each byte of a row.
    """

    listing: float
    decoding: float
    writing: float
    merging_image: float
    merging_byte: float


def cost(
    images: float,
    rates: Rates,
    cluster: Cluster,
    *,
    image_bytes: float = 110e3,
    row_bytes: int = 4096,
    file_rows: float = 10e6,
    own_sets: bool = True,
) -> dict[str, Any]:
    """What extracting a data set takes on a cluster, by a worker process on each GPU.

    Reading, decoding, the network and the writing of shards overlap, so that the slowest of them counts. Listing comes before,
    merging after them: each machine merges some of the files.

    Args:
        images: of the whole data set.
        rates: what was measured.
        cluster: the machines.
        image_bytes: of an image file, on average.
        row_bytes: of an image's features.
        file_rows: the most rows of a feature file.
        own_sets: every worker gets parts of the data of its own, and lists these. Otherwise it gets a shard of everything, and
            lists everything.

    Returns:
        "images_per_second" of each stage on all machines together; "limit", the slowest of them; "hours" of each phase and of
        all; "gpu_hours"; "bytes" that are read and written; "files".
    """
    workers = cluster.machines * cluster.gpus
    stages = {
        "reading": min(cluster.storage, cluster.machines * cluster.network) / image_bytes,
        "decoding": cluster.machines * cluster.cores * rates.decoding,
        "network": workers * cluster.per_gpu,
        "writing": workers * rates.writing,
    }
    limit = min(stages, key=lambda name: stages[name])
    files = math.ceil(images / file_rows)
    per_image = rates.merging_image + rates.merging_byte * row_bytes
    mergers = min(files, cluster.machines)
    phases = {
        "listing": rates.listing * images / (workers if own_sets else 1),
        "extraction": images / stages[limit],
        "merging": per_image * min(images, file_rows) * math.ceil(files / mergers),
    }
    phases["all"] = sum(phases.values())
    stages["merging"] = mergers / per_image
    return {
        "images_per_second": {name: round(rate) for name, rate in stages.items()},
        "limit": limit,
        "slowest_phase": max(("listing", "extraction", "merging"), key=lambda name: phases[name]),
        "hours": {name: round(seconds / 3600, 3) for name, seconds in phases.items()},
        "gpu_hours": round(workers * phases["all"] / 3600, 1),
        "cores_for_the_network": math.ceil(stages["network"] / rates.decoding / cluster.machines),
        "bytes": {"read": images * image_bytes, "features": images * row_bytes, "written": 2 * images * row_bytes},
        "files": files,
        "shards": files * (1 if own_sets else workers),
    }


# What is measured


@dataclass(frozen=True)
class Setting:
    """How much is measured, and how.

    Attributes:
        folder: for files.
        tiny: a trial.
        realtime: before all other programs.
        rounds: of which medians are taken.
    """

    folder: Path
    tiny: bool = False
    realtime: bool = False
    rounds: int = 3

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Run before all other programs, if asked to, and leave the machine to them for a while after it."""
        if not self.realtime:
            yield
            return
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        try:
            yield
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            time.sleep(_PAUSE)

    def make_images(self, images: Path, size: int) -> None:
        """Make a folder of so many copies of the photographs, or of a few tiny images for each in a trial."""
        if self.tiny:
            tiny_images(images, 32 * size)
        else:
            copy_images(IMAGES, images, size)


def seconds_of(action: Callable[[], object]) -> float:
    """Wall time."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median(values: Sequence[float]) -> float:
    """Rounded to what is meant."""
    return float(f"{statistics.median(values):.4g}")


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def overhead(setting: Setting) -> dict[str, Any]:
    """Shards against a plain run, on the same two cores."""
    sizes = (2,) if setting.tiny else (3, 9)
    found: dict[str, list[dict[str, Any]]] = {}
    for size in sizes:
        setting.make_images(setting.folder / f"images-{size}", size)
    for turn in range(setting.rounds):
        for size in sizes:
            for way in ("plain", "shards"):
                with setting.undisturbed():
                    run = Run(setting, setting.folder / f"images-{size}", way).measured()
                say(f"round {turn}, {way}, {run}")
                found.setdefault(f"{way} {size}", []).append(run)
    few, many = sizes[0], sizes[-1]
    seconds = {name: median([run["seconds"] for run in runs]) for name, runs in found.items()}
    marginal = {
        way: [b["seconds"] - a["seconds"] for a, b in zip(found[f"{way} {few}"], found[f"{way} {many}"], strict=True)]
        for way in ("plain", "shards")
    }
    return {
        "backbone": "lenet5" if setting.tiny else "mobilenet_v1_075",
        "images": {str(size): found[f"plain {size}"][0]["images"] for size in sizes},
        "seconds": seconds,
        "images_per_second": {name: round(found[name][0]["images"] / took, 1) for name, took in seconds.items()},
        "merge_seconds": {str(size): median([run["merge"] for run in found[f"shards {size}"]]) for size in sizes},
        "start_seconds": {way: median([run["start"] for run in found[f"{way} {many}"]]) for way in ("plain", "shards")},
        "overhead_of_all": {
            str(size): median(
                [b["seconds"] / a["seconds"] - 1 for a, b in zip(found[f"plain {size}"], found[f"shards {size}"], strict=True)]
            )
            for size in sizes
        },
        "overhead_steady": round(median(marginal["shards"]) / median(marginal["plain"]) - 1, 4) if few < many else None,
    }  # fmt: skip


class Run:
    """One extraction of a folder, by one process or by shards."""

    def __init__(self, setting: Setting, images: Path, way: str) -> None:
        self.setting, self.images, self.way = setting, images, way
        self.cache = setting.folder / f"cache-{way}"

    def measured(self) -> dict[str, Any]:
        """Start the processes, wait until all are ready, and time the rest, the merge included."""
        from featx.features.shards import merge_shards, shard_folders

        shutil.rmtree(self.cache, ignore_errors=True)
        parts: list[list[str]] = [[]]
        if self.way == "shards":
            parts = [
                [f"{k}/{SHARDS}" for k in range(first, SHARDS + 1, PROCESSES)] for first in range(1, PROCESSES + 1)
            ]
        workers = PROCESSES // len(parts)
        began = time.perf_counter()
        children = [self._child(each, workers) for each in parts]
        for child in children:
            assert child.stdout
            child.stdout.readline()
        started = time.perf_counter()
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        said = [child.communicate()[0] for child in children]
        if any(child.returncode for child in children):
            raise RuntimeError(f"a process failed: {said}")
        merge = 0.0
        if self.way == "shards":
            merge = seconds_of(lambda: [merge_shards(folder) for folder in shard_folders(self.cache)])
        ended = time.perf_counter()
        images = sum(json.loads(text)["computed"] for text in said)
        return {"seconds": ended - started, "merge": merge, "start": started - began, "images": images}

    def _child(self, shards: Sequence[str], workers: int) -> subprocess.Popen[str]:
        task = {
            "images": str(self.images),
            "cache": str(self.cache),
            "shards": list(shards),
            "workers": workers,
            "tiny": self.setting.tiny,
        }
        command = [sys.executable, __file__, "--child", json.dumps(task)]
        own = {**os.environ, "OMP_NUM_THREADS": str(workers)}  # as many cores as a scheduler would give it
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)


def child(images: str, cache: str, shards: Sequence[str], workers: int, tiny: bool) -> None:
    """A worker: load the network, say so, wait for the word, extract."""
    import featx

    name = "lenet5" if tiny else "mobilenet_v1_075"
    backbone = featx.load_backbone(name, weights=str(WEIGHTS.get(name, "default")), device="cpu")
    compute = "eager" if tiny else "onnxruntime"
    with tempfile.TemporaryDirectory() as folder:
        few = [path for path in sorted(Path(images).rglob("*")) if path.is_file()][:2]
        for path in few:
            shutil.copy(path, folder)
        featx.extract(folder, backbone, cache=Path(folder, "cache"), compute=compute, workers=workers)
    print("ready", flush=True)
    sys.stdin.readline()
    computed = 0
    for shard in shards or [None]:
        result = featx.extract(images, backbone, cache=cache, compute=compute, workers=workers, shard=shard)
        computed += result.computed
    print(json.dumps({"computed": computed}))


def ray(setting: Setting) -> dict[str, Any]:
    """Ray Data on this machine against a plain run, on the same two cores."""
    if not importlib.util.find_spec("ray"):
        return {"skipped": "needs Ray: pip install 'featx[ray]'"}
    few, many = sizes = (1, 2) if setting.tiny else (1, 4)
    seconds, counts = dict[tuple[str, int], list[float]](), dict[int, int]()
    for size in sizes:
        setting.make_images(setting.folder / f"images-ray-{size}", size)
    for turn in range(setting.rounds):
        for way, size in ((way, size) for way in ("plain", "ray") for size in sizes):
            task = {"images": str(setting.folder / f"images-ray-{size}"), "tiny": setting.tiny, "ray": way == "ray"}
            command = [sys.executable, __file__, "--child", json.dumps(task)]
            with setting.undisturbed():
                said = subprocess.run(command, capture_output=True, text=True, check=False)
            if said.returncode:
                raise RuntimeError(f"a process failed: {said.stderr}")
            took, counts[size] = json.loads(said.stdout.splitlines()[-1])
            seconds.setdefault((way, size), []).append(took)
            say(f"round {turn}, {way}, {counts[size]} images: {took:.1f} s")
    between = {way: np.subtract(seconds[way, many], seconds[way, few]) for way in ("plain", "ray")}
    rates = {way: (counts[many] - counts[few]) / float(np.median(took)) for way, took in between.items()}
    return {
        "backbone": "lenet5" if setting.tiny else "mobilenet_v1_075",
        "images": list(counts.values()),
        "seconds": {way: [median(seconds[way, size]) for size in sizes] for way in between},
        "images_per_second": {way: float(f"{rate:.4g}") for way, rate in rates.items()},
        "start_seconds": {
            way: round(statistics.median(seconds[way, many]) - counts[many] / float(rate), 2)
            for way, rate in rates.items()
        },
        "overhead_steady": round(rates["plain"] / rates["ray"] - 1, 3),
        "overhead_of_rounds": (between["ray"] / between["plain"] - 1).round(3).tolist(),
    }


def ray_child(images: str, ray: bool, tiny: bool) -> None:
    """Seconds of one extraction, with Ray or without, and its images. The network is loaded when they begin."""
    import featx

    name = "lenet5" if tiny else "mobilenet_v1_075"
    backbone = featx.load_backbone(name, weights=str(WEIGHTS.get(name, "default")), device="cpu")
    way: dict[str, Any] = {"ray": "local", "ray_actors": PROCESSES, "ray_gpus": 0} if ray else {"workers": PROCESSES}
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        result = featx.extract(images, backbone, cache=cache, compute="eager", **way)
        print(json.dumps([time.perf_counter() - began, result.computed]))


def tiny_images(folder: Path, count: int) -> None:
    """Images of some pixels, 16 to a class."""
    for number in range(count):
        path = folder / f"class_{number // 16}" / f"{number:06}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 2 2 255\n" + number.to_bytes(4, "little") * 3)


def listing(setting: Setting) -> dict[str, Any]:
    """Seconds for each image of a folder, and of tar files."""
    from featx.data.scan import scan_images

    count = 200 if setting.tiny else 50_000
    folder, tars = setting.folder / "many", setting.folder / "tars"
    tiny_images(folder, count)
    tars.mkdir()
    for number in range(5):
        with tarfile.open(tars / f"{number}.tar", "w") as tar:
            for path in sorted(folder.rglob("*.ppm"))[number::5]:
                tar.add(path, str(path.relative_to(folder)))
    found = {}
    for name, data in (("folder", str(folder)), ("tar", f"{tars}/{{0..4}}.tar")):
        took = []
        for _ in range(setting.rounds):
            with setting.undisturbed():
                took.append(seconds_of(lambda data=data: scan_images(data).facts()))
        found[name] = median([seconds / count for seconds in took])
    shutil.rmtree(folder)
    shutil.rmtree(tars)
    return {"images": count, "seconds_per_image": found}


def decoding(setting: Setting) -> dict[str, Any]:
    """Images/s of one core, while the others do the same."""
    import featx
    from featx.data.file_bytes import image_key, read_file
    from featx.data.loader import views_reader

    backbone = featx.load_backbone("resnet50", weights="random", device="cpu")
    read = views_reader(backbone.transform, backbone.views)
    images = setting.folder / "images-1" if setting.tiny else IMAGES
    if not images.exists():
        tiny_images(images, 32)
    paths = [path for path in sorted(images.rglob("*")) if path.is_file()]
    cores, took = os.cpu_count() or 1, []

    def work(_: int) -> None:
        import torch

        torch.set_num_threads(1)
        for path in paths:
            file = read_file(path)
            image_key(file.data)
            read(0, file)

    for _ in range(setting.rounds):
        with setting.undisturbed(), ThreadPoolExecutor(cores) as pool:
            took.append(seconds_of(lambda: list(pool.map(work, range(cores)))))
    size = statistics.mean(path.stat().st_size for path in paths)
    return {
        "images": len(paths),
        "bytes_per_image": round(size),
        "per_second_and_core": median([len(paths) / s for s in took]),
    }


def writing(setting: Setting) -> dict[str, Any]:
    """Rows/s of 4 kB that a process writes in batches of 64, with their checksums, and completes."""
    rows, dim = (500, 2048) if setting.tiny else (100_000, 2048)
    blocks = [
        np.random.default_rng(n).standard_normal((64, dim), dtype=np.float32).astype(np.float16) for n in range(8)
    ]
    took = []
    for _ in range(setting.rounds):
        with setting.undisturbed():
            took.append(seconds_of(lambda: write_featx(setting.folder / "written.h5", blocks, rows, dim)))
        (setting.folder / "written.h5").unlink()
    return {"rows": rows, "bytes_per_row": 2 * dim, "per_second": median([rows / seconds for seconds in took])}


def merging(setting: Setting) -> dict[str, Any]:
    """Shards/s, images/s and GB/s of ``merge_shards``, by the number of images and shards and the width of rows."""
    cases = [(50_000, 16, 1024), (200_000, 16, 1024), (200_000, 256, 1024), (400_000, 64, 16), (1_000_000, 64, 16)]
    if setting.tiny:
        cases = [(400, 2, 8), (400, 4, 8)]
    found = []
    for images, of, dim in cases:
        cache = setting.folder / "merged"
        folder = synthetic_shards(cache, images, of, dim)
        took, disk = [], []
        for _ in range(setting.rounds):
            for path in cache.glob("*.h5"):
                path.unlink()
            os.sync()
            with setting.undisturbed():
                took.append(merged_in(folder))
                disk.append(written_in(cache / "plain.bin", images * dim * 4))
        shutil.rmtree(cache)
        seconds = statistics.median(took)
        found.append(
            {
                "images": images,
                "shards": of,
                "bytes_per_row": 4 * dim,
                "seconds": median(took),
                "images_per_second": round(images / seconds),
                "shards_per_second": round(of / seconds, 1),
                "GB_per_second": round(images * dim * 4 / seconds / 1e9, 3),
                "disk_GB_per_second": round(images * dim * 4 / statistics.median(disk) / 1e9, 3),
            }
        )
        say(f"merging: {found[-1]}")
    return {"cases": found}


def merged_in(folder: Path) -> float:
    """Seconds of one merge, which must be whole."""
    from featx.features.shards import merge_shards

    started = time.perf_counter()
    merged = merge_shards(folder, keep=True)
    took = time.perf_counter() - started
    assert merged.merged == merged.images, merged
    return took


def written_in(path: Path, size: int) -> float:
    """Seconds to write and sync a file of so many bytes."""
    block = os.urandom(1 << 24)
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, len(block)):
            file.write(block[: size - at])
        os.fsync(file.fileno())
    took = time.perf_counter() - started
    path.unlink()
    return took


def synthetic_shards(cache: Path, images: int, of: int, dim: int) -> Path:
    """Complete shards of a data set, with features of noise in float32."""
    from featx.data.shard import Shard
    from featx.features.feature_file import ImageTable
    from featx.features.writer import FeatureFileWriter

    folder = cache / "bench--network--00000000.shards"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1024, dim), dtype=np.float32)
    for number in range(1, of + 1):
        rows = Shard(number, of).rows(images)
        shard = {"number": number, "of": of, "images": images, "listing": "0" * 32}
        writer = FeatureFileWriter(
            folder / f"{number}-of-{of}.h5",
            images=ImageTable(
                paths=np.array([f"{row // 1000:06}/{row:09}.jpg".encode() for row in rows.tolist()]),
                labels=rows // 1000 % 10,
                splits=np.full(len(rows), b"train"),
                sizes=np.full(len(rows), 110_000),
                mtimes=np.full(len(rows), 10**18),
            ),
            classes=[f"class {label}" for label in range(10)],
            layers={"penultimate": (dim, "0" * 64)},
            dtype="float32",
            identity="0" * 64,
            backbone={"name": "network", "weights": "none", "parts": {}},
            dataset={"name": "bench", "root": "/bench", "splits": "hash", "shard": shard},
        )
        writer.publish()
        for at in range(0, len(rows), len(noise)):
            some = np.arange(at, min(at + len(noise), len(rows)))
            writer.write(
                some, rng.integers(1, 256, (len(some), 16), dtype=np.uint8), {"penultimate": noise[: len(some)]}
            )
        writer.finish()
    return folder


def rates_of(found: Mapping[str, Any]) -> Rates:
    """The figures of the other parts as the model takes them; a line through the merges tells images from bytes."""
    cases = found["merging"]["cases"]
    design = np.array([[case["images"], case["images"] * case["bytes_per_row"]] for case in cases], dtype=float)
    took = np.array([case["seconds"] for case in cases])
    (per_image, per_byte), *_ = np.linalg.lstsq(design / took[:, None], np.ones(len(took)), rcond=None)
    return Rates(
        listing=min(found["listing"]["seconds_per_image"].values()),
        decoding=found["decoding"]["per_second_and_core"],
        writing=found["writing"]["per_second"],
        merging_image=max(0.0, float(per_image)),
        merging_byte=max(0.0, float(per_byte)),
    )


def model(found: Mapping[str, Any]) -> dict[str, Any]:
    """A billion images on 64 GPUs."""
    rates, cluster = rates_of(found), Cluster()
    return {
        "rates": asdict(rates),
        "cluster": asdict(cluster),
        "images": 1_000_000_000,
        "own_sets": cost(1e9, rates, cluster),
        "one_set": cost(1e9, rates, cluster, own_sets=False),
    }


MEASURED: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "overhead": overhead,
    "ray": ray,
    "listing": listing,
    "decoding": decoding,
    "writing": writing,
    "merging": merging,
}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*MEASURED, "model"], help="by default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--realtime", action="store_true", help="run before all other programs; needs root")
    parser.add_argument("--tiny", action="store_true", help="a trial")
    parser.add_argument("--folder", type=Path, help="where to make the files; a temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        task = json.loads(options.child)
        (ray_child if "ray" in task else child)(**task)
        return
    parts = options.part or [*MEASURED, "model"]
    if "model" in parts:
        parts = [*parts, *(name for name in ("listing", "decoding", "writing", "merging") if name not in parts)]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench_scale-", dir=options.folder) as folder:
        setting = Setting(Path(folder), options.tiny, options.realtime, 1 if options.tiny else options.rounds)
        for name in MEASURED:
            if name in parts:
                found[name] = MEASURED[name](setting)
                say(f"{name}: {found[name]}")
    if "model" in parts:
        found["model"] = model(found)
    found["versions"] = {name: version(name) for name in ("numpy", "torch", "onnxruntime")}
    print(json.dumps({**found, "cores": os.cpu_count(), "machine": platform.machine(), "tiny": options.tiny}))


if __name__ == "__main__":
    main()
