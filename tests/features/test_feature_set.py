"""Features in memory: what is loaded, how it is divided, and what is said when it cannot be."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image

from featx.backbones.backbone import load_backbone
from featx.errors import BackboneError, CacheMissError, CorruptFileError, HeadError, OutputError
from featx.extraction.pipeline import extract
from featx.features import feature_set as feature_set_module
from featx.features.feature_file import ImageTable
from featx.features.feature_set import FeatureSet, views_in
from featx.features.writer import FeatureFileWriter
from featx.heads.head import Head

PATHS = [b"a/1.png", b"a/2.png", b"b/caf\xe9.png", b"b/4.png", b"loose.png"]
KEYS = np.arange(1, 81, dtype=np.uint8).reshape(5, 16)
VECTORS = np.arange(15, dtype=np.float32).reshape(5, 3)


def write(path: Path, *, failed: tuple[int, ...] = (), dtype: str = "float32") -> Path:
    """A complete file of five rows, two layers."""
    images = ImageTable(
        paths=np.array(PATHS),
        labels=np.array([0, 0, 1, 1, -1]),
        splits=np.array([b"train", b"test", b"train", b"val", b"test"]),
        sizes=np.arange(5),
        mtimes=np.arange(5),
    )
    writer = FeatureFileWriter(
        path,
        images=images,
        classes=("a", "b"),
        layers={"penultimate": (3, "1" * 64), "hidden": (2, "2" * 64)},
        dtype=dtype,
        identity="3" * 64,
        backbone={"name": "lenet5", "weights": "default", "parts": {}},
        dataset={"name": "letters", "root": "/letters", "splits": "given"},
    )
    writer.publish()
    rows = [row for row in range(5) if row not in failed]
    writer.write(rows, KEYS[rows], {"penultimate": VECTORS[rows], "hidden": -VECTORS[rows, :2]})
    for row in failed:
        writer.fail(row, KEYS[row].tobytes(), "the file is empty")
    writer.finish()
    return path


@pytest.fixture
def letters(tmp_path: Path) -> FeatureSet:
    return FeatureSet.load(write(tmp_path / "letters.h5"))


def small(labels: list[int], splits: list[str]) -> FeatureSet:
    """Features that come from no file."""
    return FeatureSet(
        features=np.zeros((len(labels), 2), dtype=np.float32),
        labels=np.array(labels),
        splits=np.array(splits, dtype=object),
        classes=("a", "b"),
        paths=np.array([f"{row}.png" for row in range(len(labels))], dtype=object),
        keys=np.zeros((len(labels), 16), dtype=np.uint8),
    )


def test_a_file_is_loaded_whole(letters: FeatureSet, tmp_path: Path) -> None:
    assert len(letters) == 5
    np.testing.assert_array_equal(letters.features, VECTORS)
    assert letters.labels.tolist() == [0, 0, 1, 1, -1]
    assert letters.splits.tolist() == ["train", "test", "train", "val", "test"]
    assert letters.classes == ("a", "b")
    assert letters.paths.tolist() == ["a/1.png", "a/2.png", "b/caf\udce9.png", "b/4.png", "loose.png"]
    np.testing.assert_array_equal(letters.keys, KEYS)
    assert (letters.layer, letters.identity) == ("penultimate", "1" * 64)
    assert letters.backbone["name"] == "lenet5"
    assert letters.dataset["root"] == "/letters"
    assert letters.source == tmp_path / "letters.h5"


def test_a_layer_is_loaded_by_its_name(tmp_path: Path) -> None:
    hidden = FeatureSet.load(write(tmp_path / "letters.h5"), "hidden")
    np.testing.assert_array_equal(hidden.features, -VECTORS[:, :2])
    assert (hidden.layer, hidden.identity) == ("hidden", "2" * 64)


def test_the_source_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "letters.h5")
    monkeypatch.chdir(tmp_path)
    assert FeatureSet.load("letters.h5").source == tmp_path / "letters.h5"


def test_features_stay_on_the_disk_when_nothing_failed(letters: FeatureSet) -> None:
    assert isinstance(letters.features, np.memmap)
    assert not letters.features.flags.writeable


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_keep_their_type(tmp_path: Path, dtype: str) -> None:
    loaded = FeatureSet.load(write(tmp_path / "f.h5", failed=(1,), dtype=dtype))
    assert loaded.features.dtype == np.dtype(dtype)


def test_failed_rows_are_left_out_of_every_column(tmp_path: Path) -> None:
    loaded = FeatureSet.load(write(tmp_path / "f.h5", failed=(0, 3)))
    assert len(loaded) == 3
    np.testing.assert_array_equal(loaded.features, VECTORS[[1, 2, 4]])
    assert loaded.labels.tolist() == [0, 1, -1]
    assert loaded.splits.tolist() == ["test", "train", "test"]
    assert loaded.paths.tolist() == ["a/2.png", "b/caf\udce9.png", "loose.png"]
    np.testing.assert_array_equal(loaded.keys, KEYS[[1, 2, 4]])


def test_a_missing_file_or_layer_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"there is no feature file .*none\.h5"):
        FeatureSet.load(tmp_path / "none.h5")
    with pytest.raises(CacheMissError, match=r"f\.h5 has no layer 'layer4', only penultimate, hidden"):
        FeatureSet.load(write(tmp_path / "f.h5"), "layer4")


def test_a_row_that_does_not_fit_its_check_is_refused_with_its_image(tmp_path: Path) -> None:
    path = write(tmp_path / "f.h5")
    data = path.read_bytes()
    path.write_bytes(data.replace(VECTORS[2].tobytes(), VECTORS[1].tobytes()))
    message = (
        r"f\.h5: 1 of 5 rows of layer penultimate does not match its checksum, the first of b/caf.\.png; "
        r"the same featx extract with --rehash"
    )
    with pytest.raises(CorruptFileError, match=message):
        FeatureSet.load(path)
    assert len(FeatureSet.load(path, "hidden")) == 5


def test_take_keeps_the_columns_together_and_the_rest_as_it_is(letters: FeatureSet) -> None:
    taken = letters.take(np.array([3, 0]))
    np.testing.assert_array_equal(taken.features, VECTORS[[3, 0]])
    assert taken.labels.tolist() == [1, 0]
    assert taken.splits.tolist() == ["val", "train"]
    assert taken.paths.tolist() == ["b/4.png", "a/1.png"]
    np.testing.assert_array_equal(taken.keys, KEYS[[3, 0]])
    assert (taken.classes, taken.identity, taken.source) == (letters.classes, letters.identity, letters.source)


@pytest.mark.parametrize(
    ("split", "paths"),
    [
        ("train", ["a/1.png", "b/caf\udce9.png"]),
        ("test", ["a/2.png"]),
        ("all", ["a/1.png", "a/2.png", "b/caf\udce9.png", "b/4.png"]),
    ],
)
def test_a_split_is_its_labelled_rows(letters: FeatureSet, split: str, paths: list[str]) -> None:
    assert letters.split(split).paths.tolist() == paths


def test_a_split_without_labelled_rows_is_an_error_that_says_what_there_is(letters: FeatureSet) -> None:
    message = "there are no labelled images in the split 'dev'; found 1 in test, 2 in train, 1 in val, 1 unlabelled"
    with pytest.raises(HeadError, match=message):
        letters.split("dev")
    with pytest.raises(HeadError, match="no labelled images in the split 'all'; found 2 unlabelled"):
        small([-1, -1], ["train", "test"]).split("all")


@pytest.mark.parametrize(
    ("splits", "held_out"),
    [
        (["train", "val", "test"], "test"),
        (["train", "val", "val"], "val"),
        (["train", "train", "test"], "test"),
    ],
)
def test_test_judges_where_there_is_one_and_else_val(splits: list[str], held_out: str) -> None:
    assert small([0, 1, 0], splits).held_out() == held_out


def test_a_split_of_unlabelled_rows_judges_nothing() -> None:
    assert small([0, 1, -1], ["train", "val", "test"]).held_out() == "val"


def test_no_split_to_judge_by_is_an_error_that_says_what_there_is() -> None:
    message = (
        r"no labelled images in test or val; found 1 in no split, 2 in train, 1 unlabelled\. Name a split in the table"
    )
    with pytest.raises(HeadError, match=message):
        small([0, 1, 0, -1], ["train", "train", "", "test"]).held_out()


def test_where_counts_labelled_rows_by_split(letters: FeatureSet) -> None:
    assert letters.describe_splits() == "found 1 in test, 2 in train, 1 in val, 1 unlabelled"
    assert small([0, 1], ["train", ""]).describe_splits() == "found 1 in no split, 1 in train"


def test_several_layers_are_side_by_side_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "f.h5", failed=(2,))
    one, other = FeatureSet.load(path, "hidden"), FeatureSet.load(path)
    both = FeatureSet.load(path, "hidden,penultimate")
    np.testing.assert_array_equal(both.features, np.hstack([one.features, other.features]))
    assert both.features.dtype == one.features.dtype
    assert both.layer == "hidden,penultimate"
    assert len({one.identity, other.identity, both.identity, FeatureSet.load(path, "penultimate,hidden").identity}) == 4
    with pytest.raises(CacheMissError, match="has no layer 'absent', only penultimate, hidden"):
        FeatureSet.load(path, "penultimate,absent")


def test_several_views_are_one_after_the_other_for_each_image(tmp_path: Path) -> None:
    backbone = load_backbone("lenet5", layers=("hidden",), views="flip", device="cpu")
    rng = np.random.default_rng(0)
    for number in range(6):
        write_image(tmp_path / "few" / "ab"[number % 2] / f"{number}.png", seed=int(rng.integers(1000)))
    path = extract(tmp_path / "few", backbone, cache=tmp_path / "cache").file
    plain, both = FeatureSet.load(path), FeatureSet.load(path, "penultimate@flip")
    mirrored = FeatureSet.load(path, "penultimate@mirrored")
    assert (plain.views, mirrored.views, both.views) == (1, 1, 2)
    assert both.features.shape == (6, 2, 84)
    assert both.width == plain.width == 84
    np.testing.assert_array_equal(both.features[:, 0], plain.features)
    np.testing.assert_array_equal(both.features[:, 1], mirrored.features)
    assert (plain.features != mirrored.features).any()
    assert len(both) == len(both.labels) == len(both.keys) == 6
    assert both.identity == backbone.identity_of("penultimate@flip") != plain.identity
    wide = FeatureSet.load(path, "hidden,penultimate@flip")
    assert wide.features.shape == (6, 2, 168)
    np.testing.assert_array_equal(wide.features[:, :, 84:], both.features)
    some = both.take(np.array([4, 1]))
    np.testing.assert_array_equal(some.features, both.features[[4, 1]])
    assert both.without_features(np.array([2])).features.shape == (1, 0)
    assert views_in(path, "penultimate") == views_in(path, "hidden,penultimate") == "flip"
    with pytest.raises(CacheMissError, match=r"has no layer 'penultimate@10crop', only penultimate, hidden, penult"):
        FeatureSet.load(path, "penultimate@10crop")


def test_a_file_without_views_is_seen_plainly(tmp_path: Path) -> None:
    path = write(tmp_path / "f.h5")
    assert views_in(path, "penultimate") == "plain"
    with pytest.raises(CacheMissError, match=r"has no layer 'penultimate@flip', .*: featx extract .* --views flip"):
        FeatureSet.load(path, "penultimate@flip")
    with pytest.raises(BackboneError, match="there are no views 'twice'"):
        FeatureSet.load(path, "penultimate@twice")


@pytest.mark.parametrize("layer", ["penultimate@flip", "hidden,penultimate", "hidden,penultimate@flip", "hidden"])
def test_what_is_too_large_for_memory_is_put_together_in_a_file_without_a_name(
    layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        write_image(tmp_path / "few" / "ab"[number % 2] / f"{number}.png", seed=number)
    (tmp_path / "few" / "a" / "4.png").write_bytes(b"none")  # a row that is left out
    backbone = load_backbone("lenet5", layers=("hidden",), views="flip", device="cpu")
    path = extract(tmp_path / "few", backbone, cache=tmp_path / "cache").file
    wanted = FeatureSet.load(path, layer).features
    assert not isinstance(wanted, np.memmap)
    monkeypatch.setattr(feature_set_module, "MOST_IN_MEMORY", wanted.nbytes - 1)
    monkeypatch.setattr(feature_set_module, "_BLOCK", 3 * wanted[0].nbytes)
    before = sorted(path.parent.iterdir())
    loaded = FeatureSet.load(path, layer)
    found = loaded.features
    assert isinstance(found, np.memmap)
    assert found.mode == "r"
    assert sorted(path.parent.iterdir()) == before
    np.testing.assert_array_equal(found, wanted)
    head = Head("ridge").fit(dataclasses.replace(loaded, splits=np.full(8, "train", dtype=object)))
    assert head.n_train_ == 8


def test_no_room_to_put_features_together_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "f.h5")
    monkeypatch.setattr(feature_set_module, "MOST_IN_MEMORY", 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"no room for 100 bytes of joined features: No space left"):
        FeatureSet.load(path, "hidden,penultimate")


# Fields given in Python

FIELDS = {
    "features": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
    "labels": [0, 1, -1],
    "splits": ["train", "test", "train"],
    "classes": ["ant", "bee"],
    "paths": ["1.png", "2.png", "3.png"],
    "keys": np.zeros((3, 16), dtype=np.uint8),
}


def test_lists_become_arrays() -> None:
    made = FeatureSet(**FIELDS, groups=["p", "", "p"])
    assert (made.features.dtype, made.labels.dtype, made.splits.dtype) == (np.float32, np.int64, object)
    assert (made.classes, made.held_out()) == (("ant", "bee"), "test")
    assert made.split("train").paths.tolist() == ["1.png"]
    assert made.take(np.array([2])).groups.tolist() == ["p"]


@pytest.mark.parametrize(
    "labels",
    [[0.0, 1.0, -1.0], [0.0, 1.0, float("nan")], np.array([0, 1, -1], dtype=np.int8), np.array([0, 1, np.nan], dtype="f4")],
    ids=["floats", "NaN", "int8", "float32"],
)  # fmt: skip
def test_whole_floats_are_integers_and_nan_is_no_label(labels: object) -> None:
    made = FeatureSet(**{**FIELDS, "labels": labels})
    assert (made.labels.tolist(), made.labels.dtype) == ([0, 1, -1], np.int64)


def test_arrays_are_not_copied(letters: FeatureSet) -> None:
    assert isinstance(letters.features, np.memmap)
    assert dataclasses.replace(letters, layer="other").features is letters.features


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0.5, 1.0, 0.0]}, r"labels are floats such as 0\.5; expected one index .* Head\(task='regression'\)"),
        ({"labels": ["ant", "bee", "ant"]}, r"such as 'ant'; expected one index of the 2 classes .* np\.unique\(names"),
        ({"labels": [[0, 1], [1, 0], [0, 0]]}, r"labels are \(3, 2\) of int64; .* such as cat\|dog"),
        ({"labels": [[0], [1, 0], []]}, "labels are no array"),
        ({"labels": [0, 1, 2]}, r"labels are 0 to 2; expected one index of the 2 classes for each image, or -1 for none"),
        ({"labels": [0, 1, -2]}, r"labels are -2 to 1; expected"),
        ({"labels": [0, 1]}, r"one of each per image; found features: 3, labels: 2, keys: 3, splits: 3, paths: 3"),
        ({"features": [1.0, 2.0, 3.0]}, r"features are \(3,\) of float32; expected \(N, D\) numbers"),
        ({"features": [["a"], ["b"], ["c"]]}, r"features are \(3, 1\) of <U1; expected"),
        ({"classes": "ab"}, r"classes are 'ab'; expected a tuple of names"),
        ({"classes": (0, 1)}, r"classes hold 0, 1; expected names, as str"),
        ({"splits": "train"}, r"splits are 'train'; expected one name for each image"),
        ({"keys": np.zeros((3, 16))}, r"keys are \(3, 16\) of float64; expected \(N, 16\) of uint8"),
    ],
)  # fmt: skip
def test_a_field_of_another_shape_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        FeatureSet(**{**FIELDS, **changes})


# Only train


@pytest.mark.parametrize(
    ("paths", "dataset", "hint"),
    [
        (["train/a/1.png", "train/b/2.png"], {}, r"\. To have them split, run featx extract /photos/train$"),
        (
            ["d/train_set/a/1.png", "d/train_set/b/2.png"],
            {},
            r"\. To have them split, run featx extract /photos/d/train_set$",
        ),
        (
            ["1.png", "2.png"],
            {"table": "/photos/t.csv"},
            r"\. To have them split, run featx extract on /photos/t\.csv without the column split$",
        ),
        (["train_1/a/1.png", "train_2/b/2.png"], {}, "a data set that names none$"),
    ],
)
def test_where_all_labelled_images_are_in_train_the_error_names_how_to_split_them(
    paths: list[str], dataset: dict[str, str], hint: str
) -> None:
    made = dataclasses.replace(
        small([0, 1], ["train", "train"]), paths=np.array(paths, dtype=object), source=Path("x.h5")
    )
    made = dataclasses.replace(made, dataset={"root": "/photos", **dataset})
    with pytest.raises(HeadError, match=hint):
        made.held_out()
