"""Private copies of a network for engines, with batch norms folded into the layers before them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from featx.backbones.backbone import Backbone
from featx.backbones.pixels import normalise


def fold_norms(network: nn.Module, images: Tensor, *, keep: Sequence[nn.Module] = ()) -> int:
    """Fold each batch norm, in place, into the convolution or linear layer whose output is its input.

    One forward pass shows which layers those are. It does not show whether a layer's output is used elsewhere too, which
    folding would change: compare the network's output before and after.

    Args:
        network: a network in eval mode; its weights change.
        images: (B, C, H, W), a valid input.
        keep: layers whose output must not change; they are not folded into.

    Returns:
        The number of batch norms that were folded.
    """
    outputs: dict[int, tuple[nn.Module, Tensor, int]] = {}
    calls: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def record_output(layer: nn.Module, _: Any, out: Tensor) -> None:
        outputs[id(out)] = layer, out, out._version  # kept alive, so that no other tensor gets its id
        calls[layer] = calls.get(layer, 0) + 1

    def record_input(norm: nn.Module, args: tuple[Any, ...]) -> None:
        calls[norm] = calls.get(norm, 0) + 1
        layer, _, version = outputs.get(id(args[0]), (None, None, None))
        if layer is not None and version == args[0]._version:
            pairs.append((layer, norm))

    hooks = [m.register_forward_hook(record_output) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks += [m.register_forward_pre_hook(record_input) for m in network.modules() if _is_norm(m)]
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
        network.set_submodule(names[norm], _remainder(norm))
    return len(once)


@dataclass(frozen=True)
class NetworkCopy:
    """What an engine is made from: a private copy of a network, made on request only, since a stored export needs none.

    Attributes:
        backbone: the network.
        plain: whether the copy keeps its batch norms and its memory layout.
    """

    backbone: Backbone
    plain: bool

    def encoder(self) -> Encoder:
        """Make the copy."""
        return Encoder(self.backbone, plain=self.plain)


class Encoder(nn.Module):
    """A private copy of a backbone's network, from pixels to embeddings.

    Unless it is plain, its batch norms are folded, and it takes images whose channels come last in memory.
    """

    def __init__(self, backbone: Backbone, *, plain: bool) -> None:
        super().__init__()
        self.transform, self.autocast, self.plain = backbone.transform, backbone.autocast, plain
        self.extractor = copy.deepcopy(backbone.extractor).eval()  # the copy of a traced graph is in training mode
        if not plain:
            image = normalise(torch.from_numpy(noise_images(backbone)[:1]).to(backbone.device), backbone.transform)
            fold_norms(self.extractor.graph, image, keep=self.extractor.hooked_modules)
        self.extractor.attach()

    def laid_out(self) -> Encoder:
        """Put the weights in the memory layout that is fastest for torch's kernels, and return self."""
        return self if self.plain else self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Embed (B, 3, H, W) uint8 as (B, D) float32 of each layer."""
        images = normalise(pixels, self.transform)
        if not self.plain and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return tuple(self.extractor(images).values())


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None


def _remainder(norm: nn.Module) -> nn.Module:
    """What a batch norm does besides normalising: timm's apply dropout and an activation too."""
    parts = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if isinstance(part, nn.Module)]
    return nn.Sequential(*parts) if parts else nn.Identity()


def noise_images(backbone: Backbone) -> np.ndarray:
    """Random images, (2, C, H, W) uint8, the same on every call."""
    return np.random.default_rng(0).integers(0, 256, (2, *backbone.transform.shape), dtype=np.uint8)


def blank_images(backbone: Backbone, batch: int) -> Tensor:
    """Black images, (batch, C, H, W) uint8."""
    return torch.zeros(batch, *backbone.transform.shape, dtype=torch.uint8)
