"""A bare string is one name in every function that takes several; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import featx
from featx.advice.layer_scores import score_layers
from featx.backbones.catalog import describe_backbones
from featx.errors import BackboneError, SettingsError
from featx.heads.head import Head


@pytest.fixture
def extraction(split_photos: Path, in_tmp: Path) -> featx.Extraction:
    """Two layers of LeNet-5 of the split photographs."""
    return featx.extract(split_photos, featx.load_backbone("lenet5", layers="features.3", device="cpu"))


def test_a_bare_string_is_one_name(extraction: featx.Extraction) -> None:
    file = extraction.file
    assert list(extraction.layers) == ["penultimate", "features.3"]
    backbone = featx.load_backbone("lenet5", device="cpu")
    assert list(backbone.with_layers("features.0").layers) == ["penultimate", "features.0"]
    assert backbone.with_views("flip").views == featx.load_backbone("lenet5", views="flip", device="cpu").views
    assert [entry.name for entry in describe_backbones("lenet5")] == ["lenet5"]
    assert [score.layer for score in score_layers(file, Head("ridge"), layers="features.3")] == ["features.3"]
    assert featx.fit_head(file, "ridge", layer="features.3").head.layer == "features.3"


def test_a_list_is_what_its_items_are(extraction: featx.Extraction) -> None:
    joined = extraction.load("features.3,penultimate")
    for layers in (["features.3", "penultimate"], ("features.3", "penultimate"), iter(["features.3", "penultimate"])):
        assert featx.FeatureSet.load(extraction.file, layers).identity == joined.identity
    assert extraction.load(["features.3", "penultimate"]).layer == joined.layer
    assert featx.fit_head(extraction.file, "ridge", layer=["features.3", "penultimate"]).head.layer == joined.layer


def test_one_number_of_shots_is_a_list_of_one(extraction: featx.Extraction) -> None:
    (one,), (other,) = (featx.fit_head(extraction.file, "ridge", shots=shots).shots for shots in (2, [2]))
    assert one[0] == other[0] == 2
    assert one[1].as_dict() == other[1].as_dict()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: featx.load_backbone("lenet5", layers=[3]), SettingsError, "layers holds 3; expected a name or a list"),
        (lambda: featx.load_backbone(["lenet5"]), BackboneError, r"the backbone is \['lenet5'\]; expected its name"),
        (lambda: featx.load_backbone("lenet5", views=["flip"]), BackboneError, r"views is \['flip'\]; expected one of"),
        (lambda: featx.load_backbone("lenet5", device="cpu").with_views("x"), BackboneError, "there are no views 'x'"),
        (lambda: featx.extract("digits", ["lenet5"]), BackboneError, r"the backbone is \['lenet5'\]"),
        (lambda: featx.fit_head("x.h5", shots="1,4"), SettingsError, "shots is '1,4'; expected a whole number above 0"),
        (lambda: featx.fit_head("x.h5", shots=[0]), SettingsError, r"shots is \[0\]; expected a whole number above 0"),
        (lambda: featx.rank("digits", 3), SettingsError, "backbones is 3; expected names, or pairs"),
    ],
)
def test_anything_else_is_refused_by_name(
    call: Callable[[], Any], error: type[Exception], message: str, in_tmp: Path
) -> None:
    with pytest.raises(error, match=message):
        call()
