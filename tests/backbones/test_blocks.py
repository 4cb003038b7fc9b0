"""Blocks of networks, and which of them are trained at what rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from featx.backbones import registry
from featx.backbones.blocks import block_names, find_stages
from featx.errors import HeadError
from featx.promotion.config import FineTuning
from featx.promotion.param_groups import Trained, frozen, parameter_groups, trained


def network(name: str = "mobilenet_v1_025") -> tuple[nn.Module, str]:
    built = registry.build(name, "random")
    return built.module, built.classifier or "fc"


@pytest.mark.parametrize(
    ("name", "classifier", "expected", "count"),
    [
        ("resnet18", "fc", ["conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "layer2.1"], 10),
        ("vgg11", "classifier.6", ["features.0", "features.3", "features.6", "features.8", "features.11"], 10),
        ("vit_b_32", "heads.head", ["conv_proj", "encoder.layers.encoder_layer_0"], 14),
        ("convnext_tiny", "classifier.2", ["features.0", "features.1.0", "features.1.1"], 23),
        ("efficientnet_b0", "classifier.1", ["features.0", "features.1.0", "features.2.0", "features.2.1"], 18),
        ("densenet121", "classifier", ["features.conv0", "features.norm0", "features.denseblock1"], 10),
        ("googlenet", "fc", ["conv1", "conv2", "conv3", "inception3a", "inception3b"], 12),
    ],
)
def test_blocks_are_the_parts_of_a_network_in_order(
    name: str, classifier: str, expected: list[str], count: int
) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with registry.parameters_on_meta():
        found = block_names(getattr(models, name)(**options), classifier)
    assert found[: len(expected)] == expected
    assert len(found) == count


@pytest.mark.parametrize(
    ("name", "classifier", "expected"),
    [
        ("resnet18", "fc", {"bn1": 64, "layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}),
        ("swin_t", "head", {"features.1": 96, "features.3": 192, "features.5": 384, "norm": 768}),
        (
            "convnext_tiny", "classifier.2",
            {"features.1": 96, "features.3": 192, "features.5": 384, "features.7": 768, "classifier.0": 768},
        ),
        ("maxvit_t", "classifier.5", {"stem": 64, "blocks.0": 64, "blocks.1": 128, "blocks.2": 256, "blocks.3": 512}),
        ("googlenet", "fc", {"conv1": 64, "conv3": 192, "inception3b": 480, "inception4e": 832, "inception5b": 1024}),
    ],
)  # fmt: skip
def test_a_stage_ends_where_the_maps_change_their_size(name: str, classifier: str, expected: dict[str, int]) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with registry.parameters_on_meta():
        module = getattr(models, name)(**options)
    found = find_stages(module.eval().to("meta"), classifier, torch.empty(1, 3, 224, 224, device="meta"))
    assert {stage.layer: stage.width for stage in found} == expected
    assert [stage.blocks for stage in found] == sorted(stage.blocks for stage in found)


def test_blocks_of_one_size_are_read_after_each_third() -> None:
    class Isotropic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4)
            self.blocks = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(7)))
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
            return out

    found = find_stages(Isotropic().eval(), "head", torch.zeros(1, 3, 16, 16))
    assert [(stage.layer, stage.blocks) for stage in found] == [("blocks.0", 2), ("blocks.3", 5), ("blocks.6", 8)]


def test_a_block_of_mobilenet_is_a_depthwise_layer_with_its_pointwise_one() -> None:
    assert block_names(*network()) == [f"features.{i}" for i in range(14)]


def test_every_parameter_is_in_one_group_at_its_rate() -> None:
    module, classifier = network()
    settings = FineTuning(lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    groups = parameter_groups(module, trained(module, classifier, settings), settings)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    named = dict(module.named_parameters())
    assert len(rates) == len(named) == sum(len(g["params"]) for g in groups)
    for name, expected in {
        f"{classifier}.weight": (1e-3, 0.05),
        f"{classifier}.bias": (1e-3, 0.0),
        "features.13.1.0.weight": (1e-4, 0.05),
        "features.13.1.1.weight": (1e-4, 0.0),
        "features.12.0.0.weight": (5e-5, 0.05),
        "features.0.0.weight": (1e-4 * 0.5**13, 0.05),
    }.items():
        assert rates[id(named[name])] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        (FineTuning(), 0), (FineTuning(last=3), 11), (FineTuning(last=0), 14), (FineTuning(last=14), 0),
        (FineTuning(from_layer="features.12"), 12), (FineTuning(from_layer="features"), 0),
    ],
)  # fmt: skip
def test_what_lies_before_the_first_block_is_frozen(settings: FineTuning, first: int) -> None:
    module, classifier = network()
    which = trained(module, classifier, settings)
    assert which.first == first
    assert which.layer == (classifier if first == 14 else f"features.{first}")
    parameter_groups(module, which, settings)
    for name, parameter in module.named_parameters():
        place = 99 if name.startswith(classifier) else int(name.split(".")[1])
        assert parameter.requires_grad == (place >= first), name


def test_batch_norms_are_frozen_unless_asked_and_frozen_blocks_always() -> None:
    module, classifier = network()
    names = tuple(block_names(module, classifier))
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(frozen(module, Trained(classifier, names, 2), norms=False)) == {
        *norms,
        module.features[0],
        module.features[1],
    }  # type: ignore[index]
    assert list(frozen(module, Trained(classifier, names, 1), norms=True)) == [module.features[0]]  # type: ignore[index]


def test_a_block_that_is_not_there_is_said_with_those_that_are() -> None:
    module, classifier = network("lenet5")
    names = r"features\.0, features\.3, features\.6, hidden\.1"
    with pytest.raises(HeadError, match=rf"there is no block 'layer4' to train from; the blocks are {names}"):
        trained(module, classifier, FineTuning(from_layer="layer4"))
    with pytest.raises(HeadError, match=rf"the last 5 blocks are more than the 4 there are: {names}"):
        trained(module, classifier, FineTuning(last=5))
    with pytest.raises(HeadError, match="two ways to say where training begins"):
        FineTuning(last=5, from_layer="features")
