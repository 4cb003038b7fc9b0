"""Backbones that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from networks import FACTORIES

from featx.backbones import backbone as backbone_module
from featx.backbones.backbone import Backbone, load_backbone
from featx.devices import pick_device


@pytest.fixture(scope="package", autouse=True)
def _on_the_processor() -> Iterator[None]:
    """These tests compare a network, layer by layer, with tensors in the processor's memory; where no device is named, it
    stays there on a machine with a GPU too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            backbone_module, "pick_device", lambda device="auto": pick_device("cpu" if device == "auto" else device)
        )
        yield


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    """ResNet-18 with random weights, hooked at modules only."""
    layers = ("layer1.0.bn2", "layer3", "maxpool")
    return load_backbone("resnet18", weights="random", layers=layers, crop=64)


@pytest.fixture(scope="module")
def traced_resnet() -> Backbone:
    """ResNet-18 with random weights, read at functions too, which takes a traced graph."""
    layers = ("layer1.0.bn2", "layer1.0.relu_1", "layer1.0.add", "layer3", "flatten")
    return load_backbone("resnet18", weights="random", layers=layers, crop=64)


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    """A function from the name of a factory in ``networks.FACTORIES`` to the backbone's name."""
    (tmp_path / "mine.py").write_text(FACTORIES)
    return lambda factory: f"{tmp_path / 'mine.py'}:{factory}"
