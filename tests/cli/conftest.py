"""Fixtures of the tests of commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import featx


@pytest.fixture
def fitted(split_photos: Path, in_tmp: Path) -> Path:
    """The file of a head that is fitted to the extracted features of ``split_photos``."""
    featx("extract", split_photos, "-b", "lenet5")
    return Path(json.loads(featx("fit-head", "--json").stdout)["head"])
