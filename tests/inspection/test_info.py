"""Descriptions of feature files, heads and promoted models."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from feature_files import begin, table

from featx.data.decode import MAX_PIXELS
from featx.data.pillow import reader_name
from featx.errors import CacheMissError, CorruptFileError, ModelNotFoundError
from featx.features.feature_file import FeatureFile
from featx.heads.head import Head
from featx.inspection.info import describe_file, file_kind
from featx.promotion.config import FineTuning
from featx.promotion.promotion import promote
from featx.workflows.fit import fit_head


def test_a_feature_file_is_described_by_its_contents(features: Path, split_photos: Path) -> None:
    facts = describe_file(features)
    cache = FeatureFile(features)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["kind"] == "feature file"
    assert facts["complete"] is True
    assert (facts["images"], facts["failed"]) == (49, 1)
    assert facts["layers"] == {"penultimate": "84 x float32"}
    assert facts["splits"] == {"train": 32, "val": 17}
    assert facts["classes"] == {"dark": 25, "light": 24}
    expected = {
        "name": "split",
        "root": str(split_photos),
        "splits": "given",
        "max_pixels": MAX_PIXELS,
        "reader": reader_name(),
    }
    assert facts["dataset"] == expected
    assert facts["backbone"] == cache.backbone
    assert facts["identity"] == cache.identity
    assert facts["bytes"] == features.stat().st_size
    assert facts["failures"].keys() == {"val/dark/bad.png"}
    assert facts["failures"]["val/dark/bad.png"].startswith("not an image of a known format")


def test_an_incomplete_feature_file_is_described_as_far_as_it_goes(tmp_path: Path) -> None:
    images = table(3, splits=[b"train", b"train", b""])
    begin(tmp_path / "f.h5", classes=("a", "b"), images=images).publish()
    facts = describe_file(tmp_path / "f.h5.partial")
    assert facts["complete"] is False
    assert (facts["images"], facts["failed"]) == (3, 0)
    assert facts["splits"] == {"(undecided)": 1, "train": 2}
    assert facts["classes"] == {"a": 1, "b": 1}


def test_a_head_is_described_by_its_metadata_and_report(features: Path, tmp_path: Path) -> None:
    path = fit_head(features, Head("centroid"), models=tmp_path / "models").path
    facts = describe_file(path)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["kind"], facts["model"]) == ("head", "centroid")
    assert facts["classes"] == ["dark", "light"]
    assert facts["identity"] == FeatureFile(features).layers["penultimate"].identity
    assert facts["bytes"] == path.stat().st_size
    assert facts["report"]["n"] == 16
    assert not {"per_class", "confusion"} & facts["report"].keys()


def test_a_promoted_model_is_described_by_its_verdict_and_reports(features: Path, tmp_path: Path) -> None:
    head = fit_head(features, Head("centroid"), models=tmp_path / "models")
    path = promote(head.path, models=tmp_path / "models").path
    facts = describe_file(path)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["kind"] == "promoted model"
    assert facts["verdict"] == "assembled"
    assert facts["classes"] == ["dark", "light"]
    assert facts["bytes"] == path.stat().st_size
    for report in ("report", "head_report"):
        assert facts[report]["accuracy"] == head.report.accuracy
        assert not {"per_class", "confusion"} & facts[report].keys()


def test_the_verdict_of_a_fine_tuned_model_comes_first(features: Path, tmp_path: Path) -> None:
    head = fit_head(features, Head("centroid"), models=tmp_path / "models")
    result = promote(head.path, finetune=True, settings=FineTuning(epochs=1), models=tmp_path / "models")
    facts = describe_file(result.path)
    assert list(facts)[:4] == ["kind", "verdict", "why", "paired"]
    assert (facts["why"], facts["paired"]["n"]) == (result.why, 16)
    assert facts["finetuned_report"]["n"] == 16
    assert not {"per_class", "confusion", "reliability"} & facts["finetuned_report"].keys()


def test_a_foreign_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("ants and bees")
    with pytest.raises(CorruptFileError, match=r"notes\.txt"):
        describe_file(tmp_path / "notes.txt")
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(CorruptFileError, match=r"keras\.h5 is an HDF5 file, but not a feature file in the form that"):
        describe_file(tmp_path / "keras.h5")


def test_the_kind_of_a_file_is_read_from_its_contents_not_its_name(features: Path, tmp_path: Path) -> None:
    head = fit_head(features, Head("centroid"), models=tmp_path / "models").path.rename(tmp_path / "a.h5")
    assert file_kind(features) == "feature file"
    assert file_kind(head) == "head"


def test_a_missing_file_is_a_feature_file_or_a_model_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"there is no file .*none\.h5"):
        describe_file(tmp_path / "none.h5")
    with pytest.raises(ModelNotFoundError, match=r"there is no file .*none\.safetensors"):
        describe_file(tmp_path / "none.safetensors")
