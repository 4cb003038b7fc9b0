"""The device that torch computes on."""

from __future__ import annotations

import pytest
import torch

from featx.backbones.backbone import load_backbone
from featx.devices import pick_device
from featx.errors import BackboneError


def test_the_device_is_picked_when_none_is_named() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device().type == expected
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("device", ["nonsense", "cuda:x", "cuda:99", "meta", "xpu"])
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_may_be(device: str) -> None:
    with pytest.raises(BackboneError, match=f"--device {device}: .*; expected auto, cpu, cuda or mps"):
        load_backbone("lenet5", device=device)
