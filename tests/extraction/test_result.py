"""The result of an extraction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import featx.extraction
from featx.backbones.backbone import Backbone
from featx.extraction.pipeline import extract
from featx.extraction.result import Extraction


def test_the_summary_has_the_documented_keys(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(spoilt, lenet, cache=tmp_path / "cache")
    said = result.as_dict()
    assert said.keys() == {
        "file", "images", "computed", "reused", "failed", "removed", "seconds", "images_per_second", "layers", "views",
        "identity", "dataset", "backbone", "engine", "failures", "notes",
    }  # fmt: skip
    assert json.loads(json.dumps(said)) == said
    assert said["file"] == str(result.file)
    assert said["layers"] == {"penultimate": 84}
    assert (said["images"], said["computed"], said["reused"], said["failed"], said["removed"]) == (11, 8, 0, 3, 0)
    assert said["failures"][0] == {"path": "dark/0-empty.jpg", "error": "the file is empty"}
    assert said["images_per_second"] == pytest.approx(11 / result.seconds, rel=0.01)
    assert said["dataset"] == "few"


def test_remarks_name_ten_failed_images_and_count_the_others() -> None:
    result = Extraction(
        Path("f.h5"), 12, 0, 0, 12, 0, 1.0, {}, "plain", "", "few", "lenet5",
        failures=tuple((f"{number}.jpg", "the file is empty") for number in range(12)), notes=("a note",),
    )  # fmt: skip
    assert result.remarks[0] == "a note"
    assert result.remarks[1:11] == tuple(f"{number}.jpg: the file is empty" for number in range(10))
    assert result.remarks[11:] == ("and 2 more failed (featx info --failed f.h5 lists them)",)


def test_the_package_offers_the_extraction_and_its_result() -> None:
    assert featx.extraction.extract is featx.extract
    assert featx.extraction.Extraction is Extraction
