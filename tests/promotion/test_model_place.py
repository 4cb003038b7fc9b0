"""Where promoted models go: other settings get other files, and no fine-tuned network is lost under an assembly."""

from __future__ import annotations

from pathlib import Path

import pytest

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.config import FineTuning
from featx.promotion.model_place import model_place
from featx.promotion.promotion import promote


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (FineTuning(), "h--promoted.safetensors"),
        (FineTuning(lr=0.01, epochs=20), "h--promoted--epochs20--lr0.01.safetensors"),
        (FineTuning(last=3, optimizer="sgd", flip=False), "h--promoted--last3--sgd--no-flip.safetensors"),
        (FineTuning(from_layer="layer4", augment="none"), "h--promoted--from-layer4--no-augment.safetensors"),
        (FineTuning(train_bn=True, cached_crops=0), "h--promoted--train-bn--crops0.safetensors"),
    ],
)
def test_settings_that_are_no_defaults_stand_in_the_name(settings: FineTuning, name: str, features: FeatureSet) -> None:
    head = Head("centroid").fit(features)
    place = model_place(head, Path("x/h.safetensors"), settings, models="models", out=None)
    assert (place.path, place.there) == (Path("models") / name, None)


def test_a_fine_tuned_network_takes_the_place_of_an_assembly_but_never_the_other_way(features: FeatureSet) -> None:
    head = Head("logreg", C=0.1).fit(features)
    first = promote(head)
    assert promote(head).replaced is None
    place = model_place(head, None, FineTuning(), models="models", out=None)
    assert (place.path, place.same) == (first.path, True)
    model = first.model
    model.metadata |= {"verdict": "kept-head", "made": {**model.metadata["made"], "options": {"finetune": True}}}
    model.save(first.path)
    before = first.path.read_bytes()
    again = promote(head)
    assert again.path.name.startswith("split--logreg--promoted--")
    assert (again.replaced, first.path.read_bytes()) == (None, before)
    named = promote(head, out=first.path)
    assert named.replaced is not None
    assert named.notes[0].startswith(
        "models/split--logreg--promoted.safetensors replaces a promoted model (kept-head) fitted to 32 images"
    )
    assert named.as_dict()["replaced"]["why"] == "options"
