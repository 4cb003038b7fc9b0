"""From a backbone's name to a network: torchvision's classifiers, featx's own two, timm's, and a file of one's own."""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from featx.backbones import weights as weight_files
from featx.backbones.architectures import LeNet5, MobileNetV1
from featx.data.transform import Transform
from featx.errors import BackboneError
from featx.system import MISSING, why_unreadable
from featx.text import printable

_TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")  # an architecture, or that and the tag of its weights
EMBEDDED_WEIGHTS = {"lenet5": "lenet5-digits.safetensors"}
_OWN: dict[str, Callable[[], nn.Module]] = {
    "lenet5": LeNet5,
    **{f"mobilenet_v1_{percent:03}": functools.partial(MobileNetV1, percent / 100) for percent in (100, 75, 50, 25)},
}
_OWN_TRANSFORMS = {
    "lenet5": Transform(resize=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "mobilenet_v1": Transform(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class Network:
    """A network as its source built it.

    Attributes:
        module: on the CPU, with its weights.
        transform: the weights' own.
        classifier: name of the last layer where the source knows it, else None.
        origin: how to build the same architecture again: source, name and, for a file of one's own, its SHA-256.
        weights: what the weights are: "default", "random", a torchvision weights name or an absolute path.
    """

    module: nn.Module
    transform: Transform
    classifier: str | None
    origin: dict[str, str]
    weights: str


def build(name: str, weights: str = "default") -> Network:
    """Build a backbone by name and load its weights.

    Args:
        name: ``resnet50``, ``lenet5``, ``mobilenet_v1_075``, ``timm/<name>`` or ``path/to/file.py:factory``.
        weights: "default", "random" (seeded), a torchvision weights name such as IMAGENET1K_V1, or a local file.

    Raises:
        BackboneError: no such name, no such weights, or weights that do not fit.
    """
    if ".py:" in name:
        return _build_file(name, weights)
    if name.startswith("timm/"):
        return _build_timm(name, weights)
    if name in _OWN:
        return _build_own(name, weights)
    if name in torchvision_names():
        return _build_torchvision(name, weights)
    close = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise BackboneError(
        f"there is no backbone {name!r}{hint} (featx backbones lists them; timm/<name>, file.py:factory)"
    )


def blank(origin: Mapping[str, str]) -> nn.Module:
    """The architecture of an origin with random weights, to load a model's own tensors into.

    Raises:
        BackboneError: there is none such here, or the origin is a file of somebody's own: a stored path never makes featx
            run code.
    """
    source, name = origin["source"], origin["name"]
    if source == "file":
        raise BackboneError(
            f"the network is {printable(name)}, a file of code, and a stored path is never run; name it with --backbone"
        )
    if source == "torchvision" and name in torchvision_names():
        size = origin.get("image_size", "224")
        try:
            if not re.fullmatch("[1-9][0-9]{0,4}", size):
                raise ValueError(size)
            return _seeded(functools.partial(_torchvision_module, name, int(size) if "image_size" in origin else None))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise BackboneError(f"{name} cannot be built for images of {size!r} pixels") from error
    # Each source builds its own names alone: build() would run a file that calls itself featx's.
    if source == "featx" and name in _OWN:
        return _build_own(name, "random").module
    if source == "timm" and name.startswith("timm/"):
        return _build_timm(name, "random").module
    raise BackboneError(f"there is no network {name!r} of {source}")


def without_memory() -> TorchFunctionMode:
    """A context in which networks are built of names and shapes alone, to see whether tensors would fit."""
    return _EmptyOnMeta()


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """Every classification model of the installed torchvision."""
    return tuple(models.list_models(module=models))


def names() -> list[str]:
    """Every backbone that needs no extra."""
    return sorted([*_OWN, *torchvision_names()])


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Random weights are the same on every machine, and leave the caller's generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed every GPU's too
        return make()


def _build_torchvision(name: str, weights: str) -> Network:
    entries = models.get_model_weights(name)
    entry = entries.DEFAULT
    file = None
    if weights in entries.__members__:
        entry = entries[weights]
    elif weights not in ("default", "random"):
        file = _absolute(weights)
        if not file.suffix and why_unreadable(file):
            raise BackboneError(
                f"{name} has no weights {weights!r}, only {', '.join(e.name for e in entries)}; nor is it a file"
            )
        weights = str(file)
        # A file that torchvision published brings its own transform: V1 and V2 of ResNet-50 differ.
        entry = next((e for e in entries if Path(e.url).name == file.name), entry)
    origin = {"source": "torchvision", "name": name}
    image_size = None
    if name.startswith("vit_"):
        # A vision transformer has one embedding for each place, so its architecture depends on its weights.
        image_size = entry.meta["min_size"][0]
        if image_size != entries.DEFAULT.meta["min_size"][0]:
            origin["image_size"] = str(image_size)
    module = _seeded(functools.partial(_torchvision_module, name, image_size, initialise=weights == "random"))
    if weights != "random":
        _load(module, file or weight_files.fetch(entry.url))
    return Network(module, _torchvision_transform(entry), None, origin, weights)


def published_top1(name: str, weights: str) -> float | None:
    """The accuracy on ImageNet's validation set that torchvision publishes with weights, 0 to 1; None where it does not.

    Args:
        name: of a backbone.
        weights: as ``Network.weights`` has them.
    """
    if name not in torchvision_names():
        return None
    entries = models.get_model_weights(name)
    files = {Path(entry.url).name: entry for entry in entries}
    entry = {**files, **entries.__members__, "default": entries.DEFAULT}.get(Path(weights).name)
    return None if entry is None else float(entry.meta["_metrics"]["ImageNet-1K"]["acc@1"]) / 100


def _torchvision_module(name: str, image_size: int | None = None, *, initialise: bool = False) -> nn.Module:
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # As their published weights want it. The auxiliary heads serve training from scratch alone: left out.
        # Their own initialisation is slow, so it is left out where weights are loaded over it.
        options = {"init_weights": initialise, "transform_input": True, "aux_logits": False}
    elif name.startswith("vit_"):
        options = {"image_size": image_size or models.get_model_weights(name).DEFAULT.meta["min_size"][0]}
    module: nn.Module = models.get_model(name, weights=None, **options)
    return module


def _torchvision_transform(entry: Any) -> Transform:
    preset = entry.transforms()
    return Transform(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def _load(module: nn.Module, path: Path) -> None:
    state = weight_files.read_state(path)
    if isinstance(module, models.GoogLeNet | models.Inception3):
        state = {n: t for n, t in state.items() if not n.startswith(("aux1.", "aux2.", "AuxLogits."))}
    weight_files.load_strictly(module, state, origin=str(path))


def _load_local(module: nn.Module, weights: str) -> str:
    """Load a local file, if one is named; returns what the weights are, a file as its absolute path."""
    if weights in ("default", "random"):
        return weights
    path = _absolute(weights)
    _load(module, path)
    return str(path)


def _absolute(path: str) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise BackboneError(f"{printable(path)} is no path of a file: {error}") from error


def _name_of(network: nn.Module, layer: nn.Module) -> str | None:
    return next((name for name, module in network.named_modules() if module is layer), None)


def _build_own(name: str, weights: str) -> Network:
    module = _seeded(_OWN[name])
    if weights == "default" and name in EMBEDDED_WEIGHTS:
        with resources.as_file(resources.files("featx.backbones") / EMBEDDED_WEIGHTS[name]) as path:
            _load(module, path)
    elif weights == "default":
        raise BackboneError(
            f"{name} has no weights to download; name a file with --weights FILE.safetensors, or --weights random"
        )
    else:
        weights = _load_local(module, weights)
    transform = _OWN_TRANSFORMS.get(name) or _OWN_TRANSFORMS["mobilenet_v1"]
    return Network(module, transform, "classifier", {"source": "featx", "name": name}, weights)


def _build_timm(name: str, weights: str) -> Network:
    timm = import_timm()
    short = name.removeprefix("timm/")
    # hf-hub:..., local-dir:... and paths would make timm fetch or read what a head from a stranger names.
    if not _TIMM_NAME.fullmatch(short) or not timm.is_model(short):
        close = difflib.get_close_matches(short, timm.list_models(), n=3)
        raise BackboneError(f"timm has no model {short!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
    try:
        module = _seeded(functools.partial(timm.create_model, short, pretrained=weights == "default"))
    except Exception as error:  # timm raises what its hub, urllib and torch raise
        raise BackboneError(
            f"timm cannot give the weights of {short} ({error}); name a local file with --weights FILE, or --weights random"
        ) from error
    weights = _load_local(module, weights)
    classifier = _name_of(module, module.get_classifier())  # type: ignore[operator]
    if classifier is None:
        raise BackboneError(f"{name} has no single last layer (distilled, perhaps); featx taps networks that have one")
    return Network(module, _timm_transform(timm, module), classifier, {"source": "timm", "name": name}, weights)


def import_timm() -> Any:
    """The timm package, or a BackboneError that names the extra to install."""
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise BackboneError("timm/<name> needs timm: pip install 'featx[timm]'") from error
    return timm


def _timm_transform(timm: Any, module: nn.Module) -> Transform:
    config = timm.data.resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise BackboneError(f"it takes {channels} x {height} x {width} pixels; featx feeds 3 channels and squares")
    squash = config["crop_mode"] == "squash"
    interpolation = config["interpolation"]
    return Transform(
        resize=0 if squash else int(height / config["crop_pct"]),
        crop=height,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation if interpolation != "random" else "bilinear",
    )


def _build_file(name: str, weights: str) -> Network:
    """A network of the user's own: the factory takes nothing and returns an ``nn.Module``.

    The module may carry a ``transform`` (a ``featx.Transform``; the default is ImageNet's at 224 pixels) and a method
    ``get_classifier()`` that returns its last layer.
    """
    file, _, factory_name = name.rpartition(":")
    path = _absolute(file)
    why = why_unreadable(path)
    if why == MISSING:
        raise BackboneError(f"there is no file {path}; expected path/to/file.py:factory")
    if why:
        raise BackboneError(f"{path} cannot be read: {why}; expected path/to/file.py:factory")
    code = path.read_bytes()
    namespace = types.ModuleType(f"_featx_{hashlib.sha256(code).hexdigest()}")
    namespace.__file__ = str(path)
    sys.modules[namespace.__name__] = namespace  # where dataclasses look for the module of a class
    try:
        # Not imported: the bytes that are hashed are those that run, whatever an older __pycache__ says.
        exec(compile(code, path, "exec"), namespace.__dict__)
        factory = getattr(namespace, factory_name, None)
        network = _seeded(factory) if callable(factory) else None
    except Exception as error:  # the user's code may raise anything
        raise BackboneError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        found = f"it returned {type(network).__name__}" if callable(factory) else f"{path.name} has no such function"
        raise BackboneError(f"{name}: expected a function without arguments that returns a torch.nn.Module; {found}")
    weights = _load_local(network, weights)
    transform = getattr(network, "transform", Transform())
    if not isinstance(transform, Transform):
        raise BackboneError(f"{name}: its transform is a {type(transform).__name__}; expected a featx.Transform")
    get_classifier = getattr(network, "get_classifier", None)
    classifier = _name_of(network, get_classifier()) if callable(get_classifier) else None
    origin = {"source": "file", "name": f"{path.name}:{factory_name}", "code_sha256": hashlib.sha256(code).hexdigest()}
    return Network(network, transform, classifier, origin, weights)


def hollow(name: str) -> tuple[Network, Tensor]:
    """A backbone in eval mode on torch's meta device, and (1, 3, H, W) for it: a pass tells shapes, without arithmetic.

    Raises:
        BackboneError: as ``build``.
    """
    with without_memory():
        network = build(name, "random")
    network.module.eval().to("meta")
    side = network.transform.crop
    return network, torch.empty(1, 3, side, side, device="meta")


class _EmptyOnMeta(TorchFunctionMode):
    """Allocates parameters without memory; everything else stays real, since RegNet computes its widths with tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def last_layer(module: nn.Module, images: Tensor, classifier: str | None = None) -> tuple[str, tuple[int, ...]]:
    """The last classifier layer of a network, and the shape of what enters it: the embedding, before any pooling.

    Args:
        module: a network in eval mode.
        images: (B, 3, H, W) that it accepts.
        classifier: the layer's name where it is known; else it is the last linear, convolutional or identity layer to run.

    Raises:
        BackboneError: no such layer runs.
    """
    ran: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, inputs: tuple[Any, ...]) -> None:
        ran.append((name, tuple(inputs[0].shape)))

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs))
        for name, layer in module.named_modules()
        if (name == classifier if classifier is not None else isinstance(layer, nn.Linear | nn.Conv2d | nn.Identity))
    ]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise BackboneError(
            f"{type(module).__name__} has no linear or convolutional layer to call its classifier; "
            "give it a method get_classifier() that returns its last layer"
        )
    return ran[-1]
