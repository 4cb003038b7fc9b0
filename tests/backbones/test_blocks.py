"""Blocks and stages of networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from featx.backbones import registry
from featx.backbones.blocks import block_names, find_stages


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
