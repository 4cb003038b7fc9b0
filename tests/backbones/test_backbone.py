"""Frozen networks: their features, views and identities."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import FACTORIES, module_outputs, normalised, pixels_for, stored
from safetensors.torch import save_file

from featx.backbones import registry
from featx.backbones.backbone import Backbone, cast_features, layers_of, load_backbone
from featx.backbones.identities import in_stored_form, other_form
from featx.backbones.pixels import normalise
from featx.backbones.restored import restore_backbone
from featx.data.decode import read_pixels
from featx.data.scan import scan_images
from featx.data.transform import Transform
from featx.errors import BackboneError, StaleCacheError
from featx.layer_spec import VIEWS, LayerSpec, stored_name


def test_pixels_are_normalised_by_the_transform() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    transform = Transform(mean=(0.5, 0.1, 0.0), std=(0.5, 0.1, 0.25))
    torch.testing.assert_close(normalise(pixels, transform).flatten(), torch.tensor([-1.0, 1.0, 4.0]))


def test_requesting_the_penultimate_or_a_layer_twice_changes_nothing(resnet: Backbone) -> None:
    again = load_backbone("resnet18", weights="random", layers=("layer3", "penultimate", "layer3"), crop=64)
    assert list(again.layers) == ["penultimate", "layer3"]
    np.testing.assert_array_equal(
        again.encode(pixels_for(again))["layer3"], resnet.encode(pixels_for(resnet))["layer3"]
    )


def test_the_same_network_can_be_extracted_elsewhere_without_loading_it_again(resnet: Backbone) -> None:
    layers = dict(resnet.layers)
    other = resnet.with_layers(["layer2", "layer1.0.add"])
    assert other.network is resnet.network
    assert other.layers == {"penultimate": 512, "layer1.0.add": 64, "layer2": 128}
    pixels = pixels_for(resnet)
    maps = module_outputs(resnet.network, normalised(resnet, pixels), "layer2")
    np.testing.assert_allclose(other.encode(pixels)["layer2"], maps["layer2"].mean(dim=(2, 3)), rtol=1e-5)
    assert other.identities["penultimate"] == resnet.identities["penultimate"]
    assert resnet.layers == layers
    assert list(resnet.encode(pixels)) == list(layers)


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


def test_all_stages_are_extracted_in_one_pass() -> None:
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


def test_an_image_too_small_for_the_network_is_an_error_that_names_the_option() -> None:
    with pytest.raises(BackboneError, match=r"alexnet cannot run on 3 x 10 x 10 pixels \(.*too small\); .*--crop"):
        load_backbone("alexnet", weights="random", crop=10)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("TwoInputs", r"\(.*missing 1 required positional argument.*\); its first convolution takes 1 channel, and its "
                      r"transform has 3$"),
        ("Fixed", r"it is made for 32 x 32: leave --size and --crop out$"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_run_says_what_is_possible(own: Callable[[str], str], factory: str, message: str) -> None:
    with pytest.raises(BackboneError, match=rf"mine\.py:{factory} cannot run on 3 x 40 x 40 pixels .*{message}"):
        load_backbone(own(factory), crop=40)


def test_the_stages_of_a_network_that_cannot_run_are_an_error_too(own: Callable[[str], str]) -> None:
    with pytest.raises(BackboneError, match=r"mine\.py:TwoInputs cannot run on 3 x 32 x 32 pixels .*takes 1 channel"):
        layers_of(own("TwoInputs"))


def test_a_crop_that_is_larger_than_the_resized_image_is_said_to_be_padded() -> None:
    assert load_backbone("lenet5").notes == load_backbone("squeezenet1_1", weights="random", crop=64).notes == ()
    (note,) = load_backbone("squeezenet1_1", weights="random", crop=300).notes
    assert (
        note == "images are resized to 256 pixels and padded with black to the crop of 300; --resize 300 would fill it"
    )


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
    again = restore_backbone(stored(first), layers=first.identities, device="cpu")
    assert (again.precision, again.identities) == ("bfloat16", first.identities)
    pixels = pixels_for(first)
    np.testing.assert_array_equal(again.encode(pixels)["penultimate"], first.encode(pixels)["penultimate"])


def test_a_stored_precision_that_means_nothing_is_an_error(lenet_in_bfloat16: Backbone) -> None:
    described = stored(lenet_in_bfloat16)
    described["parts"]["precision"] = "float8"
    with pytest.raises(BackboneError, match="precision is 'float8'; expected one of float32, bfloat16, float16"):
        restore_backbone(described, layers=lenet_in_bfloat16.identities, device="cpu")
    del described["parts"]["precision"]
    with pytest.raises(BackboneError, match="the stored description of lenet5 is not valid: 'precision'"):
        restore_backbone(described, layers=lenet_in_bfloat16.identities, device="cpu")


@pytest.fixture
def lenet_in_bfloat16() -> Backbone:
    return load_backbone("lenet5", precision="bfloat16", device="cpu")


def test_the_same_network_may_give_features_of_another_type(resnet: Backbone) -> None:
    half = resnet.with_dtype("float16")
    assert (half.dtype, resnet.dtype) == ("float16", "float32")
    assert half.network is resnet.network
    assert half.identity != resnet.identity
    expected = resnet.encode(pixels_for(resnet))["layer3"].astype(np.float16)
    np.testing.assert_array_equal(half.encode(pixels_for(resnet))["layer3"], expected)


def test_what_another_type_cannot_hold_is_infinite_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    found = cast_features(np.array([[1.0, 1e6, -1e6, np.nan]], np.float32), "float16")
    np.testing.assert_array_equal(found, np.array([[1, np.inf, -np.inf, np.nan]], np.float16))
    assert not recwarn.list
    rows = np.ones((2, 3), np.float32)
    assert cast_features(rows, "float32") is rows


def test_a_way_of_decoding_is_part_of_the_identity() -> None:
    exact, scaled = load_backbone("lenet5"), load_backbone("lenet5", decoding="scaled")
    assert (exact.transform.decoding, scaled.transform.decoding) == ("exact", "scaled")
    assert exact.identity != scaled.identity
    again = restore_backbone(stored(scaled), layers=scaled.identities)
    assert again.transform.decoding == "scaled"
    with pytest.raises(BackboneError, match=r"^lenet5 does not support this transform: .*decoding"):
        load_backbone("lenet5", decoding="roughly")


@pytest.mark.cuda
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
        assert loaded.identity == other_form(own).identity
        assert in_stored_form(loaded, own.identities).identity == own.identity
    small = {name: tensor for name, tensor in own.network.state_dict().items() if not name.startswith("classifier.")}
    save_file(small, tmp_path / "headless.safetensors")
    assert load_backbone("lenet5", weights=str(tmp_path / "headless.safetensors")).identity == other_form(own).identity


def test_a_network_of_torchvision_loaded_from_a_file_is_the_network_it_was_saved_from(tmp_path: Path) -> None:
    own = load_backbone("squeezenet1_1", weights="random", crop=64)
    torch.save(own.network.state_dict(), tmp_path / "mine.pth")
    loaded = load_backbone("squeezenet1_1", weights=str(tmp_path / "mine.pth"), crop=64)
    assert in_stored_form(loaded, own.identities).identity == own.identity
    pixels = pixels_for(own)
    np.testing.assert_array_equal(loaded.encode(pixels)["penultimate"], own.encode(pixels)["penultimate"])


@pytest.mark.real
def test_real_imagenet_weights_recognise_ants_and_bees(mobilenet_weights: Path, hymenoptera: Path) -> None:
    backbone = load_backbone("mobilenet_v1_075", weights=str(mobilenet_weights), device="cpu")
    assert backbone.layers == {"penultimate": 768}
    images = scan_images(hymenoptera)
    for label, imagenet_class in (("ants", 310), ("bees", 309)):
        is_wanted = (images.labels == images.classes.index(label)) & (images.splits == "train")
        rows = np.flatnonzero(is_wanted)[:40]
        pixels = np.stack([read_pixels(images.file(row).read().data, backbone.transform) for row in rows])
        with torch.inference_mode():
            logits = backbone.network(normalise(torch.from_numpy(pixels), backbone.transform))
        assert len(rows) == 40
        assert (logits.argmax(dim=1) == imagenet_class).float().mean() >= 0.6


def test_a_backbone_is_made_again_from_what_a_feature_file_stores() -> None:
    first = load_backbone("lenet5", weights="random", layers=("hidden.1",), resize=0, dtype="float16")
    again = restore_backbone(stored(first), layers={"hidden.1": first.identities["hidden.1"]})
    assert again.identities == first.identities
    assert again.transform == first.transform
    pixels = pixels_for(first)
    np.testing.assert_array_equal(again.encode(pixels)["hidden.1"], first.encode(pixels)["hidden.1"])


def test_a_backbone_of_several_views_is_made_again_by_the_name_of_its_layer() -> None:
    first = load_backbone("lenet5", layers=("hidden",), views="10crop", resize=40)
    for layer in ("penultimate@10crop", "hidden,penultimate@flip", "hidden@top-left-mirrored"):
        identity = first.identity_of(layer)
        assert identity is not None
        again = restore_backbone(stored(first), layers={layer: identity})
        assert again.identity_of(layer) == identity
        assert again.views == LayerSpec.parse(layer).views
    with pytest.raises(StaleCacheError, match=r"identity of penultimate@flip: 0{64} against \w{64}"):
        restore_backbone(stored(first), layers={"penultimate@flip": "0" * 64})


def test_weights_that_have_moved_may_be_named(tmp_path: Path) -> None:
    save_file(load_backbone("lenet5").network.state_dict(), tmp_path / "a.safetensors")
    first = load_backbone("lenet5", weights=str(tmp_path / "a.safetensors"))
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    identity = first.identities["penultimate"]
    with pytest.raises(BackboneError, match=r"there is no weights file .*a\.safetensors"):
        restore_backbone(stored(first), layers={"penultimate": identity})
    moved = str(tmp_path / "b.safetensors")
    again = restore_backbone(stored(first), layers={"penultimate": identity}, weights=moved)
    assert again.identity == first.identity


def test_a_backbone_of_other_weights_is_refused_and_the_difference_named() -> None:
    first, other = load_backbone("lenet5", weights="random"), load_backbone("lenet5")
    message = r"^lenet5 gives other features here than the stored ones \(weights_sha256: \w{64} against \w{64}\)$"
    with pytest.raises(StaleCacheError, match=message):
        restore_backbone(stored(first), layers={"penultimate": first.identities["penultimate"]}, weights=other.weights)


def test_a_stored_path_of_code_is_never_run_unless_it_is_named(own: Callable[[str], str], tmp_path: Path) -> None:
    first = load_backbone(own("Net"))
    identity = first.identities["penultimate"]
    with (tmp_path / "mine.py").open("a") as file:
        file.write(f"\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(
        BackboneError, match=r"mine\.py:Net, a file of code, and a stored path is never run; name it with --b"
    ):
        restore_backbone(stored(first), layers={"penultimate": identity})
    with pytest.raises(BackboneError, match=r"is mine\.py:Net, a file of code, and a stored path is never run"):
        registry.rebuild(first.describe()["architecture"])
    assert not (tmp_path / "ran").exists()
    with pytest.raises(StaleCacheError, match=r"architecture: .*code_sha256.* against "):
        restore_backbone(stored(first), layers={"penultimate": identity}, name=own("Net"))
    assert (tmp_path / "ran").exists()
    (tmp_path / "mine.py").write_text(FACTORIES)
    again = restore_backbone(stored(first), layers={"penultimate": identity}, name=own("Net"))
    assert again.identity == first.identity


def test_each_view_of_a_layer_has_an_identity_of_its_own_and_plain_is_the_one_without_views() -> None:
    plain = load_backbone("lenet5", layers=("hidden",), resize=40)
    ten = load_backbone("lenet5", layers=("hidden",), resize=40, views="10crop")
    assert ten.layer_widths == plain.layer_widths == plain.layers
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


def test_other_layers_are_extracted_in_the_views_of_all() -> None:
    plain = load_backbone("lenet5")
    assert plain.with_layers(["hidden@mirrored"]).views == VIEWS["flip"]
    assert plain.with_layers(["penultimate", "hidden", "hidden@mirrored"]).layer_widths == {
        "penultimate": 84,
        "hidden": 84,
    }
    assert load_backbone("lenet5", views="flip").with_layers(["hidden"]).views == VIEWS["flip"]
    assert plain.views == VIEWS["plain"]


@pytest.mark.parametrize("sizes", [{"resize": 0}, {"resize": 28, "crop": 32}])
def test_corners_that_there_are_not_are_refused(sizes: dict[str, int]) -> None:
    message = (
        r"there are no corners to crop: images are .*ed to (28 pixels and cropped to )?32 x 32; use a larger --resize"
    )
    with pytest.raises(BackboneError, match=message):
        load_backbone("lenet5", views="10crop", **sizes)
    assert load_backbone("lenet5", views="flip", **sizes).views == VIEWS["flip"]


def test_views_that_there_are_not_are_refused() -> None:
    with pytest.raises(BackboneError, match="views is '5crop'; expected one of plain, flip, 10crop"):
        load_backbone("lenet5", views="5crop")
