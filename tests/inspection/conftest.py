"""Fixtures of the inspection tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from featx.extraction.pipeline import extract


@pytest.fixture
def features(split_photos: Path, tmp_path: Path) -> Path:
    """48 images and one bad one, through LeNet-5."""
    (split_photos / "val" / "dark" / "bad.png").write_text("no image")
    return extract(split_photos, "lenet5", cache=tmp_path / "cache").file
