"""Swapped and replaced images of equal size and modification time are noticed, and what only looks changed costs no pass."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from extractions import assert_own_features, counts, interrupt
from PIL import Image

from featx.backbones.backbone import Backbone, load_backbone
from featx.data import file_bytes, store
from featx.data.scan import scan_images
from featx.errors import OutputError
from featx.extraction import one_file
from featx.extraction.pipeline import extract
from featx.features import file_marks
from featx.features.feature_file import FeatureFile
from featx.features.file_marks import recorded_marks

LONG_AGO = 10**18
"""A modification time (ns)."""


@pytest.fixture
def twins(tmp_path: Path, own_home: Path) -> Path:
    """Eight images of equal size and modification time, in two folders."""
    folder = tmp_path / "twins"
    for number in range(8):
        path = folder / ("cats", "dogs")[number // 4] / f"{number % 4}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, number)
    return folder


def draw(path: Path, seed: int) -> None:
    """Write an image whose size and modification time are those of all others."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def exchange(one: Path, other: Path) -> None:
    aside = one.parent.parent / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all images that are opened, relative to the folder above theirs."""
    paths: list[str] = []
    plain = store.read_file

    def noted(path: Path, *more: Callable[[int], None]) -> file_bytes.FileBytes:
        paths.append(f"{path.parent.name}/{path.name}")
        return plain(path, *more)

    monkeypatch.setattr(store, "read_file", noted)
    return paths


def in_one_folder(folder: Path) -> None:
    exchange(folder / "cats" / "1.bmp", folder / "cats" / "2.bmp")


def across_classes(folder: Path) -> None:
    exchange(folder / "cats" / "1.bmp", folder / "dogs" / "2.bmp")


def whole_folders(folder: Path) -> None:
    exchange(folder / "cats", folder / "dogs")


def whole_folders_with_a_copy_added(folder: Path) -> None:
    exchange(folder / "cats", folder / "dogs")
    shutil.copy(folder / "cats" / "3.bmp", folder / "cats" / "9.bmp")


def an_image_in_place(folder: Path) -> None:
    old = (folder / "cats" / "0.bmp").read_bytes()
    (folder / "cats" / "0.bmp").write_bytes((folder / "dogs" / "0.bmp").read_bytes())
    (folder / "dogs" / "0.bmp").write_bytes(old)
    for path in (folder / "cats" / "0.bmp", folder / "dogs" / "0.bmp"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))


def by_copies_that_keep_times(folder: Path) -> None:
    shutil.copy2(folder / "cats" / "0.bmp", folder / "aside")
    shutil.copy2(folder / "dogs" / "0.bmp", folder / "cats" / "0.bmp")
    shutil.copy2(folder / "aside", folder / "dogs" / "0.bmp")
    (folder / "aside").unlink()


def by_hard_links(folder: Path) -> None:
    os.link(folder / "dogs" / "3.bmp", folder / "aside")
    (folder / "aside").replace(folder / "cats" / "3.bmp")


def by_links(folder: Path) -> None:
    (folder / "cats" / "3.bmp").rename(folder.parent / "away.bmp")
    (folder / "cats" / "3.bmp").symlink_to(folder / "dogs" / "2.bmp")


CHANGES = (
    in_one_folder,
    across_classes,
    whole_folders,
    whole_folders_with_a_copy_added,
    an_image_in_place,
    by_copies_that_keep_times,
    by_hard_links,
    by_links,
)


@pytest.mark.parametrize(
    ("change", "recorded"),
    [
        *((change, True) for change in CHANGES),
        *((change, False) for change in CHANGES if change is not whole_folders_with_a_copy_added),
    ],
    ids=lambda value: value.__name__ if callable(value) else "" if value else "without a record",
)
def test_swapped_images_of_equal_size_and_time_keep_their_own_features(
    twins: Path, tmp_path: Path, lenet: Backbone, own_home: Path, change: Callable[[Path], None], recorded: bool
) -> None:
    first = extract(twins, lenet, cache=tmp_path / "cache")
    if not recorded:
        shutil.rmtree(own_home / "marks")
    change(twins)
    result = extract(twins, lenet, cache=tmp_path / "cache")
    assert (result.computed, result.failed) == (0, 0)
    assert result.file == first.file
    assert_own_features(result, lenet, twins)


def test_links_that_lead_elsewhere_are_noticed(twins: Path, tmp_path: Path, lenet: Backbone) -> None:
    store = twins.rename(tmp_path / "store")
    (tmp_path / "now").symlink_to("store/cats")
    for name in "0123":
        (tmp_path / "twins" / "kind").mkdir(parents=True, exist_ok=True)
        (tmp_path / "twins" / "kind" / f"{name}.bmp").symlink_to(tmp_path / "now" / f"{name}.bmp")
    extract(twins, lenet, cache=tmp_path / "cache")
    (tmp_path / "now").unlink()
    (tmp_path / "now").symlink_to(store / "dogs")
    result = extract(twins, lenet, cache=tmp_path / "cache")
    assert counts(result) == (4, 4, 0, 0, 4)
    assert_own_features(result, lenet, twins)


def test_a_replaced_image_is_the_only_one_that_is_computed(
    twins: Path, tmp_path: Path, lenet: Backbone, read: list[str]
) -> None:
    extract(twins, lenet, cache=tmp_path / "cache")
    draw(twins / "cats" / "2.bmp", 99)
    read.clear()
    result = extract(twins, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 1, 7, 0, 1)
    assert set(read) == {"cats/2.bmp"}
    assert_own_features(result, lenet, twins)


def change_mode(folder: Path) -> None:
    for path in folder.rglob("*.bmp"):
        path.chmod(0o600)


def restore(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "backup")
    shutil.rmtree(folder)
    shutil.move(folder.parent / "backup", folder)


def rename_and_back(folder: Path) -> None:
    for path in folder.rglob("*.bmp"):
        path.rename(path.with_suffix(".aside")).rename(path)


@pytest.mark.parametrize("change", [change_mode, restore, rename_and_back], ids=lambda change: change.__name__)
@pytest.mark.parametrize("recorded", [True, False], ids=["", "without a record"])
def test_the_same_bytes_are_hashed_once_and_then_not_opened_again(
    twins: Path,
    tmp_path: Path,
    lenet: Backbone,
    own_home: Path,
    read: list[str],
    encoded: list[int],
    change: Callable[[Path], None],
    recorded: bool,
) -> None:
    first = extract(twins, lenet, cache=tmp_path / "cache")
    if not recorded:
        shutil.rmtree(own_home / "marks")
    inode = first.file.stat().st_ino
    change(twins)
    read.clear()
    encoded.clear()
    assert counts(extract(twins, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    assert sorted(read) == sorted(f"{kind}/{number}.bmp" for kind in ("cats", "dogs") for number in range(4))
    read.clear()
    assert counts(extract(twins, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    assert (read, encoded) == ([], [])
    assert first.file.stat().st_ino == inode  # it is not written again


@pytest.mark.parametrize("keep_times", [True, False])
def test_a_file_without_a_record_is_trusted_where_its_images_are_older(
    twins: Path, tmp_path: Path, lenet: Backbone, own_home: Path, read: list[str], keep_times: bool
) -> None:
    first = extract(twins, lenet, cache=tmp_path / "cache")
    (shutil.copy2 if keep_times else shutil.copy)(first.file, tmp_path / "copy.h5")
    shutil.rmtree(own_home)
    read.clear()
    assert counts(extract(twins, lenet, out=tmp_path / "copy.h5")) == (8, 0, 8, 0, 0)
    assert read == []
    assert recorded_marks(FeatureFile(tmp_path / "copy.h5"))  # from now on there is one


def test_where_no_record_can_be_kept_images_are_hashed_once_all_the_same(
    twins: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    (tmp_path / "taken").write_text("no folder")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "taken"))
    extract(twins, lenet, cache=tmp_path / "cache")
    change_mode(twins)
    for expected in (8, 0):
        read.clear()
        assert counts(extract(twins, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
        assert len(read) == expected


def marked(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, int], tuple[int, int]]) -> None:
    """Pass the change time and the inode number of every file through a function."""
    plain = file_bytes.file_marks
    monkeypatch.setattr(file_bytes, "file_marks", lambda found: change(*plain(found)))


def test_images_with_later_change_times_need_no_permission_to_write_where_their_bytes_are_the_same(
    twins: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    def denied(*_: object, **__: object) -> NoReturn:
        raise OutputError("the folder cannot be written")

    extract(twins, lenet, cache=tmp_path / "cache")
    monkeypatch.setattr(one_file, "write_lock", denied)
    change_mode(twins)
    for expected in (8, 0):
        read.clear()
        assert counts(extract(twins, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
        assert len(read) == expected
    across_classes(twins)
    with pytest.raises(OutputError, match="the folder cannot be written"):
        extract(twins, lenet, cache=tmp_path / "cache")


def test_no_image_is_read_twice_where_one_of_them_was_replaced(
    twins: Path, tmp_path: Path, lenet: Backbone, read: list[str]
) -> None:
    extract(twins, lenet, cache=tmp_path / "cache")
    restore(twins)
    across_classes(twins)
    read.clear()
    result = extract(twins, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 0, 8, 0, 0)
    assert len(read) == 8
    assert_own_features(result, lenet, twins)


def test_change_times_in_the_future_are_compared_as_they_are(
    twins: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    marked(monkeypatch, lambda ctime, inode: (ctime + 10**15, inode))
    extract(twins, lenet, cache=tmp_path / "cache")
    read.clear()
    assert counts(extract(twins, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    assert read == []
    across_classes(twins)
    assert_own_features(extract(twins, lenet, cache=tmp_path / "cache"), lenet, twins)
    assert sorted(set(read)) == ["cats/1.bmp", "dogs/2.bmp"]


def test_inode_numbers_that_change_by_themselves_are_compared_once(
    twins: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    mounts = 0
    marked(monkeypatch, lambda ctime, inode: (ctime, inode + 10**6 * mounts))
    extract(twins, lenet, cache=tmp_path / "cache")
    for expected in (8, 0, 0):
        read.clear()
        mounts += 1
        assert counts(extract(twins, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
        assert len(read) == expected
    draw(twins / "cats" / "new.bmp", 50)
    for opened in ({"cats/new.bmp"}, set[str]()):
        read.clear()
        mounts += 1
        assert_own_features(extract(twins, lenet, cache=tmp_path / "cache"), lenet, twins)
        assert set(read) == opened


def test_swaps_between_an_interrupted_run_and_the_next_ones_are_noticed(
    twins: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    def stopped(after: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, after=after)
            with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
                extract(twins, lenet, cache=tmp_path / "cache", batch_size=2)

    stopped(2)  # the four cats are done
    exchange(twins / "cats" / "0.bmp", twins / "dogs" / "1.bmp")
    exchange(twins / "cats" / "2.bmp", twins / "cats" / "3.bmp")
    stopped(0)
    exchange(twins / "cats" / "1.bmp", twins / "dogs" / "2.bmp")
    encoded.clear()
    result = extract(twins, lenet, cache=tmp_path / "cache", batch_size=2)
    assert counts(result) == (8, 4, 4, 0, 0)
    assert sum(encoded) == 4
    assert_own_features(result, lenet, twins)


@pytest.mark.parametrize("change", [change_mode, rename_and_back], ids=lambda change: change.__name__)
def test_a_run_is_continued_in_place_where_the_bytes_are_the_same(
    twins: Path, tmp_path: Path, lenet: Backbone, read: list[str], change: Callable[[Path], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(twins, lenet, out=tmp_path / "f.h5", batch_size=2)
    inode = (tmp_path / "f.h5.partial").stat().st_ino
    change(twins)
    read.clear()
    assert counts(extract(twins, lenet, out=tmp_path / "f.h5", batch_size=2)) == (8, 4, 4, 0, 0)
    assert len(read) == 8
    assert (tmp_path / "f.h5").stat().st_ino == inode
    read.clear()
    assert counts(extract(twins, lenet, out=tmp_path / "f.h5")) == (8, 0, 8, 0, 0)
    assert read == []


def test_a_run_that_is_continued_opens_no_image_that_is_done(
    twins: Path, tmp_path: Path, lenet: Backbone, read: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(twins, lenet, cache=tmp_path / "cache", batch_size=2)
    read.clear()
    extract(twins, lenet, cache=tmp_path / "cache", batch_size=2)
    assert set(read) == {f"dogs/{number}.bmp" for number in range(4)}


def test_images_of_a_table_are_noticed_too(twins: Path, tmp_path: Path, lenet: Backbone) -> None:
    table = tmp_path / "table.csv"
    names = [f"twins/{kind}/{number}.bmp" for kind in ("cats", "dogs") for number in range(4)]
    table.write_text("\n".join(["path,label", *(f"{name},{name[6:10]}" for name in names)]))
    extract(table, lenet, cache=tmp_path / "cache")
    across_classes(twins)
    result = extract(table, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 0, 8, 0, 0)
    assert_own_features(result, lenet, Path(scan_images(table).root))


def test_another_network_of_the_same_folder_has_a_record_of_its_own(
    twins: Path, tmp_path: Path, lenet: Backbone
) -> None:
    other = load_backbone("lenet5", weights="random", device="cpu")
    extract(twins, lenet, out=tmp_path / "cache" / "a.h5")
    across_classes(twins)
    extract(twins, other, out=tmp_path / "cache" / "b.h5")
    assert_own_features(extract(twins, lenet, out=tmp_path / "cache" / "a.h5"), lenet, twins)
    assert_own_features(extract(twins, lenet, out=tmp_path / "cache" / "c.h5"), lenet, twins)


def test_a_record_that_is_damaged_or_of_other_content_counts_for_nothing(
    twins: Path, tmp_path: Path, lenet: Backbone, own_home: Path
) -> None:
    file = FeatureFile(extract(twins, lenet, cache=tmp_path / "cache").file)
    (record,) = (own_home / "marks").iterdir()
    data = record.read_bytes()
    marks = recorded_marks(file)
    assert marks is not None
    assert (marks.ctimes > LONG_AGO).all()
    assert (marks.inodes > 0).all()
    for wrong in (b"", data[:70], data[:-16], data + bytes(16), b"0" * 64 + data[64:]):
        record.write_bytes(wrong)
        assert recorded_marks(file) is None
        assert counts(extract(twins, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
        assert record.read_bytes() == data  # written again


def test_the_oldest_records_are_dropped(
    twins: Path, tmp_path: Path, lenet: Backbone, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_marks, "_MOST_RECORDS", 2)
    files = [extract(twins, lenet, out=tmp_path / f"{number}.h5").file for number in range(4)]
    assert len(list((own_home / "marks").iterdir())) == 2
    assert recorded_marks(FeatureFile(files[3]))
    assert recorded_marks(FeatureFile(files[0])) is None
