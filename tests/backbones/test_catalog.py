"""The list of backbones and what is measured of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import Recorder

from featx.backbones import registry
from featx.backbones.backbone import Backbone
from featx.backbones.catalog import SkippedBackbone, describe_backbones, list_backbones, measure_backbones
from featx.backbones.classifier import find_classifier
from featx.errors import BackboneError


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


@pytest.mark.parametrize("name", ["squeezenet1_1", "densenet121", "swin_t", "mobilenet_v3_small", "timm/test_vit"])
def test_the_width_that_a_last_layer_tells_is_that_of_a_forward_pass(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    network, images = registry.build_on_meta(name)
    _, shape = find_classifier(network.module, images)
    assert describe_backbones([name])[0].embedding == (shape[1] if len(shape) == 4 else shape[-1])


def test_a_backbone_that_cannot_be_built_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    names = ["lenet5", "timm/broken", "nonsense", "timm/test_resnet"]
    found = list(measure_backbones(names))
    assert [type(entry).__name__ for entry in found] == [
        "CatalogEntry", "SkippedBackbone", "SkippedBackbone", "CatalogEntry",
    ]  # fmt: skip
    assert [entry.name for entry in found] == names
    assert "timm has no model 'broken'" in found[1].why
    assert "there is no backbone 'nonsense'" in found[2].why
    monkeypatch.setattr(registry, "build_on_meta", lambda _: pytest.fail("measured again"))
    assert list(measure_backbones(names[:2])) == found[:2], "failures are remembered too"
    with pytest.raises(BackboneError, match="timm has no model 'broken'"):
        describe_backbones(names[:2])


def test_a_listing_that_is_stopped_keeps_what_it_has_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    stream = measure_backbones(["lenet5", "squeezenet1_1"])
    first = next(stream)
    stream.close()
    monkeypatch.setattr(registry, "build_on_meta", lambda _: pytest.fail("measured again"))
    assert next(measure_backbones(["lenet5"])) == first


def test_an_unforeseen_error_of_one_network_stops_no_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str) -> None:
        raise ZeroDivisionError("in its constructor")

    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "build_on_meta", build)
    assert list(measure_backbones(["lenet5", "alexnet"])) == [
        SkippedBackbone("lenet5", "in its constructor"), SkippedBackbone("alexnet", "in its constructor"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "width"),
    [("vit_tiny_r_s16_p8_224", 192), ("vitamin_small_224", 384), ("vit_small_resnet26d_224", 768)],
)
def test_a_network_that_runs_a_part_of_itself_as_it_is_built_is_measured(name: str, width: int) -> None:
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    (entry,) = describe_backbones([f"timm/{name}"])
    assert entry.embedding == width


@pytest.mark.parametrize(
    ("name", "width"), [("crossvit_9_240", 384), ("efficientvim_m1", 960), ("gemma4_vit_167m_enc", 768)]
)
def test_networks_with_several_last_layers_or_none_are_measured(name: str, width: int) -> None:
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    (entry,) = describe_backbones([f"timm/{name}"])
    assert entry.embedding == width
