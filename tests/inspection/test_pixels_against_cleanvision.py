"""cleanvision is the yardstick: the same images are dark, bright, blank, of odd sizes and shapes."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from odd_images import photograph, set_of
from PIL import Image, ImageFilter

from featx.features.feature_set import FeatureSet
from featx.inspection.pixels import KINDS, PixelIssues, inspect_pixels

SAME = ("low_information", "dark", "light", "odd_size", "odd_aspect_ratio", "grayscale")
"""The kinds that both measure alike; blur is measured otherwise."""


def by_cleanvision(features: FeatureSet) -> dict[str, np.ndarray]:
    """The columns that cleanvision makes of the images of a feature set."""
    cleanvision = pytest.importorskip("cleanvision", reason="needs cleanvision, with which featx is compared")
    paths = [str(Path(features.dataset["root"]) / path) for path in features.paths]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = cleanvision.Imagelab(filepaths=paths)
        lab.find_issues({kind: {} for kind in KINDS}, n_jobs=1, verbose=False)
    table = lab.issues.loc[paths]
    return {name: table[name].to_numpy() for name in table.columns}


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (one, other)]
    return float(np.corrcoef(ranks)[0, 1])


@pytest.fixture(scope="module")
def compared(hymenoptera: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PixelIssues, dict[str, np.ndarray]]:
    """What both tools find in every eighth image, and in others that are darkened, overexposed, blank, grey or strips."""
    files = sorted(hymenoptera.rglob("*.jpg"))
    images: dict[str, Image.Image | bytes] = {f"{at:03}.jpg": path.read_bytes() for at, path in enumerate(files[::8])}
    for at, path in enumerate(files[1::80]):
        image = Image.open(path).convert("RGB")
        images[f"dark-{at}.jpg"] = image.point(lambda level: level // 5)
        images[f"light-{at}.jpg"] = image.point(lambda level: 245 + level // 26)
        images[f"blank-{at}.png"] = Image.new("RGB", image.size, (40 * at, 120, 90))
        images[f"strip-{at}.jpg"] = image.crop((0, 100, image.width, 100 + image.width // 5))
        images[f"grey-{at}.jpg"] = image.convert("L")
    features = set_of(tmp_path_factory.mktemp("images"), images)
    return inspect_pixels(features), by_cleanvision(features)


@pytest.mark.parametrize("kind", SAME)
def test_flags_agree_on_real_and_spoiled_photographs(
    compared: tuple[PixelIssues, dict[str, np.ndarray]], kind: str
) -> None:
    ours, theirs = compared
    flags = theirs[f"is_{kind}_issue"].astype(bool)
    assert flags.any()
    more = np.count_nonzero(ours.is_issue[kind] & ~flags)
    assert not (flags & ~ours.is_issue[kind]).any()
    # cleanvision does not call overexposed images of hardly any contrast blank, nor the one grey image in an RGB file grey
    assert more == {"low_information": np.count_nonzero(ours.is_issue["light"]), "grayscale": 1}.get(kind, 0)


@pytest.mark.parametrize("kind", ["dark", "light", "low_information"])
def test_scores_rank_images_alike(compared: tuple[PixelIssues, dict[str, np.ndarray]], kind: str) -> None:
    ours, theirs = compared
    colour = ours.scores["grayscale"] == 1  # of grey files, cleanvision counts the entropy of one channel
    assert rank_correlation(ours.scores[kind][colour], theirs[f"{kind}_score"][colour]) > 0.97


def test_a_blur_that_cleanvision_overlooks_is_found(hymenoptera: Path, tmp_path: Path) -> None:
    files = sorted(hymenoptera.rglob("*.jpg"))[::20]
    images = {f"{at:02}.jpg": Image.open(path).convert("RGB") for at, path in enumerate(files)}
    images |= {f"blurred-{name}": image.filter(ImageFilter.GaussianBlur(4)) for name, image in [*images.items()][:12]}
    features = set_of(tmp_path / "images", images)
    blurred = np.char.startswith(features.paths.astype(str), "blurred")
    np.testing.assert_array_equal(inspect_pixels(features).is_issue["blurry"], blurred)
    assert np.count_nonzero(by_cleanvision(features)["is_blurry_issue"]) <= 2


def test_a_fraction_of_a_jpeg_decides_as_the_whole_image_does(tmp_path: Path) -> None:
    large = {f"{seed}.jpg": photograph(seed, (800, 600)) for seed in range(6)}
    spoiled = {
        "dark.jpg": photograph(7, (800, 600)).point(lambda level: level // 5),
        "blurred.jpg": photograph(8, (800, 600)).filter(ImageFilter.GaussianBlur(10)),
        "blank.jpg": Image.new("RGB", (800, 600), "teal"),
    }
    by_fraction = inspect_pixels(set_of(tmp_path / "jpeg", large | spoiled))
    whole = {Path(name).with_suffix(".png").name: image for name, image in (large | spoiled).items()}
    by_whole = inspect_pixels(set_of(tmp_path / "png", whole))
    for kind in KINDS:
        np.testing.assert_array_equal(by_fraction.is_issue[kind], by_whole.is_issue[kind])
    assert [kind for kind in KINDS if by_whole.is_issue[kind].any()] == ["low_information", "dark", "blurry"]
