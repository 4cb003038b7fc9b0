"""From names and origins to networks."""

from __future__ import annotations

import pytest

from featx.backbones import registry
from featx.backbones.backbone import load_backbone
from featx.errors import BackboneError


def test_an_origin_gives_the_architecture_with_random_weights() -> None:
    for name in ("lenet5", "squeezenet1_1"):
        backbone = load_backbone(name, weights="random", crop=64 if name != "lenet5" else None)
        rebuilt = registry.rebuild(backbone.describe()["architecture"])
        assert type(rebuilt) is type(backbone.network)
        assert {n: t.shape for n, t in rebuilt.state_dict().items()} == {
            n: t.shape for n, t in backbone.network.state_dict().items()
        }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_50", r"there is no backbone 'resnet_50'; did you mean resnet50"),
        ("mobilenet_v1", r"'mobilenet_v1'; did you mean .*mobilenet_v1_100"),
        ("???", r"there is no backbone '\?\?\?' \(featx backbones lists them; timm/<name>, hf/<repo>, open_clip/"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(name)


def test_every_source_has_a_key_of_its_own_and_accepts_the_names_that_it_lists() -> None:
    assert [source.key for source in registry.SOURCES] == ["file", "timm", "hf", "open_clip", "featx", "torchvision"]
    for source in registry.SOURCES:
        listed = () if source.prefix else source.names()
        assert all(registry.source_of(name) is source for name in listed)


def test_an_origin_that_no_source_has_is_an_error() -> None:
    for source, name in (("hub", "resnet18"), ("featx", "resnet18"), ("torchvision", "lenet5"), ("timm", "resnet18")):
        with pytest.raises(BackboneError, match=f"^there is no network '{name}' of {source}$"):
            registry.rebuild({"source": source, "name": name})
