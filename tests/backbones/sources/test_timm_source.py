"""The networks of timm."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import normalised, pixels_for, stored
from safetensors.torch import save_file

from featx.backbones import registry
from featx.backbones.backbone import load_backbone
from featx.backbones.catalog import describe_backbones
from featx.backbones.restored import restore_backbone
from featx.backbones.sources.source import seeded
from featx.backbones.sources.timm_source import TimmSource, _published
from featx.errors import BackboneError


def test_an_unknown_name_of_timm_is_an_error_with_a_suggestion() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"timm has no model 'resnet10x'; did you mean .*resnet10t"):
        load_backbone("timm/resnet10x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", r"timm has no model 'nope'; featx backbones 'timm/\*' lists them"),
        ("ViT_Tiny_Patch16_224", r"'ViT_Tiny_Patch16_224'; did you mean vit_tiny_patch16_224\?"),
        ("resnet18.tv_in2k", r"timm has no weights 'resnet18\.tv_in2k'; did you mean resnet18\.tv_in1k"),
    ],
)
def test_an_unknown_name_says_what_there_is(name: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=message):
        registry.build(f"timm/{name}", "random")


def test_a_name_of_timm_without_its_prefix_is_recognised() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"there is no backbone 'resnet10t'; did you mean timm/resnet10t\?"):
        registry.build("resnet10t", "random")


def test_a_vision_transformer_is_built_for_the_size_of_the_crop(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    native = timm.create_model("test_vit").eval()
    save_file(native.state_dict(), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    usual = load_backbone("timm/test_vit", weights=weights, device="cpu")
    backbone = load_backbone("timm/test_vit", weights=weights, crop=96, device="cpu")
    assert usual.describe()["architecture"] == {"source": "timm", "name": "timm/test_vit"}
    assert backbone.describe()["architecture"] == {"source": "timm", "name": "timm/test_vit", "image_size": "96"}
    assert backbone.notes[0].startswith("timm/test_vit is built for 160 x 160 pixels and was adapted to 96 x 96")
    own = timm.create_model("test_vit", img_size=96, pretrained_cfg_overlay={"file": weights}, pretrained=True).eval()
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        expected = own.forward_head(own.forward_features(torch.from_numpy(normalised(backbone, pixels).numpy())), True)
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-4, atol=1e-5)
    save_file(backbone.network.state_dict(), tmp_path / "small.safetensors")
    small = load_backbone("timm/test_vit", weights=str(tmp_path / "small.safetensors"), crop=96, device="cpu")
    assert small.identity == backbone.identity, "a file of a network for that size is loaded as it is"
    assert not [note for note in small.notes if "adapted" in note]
    again = restore_backbone(stored(backbone), layers=backbone.identities, device="cpu")
    assert again.identity == backbone.identity != usual.identity
    rebuilt = registry.rebuild(backbone.describe()["architecture"]).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in backbone.network.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "crop", "reason"),
    [
        ("test_vit", 100, r"its patches have 16 pixels, of which 100 is not a multiple\. Leave --size and --crop out"),
        ("mixer_s32_224", 96, r"built for 224 x 224 pixels and cannot be built for 96 x 96: its weights depend on the size"),
    ],
)  # fmt: skip
def test_a_size_that_a_model_cannot_be_built_for_is_an_error(name: str, crop: int, reason: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=reason):
        load_backbone(f"timm/{name}", weights="random", crop=crop)


def test_a_convolutional_model_takes_any_size_as_it_is() -> None:
    pytest.importorskip("timm")
    backbone = load_backbone("timm/test_resnet", weights="random", crop=64, device="cpu")
    assert "image_size" not in backbone.describe()["architecture"]


@pytest.mark.parametrize(
    ("name", "weights", "top1"),
    [
        ("resnet18", "default", 73.158),  # its default weights are a1_in1k
        ("resnet18.tv_in1k", "default", 69.760),
        ("tinynet_e", "default", 59.866),
        ("eva02_large_patch14_448", "default", 89.966),
        ("test_vit", "default", None),
        ("resnet18", "random", None),
        ("resnet18", "w.pth", None),
    ],
)
def test_the_accuracy_that_timm_publishes_is_known_by_the_tag_of_the_weights(
    name: str, weights: str, top1: float | None
) -> None:
    pytest.importorskip("timm")
    assert TimmSource().published_top1(f"timm/{name}", weights) == top1


def test_a_checkout_of_timm_has_its_own_table_of_accuracies(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results-imagenet.csv").write_text(
        'model,top1,top1_err,param_count\nSelecSls42b.in1k,77.170,22.830,32.46\neva_giant.x,88.1,11.9,"1,012.56"\n'
    )
    assert _published(tmp_path / "timm") == {"selecsls42b.in1k": 77.17, "eva_giant.x": 88.1}


def test_the_accuracies_that_featx_ships_are_of_weights_that_timm_has() -> None:
    timm = pytest.importorskip("timm")
    shipped = _published(Path(__file__).parent / "no checkout" / "timm")
    assert len(shipped) > 1000
    assert all(50 < top1 < 100 for top1 in shipped.values())
    assert len(shipped.keys() & set(timm.list_pretrained())) > 0.9 * len(shipped)


SEVERAL_HEADS = (
    "deit_tiny_distilled_patch16_224",  # the average of two tokens
    "pit_ti_distilled_224",
    "levit_128s",
    "efficientformerv2_s0",
    "swiftformer_xs",
    "crossvit_9_240",  # two branches, side by side
    "efficientvim_m1",
)
ONE_HEAD = (
    "test_vit", "test_vit4", "test_resnet", "test_efficientnet", "test_byobnet", "test_convnext", "test_nfnet", "test_mambaout",
    "test_coatnet", "test_vit_relpos", "mobilenetv3_small_050", "vit_tiny_patch16_224", "ghostnetv3_050",
)  # fmt: skip


@pytest.mark.parametrize("name", [*ONE_HEAD, *SEVERAL_HEADS])
def test_the_embedding_is_what_timm_gives_before_the_logits(name: str) -> None:
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    backbone = load_backbone(f"timm/{name}", weights="random", device="cpu")
    own = seeded(lambda: timm.create_model(name)).eval()
    pixels = pixels_for(backbone, 1)
    with torch.inference_mode():
        expected = own.forward_head(own.forward_features(normalised(backbone, pixels)), pre_logits=True).flatten(1)
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-4, atol=1e-5)
    assert (backbone.classifier == "embedding") is (name in SEVERAL_HEADS)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("vit_small_patch14_dinov2", 384),
        ("vit_base_patch32_clip_224", 768),
        ("qwen3_vit_88m_enc", 768),
        ("sam2_hiera_tiny", 768),
    ],
)
def test_encoders_without_classes_have_an_embedding(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    (entry,) = describe_backbones(f"timm/{name}")
    assert entry.embedding == width


def test_a_distilled_model_takes_the_files_of_its_training_and_of_its_backbone_alone(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    tuned = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7)
    state = {f"module.{n}": t for n, t in tuned.state_dict().items()}
    torch.save({"state_dict": state, "arch": "deit"}, tmp_path / "w.pth.tar")
    backbone = load_backbone("timm/deit_tiny_distilled_patch16_224", weights=str(tmp_path / "w.pth.tar"), device="cpu")
    save_file({n: t for n, t in tuned.state_dict().items() if "head" not in n}, tmp_path / "w.safetensors")
    alone = load_backbone("timm/deit_tiny_distilled_patch16_224", weights=str(tmp_path / "w.safetensors"), device="cpu")
    assert alone.identity == backbone.identity
    again = restore_backbone(stored(backbone), layers=backbone.identities, device="cpu")
    assert again.identity == backbone.identity
    rebuilt = registry.rebuild(backbone.describe()["architecture"])
    assert rebuilt.state_dict().keys() == backbone.network.state_dict().keys()


def test_files_of_a_models_authors_are_converted_as_timm_does(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    own = timm.create_model("test_vit").eval()
    state = {**own.state_dict(), "mask_token": torch.zeros(1, 64)}  # as in DINOv2
    torch.save({"teacher": {f"backbone.{n}": t for n, t in state.items()}}, tmp_path / "dino.pth")
    load_backbone("timm/test_vit", weights=str(tmp_path / "dino.pth"), device="cpu")
    convnext = timm.create_model("convnext_atto")
    authors = {}
    for name, tensor in convnext.state_dict().items():  # as facebookresearch/ConvNeXt names them
        name = re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", name)
        name = re.sub(r"^stages\.(\d)\.downsample", r"downsample_layers.\1", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.(\d)", r"stages.\1.\2", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        authors[name.replace("head.norm", "norm").replace("head.fc", "head")] = tensor
    torch.save({"model": authors}, tmp_path / "convnext.pth")
    backbone = load_backbone("timm/convnext_atto", weights=str(tmp_path / "convnext.pth"), device="cpu")
    assert torch.equal(
        backbone.network.state_dict()["stages.2.blocks.3.conv_dw.weight"], authors["stages.2.3.dwconv.weight"]
    )
    assert any("timm converted their names" in note for note in backbone.notes)


def test_position_embeddings_of_another_size_are_interpolated_where_the_size_is_asked_for(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_vit", img_size=192).state_dict(), tmp_path / "w.pth")
    weights = str(tmp_path / "w.pth")
    with pytest.raises(
        BackboneError, match=r"--crop 192 builds the network for the size of the file, --crop 160 interpolates"
    ):
        load_backbone("timm/test_vit", weights=weights, device="cpu")
    own = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay={"file": weights}).eval()
    backbone = load_backbone("timm/test_vit", weights=weights, crop=160, device="cpu")
    assert torch.equal(backbone.network.state_dict()["pos_embed"], own.pos_embed)
    assert any("timm interpolated the position embeddings" in note for note in backbone.notes)
    whole = load_backbone("timm/test_vit", weights=weights, crop=192, device="cpu")
    assert torch.equal(whole.network.state_dict()["pos_embed"], torch.load(weights)["pos_embed"])
    torch.save(timm.create_model("test_vit", patch_size=8).state_dict(), tmp_path / "p.pth")
    with pytest.raises(BackboneError, match=r"p\.pth does not fit timm/test_vit: 76 of 78 tensors fit"):
        load_backbone("timm/test_vit", weights=str(tmp_path / "p.pth"), crop=160, device="cpu")
