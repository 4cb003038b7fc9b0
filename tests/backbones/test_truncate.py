"""Networks that end at inner layers: the same numbers, fewer tensors, and promotion of heads that are on such layers."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import featx
from featx.backbones.blocks import block_names
from featx.backbones.truncate import head_name, truncate_network
from featx.errors import BackboneError, CorruptFileError, PromotionError
from featx.heads.head import Head
from featx.inference import evaluate, predict
from featx.promotion.config import FineTuning
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import promote


@pytest.mark.parametrize(
    ("name", "layer", "crop"),
    [
        ("resnet18", "layer3", 64), ("mobilenet_v1_025", "features.11:max", 64),
        ("vit_b_32", "encoder.layers.encoder_layer_1", 224),
        ("swin_t", "features.3", 64), ("densenet121", "features.denseblock2:gem", 64), ("inception_v3", "Mixed_5d", 96),
        ("squeezenet1_1", "features.7", 64), ("timm/vit_tiny_patch16_224", "blocks.3:cls", 224),
        ("swin_t", "features.3,features.5", 64), ("resnet18", "layer1,layer3,penultimate", 64),
        ("densenet121", "features.denseblock2:gem,features.denseblock4,penultimate", 64),
        ("squeezenet1_1", "penultimate,features.7:gem", 64), ("mobilenet_v3_small", "features.3,penultimate", 64),
        ("vit_b_32", "encoder.layers.encoder_layer_1:cls,penultimate", 224),
        ("timm/convnext_atto", "stages.1,penultimate", 64),
    ],
)  # fmt: skip
def test_the_first_part_of_a_network_gives_what_its_layer_does(name: str, layer: str, crop: int) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    layers = layer.split(",")
    backbone = featx.load_backbone(name, weights="random", layers=layers, resize=crop, crop=crop)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, crop, crop), dtype=np.uint8)
    wanted = backbone.encode_at(pixels[:, None], layer)
    own, head = set(backbone.network.state_dict()), head_name(layer, backbone.classifier)
    network = truncate_network(copy.deepcopy(backbone.network), layer, wanted.shape[1], head)
    names = set(network.state_dict())
    every = block_names(backbone.network, backbone.classifier)
    if "penultimate" in layers:
        assert names == {name for name in own if not name.startswith("AuxLogits.")}
        assert (
            block_names(network, head)[: len(every) - 1] == every[:-1]
        )  # the last may hold the classifier, and is taken apart
    else:
        assert names - own == {f"{head}.weight", f"{head}.bias"}
        assert len(names & own) < len(own)
        assert block_names(network, head) == every[: len(block_names(network, head))]
    network.set_submodule(head, nn.Identity())
    from featx.backbones.backbone import normalise

    with torch.inference_mode():
        found = network(normalise(torch.from_numpy(pixels), backbone.transform))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer", ["features.3:max", "features.5", "features.3:max,features.5", "features.5,penultimate"]
)
@pytest.mark.parametrize("how", [None, {"last": 0}, {"last": 1}, {}])
def test_a_head_on_inner_layers_becomes_a_network_that_ends_there(
    layer: str, how: dict[str, int] | None, split_photos: Path, in_tmp: Path
) -> None:
    backbone = featx.load_backbone("lenet5", layers=("features.3:max", "features.5"))
    features = featx.extract(split_photos, backbone).load(layer)
    head = Head("ridge").fit(features)
    settings = FineTuning(epochs=2, lr=1e-2, significance=1.0, repeats=0, **(how or {}))  # type: ignore[arg-type]
    result = promote(head.save("head.safetensors"), finetune=how is not None, settings=settings)
    assert result.proof.largest < 1e-3
    if result.run:
        assert result.log[0]["log_loss"] == pytest.approx(result.run.start.log_loss, abs=1e-3)
        assert not [note for note in result.notes if "cannot be split" in note]
    tensors = load_file(result.path)
    if "penultimate" not in layer:
        assert not [name for name in tensors if name.startswith(("features.6", "hidden", "classifier"))]
    assert tensors[f"{head_name(layer, 'classifier')}.weight"].shape == (2, features.width)
    model = PromotedModel.load(result.path)
    files = [split_photos / str(path) for path in features.paths]
    batch = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(model.logits(batch), result.model.logits(batch), rtol=1e-5, atol=1e-5)
    if result.verdict != "promoted":
        wanted = head.predict_values(features.features)
        for one, row in zip(predict(result.path, files, top=2), wanted, strict=True):
            assert dict(one.top) == pytest.approx(dict(zip(head.classes_, row, strict=True)), abs=1e-4)
    assert evaluate(result.path, split_photos).as_dict()["accuracy"] == result.report.accuracy


def test_what_enters_the_heads_of_two_layers_is_kept_apart(split_photos: Path, in_tmp: Path) -> None:
    backbone = featx.load_backbone("lenet5", layers=("features.3", "features.3:max"))
    extraction = featx.extract(split_photos, backbone)
    settings = FineTuning(epochs=1, last=0, augment="none", repeats=0)
    both = "features.3,features.3:max"
    for layer in ("features.3", "features.3:max", both, "features.3,penultimate", "features.3:max,penultimate"):
        result = promote(Head("ridge").fit(extraction.load(layer)), finetune=True, settings=settings)
        assert result.run is not None
        assert result.log[0]["log_loss"] == pytest.approx(result.run.start.log_loss, abs=1e-3)
    assert len(list(Path("cache/frozen").glob("*.h5"))) == 5


def test_a_network_ends_behind_a_block_alone(split_photos: Path, in_tmp: Path) -> None:
    backbone = featx.load_backbone(
        "resnet18", weights="random", crop=32, resize=32, layers=("layer1.0.bn2", "layer1.0.add")
    )
    extraction = featx.extract(split_photos, backbone)
    for layer in ("layer1.0.bn2", "layer1.0.add"):
        head = Head("ridge").fit(extraction.load(layer))
        with pytest.raises(
            PromotionError,
            match=rf"only be truncated after a block, and '{layer}' is not one; fit a head to one of conv1, bn1",
        ):
            promote(head)
    several = Head("ridge").fit(extraction.load("layer1.0.bn2,penultimate"))
    with pytest.raises(PromotionError, match=r"'layer1\.0\.bn2' is not one"):
        promote(several)


def test_a_network_that_cannot_be_followed_cannot_end_early() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                x = x + 1
            out: torch.Tensor = self.fc(self.conv(x).mean(dim=(2, 3)))
            return out

    with pytest.raises(
        PromotionError, match=r"torch\.fx cannot trace this network, so it cannot be truncated at 'conv'"
    ):
        truncate_network(Counts().eval(), "conv", 4, "head_conv")


def test_a_file_whose_layer_is_not_its_networks_is_refused(split_photos: Path, in_tmp: Path) -> None:
    backbone = featx.load_backbone("lenet5", layers=("features.3",))
    result = promote(Head("ridge").fit(featx.extract(split_photos, backbone).load("features.3")))
    for layer, error, message in (
        ("penultimate", CorruptFileError, "is not a valid model: LeNet5 has no attribute `head_features_3`"),
        ("features.0", BackboneError, "does not fit GraphModule: 2 surplus: features.3.bias, features.3.weight"),
        (
            "nonsense",
            CorruptFileError,
            "is not a valid model: a network can only be .* a block, and 'nonsense' is not one",
        ),
        ("features.3,penultimate", CorruptFileError, "is not a valid model: .* 'penultimate' is not one"),
        ("features.3,features.3", CorruptFileError, "is not a valid model: it cannot be run: .*shapes"),
    ):
        result.model.metadata["layer"] = layer
        result.model.save("odd.safetensors")
        with pytest.raises(error, match=rf"odd\.safetensors {message}"):
            PromotedModel.load("odd.safetensors")
