"""Searching the images of a feature file that are like others."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made import Recorder, in_views, photos, with_labels
from PIL import Image

import featx
from featx.backbones import restored
from featx.errors import CacheMissError, DatasetError, HeadError, SettingsError
from featx.features.feature_set import FeatureSet
from featx.retrieval.similar import SearchResult, iter_search, search


@pytest.fixture
def features_file(split_photos: Path, in_tmp: Path) -> Path:
    """LeNet-5's features of the split photographs."""
    return featx.extract(split_photos, "lenet5").file


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a backbone was built")

    monkeypatch.setattr(restored, "restore_backbone", refuse)


def nearest_by_hand(features: FeatureSet, row: int, k: int) -> list[str]:
    """The paths of the nearest other rows."""
    X = features.features.astype(np.float64)
    cosines = (X @ X[row]) / np.linalg.norm(X, axis=1) / np.linalg.norm(X[row])
    cosines[row] = -2
    return [str(features.paths[other]) for other in np.lexsort((np.arange(len(X)), -cosines.round(6)))[:k]]


def paths(result: SearchResult) -> list[str]:
    return [hit.path for hit in result.hits]


@pytest.mark.usefixtures("no_network")
def test_rows_stored_paths_and_files_of_the_data_set_need_no_network(features_file: Path, split_photos: Path) -> None:
    features = FeatureSet.load(features_file)
    path = str(features.paths[5])
    by_row, by_stored, by_file, by_absolute = search(
        features_file, [path, split_photos / path, str(split_photos.resolve() / path)], rows=[5], top=3
    )
    for found in (by_row, by_stored, by_file, by_absolute):
        assert paths(found) == nearest_by_hand(features, 5, 3)
        assert found.row == 5
        assert found.hits[0].label == path.split("/")[1]
    assert by_row.query == by_stored.query == path
    assert by_file.query == str(split_photos / path)


@pytest.mark.usefixtures("no_network")
def test_a_stored_path_is_found_when_the_images_are_gone(features_file: Path, split_photos: Path) -> None:
    features = FeatureSet.load(features_file)
    shutil.rmtree(split_photos)
    found, absolute = search(features_file, [str(features.paths[0]), str(split_photos / str(features.paths[0]))], top=2)
    assert paths(found) == paths(absolute) == nearest_by_hand(features, 0, 2)


def test_an_image_is_no_hit_of_itself_but_a_copy_elsewhere_is(features_file: Path, split_photos: Path) -> None:
    first = str(FeatureSet.load(features_file).paths[0])
    shutil.copy(split_photos / first, "copy.png")
    itself, copy = search(features_file, [first, "copy.png"], top=1)
    assert paths(itself) != [first]
    assert paths(copy) == [first]
    assert copy.hits[0].similarity == pytest.approx(1)
    assert copy.row == 0
    (asked,) = search(features_file, first, top=1, include_self=True)
    assert paths(asked) == [first]


def test_a_new_image_passes_through_the_backbone_of_the_file(features_file: Path, split_photos: Path) -> None:
    features = FeatureSet.load(features_file)
    with Image.open(split_photos / str(features.paths[3])) as image:
        image.save("new.bmp")  # the same pixels in other bytes
        found, in_memory = search(features_file, ["new.bmp", image], top=1)
    assert found.row is None
    assert paths(found) == paths(in_memory) == [str(features.paths[3])]
    assert found.hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_queries_keep_their_order_whatever_they_are(features_file: Path, split_photos: Path) -> None:
    stored = [str(path) for path in FeatureSet.load(features_file).paths]
    Path("bad.jpg").write_text("no image")
    folder = split_photos / "val" / "dark"

    def mixed() -> Iterator[object]:
        yield stored[1]
        yield "bad.jpg"
        yield stored[2]
        yield folder
        yield stored[3]
        yield stored[4]

    names = [found.query for found in iter_search(features_file, mixed(), rows=[9, 8], top=1)]
    inside = [str(folder / f"{n:02}.png") for n in range(8)]
    assert names == [stored[9], stored[8], stored[1], "bad.jpg", stored[2], *inside, stored[3], stored[4]]


def test_an_image_that_fails_has_an_error_and_stops_nothing(features_file: Path, split_photos: Path) -> None:
    Path("bad.jpg").write_text("no image")
    bad, gone, good = search(features_file, ["bad.jpg", "gone.png", split_photos / "val" / "dark" / "00.png"], top=2)
    assert "not an image of a known format" in bad.error
    assert gone.error.startswith("cannot be read: ")
    assert bad.as_dict() == {"query": "bad.jpg", "error": bad.error}
    assert len(good.hits) == 2


def test_hits_are_limited_to_a_split_and_a_label(features_file: Path) -> None:
    (found,) = search(features_file, rows=[0], split="val", label="light", top=99)
    assert {(hit.split, hit.label) for hit in found.hits} == {("val", "light")}
    assert len(found.hits) == 8
    with pytest.raises(SettingsError, match="no image is in the split 'test'; found 'train', 'val'"):
        search(features_file, rows=[0], split="test")
    with pytest.raises(SettingsError, match="no image has the label 'lihgt'; did you mean light"):
        search(features_file, rows=[0], label="lihgt")


def test_one_of_several_labels_is_enough() -> None:
    features = with_labels(photos(classes=("x",), train=4, test=0), ["cat|dog", "dog", "cat", "|"])
    (found,) = search(features, rows=[1], label="cat")
    assert sorted(hit.row for hit in found.hits) == [0, 2]


def test_rows_are_those_of_the_file_with_images_that_failed(split_photos: Path, in_tmp: Path) -> None:
    (split_photos / "train" / "dark" / "00.png").write_text("no image")
    file = featx.extract(split_photos, "lenet5").file
    stored = featx.FeatureFile(file).paths
    failed = stored.index("train/dark/00.png")
    for row in (failed + 1, len(stored) - 1):
        (found,) = search(file, rows=[row], top=1)
        assert (found.query, found.row) == (stored[row], row)
        assert stored[found.hits[0].row] == found.hits[0].path
    with pytest.raises(SettingsError, match=f"row {failed} has no features, because its image failed: .*format"):
        search(file, rows=[failed])
    with pytest.raises(SettingsError, match=f"the row is {len(stored)}; expected a whole number from 0 to"):
        search(file, rows=[len(stored)])


def test_features_that_are_not_finite_are_left_out_with_a_note() -> None:
    features = photos(train=5, test=0)
    X = features.features.copy()
    X[2, 0], X[4, 1] = np.nan, np.inf
    features, notes = dataclasses.replace(features, features=X), Recorder()
    (found,) = search(features, rows=[0], top=99, reporter=notes)
    assert {hit.row for hit in found.hits} == {*range(15)} - {0, 2, 4}
    assert notes.notes == ["the features of 2 images are NaN or infinite, so these are not found"]
    (bad,) = search(features, rows=[2])
    assert bad.error == "its features are NaN or infinite"


def test_a_set_of_two_images_or_one_is_searched_too() -> None:
    features = photos(classes=("x",), train=2, test=0)
    assert [len(found.hits) for found in search(features, rows=[0, 1], top=20)] == [1, 1]
    (alone,) = search(features.take(np.array([0])), rows=[0])
    assert alone.hits == ()
    with pytest.raises(DatasetError, match="no image of the feature file is left to be found"):
        search(features.take(np.array([], dtype=np.int64)), "x.png")


def test_several_views_are_searched_in_the_plain_one() -> None:
    features = photos()
    (seen,), (plain,) = search(in_views(features), rows=[4]), search(features, rows=[4])
    assert paths(seen) == paths(plain)


def test_a_file_without_the_penultimate_layer_is_searched_in_its_first(split_photos: Path, in_tmp: Path) -> None:
    file = featx.extract(split_photos, featx.load_backbone("lenet5", layers=["features.3:max", "features.0"])).file
    layers = list(featx.FeatureFile(file).layers)
    first = "penultimate" if "penultimate" in layers else layers[0]
    assert search(file, rows=[0], top=3) == search(file, rows=[0], top=3, layer=first)
    with pytest.raises(CacheMissError, match="has no layer 'layer9'"):
        search(file, rows=[0], layer="layer9")


def test_features_of_no_backbone_take_no_new_image(split_photos: Path) -> None:
    features = dataclasses.replace(photos(), backbone={})
    with pytest.raises(HeadError, match="no backbone to run images through"):
        search(features, split_photos / "val" / "dark" / "00.png")


@pytest.mark.parametrize("top", [0, True, 2.5])
def test_a_number_of_hits_that_is_none_is_refused(top: object) -> None:
    with pytest.raises(SettingsError, match="expected a whole number above 0"):
        search(photos(), rows=[0], top=top)  # type: ignore[arg-type]


def test_one_row_needs_no_list_and_names_are_text() -> None:
    features = photos()
    assert search(features, rows=3)[0].hits == search(features, rows=[3])[0].hits
    for name in ("split", "label"):
        with pytest.raises(SettingsError, match=f"{name} is 3; expected a name"):
            search(features, rows=[0], **{name: 3})  # type: ignore[arg-type]


def test_absolute_paths_of_a_table_are_stored_paths_too() -> None:
    features = photos(train=3, test=0)
    absolute = np.array([f"/gone/{path}" for path in features.paths], dtype=object)
    (found,) = search(dataclasses.replace(features, paths=absolute), str(absolute[2]), top=1)
    assert (found.query, found.row) == ("/gone/2.png", 2)
