"""Heads on the features of several backbones side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joint_features import part
from made import new

from featx.errors import CacheMissError, CorruptFileError, HeadError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.estimators import mlp
from featx.heads.head import Head
from featx.heads.own_features import files_for


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
