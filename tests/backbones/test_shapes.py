"""Networks of other inputs than square RGB images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import normalised, stored
from safetensors.torch import save_file

from featx.backbones import registry
from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.restored import restore_backbone
from featx.data.transform import Transform
from featx.errors import BackboneError


def images(backbone: Backbone, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *backbone.transform.shape), dtype=np.uint8)


def by_timm(module: Any, backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """The embeddings of a model of timm, before its classifier."""
    with torch.inference_mode():
        found: np.ndarray = module.forward_head(module.forward_features(normalised(backbone, pixels)), True).numpy()
    return found


def require_restored(backbone: Backbone, **options: Any) -> None:
    """Check that the backbone comes back from what a feature file stores, and its network from its origin."""
    again = restore_backbone(stored(backbone), layers=backbone.identities, device="cpu", **options)
    assert again.identity == backbone.identity
    assert again.transform == backbone.transform


# One channel, and several


def test_a_network_of_ones_own_gets_the_channels_that_it_takes(own: Callable[[str], str]) -> None:
    grey = load_backbone(own("Grey"), device="cpu")
    assert grey.transform.shape == (1, 32, 32)
    assert (grey.transform.mean, grey.transform.std) == ((0.0,), (1.0,))
    assert [note for note in grey.notes if "takes one channel: it gets images as grey, with mean 0 and std 1" in note]
    assert grey.encode(images(grey))["penultimate"].shape == (2, 4)
    bands = load_backbone(own("FiveBands"), device="cpu", bands="5,4,3,2,1")
    assert bands.transform.shape == (5, 32, 32)
    assert bands.transform.bands == (5, 4, 3, 2, 1)
    assert [
        note for note in bands.notes if "takes 5 channels: each gets a band of the images, as --bands names" in note
    ]
    for backbone in (grey, bands):
        require_restored(backbone, name=backbone.name)
    with pytest.raises(BackboneError, match=r"bands is \(1, 2\), for a network of 5 channels; expected 5 bands"):
        load_backbone(own("FiveBands"), device="cpu", bands="1,2")


def test_a_network_that_averages_the_colours_itself_gets_them(tmp_path: Path) -> None:
    (tmp_path / "mean.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Mean(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)\n"
        "    def forward(self, images):\n"
        "        return self.fc(self.conv(images.mean(dim=1, keepdim=True)).mean((2, 3)))\n"
    )
    backbone = load_backbone(f"{tmp_path / 'mean.py'}:Mean", device="cpu")
    assert backbone.transform == Transform()
    assert backbone.notes == ()


def test_a_transform_of_ones_own_names_the_channels(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "from featx import Transform\nfrom torch import nn\n\n\ndef net():\n"
        "    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))\n"
        "    net.transform = Transform(resize=28, crop=28, channels=1, mean=(0.1307,), std=(0.3081,))\n"
        "    return net\n"
    )
    backbone = load_backbone(f"{tmp_path / 'one.py'}:net", device="cpu")
    assert (backbone.transform.mean, backbone.transform.shape, backbone.notes) == ((0.1307,), (1, 28, 28), ())


@pytest.mark.parametrize("channels", [1, 5])
def test_timm_adapts_the_first_layer_to_other_channels(channels: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    rgb = timm.create_model("test_resnet").eval()
    file = str(tmp_path / "w.safetensors")
    save_file(rgb.state_dict(), file)
    backbone = load_backbone("timm/test_resnet", weights=file, in_chans=channels, device="cpu")
    own = timm.create_model(
        "test_resnet", in_chans=channels, pretrained_cfg_overlay={"file": file}, pretrained=True
    ).eval()
    pixels = images(backbone)
    np.testing.assert_allclose(
        backbone.encode(pixels)["penultimate"], by_timm(own, backbone, pixels), rtol=1e-4, atol=1e-5
    )
    assert backbone.describe()["architecture"] == {
        "source": "timm", "name": "timm/test_resnet", "in_chans": str(channels)
    }  # fmt: skip
    assert len(backbone.transform.mean) == channels
    assert [note for note in backbone.notes if "the kernels of its first convolution were" in note]
    require_restored(backbone)
    save_file(backbone.network.state_dict(), tmp_path / "adapted.safetensors")
    adapted = load_backbone(
        "timm/test_resnet", weights=str(tmp_path / "adapted.safetensors"), in_chans=channels, device="cpu"
    )
    assert adapted.identity == backbone.identity, "a file of a network of so many channels is loaded as it is"
    assert not [note for note in adapted.notes if "kernels" in note]
    rebuilt = registry.rebuild(backbone.describe()["architecture"]).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in backbone.network.state_dict().items()}


def test_three_channels_are_those_of_the_weights() -> None:
    pytest.importorskip("timm")
    usual = load_backbone("timm/test_resnet", weights="random", device="cpu")
    assert load_backbone("timm/test_resnet", weights="random", in_chans=3, device="cpu").identity == usual.identity
    assert "in_chans" not in usual.describe()["architecture"]


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet18", "timm/resnet18 can be adapted"), ("lenet5", "networks of timm can be adapted")]
)
def test_other_networks_are_not_adapted(name: str, hint: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=rf"^{name} takes 3 channels; {hint} \(--in-chans\)$"):
        load_backbone(name, weights="random", in_chans=1)


@pytest.mark.parametrize("channels", ["0", "99999", "1x", "-1", "2000"])
def test_a_stored_number_of_channels_that_cannot_be_is_refused(channels: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"timm/test_resnet cannot be built for .* channels"):
        registry.rebuild({"source": "timm", "name": "timm/test_resnet", "in_chans": channels})


# Inputs that are no squares


@pytest.mark.parametrize("name", ["test_vit", "test_vit3"])
def test_position_embeddings_are_interpolated_to_any_rectangle_as_timm_does(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    native, file = timm.create_model(name).eval(), str(tmp_path / "w.safetensors")
    save_file(native.state_dict(), file)
    backbone = load_backbone(f"timm/{name}", weights=file, size="96x128", device="cpu")
    own = timm.create_model(name, img_size=(96, 128), pretrained_cfg_overlay={"file": file}, pretrained=True).eval()
    pixels = images(backbone)
    assert pixels.shape == (2, 3, 96, 128)
    np.testing.assert_allclose(
        backbone.encode(pixels)["penultimate"], by_timm(own, backbone, pixels), rtol=1e-4, atol=1e-5
    )
    assert backbone.describe()["architecture"]["image_size"] == "96x128"
    assert [note for note in backbone.notes if "and was adapted to 96 x 128, position embeddings" in note]
    require_restored(backbone)
    rebuilt = registry.rebuild(backbone.describe()["architecture"]).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in backbone.network.state_dict().items()}


def test_a_rectangle_that_is_no_multiple_of_the_patches_is_an_error() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"for 96 x 100: its patches have 16 pixels, of which 100 is not"):
        load_backbone("timm/test_vit", weights="random", size=(96, 100))


def test_a_convolutional_network_takes_any_rectangle() -> None:
    backbone = load_backbone("squeezenet1_1", weights="random", size="64x96", fit="pad", device="cpu")
    assert backbone.transform == Transform(resize=64, crop=64, crop_width=96, fit="pad")
    assert backbone.encode(images(backbone))["penultimate"].shape == (2, 512)
    (note,) = backbone.notes
    assert note == (
        "images are resized to fit into 64 x 96 and padded with the network's mean colour (124, 116, 104); the transform of "
        "the weights: resized to 256 pixels and cropped to 224 x 224"
    )
    require_restored(backbone)
    with pytest.raises(
        BackboneError, match=r"pixels have the shape \(2, 3, 96, 64\); expected \(B, 3, 64, 96\); resize"
    ):
        backbone.encode(np.zeros((2, 3, 96, 64), np.uint8))


def test_a_vision_transformer_of_torchvision_takes_squares_alone() -> None:
    with pytest.raises(
        BackboneError, match=r"vit_b_32 is built for square images, not for 64 x 96 pixels; vision trans"
    ):
        load_backbone("vit_b_32", weights="random", size="64x96")
    assert load_backbone("vit_b_32", weights="random", size="64x64", device="cpu").transform.crop == 64


def test_a_network_that_interpolates_its_biases_for_another_size_prints_no_warnings() -> None:
    pytest.importorskip("timm", reason="needs pip install 'featx[timm]'")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = load_backbone("timm/swin_tiny_patch4_window7_224", weights="random", size="32x64", device="cpu")
    assert backbone.transform.size == (32, 64)


@pytest.mark.parametrize("size", ["0x5", "5x", "x5", "224x448x3", "999999x2", "3000x3000"])
def test_a_stored_size_that_cannot_be_is_refused(size: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"timm/test_vit cannot be built for images of .* pixels"):
        registry.rebuild({"source": "timm", "name": "timm/test_vit", "image_size": size})


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({"crop_mode": "squash", "crop_pct": 1.0}, {"resize": 0, "fit": "crop"}),
        ({"crop_mode": "squash", "crop_pct": 0.8}, {"resize": 200, "fit": "squash"}),
        ({"crop_mode": "border", "crop_pct": 1.0}, {"resize": 160, "fit": "pad"}),
        ({"crop_mode": "center", "crop_pct": 0.8}, {"resize": 200, "fit": "crop"}),
        ({"input_size": (3, 64, 96), "crop_pct": 0.5}, {"resize": 128, "crop": 64, "crop_width": 96}),
    ],
)
def test_the_transforms_of_timm_are_read_with_their_way_to_fit(
    overlay: dict[str, Any], expected: dict[str, Any]
) -> None:
    timm = pytest.importorskip("timm")
    from featx.backbones.sources.timm_source import _transform

    model = timm.create_model("test_resnet", pretrained_cfg_overlay={"input_size": (3, 160, 160)} | overlay)
    transform = _transform(timm, model)
    assert {name: getattr(transform, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "a"}, r"--size 'a' is no size"),
        ({"size": 64, "crop": 64}, r"lenet5 does not support this transform: size \(--size\) and crop \(--crop\) both"),
        ({"fit": "pad", "resize": 0}, r"a resize of 0 \(--resize 0\) squashes, and fit \(--fit\) is pad"),
        ({"fit": "stretch"}, r"fit is 'stretch'; expected one of crop, pad, squash"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone("lenet5", **options)
