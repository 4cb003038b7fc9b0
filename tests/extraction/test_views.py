"""Features in several views of each image (test-time augmentation, TTA)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from extractions import MakeImage, add, assert_all_views, counts, interrupt, viewing_backbone
from made import Recorder

from featx.backbones.backbone import Backbone, load_backbone
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile
from featx.inspection.verify import verify_file
from featx.layer_spec import VIEWS


@pytest.mark.parametrize("name", ["flip", "10crop"])
def test_every_view_of_every_image_is_what_the_backbone_gives_for_it(
    photos: Path, tmp_path: Path, encoded: list[int], name: str
) -> None:
    backbone = viewing_backbone(name, layers=("hidden",))
    result = extract(photos, backbone, cache=tmp_path / "cache", compute="eager")
    assert counts(result) == (40, 40, 0, 0, 0)
    assert sum(encoded) == 40 * len(VIEWS[name])
    assert result.views == name
    assert result.layers == {"penultimate": 84, "hidden": 84}
    for layer in result.layers:
        assert_all_views(result, backbone, photos, layer)
    assert result.load().views == len(VIEWS[name])
    encoded.clear()
    assert counts(extract(photos, backbone, cache=tmp_path / "cache")) == (40, 0, 40, 0, 0)
    assert encoded == []


def test_only_views_that_no_file_has_are_computed(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    results = {}
    for name, passes in (("plain", 1), ("flip", 1), ("10crop", 8)):
        encoded.clear()
        results[name] = extract(few, viewing_backbone(name), cache=tmp_path / "cache")
        assert sum(encoded) == 8 * passes
        assert counts(results[name]) == (8, 8, 0, 0, 0)
    said = "8 images had features in {} of {} views; only the other views were computed"
    assert said.format(1, 2) in results["flip"].notes
    assert said.format(2, 10) in results["10crop"].notes
    assert not any("had features in" in note for note in results["plain"].notes)
    assert_all_views(results["10crop"], viewing_backbone("10crop"), few)
    alone = extract(few, viewing_backbone("10crop"), cache=tmp_path / "other").load()
    np.testing.assert_allclose(results["10crop"].load().features, alone.features, atol=1e-6)


def test_fewer_views_are_taken_from_the_file_that_has_more(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    more = extract(few, viewing_backbone("10crop"), cache=tmp_path / "cache")
    encoded.clear()
    for name in ("plain", "flip"):
        result = extract(few, viewing_backbone(name), cache=tmp_path / "cache")
        assert result.file == more.file
        assert counts(result) == (8, 0, 8, 0, 0)
        assert result.views == name
        assert result.load().views == len(VIEWS[name])
    assert encoded == []


def test_views_that_nobody_asks_for_today_stay_as_complete_as_the_others(
    few: Path, tmp_path: Path, encoded: list[int], make_image: MakeImage
) -> None:
    extract(few, viewing_backbone("flip"), cache=tmp_path / "cache")
    add(few, make_image)
    encoded.clear()
    assert counts(extract(few, viewing_backbone("plain"), cache=tmp_path / "cache")) == (9, 1, 8, 0, 0)
    result = extract(few, viewing_backbone("flip"), cache=tmp_path / "cache")
    assert counts(result) == (9, 0, 9, 0, 0)
    assert sum(encoded) == 2
    assert_all_views(result, viewing_backbone("flip"), few)


def test_another_layer_is_computed_in_every_view(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    extract(few, viewing_backbone("flip"), cache=tmp_path / "cache")
    encoded.clear()
    result = extract(few, viewing_backbone("flip", layers=("hidden",)), cache=tmp_path / "cache")
    assert sum(encoded) == 16
    assert_all_views(result, viewing_backbone("flip", layers=("hidden",)), few, "hidden")


def test_some_images_known_in_some_views_and_others_in_none(
    few: Path, tmp_path: Path, encoded: list[int], make_image: MakeImage
) -> None:
    extract(few, viewing_backbone("plain"), cache=tmp_path / "cache")
    shutil.copy(few / "dark" / "2.png", few / "light" / "copy.png")  # known too, but for its place
    add(few, make_image)
    (few / "dark" / "3.png").rename(few / "dark" / "moved.png")
    encoded.clear()
    result = extract(few, viewing_backbone("flip"), cache=tmp_path / "cache")
    assert counts(result) == (10, 9, 1, 0, 0)
    assert sum(encoded) == 8 + 2
    assert_all_views(result, viewing_backbone("flip"), few)


def test_a_moved_data_set_keeps_the_views_that_it_had(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    extract(few, viewing_backbone("plain"), cache=tmp_path / "cache")
    moved = few.rename(few.with_name("elsewhere"))
    encoded.clear()
    result = extract(moved, viewing_backbone("flip"), cache=tmp_path / "cache")
    assert sum(encoded) == 8
    assert_all_views(result, viewing_backbone("flip"), moved)


def test_a_view_that_does_not_fit_its_check_is_computed_again(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    plain = extract(few, viewing_backbone("plain"), cache=tmp_path / "cache")
    file = FeatureFile(plain.file)
    damaged = bytearray(plain.file.read_bytes())
    damaged[file.layers["penultimate"].offset + 3 * 84 * 4] ^= 1
    plain.file.write_bytes(bytes(damaged))
    shutil.copy(few / "dark" / "3.png", few / "light" / "copy.png")
    encoded.clear()
    result = extract(few, viewing_backbone("flip"), cache=tmp_path / "cache")
    assert counts(result) == (9, 8, 1, 0, 0)
    assert sum(encoded) in (8 + 1, 8 + 2)  # its mirror image may have been computed before the damage was seen
    assert_all_views(result, viewing_backbone("flip"), few)


def test_what_an_interrupted_run_left_is_not_computed_again_in_any_view(
    photos: Path, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(photos, viewing_backbone("plain"), cache=tmp_path / "cache")
    with monkeypatch.context() as patch:
        interrupt(patch, after=4)
        with pytest.raises(KeyboardInterrupt):
            extract(photos, viewing_backbone("flip"), cache=tmp_path / "cache", batch_size=4, workers=1)
    encoded.clear()
    result = extract(photos, viewing_backbone("flip"), cache=tmp_path / "cache")
    assert counts(result)[:2] == (40, 40 - 16)
    assert sum(encoded) == 40 - 16
    assert_all_views(result, viewing_backbone("flip"), photos)


def test_a_bad_image_fails_in_all_views_at_once(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    plain = extract(spoilt, lenet, cache=tmp_path / "a")
    result = extract(spoilt, load_backbone("lenet5", views="flip", device="cpu"), cache=tmp_path / "a")
    assert result.failures == plain.failures
    assert counts(result)[3] == counts(plain)[3] > 0
    again = extract(spoilt, load_backbone("lenet5", views="flip", device="cpu"), cache=tmp_path / "b")
    assert again.failures == plain.failures


def test_progress_runs_to_the_end_when_views_are_added(few: Path, tmp_path: Path, make_image: MakeImage) -> None:
    extract(few, viewing_backbone("plain"), cache=tmp_path / "cache")
    add(few, make_image)
    told = Recorder()
    extract(few, viewing_backbone("flip"), cache=tmp_path / "cache", reporter=told)
    assert told.calls[-1] == (9, 9)
    assert told.calls == sorted(told.calls)
    assert all(total == 9 for _, total in told.calls)


@pytest.mark.parametrize("name", ["flip", "10crop"])
def test_rows_in_views_are_extracted_again_to_verify_them(few: Path, tmp_path: Path, name: str) -> None:
    result = extract(few, viewing_backbone(name), cache=tmp_path / "cache")
    found = verify_file(result.file, recompute=5, device="cpu")
    assert found["ok"]
    assert found["recomputed"] == 5
    assert found["largest_difference"] < 1e-5
