"""The last layer of every family of networks: what enters it is the embedding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import normalised, pixels_for
from torch import Tensor
from torch.nn import functional as F
from torchvision import models

from featx.backbones import registry
from featx.backbones.backbone import load_backbone
from featx.backbones.sources.torchvision_source import torchvision_names
from featx.errors import BackboneError

# Name, last classifier layer, width D of what enters it, side of the images (None: the weights' own, which they insist on).
FAMILIES = [
    ("alexnet", "classifier.6", 4096, 64),
    ("vgg11", "classifier.6", 4096, 32),
    ("vgg11_bn", "classifier.6", 4096, 32),
    ("googlenet", "fc", 1024, 64),
    ("inception_v3", "fc", 2048, 96),
    ("resnet18", "fc", 512, 64),
    ("resnext50_32x4d", "fc", 2048, 64),
    ("wide_resnet50_2", "fc", 2048, 64),
    ("mobilenet_v2", "classifier.1", 1280, 64),
    ("mobilenet_v3_small", "classifier.3", 1024, 64),
    ("densenet121", "classifier", 1024, 64),
    ("efficientnet_b0", "classifier.1", 1280, 64),
    ("efficientnet_v2_s", "classifier.1", 1280, 64),
    ("squeezenet1_1", "classifier.1", 512, 64),
    ("convnext_tiny", "classifier.2", 768, 64),
    ("vit_b_32", "heads.head", 768, None),
    ("swin_t", "head", 768, 64),
    ("swin_v2_t", "head", 768, 64),
    ("maxvit_t", "classifier.5", 512, None),
    ("mnasnet0_5", "classifier.1", 1280, 64),
    ("regnet_x_400mf", "fc", 400, 64),
    ("shufflenet_v2_x0_5", "fc", 1024, 64),
    ("lenet5", "classifier", 84, None),
    ("mobilenet_v1_025", "classifier", 256, 64),
    ("timm/resnet10t", "fc", 512, 64),
    ("timm/vit_tiny_patch16_224", "head", 192, None),
]


@pytest.mark.parametrize(("name", "last", "width", "side"), FAMILIES)
def test_the_embedding_is_what_enters_the_last_classifier_layer(
    name: str, last: str, width: int, side: int | None
) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    backbone = load_backbone(name, weights="random", crop=side)
    assert backbone.layers == {"penultimate": width}
    assert backbone.classifier == last

    pixels = pixels_for(backbone)
    entered: list[Tensor] = []
    gave: list[Tensor] = []
    layer = backbone.network.get_submodule(last)
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: entered.append(args[0].clone())),
        layer.register_forward_hook(lambda _, __, out: gave.append(out.clone())),
    ]
    with torch.inference_mode():
        logits = backbone.network(normalised(backbone, pixels))
    for hook in hooks:
        hook.remove()
    expected = entered[0] if entered[0].ndim == 2 else entered[0].mean(dim=(2, 3))

    embedding = backbone.encode(pixels)["penultimate"]
    assert embedding.shape == (2, width)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    assert (embedding[0] != embedding[1]).any()
    assert (
        torch.equal(logits, gave[0]) or name == "squeezenet1_1"
    )  # whose last layer is a convolution, pooled afterwards


def test_one_network_of_every_family_of_torchvision_is_tested() -> None:
    def builder(name: str) -> str:
        return str(models.get_model_builder(name).__module__)

    every = {builder(name) for name in models.list_models(module=models)}
    assert {builder(name) for name, *_ in FAMILIES if name in torchvision_names()} == every
    assert {name for name in registry.names() if name not in torchvision_names()} == {
        "lenet5",
        *(f"mobilenet_v1_{width}" for width in ("025", "050", "075", "100")),
    }


def test_the_embedding_of_vgg_is_taken_after_its_relu() -> None:
    backbone = load_backbone("vgg11", weights="random", crop=32)
    embedding = backbone.encode(pixels_for(backbone))["penultimate"]
    assert embedding.min() == 0
    assert 0.2 < (embedding > 0).mean() < 0.8


def test_a_network_of_ones_own_may_name_its_last_layer(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("Named"))
    assert backbone.classifier == "fc"
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        expected = backbone.network.embed(torch.from_numpy(pixels) / 255)
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-5)


def test_an_identity_at_the_end_makes_an_embedding_of_the_output(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("identity"))
    pixels = pixels_for(backbone)
    expected = F.adaptive_avg_pool2d(normalised(backbone, pixels), 4).flatten(1)
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("factory", "last"), [("Unnamed", "scale"), ("Several", "fc")])
def test_a_last_layer_that_does_not_give_the_output_is_refused(
    own: Callable[[str], str], factory: str, last: str
) -> None:
    with pytest.raises(
        BackboneError, match=rf"{last}', does not return the network's output.*method get_classifier\(\)"
    ):
        load_backbone(own(factory))
