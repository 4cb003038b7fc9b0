"""The last layer of a network: what enters it is the penultimate embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.errors import BackboneError


def find_classifier(module: nn.Module, images: Tensor, classifier: str | None = None) -> tuple[str, tuple[int, ...]]:
    """Find the last layer of a network by a forward pass.

    Args:
        module: a network in eval mode.
        images: (B, 3, H, W) float32 that the network accepts, on its device.
        classifier: the layer's name where it is known. Otherwise the layer is the last linear, convolutional or identity layer
            that runs.

    Returns:
        The layer's name, and the shape of its input: the embedding before any pooling.

    Raises:
        BackboneError: no such layer runs.
    """
    calls: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str, inputs: tuple[Any, ...]) -> None:
        calls.append((name, tuple(inputs[0].shape)))

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: record(name, inputs))
        for name, layer in module.named_modules()
        if (name == classifier if classifier is not None else isinstance(layer, nn.Linear | nn.Conv2d | nn.Identity))
    ]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        raise BackboneError(
            f"{type(module).__name__} has no linear or convolutional layer to use as its classifier; "
            "give it a method get_classifier() that returns its last layer"
        )
    return calls[-1]


def require_final_layer(network: nn.Module, images: Tensor, classifier: str, *, name: str) -> None:
    """Check that a layer returns the output of the network; otherwise its input is not an embedding.

    Args:
        network: a network in eval mode whose structure is unknown.
        images: (B, 3, H, W) float32 that the network accepts, on its device.
        classifier: the name of the layer.
        name: the backbone's name for the message.

    Raises:
        BackboneError: the layer's output is not the network's.
    """
    outputs: list[Tensor] = []

    def replace(out: Any) -> Any:
        """Numbers that no other layer returns: those of a last layer that was left out are all zero."""
        outputs.append(torch.arange(out.numel()).reshape(out.shape).to(out) + 1)
        return outputs[-1]

    hook = network.get_submodule(classifier).register_forward_hook(lambda _, __, out: replace(out))
    try:
        with torch.inference_mode():
            final = network(images)
    finally:
        hook.remove()
    if not (isinstance(final, Tensor) and final.shape == outputs[-1].shape and torch.equal(final, outputs[-1])):
        raise BackboneError(
            f"{name}: the last layer to run, {classifier!r}, does not return the network's output, so its input is not "
            "an embedding. Give the module a method get_classifier() that returns its last layer "
            "(an nn.Identity() at the end where it has none)"
        )


def classifier_logits(network: nn.Module, classifier: str, embeddings: np.ndarray) -> np.ndarray | None:
    """Apply a network's own classifier to embeddings of the penultimate layer.

    Args:
        network: the network.
        classifier: the name of its last layer.
        embeddings: (N, D).

    Returns:
        (N, K) float64 logits, or None if the classifier is not linear, does not take D numbers, or was not loaded.
    """
    last = network.get_submodule(classifier)
    if not isinstance(last, nn.Linear) or last.in_features != embeddings.shape[1] or not last.weight.any():
        return None
    weight = last.weight.double().cpu().numpy()
    bias = 0.0 if last.bias is None else last.bias.double().cpu().numpy()
    logits: np.ndarray = np.asarray(embeddings, dtype=np.float64) @ weight.T + bias
    return logits
