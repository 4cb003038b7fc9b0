"""An unchanged data set costs nothing, and each change costs the forward passes of new images only."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extractions import (
    MakeImage,
    add,
    add_copy,
    assert_own_features,
    change_content,
    change_everything,
    change_within_the_same_nanosecond,
    counts,
    delete,
    relabel,
    rename,
    rename_class,
    split,
    swap,
    touch,
)

from featx.backbones.backbone import Backbone
from featx.data.decode import MAX_PIXELS
from featx.data.scan import scan_images
from featx.data.splits import hash_splits
from featx.errors import CorruptFileError
from featx.extraction import unchanged
from featx.extraction.inventory import Inventory, take_inventory
from featx.extraction.pipeline import extract
from featx.extraction.request import Request
from featx.extraction.result import Extraction
from featx.extraction.unchanged import CHECKS, is_unchanged
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.features.writer import FeatureFileWriter


def test_a_second_run_computes_nothing_and_opens_no_image(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], opened: Callable[[], list[str]]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    assert opened() == ["0.png", "1.png", "2.png", "3.png"]
    before = first.file.read_bytes()
    encoded.clear()
    second = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(second) == (8, 0, 8, 0, 0)
    assert encoded == []
    assert opened() == []
    assert second.file == first.file
    assert first.file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (rename, (8, 0, 8, 0, 0)),
        (relabel, (8, 0, 8, 0, 0)),
        (rename_class, (8, 0, 8, 0, 0)),
        (add_copy, (9, 0, 9, 0, 0)),
        (touch, (8, 0, 8, 0, 0)),
        (swap, (8, 0, 8, 0, 0)),
        (split, (8, 0, 8, 0, 0)),
        (add, (9, 1, 8, 0, 0)),
        (change_content, (8, 1, 7, 0, 1)),
        (change_within_the_same_nanosecond, (8, 1, 7, 0, 1)),
        (delete, (7, 0, 7, 0, 1)),
        (change_everything, (8, 2, 6, 0, 2)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_changed_data_set_costs_the_forward_passes_of_its_new_bytes_alone(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    encoded: list[int],
    make_image: MakeImage,
    change: Callable[[Path, MakeImage], None],
    expected: tuple[int, int, int, int, int],
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    encoded.clear()
    change(few, make_image)
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(result) == expected
    assert sum(encoded) == result.computed
    assert result.file == first.file
    fresh = scan_images(few)
    features = result.load()
    assert features.paths.tolist() == fresh.paths.tolist()
    assert features.labels.tolist() == fresh.labels.tolist()
    assert features.classes == fresh.classes
    assert_own_features(result, lenet, few)
    encoded.clear()
    assert counts(extract(few, lenet, cache=tmp_path / "cache"))[1:] == (0, len(fresh), 0, 0)
    assert encoded == []


@pytest.mark.parametrize(
    ("labels", "splits"),
    [("abababab", "rrttrrtt"), ("aaaabbbb", "rtrtrtrt"), ("aaaacccc", "rrttrrtt"), ("aaaabbbb", "        ")],
    ids=["labels", "splits", "classes", "no splits"],
)
def test_new_splits_and_labels_in_a_table_open_no_image(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    encoded: list[int],
    opened: Callable[[], list[str]],
    labels: str,
    splits: str,
) -> None:
    paths = sorted(path.relative_to(few).as_posix() for path in few.rglob("*.png"))
    table = few / "table.csv"

    def run(labels: str, splits: str) -> FeatureSet:
        names = {"r": "train", "t": "test", " ": ""}
        rows = [f"{path},{label},{names[split]}" for path, label, split in zip(paths, labels, splits, strict=True)]
        table.write_text("\n".join(["path,label,split", *rows]))
        return extract(table, lenet, cache=tmp_path / "cache").load()

    run("aaaabbbb", "rrttrrtt")
    encoded.clear()
    opened()
    features = run(labels, splits)
    assert "".join(features.classes[label] for label in features.labels) == labels
    if splits.strip():
        assert "".join({"train": "r", "test": "t"}[split] for split in features.splits) == splits
    else:
        np.testing.assert_array_equal(features.splits, hash_splits(features.keys, features.labels))
    assert (encoded, opened()) == ([], [])


def test_a_touched_image_is_the_only_one_that_is_opened(
    few: Path, tmp_path: Path, lenet: Backbone, opened: Callable[[], list[str]]
) -> None:
    extract(few, lenet, cache=tmp_path / "cache")
    opened()
    os.utime(few / "light" / "2.png", (1, 1))
    extract(few, lenet, cache=tmp_path / "cache")
    assert opened() == ["2.png"]


def without_table(result: Extraction) -> FeatureSet:
    """Write the file of an extraction again as it was before files stored the path of a table, and load it."""
    file = FeatureFile(result.file)
    writer = FeatureFileWriter(
        result.file,
        images=file.images,
        classes=file.classes,
        layers={name: (layer.dim, layer.identity) for name, layer in file.layers.items()},
        dtype="float32",
        identity=file.identity,
        backbone=file.backbone,
        dataset={name: value for name, value in file.dataset.items() if name != "table"},
    )
    writer.publish()
    writer.write(np.arange(len(file)), file.keys, {name: file.features(name) for name in file.layers})
    writer.finish()
    return result.load()


def test_a_file_made_before_tables_were_remembered_is_laid_out_anew_without_opening_an_image(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    encoded: list[int],
    opened: Callable[[], list[str]],
) -> None:
    paths = sorted(path.relative_to(few).as_posix() for path in few.rglob("*.png"))
    table = few / "table.csv"
    table.write_text("\n".join(["path,label", *(f"{path},{path[:4]}" for path in paths)]))
    old = without_table(extract(table, lenet, cache=tmp_path / "cache"))
    assert "table" not in old.dataset
    encoded.clear()
    opened()
    result = extract(table, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 0, 8, 0, 0)
    assert (encoded, opened()) == ([], [])
    new = result.load()
    assert new.source == old.source
    assert new.dataset == {**old.dataset, "table": str(table.resolve())}
    np.testing.assert_array_equal(new.features, old.features)
    np.testing.assert_array_equal(new.splits, old.splits)


def test_an_image_above_the_limit_fails_until_the_limit_is_raised(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, encoded: list[int]
) -> None:
    make_image(few / "dark" / "large.png", seed=7, size=(60, 60))
    first = extract(few, lenet, cache=tmp_path / "cache", max_pixels=3599)
    assert counts(first) == (9, 8, 0, 1, 0)
    assert first.failures == (("dark/large.png", "60 x 60 pixels; at most 3,599 are read (--max-pixels)"),)
    encoded.clear()
    assert counts(extract(few, lenet, cache=tmp_path / "cache", max_pixels=3599)) == (9, 0, 8, 1, 0)
    result = extract(few, lenet, cache=tmp_path / "cache", max_pixels=3600)
    assert counts(result) == (9, 1, 8, 0, 0)
    inode = result.file.stat().st_ino
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (9, 0, 9, 0, 0)
    assert result.file.stat().st_ino == inode  # a limit that nothing fails under makes no new file


# With rehash


def test_rehash_finds_what_no_time_stamp_tells(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, encoded: list[int]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    path = few / "dark" / "1.png"
    before, old = path.stat(), path.read_bytes()
    make_image(path, seed=999)
    path.write_bytes(path.read_bytes().ljust(len(old), b"\0")[: max(len(old), len(path.read_bytes()))])
    if path.stat().st_size != before.st_size:
        path.write_bytes(make_image(tmp_path / "tiny.png", seed=5, size=(4, 4)).read_bytes().ljust(len(old), b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    encoded.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unchanged, "unaltered", lambda _file, rows, _marks: np.ones(len(rows), dtype=bool))
        assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)  # nothing tells it
    result = extract(few, lenet, cache=tmp_path / "cache", rehash=True)
    assert counts(result) == (8, 1, 7, 0, 1)
    assert sum(encoded) == 1
    assert_own_features(result, lenet, few)
    assert result.file == first.file


def test_rehash_of_what_has_not_changed_writes_nothing(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], opened: Callable[[], list[str]]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    inode = first.file.stat().st_ino
    encoded.clear()
    opened()
    assert counts(extract(few, lenet, cache=tmp_path / "cache", rehash=True)) == (8, 0, 8, 0, 0)
    assert opened() == ["0.png", "1.png", "2.png", "3.png"]
    assert encoded == []
    assert first.file.stat().st_ino == inode


def test_rehash_computes_a_row_that_does_not_fit_its_check(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    file = FeatureFile(extract(few, lenet, out=tmp_path / "f.h5").file)
    whole = file.path.read_bytes()
    with file.path.open("r+b") as raw:
        raw.seek(file.layers["penultimate"].offset + 2 * 84 * 4)
        raw.write(b"\xff")
    with pytest.raises(
        CorruptFileError, match=r"1 of 8 rows .* the same featx extract with --rehash computes what is damaged"
    ):
        FeatureSet.load(file.path)
    assert counts(extract(few, lenet, out=file.path)) == (8, 0, 8, 0, 0)  # features are not read
    assert counts(extract(few, lenet, out=file.path, rehash=True)) == (8, 1, 7, 0, 0)
    assert file.path.read_bytes() == whole


# Each check by itself


def _with(inventory: Inventory, **images: Any) -> Inventory:
    """The same inventory of a data set in which something differs."""
    request = inventory.request
    return dataclasses.replace(
        inventory, request=dataclasses.replace(request, images=dataclasses.replace(request.images, **images))
    )


def _larger(inventory: Inventory) -> Inventory:
    return dataclasses.replace(inventory, sizes=inventory.sizes + 1)


def _later(inventory: Inventory) -> Inventory:
    return dataclasses.replace(inventory, mtimes=inventory.mtimes + 1)


def _relabelled(inventory: Inventory) -> Inventory:
    return _with(inventory, labels=1 - inventory.images.labels)


def _renamed(inventory: Inventory) -> Inventory:
    return _with(inventory, paths=np.array([f"x{path}" for path in inventory.images.paths], dtype=object))


def _in_splits(inventory: Inventory) -> Inventory:
    return _with(inventory, splits=np.array(["other"] * len(inventory.images), dtype=object))


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (_larger, {"has_same_sizes"}),
        (_later, {"has_same_times"}),
        (_relabelled, {"has_same_labels"}),
        (_renamed, {"has_same_paths"}),
        (_in_splits, {"has_same_splits", "has_same_dataset"}),
        (lambda inventory: _with(inventory, classes=("dark", "bright")), {"has_same_classes"}),
        (lambda inventory: _with(inventory, name="other"), {"has_same_dataset"}),
        (lambda inventory: inventory, set()),
    ],
)
def test_each_check_finds_its_own_change_and_no_other(
    few: Path, tmp_path: Path, lenet: Backbone, change: Callable[[Inventory], Inventory], failing: set[str]
) -> None:
    extract(few, lenet, out=tmp_path / "f.h5")
    request = Request(
        images=scan_images(few),
        backbone=lenet,
        cache=tmp_path,
        out=tmp_path / "f.h5",
        compute="auto",
        batch_size=None,
        workers=1,
        rehash=False,
        strict=False,
        max_pixels=MAX_PIXELS,
    )
    inventory = change(take_inventory(request))
    file = inventory.earlier
    assert file is not None
    assert {check.__name__ for check in CHECKS if not check(inventory, file)} == failing
    assert is_unchanged(inventory) is not bool(failing)
    assert is_unchanged(inventory, file.keys) is not bool(failing)
    assert not is_unchanged(inventory, 255 - file.keys)
