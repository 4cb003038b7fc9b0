"""What all sources share: random weights, and weights from a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from featx.backbones.backbone import load_backbone
from featx.errors import BackboneError


def test_random_weights_are_always_the_same_and_leave_the_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a generator of the caller's was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch.mps, "manual_seed", refuse)
    before = torch.get_rng_state()
    first = load_backbone("lenet5", weights="random")
    torch.rand(5)
    second = load_backbone("lenet5", weights="random")
    assert first.identity == second.identity
    torch.set_rng_state(before)
    load_backbone("squeezenet1_1", weights="random", crop=64)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_do_not_fit_name_the_file_and_the_network(tmp_path: Path) -> None:
    file = tmp_path / "lenet.safetensors"
    save_file(load_backbone("lenet5").network.state_dict(), file)
    with pytest.raises(
        BackboneError, match=rf"{re.escape(str(file))} does not fit resnet18: 0 of 100 tensors fit; the first "
    ):
        load_backbone("resnet18", weights=str(file))
