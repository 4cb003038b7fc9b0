r"""How fast features are extracted from JPEG files, against three other ways and against what the machine can do.

    python benchmarks/bench_extract.py                                    # four backbones, the images of ../shared/datasets
    python benchmarks/bench_extract.py --backbone regnet_y_400mf --images FOLDER --rounds 5
    python benchmarks/bench_extract.py --device cuda                      # ResNet-50, ViT-B/16, ConvNeXt-B
    python benchmarks/bench_extract.py --rounds 1 --seconds 2 --longer-seconds 0 --limit-seconds 0.5  # a trial

Prints one JSON line; progress goes to stderr. Every figure is a median over rounds in which all contenders take turns on the
same files, each in a process of its own, timed from the listing of the folder and the building of the network to features on
disk. Imports are timed apart.

- everyday: torchvision's ImageFolder in a DataLoader, an eager network, np.save: what tutorials show.
- timm: its own loader, preset and network, random weights; a network that timm lacks runs in timm's loader ("networks").
- thingsvision: its own data set, loader and extraction. It demands other versions of everything, so it lives apart, where it
  sees the torch that is measured, and is left out (see "skipped") unless ``--thingsvision-python`` says where:

      python -m venv peers
      peers/bin/pip install 'tensorflow-cpu<2.16' 'numpy<2' 'setuptools<81' 'typeguard<3'
      peers/bin/pip install 'numpy<2' numba pandas scikit-image scikit-learn ftfy regex
      peers/bin/pip install --no-deps thingsvision==2.7.3 torchtyping 'open-clip-torch==3.*'
      printf '%s\n' "$PWD/.venv/lib/python3.11/site-packages" "$PWD" > peers/lib/python3.11/site-packages/featx.pth
      python benchmarks/bench_extract.py --thingsvision-python peers/bin/python

- featx: ``featx.extract``, into an empty cache, when it knows the machine: the first run of a backbone that is long enough
  measures the engines, and later ones remember.

Apart from these, featx runs on more files, in each round: "longer" is what it reaches where its start weighs as little as it
does in practice. The first such run is also the one that measures the engines.

The limit: on a CPU, one over the seconds that all its cores together need to read, decode and resize one image and to run one
forward pass, each stage measured alone, on all cores, with the fastest of the variants that are tried ("limits"); on a GPU
the slower of the two stages. Files differ by a counter in a JPEG comment, so that no two have the same bytes, and none costs
less.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from common import RSS_UNIT, peak_bytes
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared"
BACKBONES = {
    "cpu": ("mobilenet_v1_075", "resnet18", "resnet50", "efficientnet_b0"),
    "cuda": ("resnet50", "vit_b_16", "convnext_base"),
}
WEIGHTS = {"mobilenet_v1_075": SHARED / "weights" / "mobilenet_v1_075.safetensors"}
TIMM_NAMES = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
}
"""Architectures that timm calls otherwise than torchvision."""

PEERS = ("everyday", "timm", "thingsvision")
CONTENDERS = (*PEERS, "featx")
CLOSE = 2.0
"""A way to decode and resize counts if its pixels differ from featx's by at most so many levels of 255 on average."""

MOST_IMAGES = 100_000
"""Files of featx's first run, at most."""

COMPARED = 64
"""Rows of featx that are compared with an eager pass over the same pixels."""

PACKAGES = (
    "featx", "torch", "torchvision", "timm", "numpy", "pillow", "onnxruntime", "openvino", "simplejpeg",
    "opencv-python-headless",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What a child is to do.

    Attributes:
        out: an empty folder of its own.
        images: the folder of the contenders' files.
        sample: files for the stages alone.
        backbone: its name.
        weights: as ``featx.load_backbone`` takes them.
        device: "cpu" or "cuda".
        cores: that may be used.
        batch: images per pass of the contenders that want to be told.
        compute: featx's engine.
        precision: of featx's network; the others compute in torch's float32.
        classifier: name of the network's last layer, once it is known.
        engine: that featx has chosen, once it has.
        variants: of the stage that are to be measured; all where it is empty.
        seconds: to measure each variant.
    """

    out: str
    images: str
    sample: tuple[str, ...]
    backbone: str
    weights: str
    device: str
    cores: int
    batch: int
    compute: str
    precision: str
    classifier: str = ""
    engine: str = ""
    variants: tuple[str, ...] = ()
    seconds: float = 2.0


Embeddings = tuple[np.ndarray, list[str]]
"""(N, D) and the N files they are of, relative to the folder."""

Contender = Callable[[], tuple[Callable[[], Embeddings], dict[str, Any]]]
"""The run that is timed; returns how to get at what it saved, and what else is to be known."""


# The contenders: each function imports what it needs, and returns what is timed.


def everyday(job: Job) -> Contender:
    """The loop that everybody writes."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    network_of = embedding_network_of(job)

    def run() -> tuple[Callable[[], Embeddings], dict[str, Any]]:
        network, transform = network_of()
        data = ImageFolder(job.images, preset(transform))
        loader = DataLoader(data, batch_size=job.batch, num_workers=job.cores, pin_memory=job.device != "cpu")
        model = network.eval().to(job.device)
        features = []
        with torch.no_grad():
            for images, _ in loader:
                features.append(model(images.to(job.device)).flatten(1).cpu().numpy())
        array = np.concatenate(features)
        np.save(Path(job.out) / "features.npy", array)
        return lambda: (array, [os.path.relpath(path, job.images) for path, _ in data.samples]), {}

    return run


def timm(job: Job) -> Contender:
    """The loader and network of timm."""
    import timm
    import timm.data
    import torch

    network_of = embedding_network_of(job)
    name = TIMM_NAMES.get(job.backbone, job.backbone.removeprefix("timm/"))

    def run() -> tuple[Callable[[], Embeddings], dict[str, Any]]:
        if timm.is_model(name):
            module, size = timm.create_model(name, pretrained=False, num_classes=0), None
            config = timm.data.resolve_data_config({}, model=module)
            network = f"timm's {name}"
        else:
            module, transform = network_of()
            size = (3, transform.crop, transform.crop)
            given = {
                "input_size": size,
                "mean": transform.mean,
                "std": transform.std,
                "crop_pct": crop_share(transform),
            }
            config = timm.data.resolve_data_config({**given, "interpolation": transform.interpolation}, model=module)
            network = f"featx's {job.backbone} in timm's loader"
        wanted = {key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")}
        data = timm.data.create_dataset("", root=job.images)
        loader = timm.data.create_loader(
            data, batch_size=job.batch, num_workers=job.cores, device=torch.device(job.device), **wanted
        )
        model = module.eval().to(job.device)
        features = []
        with torch.no_grad():
            for images, _ in loader:
                features.append(model(images.to(job.device)).flatten(1).cpu().numpy())
        array = np.concatenate(features)
        np.save(Path(job.out) / "features.npy", array)
        return lambda: (array, data.filenames()), {"network": f"{network}, {config['input_size'][1]} pixels"}

    return run


def thingsvision(job: Job) -> Contender:
    """The extraction of thingsvision; its loader has no workers."""
    import thingsvision
    from thingsvision.utils.data import DataLoader, ImageDataset
    from thingsvision.utils.storing import save_features

    network_of = embedding_network_of(job)

    def run() -> tuple[Callable[[], Embeddings], dict[str, Any]]:
        network, transform = network_of()
        extractor = thingsvision.get_extractor_from_model(
            model=network, device=job.device, backend="pt", preprocess=preset(transform)
        )
        data = ImageDataset(root=job.images, out_path=job.out, backend="pt", transforms=extractor.get_transformations())
        features = extractor.extract_features(
            batches=DataLoader(dataset=data, batch_size=job.batch, backend="pt"),
            module_name=job.classifier,
            flatten_acts=True,
            output_type="ndarray",
        )
        save_features(features, out_path=job.out, file_format="npy")
        names = [os.path.relpath(path, job.images) for path in data.samples]
        return lambda: (features, names), {"version": f"{version('thingsvision')}, numpy {np.__version__}"}

    return run


def featx(job: Job) -> Contender:
    """``featx.extract``."""
    from featx import extract, load_backbone

    if importlib.util.find_spec(job.engine or "none"):  # the package of the engine that the first run has chosen
        importlib.import_module(job.engine)

    def run() -> tuple[Callable[[], Embeddings], dict[str, Any]]:
        backbone = load_backbone(job.backbone, weights=job.weights, device=job.device, precision=job.precision)
        result = extract(job.images, backbone, cache=Path(job.out) / "cache", compute=job.compute)
        assert result.computed == result.images, f"{result.computed} of {result.images} were computed"

        def saved() -> Embeddings:
            rows = result.load()
            return rows.features, rows.paths.tolist()

        return saved, {"engine": result.engine}

    return run


def embedding_network_of(job: Job) -> Callable[[], tuple[Any, Any]]:
    """What builds (the network without its last layer, featx's transform): the same weights for all who can take them."""
    from torch import nn

    from featx.backbones import registry

    def build() -> tuple[Any, Any]:
        network = registry.build(job.backbone, job.weights)
        network.module.set_submodule(job.classifier, nn.Identity())
        return network.module, network.transform

    return build


def preset(transform: Any) -> Any:
    """The transform as torchvision's tutorials write it."""
    from torchvision import transforms as T

    size = transform.resize or (transform.crop, transform.crop)
    return T.Compose(
        [
            T.Resize(size, T.InterpolationMode(transform.interpolation)),
            T.CenterCrop(transform.crop),
            T.ToTensor(),
            T.Normalize(transform.mean, transform.std),
        ]
    )


def crop_share(transform: Any) -> float:
    """The crop as timm names it: its share of the resized image's side."""
    return transform.crop / transform.resize if transform.resize else 1.0


# The limits: each stage alone.


def describe(job: Job) -> dict[str, Any]:
    """What is to be known of the network, and how fast the machine multiplies matrices."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from featx.backbones import registry
    from featx.backbones.classifier import find_classifier

    network = registry.build(job.backbone, job.weights)
    crop = network.transform.crop
    images = torch.zeros(1, 3, crop, crop)
    module = network.module.eval().requires_grad_(False)
    classifier = find_classifier(module, images, network.classifier)[0]
    module.set_submodule(classifier, torch.nn.Identity())
    torch.backends.mha.set_fastpath_enabled(False)  # whose operations are not counted
    with FlopCounterMode(display=False) as counter:
        module(images)
    return {"classifier": classifier, "crop": crop, "gflop_per_image": counter.get_total_flops() / 1e9}


def matmul(job: Job) -> dict[str, float]:
    """GFLOP/s of a float32 product, on one thread and on all of them; on the GPU where one is used."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    side = 2048 if job.device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=job.device) for _ in range(2))

    def once(_: object) -> None:
        torch.mm(a, b)
        if job.device != "cpu":
            torch.cuda.synchronize()

    found = {}
    for threads in dict.fromkeys((1, job.cores) if job.device == "cpu" else (job.cores,)):
        torch.set_num_threads(threads)
        found[str(threads) if job.device == "cpu" else job.device] = (
            rate(once, [None], lanes=1, seconds=job.seconds) * 2 * side**3 / 1e9
        )
    return found


def decode(job: Job) -> dict[str, Any]:
    """Images/s of each way to decode, resize and crop, from the file system, one thread per core."""
    import torch

    from featx.backbones import registry

    torch.set_num_threads(1)
    transform = registry.build(job.backbone, "random").transform
    ways = decoders(transform)
    some = [Path(path).read_bytes() for path in job.sample[:16]]
    reference = [ways["featx"](data) for data in some]
    found: dict[str, Any] = {}
    for name, way in ways.items():
        if job.variants and name not in job.variants:
            continue
        pixels = [np.asarray(way(data)) for data in some]
        off = [np.abs(mine.astype(int) - theirs).mean() for mine, theirs in zip(reference, pixels, strict=True)]
        per_second = rate(from_file(way), job.sample, lanes=job.cores, seconds=job.seconds)
        found[name] = {
            "per_second": per_second,
            "difference": float(np.mean(off)),
            "counts": bool(np.mean(off) <= CLOSE),
        }
    return found


def from_file(way: Callable[[bytes], Any]) -> Callable[[str], Any]:
    """The same, from a path."""

    def work(path: str) -> Any:
        with open(path, "rb") as file:  # noqa: PTH123 - Path takes longer
            return way(file.read())

    return work


def decoders(transform: Any) -> dict[str, Callable[[bytes], Any]]:
    """Ways from a JPEG file's bytes to (3, crop, crop) uint8. JPEG's own scaling is none: it gives other pixels."""
    import torch
    from PIL import Image
    from torchvision import io
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    from featx.data.decode import read_pixels

    crop, mode = transform.crop, InterpolationMode(transform.interpolation)
    size = [transform.resize] if transform.resize else [crop, crop]

    def cut(image: Any) -> Any:
        return F.center_crop(F.resize(image, size, interpolation=mode, antialias=True), [crop, crop])

    def torchvision_v2(data: bytes) -> Any:
        return cut(io.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=io.ImageReadMode.RGB))

    def pillow(data: bytes) -> Any:
        import io as memory

        return F.pil_to_tensor(cut(Image.open(memory.BytesIO(data)).convert("RGB")))

    ways = {"featx": lambda data: read_pixels(data, transform), "torchvision": torchvision_v2, "pillow": pillow}
    if importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        ways["simplejpeg, torch"] = lambda data: cut(
            torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB")).permute(2, 0, 1)
        )
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        ways["opencv"] = lambda data: opencv(cv2, data, transform)
    return ways


def opencv(cv2: Any, data: bytes, transform: Any) -> np.ndarray:
    """OpenCV alone, averaging areas, which is what it has against aliasing."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    height, width = image.shape[:2]
    crop, shorter = transform.crop, min(height, width)
    wide, high = (side * transform.resize // shorter if transform.resize else crop for side in (width, height))
    image = cv2.resize(
        image, (wide, high), interpolation=cv2.INTER_AREA if shorter > transform.resize else cv2.INTER_LINEAR
    )
    left, top = round((wide - crop) / 2), round((high - crop) / 2)
    return np.ascontiguousarray(image[top : top + crop, left : left + crop].transpose(2, 0, 1))


def forward(job: Job) -> dict[str, Any]:
    """Images/s of each way to run the network: featx's engines in lanes, and plain ones on all threads."""
    import torch

    import featx
    from featx.backbones.pixels import normalise
    from featx.data.decode import read_pixels
    from featx.extraction.engines import installed, one_thread_each, open_engine

    backbone = featx.load_backbone(job.backbone, weights=job.weights, device=job.device, precision=job.precision)
    some = np.stack([read_pixels(Path(path).read_bytes(), backbone.transform) for path in job.sample[:16]])
    lanes = job.cores if job.device == "cpu" else min(job.cores, 4)
    found: dict[str, Any] = {}
    for name in installed(job.device):
        if job.variants and f"featx {name}" not in job.variants:
            continue
        try:
            engine = open_engine(name, backbone, lanes=lanes)
        except featx.FeatxError as error:
            found[f"featx {name}"] = {"why_not": str(error)}
            continue
        pixels = np.resize(some, (engine.batch, *some.shape[1:]))
        with one_thread_each():
            per_second = engine.batch * rate(engine, [pixels], lanes=engine.lanes, seconds=job.seconds)
        found[f"featx {name}"] = {"per_second": per_second, "lanes": engine.lanes, "batch": engine.batch}
        del engine
    torch.set_num_threads(job.cores)
    batch = 8 if job.device == "cpu" else 256
    images = normalise(torch.from_numpy(np.resize(some, (batch, *some.shape[1:]))), backbone.transform)
    for name, make in plain_forwards(job).items():
        if job.variants and name not in job.variants:
            continue
        try:
            per_second = batch * rate(make(images), [None], lanes=1, seconds=job.seconds)
        except Exception as error:  # exporters and compilers raise whatever they like
            found[name] = {"why_not": brief(str(error))}
            continue
        found[name] = {"per_second": per_second, "lanes": 1, "batch": batch}
    return found


def plain_forwards(job: Job) -> dict[str, Callable[[Any], Callable[[object], object]]]:
    """Ways to run passes one after the other, each on all threads or on the GPU, without featx's engines."""
    import torch

    from featx.devices import full_float32

    def network() -> Any:
        return embedding_network_of(job)()[0].eval().requires_grad_(False).to(job.device)

    def in_torch(images: Any, layout: torch.memory_format, compiled: bool) -> Callable[[object], object]:
        model = network().to(memory_format=layout)
        model = torch.compile(model) if compiled else model
        images = images.to(job.device, memory_format=layout)

        def run(_: object) -> None:
            with torch.inference_mode(), full_float32():
                model(images)
                if job.device != "cpu":
                    torch.cuda.synchronize()

        return run

    def exported(images: Any) -> bytes:
        program = torch.onnx.export(network(), (images,), dynamo=True, verbose=False)
        return program.model_proto.SerializeToString()

    def onnxruntime(images: Any) -> Callable[[object], object]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.cores
        session = onnxruntime.InferenceSession(exported(images), options, providers=["CPUExecutionProvider"])
        given = {session.get_inputs()[0].name: images.numpy()}
        return lambda _: session.run(None, given)

    def openvino(images: Any) -> Callable[[object], object]:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": job.cores, "NUM_STREAMS": 1}
        core = openvino.Core()
        request = core.compile_model(core.read_model(exported(images)), "CPU", settings).create_infer_request()
        return lambda _: request.infer([images.numpy()], share_inputs=True, share_outputs=True)

    ways = {
        "torch": lambda images: in_torch(images, torch.contiguous_format, False),
        "torch channels_last": lambda images: in_torch(images, torch.channels_last, False),
    }
    if job.device != "cpu":
        return {**ways, "torch compiled channels_last": lambda images: in_torch(images, torch.channels_last, True)}
    needed = {"onnxruntime": onnxruntime, "openvino": openvino}
    return ways | {name: way for name, way in needed.items() if importlib.util.find_spec(name)}


def rate(work: Callable[[Any], object], items: Sequence[Any], *, lanes: int, seconds: float) -> float:
    """Items/s of ``lanes`` threads that take items in turn, over whole passes of at least ``seconds``, after a warm-up."""

    def take(queue: Iterator[Any]) -> None:
        for item in queue:
            work(item)

    repeat = -(-lanes // len(items))
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(work, [items[0]] * lanes))
        while True:
            queue = iter(list(items) * repeat)  # a list's iterator may be shared by threads
            started = time.perf_counter()
            list(pool.map(take, [queue] * lanes))
            took = time.perf_counter() - started
            if took >= seconds:
                return len(items) * repeat / took
            repeat = max(repeat + 1, int(repeat * min(10, 1.2 * seconds / took)))


# Correctness


def compare(job: Job) -> dict[str, float | None]:
    """Relative L2 distances of rows: featx's to an eager pass over the same pixels, and everyone's to the everyday loop's."""
    import torch

    from featx.backbones.pixels import normalise
    from featx.data.decode import read_pixels
    from featx.devices import full_float32

    saved = {path.stem: np.load(path) for path in Path(job.out).glob("*.npz")}
    rows = {name: dict(zip(file["names"].tolist(), file["features"], strict=True)) for name, file in saved.items()}
    found: dict[str, float | None] = {}
    if "featx" in rows:
        network, transform = embedding_network_of(job)()
        network.eval().to(job.device)
        chosen = sorted(rows["featx"])[:: max(1, len(rows["featx"]) // COMPARED)][:COMPARED]
        wanted = []
        for name in chosen:
            pixels = torch.from_numpy(read_pixels((Path(job.images) / name).read_bytes(), transform))[None]
            with torch.inference_mode(), full_float32():
                wanted.append(network(normalise(pixels.to(job.device), transform)).flatten(1).cpu().numpy()[0])
        found["featx_to_eager_on_the_same_pixels_max"] = distance(wanted, [rows["featx"][name] for name in chosen], max)
    for name in ("featx", "thingsvision"):
        if name in rows and "everyday" in rows:
            theirs, ours = ([rows[who][file] for file in rows[name]] for who in ("everyday", name))
            found[f"{name}_to_everyday_median"] = distance(theirs, ours, statistics.median)
            found[f"{name}_to_everyday_max"] = distance(theirs, ours, max)
    return found


def distance(wanted: list[np.ndarray], found: list[np.ndarray], of_all: Callable[[list[float]], float]) -> float | None:
    """The largest, or the median, of the rows' distances; None where they have other widths."""
    if any(a.shape != b.shape for a, b in zip(wanted, found, strict=True)):
        return None
    pairs = zip(np.asarray(wanted, np.float64), np.asarray(found, np.float64), strict=True)
    return float(of_all([np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in pairs]))


# A child, and how it is started


TIMED: dict[str, Callable[[Job], Contender]] = {
    "everyday": everyday,
    "timm": timm,
    "thingsvision": thingsvision,
    "featx": featx,
}
OTHERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "describe": describe,
    "matmul": matmul,
    "decode": decode,
    "forward": forward,
    "compare": compare,
}


def child(task: str, file: Path) -> None:
    """Do a task, and write its findings beside the job's file."""
    fields = json.loads(file.read_text())
    job = Job(**{**fields, "sample": tuple(fields["sample"]), "variants": tuple(fields["variants"])})
    found = timed(task, job) if task in TIMED else OTHERS[task](job)
    file.with_suffix(".found").write_text(json.dumps(found))


def timed(name: str, job: Job) -> dict[str, Any]:
    """One run of a contender: seconds of the wall and of all cores, and memory."""
    started = time.perf_counter()
    run = TIMED[name](job)
    imported, cpu = time.perf_counter(), cpu_seconds()
    saved, more = run()
    found = {
        "import_seconds": imported - started,
        "seconds": time.perf_counter() - imported,
        "cpu_seconds": cpu_seconds() - cpu,
        "peak_rss_mb": peak_bytes() / 1e6,
        **more,
    }
    if name in ("everyday", "timm"):  # which have workers
        found["peak_rss_of_a_worker_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * RSS_UNIT / 1e6
    if name != "timm":  # its weights are its own
        features, names = saved()
        np.savez(Path(job.out) / f"{name}.npz", features=features, names=np.array(names))
    return found


def cpu_seconds() -> float:
    """Of this process and of its workers that have ended."""
    return sum(
        use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


class ChildError(Exception):
    """A child has failed; the last it said."""


class Children:
    """Starts children, one at a time.

    Attributes:
        folder: for their files.
        pythons: the interpreter of a task that does not run in this one.
    """

    def __init__(self, folder: Path, pythons: dict[str, str]) -> None:
        self.folder = folder
        self.pythons = pythons
        self._count = itertools.count()

    def run(self, task: str, job: Job) -> tuple[dict[str, Any], Path]:
        """A task's findings, and the folder of what it saved (the job's own for ``compare``)."""
        out = self.folder / f"{next(self._count):04}-{task}"
        out.mkdir()
        file = out.with_suffix(".job")
        file.write_text(json.dumps(asdict(job if task == "compare" else replace(job, out=str(out)))))
        command = [self.pythons.get(task, sys.executable), __file__, "--child", task, str(file)]
        # What featx remembers of the machine is the benchmark's own, and empty at first.
        home = self.folder / ("home" if task == "featx" else "other-home")
        environment = {**os.environ, "FEATX_HOME": str(home)}
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            ended = f"{task} ended with status {done.returncode}"
            said = done.stderr.strip().splitlines() if done.returncode > 0 else []
            raise ChildError(brief(f"{ended}: {said[-1]}" if said else ended))
        return json.loads(file.with_suffix(".found").read_text()), out


def brief(text: str) -> str:
    """The first line of a message."""
    return (text.strip().splitlines() or ["no message"])[0][:300]


# The parent


def find_images(root: Path, most: int) -> list[Path]:
    """Whole RGB or grey JPEG images below a folder, by content, in an order that mixes the folders; at most so many."""
    files = sorted(Path(at) / name for at, _, names in os.walk(root) for name in names)
    random.Random(0).shuffle(files)
    return list(itertools.islice(filter(is_photograph, files), most))


def is_photograph(path: Path) -> bool:
    """Whether Pillow can read all of it as a JPEG that all contenders take alike."""
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            image.load()
            return image.mode in ("RGB", "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def make_files(folder: Path, sources: Sequence[Path], count: int) -> None:
    """So many files of four classes; a counter in a JPEG comment, behind the first marker, makes every one another."""
    for number in range(count):
        path = folder / f"class_{number % 4}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = sources[number % len(sources)].read_bytes()
        path.write_bytes(data[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + data[2:])


class Limits:
    """The stages alone, round by round: all variants first, then those that came near the fastest."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.found: dict[str, dict[str, list[dict[str, Any]]]] = {"decode": {}, "forward": {}}
        self.products: list[dict[str, float]] = []

    def measure(self, job: Job) -> None:
        """One more round."""
        self.products.append(self.children.run("matmul", job)[0])
        for stage, known in self.found.items():
            near = tuple(name for name, _ in self._ranking(stage, within=0.85))
            found, _ = self.children.run(stage, replace(job, variants=near))
            for name, measured in found.items():
                known.setdefault(name, []).append(measured)
            best = self.best(stage)
            say(f"  {stage} alone: {self.per_second(stage):.1f}/s ({best})")

    def best(self, stage: str) -> str:
        """Name of the fastest variant."""
        return self._ranking(stage)[0][0]

    def per_second(self, stage: str) -> float:
        """Its rate."""
        return self._ranking(stage)[0][1]

    def per_second_together(self, device: str) -> float:
        """On a CPU both stages share the cores; a GPU's stages run beside each other."""
        decoding, passes = self.per_second("decode"), self.per_second("forward")
        return 1 / (1 / decoding + 1 / passes) if device == "cpu" else min(decoding, passes)

    def report(self, job: Job, gflop: float) -> dict[str, Any]:
        """As the JSON line has it."""
        best = self.found["forward"][self.best("forward")][0]
        products = {t: statistics.median(p[t] for p in self.products) for t in self.products[0]}
        together = list(products.values())[-1]
        return {
            "decode_per_second": rounded(self.per_second("decode")),
            "decode_variant": self.best("decode"),
            "decode_cpu_ms": rounded(1e3 * job.cores / self.per_second("decode")),
            "forward_per_second": rounded(self.per_second("forward")),
            "forward_variant": self.best("forward"),
            "forward_lanes": best["lanes"],
            "forward_batch": best["batch"],
            "forward_cpu_ms": rounded(1e3 * job.cores / self.per_second("forward")),
            "limit_per_second": rounded(self.per_second_together(job.device)),
            "matmul_gflops": {threads: rounded(value) for threads, value in products.items()},
            "forward_gflop_per_image": rounded(gflop),
            "forward_share_of_matmul": rounded(self.per_second("forward") * gflop / together),
            "variants": {
                stage: {name: self._told(runs) for name, runs in v.items()} for stage, v in self.found.items()
            },
        }

    def _ranking(self, stage: str, within: float = 0.0) -> list[tuple[str, float]]:
        medians = {
            name: statistics.median(run["per_second"] for run in runs)
            for name, runs in self.found[stage].items()
            if "per_second" in runs[0] and runs[0].get("counts", True)
        }
        ranking = sorted(medians.items(), key=lambda pair: -pair[1])
        return [(name, value) for name, value in ranking if value >= within * ranking[0][1]]

    @staticmethod
    def _told(runs: list[dict[str, Any]]) -> dict[str, Any]:
        if "why_not" in runs[0]:
            return runs[0]
        first = {key: rounded(value) if isinstance(value, float) else value for key, value in runs[0].items()}
        return {**first, "per_second": rounded(statistics.median(run["per_second"] for run in runs))}


def measure(
    name: str, options: argparse.Namespace, sources: list[Path], children: Children, folder: Path
) -> dict[str, Any]:
    """All that is told of one backbone."""
    job = Job(
        out="",
        images=str(folder / "images"),
        sample=tuple(map(str, sources)),
        backbone=name,
        weights=options.weights or str(WEIGHTS[name] if name in WEIGHTS and WEIGHTS[name].exists() else "random"),
        device=options.device,
        cores=cores(),
        batch=options.batch or (32 if options.device == "cpu" else 128),
        compute=options.compute,
        precision=options.precision,
        seconds=options.limit_seconds,
    )
    say(f"{name}, {job.weights} weights")
    busy = taken_by_others()
    network, _ = children.run("describe", job)
    job = replace(job, classifier=network["classifier"])
    limits = Limits(children)
    limits.measure(job)
    count = options.images_per_backbone or max(64, int(options.seconds * limits.per_second_together(job.device)))
    make_files(Path(job.images), sources, count)
    longer = Longer(replace(job, images=str(folder / "longer")), options.longer_seconds, limits, sources, children)
    job = replace(job, engine=longer.engine)
    runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in CONTENDERS}
    skipped: dict[str, str] = {}
    saved: dict[str, Path] = {}
    for number in range(options.rounds):
        if number:
            limits.measure(job)
        longer.run()
        limits.measure(job)  # before and after it: the machine's speed drifts
        turn = number % len(CONTENDERS)
        for contender in (*CONTENDERS[turn:], *CONTENDERS[:turn]):
            if contender in skipped:
                continue
            try:
                found, out = children.run(contender, job)
            except ChildError as error:
                skipped[contender] = str(error)
                say(f"  {contender} failed: {error}")
                continue
            runs[contender].append(found)
            saved.setdefault(contender, out)
            say(f"  round {number + 1}, {contender}: {found['seconds']:.1f} s, {count / found['seconds']:.1f} images/s")
    together = folder / "compare"
    together.mkdir()
    for contender, out in saved.items():
        if (out / f"{contender}.npz").exists():
            (out / f"{contender}.npz").rename(together / f"{contender}.npz")
    relative_l2, _ = children.run("compare", replace(job, out=str(together)))
    runs = {contender: found for contender, found in runs.items() if found and contender not in skipped}
    return {
        "weights": Path(job.weights).name,
        "input_pixels": network["crop"],
        "images": count,
        "distinct_images": min(count, len(sources)),
        **compared(runs, count, limits.per_second_together(job.device)),
        "longer": longer.report(limits.per_second_together(job.device)),
        "limits": limits.report(job, network["gflop_per_image"]),
        "relative_l2": {key: value and float(f"{value:.3g}") for key, value in relative_l2.items()},
        "skipped": skipped,
        "cpu_share_taken_by_others": rounded(busy()),
    }


class Longer:
    """featx on more images. Engines are measured, by the first run, only where it is long enough to pay for that."""

    def __init__(self, job: Job, seconds: float, limits: Limits, sources: list[Path], children: Children) -> None:
        self.job, self.children = job, children
        self.count = min(MOST_IMAGES, int(seconds * limits.per_second_together(job.device)))
        self.engine, self.first_seconds = "", 0.0
        self.seconds: list[float] = []
        if self.count:
            make_files(Path(job.images), sources, self.count)
            found, _ = children.run("featx", job)
            self.first_seconds, self.engine = found["seconds"], found["engine"]
            say(f"  featx's first run: {self.count} images in {self.first_seconds:.1f} s, by {self.engine}")
            self.job = replace(job, engine=self.engine)

    def run(self) -> None:
        """Once more, by the engine that is remembered now."""
        if self.count:
            found, _ = self.children.run("featx", self.job)
            self.seconds.append(found["seconds"])
            say(
                f"  featx, longer: {self.count} images in {self.seconds[-1]:.1f} s, {self.count / self.seconds[-1]:.1f}/s"
            )

    def report(self, limit: float) -> dict[str, Any]:
        """As the JSON line has it."""
        if not self.count:
            return {}
        per_second = self.count / statistics.median(self.seconds)
        return {
            "images": self.count,
            "first_seconds": rounded(self.first_seconds),
            "seconds": list(map(rounded, self.seconds)),
            "images_per_second": rounded(per_second),
            "share_of_limit": rounded(per_second / limit),
        }


def compared(runs: dict[str, list[dict[str, Any]]], count: int, limit: float) -> dict[str, Any]:
    """Rates, ratios and what the runs took."""

    def medians(key: str) -> dict[str, float]:
        return {name: statistics.median(run[key] for run in found) for name, found in runs.items() if key in found[0]}

    rates = {name: count / seconds for name, seconds in medians("seconds").items()}
    ours = rates.get("featx")
    told: dict[str, Any] = {
        "images_per_second": rates,
        "featx_times_as_fast_as": {name: ours / rates[name] for name in PEERS if ours and name in rates},
        "share_of_limit": {name: value / limit for name, value in rates.items()},
        "cpu_seconds": medians("cpu_seconds"),
        "import_seconds": medians("import_seconds"),
        "peak_rss_mb": medians("peak_rss_mb"),
        "peak_rss_of_a_worker_mb": medians("peak_rss_of_a_worker_mb"),
    }
    told = {key: {name: rounded(value) for name, value in values.items()} for key, values in told.items()}
    told["seconds"] = {name: [rounded(run["seconds"]) for run in found] for name, found in runs.items()}
    told["engine"] = runs["featx"][-1]["engine"] if ours else None
    told["networks"] = {name: found[0]["network"] for name, found in runs.items() if "network" in found[0]}
    told["versions"] = {name: found[0]["version"] for name, found in runs.items() if "version" in found[0]}
    return told


def rounded(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def taken_by_others() -> Callable[[], float]:
    """What tells the share of all cores' time that went, since, to whatever is no part of this benchmark; NaN if unknown."""

    def at() -> tuple[float, float]:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        return time.perf_counter(), (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - cpu_seconds()

    if not Path("/proc/stat").exists():
        return lambda: float("nan")
    started, before = at()

    def share() -> float:
        ended, after = at()
        return max(0.0, (after - before) / ((ended - started) * (os.cpu_count() or 1)))

    return share


def cpu_model() -> str:
    """As the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def installed_versions() -> dict[str, str]:
    """Of what takes part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def table(backbones: dict[str, dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = [
        "| images/s | "
        + " | ".join(PEERS)
        + " | featx | times the everyday loop | featx, longer | limit | share of it | MB: everyday, featx |",
        "|" + "---|" * (len(PEERS) + 7),
    ]
    for name, found in backbones.items():
        if "failed" in found:
            continue
        rates, peaks = found["images_per_second"], found["peak_rss_mb"]
        cells = [f"{rates[who]:.4g}" if who in rates else "-" for who in CONTENDERS]
        cells.append(f"{found['featx_times_as_fast_as'].get('everyday', float('nan')):.2f}")
        longer = found["longer"] or {"images_per_second": float("nan"), "share_of_limit": float("nan")}
        cells.append(f"{longer['images_per_second']:.4g}")
        cells.append(f"{found['limits']['limit_per_second']:.4g}")
        cells.append(f"{longer['share_of_limit']:.2f}")
        cells.append(", ".join(f"{peaks[who]:.0f}" if who in peaks else "-" for who in ("everyday", "featx")))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbone", action="append", metavar="NAME", help="as featx extract takes it; may be repeated"
    )
    parser.add_argument(
        "--weights", help="of every backbone, as featx extract takes them; random, but for mobilenet_v1_075"
    )
    parser.add_argument("--images", type=Path, default=SHARED / "datasets", help="a folder with JPEGs, however deep")
    parser.add_argument("--images-per-backbone", type=int, metavar="N", help="instead of --seconds")
    parser.add_argument("--seconds", type=float, default=6.0, help="as many images as the limit takes so long for")
    parser.add_argument("--longer-seconds", type=float, default=40.0, help="the same for featx's longer runs; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-seconds", type=float, default=2.0, help="to measure each variant of a stage alone")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, help="of the contenders but featx; 32 on the CPU, 128 elsewhere")
    parser.add_argument("--compute", default="auto", help="featx's engine")
    parser.add_argument("--precision", default="float32", help="of featx's network")
    parser.add_argument("--thingsvision-python", metavar="PATH", help="an interpreter that has thingsvision")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table")
    parser.add_argument("--folder", type=Path, help="where to make the files; a temporary folder")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    sources = find_images(options.images, options.images_per_backbone or 2000)
    if not sources:
        parser.error(f"there is no JPEG in {options.images}; name a folder that has some with --images")
    pythons = {"thingsvision": options.thingsvision_python} if options.thingsvision_python else {}
    backbones = {}
    for name in options.backbone or BACKBONES[options.device]:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            try:
                backbones[name] = measure(name, options, sources, Children(Path(folder), pythons), Path(folder))
            except ChildError as error:
                backbones[name] = {"failed": str(error)}
                say(f"  {error}")
    result = {
        "backbones": backbones,
        "rounds": options.rounds,
        "device": options.device,
        "cores": cores(),
        "cpu": cpu_model(),
        "versions": installed_versions(),
    }
    if options.markdown:
        options.markdown.write_text(table(backbones))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
