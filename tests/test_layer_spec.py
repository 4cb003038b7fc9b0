"""Names of views and sets of them, and what the name of a layer stands for."""

from __future__ import annotations

import itertools

import pytest

from featx.errors import BackboneError
from featx.layer_spec import (
    PLAIN,
    VIEWS,
    LayerSpec,
    RandomView,
    by_depth,
    largest_views,
    plain_layers,
    stored_name,
    views_name,
    views_with,
)


def test_each_set_holds_those_before_it_and_begins_plainly() -> None:
    assert list(VIEWS) == ["plain", "flip", "10crop"]
    assert [len(views) for views in VIEWS.values()] == [1, 2, 10]
    for smaller, larger in itertools.pairwise(VIEWS.values()):
        assert larger[: len(smaller)] == smaller
    assert VIEWS["plain"] == (PLAIN,)


def test_ten_crops_are_the_centre_and_the_corners_and_each_of_them_mirrored() -> None:
    seen = {(view.vertical, view.horizontal, view.mirrored) for view in VIEWS["10crop"]}
    places = [(0, 0), *itertools.product((-1, 1), repeat=2)]
    assert seen == {(*place, mirrored) for place in places for mirrored in (False, True)}
    assert len({view.name for view in VIEWS["10crop"]}) == 10


def test_a_view_adds_its_name_to_the_identity_and_plain_adds_nothing() -> None:
    assert PLAIN.facts == {}
    assert [view.facts for view in VIEWS["flip"][1:]] == [{"view": "mirrored"}]
    drawn = RandomView(number=2, seed=7, scale=0.35, flip=True)
    assert drawn.facts == {"view": {"number": 2, "seed": 7, "scale": 0.35, "flip": True}}
    assert drawn.name == ""


@pytest.mark.parametrize(
    ("layer", "layers", "kept"),
    [
        ("penultimate", ["penultimate"], [["penultimate"]]),
        ("a,b", ["a", "b"], [["a", "b"]]),
        ("a@flip", ["a"], [["a"], ["a@mirrored"]]),
        ("a,b:gem@flip", ["a", "b:gem"], [["a", "b:gem"], ["a@mirrored", "b:gem@mirrored"]]),
        ("a@plain", ["a"], [["a"]]),
        ("a@top-left", ["a"], [["a@top-left"]]),
    ],
)
def test_a_name_stands_for_layers_side_by_side_in_each_view(
    layer: str, layers: list[str], kept: list[list[str]]
) -> None:
    spec = LayerSpec.parse(layer)
    assert list(spec.layers) == layers
    assert [list(names) for names in spec.stored] == kept
    assert str(spec) == layer.removesuffix("@plain")


def test_what_is_kept_of_a_layer_in_a_view_is_the_name_of_just_that() -> None:
    for view in VIEWS["10crop"]:
        spec = LayerSpec.parse(stored_name("layer4", view))
        assert spec.stored == ((stored_name("layer4", view),),)
        assert spec.views == (view,)


@pytest.mark.parametrize("name", VIEWS)
def test_a_set_is_asked_for_by_its_name(name: str) -> None:
    assert LayerSpec.parse("layer4", name).views == VIEWS[name]
    assert views_name(VIEWS[name]) == name
    assert views_name(list(VIEWS[name])) == name


def test_plain_needs_no_word() -> None:
    assert str(LayerSpec.parse("layer4", "plain")) == "layer4"


def test_views_that_are_no_set_have_no_name() -> None:
    assert views_name([VIEWS["flip"][1]]) == ""
    assert views_name([RandomView(0, 0, 0.5, flip=False)]) == ""


def test_views_that_there_are_not_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"'a@5crop': there are no views '5crop'; expected plain, flip, 10crop"):
        LayerSpec.parse("a@5crop")
    with pytest.raises(BackboneError, match=r"'a@5crop': there are no views '5crop'; expected plain, flip, 10crop"):
        LayerSpec.parse("a", "5crop")


def test_the_views_that_would_keep_a_layer_are_named() -> None:
    assert views_with("layer3:gem") == "plain"
    assert views_with("penultimate@mirrored") == "flip"
    assert views_with("layer3@top-left") == "10crop"
    assert views_with("a@b") == "plain"


def test_a_file_says_what_it_has_by_the_names_it_keeps() -> None:
    flip, ten = (
        [stored_name(layer, view) for view in VIEWS[name] for layer in ("penultimate", "layer4")]
        for name in ("flip", "10crop")
    )
    assert largest_views(["penultimate", "layer4"], ["penultimate"]) == "plain"
    assert largest_views(flip, ["penultimate"]) == "flip"
    assert largest_views(ten, ["penultimate", "layer4"]) == "10crop"
    assert largest_views([*flip, "layer3"], ["penultimate", "layer3"]) == "plain"
    assert largest_views(ten[:-1], ["layer4"]) == "flip"
    assert plain_layers(ten) == ["penultimate", "layer4"]


def test_layers_are_listed_from_the_input_on() -> None:
    names = ["penultimate", "features.11", "features.3", "features.3:max", "layer2", "features.1"]
    assert sorted(names, key=by_depth) == [
        "features.1", "features.3", "features.3:max", "features.11", "layer2", "penultimate"
    ]  # fmt: skip
