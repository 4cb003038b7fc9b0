"""Heads on several backbones: predictions and evaluation of images, and of feature files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from joint_pair import JointPair
from PIL import Image

import featx
from featx.backbones.backbone import Backbone
from featx.errors import HeadError, StaleCacheError
from featx.extraction.engines import JointEngine, open_engine
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.head_file import short_weights
from featx.heads.own_features import files_for
from featx.inference import HeadOnBackbone


@pytest.fixture(scope="module")
def model(joint_pair: JointPair) -> HeadOnBackbone:
    return joint_pair.model()


def probabilities(predictions: list[featx.Prediction]) -> np.ndarray:
    return np.array([dict(each.top)[name] for each in predictions for name in "abc"]).reshape(-1, 3)


def moved(model: HeadOnBackbone, *files: str) -> HeadOnBackbone:
    """The same head, which was fitted to other files."""
    parts = [{**part, "file": file} for part, file in zip(model.head.backbone_["parts"], files, strict=True)]
    head = model.head.clone()
    vars(head).update(vars(model.head), backbone_={**model.head.backbone_, "parts": parts})
    return HeadOnBackbone(head, model.backbone)


def test_predictions_of_images_are_those_of_their_features(joint_pair: JointPair, model: HeadOnBackbone) -> None:
    features = joint_pair.features()
    rows = np.arange(len(features))[::5]
    expected = model.head.predict_values(features.features[rows])
    images = [joint_pair.photos / path for path in features.paths[rows]]
    computed = featx.predict(model, images, top=3, cache=None)
    np.testing.assert_allclose(probabilities(computed), expected, atol=1e-5)
    np.testing.assert_array_equal(probabilities(featx.predict(model, images, top=3, cache=joint_pair.cache)), expected)


def test_an_image_that_one_file_knows_runs_through_the_other_network_alone(
    joint_pair: JointPair, model: HeadOnBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(joint_pair.files[0], tmp_path)
    ran: list[str] = []
    encode = Backbone.encode
    monkeypatch.setattr(Backbone, "encode", lambda self, some: (ran.append(self.name), encode(self, some))[1])
    found = featx.predict(moved(model, "", ""), joint_pair.images, top=3, cache=tmp_path)
    assert set(ran) == {joint_pair.code}
    expected = featx.predict(model, joint_pair.images, top=3, cache=joint_pair.cache)
    np.testing.assert_allclose(probabilities(found), probabilities(expected), atol=1e-6)


def test_an_image_that_fails_has_one_error_and_the_others_go_on(model: HeadOnBackbone, joint_pair: JointPair) -> None:
    good, bad, tiny = featx.predict(model, [joint_pair.images[0], b"\x89PNG\r\n\x1a\n", np.zeros((1, 1), np.uint8)])
    assert {good.value, tiny.value} <= {*"abc"}
    assert "cannot be decoded" in bad.error


def test_a_table_of_predictions_uses_an_engine_for_each_network(
    model: HeadOnBackbone, joint_pair: JointPair, tmp_path: Path
) -> None:
    shutil.copytree(joint_pair.photos, tmp_path / "photos")
    (tmp_path / "photos" / "a" / "bad.png").write_bytes(b"no image")
    unknown = moved(model, "", "")
    done = featx.write_predictions(unknown, tmp_path / "photos", tmp_path / "out.csv", cache=None, workers=1)
    assert (done.images, done.failed, done.computed) == (49, 1, 48)
    known = featx.write_predictions(model, joint_pair.photos, tmp_path / "known.csv", cache=joint_pair.cache)
    assert known.reused == 48
    rows = featx.write_predictions(joint_pair.head, [str(file) for file in joint_pair.files], tmp_path / "rows.csv")
    assert (rows.images, rows.reused) == (48, 48)


def test_a_joint_engine_gives_what_the_backbones_give(model: HeadOnBackbone) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, *model.transform.shape), dtype=np.uint8)
    engine = open_engine("eager", model.backbone)
    assert isinstance(engine, JointEngine)
    assert engine.name == "eager"
    expected = model.backbone.encode(pixels)["penultimate"]
    np.testing.assert_allclose(engine(pixels)["penultimate"], expected, atol=1e-4)


def test_evaluation_is_the_same_on_images_and_on_feature_files(joint_pair: JointPair, model: HeadOnBackbone) -> None:
    stored = featx.evaluate(joint_pair.head, joint_pair.files)
    assert (stored.n, stored.split) == (9, "test")
    of_images = featx.evaluate(model, joint_pair.photos, cache=joint_pair.cache)
    one_of_them = featx.evaluate(joint_pair.head, joint_pair.files[1])  # the other lies beside it
    for report in (of_images, one_of_them, featx.evaluate(joint_pair.head, joint_pair.features())):
        assert report.as_dict()["accuracy"] == stored.as_dict()["accuracy"]
        assert report.as_dict()["log_loss"] == pytest.approx(stored.as_dict()["log_loss"])


def test_one_file_stands_for_each_backbone(joint_pair: JointPair, tmp_path: Path) -> None:
    alone = shutil.copy(joint_pair.files[0], tmp_path)
    with pytest.raises(HeadError, match="both hold the features of lenet5"):
        featx.evaluate(joint_pair.head, [alone, *joint_pair.files])
    head = Head.load(joint_pair.head)
    assert files_for(head, [alone, joint_pair.files[1]]) == [Path(alone), joint_pair.files[1]]


def test_features_of_another_network_are_refused_by_name(joint_pair: JointPair, tmp_path: Path) -> None:
    from featx.extraction.pipeline import extract

    other = extract(joint_pair.photos, joint_pair.second(dtype="float16"), cache=tmp_path, workers=1)
    with pytest.raises(StaleCacheError, match=r"dtype: float32 against float16.*takes those of lenet5 and"):
        featx.evaluate(joint_pair.head, other.file)


def test_rows_of_feature_files_are_predicted_once_and_failures_are_named(joint_pair: JointPair) -> None:
    features = joint_pair.features()
    expected = Head.load(joint_pair.head).predict_values(features.features)
    for given in (joint_pair.files[0], joint_pair.files, joint_pair.files[::-1]):
        found = featx.predict(joint_pair.head, given, top=3)
        assert [each.path for each in found] == [*map(str, features.paths)]
        np.testing.assert_array_equal(probabilities(found), expected)


def test_a_prediction_is_explained_by_training_images(joint_pair: JointPair, model: HeadOnBackbone) -> None:
    features = joint_pair.features()
    own = str(features.paths[features.rows("train")[0]])
    (found,) = featx.explain(model, joint_pair.photos / own, count=1, cache=None)
    (again,) = featx.explain(
        model, joint_pair.photos / own, count=1, features=joint_pair.files[0], cache=joint_pair.cache
    )
    for each in (found, again):
        assert each.neighbours[0].path == own
        assert each.influences[0].supporting


def test_a_joint_set_of_other_columns_is_refused(joint_pair: JointPair) -> None:
    turned = FeatureSet.join([FeatureSet.load(file, "penultimate@flip") for file in joint_pair.files])
    with pytest.raises(StaleCacheError, match="fitted to other features"):
        featx.evaluate(joint_pair.head, turned)


def test_a_joint_set_is_searched_by_new_images_and_inspected(joint_pair: JointPair, tmp_path: Path) -> None:
    from featx.inspection.pipeline import inspect

    features = joint_pair.features()
    new = np.array(Image.open(joint_pair.images[0]))[:-1]  # an image that no file holds
    (found,) = featx.search(features, [new], top=1, backbone=joint_pair.code, device="cpu")
    assert found.hits[0].path == str(Path(joint_pair.images[0]).relative_to(joint_pair.photos))
    inspect(features, out=tmp_path / "page.html")
    assert "featx extract" in (tmp_path / "page.html").read_text()


def test_the_weights_of_all_backbones_are_named(joint_pair: JointPair) -> None:
    assert short_weights(Head.load(joint_pair.head).backbone_) == "default+default"
