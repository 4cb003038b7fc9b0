"""Layers other than the penultimate: found, pooled, and read without changing the network."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from networks import hooks_of, module_outputs, normalised, pixels_for
from torch import nn
from torch.nn import functional as F
from torchvision import models

from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.feature_extractor import last_map, pool
from featx.errors import BackboneError
from featx.layer_spec import LayerNode


def test_a_layer_is_the_mean_of_its_map_over_height_and_width(resnet: Backbone) -> None:
    pixels = pixels_for(resnet)
    maps = module_outputs(resnet.network, normalised(resnet, pixels), "layer3", "layer1.0.bn2", "maxpool")
    features = resnet.encode(pixels)
    assert resnet.layers == {"penultimate": 512, "layer1.0.bn2": 64, "layer3": 256, "maxpool": 64}
    for layer, out in maps.items():
        np.testing.assert_allclose(features[layer], out.mean(dim=(2, 3)), rtol=1e-5)


def test_a_layer_that_is_later_changed_in_place_is_given_as_it_was(resnet: Backbone, traced_resnet: Backbone) -> None:
    # bn2's output is next changed by += and then by a ReLU in place.
    pixels = pixels_for(resnet)
    network, images = resnet.network, normalised(resnet, pixels)
    block = network.layer1[0]
    with torch.inference_mode():
        entering = network.maxpool(F.relu(network.bn1(network.conv1(images))))
        norm = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(entering)))))
    expected = norm.mean(dim=(2, 3))
    assert (expected < 0).any()
    np.testing.assert_allclose(resnet.encode(pixels)["layer1.0.bn2"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(traced_resnet.encode(pixels)["layer1.0.bn2"], expected, rtol=1e-4, atol=1e-6)
    features = traced_resnet.encode(pixels)
    added = norm + entering
    np.testing.assert_allclose(features["layer1.0.add"], added.mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features["layer1.0.relu_1"], F.relu(added).mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)


def test_a_traced_network_gives_what_the_network_itself_gives(resnet: Backbone, traced_resnet: Backbone) -> None:
    pixels = pixels_for(resnet)
    own, traced = resnet.encode(pixels), traced_resnet.encode(pixels)
    assert list(traced) == ["penultimate", "flatten", "layer1.0.add", "layer1.0.bn2", "layer1.0.relu_1", "layer3"]
    for layer in ("penultimate", "layer3", "layer1.0.bn2"):
        np.testing.assert_array_equal(traced[layer], own[layer])
        assert traced_resnet.identities[layer] == resnet.identities[layer]
    np.testing.assert_array_equal(traced["flatten"], own["penultimate"])


def test_a_module_that_is_called_several_times_is_read_at_its_first_call() -> None:
    backbone = load_backbone("resnet18", weights="random", layers=("layer1.0.relu",), crop=64)
    traced = load_backbone("resnet18", weights="random", layers=("layer1.0.relu", "layer1.0.relu_1"), crop=64)
    pixels = pixels_for(backbone)
    first = module_outputs(backbone.network, normalised(backbone, pixels), "layer1.0.relu")["layer1.0.relu"]
    for features in (backbone.encode(pixels), traced.encode(pixels)):
        np.testing.assert_allclose(features["layer1.0.relu"], first.mean(dim=(2, 3)), rtol=1e-5)


def test_maps_whose_channels_come_last_are_pooled_over_height_and_width() -> None:
    backbone = load_backbone("swin_t", weights="random", layers=("features.1", "norm", "permute"), crop=64)
    assert backbone.layers == {"penultimate": 768, "features.1": 96, "norm": 768, "permute": 768}
    pixels = pixels_for(backbone)
    maps = module_outputs(backbone.network, normalised(backbone, pixels), "features.1", "norm", "permute")
    assert maps["features.1"].shape == (2, 16, 16, 96)
    assert maps["permute"].shape == (2, 768, 2, 2)
    features = backbone.encode(pixels)
    np.testing.assert_allclose(features["features.1"], maps["features.1"].mean(dim=(1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features["norm"], maps["norm"].mean(dim=(1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features["permute"], maps["permute"].mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features["permute"], features["penultimate"], rtol=1e-4, atol=1e-6)


def test_tokens_are_averaged() -> None:
    pytest.importorskip("timm")
    backbone = load_backbone("timm/vit_tiny_patch16_224", weights="random", layers=("blocks.3",))
    pixels = pixels_for(backbone)
    tokens = module_outputs(backbone.network, normalised(backbone, pixels), "blocks.3")["blocks.3"]
    assert tokens.shape == (2, 197, 192)
    np.testing.assert_allclose(backbone.encode(pixels)["blocks.3"], tokens.mean(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_a_map_becomes_a_vector_in_the_way_that_is_asked_for(traced: bool) -> None:
    layers = [f"layer3:{pooling}" for pooling in ("max", "gem", "flatten")]
    more = ("layer1.0.add",) if traced else ()
    backbone = load_backbone("resnet18", weights="random", layers=(*layers, "layer3", *more), crop=64)
    assert {name: backbone.layers[name] for name in ("layer3", *layers)} == dict.fromkeys(
        ("layer3", *layers[:2]), 256
    ) | {"layer3:flatten": 256 * 16}
    pixels = pixels_for(backbone)
    maps = module_outputs(backbone.network, normalised(backbone, pixels), "layer3")["layer3"]
    found = backbone.encode(pixels)
    np.testing.assert_allclose(found["layer3"], maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found["layer3:max"], maps.amax(dim=(2, 3)))
    np.testing.assert_array_equal(found["layer3:flatten"], maps.flatten(1))
    by_hand = (maps.double().clamp(min=1e-6) ** 3).mean(dim=(2, 3)) ** (1 / 3)
    np.testing.assert_allclose(found["layer3:gem"], by_hand, rtol=1e-4)


@pytest.mark.parametrize(("pooling", "cells"), [("grid2", (2, 2)), ("grid3", (3, 3)), ("tokens:8", (2, 4))])
@pytest.mark.parametrize("kind", ["map", "channels last", "tokens", "tokens after a class token"])
def test_cells_are_those_of_adaptive_average_pooling(pooling: str, cells: tuple[int, int], kind: str) -> None:
    maps = torch.randn(2, 5, 7, 14)
    expected = F.adaptive_avg_pool2d(maps, cells).flatten(2).transpose(1, 2).flatten(1)
    patches = maps.flatten(2).transpose(1, 2)
    out = {"map": maps, "channels last": maps.permute(0, 2, 3, 1), "tokens": patches}.get(
        kind, torch.cat([torch.randn(2, 1, 5), patches], dim=1)
    )
    torch.testing.assert_close(pool(LayerNode.parse(f"layer4:{pooling}"), out, (224, 448)), expected)
    if kind == "tokens after a class token":
        with_class = pool(LayerNode.parse(f"layer4:{pooling}+cls"), out, (224, 448))
        torch.testing.assert_close(with_class, torch.cat([expected, out[:, 0]], dim=1))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_16", "swin_t"])
def test_a_pooled_penultimate_is_the_last_map_before_it(name: str) -> None:
    size = 224 if name == "vit_b_16" else 64
    backbone = load_backbone(name, weights="random", pooling="grid2", size=size, device="cpu")
    width = backbone.layers["penultimate:grid2"] // 4
    layer = LayerNode.parse("penultimate:grid2")
    module = backbone.extractor.module_of[layer]
    pixels = pixels_for(backbone)
    out = module_outputs(backbone.network, normalised(backbone, pixels), module)[module]
    found = backbone.encode(pixels)
    np.testing.assert_allclose(found["penultimate:grid2"], pool(layer, out, (size, size)), rtol=1e-4, atol=1e-6)
    if name in ("resnet18", "swin_t"):  # whose last map is the mean of four cells of one size
        mean = found["penultimate:grid2"].reshape(2, 4, width).mean(axis=1)
        np.testing.assert_allclose(mean, found["penultimate"], rtol=1e-4, atol=1e-5)


def test_a_grid_leaves_the_identities_of_other_layers_as_they_were() -> None:
    plain = load_backbone("lenet5", layers=("features.3:max",), device="cpu")
    more = plain.with_layers(("features.3:max", "penultimate:grid2"))
    assert plain.identities.items() <= more.identities.items()
    assert len(set(more.identities.values())) == 3


def test_a_network_without_a_map_has_no_grid() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 2))
    with pytest.raises(BackboneError, match="penultimate:grid2: flat has no map or tokens before its last layer"):
        last_map(network, "flat", "2", "penultimate:grid2", torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("prefix", [1, 5])
def test_class_tokens_come_before_the_patches(prefix: int) -> None:
    tokens = torch.randn(2, prefix + 16, 8)
    patches = tokens[:, prefix:].mean(dim=1)
    torch.testing.assert_close(pool(LayerNode.parse("blocks.3:cls"), tokens), tokens[:, 0])
    torch.testing.assert_close(
        pool(LayerNode.parse("blocks.3:avg+cls"), tokens), torch.cat([patches, tokens[:, 0]], dim=1)
    )
    torch.testing.assert_close(pool(LayerNode.parse("blocks.3"), tokens), tokens.mean(dim=1))


def test_of_several_outputs_of_a_layer_the_first_counts(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("Rich"), layers=["attention"], device="cpu")
    pixels = pixels_for(backbone)
    found: list[torch.Tensor] = []
    backbone.network.get_submodule("attention").register_forward_hook(lambda _, __, out: found.append(out[0]))
    np.testing.assert_allclose(backbone.encode(pixels)["attention"], found[0].mean(dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "features.3:mean",
            "there is no pooling 'mean'; expected avg, max, gem, cls, avg\\+cls, flatten, gridG such as grid2",
        ),
        ("features.3:grid1", "there is no pooling 'grid1'"),
        (
            "penultimate:avg",
            "penultimate is one vector; for the mean of the map before it, name that layer, such as layer4",
        ),
        ("penultimate:grid6", "has a map of 5 x 5 places, which is smaller than 6 x 6 cells; ask for fewer cells"),
        (
            "features.0:tokens:15",
            "15 tokens make no grid in the shape of images of 32 x 32 .*; expected tokens:9 or tokens:16",
        ),
        ("features.3:grid2+cls", "without a class token"),
        ("hidden:grid2", "'hidden:grid2' returns one vector per image, which has no cells"),
        (
            "features.3:cls",
            "'features.3:cls' returns shape .* per image, without a class token; pool it by avg, max or gem",
        ),
    ],
)
def test_a_pooling_that_cannot_be_is_an_error(layer: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone("lenet5", layers=(layer,))


def test_a_layer_that_would_be_too_long_is_not_flattened() -> None:
    with pytest.raises(
        BackboneError, match=r"'conv1:flatten' would have 65,600 numbers per image; flatten allows at most 65,536"
    ):
        pool(LayerNode.parse("conv1:flatten"), torch.zeros(1, 1025, 8, 8))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "layer5",
            r"^resnet18 has no layer 'layer5'; did you mean layer\d.*\? Modules: conv1, bn1, relu, maxpool, layer1,",
        ),
        ("layer1.0.relu_7", r"has no layer 'layer1\.0\.relu_7'; did you mean .*layer1\.0\.relu_1"),
        ("qqq", r"^resnet18 has no layer 'qqq'\. Modules: conv1, "),
    ],
)
def test_an_unknown_layer_is_an_error_with_a_suggestion(layer: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone("resnet18", weights="random", layers=(layer,), crop=64)


def test_encoding_leaves_the_network_as_it_was_built(resnet: Backbone, traced_resnet: Backbone) -> None:
    for backbone in (resnet, traced_resnet):
        before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
        backbone.encode(pixels_for(backbone))
        assert hooks_of(backbone.network) == 0
        assert not any(module.training for module in backbone.network.modules())
        assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
        assert backbone.network.relu.inplace
        assert type(backbone.network) is models.ResNet
        assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.network.state_dict().items())


@contextlib.contextmanager
def broken(layer: nn.Module) -> Iterator[None]:
    """A layer that raises."""

    def fail(*_: Any) -> None:
        raise RuntimeError("out of order")

    handle = layer.register_forward_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def test_a_batch_that_fails_half_way_leaves_nothing_to_the_next(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("Fixed"), layers=("conv",))
    pixels = pixels_for(backbone)
    expected = backbone.encode(pixels)["conv"]
    with pytest.raises(RuntimeError, match="out of order"), broken(backbone.network.fc):
        backbone.encode(pixels)
    assert hooks_of(backbone.network) == 0
    np.testing.assert_array_equal(backbone.encode(pixels)["conv"], expected)


@pytest.mark.parametrize(
    ("layer", "hint"),
    [("features.99", "features.9 or "), ("Features.3", "features.3\\?"), ("classifer", "classifier")],
)
def test_an_unknown_layer_brings_similar_ones_and_the_stages(layer: str, hint: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone("mobilenet_v2", weights="random", layers=(layer,), crop=64, device="cpu")
    assert re.search(
        rf"mobilenet_v2 has no layer '{layer}'; did you mean .*{hint}.* Its stages are features\.[01], features\.[23], .*"
        r"featx backbones mobilenet_v2 --layers",
        str(caught.value),
    )


def test_methods_that_change_a_node_in_place_do_not_change_what_is_read_of_it(own: Callable[[str], str]) -> None:
    by_module = load_backbone(own("InPlace"), layers=("norm",))
    by_node = load_backbone(own("InPlace"), layers=("norm", "sigmoid", "mul_"))
    pixels = pixels_for(by_module)
    expected, features = by_module.encode(pixels), by_node.encode(pixels)
    np.testing.assert_array_equal(features["norm"], expected["norm"])
    np.testing.assert_allclose(features["mul_"], 2 * expected["norm"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(features["sigmoid"], expected["penultimate"])


def test_a_network_that_tracing_changes_is_refused_rather_than_read_wrongly(own: Callable[[str], str]) -> None:
    assert load_backbone(own("Unseen"), layers=("norm",)).layers == {"penultimate": 4, "norm": 4}
    with pytest.raises(
        BackboneError, match=r"traced by torch\.fx, is not the same network; name modules alone: conv, norm,"
    ):
        load_backbone(own("Unseen"), layers=("sigmoid",))


def test_a_network_that_cannot_be_traced_still_has_its_modules(own: Callable[[str], str]) -> None:
    assert load_backbone(own("Branching"), layers=("norm",)).layers == {"penultimate": 4, "norm": 4}
    with pytest.raises(
        BackboneError, match="cannot be traced for the layer 'relu'; name one of its modules: conv, norm,"
    ):
        load_backbone(own("Branching"), layers=("relu",))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("pieces", "layer 'pieces' returns a list, not one tensor; name a layer inside it"),
        ("rows", "layer 'rows' returns a tensor of 5 dimensions; expected 2, 3 or 4"),
        (
            "windows",
            r"layer 'windows' returns a tensor of shape \(1, 1, 4, 1\), which is not a square map.*; name another layer",
        ),
    ],
)
def test_a_layer_that_gives_no_features_is_refused(own: Callable[[str], str], layer: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(own("Rich"), layers=(layer,))
