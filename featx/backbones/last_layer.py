"""The last layer of a network, which its features do not depend on: digests with and without it, and what does depend on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from featx.backbones.weights import state_digest
from featx.errors import BackboneError


class LastLayer:
    """The last layer of a network, and the network's digests with and without it.

    Args:
        network: in eval mode; it does not change any more.
        name: of the layer.
        counts: the form of the digest that is computed now; the other one is when it is needed.
    """

    def __init__(self, network: nn.Module, name: str, *, counts: bool) -> None:
        self._network, self._name = network, name
        self._digests: dict[bool, str] = {}
        self.digest(counts=counts)

    @property
    def is_blank(self) -> bool:
        """Whether the layer was left out of the weights, so that its tensors are zeros."""
        return not any(tensor.any() for tensor in self._layer.state_dict().values())

    def digest(self, *, counts: bool) -> str:
        """The ``state_digest`` of the network's tensors.

        Args:
            counts: whether those of the last layer are among them.
        """
        if counts not in self._digests:
            self._digests[counts] = state_digest(self._network, "" if counts else self._name)
        return self._digests[counts]

    def dependent(self, run: Callable[[], Mapping[str, Tensor]]) -> frozenset[str]:
        """Find the layers that depend on the last layer: those that are NaN where its output is NaN.

        Args:
            run: a forward pass that returns the layers by name.
        """

        def poisoned(out: Any) -> Any:
            return torch.full_like(out, torch.nan) if isinstance(out, Tensor) and out.is_floating_point() else out

        handle = self._layer.register_forward_hook(lambda _, __, out: poisoned(out))
        try:
            found = {layer for layer, rows in run().items() if rows.isnan().any()}
        finally:
            handle.remove()
        if found:  # a network may give NaN for a black image by itself
            found -= {layer for layer, rows in run().items() if rows.isnan().any()}
        return frozenset(found)

    def blank_error(self, network: str, weights: str, layer: str) -> BackboneError:
        """The error for a layer that depends on the last one, which the weights lack."""
        return BackboneError(
            f"layer {layer!r} depends on the last layer of {network}, {self._name}, which is not in {weights}; "
            "name layers before it"
        )

    @property
    def _layer(self) -> nn.Module:
        return self._network.get_submodule(self._name)
