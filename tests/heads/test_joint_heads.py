"""Heads on the features of several backbones side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joint_features import part, written
from made import new

from featx.errors import CacheMissError, CorruptFileError, HeadError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.estimators import mlp
from featx.heads.head import Head
from featx.heads.on_features import values_of_features
from featx.heads.own_features import features_in, files_for
from featx.inference import evaluate


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need."""
    monkeypatch.setattr(mlp, "EPOCHS", 30)


@pytest.mark.parametrize("name", ["logreg", "ridge", "knn", "mlp"])
def test_a_head_of_any_kind_is_fitted_saved_and_loaded(name: str, tmp_path: Path) -> None:
    joined = FeatureSet.join([part(), part("two")])
    head = new(name).fit(joined)
    loaded = Head.load(head.save(tmp_path / "h"))
    assert loaded.backbone_ == joined.backbone
    np.testing.assert_array_equal(loaded.predict_proba(joined.features), head.predict_proba(joined.features))


def test_it_is_told_apart_from_heads_on_one_of_them_or_in_another_order() -> None:
    head = Head("ridge", C=0.1).fit(FeatureSet.join([part(), part("two")]))
    with pytest.raises(StaleCacheError, match=r"backbones: one penultimate, two penultimate against one backbone"):
        head.evaluate(part())
    with pytest.raises(
        StaleCacheError, match=r"backbones: one penultimate, two penultimate against two penultimate, one"
    ):
        head.evaluate(FeatureSet.join([part("two"), part()]))
    other = part("two", identity="7" * 64, backbone={**part("two").backbone, "parts": {"dtype": "float16"}})
    with pytest.raises(StaleCacheError, match=r"two dtype: float32 against float16"):
        head.evaluate(FeatureSet.join([part(), other]))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"width": "6"}, r"backbone\.parts\[0\]\.width is"),
        ({"identity": "?"}, r"backbone\.parts\[0\]\.identity is"),
        ({"layer": "a@b"}, r"backbone\.parts\[0\]\.layer is"),
        ({"backbone": {"name": "one"}}, r"backbone\.parts\[0\]\.backbone lacks parts, weights"),
    ],
)
def test_parts_that_could_not_be_read_again_are_not_saved(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    head = Head("ridge", C=0.1).fit(FeatureSet.join([part(), part("two")]))
    head.backbone_["parts"][0] |= change
    with pytest.raises(HeadError, match=fault):
        head.save(tmp_path / "h")


def test_a_file_whose_parts_have_other_columns_than_the_head_is_refused(tmp_path: Path) -> None:
    head = Head("ridge", C=0.1).fit(FeatureSet.join([part(), part("two")]))
    head.backbone_["parts"][0]["width"] = 7
    with pytest.raises(CorruptFileError, match="its backbones have 17 columns together, the head 16"):
        Head.load(head.save(tmp_path / "h"))


def test_a_feature_file_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone.h5"
    head = Head("ridge", C=0.1).fit(FeatureSet.join([part(), part("two")]))
    for each in head.backbone_["parts"]:
        each["file"] = str(gone)
    with pytest.raises(CacheMissError, match=r"features of one in .*gone\.h5, which is gone; run featx extract"):
        files_for(head)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [written(tmp_path / "cache", each) for each in (part(), part("two"))]


@pytest.fixture
def fitted(files: list[Path]) -> Head:
    return Head("ridge", C=0.1).fit(FeatureSet.join([FeatureSet.load(file) for file in files]))


def test_the_other_file_lies_beside_the_named_one_or_where_the_head_was_fitted(
    files: list[Path], fitted: Head, tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    alone = files[0].rename(tmp_path / "moved" / "photos.h5")
    assert files_for(fitted, alone) == [alone, files[1]]
    beside = files[1].rename(tmp_path / "moved" / "other.h5")
    assert files_for(fitted, alone) == [alone, beside]
    beside.unlink()
    with pytest.raises(
        CacheMissError,
        match=r"neither .*pets--two\.h5, to which it was fitted, nor a file of the same data set in .*moved has those of two",
    ):
        files_for(fitted, alone)


def test_files_that_contradict_one_another_are_predicted_and_not_evaluated(
    files: list[Path], fitted: Head, tmp_path: Path
) -> None:
    labels = part().labels
    labels[[3, 7]] = (labels[[3, 7]] + 1) % 3
    other = part("two", labels=labels)
    expected = [values.tolist() for _, values, _ in values_of_features(fitted, files) if values is not None]
    written(tmp_path / "cache", other)
    found = [values.tolist() for _, values, _ in values_of_features(fitted, files[0]) if values is not None]
    assert found == expected
    assert np.flatnonzero(features_in(fitted, files, labelled=False).labels < 0).tolist() == [3, 7]
    fitted.save(tmp_path / "h.safetensors")
    with pytest.raises(
        HeadError,
        match=r"give 2 images different labels: 003\.png \(ant and bee\), 007\.png \(bee and cow\)\. These commands .*: "
        r"featx extract .*pets --backbone one --cache .* and featx extract .*pets --backbone two --cache ",
    ):
        evaluate(tmp_path / "h.safetensors", files[0])
