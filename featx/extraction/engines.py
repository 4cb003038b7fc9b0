"""Engines: what runs a backbone. All give the embeddings of ``Backbone.encode``, to a tolerance that is proved on real images.

On the CPU an engine is called from as many threads as there are cores (its lanes), and runs each pass on one core: no core
waits for another (docs/performance.md has the figures), and what a pass computes does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featx.backbones.backbone import Backbone, cast_features
from featx.constants import ENGINES
from featx.devices import full_float32
from featx.errors import EngineError
from featx.extraction.network_copy import NetworkCopy, blank_images, noise_images
from featx.extraction.onnx_export import onnx_bytes, silenced
from featx.text import brief

TOLERANCE = 1e-4
"""Largest L2 distance of an engine's row from ``Backbone.encode``'s, relative to its norm, in float32."""

LOW_TOLERANCE = 5e-2
"""The same in a lower precision, where every engine rounds in its own way."""

_PROOF = 2
"""Images on which that is proved."""

_PORTION = 4
"""Images that a lane gets at once, at least: the loop around them then costs little."""

_MOST_IN_COPIES = 4_000_000_000
"""Bytes of weights in all lanes' copies of a network together."""

Runner = Callable[[Tensor], Sequence[np.ndarray]]
"""(batch, 3, H, W) uint8 to (batch, D) float32 of each layer."""


class Engine:
    """Pixels to embeddings. May be called from ``lanes`` threads at once.

    Attributes:
        name: one of ``ENGINES``.
        batch: images of a pass; fewer are padded, since kernels are chosen by the batch's size, and that can change an
            embedding's last bits. What else is in a batch, and where in it an image stands, does not.
        portion: images that are best handed to a lane at once: some passes' worth, where a pass takes one.
        lanes: threads that call it at once, at best.
        on_cpu: each of them keeps one core busy; otherwise they wait for a device.
    """

    def __init__(self, name: str, backbone: Backbone, run: Runner, *, batch: int, portion: int, lanes: int) -> None:
        self.name, self.batch, self.portion, self.lanes = name, batch, portion, lanes
        self.on_cpu = backbone.device.type == "cpu"
        self._backbone, self._run = backbone, run
        self._halving = threading.Lock()

    def __call__(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """Embed any number of images.

        A device that runs out of memory gets half as many at a time, from then on.

        Args:
            pixels: (B, 3, H, W) uint8, RGB, resized and cropped.

        Returns:
            (B, D) for each extracted layer, of the backbone's dtype.

        Raises:
            EngineError: not even one image fits on the device.
        """
        return {layer: cast_features(rows, self._backbone.dtype) for layer, rows in self.raw(pixels).items()}

    def raw(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """The same in float32, whatever is kept of it."""
        pixels = torch.as_tensor(pixels)
        parts: list[list[np.ndarray]] = []
        at = 0
        while at < len(pixels) or not parts:
            size = self.batch
            some = pixels[at : at + size]
            try:
                found = self._run(_padded(some, size))
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise EngineError(
                        f"not even one image at a time fits on the device ({brief(error)}); try --device cpu"
                    ) from error
                self._halve(size)
            else:
                parts.append([rows[: len(some)] for rows in found])
                at += size
        return dict(zip(self._backbone.layer_widths, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    def _halve(self, size: int) -> None:
        with self._halving:
            if self.batch == size:  # no other lane has done so meanwhile
                self.batch = size // 2
                torch.cuda.empty_cache()


def installed(kind: str = "cpu") -> tuple[str, ...]:
    """The engines that can run on a kind of device, by what is installed."""
    if kind != "cpu":
        return ("eager", "compile") if kind == "cuda" else ("eager",)
    here = {
        "eager": True,
        "compile": shutil.which(os.environ.get("CXX", "g++")) is not None,
        "openvino": _importable("openvino", "onnx", "onnxscript"),
        "onnxruntime": _importable("onnxruntime", "onnx", "onnxscript"),
    }
    return tuple(name for name in ENGINES if here[name])


def open_engine(
    name: str,
    backbone: Backbone,
    *,
    lanes: int = 1,
    batch: int | None = None,
    sample: np.ndarray | None = None,
) -> Engine:
    """Make an engine and prove that it gives the backbone's embeddings.

    Args:
        name: one of ``ENGINES``.
        backbone: what is to run, whatever its views.
        lanes: threads that will call it at once.
        batch: images per pass, instead of the engine's own choice.
        sample: (B, 3, crop, crop) uint8; the first few are the images of the proof. Noise where there are none.

    Raises:
        EngineError: it is not installed, cannot run this network, or gives other embeddings.
    """
    kind = backbone.device.type
    if name not in installed(kind):
        raise EngineError(f"{name} is not installed, or does not run on {kind}; here are {', '.join(installed(kind))}")
    if backbone.precision != "float32" and name not in ("eager", "compile"):
        raise EngineError(f"{name} computes in float32 alone; {backbone.precision} is for eager and compile")
    size = batch or _usual_batch(name, kind)
    portion = batch or max(size, _PORTION)
    if name == "eager" and _is_own(backbone):
        return _as_it_is(backbone, batch=size, threads=lanes)
    pixels = (noise_images(backbone) if sample is None else sample)[:_PROOF]
    for plain in (False, True):  # folding and another layout can change or break a network: that is seen here
        try:
            with one_thread_each(), silenced(), _refusing(name, backbone):
                run = _MAKERS[name](NetworkCopy(backbone, plain), backbone, size, lanes)
                engine = Engine(name, backbone, run, batch=size, portion=portion, lanes=lanes)
                found = engine.raw(pixels)
            _prove(engine, backbone, found, pixels)
            return engine
        except EngineError as error:
            refusal = error
    raise refusal


def _is_own(backbone: Backbone) -> bool:
    """Whether the network is somebody's own code."""
    return bool(backbone.describe()["architecture"]["source"] == "file")


def _as_it_is(backbone: Backbone, *, batch: int, threads: int) -> Engine:
    """A network of somebody's own, one pass at a time, on all cores: nobody knows what it keeps, or where, as it runs.

    Neither copies of it nor several passes at once would be safe, and nothing would show it. An exported one keeps nothing.
    """
    plain, one = backbone.with_dtype("float32"), threading.Lock()

    def run(pixels: Tensor) -> Sequence[np.ndarray]:
        with one:
            torch.set_num_threads(threads)  # of this thread
            return list(plain.encode(pixels).values())

    return Engine("eager", backbone, run, batch=batch, portion=batch, lanes=1)


@contextlib.contextmanager
def _refusing(name: str, backbone: Backbone) -> Iterator[None]:
    """Whatever an exporter or compiler raises, as one error."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{name} does not fit on {backbone.device}: {brief(error)}") from error
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"{name} cannot run {backbone.name}: {brief(error)}") from error


def _prove(engine: Engine, backbone: Backbone, found: Mapping[str, np.ndarray], pixels: np.ndarray) -> None:
    """Refuse an engine that gives other embeddings of these images than the backbone does afterwards."""
    with _refusing(engine.name, backbone):
        wanted = backbone.with_dtype("float32").encode(pixels)
    apart = {layer: _distance(rows, found[layer]) for layer, rows in wanted.items()}
    layer = max(apart, key=lambda each: apart[each])
    if apart[layer] > (TOLERANCE if backbone.precision == "float32" else LOW_TOLERANCE):
        raise EngineError(
            f"{engine.name} gives other features of {backbone.name}: {layer} differs by {apart[layer]:.1e} of its norm"
        )


def images_per_second(engine: Engine, pixels: np.ndarray, seconds: float = 1.0) -> float:
    """How fast an engine is with all its lanes busy.

    Args:
        engine: from ``open_engine``.
        pixels: (B, 3, crop, crop) uint8; repeated or cut to a batch.
        seconds: to measure for.
    """
    batch = np.resize(pixels, (engine.batch, *pixels.shape[1:]))
    with one_thread_each(), ThreadPoolExecutor(engine.lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(engine, [batch] * engine.lanes))  # each lane once, for its buffers
        began = time.perf_counter()

        def work() -> int:
            done = 0
            while time.perf_counter() < began + seconds:
                engine(batch)
                done += len(batch)
            return done

        counts = [pool.submit(work) for _ in range(engine.lanes)]
        return sum(count.result() for count in counts) / (time.perf_counter() - began)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Each pass on one core, so that lanes and cores add up; what was set before is set again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with full_float32():
            yield
    finally:
        torch.set_num_threads(before)


def _usual_batch(name: str, kind: str) -> int:
    """On a core of its own an inference engine gains nothing by batches, torch a little by 4; larger ones only cost memory."""
    if kind != "cpu":
        return 64
    return 1 if name in ("openvino", "onnxruntime") else 4


def _eager(network: NetworkCopy, backbone: Backbone, _batch: int, _lanes: int) -> Runner:
    encoder = network.encoder().laid_out()
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*encoder.parameters(), *encoder.buffers())}
    lanes, copying = threading.local(), threading.Lock()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        # Modules of each lane's own, on the same weights: somebody's network may keep things in itself as it runs.
        if not hasattr(lanes, "own"):
            with copying:
                lanes.own = copy.deepcopy(encoder, dict(shared)).eval()
        found: tuple[Tensor, ...] = lanes.own(images)
        return found

    return _torch_runner(run, backbone.device)


def _compile(network: NetworkCopy, backbone: Backbone, _batch: int, _lanes: int) -> Runner:
    """A program for each size of batch that is met: its own, and half of that where a device is short of memory."""
    encoder = network.encoder().laid_out()
    programs: dict[int, Callable[[Tensor], tuple[Tensor, ...]]] = {}
    making = threading.Lock()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        size = len(images)
        with making:
            if size not in programs:
                with torch.inference_mode(False), torch.no_grad():
                    example = (blank_images(backbone, size).to(backbone.device),)
                    program = torch.export.export(encoder, example, strict=False)
                programs[size] = torch.compile(program.module(), options={"freezing": True})
        return programs[size](images)

    return _torch_runner(run, backbone.device)


def _torch_runner(encoder: Callable[[Tensor], tuple[Tensor, ...]], device: torch.device) -> Runner:
    streams = threading.local()
    if device.type == "cuda":  # the weights are there before another stream reads them
        torch.cuda.synchronize(device)

    def run(pixels: Tensor) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            return [rows.cpu().numpy() for rows in encoder(pixels.to(device))]

    def run_on_cuda(pixels: Tensor) -> Sequence[np.ndarray]:
        # Each lane has a stream of its own: one's copies run beside the other's kernels.
        if not hasattr(streams, "own"):
            streams.own = torch.cuda.Stream(device)
        streams.own.wait_stream(torch.cuda.current_stream(device))  # which decoded them, perhaps
        with torch.inference_mode(), torch.cuda.stream(streams.own):
            images = pixels if pixels.is_cuda else pixels.pin_memory().to(device, non_blocking=True)
            found = [rows.to("cpu", non_blocking=True) for rows in encoder(images)]
            streams.own.synchronize()
        return [rows.numpy() for rows in found]

    return run_on_cuda if device.type == "cuda" else run


def _onnxruntime(network: NetworkCopy, backbone: Backbone, batch: int, _lanes: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # it runs on the thread that calls
    options.log_severity_level = 3
    model = onnx_bytes(network, backbone, batch)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels.numpy()})


def _openvino(network: NetworkCopy, backbone: Backbone, batch: int, lanes: int) -> Runner:
    """Compiled for each lane, to run on the thread that calls: OpenVINO's own threads, waiting, take cores from decoders.

    Where that would hold too many copies of the weights, it is compiled once, with threads of its own.
    """
    import openvino

    exported = onnx_bytes(network, backbone, batch)
    copies = lanes * len(exported) <= _MOST_IN_COPIES
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 0 if copies else lanes,
        "INFERENCE_NUM_THREADS": 1 if copies else lanes,
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    model = core.read_model(exported)
    shared = None if copies else core.compile_model(model, "CPU", settings)
    idle: deque[Any] = deque()

    def run(pixels: Tensor) -> Sequence[np.ndarray]:
        try:
            request = idle.pop()
        except IndexError:
            request = (shared or core.compile_model(model, "CPU", settings)).create_infer_request()
        found = request.infer([pixels.numpy()], share_inputs=True)
        idle.append(request)
        return [found[output] for output in request.model_outputs]

    return run


_MAKERS = {"eager": _eager, "compile": _compile, "onnxruntime": _onnxruntime, "openvino": _openvino}


def _distance(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest L2 distance of two rows, relative to the norm of what is wanted; what is not finite must be so in both."""
    finite = np.isfinite(wanted).all(axis=1)
    if not np.array_equal(finite, np.isfinite(found).all(axis=1)):
        return float("inf")
    wanted, found = wanted[finite].astype(np.float64), found[finite].astype(np.float64)
    distances, norms = np.linalg.norm(found - wanted, axis=1), np.linalg.norm(wanted, axis=1)
    return max(((d / n if n else float("inf")) for d, n in zip(distances, norms, strict=True) if d), default=0.0)


def _padded(pixels: Tensor, size: int) -> Tensor:
    """With black images, to ``size``."""
    missing = size - len(pixels)
    return torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels


def _importable(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)
