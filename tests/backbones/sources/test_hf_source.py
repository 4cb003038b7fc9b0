"""The models of transformers: what their embeddings are, their images, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vision_models
from networks import normalised, pixels_for, stored
from safetensors.torch import load_file, save_file
from vision_models import IMAGES, TINY, saved, sized

from featx.backbones import registry
from featx.backbones.backbone import load_backbone
from featx.backbones.catalog import describe_backbones, list_backbones
from featx.backbones.classifier import classifier_logits, require_final_layer
from featx.backbones.restored import restore_backbone
from featx.errors import BackboneError

PLAIN = {**TINY, **IMAGES, "num_labels": 3}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "num_labels": 3}
HEADS = {"num_attention_heads": [1, 2, 4, 4]}

FAMILIES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "ViTForImageClassification": ("ViTConfig", PLAIN, "classifier", "logits"),
    "ViTModel": ("ViTConfig", PLAIN, "classifier", "cls"),
    "DeiTForImageClassification": ("DeiTConfig", PLAIN, "classifier", "logits"),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", PLAIN, "cls+distilled", "two tokens"),
    "BeitForImageClassification": ("BeitConfig", PLAIN, "classifier", "logits"),
    "BeitModel": ("BeitConfig", PLAIN, "classifier", "pooler_output"),
    "Dinov2Model": ("Dinov2Config", PLAIN, "pooler", "pooler_output"),
    "Dinov2ForImageClassification": ("Dinov2Config", PLAIN, "classifier", "logits"),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", PLAIN, "pooler", "cls"),
    "DINOv3ViTModel": ("DINOv3ViTConfig", PLAIN, "pooler", "pooler_output"),
    "ViTMSNModel": ("ViTMSNConfig", PLAIN, "classifier", "cls"),
    "IJepaModel": ("IJepaConfig", PLAIN, "classifier", "mean"),
    "ConvNextForImageClassification": ("ConvNextConfig", STAGES, "classifier", "logits"),
    "ConvNextModel": ("ConvNextConfig", STAGES, "classifier", "pooler_output"),
    "ConvNextV2ForImageClassification": ("ConvNextV2Config", STAGES, "classifier", "logits"),
    "ResNetForImageClassification": ("ResNetConfig", {**STAGES, "embedding_size": 8}, "classifier", "logits"),
    "ResNetModel": ("ResNetConfig", {**STAGES, "embedding_size": 8}, "classifier", "pooler_output"),
    "RegNetForImageClassification": (
        "RegNetConfig",
        {**STAGES, "embedding_size": 8, "groups_width": 8},
        "classifier",
        "logits",
    ),
    "SegformerForImageClassification": (
        "SegformerConfig",
        {**STAGES, **HEADS, "depths": [1] * 4},
        "classifier",
        "logits",
    ),
    "SegformerModel": ("SegformerConfig", {**STAGES, **HEADS, "depths": [1] * 4}, "classifier", "mean"),
    "SwinForImageClassification": (
        "SwinConfig",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2, 1], "num_heads": [2, 2, 4], "window_size": 4},
        "classifier",
        "logits",
    ),
    "MobileNetV2ForImageClassification": ("MobileNetV2Config", {"depth_multiplier": 0.35}, "classifier", "logits"),
    "LevitForImageClassification": (
        "LevitConfig",
        {
            "image_size": 32, "hidden_sizes": [16, 32, 48], "num_attention_heads": [2, 2, 3],
            "depths": [1] * 3, "key_dim": [8] * 3,
        },
        "classifier",
        "logits",
    ),
}  # fmt: skip
"""Class of transformers: its configuration, how it is pooled, and what of its output the embedding, or its logits, equal."""


def own_result(model: Any, images: torch.Tensor, what: str) -> torch.Tensor:
    """What transformers itself gives for normalised images."""
    with torch.inference_mode():
        if what == "two tokens":
            return (model.deit if hasattr(model, "deit") else model)(images).last_hidden_state[:, :2].mean(1)
        out = model(pixel_values=images)
        if what == "cls":
            return out.last_hidden_state[:, 0]
        if what == "mean":
            return (
                out.last_hidden_state.flatten(2).mean(2)
                if out.last_hidden_state.ndim == 4
                else out.last_hidden_state.mean(1)
            )
        found: torch.Tensor = out[what].flatten(1)
        return found


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_embedding_of_each_family_is_what_its_own_classifier_takes(kind: str, tmp_path: Path) -> None:
    package = vision_models.transformers()
    config, fields, pooling, what = FAMILIES[kind]
    model = saved(tmp_path / "m", kind, getattr(package, config)(**fields), package.ViTImageProcessor(size=sized(32)))
    backbone = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    origin = backbone.describe()["architecture"]
    assert (origin["source"], origin["pooling"]) == ("hf", pooling)
    pixels = pixels_for(backbone)
    embeddings = backbone.encode(pixels)["penultimate"]
    expected = own_result(model, normalised(backbone, pixels), what)
    found = embeddings if what != "logits" else classifier_logits(backbone.network, backbone.classifier, embeddings)
    assert np.std(np.asarray(expected), axis=0).max() > 1e-4, "the images are told apart"
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    require_final_layer(backbone.network, torch.zeros(1, 3, 32, 32), backbone.classifier, name=kind)
    rebuilt = registry.rebuild(origin).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in backbone.network.state_dict().items()}
    assert len(backbone.stages()) >= 3
    again = restore_backbone(stored(backbone), layers=backbone.identities, device="cpu")
    assert again.identity == backbone.identity


@pytest.mark.parametrize("make", [vision_models.clip, vision_models.siglip])
def test_the_image_tower_of_a_model_of_images_and_text_gives_its_image_features(
    make: vision_models.Maker, tmp_path: Path
) -> None:
    model = make(tmp_path / "m")
    backbone = load_backbone(f"hf/{tmp_path}/m", layers=["pooled"], device="cpu")
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        images = normalised(backbone, pixels)
        expected = model.get_image_features(pixel_values=images).pooler_output
        before = model.vision_model(pixel_values=images).pooler_output
    features = backbone.encode(pixels)
    np.testing.assert_allclose(features["penultimate"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features["pooled"], before, rtol=1e-4, atol=1e-6)
    assert not [name for name in backbone.network.state_dict() if "text" in name], "the text tower is no part of it"
    rebuilt = registry.rebuild(backbone.describe()["architecture"]).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in backbone.network.state_dict().items()}


@pytest.mark.parametrize("kind", ["CLIPVisionModelWithProjection", "CLIPVisionModel"])
def test_an_image_tower_saved_alone_has_its_projection_or_none(kind: str, tmp_path: Path) -> None:
    package = vision_models.transformers()
    config = package.CLIPVisionConfig(**TINY, **IMAGES, projection_dim=24)
    model = saved(
        tmp_path / "m", kind, config, package.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=sized(32))
    )
    backbone = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        out = model(pixel_values=normalised(backbone, pixels))
    expected = out.image_embeds if kind.endswith("Projection") else out.pooler_output
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-4, atol=1e-6)
    assert not backbone.has_text


def test_a_masked_autoencoder_sees_all_patches(tmp_path: Path) -> None:
    package = vision_models.transformers()
    config = package.ViTMAEConfig(
        **TINY,
        **IMAGES,
        mask_ratio=0.75,
        decoder_num_hidden_layers=1,
        decoder_hidden_size=32,
        decoder_num_attention_heads=4,
    )
    saved(tmp_path / "m", "ViTMAEForPreTraining", config, package.ViTImageProcessor(size=sized(32)))
    backbone = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    pixels = pixels_for(backbone)
    own = package.ViTForImageClassification.from_pretrained(tmp_path / "m").eval()
    with torch.inference_mode():
        expected = own.vit(normalised(backbone, pixels)).last_hidden_state[:, 0]
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-4, atol=1e-5)


def test_the_identity_depends_on_the_tensors_and_the_configuration_but_not_on_the_folder(tmp_path: Path) -> None:
    vision_models.vit(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two words")
    first = load_backbone(f"hf/{tmp_path}/one", device="cpu")
    assert load_backbone(f"hf/{tmp_path}/two words", device="cpu").identity == first.identity
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    relabelled = {**config, "id2label": {"0": "x", "1": "y", "2": "z"}, "transformers_version": "5.0.0"}
    (tmp_path / "one" / "config.json").write_text(json.dumps(relabelled))
    assert load_backbone(f"hf/{tmp_path}/one", device="cpu").identity == first.identity
    (tmp_path / "one" / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert load_backbone(f"hf/{tmp_path}/one", device="cpu").identity != first.identity, (
        "no tensor tells the activation"
    )


def test_position_embeddings_are_interpolated_for_another_size_as_transformers_does(tmp_path: Path) -> None:
    model = vision_models.vit(tmp_path / "m")
    backbone = load_backbone(f"hf/{tmp_path}/m", crop=48, device="cpu")
    assert "is built for 32 x 32 pixels and was adapted to 48 x 48" in backbone.notes[0]
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        expected = model(normalised(backbone, pixels), interpolate_pos_encoding=True).logits
    found = classifier_logits(backbone.network, backbone.classifier, backbone.encode(pixels)["penultimate"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert backbone.describe()["architecture"]["image_size"] == "48"
    again = restore_backbone(stored(backbone), layers=backbone.identities, device="cpu")
    assert again.identity == backbone.identity


def test_weights_of_torch_without_pickled_objects_are_read_and_others_refused(tmp_path: Path) -> None:
    vision_models.vit(tmp_path / "m")
    first = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    state = load_file(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"has no model\.safetensors and no pytorch_model\.bin"):
        load_backbone(f"hf/{tmp_path}/m", device="cpu")
    torch.save(state, tmp_path / "m" / "pytorch_model.bin")
    assert load_backbone(f"hf/{tmp_path}/m", device="cpu").identity == first.identity
    torch.save({**state, "odd": Path()}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"pytorch_model\.bin cannot be read as a file of tensors only"):
        load_backbone(f"hf/{tmp_path}/m", device="cpu")


def test_a_checkpoint_replaces_the_weights_whatever_its_container_and_prefix(tmp_path: Path) -> None:
    model = vision_models.vit(tmp_path / "m")
    first = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    state = {name: tensor + 0.01 for name, tensor in load_file(tmp_path / "m" / "model.safetensors").items()}
    save_file(state, tmp_path / "flat.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"net.model.{n}": t for n, t in state.items()}}, tmp_path / "lightning.ckpt")
    torch.save({f"module.{n}": t + 0.01 for n, t in model.state_dict().items()}, tmp_path / "own names.pth")
    flat = load_backbone(f"hf/{tmp_path}/m", weights=str(tmp_path / "flat.safetensors"), device="cpu")
    for file in ("lightning.ckpt", "own names.pth"):
        other = load_backbone(f"hf/{tmp_path}/m", weights=str(tmp_path / file), device="cpu")
        assert (
            other.describe()["weights_sha256"]
            == flat.describe()["weights_sha256"]
            != first.describe()["weights_sha256"]
        )
        assert "the network's tensors are in its" in other.notes[0]
    del state["vit.embeddings.cls_token"]
    save_file(state, tmp_path / "incomplete.safetensors")
    with pytest.raises(
        BackboneError, match=r"incomplete\.safetensors does not hold the weights of this model: 1 tensor .*cls_token"
    ):
        load_backbone(f"hf/{tmp_path}/m", weights=str(tmp_path / "incomplete.safetensors"), device="cpu")


@pytest.mark.parametrize(("first", "second", "part"), [("net.", "online.net.", "net"), ("", "ema.", ".")])
def test_of_two_models_in_a_checkpoint_one_must_be_named(first: str, second: str, part: str, tmp_path: Path) -> None:
    state = vision_models.clip(tmp_path / "clip").state_dict()
    other = {f"{second}{name}": tensor + 1 for name, tensor in state.items()}
    torch.save({**{f"{first}{name}": tensor for name, tensor in state.items()}, **other}, tmp_path / "w.pth")
    name = f"hf/{tmp_path}/clip"
    with pytest.raises(
        BackboneError, match=rf"holds 2 networks that fit CLIPModel: .*#{part}(?:$| is the file itself)"
    ):
        load_backbone(name, weights=f"{tmp_path}/w.pth", device="cpu")
    chosen = load_backbone(name, weights=f"{tmp_path}/w.pth#{part}", device="cpu")
    assert chosen.identity == load_backbone(name, device="cpu").identity


def test_a_tensor_that_a_part_of_the_model_has_no_place_for_is_refused(tmp_path: Path) -> None:
    state = vision_models.clip(tmp_path / "clip").state_dict()
    harmless = {"vision_model.embeddings.position_ids": torch.arange(17)[None], "decoder.weight": torch.ones(2)}
    torch.save({**state, **harmless}, tmp_path / "more.pth")
    load_backbone(f"hf/{tmp_path}/clip", weights=f"{tmp_path}/more.pth", device="cpu")
    torch.save({**state, "vision_model.embeddings.register_tokens": torch.ones(1, 4, 32)}, tmp_path / "w.pth")
    with pytest.raises(
        BackboneError, match=r"has no place for vision_model\.embeddings\.register_tokens of the weights"
    ):
        load_backbone(f"hf/{tmp_path}/clip", weights=f"{tmp_path}/w.pth", device="cpu")


def test_a_file_of_another_model_is_refused_with_its_names(tmp_path: Path) -> None:
    vision_models.vit(tmp_path / "m")
    torch.save({"model": {"conv1.weight": torch.ones(2), "bn1.bias": torch.ones(2)}}, tmp_path / "w.pth")
    for part, where in (("", ""), ("#teacher", " in a part 'teacher'")):
        with pytest.raises(
            BackboneError,
            match=rf"does not hold most of the tensors of ViTForImageClassification, .*{where}: its names are conv1\.weight",
        ):
            load_backbone(f"hf/{tmp_path}/m", weights=f"{tmp_path}/w.pth{part}", device="cpu")


def test_code_in_the_folder_of_a_known_model_is_not_run_and_a_note_says_so(tmp_path: Path) -> None:
    vision_models.vit(tmp_path / "m")
    plain = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    for file, name in (("config.json", "AutoModel"), ("preprocessor_config.json", "AutoImageProcessor")):
        stored_config = json.loads((tmp_path / "m" / file).read_text())
        (tmp_path / "m" / file).write_text(json.dumps({**stored_config, "auto_map": {name: "code.Net"}}))
    (tmp_path / "m" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    backbone = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    assert any("names code of its own (auto_map), which never runs" in note for note in backbone.notes)
    assert not (tmp_path / "ran").exists()
    assert backbone.identity == plain.identity


def test_a_repository_in_the_cache_of_the_hub_is_found_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = vision_models.transformers()
    from huggingface_hub import constants

    assert package
    snapshot = tmp_path / "hub" / "models--some-people--tiny-vit" / "snapshots" / ("0" * 40)
    vision_models.vit(snapshot)
    (tmp_path / "hub" / "models--some-people--tiny-vit" / "refs").mkdir()
    (tmp_path / "hub" / "models--some-people--tiny-vit" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    backbone = load_backbone("hf/some-people/tiny-vit", device="cpu")
    assert backbone.identity == load_backbone(f"hf/{snapshot}", device="cpu").identity
    assert load_backbone(f"hf/some-people/tiny-vit@{'0' * 40}", device="cpu").identity == backbone.identity
    assert list_backbones("hf/*") == ["hf/some-people/tiny-vit"]
    with pytest.raises(BackboneError, match=r"the repository some-people/other of the Hugging Face hub cannot be had"):
        load_backbone("hf/some-people/other", device="cpu")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"has no config\.json in"),
        ("{", r"config\.json cannot be read as JSON"),
        ([], r"does not name its model_type"),
        ({"model_type": "mine", "auto_map": {"AutoModel": "code.py--Net"}}, r"needs Python code from its repository"),
        ({"model_type": "vitt"}, r"has no model type 'vitt'.*did you mean .*vit"),
        ({"model_type": "bert"}, r"is of the type bert, which transformers has no network for"),
        ({"model_type": "timm_wrapper", "architecture": "resnet18"}, r"is a model of timm: name it timm/resnet18"),
        ({"model_type": "vit", "hidden_size": "wide"}, r"config\.json of .* is not valid for vit"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_vision_model_is_refused_with_the_reason(config: Any, message: str, tmp_path: Path) -> None:
    vision_models.transformers()
    if config is not None:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(BackboneError, match=message):
        load_backbone(f"hf/{tmp_path}", weights="random", device="cpu")


def test_a_name_that_is_neither_a_folder_nor_a_repository_is_refused(tmp_path: Path) -> None:
    vision_models.transformers()
    with pytest.raises(BackboneError, match=r"names the folder .*nowhere, which does not exist"):
        load_backbone(f"hf/{tmp_path}/nowhere")
    with pytest.raises(BackboneError, match=r"'a/b/c' is neither a repository of the Hugging Face hub"):
        load_backbone("hf/a/b/c")


def test_a_checkpoint_with_a_classifier_without_one_and_with_another_has_one_identity(tmp_path: Path) -> None:
    model = vision_models.vit(tmp_path / "m")
    state = model.state_dict()
    heads = {
        "whole": state,
        "headless": {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")},
        "other": {**state, "classifier.weight": torch.ones(9, 32), "classifier.bias": torch.ones(9)},
    }
    found = {}
    for name, tensors in heads.items():
        torch.save({"state_dict": tensors}, tmp_path / f"{name}.ckpt")
        found[name] = load_backbone(f"hf/{tmp_path}/m", weights=tmp_path / f"{name}.ckpt", device="cpu").identity
    assert len(set(found.values())) == 1
    default = load_backbone(f"hf/{tmp_path}/m", device="cpu")
    whole = {"name": default.name, "weights": str(tmp_path / "other.ckpt"), "parts": default.describe()}
    headless = load_backbone(f"hf/{tmp_path}/m", weights=tmp_path / "headless.ckpt", device="cpu")
    assert restore_backbone(whole, layers=headless.identities, device="cpu").identity == headless.identity
    assert (
        registry.rebuild(default.describe()["architecture"]).state_dict().keys() == default.network.state_dict().keys()
    )


def test_weights_that_do_not_fit_the_configuration_are_refused_with_the_reason(tmp_path: Path) -> None:
    state = vision_models.vit(tmp_path / "m").state_dict()
    config = json.loads((tmp_path / "m/config.json").read_text())
    changed = {
        "pos": (
            {**state, "vit.embeddings.position_embeddings": torch.ones(1, 37, 32)},
            r"has \(1, 37, 32\) instead of \(1, 17, 32\)",
        ),
        "nan": (
            {**state, "vit.layernorm.weight": torch.full((32,), torch.nan)},
            r"NaN or infinite weights: 32 numbers",
        ),
    }
    for name, (tensors, message) in changed.items():
        torch.save(tensors, tmp_path / f"{name}.pth")
        with pytest.raises(BackboneError, match=message):
            load_backbone(f"hf/{tmp_path}/m", weights=tmp_path / f"{name}.pth", device="cpu")
    (tmp_path / "m/config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(
        BackboneError, match=r"fewer layers by its config\.json than the weights, which also hold .*layers\.2\."
    ):
        load_backbone(f"hf/{tmp_path}/m", device="cpu")


def test_a_missing_shard_and_values_that_no_transform_takes_are_named(tmp_path: Path) -> None:
    model = vision_models.vit(tmp_path / "m")
    (tmp_path / "m/model.safetensors").unlink()
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    first = sorted((tmp_path / "m").glob("model-0*.safetensors"))[0]
    content = first.read_bytes()
    first.unlink()
    with pytest.raises(BackboneError, match=f"there is no weights file .*{first.name}"):
        load_backbone(f"hf/{tmp_path}/m", device="cpu")
    first.write_bytes(content)
    processor = tmp_path / "m/preprocessor_config.json"
    processor.write_text(json.dumps({**json.loads(processor.read_text()), "image_mean": None}))
    with pytest.raises(BackboneError, match=r"ViTImageProcessor has values that no transform takes: "):
        load_backbone(f"hf/{tmp_path}/m", device="cpu")


def test_a_stored_configuration_builds_vision_models_alone(tmp_path: Path) -> None:
    vision_models.vit(tmp_path / "m")
    origin = load_backbone(f"hf/{tmp_path}/m", device="cpu").describe()["architecture"]
    for changed, message in (
        ({"name": "BertModel"}, "has no vision model BertModel"),
        ({"pooling": "other"}, "has no vision model"),
        ({"config": "{"}, "the stored configuration of ViTForImageClassification is not valid"),
    ):
        with pytest.raises(BackboneError, match=message):
            registry.rebuild({**origin, **changed})


def test_texts_have_unit_vectors_that_are_transformers_own(tmp_path: Path) -> None:
    for make, padding in ((vision_models.clip, True), (vision_models.siglip, "max_length")):
        model = make(tmp_path / make.__name__)
        backbone = load_backbone(f"hf/{tmp_path}/{make.__name__}", device="cpu")
        texts = ["a photo of a dog", "the cat", "dark " * 40]
        inputs = vision_models.tokenizer()(texts, padding=padding, truncation=True, max_length=12, return_tensors="pt")
        if padding == "max_length":
            inputs.pop("attention_mask")
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            expected = torch.nn.functional.normalize(model.get_text_features(**inputs).pooler_output, dim=1)
        found = backbone.encode_text(texts)
        assert backbone.has_text
        assert (found.shape, found.dtype) == ((3, backbone.layer_widths["penultimate"]), np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        tower = backbone.text_tower()
        assert tower.sigmoid == (make is vision_models.siglip)
        assert tower.scale == pytest.approx(model.logit_scale.exp().item())
    for file in (tmp_path / "clip").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(BackboneError, match=r"has no tokenizer in .*clip that can be read"):
        load_backbone(f"hf/{tmp_path}/clip", device="cpu").encode_text(["dog"])


def test_a_network_without_a_text_tower_and_other_than_lists_of_texts_are_refused(tmp_path: Path) -> None:
    backbone = load_backbone("lenet5", device="cpu")
    assert not backbone.has_text
    with pytest.raises(
        BackboneError, match="lenet5 has no text tower; expected a model of images and text, such as open_clip/"
    ):
        backbone.encode_text(["a"])
    with pytest.raises(BackboneError, match="the texts are 'dog'; expected a list of at least one text"):
        backbone.encode_text("dog")


def test_a_folder_is_measured_anew_each_time(tmp_path: Path) -> None:
    vision_models.vit(tmp_path / "m")
    first = describe_backbones(f"hf/{tmp_path}/m")[0]
    assert (first.embedding, first.input_size, first.local) == (32, 32, True)
    shutil.rmtree(tmp_path / "m")
    vision_models.clip(tmp_path / "m")
    assert describe_backbones(f"hf/{tmp_path}/m")[0].embedding == 24
