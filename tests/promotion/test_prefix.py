"""A network split into a frozen prefix and a suffix that is trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import featx
from featx.backbones.blocks import block_names
from featx.promotion.config import FineTuning
from featx.promotion.param_groups import TrainedBlocks, trained_blocks
from featx.promotion.prefix import split_network

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network_of(name: str) -> featx.Backbone:
    return featx.load_backbone(name, weights="random", resize=64, crop=64)


@pytest.mark.parametrize(
    ("name", "last", "shape"),
    [
        ("resnet18", 2, (256, 4, 4)), ("resnet18", 0, (512,)), ("mobilenet_v1_025", 3, (128, 4, 4)),
        ("efficientnet_b0", 2, (192, 2, 2)), ("densenet121", 2, (512, 2, 2)), ("vgg11", 1, (4096,)),
        ("convnext_tiny", 3, (768, 2, 2)), ("squeezenet1_1", 1, (512, 3, 3)), ("swin_t", 1, (2, 2, 768)),
    ],
)  # fmt: skip
def test_the_two_parts_are_the_network_and_share_its_weights(name: str, last: int, shape: tuple[int, ...]) -> None:
    backbone = network_of(name)
    network, classifier = backbone.network, backbone.classifier
    parts = split_network(network, trained_blocks(network, classifier, FineTuning(last=last)), IMAGES)
    assert parts is not None
    assert parts.suffix.shapes == (shape,)
    with torch.inference_mode():
        torch.testing.assert_close(parts.suffix(parts.prefix(IMAGES)), network(IMAGES), rtol=1e-5, atol=1e-5)
    own = {id(p) for p in network.parameters()}
    used = {id(p) for p in parts.suffix.parameters()}
    assert used <= own
    behind = [*block_names(network, classifier)[len(block_names(network, classifier)) - last :], classifier]
    assert {id(p) for name in behind for p in network.get_submodule(name).parameters()} <= used


def test_dropout_before_the_first_trained_block_belongs_to_the_suffix() -> None:
    backbone = network_of("efficientnet_b0")
    network, classifier = backbone.network, backbone.classifier
    parts = split_network(network, trained_blocks(network, classifier, FineTuning(last=0)), IMAGES)
    assert parts is not None
    assert parts.suffix.shapes == ((1280,),)
    network.train()
    assert any(isinstance(module, nn.Dropout) and module.training for module in parts.suffix.modules())
    assert not any(isinstance(module, nn.Dropout) for module in parts.prefix.modules())


class Branching(nn.Module):
    """Looks at its input's values, which no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x) if x.mean() > 0 else self.body(-x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class Mixing(Branching):
    """What goes past the cut beside the block's output is of all images together."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean()
        return self.fc(self.body[1](self.body[0](x)).mean((2, 3)) + mean)  # type: ignore[no-any-return]


class Skipping(Branching):
    """What goes past the cut beside the block's output is each image's own."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        return self.fc(self.body[1](self.body[0](x)).mean((2, 3)) + mean.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Branching, Mixing])
def test_a_network_that_cannot_be_split_is_not(kind: type[nn.Module]) -> None:
    assert split_network(kind().eval(), TrainedBlocks("fc", ("body.0", "body.1"), 1), IMAGES) is None


def test_all_values_that_cross_the_cut_enter_the_suffix() -> None:
    network = Skipping().eval()
    parts = split_network(network, TrainedBlocks("fc", ("body.0", "body.1"), 1), IMAGES)
    assert parts is not None
    assert parts.suffix.shapes == ((1, 1, 1), (4, 62, 62))
    assert parts.width == 1 + 4 * 62 * 62
    with torch.inference_mode():
        torch.testing.assert_close(parts.suffix(parts.prefix(IMAGES)), network(IMAGES), rtol=1e-5, atol=1e-5)
