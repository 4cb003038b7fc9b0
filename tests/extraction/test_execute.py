"""Carrying out a plan: copies of an image, bad images, and progress."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from extractions import MakeImage, assert_own_features, counts
from made import Recorder

from featx.backbones.backbone import Backbone
from featx.errors import DatasetError
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FAILED, FeatureFile


def test_copies_within_one_run_are_computed_once(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    for name in ("dark/a.png", "light/b.png"):
        shutil.copy(few / "dark" / "2.png", few / name)
    result = extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert counts(result) == (10, 8, 2, 0, 0)
    assert sum(encoded) == 8
    features = result.load()
    of = dict(zip(features.paths, features.features, strict=True))
    np.testing.assert_array_equal(of["dark/a.png"], of["dark/2.png"])
    np.testing.assert_array_equal(of["light/b.png"], of["dark/2.png"])
    assert len({tuple(vector) for vector in features.features}) == 8


def test_a_row_that_does_not_fit_its_check_is_computed_again(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    file = FeatureFile(extract(few, lenet, out=tmp_path / "f.h5").file)
    with file.path.open("r+b") as raw:
        raw.seek(file.layers["penultimate"].offset + 2 * 84 * 4)
        raw.write(b"\xff")
    make_image(few / "light" / "new.png", seed=999)
    result = extract(few, lenet, out=tmp_path / "f.h5")
    assert counts(result) == (9, 2, 7, 0, 0)
    assert_own_features(result, lenet, few)


# Bad images


def test_bad_images_get_a_reason_and_shift_no_row(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(spoilt, lenet, cache=tmp_path / "cache", batch_size=3)
    assert counts(result) == (11, 8, 0, 3, 0)
    reasons = dict(result.failures)
    assert reasons["dark/0-empty.jpg"] == "the file is empty"
    assert reasons["dark/1-text.jpg"].startswith("not an image of a known format")
    assert reasons["light/9-truncated.png"].startswith("cannot be decoded: ")
    file = FeatureFile(result.file)
    assert file.status.tolist() == [FAILED, DONE, FAILED, *[DONE] * 7, FAILED]
    assert not any("jpg" in path or "9" in path for path in result.load().paths)
    assert_own_features(result, lenet, spoilt)


def test_bad_images_are_not_opened_again_until_they_change(
    spoilt: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], opened: Callable[[], list[str]]
) -> None:
    first = extract(spoilt, lenet, cache=tmp_path / "cache")
    encoded.clear()
    opened()
    again = extract(spoilt, lenet, cache=tmp_path / "cache")
    assert counts(again) == (11, 0, 8, 3, 0)
    assert again.failures == first.failures
    (spoilt / "dark" / "2.png").unlink()
    assert counts(extract(spoilt, lenet, cache=tmp_path / "cache")) == (10, 0, 7, 3, 1)
    assert (encoded, opened()) == ([], [])
    shutil.copy(spoilt / "light" / "0.png", spoilt / "dark" / "0-empty.jpg")
    os.utime(spoilt / "light" / "9-truncated.png", (1, 1))
    mended = extract(spoilt, lenet, cache=tmp_path / "cache")
    assert counts(mended) == (10, 0, 8, 2, 1)
    assert [path for path, _ in mended.failures] == ["dark/1-text.jpg", "light/9-truncated.png"]


def test_a_data_set_of_bad_images_alone_is_an_error(tmp_path: Path, lenet: Backbone) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / "bad" / name).parent.mkdir(parents=True)
        (tmp_path / "bad" / name).write_text("no image")
    message = r"none of the 2 images in .*bad could be decoded; the first, a/1\.jpg: not an image"
    for _ in range(2):
        with pytest.raises(DatasetError, match=message):
            extract(tmp_path / "bad", lenet, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.h5")) == []


def test_strict_stops_at_the_first_bad_image_and_keeps_what_is_done(
    spoilt: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    message = r"dark/0-empty\.jpg: the file is empty\. --strict stops at the first image that fails$"
    with pytest.raises(DatasetError, match=message):
        extract(spoilt, lenet, cache=tmp_path / "cache", strict=True)
    assert counts(extract(spoilt, lenet, cache=tmp_path / "cache")) == (11, 8, 0, 3, 0)
    encoded.clear()
    with pytest.raises(DatasetError, match=message):
        extract(spoilt, lenet, cache=tmp_path / "cache", strict=True)
    assert encoded == []


# Progress


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_progress_runs_up_to_the_total(spoilt: Path, tmp_path: Path, lenet: Backbone, batch_size: int) -> None:
    shutil.copy(spoilt / "dark" / "2.png", spoilt / "light" / "copy.png")
    told = Recorder()
    extract(
        spoilt,
        lenet,
        cache=tmp_path / "cache",
        batch_size=batch_size,
        reporter=told,
    )
    assert told.calls[0] == (0, 12)
    assert told.calls[-1] == (12, 12)
    assert told.calls == sorted(told.calls)


def test_progress_counts_what_an_earlier_run_did(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    extract(few, lenet, cache=tmp_path / "cache")
    make_image(few / "dark" / "new.png", seed=999)
    told = Recorder()
    extract(few, lenet, cache=tmp_path / "cache", reporter=told)
    assert told.calls == [(8, 9), (9, 9)]
