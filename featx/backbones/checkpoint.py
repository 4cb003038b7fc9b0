"""Find a network's tensors in a checkpoint, whatever container and prefix a training program stored them under."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featx.backbones.weights import can_hold, kind, read_file
from featx.errors import BackboneError
from featx.text import listed, printable

_DEEPEST = 4
"""Containers within containers that are searched, as in {"model": {"state_dict": ...}}."""

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that torch.compile, FSDP and activation checkpointing insert, anywhere in a name."""

_DENSENET_V0 = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""torchvision's DenseNet files still use the tensor names of 2017."""

_TRAINING_PARTS = re.compile(
    r"aux\w*|AuxLogits|fc|heads?|classifier|linear|project\w*|proj_head|predict\w*|prototypes|queue\w*|mask_token"
    r"|decoder\w*|n_averaged|criterion|loss\w*"
)
"""Parts of a network that only serve its training, if the network that is loaded has no part of that name."""


@dataclass(frozen=True)
class Way:
    """One way to read a network's tensors from a checkpoint.

    Attributes:
        container: the keys that lead to the tensors, joined by dots; "" for the file itself.
        prefix: what is taken off the names: "" or something that ends in a dot.
        state: the tensors by name without the prefix.
        beside: the names in the same container that do not begin with the prefix.
    """

    container: str
    prefix: str
    state: dict[str, Tensor]
    beside: tuple[str, ...]

    @property
    def name(self) -> str:
        """The container and the prefix as one dotted name, such as ``state_dict.module.encoder_q``."""
        return ".".join(part for part in (self.container, self.prefix.rstrip(".")) if part)


class Fit:
    """How the tensors of one way fit a network.

    Attributes:
        way: the way.
        expected: the network's own tensors by name.
        last: the parts of the network that no feature depends on: its last layer, and what surrounds nothing else.
    """

    def __init__(self, way: Way, network: nn.Module, last: str | None) -> None:
        self.way = way
        self.expected: Mapping[str, Tensor] = network.state_dict()
        self.last = last
        self._children = {name for name, _ in network.named_children()} | {n.split(".")[0] for n in self.expected}

    @cached_property
    def missing(self) -> list[str]:
        """The network's tensors that the way lacks, except batch norm's counts, which no prediction depends on."""
        state = self.way.state
        return [n for n in self.expected if n not in state and not n.endswith("num_batches_tracked")]

    @cached_property
    def surplus(self) -> list[str]:
        """Tensors that the network lacks."""
        return [n for n in self.way.state if n not in self.expected]

    @cached_property
    def misshapen(self) -> list[str]:
        """Tensors of another shape than the network's."""
        return [n for n in self._common if self.way.state[n].shape != self.expected[n].shape]

    @cached_property
    def mistyped(self) -> list[str]:
        """Tensors whose numbers cannot stand for the network's, such as quantized weights without their scale."""
        return [n for n in self._common if not can_hold(self.way.state[n], self.expected[n].dtype)]

    @cached_property
    def last_layer_fits(self) -> bool:
        """Whether the tensors of the last layer can be loaded too."""
        return not any(map(self._is_last, (*self.missing, *self.surplus, *self.misshapen, *self.mistyped)))

    @property
    def training_parts(self) -> list[str]:
        """The surplus tensors of parts that only serve training."""
        return [n for n in self.surplus if self._is_training(n) and not self._is_last(n)]

    @property
    def faults(self) -> list[str]:
        """What keeps the tensors from being the network's; empty if they are, whatever its last layer is."""
        groups = (
            ("missing", [n for n in self.missing if not self._is_last(n)]),
            ("surplus", [printable(n) for n in self.surplus if not (self._is_last(n) or self._is_training(n))]),
            ("misshapen", [self._shapes(n) for n in self.misshapen if not self._is_last(n)]),
            ("of another type", [self._types(n) for n in self.mistyped if not self._is_last(n)]),
        )
        return [f"{len(names)} {what}: {listed(names, most=8)}" for what, names in groups if names]

    @property
    def badness(self) -> int:
        """The number of tensors that do not fit."""
        return len(self.missing) + len(self.misshapen) + len(self.mistyped)

    @property
    def loadable(self) -> dict[str, Tensor]:
        """The tensors to load, by the network's names; without the last layer's if they do not fit."""
        return {n: self.way.state[n] for n in self._common if self.last_layer_fits or not self._is_last(n)}

    @property
    def left_blank(self) -> list[str]:
        """The network's tensors that are not loaded: those of a last layer that does not fit."""
        return [] if self.last_layer_fits else [n for n in self.expected if self._is_last(n)]

    @property
    def notes(self) -> list[str]:
        """What was taken off and left out, one clause each."""
        way, clauses = self.way, []
        where = f"in its {way.container}" if way.container else "in it"
        if way.name:
            taken = f", after {printable(way.prefix)} was taken off their names" if way.prefix else ""
            clauses.append(f"the network's tensors are {printable(where)}{taken}")
        parts = [f"{way.prefix}{n.split('.')[0]}" for n in self.training_parts] + [_beginning(n) for n in way.beside]
        if parts:
            clauses.append(f"{listed([printable(part) for part in dict.fromkeys(parts)], most=6)} are not used")
        if self.left_blank:
            clauses.append(f"the last layer, {self.last}, {self._last_layer()}; no feature depends on it")
        return clauses

    @cached_property
    def _common(self) -> list[str]:
        return [n for n in self.expected if n in self.way.state]

    def _is_last(self, name: str) -> bool:
        return self.last is not None and f"{name}.".startswith(f"{self.last}.")

    def _is_training(self, name: str) -> bool:
        part = name.split(".")[0]
        return part not in self._children and _TRAINING_PARTS.fullmatch(part) is not None

    def _shapes(self, name: str) -> str:
        return f"{name} {tuple(self.way.state[name].shape)} instead of {tuple(self.expected[name].shape)}"

    def _types(self, name: str) -> str:
        return f"{name} {kind(self.way.state[name])} instead of {kind(self.expected[name])}"

    def _last_layer(self) -> str:
        for name in self.misshapen:
            if self._is_last(name):
                found, wanted = (tuple(tensors[name].shape) for tensors in (self.way.state, self.expected))
                return f"was left out, because {name} has the shape {found} and the network's is {wanted}"
        if all(name not in self.way.state for name in self.expected if self._is_last(name)):
            return "is not in it" if not any(map(self._is_last, self.surplus)) else "was left out, as it is another one"
        return "was left out, because it does not fit"


def load_checkpoint(
    network: nn.Module, path: Path, *, part: str = "", classifier: Callable[[], str | None] = lambda: None
) -> tuple[str, ...]:
    """Load a file's tensors into a network.

    The tensors may be in a container ("state_dict", "model", ...) and their names may have a prefix ("module.",
    "module.encoder_q.", ...), which are taken off if exactly one way to do so makes every tensor of the backbone fit. The last
    layer, which no feature depends on, may be missing or have another size; it is then set to zeros.

    Args:
        network: changed in place.
        path: the file.
        part: dotted components of the container and prefix to read, where several ways fit; "" for the only way.
        classifier: finds the name of the network's last layer; called only if some tensor does not fit.

    Returns:
        Sentences for the user: what was taken off, and what was left out.

    Raises:
        BackboneError: the file cannot be read, no way fits, or several ways fit and their tensors differ.
    """
    ways = [way for way in _ways(read_file(path), network) if _has_part(way, part)]
    if not ways:
        what = f"has no part {part!r} with tensors by name" if part else "does not hold tensors by name"
        raise BackboneError(f"{path} {what}; expected the state_dict of a network")
    fits = [Fit(way, network, None) for way in ways]
    good = [fit for fit in fits if not fit.faults]
    if len(good) != 1:
        last = _last_part(network, classifier())
        fits = [Fit(way, network, last) for way in ways]
        good = [fit for fit in fits if not fit.faults]
    if not good:
        raise _misfit(path, network, Fit(min(fits, key=lambda fit: fit.badness).way, network, None))
    if any(not _same(good[0], other) for other in good[1:]):
        names = [printable(fit.way.name or "the file itself") for fit in good]
        raise BackboneError(
            f"{path} holds {len(good)} networks that fit {type(network).__name__}: {listed(names)}. Name one of them, as in "
            f"--weights {path}#{printable(_own_part([fit.way.name for fit in good]))}"
        )
    _load(network, good[0])
    return tuple(f"{path}: {clause}" for clause in good[0].notes)


def split_part(weights: str) -> tuple[str, str]:
    """Split ``FILE#PART`` into the file and the part; "" where none is named, or where a file has the whole name.

    Examples:
        >>> split_part("moco.pth#encoder_q")
        ('moco.pth', 'encoder_q')
    """
    file, mark, part = weights.rpartition("#")
    try:
        whole = not mark or Path(weights).exists()
    except (OSError, ValueError):
        whole = False
    return (weights, "") if whole else (file, part)


def tables_in(content: Any, container: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary with tensors by name in what a file holds, with the keys that lead to it."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield container, _plain_names(tensors)
    for key, value in content.items():
        if isinstance(key, str):
            yield from tables_in(value, f"{container}.{key}" if container else key, depth + 1)


def _plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {_DENSENET_V0.sub(r"\1\2", _WRAPPERS.sub("", name)): tensor for name, tensor in tensors.items()}
    return plain if len(plain) == len(tensors) else tensors


def _ways(content: Any, network: nn.Module) -> Iterator[Way]:
    """For each table of a checkpoint, its names as they are, and each prefix under which the network's tensors may stand."""
    expected = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    for container, table in tables_in(content):
        prefixes = dict.fromkeys([""])
        for name in expected[:1]:
            prefixes |= dict.fromkeys(n.removesuffix(name) for n in table if n.endswith(f".{name}"))
        for prefix in prefixes:
            state = {n.removeprefix(prefix): tensor for n, tensor in table.items() if n.startswith(prefix)}
            yield Way(container, prefix, state, tuple(n for n in table if not n.startswith(prefix)))


def _has_part(way: Way, part: str) -> bool:
    return not part or f".{part.strip('.')}." in f".{way.name}."


def _last_part(network: nn.Module, classifier: str | None) -> str | None:
    """The outermost module around the last layer that holds no other tensor; None if no tensor would be left outside it."""
    names, last = list(network.state_dict()), classifier
    while last and any(not name.startswith(f"{last}.") for name in names):
        parent = last.rpartition(".")[0]
        own = [name for name in names if name.startswith(f"{parent}.")]
        if not parent or any(not name.startswith(f"{classifier}.") for name in own):
            return last
        last = parent
    return None


def _own_part(names: list[str]) -> str:
    """A part of the first named way that no other way has; the first way without a name has no part of its own."""
    first, *others = names if names[0] else names[::-1]
    taken = {part for name in others for part in name.split(".")}
    return next((part for part in first.split(".") if part not in taken), first)


def _same(one: Fit, other: Fit) -> bool:
    """Whether two ways give the backbone the same tensors."""
    ours, theirs = one.loadable, other.loadable
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def _misfit(path: Path, network: nn.Module, closest: Fit) -> BackboneError:
    where = f" (read as {printable(closest.way.name)})" if closest.way.name else ""
    hint = ""
    if closest.mistyped:
        hint = ". Weights of another type may be quantized, and their scale is not part of them: save them as float tensors"
    elif any("pos_emb" in name for name in closest.misshapen):
        hint = ". Position embeddings of another shape belong to another image size: name that size with --crop"
    return BackboneError(f"{path}{where} does not fit {type(network).__name__}: {'; '.join(closest.faults)}{hint}")


def _load(network: nn.Module, fit: Fit) -> None:
    network.load_state_dict(fit.loadable, strict=False)
    tensors = network.state_dict()
    with torch.no_grad():
        for name in fit.left_blank:  # not left random: the identity holds every tensor, and generators change
            tensors[name].zero_()


def _beginning(name: str) -> str:
    """The first two components of a name, which tell its part: ``module.encoder_k``."""
    return ".".join(name.split(".")[:2]) if name.count(".") > 1 else name
