"""How the tensors of a checkpoint fit a network, and what is missing, surplus, misshapen or of another type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from torch import Tensor, nn

from featx.backbones.ways import Way
from featx.backbones.weights import can_hold, kind
from featx.text import listed, printable

_TRAINING_PARTS = re.compile(
    r"aux\w*|AuxLogits|(?:\w+_)?fc|fc_(?!norm)\w+|linear|classif\w*|(?!conv_head|head_norm|head_drop)(?:\w+_)?heads?(?:_(?!norm|drop)\w+)?|project\w*"
    r"|predict\w*|prototypes?|queue\w*|mask(?:ed)?_(?:token|embed)\w*|(?:\w+_)?decoder\w*|n_averaged|criterion\w*|loss\w*"
    r"|(?:train|val|valid|validation|test)_\w+|\w*metrics?|cent(?:er|re)s?|(?:log_)?temperature|logit_(?:scale|bias)|step|initted"
)
"""Parts of a network that only serve its training, if the network that is loaded has no part of that name."""

_CONSTANTS = re.compile(
    r"num_batches_tracked|relative_position_index|relative_coords_table|attn_mask|attention_bias_idxs|position_ids"
)
"""Tensors that the architecture computes itself, or that no prediction depends on: files of some releases have them."""


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
        self._parts = {name.split(".")[0] for name in self.expected}

    @cached_property
    def missing(self) -> list[str]:
        """The network's tensors that the way lacks, except constants of the architecture."""
        return [n for n in self.expected if n not in self.way.state and not is_constant(n)]

    @cached_property
    def surplus(self) -> list[str]:
        """Tensors that the network lacks."""
        return [n for n in self.way.state if n not in self.expected and not is_constant(n)]

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
        return not any(map(self.is_last, (*self.missing, *self.surplus, *self.misshapen, *self.mistyped)))

    @property
    def training_parts(self) -> list[str]:
        """The surplus tensors of parts that only serve training."""
        return [n for n in self.surplus if self._is_training(n) and not self.is_last(n)]

    @cached_property
    def needed(self) -> list[str]:
        """The tensors of the network that features depend on."""
        return [n for n in self.expected if not self.is_last(n) and not is_constant(n)]

    @cached_property
    def faults(self) -> dict[str, str]:
        """What keeps tensors from being the network's, by their name, in the network's order; empty if they are."""
        faults = {}
        for name in self.needed:
            if name not in self.way.state:
                faults[name] = "is missing"
            elif name in self._mistyped:
                faults[name] = f"is {kind(self.way.state[name])} instead of {kind(self.expected[name])}"
            elif name in self._misshapen:
                found, wanted = (tuple(t[name].shape) for t in (self.way.state, self.expected))
                faults[name] = f"has the shape {found} instead of {wanted}"
        return faults

    @cached_property
    def strangers(self) -> list[str]:
        """Tensors that the network lacks, and that may change what it computes."""
        return [n for n in self.surplus if not (self.is_last(n) or self._is_training(n))]

    @property
    def good(self) -> bool:
        """Whether the tensors are the network's, whatever its last layer is."""
        return not (self.faults or self.strangers)

    @property
    def loadable(self) -> dict[str, Tensor]:
        """The tensors to load, by the network's names; without the last layer's if they do not fit."""
        return {n: self.way.state[n] for n in self._common if self.last_layer_fits or not self.is_last(n)}

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The tensors that features depend on, by the network's names."""
        return {n: self.way.state[n] for n in self.needed if n in self.way.state}

    @property
    def left_blank(self) -> list[str]:
        """The network's tensors that are not loaded: those of a last layer that does not fit."""
        return [] if self.last_layer_fits else [n for n in self.expected if self.is_last(n)]

    @property
    def notes(self) -> list[str]:
        """What was taken off, converted and left out, one clause each."""
        way, clauses = self.way, []
        where = f"in its {way.container}" if way.container else "in it"
        if way.name or way.respelled:
            taken = f", after {printable(way.prefix)} was taken off their names" if way.prefix else ""
            respelled = f"; {way.respelled}" if way.respelled else ""
            clauses.append(f"the network's tensors are {printable(where)}{taken}{respelled}")
        parts = [f"{way.prefix}{n.split('.')[0]}" for n in self.training_parts] + [_beginning(n) for n in way.beside]
        if parts:
            unused = [printable(part) for part in dict.fromkeys(parts)]
            clauses.append(f"{listed(unused, most=6)} {'is' if len(unused) == 1 else 'are'} not used")
        if converted := self._converted_types():
            clauses.append(converted)
        if self.left_blank:
            clauses.append(f"the last layer, {self.last}, {self._last_layer()}; no feature depends on it")
        return clauses

    def is_last(self, name: str) -> bool:
        """Whether a tensor is one of the last layer."""
        return self.last is not None and f"{name}.".startswith(f"{self.last}.")

    @cached_property
    def _common(self) -> list[str]:
        return [n for n in self.expected if n in self.way.state]

    @cached_property
    def _misshapen(self) -> set[str]:
        return set(self.misshapen)

    @cached_property
    def _mistyped(self) -> set[str]:
        return set(self.mistyped)

    def _is_training(self, name: str) -> bool:
        part = name.split(".")[0]
        return part not in self._parts and _TRAINING_PARTS.fullmatch(part) is not None

    def _converted_types(self) -> str:
        """Which floating-point types are not the network's own, as a clause; "" if all are."""
        pairs = {
            (self.way.state[n].dtype, self.expected[n].dtype): None
            for n in self.backbone
            if self.expected[n].is_floating_point() and self.way.state[n].dtype != self.expected[n].dtype
        }
        found = listed(sorted({str(one).removeprefix("torch.") for one, _ in pairs}), most=4)
        wanted = listed(sorted({str(other).removeprefix("torch.") for _, other in pairs}), most=4)
        return f"its {found} numbers were converted to {wanted}" if pairs else ""

    def _last_layer(self) -> str:
        for name in self.misshapen:
            if self.is_last(name):
                found, wanted = (tuple(tensors[name].shape) for tensors in (self.way.state, self.expected))
                return f"was left out, because {name} has the shape {found} and the network's is {wanted}"
        if all(name not in self.way.state for name in self.expected if self.is_last(name)):
            return "is not in it" if not any(map(self.is_last, self.surplus)) else "was left out, as it is another one"
        return "was left out, because it does not fit"


def is_constant(name: str) -> bool:
    """Whether a tensor, by its name, is one that the architecture computes itself, or that no prediction depends on."""
    return _CONSTANTS.fullmatch(name.rpartition(".")[2]) is not None


def _beginning(name: str) -> str:
    """The first two components of a name, which tell its part: ``module.encoder_k``."""
    return ".".join(name.split(".")[:2]) if name.count(".") > 1 else name
