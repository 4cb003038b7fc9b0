"""``featx import``, and what the other commands do with imported features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import featx
from foreign_layouts import NAMES, X, thingsvision

WHY = "the features were computed by another tool and imported (thingsvision), so featx cannot compute them for images"


@pytest.fixture
def vectors(in_tmp: Path) -> Path:
    """Forty vectors of two classes that are far apart, as thingsvision writes them."""
    folder = thingsvision(in_tmp / "vision", "npy")
    names = [f"{label}/{number:02d}.jpg" for label in ("ant", "bee") for number in range(20)]
    np.save(folder / "features.npy", np.random.default_rng(0).normal(size=(40, 6)) + 4 * (np.arange(40) >= 20)[:, None])
    (folder / "file_names.txt").write_text("\n".join(names))
    return folder


def test_vectors_are_imported_and_every_command_works_or_says_why_not(vectors: Path, photos: Path) -> None:
    lines = featx("import", vectors).stdout.splitlines()
    file = "cache/vision--thingsvision.h5"
    assert lines[:2] == [f"40 vectors of thingsvision: {file}", "layers: penultimate (6)"]
    assert lines[2].startswith("2 classes; splits: ")
    assert lines[3] == f"next: featx fit-head {file}"
    facts = json.loads(featx("info", file, "--json").stdout)
    assert facts["identity"].startswith("foreign:")
    assert "another tool's; featx cannot compute these features for new images" in featx("info", file).stdout
    assert "all is well" in featx("verify", file).stdout
    head = json.loads(featx("fit-head", file, "--json").stdout)["head"]
    featx("info", head)
    assert "accuracy" in featx("evaluate", head, file).stdout
    rows = featx("predict", head, file).stdout.splitlines()
    assert len(rows) == 41
    assert rows[1].split(",")[:3] == ["ant/00.jpg", "1", "ant"]
    assert json.loads(featx("search", file, "--row", "0", "--json").stdout)["results"]
    featx("inspect", file)
    featx("export", file, "--to", "again.npy")
    assert "vision--thingsvision.h5" in featx("cache").stdout
    image = next(photos.rglob("*.png"))
    for command in (
        ("predict", head, image),
        ("promote", head),
        ("search", file, image),
        ("verify", "--recompute", "2", file),
    ):
        result = featx(*command, status=1)
        assert WHY in result.stderr, command
        assert "Traceback" not in result.stderr


def test_facts_are_printed_as_json(in_tmp: Path) -> None:
    np.save("x.npy", X)
    Path("names.txt").write_text("\n".join(NAMES))
    facts = json.loads(
        featx("import", "x.npy", "--names", "names.txt", "--name", "photos", "-o", "a.h5", "--json").stdout
    )
    assert (facts["file"], facts["tool"], facts["images"], facts["layers"]) == ("a.h5", "npy", 12, {"penultimate": 5})


def test_what_cannot_be_imported_is_one_message(in_tmp: Path, photos: Path) -> None:
    assert "there is no file or folder nothing" in featx("import", "nothing", status=1).stderr
    result = featx("import", photos, status=1)
    assert "has no file that ends in .npy" in result.stderr
    assert "--workers has no effect without --images" in featx("import", "x.npy", "-j", "2", status=2).stderr
