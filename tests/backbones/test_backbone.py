"""Frozen networks: what is tapped, what it is called, and what makes it the same one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import Recorder
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from featx.backbones import catalog, registry
from featx.backbones.architectures import Conv2dSame, LeNet5, MobileNetV1
from featx.backbones.backbone import Backbone, as_stored, layers_of, load_backbone, normalise, restore_backbone
from featx.backbones.feature_extractor import pool
from featx.data.decode import read_pixels
from featx.data.scan import scan_images
from featx.data.transform import Transform
from featx.devices import pick_device
from featx.errors import BackboneError, StaleCacheError
from featx.layer_spec import VIEWS, LayerNode, LayerSpec, stored_name


def pixels_for(backbone: Backbone, count: int = 2) -> np.ndarray:
    side = backbone.transform.crop
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def normalised(backbone: Backbone, pixels: np.ndarray) -> Tensor:
    """(B, 3, H, W) uint8 to what the network takes, by the textbook."""
    mean = np.array(backbone.transform.mean, np.float32)[:, None, None]
    std = np.array(backbone.transform.std, np.float32)[:, None, None]
    return torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std)


def predict_rows(network: nn.Module, images: Tensor, *names: str) -> dict[str, Tensor]:
    """What modules of a network give at their first call, copied at once."""
    seen: dict[str, Tensor] = {}

    def see(name: str, out: Tensor) -> None:
        seen.setdefault(name, out.clone())

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: see(name, out))
        for name in names
    ]
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    return seen


def hooks_of(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    """ResNet-18 with random weights, tapped at modules alone."""
    layers = ("layer1.0.bn2", "layer3", "maxpool")
    return load_backbone("resnet18", weights="random", layers=layers, crop=64)


@pytest.fixture(scope="module")
def traced_resnet() -> Backbone:
    """The same, tapped at functions as well, which takes a traced graph."""
    layers = ("layer1.0.bn2", "layer1.0.relu_1", "layer1.0.add", "layer3", "flatten")
    return load_backbone("resnet18", weights="random", layers=layers, crop=64)


# Every family

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
    assert {builder(name) for name, *_ in FAMILIES if name in registry.torchvision_names()} == every
    assert {name for name in registry.names() if name not in registry.torchvision_names()} == {
        "lenet5",
        *(f"mobilenet_v1_{width}" for width in ("025", "050", "075", "100")),
    }


def test_the_embedding_of_vgg_is_taken_after_its_relu() -> None:
    backbone = load_backbone("vgg11", weights="random", crop=32)
    embedding = backbone.encode(pixels_for(backbone))["penultimate"]
    assert embedding.min() == 0
    assert 0.2 < (embedding > 0).mean() < 0.8


def test_pixels_are_normalised_by_the_transform() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    transform = Transform(mean=(0.5, 0.1, 0.0), std=(0.5, 0.1, 0.25))
    torch.testing.assert_close(normalise(pixels, transform).flatten(), torch.tensor([-1.0, 1.0, 4.0]))


def test_the_same_padding_of_mobilenet_is_tensorflows() -> None:
    conv = Conv2dSame(2, 3, 3, stride=2, bias=False)
    plain = nn.Conv2d(2, 3, 3, stride=2, bias=False)
    plain.load_state_dict(conv.state_dict())
    with torch.inference_mode():
        for size, pads in ((8, (0, 1, 0, 1)), (7, (1, 1, 1, 1))):
            images = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(conv(images), plain(F.pad(images, pads)))
            assert conv(images).shape == (1, 3, 4, 4)
        wide = torch.zeros(1, 2, 8, 5)
        assert conv(wide).shape == (1, 3, 4, 3)


def test_the_width_of_mobilenet_multiplies_its_channels() -> None:
    assert [MobileNetV1(width).classifier.in_features for width in (1.0, 0.75, 0.5, 0.25)] == [1024, 768, 512, 256]
    state = MobileNetV1(0.75).state_dict()
    assert state["features.0.0.weight"].shape == (24, 3, 3, 3)
    assert state["features.13.1.0.weight"].shape == (768, 768, 1, 1)


def test_lenet_takes_grey_images_as_the_mean_of_rgb() -> None:
    network = LeNet5().eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(images), network(images.mean(dim=1, keepdim=True)))


# More layers


def test_a_layer_is_the_mean_of_its_map_over_height_and_width(resnet: Backbone) -> None:
    pixels = pixels_for(resnet)
    maps = predict_rows(resnet.network, normalised(resnet, pixels), "layer3", "layer1.0.bn2", "maxpool")
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


def test_asking_for_the_penultimate_or_for_a_layer_twice_changes_nothing(resnet: Backbone) -> None:
    again = load_backbone("resnet18", weights="random", layers=("layer3", "penultimate", "layer3"), crop=64)
    assert list(again.layers) == ["penultimate", "layer3"]
    np.testing.assert_array_equal(
        again.encode(pixels_for(again))["layer3"], resnet.encode(pixels_for(resnet))["layer3"]
    )


def test_the_same_network_can_be_tapped_elsewhere_without_loading_it_again(resnet: Backbone) -> None:
    layers = dict(resnet.layers)
    other = resnet.with_layers(["layer2", "layer1.0.add"])
    assert other.network is resnet.network
    assert other.layers == {"penultimate": 512, "layer1.0.add": 64, "layer2": 128}
    pixels = pixels_for(resnet)
    maps = predict_rows(resnet.network, normalised(resnet, pixels), "layer2")
    np.testing.assert_allclose(other.encode(pixels)["layer2"], maps["layer2"].mean(dim=(2, 3)), rtol=1e-5)
    assert other.identities["penultimate"] == resnet.identities["penultimate"]
    assert resnet.layers == layers
    assert list(resnet.encode(pixels)) == list(layers)


def test_a_module_that_is_called_several_times_is_read_at_its_first_call() -> None:
    backbone = load_backbone("resnet18", weights="random", layers=("layer1.0.relu",), crop=64)
    traced = load_backbone("resnet18", weights="random", layers=("layer1.0.relu", "layer1.0.relu_1"), crop=64)
    pixels = pixels_for(backbone)
    first = predict_rows(backbone.network, normalised(backbone, pixels), "layer1.0.relu")["layer1.0.relu"]
    for features in (backbone.encode(pixels), traced.encode(pixels)):
        np.testing.assert_allclose(features["layer1.0.relu"], first.mean(dim=(2, 3)), rtol=1e-5)


def test_maps_whose_channels_come_last_are_pooled_over_height_and_width() -> None:
    backbone = load_backbone("swin_t", weights="random", layers=("features.1", "norm", "permute"), crop=64)
    assert backbone.layers == {"penultimate": 768, "features.1": 96, "norm": 768, "permute": 768}
    pixels = pixels_for(backbone)
    maps = predict_rows(backbone.network, normalised(backbone, pixels), "features.1", "norm", "permute")
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
    tokens = predict_rows(backbone.network, normalised(backbone, pixels), "blocks.3")["blocks.3"]
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
    maps = predict_rows(backbone.network, normalised(backbone, pixels), "layer3")["layer3"]
    found = backbone.encode(pixels)
    np.testing.assert_allclose(found["layer3"], maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found["layer3:max"], maps.amax(dim=(2, 3)))
    np.testing.assert_array_equal(found["layer3:flatten"], maps.flatten(1))
    by_hand = (maps.double().clamp(min=1e-6) ** 3).mean(dim=(2, 3)) ** (1 / 3)
    np.testing.assert_allclose(found["layer3:gem"], by_hand, rtol=1e-4)


@pytest.mark.parametrize("prefix", [1, 5])
def test_class_tokens_come_before_the_patches(prefix: int) -> None:
    tokens = torch.randn(2, prefix + 16, 8)
    patches = tokens[:, prefix:].mean(dim=1)
    torch.testing.assert_close(pool(LayerNode.parse("blocks.3:cls"), tokens), tokens[:, 0])
    torch.testing.assert_close(
        pool(LayerNode.parse("blocks.3:avg+cls"), tokens), torch.cat([patches, tokens[:, 0]], dim=1)
    )
    torch.testing.assert_close(pool(LayerNode.parse("blocks.3"), tokens), tokens.mean(dim=1))


def test_pooling_is_part_of_what_features_are() -> None:
    layers = ("features.3:max", "features.3", "features.3:gem")
    backbone = load_backbone("lenet5", layers=layers)
    assert list(backbone.layers) == ["penultimate", "features.3", "features.3:gem", "features.3:max"]
    assert len(set(backbone.identities.values())) == 4
    plain = load_backbone("lenet5", layers=("features.3:avg",))
    assert list(plain.layers) == ["penultimate", "features.3"], "the default has no other name"
    assert plain.identities["features.3"] == backbone.identities["features.3"]
    by_default = load_backbone("lenet5", layers=("features.3", "features.0:avg", "penultimate"), pooling="gem")
    assert list(by_default.layers) == ["penultimate", "features.0", "features.3:gem"]
    assert by_default.identities["features.3:gem"] == backbone.identities["features.3:gem"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("features.3:mean", "there is no pooling 'mean'; expected avg, max, gem, cls, avg\\+cls, flatten"),
        ("penultimate:gem", "penultimate is one vector; pool a layer before it, such as layer4:gem"),
        ("features.3:cls", "'features.3:cls' gives .*: no class token; pool it by avg, max or gem"),
    ],
)
def test_a_pooling_that_cannot_be_is_an_error(layer: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone("lenet5", layers=(layer,))


def test_a_layer_that_would_be_too_long_is_not_kept_flat() -> None:
    with pytest.raises(
        BackboneError, match=r"'conv1:flatten' would be 65,600 numbers an image; at most 65,536 are kept"
    ):
        pool(LayerNode.parse("conv1:flatten"), torch.zeros(1, 1025, 8, 8))


def test_all_stages_are_tapped_in_one_pass() -> None:
    backbone = load_backbone("resnet18", weights="random", stages=True, layers=("layer4:max",), crop=64)
    assert [stage.layer for stage in backbone.stages()] == ["bn1", "layer1", "layer2", "layer3", "layer4"]
    assert backbone.layers == {
        "penultimate": 512, "bn1": 64, "layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512, "layer4:max": 512,
    }  # fmt: skip
    found = backbone.encode(pixels_for(backbone))
    np.testing.assert_allclose(found["layer4"], found["penultimate"], rtol=1e-4, atol=1e-6)


def test_the_stages_of_a_backbone_are_known_without_its_weights() -> None:
    stages, every = layers_of("vit_b_16")
    assert [(s.layer, s.shape, s.width, s.blocks) for s in stages] == [
        ("conv_proj", (768, 14, 14), 768, 1), ("encoder.layers.encoder_layer_3", (197, 768), 768, 5),
        ("encoder.layers.encoder_layer_7", (197, 768), 768, 9), ("encoder.ln", (197, 768), 768, 14),
    ]  # fmt: skip
    assert len(every) == 14


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


# Frozen, and left as it was


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


def test_a_row_does_not_depend_on_the_other_rows_of_its_batch(resnet: Backbone) -> None:
    pixels = pixels_for(resnet)
    together, first, second = resnet.encode(pixels), resnet.encode(pixels[:1]), resnet.encode(pixels[1:])
    for layer, rows in together.items():
        np.testing.assert_allclose(rows, np.concatenate([first[layer], second[layer]]), rtol=1e-4, atol=1e-6)


def test_a_tensor_of_pixels_gives_what_an_array_gives(resnet: Backbone) -> None:
    pixels = pixels_for(resnet)
    array, tensor = resnet.encode(pixels), resnet.encode(torch.from_numpy(pixels))
    np.testing.assert_array_equal(array["penultimate"], tensor["penultimate"])


def test_float16_features_are_the_float32_ones_rounded(resnet: Backbone) -> None:
    half = load_backbone("resnet18", weights="random", dtype="float16", crop=64)
    features = half.encode(pixels_for(half))["penultimate"]
    assert features.dtype == np.float16
    assert next(half.network.parameters()).dtype == torch.float32
    expected = resnet.encode(pixels_for(resnet))["penultimate"].astype(np.float16)
    np.testing.assert_array_equal(features, expected)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(BackboneError, match="dtype is 'float64'; expected float32 or float16"):
        load_backbone("lenet5", dtype="float64")


def test_random_weights_are_always_the_same_and_leave_the_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a generator of the caller's was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch.mps, "manual_seed", refuse)
    before = torch.get_rng_state()
    first = load_backbone("lenet5", weights="random")
    torch.rand(5)
    second = load_backbone("lenet5", weights="random")
    assert first.identity == second.identity
    torch.set_rng_state(before)
    load_backbone("squeezenet1_1", weights="random", crop=64)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_too_small_for_the_network_is_an_error_that_names_the_option() -> None:
    with pytest.raises(BackboneError, match=r"alexnet cannot run on 3 x 10 x 10 pixels \(.*too small\); .*--crop"):
        load_backbone("alexnet", weights="random", crop=10)


def test_an_image_of_another_size_than_a_vision_transformer_takes_is_an_error() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"vit_tiny_patch16_224 cannot run on 3 x 192 x 192 pixels .*--crop"):
        load_backbone("timm/vit_tiny_patch16_224", weights="random", crop=192)


# Precision


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1"])
def test_a_lower_precision_gives_nearly_the_same_features_and_another_identity(name: str) -> None:
    side = None if name == "lenet5" else 64
    full = load_backbone(name, weights="random", layers=("features",), crop=side, device="cpu")
    low = load_backbone(name, weights="random", layers=("features",), crop=side, precision="bfloat16", device="cpu")
    assert not set(low.identities.values()) & set(full.identities.values())
    assert low.describe() == {**full.describe(), "precision": "bfloat16"}
    pixels = pixels_for(full, 4)
    wanted, found = full.encode(pixels), low.encode(pixels)
    for layer, rows in wanted.items():
        assert found[layer].dtype == np.float32
        distances = np.linalg.norm(found[layer] - rows, axis=1) / np.linalg.norm(rows, axis=1)
        assert (distances < 5e-2).all()
        assert (distances > 1e-5).all()


def test_the_weights_of_a_lower_precision_stay_in_full(lenet_in_bfloat16: Backbone) -> None:
    assert {tensor.dtype for tensor in lenet_in_bfloat16.network.state_dict().values()} == {torch.float32}
    assert torch.is_autocast_enabled("cpu") is False


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"^precision is 'float64'; expected one of float32, bfloat16, float16$"):
        load_backbone("lenet5", precision="float64")


def test_a_backbone_is_made_again_in_its_precision(lenet_in_bfloat16: Backbone) -> None:
    first = lenet_in_bfloat16
    again = restore_backbone(kept(first), layers=first.identities, device="cpu")
    assert (again.precision, again.identities) == ("bfloat16", first.identities)
    pixels = pixels_for(first)
    np.testing.assert_array_equal(again.encode(pixels)["penultimate"], first.encode(pixels)["penultimate"])


def test_a_stored_precision_that_means_nothing_is_an_error(lenet_in_bfloat16: Backbone) -> None:
    described = kept(lenet_in_bfloat16)
    described["parts"]["precision"] = "float8"
    with pytest.raises(BackboneError, match="precision is 'float8'; expected one of float32, bfloat16, float16"):
        restore_backbone(described, layers=lenet_in_bfloat16.identities, device="cpu")
    del described["parts"]["precision"]
    with pytest.raises(BackboneError, match="the stored description of lenet5 means nothing: 'precision'"):
        restore_backbone(described, layers=lenet_in_bfloat16.identities, device="cpu")


@pytest.fixture
def lenet_in_bfloat16() -> Backbone:
    return load_backbone("lenet5", precision="bfloat16", device="cpu")


# Other types of features


def test_the_same_network_may_be_kept_in_another_type(resnet: Backbone) -> None:
    half = resnet.with_dtype("float16")
    assert (half.dtype, resnet.dtype) == ("float16", "float32")
    assert half.network is resnet.network
    assert half.identity != resnet.identity
    expected = resnet.encode(pixels_for(resnet))["layer3"].astype(np.float16)
    np.testing.assert_array_equal(half.encode(pixels_for(resnet))["layer3"], expected)


def test_what_another_type_cannot_hold_is_infinite_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    found = as_stored(np.array([[1.0, 1e6, -1e6, np.nan]], np.float32), "float16")
    np.testing.assert_array_equal(found, np.array([[1, np.inf, -np.inf, np.nan]], np.float16))
    assert not recwarn.list
    rows = np.ones((2, 3), np.float32)
    assert as_stored(rows, "float32") is rows


# Decoding


def test_a_way_of_decoding_is_part_of_the_identity() -> None:
    exact, scaled = load_backbone("lenet5"), load_backbone("lenet5", decoding="scaled")
    assert (exact.transform.decoding, scaled.transform.decoding) == ("exact", "scaled")
    assert exact.identity != scaled.identity
    again = restore_backbone(kept(scaled), layers=scaled.identities)
    assert again.transform.decoding == "scaled"
    with pytest.raises(BackboneError, match=r"^lenet5 cannot take that: .*decoding"):
        load_backbone("lenet5", decoding="roughly")


# Devices


def test_the_device_is_picked_when_none_is_named() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device().type == expected
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("device", ["nonsense", "cuda:x", "cuda:99", "meta", "xpu"])
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_may_be(device: str) -> None:
    with pytest.raises(BackboneError, match=f"--device {device}: .*; expected auto, cpu, cuda or mps"):
        load_backbone("lenet5", device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["resnet18", "lenet5", "efficientnet_b0"])
def test_features_of_a_gpu_are_those_of_the_cpu(name: str) -> None:
    layers = ("layer1.0.bn2", "layer1.0.relu_1") if name == "resnet18" else ()
    side = None if name == "lenet5" else 96
    cpu, gpu = (
        load_backbone(name, weights="random", layers=layers, crop=side, device=device) for device in ("cpu", "cuda")
    )
    assert gpu.identities == cpu.identities
    on_cpu, on_gpu = cpu.encode(pixels_for(cpu, 8)), gpu.encode(pixels_for(gpu, 8))
    assert list(on_gpu) == list(on_cpu)
    for layer, expected in on_cpu.items():
        assert np.linalg.norm(on_gpu[layer] - expected) < 1e-3 * np.linalg.norm(expected)


# Identity


def test_the_identity_changes_with_whatever_changes_a_feature(tmp_path: Path) -> None:
    own = load_backbone("lenet5")
    state = {name: tensor.clone() for name, tensor in own.network.state_dict().items()}
    state["features.0.bias"][0] += 1e-3
    save_file(state, tmp_path / "changed.safetensors")
    t = own.transform
    others = {
        "one weight": load_backbone("lenet5", weights=str(tmp_path / "changed.safetensors")),
        "all weights": load_backbone("lenet5", weights="random"),
        "resize": load_backbone("lenet5", resize=40),
        "squash": load_backbone("lenet5", resize=0),
        "mean": load_backbone("lenet5", transform=Transform(t.resize, t.crop, (0.5, 0.5, 0.4), t.std)),
        "filter": load_backbone("lenet5", transform=Transform(t.resize, t.crop, t.mean, t.std, "bicubic")),
        "dtype": load_backbone("lenet5", dtype="float16"),
        "architecture": load_backbone("mobilenet_v1_025", weights="random", transform=t),
    }
    identities = {what: backbone.identities["penultimate"] for what, backbone in others.items()}
    assert len({own.identities["penultimate"], *identities.values()}) == 1 + len(others), identities
    assert all(re.fullmatch("[0-9a-f]{64}", identity) for identity in identities.values())


def test_the_identity_changes_with_the_crop() -> None:
    small, large = (load_backbone("squeezenet1_1", weights="random", crop=crop) for crop in (64, 96))
    assert small.identity != large.identity


def test_every_layer_has_an_identity_of_its_own_that_the_other_layers_do_not_change(resnet: Backbone) -> None:
    assert len(set(resnet.identities.values())) == len(resnet.layers) == 4
    alone = load_backbone("resnet18", weights="random", crop=64)
    assert alone.identities == {"penultimate": resnet.identities["penultimate"]}
    assert alone.identity != resnet.identity


def test_the_identity_does_not_change_between_two_loads_nor_by_encoding() -> None:
    first, second = load_backbone("lenet5"), load_backbone("lenet5")
    before = first.identity
    for count in (1, 5):
        first.encode(pixels_for(first, count))
    assert first.identity == before == second.identity


def test_the_identity_does_not_change_with_the_path_or_the_format_of_the_weights(tmp_path: Path) -> None:
    own = load_backbone("lenet5")
    (tmp_path / "deep").mkdir()
    torch.save({"model": own.network.state_dict()}, tmp_path / "a.pth")
    save_file(own.network.state_dict(), tmp_path / "deep" / "b.safetensors")
    for file in (tmp_path / "a.pth", tmp_path / "deep" / "b.safetensors"):
        loaded = load_backbone("lenet5", weights=str(file))
        assert loaded.weights == str(file.resolve())
        assert loaded.identity == own.identity


def test_a_network_of_torchvision_loaded_from_a_file_is_the_network_it_was_saved_from(tmp_path: Path) -> None:
    own = load_backbone("squeezenet1_1", weights="random", crop=64)
    torch.save(own.network.state_dict(), tmp_path / "mine.pth")
    loaded = load_backbone("squeezenet1_1", weights=str(tmp_path / "mine.pth"), crop=64)
    assert loaded.identity == own.identity
    pixels = pixels_for(own)
    np.testing.assert_array_equal(loaded.encode(pixels)["penultimate"], own.encode(pixels)["penultimate"])


# Weights


def test_a_network_without_weights_to_download_says_how_to_mend_it() -> None:
    with pytest.raises(
        BackboneError, match=r"mobilenet_v1_075 has no weights to download; name a file with --weights FILE"
    ):
        load_backbone("mobilenet_v1_075")


def test_the_auxiliary_heads_of_a_file_are_left_out(tmp_path: Path) -> None:
    published = models.googlenet(aux_logits=True, transform_input=True, init_weights=False)
    torch.save(published.state_dict(), tmp_path / "googlenet.pth")
    backbone = load_backbone("googlenet", weights=str(tmp_path / "googlenet.pth"), crop=64)
    assert not any(name.startswith("aux") for name in backbone.network.state_dict())
    assert torch.equal(backbone.network.fc.weight, published.fc.weight)


def test_weights_that_do_not_fit_name_the_file_and_the_network(tmp_path: Path) -> None:
    file = tmp_path / "lenet.safetensors"
    save_file(load_backbone("lenet5").network.state_dict(), file)
    with pytest.raises(BackboneError, match=rf"{re.escape(str(file))} does not fit ResNet: 102 missing: conv1\.weight"):
        load_backbone("resnet18", weights=str(file))


def test_weights_that_are_not_there_say_what_is_expected() -> None:
    with pytest.raises(
        BackboneError, match=r"no weights 'IMAGENET1K_V9', only IMAGENET1K_V1, IMAGENET1K_V2; nor is it a file"
    ):
        load_backbone("mobilenet_v2", weights="IMAGENET1K_V9")


@pytest.mark.parametrize(
    ("weights", "file", "resize"),
    [
        ("default", "mobilenet_v2-7ebf99e0.pth", 232),
        ("IMAGENET1K_V1", "mobilenet_v2-b0353104.pth", 256),
        ("IMAGENET1K_V2", "mobilenet_v2-7ebf99e0.pth", 232),
    ],
)
def test_weights_named_as_torchvision_names_them_bring_their_own_transform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, file: str, resize: int
) -> None:
    urls: list[str] = []
    torch.save(models.mobilenet_v2().state_dict(), tmp_path / file)
    monkeypatch.setattr("featx.backbones.weights.fetch", lambda url: urls.append(url) or tmp_path / file)
    network = registry.build("mobilenet_v2", weights)
    assert urls == [f"https://download.pytorch.org/models/{file}"]
    assert (network.transform.resize, network.transform.crop) == (resize, 224)
    assert network.weights == weights
    # The same file, named by its path, is known by its name.
    local = registry.build("mobilenet_v2", str(tmp_path / file))
    assert local.transform == network.transform
    assert local.origin == network.origin == {"source": "torchvision", "name": "mobilenet_v2"}


def test_a_vision_transformer_has_the_image_size_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8, "patch_size": 16}

    def get_model(name: str, *, weights: None, image_size: int) -> nn.Module:
        return models.VisionTransformer(image_size=image_size, **small)

    monkeypatch.setattr(models, "get_model", get_model)
    file = tmp_path / "vit_b_16_swag-9ac1b537.pth"
    torch.save(models.VisionTransformer(image_size=384, **small).state_dict(), file)
    monkeypatch.setattr("featx.backbones.weights.fetch", lambda url: tmp_path / Path(url).name)
    network = registry.build("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert network.module.image_size == network.transform.crop == 384
    assert registry.build("vit_b_16", str(file)).module.image_size == 384
    assert registry.blank(network.origin).image_size == 384
    assert registry.build("vit_b_16", "random").module.image_size == 224
    assert registry.blank(registry.build("vit_b_16", "random").origin).image_size == 224


@pytest.mark.real
def test_real_imagenet_weights_recognise_ants_and_bees(mobilenet_weights: Path, hymenoptera: Path) -> None:
    backbone = load_backbone("mobilenet_v1_075", weights=str(mobilenet_weights), device="cpu")
    assert backbone.layers == {"penultimate": 768}
    images = scan_images(hymenoptera)
    for label, imagenet_class in (("ants", 310), ("bees", 309)):
        is_wanted = (images.labels == images.classes.index(label)) & (images.splits == "train")
        rows = np.flatnonzero(is_wanted)[:40]
        pixels = np.stack([read_pixels(images.absolute(row).read_bytes(), backbone.transform) for row in rows])
        with torch.inference_mode():
            logits = backbone.network(normalise(torch.from_numpy(pixels), backbone.transform))
        assert len(rows) == 40
        assert (logits.argmax(dim=1) == imagenet_class).float().mean() >= 0.6


# A network of one's own

FACTORIES = '''
from __future__ import annotations

import dataclasses

import torch
from torch import nn

from featx import Transform


@dataclasses.dataclass
class Sizes:
    width: int = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, Sizes().width, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)
        self.transform = Transform(resize=40, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def embed(self, images):
        return self.drop(self.norm(self.conv(images)).relu().mean((2, 3)))

    def forward(self, images):
        return self.fc(self.embed(images))


class Named(Net):
    """Its last layer to run is no classifier."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(2, 2)

    def forward(self, images):
        logits = super().forward(images)
        return logits * self.scale(logits).sigmoid()

    def get_classifier(self):
        return self.fc


class Unnamed(Named):
    get_classifier = None


class Several(Net):
    def forward(self, images):
        return self.fc(self.embed(images)), images


class Fixed(Net):
    """Fails half way where images have another size."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(30 * 30 * 4, 2)

    def embed(self, images):
        return self.norm(self.conv(images)).flatten(1)


class InPlace(Net):
    """Changes its tensors by methods, and under their old names."""

    def embed(self, images):
        out = self.norm(self.conv(images))
        out = out.mul_(2).add_(1)
        return out.sigmoid().mean((2, 3))


class Unseen(Net):
    """Changes a tensor by a statement, which torch.fx drops from the graph."""

    def embed(self, images):
        out = self.norm(self.conv(images))
        out.mul_(2).add_(1)
        return out.sigmoid().mean((2, 3))


class Branching(Net):
    """Cannot be traced."""

    def embed(self, images):
        return super().embed(images if images.sum() > 0 else -images)


class Rich(Net):
    """Has modules that give no single tensor, or one of an odd shape."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.rows = nn.Unflatten(1, (2, 2, 1, 1))
        self.windows = nn.Unflatten(1, (1, 4, 1))

    def embed(self, images):
        embedding = super().embed(images)
        self.attention(embedding[:, None], embedding[:, None], embedding[:, None])
        self.rows(embedding)
        self.windows(embedding)
        return embedding


class OddTransform(Net):
    def __init__(self):
        super().__init__()
        self.transform = "resize to 32"


def plain():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 2))


def training():
    return Net().train()


def headless():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())


def identity():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Identity())


def nothing():
    return "a network"


def needy(width):
    return Net()


def broken():
    raise LookupError("no such thing")


not_a_function = 3
'''


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    """The backbone's name of a factory in a file of one's own."""
    (tmp_path / "mine.py").write_text(FACTORIES)
    return lambda factory: f"{tmp_path / 'mine.py'}:{factory}"


def test_a_file_of_ones_own_gives_a_backbone_with_its_transform(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("Net"), layers=("conv",))
    assert backbone.layers == {"penultimate": 4, "conv": 4}
    assert backbone.classifier == "fc"
    assert (backbone.transform.resize, backbone.transform.crop) == (40, 32)
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        expected = backbone.network.embed(torch.from_numpy(pixels) / 255)
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-5)
    assert load_backbone(own("Net")).identities["penultimate"] == backbone.identities["penultimate"]


def test_a_network_of_ones_own_without_a_transform_has_imagenets(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("plain"))
    assert backbone.transform == Transform()
    assert backbone.layers == {"penultimate": 7}


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
    with pytest.raises(BackboneError, match=rf"{last}', does not give the network's output.*method get_classifier\(\)"):
        load_backbone(own(factory))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("headless", r"Sequential has no linear or convolutional layer .* method get_classifier\(\)"),
        ("nothing", r"mine\.py:nothing: expected a function .* torch\.nn\.Module; it returned str"),
        ("missing", r"mine\.py:missing: expected a function .*; mine\.py has no such function"),
        ("not_a_function", r"expected a function .*; mine\.py has no such function"),
        ("broken", r"mine\.py:broken failed: LookupError: no such thing"),
        ("needy", r"mine\.py:needy failed: TypeError: .*missing 1 required positional argument: 'width'"),
        ("OddTransform", r"its transform is a str; expected a featx\.Transform"),
    ],
)
def test_a_factory_of_ones_own_that_fails_says_what_is_expected(
    own: Callable[[str], str], factory: str, message: str
) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(own(factory))


def test_a_file_of_ones_own_that_is_not_there_or_not_python_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"there is no file .*none\.py; expected path/to/file\.py:factory"):
        load_backbone(f"{tmp_path}/none.py:make")
    (tmp_path / "text.py").write_text("this is no python")
    with pytest.raises(BackboneError, match=r"text\.py:make failed: SyntaxError: invalid syntax"):
        load_backbone(f"{tmp_path}/text.py:make")


def test_the_code_that_runs_is_the_code_that_the_identity_is_of(
    own: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's own import trusts a compiled file as long as the source's size and second are the same.
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    before = load_backbone(own("Net"))
    stat = file.stat()
    file.write_text(FACTORIES.replace("Dropout(0.5)", "Dropout(0.1)"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = load_backbone(own("Net"))
    assert after.network.drop.p == 0.1
    assert after.identity != before.identity


def test_weights_for_a_network_of_ones_own_come_from_a_file(own: Callable[[str], str], tmp_path: Path) -> None:
    state = {name: tensor + 1 for name, tensor in load_backbone(own("Net")).network.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    backbone = load_backbone(own("Net"), weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(backbone.network.fc.bias, state["fc.bias"])


def test_a_network_that_comes_in_training_mode_is_put_in_eval_mode(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("training"))
    pixels = pixels_for(backbone)
    first = backbone.encode(pixels)["penultimate"]
    np.testing.assert_array_equal(backbone.encode(pixels)["penultimate"], first)
    assert (first > 0).all()  # no dropout
    assert backbone.network.norm.num_batches_tracked == 0


def test_a_batch_that_fails_half_way_leaves_nothing_to_the_next(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("Fixed"), layers=("conv",))
    pixels = pixels_for(backbone)
    expected = backbone.encode(pixels)["conv"]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        backbone.encode(pixels[:, :, :16, :16])
    assert hooks_of(backbone.network) == 0
    np.testing.assert_array_equal(backbone.encode(pixels)["conv"], expected)


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
        ("attention", "layer 'attention' gives a tuple, not one tensor; tap a layer inside it"),
        ("rows", "layer 'rows' gives a tensor of 5 dimensions; expected 2, 3 or 4"),
        ("windows", r"layer 'windows' gives a tensor of \(1, 1, 4, 1\), which is no square map: .*; tap another layer"),
    ],
)
def test_a_layer_that_gives_no_features_is_refused(own: Callable[[str], str], layer: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(own("Rich"), layers=(layer,))


# The same again


def kept(backbone: Backbone) -> dict[str, Any]:
    """As a feature file keeps it."""
    return {"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()}


def test_a_backbone_is_made_again_from_what_a_feature_file_keeps() -> None:
    first = load_backbone("lenet5", weights="random", layers=("hidden.1",), resize=0, dtype="float16")
    again = restore_backbone(kept(first), layers={"hidden.1": first.identities["hidden.1"]})
    assert again.identities == first.identities
    assert again.transform == first.transform
    pixels = pixels_for(first)
    np.testing.assert_array_equal(again.encode(pixels)["hidden.1"], first.encode(pixels)["hidden.1"])


def test_a_backbone_of_several_views_is_made_again_by_the_name_of_its_layer() -> None:
    first = load_backbone("lenet5", layers=("hidden",), views="10crop", resize=40)
    for layer in ("penultimate@10crop", "hidden,penultimate@flip", "hidden@top-left-mirrored"):
        identity = first.identity_of(layer)
        assert identity is not None
        again = restore_backbone(kept(first), layers={layer: identity})
        assert again.identity_of(layer) == identity
        assert again.views == LayerSpec.parse(layer).views
    with pytest.raises(StaleCacheError, match=r"identity of penultimate@flip: 0{64} against \w{64}"):
        restore_backbone(kept(first), layers={"penultimate@flip": "0" * 64})


def test_weights_that_have_moved_may_be_named(tmp_path: Path) -> None:
    save_file(load_backbone("lenet5").network.state_dict(), tmp_path / "a.safetensors")
    first = load_backbone("lenet5", weights=str(tmp_path / "a.safetensors"))
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    identity = first.identities["penultimate"]
    with pytest.raises(BackboneError, match=r"there is no weights file .*a\.safetensors"):
        restore_backbone(kept(first), layers={"penultimate": identity})
    moved = str(tmp_path / "b.safetensors")
    again = restore_backbone(kept(first), layers={"penultimate": identity}, weights=moved)
    assert again.identity == first.identity


def test_a_backbone_of_other_weights_is_refused_and_the_difference_named() -> None:
    first, other = load_backbone("lenet5", weights="random"), load_backbone("lenet5")
    message = r"^lenet5 as it is here gives other features than those that were kept \(weights_sha256: \w{64} against \w{64}\)$"
    with pytest.raises(StaleCacheError, match=message):
        restore_backbone(kept(first), layers={"penultimate": first.identities["penultimate"]}, weights=other.weights)


def test_a_stored_path_of_code_is_never_run_unless_it_is_named(own: Callable[[str], str], tmp_path: Path) -> None:
    first = load_backbone(own("Net"))
    identity = first.identities["penultimate"]
    with (tmp_path / "mine.py").open("a") as file:
        file.write(f"\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(
        BackboneError, match=r"mine\.py:Net, a file of code, and a stored path is never run; name it with --b"
    ):
        restore_backbone(kept(first), layers={"penultimate": identity})
    with pytest.raises(BackboneError, match=r"is mine\.py:Net, a file of code, and a stored path is never run"):
        registry.blank(first.describe()["architecture"])
    assert not (tmp_path / "ran").exists()
    with pytest.raises(StaleCacheError, match=r"architecture: .*code_sha256.* against "):
        restore_backbone(kept(first), layers={"penultimate": identity}, name=own("Net"))
    assert (tmp_path / "ran").exists()
    (tmp_path / "mine.py").write_text(FACTORIES)
    again = restore_backbone(kept(first), layers={"penultimate": identity}, name=own("Net"))
    assert again.identity == first.identity


def test_an_origin_gives_the_architecture_with_random_weights() -> None:
    for name in ("lenet5", "squeezenet1_1"):
        backbone = load_backbone(name, weights="random", crop=64 if name != "lenet5" else None)
        blank = registry.blank(backbone.describe()["architecture"])
        assert type(blank) is type(backbone.network)
        assert {n: t.shape for n, t in blank.state_dict().items()} == {
            n: t.shape for n, t in backbone.network.state_dict().items()
        }


# The list of what there is


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_50", r"there is no backbone 'resnet_50'; did you mean resnet50"),
        ("mobilenet_v1", r"'mobilenet_v1'; did you mean .*mobilenet_v1_100"),
        ("???", r"there is no backbone '\?\?\?' \(featx backbones lists them; timm/<name>, file\.py:factory\)"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(name)


def test_an_unknown_name_of_timm_is_an_error_with_a_suggestion() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"timm has no model 'resnet10x'; did you mean .*resnet10t"):
        load_backbone("timm/resnet10x")


def test_names_are_found_by_a_part_of_them_or_by_a_pattern() -> None:
    assert catalog.matching("resnet18") == ["resnet18"]
    assert catalog.matching("_v1_0") == ["mobilenet_v1_025", "mobilenet_v1_050", "mobilenet_v1_075"]
    assert catalog.matching("vgg1?_bn") == ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
    assert catalog.matching("nothing like it") == []
    assert catalog.matching() == registry.names() == sorted(registry.names())


def test_names_of_timm_are_found_where_the_pattern_asks_for_them() -> None:
    pytest.importorskip("timm")
    assert "timm/resnet10t" in catalog.matching("timm/resnet10")
    assert not any(name.startswith("timm/") for name in catalog.matching("resnet"))


def test_backbones_are_described_without_weights_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    told = Recorder()
    lenet, squeezenet = catalog.describe(["lenet5", "squeezenet1_1"], reporter=told)
    assert told.calls == [(1, 2), (2, 2)]
    assert lenet.as_dict() == {
        "name": "lenet5",
        "family": "LeNet5",
        "embedding": 84,
        "parameters": 156 + 2416 + 48_120 + 10_164 + 425,
        "input_size": 32,
        "top1": None,
        "local": True,
    }
    assert squeezenet.as_dict() == {
        "name": "squeezenet1_1",
        "family": "SqueezeNet",
        "embedding": 512,
        "parameters": 1_235_496,
        "input_size": 224,
        "top1": 58.178,
        "local": False,
    }
    (memo,) = tmp_path.iterdir()
    monkeypatch.setattr(registry, "build", lambda *_: pytest.fail("measured again"))
    assert catalog.describe(["squeezenet1_1", "lenet5"]) == [squeezenet, lenet]
    monkeypatch.undo()
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    memo.write_text("{ damaged")
    assert catalog.describe(["lenet5"]) == [lenet]


def test_a_description_agrees_with_the_network_itself(resnet: Backbone) -> None:
    (entry,) = catalog.describe(["resnet18"])
    assert entry.embedding == resnet.layers["penultimate"]
    assert entry.parameters == sum(p.numel() for p in resnet.network.parameters())
    assert entry.family == type(resnet.network).__name__


# Views


def test_each_view_of_a_layer_has_an_identity_of_its_own_and_plain_is_the_one_without_views() -> None:
    plain = load_backbone("lenet5", layers=("hidden",), resize=40)
    ten = load_backbone("lenet5", layers=("hidden",), resize=40, views="10crop")
    assert ten.taps == plain.taps == plain.layers
    assert list(ten.layers) == [
        stored_name(layer, view) for view in VIEWS["10crop"] for layer in ("penultimate", "hidden")
    ]
    assert len(set(ten.identities.values())) == 20
    assert ten.identities | plain.identities == ten.identities
    assert ten.describe() == plain.describe()
    assert plain.identity_of("hidden@flip") is None
    assert (
        len({ten.identity_of(name) for name in ("hidden", "hidden@flip", "hidden@10crop", "hidden,penultimate")}) == 4
    )


def test_encode_at_gives_a_row_for_each_view_in_which_a_layer_is_seen() -> None:
    backbone = load_backbone("lenet5", layers=("hidden",), views="flip")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 32, 32), dtype=np.uint8)
    own, hidden = (
        np.stack([backbone.encode(pixels[:, view])[layer] for view in (0, 1)], axis=1)
        for layer in ("penultimate", "hidden")
    )
    np.testing.assert_allclose(backbone.encode_at(pixels, "penultimate@flip"), own, atol=1e-5)
    np.testing.assert_allclose(backbone.encode_at(pixels, "penultimate"), own[:, 0], atol=1e-5)
    np.testing.assert_allclose(backbone.encode_at(pixels, "hidden@mirrored"), hidden[:, 1], atol=1e-5)
    both = np.concatenate([hidden, own], axis=2)
    np.testing.assert_allclose(backbone.encode_at(pixels, "hidden,penultimate@flip"), both, atol=1e-5)


def test_other_layers_are_tapped_in_the_views_of_all() -> None:
    plain = load_backbone("lenet5")
    assert plain.with_layers(["hidden@mirrored"]).views == VIEWS["flip"]
    assert plain.with_layers(["penultimate", "hidden", "hidden@mirrored"]).taps == {"penultimate": 84, "hidden": 84}
    assert load_backbone("lenet5", views="flip").with_layers(["hidden"]).views == VIEWS["flip"]
    assert plain.views == VIEWS["plain"]


@pytest.mark.parametrize("sizes", [{"resize": 0}, {"resize": 28, "crop": 32}])
def test_corners_that_there_are_not_are_refused(sizes: dict[str, int]) -> None:
    message = (
        r"there are no corners to crop: images are resized to \d+ pixels and cropped to 32; name a larger --resize"
    )
    with pytest.raises(BackboneError, match=message):
        load_backbone("lenet5", views="10crop", **sizes)
    assert load_backbone("lenet5", views="flip", **sizes).views == VIEWS["flip"]


def test_views_that_there_are_not_are_refused() -> None:
    with pytest.raises(BackboneError, match="views is '5crop'; expected one of plain, flip, 10crop"):
        load_backbone("lenet5", views="5crop")
