"""Engines: what runs a backbone. All give the embeddings of ``Backbone.encode``, to a tolerance verified on real images.

On the CPU an engine is called from as many threads as there are cores (its lanes) and runs each pass on one core. No core
waits for another (docs/performance.md has the figures), and the result of a pass does not depend on the number of lanes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from featx.backbones.backbone import Backbone, cast_features
from featx.backbones.joint import JointBackbone, Partly, joined
from featx.devices import full_float32
from featx.errors import EngineError
from featx.extraction.engine_table import ENGINES
from featx.extraction.network_copy import NetworkCopy, noise_images
from featx.extraction.onnx_export import silenced
from featx.layer_spec import PENULTIMATE
from featx.text import brief

TOLERANCE = 1e-4
"""The largest L2 distance between a row of an engine and that of ``Backbone.encode``, relative to the norm, in float32."""

LOW_TOLERANCE = 5e-2
"""The same tolerance in bfloat16 and float16, which every engine rounds in its own way."""

_VERIFIED = 2
"""Images on which the tolerance is verified."""

_DEVICE_BATCH = 64
"""Images of a pass on a device other than the CPU."""

_PORTION = 4
"""The fewest images that are handed to a lane at once: the loop around them then costs little."""

Runner = Callable[[Tensor], Sequence[np.ndarray]]
"""From (batch, 3, H, W) uint8 to (batch, D) float32 of each layer."""


class Engine:
    """Turns pixels into embeddings. May be called from ``lanes`` threads at once.

    Attributes:
        name: a name in ``ENGINES``.
        runner: computes one pass of ``batch`` images.
        batch: images of a pass. Fewer are padded, because kernels are chosen by the size of a batch, which can change the
            last bits of an embedding. The other images of a batch, and an image's place in it, change nothing.
        portion: images that are best handed to a lane at once; several passes, if a pass takes one image.
        lanes: the number of threads that should call it at once.
        on_cpu: whether a pass occupies a core, rather than a device that the thread waits for.
    """

    def __init__(self, name: str, backbone: Backbone, runner: Runner, *, batch: int, portion: int, lanes: int) -> None:
        self.name, self.runner, self.batch, self.portion, self.lanes = name, runner, batch, portion, lanes
        self.on_cpu = backbone.device.type == "cpu"
        self._backbone = backbone
        self._halving = threading.Lock()

    def __call__(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """Embed any number of images. A device that runs out of memory gets half as many at a time from then on.

        Args:
            pixels: (B, 3, H, W) uint8, RGB, resized and cropped.

        Returns:
            (B, D) of each layer, in the backbone's dtype.

        Raises:
            EngineError: not even one image fits on the device.
        """
        return {layer: cast_features(rows, self._backbone.dtype) for layer, rows in self.raw(pixels).items()}

    def raw(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """Embed images as ``__call__`` does, in float32 whatever the backbone's dtype."""
        pixels = torch.as_tensor(pixels)
        parts: list[list[np.ndarray]] = []
        at = 0
        while at < len(pixels) or not parts:
            size = self.batch
            some = pixels[at : at + size]
            try:
                outputs = self.runner(_padded(some, size))
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise EngineError(
                        f"not even one image at a time fits on the device ({brief(error)}); try --device cpu"
                    ) from error
                self._halve(size)
            else:
                parts.append([rows[: len(some)] for rows in outputs])
                at += size
        return dict(zip(self._backbone.layer_widths, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    def in_passes_of(self, size: int) -> Engine:
        """The same engine with another number of images in a pass."""
        return Engine(self.name, self._backbone, self.runner, batch=size, portion=size, lanes=self.lanes)

    def _halve(self, size: int) -> None:
        with self._halving:
            if self.batch == size:  # no other lane has done so meanwhile
                self.batch = size // 2
                torch.cuda.empty_cache()


class JointEngine(Engine):
    """Turns pixels into the embeddings of several backbones side by side, each run by an engine of its own.

    Args:
        backbone: the backbones.
        parts: the engine of each.
    """

    def __init__(self, backbone: JointBackbone, parts: Sequence[Engine]) -> None:
        super().__init__(
            joint_name([part.name for part in parts]), backbone, self._run,
            batch=max(part.batch for part in parts), portion=max(part.portion for part in parts),
            lanes=min(part.lanes for part in parts),
        )  # fmt: skip
        self.joint, self.parts = backbone, tuple(parts)

    def __call__(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """Embed (B, L) uint8, packed by the backbone's transform."""
        nothing = np.zeros(len(pixels), dtype=bool)
        return self.rest(pixels, [(nothing, np.empty((0, part.width))) for part in self.joint.parts])

    def raw(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """As ``__call__``: what each engine gives is of the type that its backbone's features are stored in."""
        return self(pixels)

    def rest(self, pixels: np.ndarray | Tensor, known: Partly) -> dict[str, np.ndarray]:
        """Embed images as ``__call__`` does, where for some of them the features of some backbones are known."""
        rows = joined(self.joint, torch.as_tensor(pixels), known, lambda at, some: self.parts[at](some))
        return {PENULTIMATE: rows}

    def in_passes_of(self, size: int) -> JointEngine:
        """The same engines with another number of images in a pass."""
        return JointEngine(self.joint, [part.in_passes_of(size) for part in self.parts])

    def _run(self, pixels: Tensor) -> Sequence[np.ndarray]:
        return [*self(pixels).values()]


def joint_name(names: Sequence[str]) -> str:
    """The name of several engines side by side: the one name that all have, or all names with a plus between them."""
    return names[0] if len(set(names)) == 1 else "+".join(names)


def is_engine(name: str) -> bool:
    """Whether a name is that of an engine, or of several side by side."""
    return all(each in ENGINES for each in name.split("+"))


def part_engines(name: str, parts: int) -> list[str]:
    """The inverse of ``joint_name``; empty if the name is not that of so many engines.

    Examples:
        >>> part_engines("openvino+eager", 2), part_engines("eager", 2), part_engines("tpu", 2)
        (['openvino', 'eager'], ['eager', 'eager'], [])
    """
    names = name.split("+") if "+" in name else [name] * parts
    return names if len(names) == parts and all(each in ENGINES for each in names) else []


def installed(device: str = "cpu") -> tuple[str, ...]:
    """The names of the engines that can run on a type of device, with what is installed here."""
    return tuple(name for name, engine in ENGINES.items() if engine.runs_on(device))


def open_engine(
    name: str,
    backbone: Backbone,
    *,
    lanes: int = 1,
    batch: int | None = None,
    sample: np.ndarray | None = None,
) -> Engine:
    """Make an engine, and verify that it gives the backbone's embeddings.

    Args:
        name: a name in ``ENGINES``.
        backbone: the network to run; its views do not matter.
        lanes: threads that will call the engine at once.
        batch: images per pass, instead of the engine's own choice.
        sample: (B, 3, crop, crop) uint8; the embeddings of the first two are compared. Noise by default.

    Raises:
        EngineError: the engine is not installed, cannot run this network, or gives other embeddings.

    Example:

        engine = open_engine("onnxruntime", load_backbone("resnet50", device="cpu"), lanes=4)
        engine(pixels)["penultimate"]  # (B, 2048) float32 of (B, 3, 224, 224) uint8
    """
    if isinstance(backbone, JointBackbone):
        return _open_joint(name, backbone, lanes=lanes, batch=batch, sample=sample)
    device = backbone.device.type
    if name not in installed(device):
        here = ", ".join(installed(device))
        raise EngineError(f"the engine {name} is not installed or does not run on {device}; expected one of {here}")
    spec = ENGINES[name]
    if backbone.precision != "float32" and not spec.low_precision:
        others = " or ".join(other for other, each in ENGINES.items() if each.low_precision)
        raise EngineError(f"{name} computes in float32 only; --precision {backbone.precision} needs --compute {others}")
    size = batch or (spec.cpu_batch if device == "cpu" else _DEVICE_BATCH)
    portion = batch or max(size, _PORTION)
    if name == "eager" and runs_custom_code(backbone):
        return _serial_engine(backbone, batch=size, threads=lanes)
    pixels = (noise_images(backbone) if sample is None else sample)[:_VERIFIED]
    for plain in (False, True):  # folding or the other memory layout can change or break a network, which shows here
        try:
            with one_thread_each(), silenced(), _as_engine_error(name, backbone):
                runner = spec.make(NetworkCopy(backbone, plain), backbone, size, lanes)
                engine = Engine(name, backbone, runner, batch=size, portion=portion, lanes=lanes)
                features = engine.raw(pixels)
            _verify(engine, backbone, features, pixels)
            return engine
        except EngineError as error:
            refusal = error
    raise refusal


def _open_joint(
    name: str, backbone: JointBackbone, *, lanes: int, batch: int | None, sample: np.ndarray | None
) -> JointEngine:
    samples = [None] * len(backbone.parts) if sample is None else backbone.transform.split(sample)
    names = part_engines(name, len(backbone.parts)) or [name] * len(backbone.parts)
    opened = [
        open_engine(engine, part.backbone, lanes=lanes, batch=batch, sample=some)
        for engine, part, some in zip(names, backbone.parts, samples, strict=True)
    ]
    return JointEngine(backbone, opened)


def runs_custom_code(backbone: Backbone) -> bool:
    """Whether the network comes from the user's own file rather than from a library."""
    return bool(backbone.describe()["architecture"]["source"] == "file")


def _serial_engine(backbone: Backbone, *, batch: int, threads: int) -> Engine:
    """An engine that runs the network itself, one pass at a time, on all cores.

    For custom code in torch: such a network may keep state between its layers, in itself or elsewhere. Copies of it, or
    several passes at once, could then give wrong features without an error. An exported network keeps no state.
    """
    float32, one_pass = backbone.with_dtype("float32"), threading.Lock()

    def run(pixels: Tensor) -> Sequence[np.ndarray]:
        with one_pass:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)  # of the calling thread
            try:
                return list(float32.encode(pixels).values())
            finally:
                torch.set_num_threads(before)

    return Engine("eager", backbone, run, batch=batch, portion=batch, lanes=1)


@contextlib.contextmanager
def _as_engine_error(name: str, backbone: Backbone) -> Iterator[None]:
    """Turn whatever an exporter, a compiler or a network raises into one EngineError of one line."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{name} does not fit on {backbone.device}: {brief(error)}") from error
    except EngineError:
        raise
    except Exception as error:  # torch.export, Inductor, ONNX Runtime and OpenVINO raise errors of any type
        raise EngineError(f"{name} cannot run {backbone.name}: {brief(error)}") from error


def _verify(engine: Engine, backbone: Backbone, features: Mapping[str, np.ndarray], pixels: np.ndarray) -> None:
    """Refuse an engine whose embeddings of these images differ from the backbone's own."""
    with _as_engine_error(engine.name, backbone):
        expected = backbone.with_dtype("float32").encode(pixels)
    distances = {layer: _largest_distance(rows, features[layer]) for layer, rows in expected.items()}
    layer = max(distances, key=lambda each: distances[each])
    if distances[layer] > (TOLERANCE if backbone.precision == "float32" else LOW_TOLERANCE):
        raise EngineError(
            f"{engine.name} gives other features of {backbone.name}: {layer} differs by {distances[layer]:.1e} of its norm"
        )


def _largest_distance(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest L2 distance between two rows, relative to the norm of the expected one.

    Infinite if one array has finite rows where the other has not.
    """
    finite = np.isfinite(expected).all(axis=1)
    if not np.array_equal(finite, np.isfinite(found).all(axis=1)):
        return float("inf")
    expected, found = expected[finite].astype(np.float64), found[finite].astype(np.float64)
    distances, norms = np.linalg.norm(found - expected, axis=1), np.linalg.norm(expected, axis=1)
    return max(((d / n if n else float("inf")) for d, n in zip(distances, norms, strict=True) if d), default=0.0)


def images_per_second(engine: Engine, pixels: np.ndarray, seconds: float = 1.0) -> float:
    """Measure the speed of an engine with all its lanes busy.

    Args:
        engine: as ``open_engine`` returns it.
        pixels: (B, 3, crop, crop) uint8; repeated or cut to a batch.
        seconds: how long to measure.
    """
    batch = np.resize(pixels, (engine.batch, *pixels.shape[1:]))
    with one_thread_each(), ThreadPoolExecutor(engine.lanes, initializer=one_core) as pool:
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
    """Run each pass on one core, so that lanes and cores add up. Restores torch's number of threads afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with full_float32():
            yield
    finally:
        torch.set_num_threads(before)


def one_core() -> None:
    """Let the calling thread run each pass on one core."""
    torch.set_num_threads(1)


def _padded(pixels: Tensor, size: int) -> Tensor:
    """The images, with black ones up to ``size``."""
    missing = size - len(pixels)
    return torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels
