"""Two well-known architectures that torchvision lacks: LeNet-5 and MobileNet v1."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998) for 32 x 32 pixels; its penultimate layer has 84 units.

    It is built as is common today: with ReLU and max pooling, where the paper uses scaled tanh and trainable subsampling.

    Args:
        num_classes: the number of outputs; 5 in the weights that are part of featx (the digits 0-4).
    """

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 120, 5), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(120, 84), nn.ReLU())
        self.classifier = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (B, 3, 32, 32) RGB or (B, 1, 32, 32) grey images into (B, num_classes) logits."""
        grey = images.mean(dim=1, keepdim=True)
        logits: Tensor = self.classifier(self.hidden(self.features(grey)))
        return logits


class Conv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's 'SAME' padding: at stride 2 on an even input, 0 before and 1 after."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (B, C, H, W) into (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        pads: list[int] = []
        for length, kernel, stride in zip(images.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(images, pads))


class MobileNetV1(nn.Module):
    """MobileNet v1 (Howard et al., 2017).

    The tensors have the names of the converted release of the original authors' weights: ``features.0`` is the first
    convolution, ``features.1`` to ``features.13`` are (depthwise, pointwise) pairs, followed by ``classifier``.

    Args:
        width: factor for the channels of every layer; 1.0, 0.75, 0.5 or 0.25 in the paper.
        num_classes: the number of outputs.
    """

    def __init__(self, width: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        channels = [int(c * width) for c in (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)]
        blocks = [_conv_norm(3, channels[0], kernel=3, stride=2)]
        for number, (c_in, c_out) in enumerate(pairwise(channels), start=1):
            stride = 2 if number in (2, 4, 6, 12) else 1
            depthwise = _conv_norm(c_in, c_in, kernel=3, stride=stride, groups=c_in)
            blocks.append(nn.Sequential(depthwise, _conv_norm(c_in, c_out, kernel=1)))
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (B, 3, H, W) images in -1..1 into (B, num_classes) logits."""
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


def _conv_norm(c_in: int, c_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = Conv2dSame(c_in, c_out, kernel, stride=stride, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out, eps=1e-3), nn.ReLU6())
