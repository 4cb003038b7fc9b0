"""Engines: what runs a backbone. All give the embeddings of ``Backbone.encode``, to a tolerance that is proved on real images.

On the CPU an engine is called from as many threads as there are cores (its lanes), and runs each pass on one core: no core
waits for another (docs/performance.md has the figures), and what a pass computes does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import io
import logging
import os
import shutil
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from featx.backbone import Backbone, as_stored, full_float32, normalise
from featx.errors import EngineError, OutputError, brief
from featx.home import home, keep
from featx.settings import ENGINES
from featx.views import PLAIN

TOLERANCE = 1e-4
"""Largest L2 distance of an engine's row from ``Backbone.encode``'s, relative to its norm, in float32."""

LOW_TOLERANCE = 5e-2
"""The same in a lower precision, where every engine rounds in its own way."""

_PROOF = 2
"""Images on which that is proved."""

_PORTION = 4
"""Images that a lane gets at once, at least: the loop around them then costs little."""

_EXPORT = 1
"""Raised whenever exported networks of before must not be used."""

_MOST_EXPORTS = 16
"""Exported networks that are kept; the oldest go."""

_MOST_IN_COPIES = 4_000_000_000
"""Bytes of weights in all lanes' copies of a network together."""

_LARGEST_EXPORT = 1_900_000_000
"""Bytes of weights; of more no single ONNX file can be made."""

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
            (B, D) for each tapped layer, of the backbone's dtype.

        Raises:
            EngineError: not even one image fits on the device.
        """
        return {layer: as_stored(rows, self._backbone.dtype) for layer, rows in self.raw(pixels).items()}

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
        return dict(zip(self._backbone.taps, map(np.concatenate, zip(*parts, strict=True)), strict=True))

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
    pixels = (_noise(backbone) if sample is None else sample)[:_PROOF]
    for plain in (False, True):  # folding and another layout can change or break a network: that is seen here
        try:
            with one_thread_each(), _silence(), _refusing(name, backbone):
                run = _MAKERS[name](_Copy(backbone, plain), backbone, size, lanes)
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
    plain, one = backbone.stored_as("float32"), threading.Lock()

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
        wanted = backbone.stored_as("float32").encode(pixels)
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


def fold_norms(network: nn.Module, images: Tensor, *, keep: Sequence[nn.Module] = ()) -> int:
    """Fold each batch norm into the convolution or linear layer whose very output enters it, in place.

    Which those are is seen in one pass. A convolution whose output goes elsewhere too cannot be told from that: compare the
    network's output before and after.

    Args:
        network: in eval mode; its weights change.
        images: (B, C, H, W) that it accepts.
        keep: layers whose own output is wanted.

    Returns:
        How many were folded.
    """
    outputs: dict[int, tuple[nn.Module, Tensor, int]] = {}
    calls: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def note_output(layer: nn.Module, _: Any, out: Tensor) -> None:
        outputs[id(out)] = layer, out, out._version  # kept alive, so that no other tensor gets its id
        calls[layer] = calls.get(layer, 0) + 1

    def note_input(norm: nn.Module, args: tuple[Any, ...]) -> None:
        calls[norm] = calls.get(norm, 0) + 1
        layer, _, version = outputs.get(id(args[0]), (None, None, None))
        if layer is not None and version == args[0]._version:
            pairs.append((layer, norm))

    hooks = [m.register_forward_hook(note_output) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks += [m.register_forward_pre_hook(note_input) for m in network.modules() if _is_norm(m)]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in network.named_modules()}
    once = [(layer, norm) for layer, norm in pairs if calls[layer] == calls[norm] == 1 and layer not in keep]
    for layer, norm in once:
        fuse: Any = fuse_conv_bn_eval if isinstance(layer, nn.Conv2d) else fuse_linear_bn_eval
        fused = fuse(layer, norm)
        layer.weight, layer.bias = fused.weight.requires_grad_(False), fused.bias.requires_grad_(False)
        network.set_submodule(names[norm], _rest(norm))
    return len(once)


@dataclass(frozen=True)
class _Copy:
    """What an engine is made from: a private copy of a network, made when it is needed, which an export that is kept spares."""

    backbone: Backbone
    plain: bool

    def encoder(self) -> _Encoder:
        """It."""
        return _Encoder(self.backbone, plain=self.plain)


class _Encoder(nn.Module):
    """A private copy of a backbone's network, from pixels to embeddings.

    Unless it is to be plain, its batch norms are folded away, and channels come last in memory.
    """

    def __init__(self, backbone: Backbone, *, plain: bool) -> None:
        super().__init__()
        self.transform, self.autocast, self.plain = backbone.transform, backbone.autocast, plain
        self.tapped = copy.deepcopy(backbone.tapped).eval()  # the copy of a traced graph is in training mode
        if not plain:
            image = normalise(torch.from_numpy(_noise(backbone)[:1]).to(backbone.device), backbone.transform)
            watched = [self.tapped.network.get_submodule(tap.node) for tap in self.tapped.watched]
            fold_norms(self.tapped.graph, image, keep=watched)
        self.tapped.attach()

    def laid_out(self) -> _Encoder:
        """Itself, its weights in memory as torch's kernels like them best."""
        return self if self.plain else self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) uint8 to (B, D) float32 of each layer."""
        images = normalise(pixels, self.transform)
        if not self.plain:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return tuple(self.tapped(images).values())


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None


def _rest(norm: nn.Module) -> nn.Module:
    """What a batch norm does beside normalising: timm's apply their activation too."""
    rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if isinstance(part, nn.Module)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def _usual_batch(name: str, kind: str) -> int:
    """On a core of its own an inference engine gains nothing by batches, torch a little by 4; larger ones only cost memory."""
    if kind != "cpu":
        return 64
    return 1 if name in ("openvino", "onnxruntime") else 4


def _eager(network: _Copy, backbone: Backbone, _batch: int, _lanes: int) -> Runner:
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


def _compile(network: _Copy, backbone: Backbone, _batch: int, _lanes: int) -> Runner:
    """A program for each size of batch that is met: its own, and half of that where a device is short of memory."""
    encoder = network.encoder().laid_out()
    programs: dict[int, Callable[[Tensor], tuple[Tensor, ...]]] = {}
    making = threading.Lock()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        size = len(images)
        with making:
            if size not in programs:
                with torch.inference_mode(False), torch.no_grad():
                    example = (_blank(backbone, size).to(backbone.device),)
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


def _onnxruntime(network: _Copy, backbone: Backbone, batch: int, _lanes: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # it runs on the thread that calls
    options.log_severity_level = 3
    model = _exported(network, backbone, batch)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels.numpy()})


def _openvino(network: _Copy, backbone: Backbone, batch: int, lanes: int) -> Runner:
    """Compiled for each lane, to run on the thread that calls: OpenVINO's own threads, waiting, take cores from decoders.

    Where that would hold too many copies of the weights, it is compiled once, with threads of its own.
    """
    import openvino

    exported = _exported(network, backbone, batch)
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


def _exported(network: _Copy, backbone: Backbone, batch: int) -> bytes:
    """The network as ONNX, for a fixed batch; kept in the home folder, since exporting it takes seconds.

    The name of a file carries the checksum of what is in it.
    """
    if sum(tensor.nbytes for tensor in backbone.network.state_dict().values()) > _LARGEST_EXPORT:
        raise EngineError(f"{backbone.name} is too large for one ONNX file")
    parts = (_EXPORT, backbone.seen_in((PLAIN,)).identity, network.plain, batch, torch.__version__)
    tag = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    with contextlib.suppress(OSError, OutputError):
        for path in (home() / "engines").glob(f"{tag}-*.onnx"):
            model = path.read_bytes()
            if path.name == _export_name(tag, model):
                os.utime(path)
                return model
    model = _export(network.encoder(), _blank(backbone, batch))
    keep(f"engines/{_export_name(tag, model)}", model)
    _drop_oldest_exports()
    return model


def _export(encoder: _Encoder, example: Tensor) -> bytes:
    with torch.no_grad():
        program = torch.onnx.export(encoder, (example,), dynamo=True, optimize=True, verbose=False)
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    return model


def _export_name(tag: str, model: bytes) -> str:
    return f"{tag}-{hashlib.sha256(model).hexdigest()[:24]}.onnx"


def _drop_oldest_exports() -> None:
    with contextlib.suppress(OSError, OutputError):
        by_age = sorted((home() / "engines").glob("*.onnx"), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-_MOST_EXPORTS]:
            old.unlink()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Exporters and compilers talk; what they have to say about a failure is in its exception."""
    before, said = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _distance(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest L2 distance of two rows, relative to the norm of what is wanted; what is not finite must be so in both."""
    finite = np.isfinite(wanted).all(axis=1)
    if not np.array_equal(finite, np.isfinite(found).all(axis=1)):
        return float("inf")
    wanted, found = wanted[finite].astype(np.float64), found[finite].astype(np.float64)
    distances, norms = np.linalg.norm(found - wanted, axis=1), np.linalg.norm(wanted, axis=1)
    return max(((d / n if n else float("inf")) for d, n in zip(distances, norms, strict=True) if d), default=0.0)


def _noise(backbone: Backbone) -> np.ndarray:
    """(2, 3, crop, crop) uint8, the same every time."""
    side = backbone.transform.crop
    return np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8)


def _blank(backbone: Backbone, batch: int) -> Tensor:
    return torch.zeros(batch, 3, backbone.transform.crop, backbone.transform.crop, dtype=torch.uint8)


def _padded(pixels: Tensor, size: int) -> Tensor:
    """With black images, to ``size``."""
    missing = size - len(pixels)
    return torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels


def _importable(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)
