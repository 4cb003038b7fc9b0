"""The networks and weights of torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from featx.backbones import registry
from featx.backbones.backbone import load_backbone
from featx.errors import BackboneError


def test_the_auxiliary_heads_of_a_file_are_left_out(tmp_path: Path) -> None:
    published = models.googlenet(aux_logits=True, transform_input=True, init_weights=False)
    torch.save(published.state_dict(), tmp_path / "googlenet.pth")
    backbone = load_backbone("googlenet", weights=str(tmp_path / "googlenet.pth"), crop=64)
    assert not any(name.startswith("aux") for name in backbone.network.state_dict())
    assert torch.equal(backbone.network.fc.weight, published.fc.weight)


def test_unknown_weights_are_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(
        BackboneError,
        match=r"no weights 'IMAGENET1K_V9', only IMAGENET1K_V1, IMAGENET1K_V2; nor is it a file or a folder",
    ):
        load_backbone("mobilenet_v2", weights="IMAGENET1K_V9")


def test_a_folder_that_holds_weights_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = models.squeezenet1_1()
    Path("run").mkdir()
    save_file(network.state_dict(), "run/model.safetensors")
    backbone = load_backbone("squeezenet1_1", weights="run", crop=64, device="cpu")
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in backbone.network.state_dict().items())
    Path("other").mkdir()
    with pytest.raises(BackboneError, match=r"other cannot be read as a weights file: it is a folder without"):
        load_backbone("squeezenet1_1", weights="other")


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


def small_vit(name: str = "", *, weights: None = None, image_size: int) -> nn.Module:
    """A vision transformer of one layer, built as torchvision's ``get_model`` builds one."""
    return models.VisionTransformer(
        image_size=image_size, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, patch_size=16
    )


def test_a_vision_transformer_has_the_image_size_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "get_model", small_vit)
    file = tmp_path / "vit_b_16_swag-9ac1b537.pth"
    torch.save(small_vit(image_size=384).state_dict(), file)
    monkeypatch.setattr("featx.backbones.weights.fetch", lambda url: tmp_path / Path(url).name)
    network = registry.build("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert network.module.image_size == network.transform.crop == 384
    assert registry.build("vit_b_16", str(file)).module.image_size == 384
    assert registry.rebuild(network.origin).image_size == 384
    assert registry.build("vit_b_16", "random").module.image_size == 224
    assert registry.rebuild(registry.build("vit_b_16", "random").origin).image_size == 224


def test_a_vision_transformer_is_built_for_the_size_of_the_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "get_model", small_vit)
    native = small_vit(image_size=224).state_dict()
    torch.save(native, tmp_path / "w.pth")
    usual = registry.build("vit_b_16", str(tmp_path / "w.pth"), 224)
    assert usual.origin == {"source": "torchvision", "name": "vit_b_16"}
    assert usual.notes == ()
    network = registry.build("vit_b_16", str(tmp_path / "w.pth"), 96)
    assert network.origin == {"source": "torchvision", "name": "vit_b_16", "image_size": "96"}
    assert network.notes == (
        "vit_b_16 is built for 224 x 224 pixels and was adapted to 96 x 96, position embeddings by interpolation",
    )
    state = network.module.state_dict()
    expected = interpolate_embeddings(96, 16, native)
    assert state["encoder.pos_embedding"].shape == (1, 37, 8)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert registry.rebuild(network.origin).image_size == 96
    torch.save(state, tmp_path / "small.pth")
    same = registry.build("vit_b_16", str(tmp_path / "small.pth"), 96)
    assert (same.origin, same.notes) == (network.origin, ())
    assert torch.equal(same.module.encoder.pos_embedding, state["encoder.pos_embedding"])
    with pytest.raises(
        BackboneError, match=r"small\.pth does not fit vit_b_16: 17 of .* is encoder\.pos_emb.*: --crop 96 builds"
    ):
        registry.build("vit_b_16", str(tmp_path / "small.pth"))
    swag = registry.build("vit_b_16", "random", 384)
    assert (swag.module.image_size, swag.origin["image_size"]) == (384, "384")


def test_sizes_that_a_vision_transformer_cannot_be_built_for_are_an_error() -> None:
    with pytest.raises(BackboneError, match=r"vit_b_32 cannot be built for images of 100 pixels .* multiple of 32$"):
        registry.build("vit_b_32", "random", 100)
