"""The list of backbones and what is measured of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import Recorder

from featx.backbones import registry
from featx.backbones.backbone import Backbone
from featx.backbones.catalog import describe_backbones, list_backbones


def test_names_are_found_by_a_part_of_them_or_by_a_pattern() -> None:
    assert list_backbones("resnet18") == ["resnet18"]
    assert list_backbones("_v1_0") == ["mobilenet_v1_025", "mobilenet_v1_050", "mobilenet_v1_075"]
    assert list_backbones("vgg1?_bn") == ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
    assert list_backbones("nothing like it") == []
    assert list_backbones() == registry.names() == sorted(registry.names())


def test_names_of_timm_are_found_where_the_pattern_asks_for_them() -> None:
    pytest.importorskip("timm")
    assert "timm/resnet10t" in list_backbones("timm/resnet10")
    assert not any(name.startswith("timm/") for name in list_backbones("resnet"))


def test_backbones_are_described_without_weights_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    recorder = Recorder()
    lenet, squeezenet = describe_backbones(["lenet5", "squeezenet1_1"], reporter=recorder)
    assert recorder.calls == [(1, 2), (2, 2)]
    assert lenet.as_dict() == {
        "name": "lenet5",
        "family": "LeNet5",
        "embedding": 84,
        "parameters": 156 + 2416 + 48_120 + 10_164 + 425,
        "input_size": 32,
        "top1": None,
        "local": True,
    }
    assert squeezenet.as_dict() == {
        "name": "squeezenet1_1",
        "family": "SqueezeNet",
        "embedding": 512,
        "parameters": 1_235_496,
        "input_size": 224,
        "top1": 58.178,
        "local": False,
    }
    (memo,) = tmp_path.iterdir()
    monkeypatch.setattr(registry, "build", lambda *_: pytest.fail("measured again"))
    assert describe_backbones(["squeezenet1_1", "lenet5"]) == [squeezenet, lenet]
    monkeypatch.undo()
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    memo.write_text("{ damaged")
    assert describe_backbones(["lenet5"]) == [lenet]


def test_a_description_agrees_with_the_network_itself(resnet: Backbone) -> None:
    (entry,) = describe_backbones(["resnet18"])
    assert entry.embedding == resnet.layers["penultimate"]
    assert entry.parameters == sum(p.numel() for p in resnet.network.parameters())
    assert entry.family == type(resnet.network).__name__
