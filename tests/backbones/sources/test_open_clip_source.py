"""The image towers of open_clip."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import vision_models
from networks import normalised, pixels_for, stored
from PIL import Image
from safetensors.torch import load_file, save_file

from featx.backbones import registry
from featx.backbones.backbone import load_backbone
from featx.backbones.catalog import describe_backbones, list_backbones
from featx.backbones.pixels import normalise
from featx.backbones.restored import restore_backbone
from featx.backbones.sources.open_clip_source import _arch, _transform
from featx.data.decode import read_pixels
from featx.errors import BackboneError


def test_the_image_tower_and_its_texts_are_open_clips_own(tmp_path: Path) -> None:
    arch = vision_models.register_open_clip()
    model = vision_models.open_clip_model(tmp_path / "w.safetensors")
    import open_clip

    backbone = load_backbone(
        f"open_clip/{arch}", weights=str(tmp_path / "w.safetensors"), layers=["visual.ln_post:cls"], device="cpu"
    )
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        expected = model.encode_image(normalised(backbone, pixels))
        texts = model.encode_text(open_clip.get_tokenizer(arch)(["a dog", "two cats on grass"]), normalize=True)
    features = backbone.encode(pixels)
    np.testing.assert_allclose(features["penultimate"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        features["visual.ln_post:cls"] @ model.visual.proj.detach().numpy(), expected, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(backbone.encode_text(["a dog", "two cats on grass"]), texts, rtol=1e-4, atol=1e-5)
    assert not backbone.text_tower().sigmoid
    assert backbone.text_tower().scale == pytest.approx(model.logit_scale.exp().item())
    again = restore_backbone(stored(backbone), layers=backbone.identities, device="cpu")
    assert again.identity == backbone.identity
    rebuilt = registry.rebuild(backbone.describe()["architecture"]).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in backbone.network.state_dict().items()}
    assert len(backbone.stages()) >= 3


def test_a_file_of_the_image_tower_alone_or_in_a_container_is_read(tmp_path: Path) -> None:
    arch = vision_models.register_open_clip()
    vision_models.open_clip_model(tmp_path / "w.safetensors")
    whole = load_backbone(f"open_clip/{arch}", weights=str(tmp_path / "w.safetensors"), device="cpu")
    state = load_file(tmp_path / "w.safetensors")
    torch.save({"epoch": 1, "state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "trained.pt")
    save_file({n: t for n, t in state.items() if n.startswith("visual.")}, tmp_path / "visual.safetensors")
    for file in ("trained.pt", "visual.safetensors"):
        assert load_backbone(f"open_clip/{arch}", weights=str(tmp_path / file), device="cpu").identity == whole.identity
    save_file({n: t for n, t in state.items() if "resblocks.1" not in n}, tmp_path / "part.safetensors")
    with pytest.raises(
        BackboneError,
        match=r"part\.safetensors does not fit open_clip/featx-tiny: 50 of 74 .*resblocks\.1.*missing\. Name",
    ):
        load_backbone(f"open_clip/{arch}", weights=str(tmp_path / "part.safetensors"), device="cpu")


@pytest.mark.parametrize("kept", ["visual alone", "a part of the text tower"])
def test_texts_are_not_compared_where_the_weights_have_no_whole_text_tower(kept: str, tmp_path: Path) -> None:
    arch = vision_models.register_open_clip()
    vision_models.open_clip_model(tmp_path / "w.safetensors")
    state = load_file(tmp_path / "w.safetensors")
    alone = {n: t for n, t in state.items() if n.startswith("visual.")}
    part = {n: t for n, t in state.items() if not n.startswith("transformer.resblocks.1.")}
    save_file(alone if kept == "visual alone" else part, tmp_path / "some.safetensors")
    backbone = load_backbone(f"open_clip/{arch}", weights=f"{tmp_path}/some.safetensors", device="cpu")
    assert not backbone.has_text
    assert backbone.notes[-1].endswith(
        "it has no whole text tower, so that texts cannot be compared with these features"
    )
    with pytest.raises(BackboneError, match="has no text tower"):
        backbone.encode_text(["a dog"])


@pytest.mark.parametrize("content", ["both towers", "image towers"])
def test_of_two_models_in_a_checkpoint_one_must_be_named(content: str, tmp_path: Path) -> None:
    arch = vision_models.register_open_clip()
    vision_models.open_clip_model(tmp_path / "w.safetensors")
    state = load_file(tmp_path / "w.safetensors")
    if content == "image towers":
        state = {n: t for n, t in state.items() if n.startswith("visual.")}
    torch.save({"state_dict": state, "state_dict_ema": {n: t + 1 for n, t in state.items()}}, tmp_path / "w.pt")
    with pytest.raises(BackboneError, match=r"holds 2 networks that fit open_clip/.*w\.pt#state_dict$"):
        load_backbone(f"open_clip/{arch}", weights=f"{tmp_path}/w.pt", device="cpu")
    chosen = load_backbone(f"open_clip/{arch}", weights=f"{tmp_path}/w.pt#state_dict", device="cpu")
    whole = load_backbone(f"open_clip/{arch}", weights=f"{tmp_path}/w.safetensors", device="cpu")
    assert chosen.identity == whole.identity
    with pytest.raises(BackboneError, match=r"has no part 'other' with tensors by name"):
        load_backbone(f"open_clip/{arch}", weights=f"{tmp_path}/w.pt#other", device="cpu")


def test_a_file_of_another_image_size_names_both_sizes(tmp_path: Path) -> None:
    arch = vision_models.register_open_clip()
    vision_models.open_clip_model(tmp_path / "w.safetensors")
    state = load_file(tmp_path / "w.safetensors")
    state["visual.positional_embedding"] = torch.ones(37, 32)
    save_file(state, tmp_path / "w48.safetensors")
    with pytest.raises(BackboneError, match=r"--crop 48 builds the network .*, --crop 32 interpolates"):
        load_backbone(f"open_clip/{arch}", weights=f"{tmp_path}/w48.safetensors", device="cpu")
    for side, adapted in ((48, False), (32, True)):
        backbone = load_backbone(f"open_clip/{arch}", weights=f"{tmp_path}/w48.safetensors", crop=side, device="cpu")
        assert any("interpolated the position embeddings" in note for note in backbone.notes) is adapted


def test_another_image_size_interpolates_position_embeddings_as_open_clip_does(tmp_path: Path) -> None:
    arch = vision_models.register_open_clip()
    vision_models.open_clip_model(tmp_path / "w.safetensors")
    import open_clip

    own = open_clip.create_model(arch, force_image_size=48)
    open_clip.load_checkpoint(own, str(tmp_path / "w.safetensors"))
    backbone = load_backbone(f"open_clip/{arch}", weights=str(tmp_path / "w.safetensors"), crop=48, device="cpu")
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        expected = own.eval().encode_image(normalised(backbone, pixels))
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-4, atol=1e-5)
    assert backbone.describe()["architecture"]["image_size"] == "48"
    assert any("adapted to 48 x 48" in note for note in backbone.notes)


def test_a_folder_of_open_clip_is_loaded_with_its_own_preprocessing(tmp_path: Path) -> None:
    vision_models.register_open_clip()
    vision_models.open_clip_model(tmp_path / "open_clip_model.safetensors")
    prepare = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": vision_models.OPEN_CLIP, "preprocess_cfg": prepare}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    backbone = load_backbone(f"open_clip/local-dir:{tmp_path}", device="cpu")
    assert (backbone.transform.resize, backbone.transform.mean, backbone.transform.interpolation) == (
        0,
        (0.5,) * 3,
        "bilinear",
    )
    weights = str(tmp_path / "open_clip_model.safetensors")
    other = load_backbone("open_clip/featx-tiny", weights=weights, transform=backbone.transform, device="cpu")
    assert other.describe()["weights_sha256"] == backbone.describe()["weights_sha256"]


def test_a_repository_of_open_clip_in_the_hubs_cache_is_the_same_as_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision_models.register_open_clip()
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--some-people--tiny-clip"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    vision_models.open_clip_model(snapshot / "open_clip_model.safetensors")
    (snapshot / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": vision_models.OPEN_CLIP, "preprocess_cfg": {}})
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    backbone = load_backbone("open_clip/hf-hub:some-people/tiny-clip", device="cpu")
    folder = load_backbone(f"open_clip/local-dir:{snapshot}", device="cpu")
    assert backbone.describe()["weights_sha256"] == folder.describe()["weights_sha256"]
    with pytest.raises(BackboneError, match=r"some-people/other.*has no open_clip_config\.json that can be read"):
        load_backbone("open_clip/hf-hub:some-people/other", device="cpu")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    arch = vision_models.register_open_clip()
    state = vision_models.open_clip_model(tmp_path / "w.safetensors").state_dict()
    torch.save({**state, "visual.proj": state["visual.proj"] * torch.nan}, tmp_path / "nan.pt")
    with pytest.raises(BackboneError, match=r"nan\.pt holds NaN or infinite weights: .* of visual\.proj"):
        load_backbone(f"open_clip/{arch}", weights=str(tmp_path / "nan.pt"), device="cpu")


@pytest.mark.parametrize(
    "name", ["ViT-B-32/openai", "ViT-B-16-SigLIP/webli", "ViT-L-14/laion2b_s32b_b82k", "RN50/openai"]
)
def test_the_preprocessing_of_published_weights_is_open_clips_own(name: str) -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs the extra open-clip")
    arch = _arch(open_clip, name)
    transform = _transform(arch, arch.native)
    config = open_clip.get_pretrained_cfg(*name.split("/"))
    own = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(
            **{k: v for k, v in config.items() if k in ("mean", "std", "interpolation", "resize_mode")},
            size=arch.native,
        ),
        is_train=False,
    )
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (30, 45, 3), dtype=np.uint8)).resize((450, 300))
    file = BytesIO()
    image.save(file, "PNG")
    prepared = normalise(torch.from_numpy(read_pixels(file.getvalue(), transform)[None]), transform)[0]
    levels = (prepared - own(image)).abs() * torch.tensor(transform.std).view(3, 1, 1) * 255
    assert levels.max() < 1.01, "Pillow and torch round a resized pixel differently, by one level"
    assert levels.mean() < 0.1


def test_the_activation_is_that_of_the_weights_where_open_clip_only_warns() -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs the extra open-clip")
    assert _arch(open_clip, "ViT-B-32/openai").config["quick_gelu"] is True
    assert _arch(open_clip, "ViT-B-32-quickgelu/laion400m_e32").config["quick_gelu"] is True
    assert _arch(open_clip, "ViT-B-32/laion2b_s34b_b79k").config["quick_gelu"] is False


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-3", r"open_clip has no model 'ViT-B-3'; did you mean .*ViT-B-32"),
        ("ViT-B-32/opnai", r"has no weights 'opnai' of ViT-B-32; did you mean openai"),
        ("ViT-B-32", r"open_clip/ViT-B-32 has no default weights; name one of open_clip/ViT-B-32/openai"),
        ("local-dir:nowhere", r"open_clip/local-dir:nowhere has no open_clip_config\.json that can be read"),
    ],
)
def test_a_name_that_open_clip_does_not_know_is_refused_with_what_it_has(name: str, message: str) -> None:
    pytest.importorskip("open_clip", reason="needs the extra open-clip")
    with pytest.raises(BackboneError, match=message):
        load_backbone(f"open_clip/{name}")


def test_architectures_are_listed_with_their_tags_and_measured_without_weights() -> None:
    pytest.importorskip("open_clip", reason="needs the extra open-clip")
    names = list_backbones("open_clip/*")
    assert {"open_clip/ViT-B-32/openai", "open_clip/RN50/openai"} < set(names)
    assert len(names) > 150
    entry = describe_backbones("open_clip/ViT-B-32/openai")[0]
    assert (entry.embedding, entry.input_size) == (512, 224)
    with pytest.raises(BackboneError, match=r"did you mean open_clip/ViT-B-32/openai\?"):
        registry.build("ViT-B-32/openai")
