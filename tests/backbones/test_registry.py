"""From names to networks: sources, weights and files of code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import FACTORIES, pixels_for
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from featx.backbones import registry
from featx.backbones.backbone import load_backbone
from featx.data.transform import Transform
from featx.errors import BackboneError


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
    assert registry.rebuild(network.origin).image_size == 384
    assert registry.build("vit_b_16", "random").module.image_size == 224
    assert registry.rebuild(registry.build("vit_b_16", "random").origin).image_size == 224


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


def test_an_origin_gives_the_architecture_with_random_weights() -> None:
    for name in ("lenet5", "squeezenet1_1"):
        backbone = load_backbone(name, weights="random", crop=64 if name != "lenet5" else None)
        rebuilt = registry.rebuild(backbone.describe()["architecture"])
        assert type(rebuilt) is type(backbone.network)
        assert {n: t.shape for n, t in rebuilt.state_dict().items()} == {
            n: t.shape for n, t in backbone.network.state_dict().items()
        }


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


def test_every_source_has_a_key_of_its_own_and_accepts_the_names_that_it_lists() -> None:
    assert [source.key for source in registry.SOURCES] == ["file", "timm", "featx", "torchvision"]
    for source in registry.SOURCES:
        listed = () if source.prefix else source.names()
        assert all(registry.source_of(name) is source for name in listed)


def test_an_origin_that_no_source_has_is_an_error() -> None:
    for source, name in (("hub", "resnet18"), ("featx", "resnet18"), ("torchvision", "lenet5"), ("timm", "resnet18")):
        with pytest.raises(BackboneError, match=f"^there is no network '{name}' of {source}$"):
            registry.rebuild({"source": source, "name": name})
