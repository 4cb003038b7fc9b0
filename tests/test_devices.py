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


def test_each_process_of_torchrun_has_a_gpu_of_its_own_or_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        BackboneError, match=r"process 2 of this machine .* torch finds 2. Expected at most .* or --device cpu"
    ):
        pick_device()
