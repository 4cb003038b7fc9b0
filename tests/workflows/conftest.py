"""Fixtures of the tests of workflows."""

from __future__ import annotations

from pathlib import Path

import pytest

from featx.backbones.backbone import load_backbone
from featx.extraction.pipeline import extract
from featx.heads.estimators import mlp


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for as few epochs as these small data sets need; tests/heads/estimators/test_mlp.py trains for more."""
    monkeypatch.setattr(mlp, "EPOCHS", 10)


@pytest.fixture
def two_views(split_photos: Path, tmp_path: Path) -> Path:
    """A feature file of two layers, each image in two views."""
    backbone = load_backbone("lenet5", layers=("hidden",), views="flip", device="cpu")
    return extract(split_photos, backbone, cache=tmp_path / "cache").file
