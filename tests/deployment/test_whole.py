"""A whole model gives what ``featx.predict`` gives, for every kind of head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import with_labels

import featx
from featx.backbones.backbone import Backbone
from featx.data.decode import decode
from featx.deployment import Classified, Measured, WholeModel
from featx.deployment.layers import predictor_layers
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.predictors import LinearPredictor
from featx.inference import HeadOnBackbone, Model, predict


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return featx.load_backbone("lenet5", device="cpu")


@pytest.fixture
def features(split_photos: Path, in_tmp: Path, backbone: Backbone) -> FeatureSet:
    """LeNet-5's features of the split photographs, and of their mirror images."""
    return featx.extract(split_photos, backbone.with_views("flip")).load("penultimate@flip")


HEADS: dict[str, dict[str, Any]] = {
    "logreg": {"kind": "logreg", "logit_adjustment": 1.0},
    "logreg, isotonic": {"kind": "logreg", "calibrate": "isotonic"},
    "linear": {"kind": "linear"},
    "svm": {"kind": "svm", "calibrate": "none"},
    "svm-rbf": {"kind": "svm", "kernel": "rbf", "class_weight": "balanced"},
    "ridge": {"kind": "ridge", "reject_below": 0.8},
    "knn": {"kind": "knn", "calibrate": "isotonic", "reject_below": 0.95},
    "centroid": {"kind": "centroid"},
    "mlp": {"kind": "mlp"},
}


def files_of(features: FeatureSet) -> list[Path]:
    """Every fourth image."""
    return [Path(features.dataset["root"]) / str(path) for path in features.paths[::4]]


def compared(model: Model, files: list[Path], dtype: torch.dtype = torch.float64) -> Iterator[tuple[Any, Any]]:
    """The outputs of the whole model, and featx's prediction, for each file."""
    whole = WholeModel.of(model, dtype=dtype)
    predictions = predict(model, files, top=9, cache=None)
    for file, prediction in zip(files, predictions, strict=True):
        yield whole(torch.from_numpy(decode(file.read_bytes()))[None]), prediction


@pytest.mark.parametrize("name", HEADS)
def test_a_head_on_its_backbone_predicts_the_same(name: str, features: FeatureSet, backbone: Backbone) -> None:
    model = HeadOnBackbone(Head(**HEADS[name]).fit(features), backbone)
    files = files_of(features)
    for outputs, prediction in [*compared(model, files), *compared(model, files, torch.float32)]:
        assert isinstance(outputs, Classified)
        assert outputs.probabilities.dtype == torch.float32
        found = dict(zip(model.classes, outputs.probabilities[0].tolist(), strict=True))
        assert found == pytest.approx(dict(prediction.top), abs=1e-5)
        label = int(outputs.label[0])
        assert (None if label == -1 else model.classes[label]) == prediction.value
        assert outputs.embedding.shape == (1, 84)


def test_rejection_is_inside(features: FeatureSet, backbone: Backbone) -> None:
    head = Head("logreg", reject_below=1.0, C=1e-6).fit(features)
    labels = [int(o.label[0]) for o, _ in compared(HeadOnBackbone(head, backbone), files_of(features))]
    assert set(labels) == {-1}


@pytest.mark.parametrize("kind", ["logreg", "ridge", "knn", "mlp"])
def test_labels_that_do_not_exclude_each_other_are_decided_by_their_thresholds(
    kind: str, features: FeatureSet, backbone: Backbone
) -> None:
    names = np.array(["a", "b", "c"])
    has = features.features[:, 0, :3] > np.median(features.features[:, 0, :3], axis=0)
    model = HeadOnBackbone(
        Head(kind).fit(with_labels(features, ["|".join(names[row]) or "|" for row in has])), backbone
    )
    assert model.head.task_ == "multilabel"
    for outputs, prediction in compared(model, files_of(features)):
        assert outputs.label.dtype == torch.bool
        decided = {model.classes[column] for column in outputs.label[0].nonzero().flatten().tolist()}
        assert decided == set(prediction.value)
        found = dict(zip(model.classes, outputs.probabilities[0].tolist(), strict=True))
        assert found == pytest.approx(dict(prediction.top), abs=1e-5)


@pytest.mark.parametrize("kind", ["ridge", "knn", "mlp"])
def test_a_regression_gives_its_number(kind: str, features: FeatureSet, backbone: Backbone) -> None:
    numbers = [f"{value:.4f}" for value in 50 + 10 * features.features[:, 0, 0]]
    model = HeadOnBackbone(Head(kind, task="regression").fit(with_labels(features, numbers)), backbone)
    for outputs, prediction in compared(model, files_of(features)):
        assert isinstance(outputs, Measured)
        assert float(outputs.value[0]) == pytest.approx(prediction.value, rel=1e-5)


def test_a_promoted_model_predicts_the_same(features: FeatureSet, backbone: Backbone) -> None:
    layer = "features.3:max,penultimate"
    several = featx.extract(features.dataset["root"], backbone.with_layers(layer)).load(layer)
    head = Head("logreg", reject_below=0.9).fit(several).save("head.safetensors")
    path = featx.promote(head, out="model.safetensors").path
    model = featx.load_model(path, device="cpu")
    whole = WholeModel.load(path)
    for outputs, prediction in compared(model, files_of(features)):
        assert dict(zip(model.classes, outputs.probabilities[0].tolist(), strict=True)) == pytest.approx(
            dict(prediction.top), abs=1e-5
        )
        assert outputs.embedding.shape == (1, 16 + 84)
    pixels = torch.from_numpy(decode(files_of(features)[0].read_bytes()))[None]
    np.testing.assert_allclose(
        whole(pixels).embedding[0].numpy(), several.features[several.paths.tolist().index(features.paths[0])], atol=1e-5
    )
    assert whole.facts["report"]["accuracy"] == model.metadata["report"]["accuracy"]
    assert "confusion" in (whole.report or {})


def test_features_of_half_precision_are_rounded_inside(split_photos: Path, in_tmp: Path, backbone: Backbone) -> None:
    half = backbone.with_dtype("float16")
    features = featx.extract(split_photos, half).load()
    model = HeadOnBackbone(Head("svm").fit(features), half)
    outputs, _ = next(compared(model, files_of(features)))
    assert torch.equal(outputs.embedding.half().float(), outputs.embedding)
    for found, prediction in compared(model, files_of(features)):
        assert float(found.probabilities.max()) == pytest.approx(prediction.top[0][1], abs=1e-5)


def test_the_facts_of_a_file_name_what_it_was_measured_on(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    report = head.evaluate(features)
    whole = WholeModel.load(head.save("my head.safetensors", report=report))
    assert whole.facts["name"] == "my head"
    assert whole.facts["identity"] == head.identity_
    assert whole.facts["report"]["accuracy"] == report.as_dict()["accuracy"]
    assert whole.facts["report"]["split"] == "val"
    assert whole.facts["views"] == ["", "mirrored"]
    assert "confusion" not in whole.facts["report"]


def test_a_predictor_of_the_users_own_is_refused_by_name() -> None:
    class Own(LinearPredictor):
        pass

    with pytest.raises(HeadError, match="Own is a predictor that featx does not know as layers of a network"):
        predictor_layers(Own(np.zeros((2, 3)), np.zeros(2)), torch.float64)
