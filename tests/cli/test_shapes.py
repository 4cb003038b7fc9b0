"""Inputs of other shapes than square RGB, from the command line to a promoted model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import featx
from PIL import Image

NETWORK = """
from torch import nn


def net():
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), *pool)
"""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two classes, one darker, and a network of one channel beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name, level in (("dark", 60), ("light", 190)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 40, level + 40, (30, 50, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_grey_rectangles_go_from_images_to_a_promoted_model(photos: Path) -> None:
    shape = ("-b", "mine.py:net", "--size", "24x64", "--fit", "pad", "--layer", "2:max")
    result = featx("extract", "photos", *shape, "-o", "f.h5")
    notes = result.stderr
    assert "takes one channel: it gets images as grey" in notes
    assert "images are resized to fit into 24 x 64 and padded with the network's mean colour (114)" in notes
    assert "0 computed" not in result.stdout
    assert "no forward pass was needed" in featx("extract", "photos", *shape, "-o", "f.h5").stdout
    page = featx("info", "f.h5").stdout
    assert "resized to fit into 24 x 64 and padded with the network's mean colour (114) (bilinear), grey" in page
    transform = json.loads(featx("info", "f.h5", "--json").stdout)["backbone"]["parts"]["transform"]
    assert {name: transform[name] for name in ("crop", "crop_width", "fit", "channels")} == {
        "crop": 24, "crop_width": 64, "fit": "pad", "channels": 1
    }  # fmt: skip
    featx("fit-head", "f.h5", "--layer", "2:max,penultimate", "-o", "head.safetensors")
    promoted = featx("promote", "head.safetensors", "-b", "mine.py:net", "-o", "model.safetensors").stdout
    assert "the logits of the network equal those of the head" in promoted
    for model in ("head.safetensors", "model.safetensors"):
        lines = featx("predict", model, "photos/test/light", "-b", "mine.py:net").stdout.splitlines()
        assert sum("light" in line.split(",")[2] for line in lines[1:]) == 6


def test_another_fit_is_another_file(photos: Path) -> None:
    files = set()
    for options in (
        (),
        ("--fit", "pad"),
        ("--fit", "squash"),
        ("--size", "32x48"),
        ("--size", "224"),
        ("--resize", "0"),
    ):
        files.add(json.loads(featx("extract", "photos", "-b", "mine.py:net", *options, "--json").stdout)["file"])
    assert len(files) == 4, "squash is a resize of 0, and 224 the size of the weights"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--size", "64", "--crop", "64"), 1, "size and crop both set the size of the images; expected one of them"),
        (("--fit", "pad", "--resize", "0"), 1, "a resize of 0 squashes, and fit is pad; expected one of them"),
        (("--size", "64x"), 2, "'64x' is no size; expected the side of a square, or HEIGHTxWIDTH such as 224x448"),
        (("--fit", "stretch"), 2, "'stretch' is not one of 'crop', 'pad', 'squash'"),
        (("--in-chans", "0"), 2, "0 is not in the range 1<=x<=1024"),
        (("--in-chans", "5"), 1, "mine.py:net takes 1 channel; networks of timm can be adapted (--in-chans)"),
        (("--bands", "1,2,3,4,5"), 1, "for a network of 1 channel; expected one to four bands"),
    ],
)
def test_what_cannot_be_is_one_line(photos: Path, options: tuple[str, ...], status: int, message: str) -> None:
    stderr = featx("extract", "photos", "-b", "mine.py:net", *options, status=status).stderr
    assert message in stderr
    assert "Traceback" not in stderr


def test_a_recipe_takes_the_shape(photos: Path) -> None:
    Path("recipe.toml").write_text(
        '[extract]\ndata = "photos"\nbackbone = "mine.py:net"\nsize = "24x64"\nfit = "pad"\nout = "f.h5"\n'
    )
    featx("run", "recipe.toml")
    assert "resized to fit into 24 x 64" in featx("info", "f.h5").stdout


def test_backbones_are_ranked_and_advised_on_in_the_same_fit(photos: Path) -> None:
    featx("rank", "photos", "-b", "lenet5", "--fit", "pad")
    (file,) = Path("cache").glob("*.h5")
    assert "resized to fit into 32 x 32" in featx("info", file).stdout
    message = "is a feature file, whose images were read already; --value-range, --bands and --fit are for a data set"
    assert message in featx("advise", file, "--fit", "pad", status=1).stderr
