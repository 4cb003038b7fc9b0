"""Promoted models, in memory and as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision import models

import featx
from featx.backbones.backbone import normalise
from featx.errors import CorruptFileError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inference import evaluate, predict
from featx.layer_spec import VIEWS
from featx.metrics.classification import ClassificationReport
from featx.promotion.config import FineTuning
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import promote


def small_backbone(name: str, crop: int) -> featx.Backbone:
    return featx.load_backbone(name, weights="random", resize=crop, crop=crop)


def test_a_model_rejects_what_its_head_rejects(features: FeatureSet) -> None:
    sureness = np.sort(Head("logreg", C=1e-3).fit(features).predict_proba(features.features).max(axis=1))
    middle = float(sureness[23:25].mean())
    head = Head("logreg", C=1e-3, reject_below=middle).fit(features)
    settings = FineTuning(epochs=1, lr=1e-2, significance=1.0)
    for result in (promote(head), promote(head, finetune=True, settings=settings)):
        files = [Path(features.dataset["root"]) / str(path) for path in features.paths]
        predicted = predict(result.path, files)
        sure = np.array([prediction.top[0][1] >= middle for prediction in predicted])
        assert result.run or sure.sum() == 24
        np.testing.assert_array_equal([prediction.value is not None for prediction in predicted], sure)
        judged = evaluate(result.path, features.dataset["root"])
        assert isinstance(judged, ClassificationReport)
        assert judged.reject_below == result.report.reject_below == middle
        assert (judged.accepted, judged.accepted_right) == (result.report.accepted, result.report.accepted_right)
        if result.run:
            assert result.run.report.reject_below == middle


def test_a_promoted_model_loads_into_plain_torchvision(split_photos: Path, in_tmp: Path) -> None:
    head = Head("logreg").fit(featx.extract(split_photos, small_backbone("resnet18", 64)).load())
    result = promote(head)
    network = models.resnet18(num_classes=2)
    state = {name: tensor for name, tensor in load_file(result.path).items() if not name.startswith("featx.")}
    network.load_state_dict(state)
    batch = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), dtype=np.uint8)
    with torch.inference_mode():
        logits = network.eval()(normalise(torch.from_numpy(batch), result.model.transform))
    np.testing.assert_allclose(logits.numpy(), result.model.logits(batch), rtol=1e-4, atol=1e-4)


def test_a_model_of_a_file_of_code_never_runs_a_stored_path(split_photos: Path, in_tmp: Path) -> None:
    code = "from featx.backbones.architectures import LeNet5\nfrom featx import Transform\n"
    code += "def make():\n    net = LeNet5(7)\n    net.transform = Transform(resize=32, crop=32)\n    return net\n"
    Path("own.py").write_text(code)
    backbone = featx.load_backbone("own.py:make")
    head = Head("logreg").fit(featx.extract(split_photos, backbone).load())
    with pytest.raises(featx.FeatxError, match=r"a stored path is never run; name it with --backbone own\.py:make"):
        promote(head)
    result = promote(head, backbone="own.py:make")
    with pytest.raises(featx.FeatxError, match=r"a stored path is never run; name it with --backbone"):
        PromotedModel.load(result.path)
    assert PromotedModel.load(result.path, backbone="own.py:make").classes == ("dark", "light")


def test_a_head_is_no_promoted_model(features: FeatureSet, tmp_path: Path) -> None:
    path = Head("logreg").fit(features).save(tmp_path / "head.safetensors")
    with pytest.raises(CorruptFileError, match=r"is a head; expected a model, which featx promote makes"):
        PromotedModel.load(path)


@pytest.mark.parametrize(
    ("views", "layer"), [("flip", "penultimate"), ("10crop", "penultimate"), ("flip", "features.3")]
)
def test_a_head_on_views_becomes_a_model_that_averages_over_them_too(
    split_photos: Path, in_tmp: Path, views: str, layer: str, pixels_of
) -> None:
    extracted = featx.extract(split_photos, featx.load_backbone("lenet5", layers=(layer,), views=views, resize=40))
    features = extracted.load(layer)
    head = Head("logreg").fit(features)
    path = head.save("head.safetensors")
    result = promote(path)
    assert result.proof.largest < 1e-3
    assert result.report.as_dict() == result.head_report.as_dict() == head.evaluate(features).as_dict()
    model = PromotedModel.load(result.path)
    assert model.views == VIEWS[views]
    files = [split_photos / str(name) for name in features.paths]
    for one, other in zip(predict(path, files, top=2), predict(result.path, files, top=2), strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-4)
    assert evaluate(result.path, split_photos).as_dict()["accuracy"] == result.report.accuracy
    logits = model.logits(pixels_of(features, model.transform))
    np.testing.assert_allclose(logits, head.decision_function(features.plain), atol=1e-3 * max(1, np.abs(logits).max()))
    (note,) = [note for note in result.notes if "views" in note]
    once = head.predict_values(features.plain).argmax(axis=1) == features.labels
    assert note.startswith(
        f"head and model average over {len(VIEWS[views])} views of each image ({views}); other programs"
    )
    assert note.endswith(f"on the 16 images of split val is {once[features.splits == 'val'].mean():.4f}")
