"""The result of an extraction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featx.backbones.backbone import Backbone
from featx.extraction.pipeline import extract


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
