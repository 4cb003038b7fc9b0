"""Preprocessing for images of any size gives the pixels of the preprocessing that knows the size."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from featx.data.transform import Transform
from featx.deployment.preprocessing import Preprocess
from featx.deployment.symbolic import SymbolicPreprocess
from featx.layer_spec import VIEWS

SIZES = [(1, 1), (2, 3), (60, 80), (81, 59), (28, 28), (32, 32), (33, 290), (1, 50), (300, 20), (27, 29)]

TRANSFORMS = {
    "crop": Transform(resize=32, crop=28),
    "bicubic, as transformers": Transform(resize=32, crop=27, interpolation="bicubic", crop_rounding="down"),
    "nearest": Transform(resize=32, crop=28, interpolation="nearest"),
    "smaller than the crop": Transform(resize=20, crop=28),
    "squash": Transform(resize=0, crop=28),
    "squash, crop": Transform(resize=32, crop=28, fit="squash"),
    "pad": Transform(resize=28, crop=28, fit="pad"),
    "no square": Transform(resize=30, crop=24, crop_width=40),
    "grey": Transform(resize=32, crop=28, channels=1, mean=(0.5,), std=(0.5,)),
}


def noise(count: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("views", ["flip", "10crop"])
def test_the_pixels_are_the_same(name: str, views: str) -> None:
    if views == "10crop" and not TRANSFORMS[name].leaves_corners:
        return
    known = Preprocess(TRANSFORMS[name], VIEWS[views])
    symbolic = SymbolicPreprocess(known)
    for size in SIZES:
        assert torch.equal(symbolic(noise(2, size)), known(noise(2, size))), size


@pytest.mark.parametrize("name", ["crop", "pad", "grey"])
def test_a_program_that_was_traced_once_takes_every_size(name: str) -> None:
    known = Preprocess(TRANSFORMS[name])
    free = {axis: Dim(letter, min=1) for axis, letter in enumerate("NHW")}
    program = torch.export.export(SymbolicPreprocess(known), (noise(2, (61, 83)),), dynamic_shapes=(free,)).module()
    for count, size in enumerate(SIZES, start=1):
        assert torch.equal(program(noise(count, size)), known(noise(count, size))), size
