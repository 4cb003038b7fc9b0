"""The parts of ``gpu_check``: what each measures, and how long it may take. Each runs in a process of its own, see there."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_bytes

ROOT = Path(__file__).resolve().parents[1]

NETWORKS = ("resnet50", "vit_b_16", "convnext_base")

WIDTH, HEIGHT = 500, 375

_PICTURES = 32
"""Pictures that differ; files of one picture differ in a comment, and cost the same to decode."""

_TURNS = 3

_PROCESSES = 4
"""Processes on one GPU, each with a quarter of the threads that decode."""

_SECONDS = 5
"""Seconds that an extraction may take, as far as one knows before it."""


@dataclass(frozen=True)
class Setting:
    """What the parts measure on.

    Attributes:
        folder: for their files.
        device: of torch, or "auto".
        tiny: few images and small networks.
    """

    folder: str
    device: str = "auto"
    tiny: bool = False

    def as_json(self) -> str:
        """The same as text, for another process."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def images(self) -> Path:
        """The folder of the images."""
        return Path(self.folder, "images")

    @property
    def count(self) -> int:
        """How many images there are."""
        return 24 if self.tiny else 12_000

    @property
    def turn(self) -> float:
        """Seconds for which a rate is measured at once."""
        return 0.05 if self.tiny else 0.7

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.picked.startswith("cuda")

    @property
    def picked(self) -> str:
        """The device's name."""
        from featx.devices import pick_device

        return str(pick_device(self.device))

    def network(self, name: str, **options: Any) -> Any:
        """A backbone with random weights; a smaller one for a trial."""
        import featx

        return featx.load_backbone("lenet5" if self.tiny else name, weights="random", device=self.picked, **options)


class Findings:
    """What a part has found so far, which is stored after each figure, so that a part that is ended has found something."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.all: dict[str, Any] = {}
        self._file, self._setting = Path(setting.folder, f"{name}.json"), setting

    def put(self, **values: Any) -> None:
        """Store figures, and the most memory that the process has had."""
        self.all |= values
        self.all["rss_gb"] = round(peak_bytes() / 1e9, 2)
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(json.dumps(self.all))
        unfinished.replace(self._file)

    @contextlib.contextmanager
    def entry(self, table: str, name: str) -> Iterator[dict[str, Any]]:
        """One entry of a table, to be filled, with the most memory of the card that it took; what goes wrong is its error."""
        import torch

        found: dict[str, Any] = {}
        if self._setting.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            yield found
        except Exception as error:  # compilers, decoders and drivers raise errors of any type
            found["error"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        if self._setting.on_gpu:
            found["card_gb"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)
        self.put(**{table: {**self.all.get(table, {}), name: found}})


# Images


def make_images(folder: Path, count: int) -> None:
    """So many JPEGs in four classes, no two of the same bytes, of about the size of photographs (100 kB)."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = []
    for number in range(min(count, _PICTURES)):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        coarse = (coarse // 2 + np.array([40, 80, 120, 10][number % 4], dtype=np.uint8)).astype(np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        noisy = np.clip(image + rng.normal(0, 15, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=88)
        pictures.append(file.getvalue())
    for name in "abcd":
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        data = pictures[number % len(pictures)]
        comment = b"\xff\xfe\x00\x0a" + b"%08d" % number
        (folder / "abcd"[number % 4] / f"{number:06}.jpg").write_bytes(data[:2] + comment + data[2:])


# Parts


def machine(setting: Setting, found: Findings) -> None:
    """What the machine is; makes the images."""
    import torch

    from featx.extraction.autotune import processor_name
    from featx.system import cores

    found.put(processor=processor_name(), cores=cores(), device=setting.picked, devices=torch.cuda.device_count())
    if setting.on_gpu:
        facts = torch.cuda.get_device_properties(setting.picked)
        found.put(
            card=facts.name,
            card_gb=round(facts.total_memory / 1e9),
            capability=f"{facts.major}.{facts.minor}",
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            driver=driver(),
        )
    started = time.perf_counter()
    make_images(setting.images, setting.count)
    sizes = [path.stat().st_size for path in setting.images.rglob("*.jpg")]
    found.put(
        images=len(sizes), kb_per_image=round(np.mean(sizes) / 1e3, 1), making=round(time.perf_counter() - started, 1)
    )


def driver() -> str:
    """The version of the driver; "" if nothing tells."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split("\n")[0]
    return ""


def tests(setting: Setting, found: Findings) -> None:
    """The tests marked ``cuda``."""
    if not importlib.util.find_spec("pytest"):
        found.put(left_out="pytest is not installed")
        return
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text()]
    if setting.tiny:
        files = [path for path in files if path.name == "test_on_device.py"]
    report = Path(found._file).with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += [str(path.relative_to(ROOT)) for path in files]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest ended with status {run.returncode}: {run.stdout[-400:]}")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    wrong = {case.get("name", ""): each for case in cases for each in case if each.tag in ("failure", "error")}
    skipped = sum(each.tag == "skipped" for case in cases for each in case)
    found.put(
        files=len(files),
        passed=len(cases) - len(wrong) - skipped,
        failed=len(wrong),
        skipped=skipped,
        failures={name: (each.get("message") or "")[:300] for name, each in wrong.items()},
    )
    if run.returncode not in (0, 1):
        found.put(error=f"pytest ended with status {run.returncode}: {run.stdout[-400:]}")


def decoding(setting: Setting, found: Findings) -> None:
    """Images/s from files to pixels, without a network."""
    from featx.data.loader import read_images, views_reader
    from featx.data.nvjpeg import coded_reader, pixels_on
    from featx.system import cores

    paths = sorted(setting.images.rglob("*.jpg"))
    backbone = setting.network("resnet50")
    reader, views = views_reader(backbone.transform, backbone.views), backbone.views
    for name, workers, count in (("one_thread", 1, len(paths) // 15), ("all_threads", cores(), len(paths))):
        with found.entry(name, "") as entry:
            started, good = time.perf_counter(), 0
            for image in read_images(enumerate(paths[: max(8, count)]), reader, workers=workers):
                good += image.pixels is not None
            entry |= {"per_second": round(good / (time.perf_counter() - started), 1), "threads": workers}
        found.put(**{name: found.all[name][""]})
    if not setting.on_gpu:
        found.put(nvjpeg={"left_out": f"nvJPEG needs a CUDA GPU, and this is {setting.picked}"})
        return
    import torch

    from featx.data.file_bytes import read_file

    with found.entry("nvjpeg", "") as entry:
        device, coded = torch.device(setting.picked), coded_reader(backbone.transform, views)
        files = [coded(0, read_file(path)) for path in paths[:2048]]
        batches = [files[at : at + 64] for at in range(0, len(files), 64)]
        pixels_on(device, batches[0], backbone.transform, views)
        torch.cuda.synchronize()
        for threads in (1, 2):
            started = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda some: pixels_on(device, some, backbone.transform, views).sum().item(), batches))
            entry[f"per_second_{threads}"] = round(len(files) / (time.perf_counter() - started), 1)
        entry["per_second"] = max(entry["per_second_1"], entry["per_second_2"])
    found.put(nvjpeg=found.all["nvjpeg"][""])


def network(setting: Setting, found: Findings, name: str) -> None:
    """One network: alone, and in whole extractions. The most important figures come first, should the time be over."""
    batches: dict[str, int] = {}
    decoding_rates: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        decoding_rates = json.loads(Path(setting.folder, "decoding.json").read_text())

    def device(compute: str, precision: str) -> None:
        from featx.extraction.autotune import largest_useful_batch
        from featx.extraction.engines import images_per_second, open_engine

        with found.entry("device", f"{compute} {precision}") as entry:
            backbone = setting.network(name, precision=precision)
            side = backbone.transform.size
            sample = np.random.default_rng(0).integers(0, 256, (8, 3, *side), dtype=np.uint8)
            started = time.perf_counter()
            size = batches.get(precision) if compute != "eager" else None
            engine = open_engine(compute, backbone, lanes=2, batch=size, sample=sample)
            entry["opening"] = round(time.perf_counter() - started, 1)
            if compute == "eager" and setting.on_gpu:
                default = images_per_second(engine, sample, setting.turn)
                entry |= {"default_batch": engine.batch, "per_second_default": round(default, 1)}
                batches[precision] = largest_useful_batch(engine, sample)
            rates = [images_per_second(engine, sample, setting.turn) for _ in range(_TURNS)]
            entry |= {"batch": engine.batch, "per_second": round(statistics.median(rates), 1)}

    def whole(compute: str, precision: str, nvjpeg: bool = False) -> None:
        key = f"{compute} {precision}" + " nvjpeg" * nvjpeg
        with found.entry("extraction", key) as entry:
            backbone = setting.network(name, precision=precision, decoding="nvjpeg" if nvjpeg else "exact")
            cache = Path(setting.folder, "cache", f"{name} {key}")
            bounds = {
                "decoding": decoding_rates.get("nvjpeg" if nvjpeg else "all_threads", {}).get("per_second", 0),
                "device": found.all["device"].get(f"{compute} {precision}", {}).get("per_second", 0),
            }
            bounds = {stage: rate for stage, rate in bounds.items() if rate}
            count = int(min([setting.count, *(_SECONDS * rate for rate in bounds.values())]))
            entry |= extraction(setting, backbone, cache, compute, batches.get(precision), count)
            shutil.rmtree(cache)
            if len(bounds) == 2:
                limit = min(bounds, key=lambda stage: bounds[stage])
                entry |= {"limited_by": limit, "share_of_limit": round(entry["steady"] / bounds[limit], 2)}

    device("eager", "float32")
    whole("eager", "float32")
    device("eager", "bfloat16")
    if setting.tiny and not setting.on_gpu:
        found.put(left_out="compile, in a trial; nvJPEG, without a GPU")
        return
    device("compile", "bfloat16")
    whole("compile", "bfloat16")
    if setting.on_gpu:
        whole("compile", "bfloat16", nvjpeg=True)


def extraction(
    setting: Setting, backbone: Any, cache: Path, compute: str, batch: int | None, count: int
) -> dict[str, Any]:
    """One ``featx.extract`` of some images: images/s with and without its beginning, and the stage busiest in the end."""
    import featx
    from featx.data.scan import scan_images
    from featx.reporter import Reporter

    images = scan_images(setting.images)
    images = images.take(np.arange(len(images))[:: max(1, len(images) // max(8, count))])

    times: list[tuple[float, int]] = []
    limits: list[str] = []

    class Watch(Reporter):
        def progress(self, done: int, total: int, detail: object = "") -> None:  # noqa: ARG002
            times.append((time.perf_counter(), done))
            limits.append(str(detail).removeprefix("limit: "))

    result = featx.extract(images, backbone, cache=cache, compute=compute, batch_size=batch, reporter=Watch())
    if result.computed != len(images):
        raise RuntimeError(f"{result.computed} of {len(images)} images were computed: {result.remarks[:2]}")
    begun, first = next(each for each in times if each[1] >= len(images) // 4)
    ended, last = times[-1]
    stages = [limit for limit in limits if limit]
    return {
        "per_second": round(result.images_per_second, 1),
        "steady": round((last - first) / max(1e-9, ended - begun), 1),
        "busiest": stages[-1] if stages else "",
        "images": len(images),
        "batch": batch,
    }


def some_images(setting: Setting, folder: Path, count: int) -> None:
    """A folder with so many of the images."""
    for path in sorted(setting.images.rglob("*.jpg"))[:: max(1, setting.count // count)]:
        link = folder / path.relative_to(setting.images)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)


def devices(setting: Setting, found: Findings) -> None:
    """``featx extract --devices`` against one process, byte for byte: all GPUs, or four processes on the only one."""
    import torch

    command = [sys.executable, "-m", "featx", "extract"]
    count = torch.cuda.device_count()
    numbers = range(count) if count > 1 else [0] * _PROCESSES
    names = ",".join(f"cuda:{number}" for number in numbers) if setting.on_gpu else "cpu,cpu"
    one = "cuda:0" if setting.on_gpu else "cpu"
    images = Path(setting.folder, "images-of-devices")
    some_images(setting, images, 4000)
    common = [str(images), "--weights", "random", "--compute", "eager", "--json"]
    common += ["--backbone", "lenet5" if setting.tiny else "resnet50"]
    files: dict[str, bytes] = {}
    for name, more in (("plain", ["--device", one]), ("devices", ["--devices", names])):
        cache = Path(setting.folder, "cache", name)
        run = subprocess.run(
            [*command, *common, *more, "--cache", str(cache)], capture_output=True, text=True, check=False, cwd=ROOT
        )
        if run.returncode:
            raise RuntimeError(f"featx extract {' '.join(more)}: {run.stderr.strip()[-300:]}")
        result = json.loads(run.stdout.strip().splitlines()[-1])
        found.put(**{f"seconds_{name}": result["seconds"], "images": result["images"], "devices": names})
        files[name] = Path(result["file"]).read_bytes()
    found.put(
        speedup=round(found.all["seconds_plain"] / found.all["seconds_devices"], 2),
        same_bytes=files["plain"] == files["devices"],
    )


def finetuning(setting: Setting, found: Findings) -> None:
    """Two epochs of a whole network on a part of the images."""
    import torch

    import featx
    from featx.heads.head import Head
    from featx.promotion.config import FineTuning

    folder = Path(setting.folder, "tuning")
    some_images(setting, folder / "images", 2000)
    backbone = setting.network("resnet50")
    features = featx.extract(folder / "images", backbone, cache=folder / "cache", compute="eager").load()
    head = Head("logreg", C=1.0).fit(features)
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    found.put(backbone=backbone.name, images=len(features.labels))
    options = {
        "epochs": 1 if setting.tiny else 2,
        "repeats": 0,
        "interpolate": False,
        "batch_size": 8 if setting.tiny else 64,
    }
    started = time.perf_counter()
    result = featx.promote(
        head,
        finetune=True,
        settings=FineTuning(**options),
        features=features,
        device=setting.picked,
        out=folder / "model.safetensors",
    )
    epochs = [entry["seconds"] for entry in result.log[1:]]
    trained = int((features.splits == "train").sum())
    found.put(
        seconds_of_all=round(time.perf_counter() - started, 1),
        seconds_per_epoch=[round(seconds, 2) for seconds in epochs],
        images_per_second=round(trained / min(epochs), 1),
        trained_images=trained,
        settings=options,
        card_gb=round(torch.cuda.max_memory_reserved() / 1e9, 2) if setting.on_gpu else 0,
    )


def heads(setting: Setting, found: Findings) -> None:
    """The same heads on the device and on the processor."""
    from featx.heads.head import Head

    rows, dim, classes = (300, 16, 3) if setting.tiny else (20_000, 768, 20)
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, rows)
    X = (rng.normal(size=(rows, dim)) + 0.25 * rng.normal(size=(classes, dim))[y]).astype(np.float32)
    found.put(rows=rows, dim=dim, classes=classes)
    for kind, options in (("logreg", {"C": 0.1}), ("svm", {"C": 0.1}), ("mlp", {})):
        with found.entry("kinds", kind) as entry:
            values = {}
            for name, device in (("device", setting.picked), ("cpu", "cpu")):
                if name == "device":
                    Head(kind, **options, device=device).fit(
                        X[: 10 * classes], y[: 10 * classes]
                    )  # loads the libraries
                started = time.perf_counter()
                some = slice(0, rows // 5 if kind == "mlp" else rows)  # minutes, on the processor
                head = Head(kind, **options, device=device).fit(X[some], y[some])
                entry |= {f"{name}_seconds": round(time.perf_counter() - started, 3), "rows": len(y[some])}
                values[name] = head.predict_proba(X[:2000])
            entry["difference"] = float(np.abs(values["device"] - values["cpu"]).max())
            entry["same_class"] = float((values["device"].argmax(1) == values["cpu"].argmax(1)).mean())
            entry["speedup"] = round(entry["cpu_seconds"] / entry["device_seconds"], 2)


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        run: the function.
        seconds: the most that it may take.
    """

    run: Callable[[Setting, Findings], None]
    seconds: float


def _network(name: str) -> Callable[[Setting, Findings], None]:
    return lambda setting, found: network(setting, found, name)


PARTS = {
    "machine": Part(machine, 20),
    "decoding": Part(decoding, 30),
    "resnet50": Part(_network("resnet50"), 75),
    "tests": Part(tests, 40),
    "devices": Part(devices, 45),
    "finetuning": Part(finetuning, 40),
    "heads": Part(heads, 40),
    "vit_b_16": Part(_network("vit_b_16"), 80),
    "convnext_base": Part(_network("convnext_base"), 90),
}
"""The parts, in their order."""


def child(name: str, setting: str) -> None:
    """Run one part in this process."""
    given = Setting(**json.loads(setting))
    found = Findings(given, name)
    found.put()
    PARTS[name].run(given, found)
    found.put()
