"""LeNet-5 and MobileNet v1."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from featx.backbones.architectures import Conv2dSame, LeNet5, MobileNetV1


def test_the_same_padding_of_mobilenet_is_tensorflows() -> None:
    conv = Conv2dSame(2, 3, 3, stride=2, bias=False)
    plain = nn.Conv2d(2, 3, 3, stride=2, bias=False)
    plain.load_state_dict(conv.state_dict())
    with torch.inference_mode():
        for size, pads in ((8, (0, 1, 0, 1)), (7, (1, 1, 1, 1))):
            images = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(conv(images), plain(F.pad(images, pads)))
            assert conv(images).shape == (1, 3, 4, 4)
        wide = torch.zeros(1, 2, 8, 5)
        assert conv(wide).shape == (1, 3, 4, 3)


def test_the_width_of_mobilenet_multiplies_its_channels() -> None:
    assert [MobileNetV1(width).classifier.in_features for width in (1.0, 0.75, 0.5, 0.25)] == [1024, 768, 512, 256]
    state = MobileNetV1(0.75).state_dict()
    assert state["features.0.0.weight"].shape == (24, 3, 3, 3)
    assert state["features.13.1.0.weight"].shape == (768, 768, 1, 1)


def test_lenet_takes_grey_images_as_the_mean_of_rgb() -> None:
    network = LeNet5().eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(images), network(images.mean(dim=1, keepdim=True)))
