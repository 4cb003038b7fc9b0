"""Batch norms are folded only where the network stays the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from engine_networks import Load, assert_close, pixels_for
from torch import nn

from featx.backbones.backbone import Backbone
from featx.extraction.engines import open_engine
from featx.extraction.network_copy import fold_norms


def folded(backbone: Backbone, *keep: str) -> tuple[int, nn.Module]:
    """How many norms are folded into which network."""
    network = backbone.network
    images = torch.rand(1, 3, backbone.transform.crop, backbone.transform.crop)
    return fold_norms(network, images, keep=[network.get_submodule(name) for name in keep]), network


def norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "crop", "count", "left"),
    [
        ("lenet5", 32, 0, 0),
        ("resnet18", 64, 20, 0),
        ("mobilenet_v1_025", 64, 27, 0),
        ("mobilenet_v3_small", 64, 34, 0),
        ("densenet121", 64, 59, 62),  # the first of each layer normalises what several layers gave
    ],
)
def test_each_norm_right_after_a_convolution_is_folded(
    name: str, crop: int, count: int, left: int, trained: Load
) -> None:
    backbone = trained(name, crop=crop)
    pixels = pixels_for(backbone, 2)
    wanted = backbone.encode(pixels)
    found, network = folded(backbone)
    assert (found, len(norms(network))) == (count, left)
    assert_close(backbone.encode(pixels), wanted)


def test_norms_of_timm_keep_their_activation(trained: Load) -> None:
    pytest.importorskip("timm")
    backbone = trained("timm/mobilenetv3_small_050", crop=64)
    pixels = pixels_for(backbone, 2)
    wanted = backbone.encode(pixels)
    found, network = folded(backbone)
    assert (found, norms(network)) == (34, [])
    assert sum(isinstance(module, nn.Hardswish) for module in network.modules()) > 5
    assert_close(backbone.encode(pixels), wanted)


@pytest.mark.parametrize(
    ("factory", "keep", "count", "left"),
    [
        ("mixed", (), 3, ["dense_norm"]),
        ("mixed", ("depth",), 2, ["depth_norm", "dense_norm"]),
        ("mixed", ("dense", "hidden", "stem.0"), 1, ["stem.1", "dense_norm", "hidden_norm"]),
        ("mixed", ("depth_norm", "stem"), 3, ["dense_norm"]),
        ("called_twice", (), 1, ["norm2"]),
        ("norm_twice", (), 0, ["norm", "norm2"]),
        ("in_place_between", (), 1, ["norm2"]),
    ],
)
def test_what_runs_twice_or_is_wanted_or_changed_in_between_is_not_folded(
    factory: str, keep: Sequence[str], count: int, left: list[str], own: Load
) -> None:
    backbone = own(factory)
    pixels = pixels_for(backbone)
    wanted = backbone.encode(pixels)
    found, network = folded(backbone, *keep)
    assert (found, norms(network)) == (count, left)
    assert_close(backbone.encode(pixels), wanted)


def test_folding_leaves_no_hooks_even_where_the_network_fails(own: Load) -> None:
    network = own("small").network
    with pytest.raises(RuntimeError, match="expected input"):
        fold_norms(network, torch.rand(1, 4, 32, 32))
    assert fold_norms(network, torch.rand(1, 3, 32, 32)) == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("factory", ["output_twice", "odd_norm"])
def test_where_folding_goes_wrong_the_network_runs_unfolded_and_right(factory: str, own: Load) -> None:
    backbone = own(factory)
    pixels = pixels_for(backbone)
    wanted = backbone.encode(pixels)
    engine = open_engine("eager", backbone)
    assert_close(engine(pixels), wanted)
    count, _ = folded(backbone)
    assert count == 2
    spoilt = np.linalg.norm(backbone.encode(pixels)["penultimate"] - wanted["penultimate"])
    assert spoilt > 0.01 * np.linalg.norm(wanted["penultimate"])  # so that the fallback was needed
