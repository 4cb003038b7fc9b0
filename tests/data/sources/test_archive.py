"""Archives of folders of images."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archives import PETS, make_any, make_tar, make_zip
from listings import label_names, touch

from featx.data.file_bytes import facts_of
from featx.data.image_set import ImageSet
from featx.data.openers import open_store, store_exists
from featx.data.scan import list_images, scan_images
from featx.data.sources import archive_file, archive_store, index_files, tar_passes, unpacked
from featx.data.sources.archive_index import Member
from featx.data.sources.tar_passes import TarPasses
from featx.errors import DatasetError, ImageError

NAMES = ["pets.zip", "pets.tar", "pets.tar.gz", "pets.tgz", "pets.tar.bz2", "pets.tar.xz"]


def read_all(images: ImageSet) -> dict[str, bytes]:
    return {str(path): images.file(row).read().data for row, path in enumerate(images.paths)}


# Layouts


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_of_classes_is_read_as_the_folder_would_be(tmp_path: Path, name: str) -> None:
    images = scan_images(make_any(tmp_path / name, PETS))
    assert images.name == "pets"
    assert images.root == str(tmp_path / name)
    assert images.paths.tolist() == sorted(PETS)
    assert label_names(images) == ["cat"] * 3 + ["dog"] * 3
    assert images.splits.tolist() == [""] * 6
    assert images.notes == ()
    assert read_all(images) == PETS


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_around_the_splits_is_passed_over_and_junk_is_left_out(tmp_path: Path, name: str) -> None:
    files = {
        "data/train/cat/1.jpg": b"1",
        "data/val/cat/2.jpg": b"2",
        "__MACOSX/data/train/cat/._1.jpg": b"fork",
        "data/.DS_Store": b"junk",
        "data/train/Thumbs.db": b"junk",
    }
    images = scan_images(make_any(tmp_path / name, files))
    assert images.paths.tolist() == ["data/train/cat/1.jpg", "data/val/cat/2.jpg"]
    assert images.splits.tolist() == ["train", "val"]
    assert images.notes[:2] == (
        f"{name}: 3 left out (1 hidden file, 1 in hidden folders, 1 with the ending .db)",
        f"{name}: data/train is read as the split train, data/val as val",
    )


def test_a_class_without_images_is_noted(tmp_path: Path) -> None:
    folder = touch(tmp_path / "pets", "cat/1.jpg", "dog/1.jpg")
    (folder / "bird").mkdir()
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(folder, ".")
    assert scan_images(tmp_path / "pets.tar").notes == (
        f"class 'bird' has no images: {tmp_path / 'pets.tar' / 'bird'}",
    )


def test_several_archives_are_folders_of_their_names(tmp_path: Path) -> None:
    make_zip(tmp_path / "train.zip", PETS)
    make_zip(tmp_path / "test.zip", {"cat/9.jpg": b"9", "dog/9.jpg": b"8"})
    images = scan_images(tmp_path)
    assert images.root == f"{tmp_path}/**/*.zip"
    assert images.paths.tolist()[0] == "test.zip/cat/9.jpg"
    assert set(zip(images.splits, label_names(images), strict=True)) == {
        ("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog"),
    }  # fmt: skip
    assert f"{tmp_path.name}: each archive is read as a folder of its name" in images.notes
    assert open_store(images.root).read("train.zip/dog/2.jpg").data == b"dog 2"
    assert open_store(images.root).name("train.zip/dog/2.jpg") == f"{tmp_path}/train.zip/dog/2.jpg"


def test_archives_of_several_kinds_in_a_folder_are_found_again(tmp_path: Path) -> None:
    make_zip(tmp_path / "pets/train.zip", PETS)
    make_tar(tmp_path / "pets/test.tar.gz", PETS, "gz")
    images = scan_images(tmp_path / "pets")
    assert sorted(set(images.splits)) == ["test", "train"]
    assert open_store(images.root).read("test.tar.gz/cat/1.jpg").data == b"cat 1"


def test_names_that_a_shell_has_spelled_out_are_one_data_set(tmp_path: Path) -> None:
    for number in range(8, 12):
        make_zip(tmp_path / f"part-{number:03}.zip", {f"{c}/{number}.jpg": c.encode() for c in ("cat", "dog")})
    make_tar(tmp_path / "other/test.tar", PETS)
    parts = [tmp_path / f"part-{number:03}.zip" for number in range(8, 12)]
    images = scan_images(parts)
    assert images.root == f"{tmp_path}/part-{{008..011}}.zip" == scan_images(f"{tmp_path}/part-{{008..011}}.zip").root
    assert images.classes == ("cat", "dog")
    for items in ([parts[0], parts[2]], [parts[0], tmp_path / "other/test.tar"]):
        images = scan_images(items)
        path = str(images.paths[-1])
        assert open_store(images.root).read(path).data == images.file(len(images) - 1).read().data
    assert images.paths[0] == "other/test.tar/cat/0.jpg"
    with pytest.raises(DatasetError, match="have no common pattern; name their folder"):
        scan_images([parts[0], make_zip(tmp_path / "a,b.zip", PETS)])


def test_an_archive_for_each_class_is_a_class(tmp_path: Path) -> None:
    for name in ("n01440764", "n01443537", "n02102040"):
        make_tar(tmp_path / "train" / f"{name}.tar", {f"{name}_{n}.JPEG": name.encode() for n in range(2)})
    images = scan_images(tmp_path / "train")
    assert images.classes == ("n01440764", "n01443537", "n02102040")
    assert images.paths[0] == "n01440764.tar/n01440764_0.JPEG"


def test_archives_numbered_one_after_another_are_parts_of_one_data_set(tmp_path: Path) -> None:
    for number in range(3):
        make_tar(tmp_path / f"images_{number:03}.tar.gz", {f"images/{number}{n}.png": b"x" for n in range(2)}, "gz")
    images = scan_images(tmp_path)
    assert len(images) == 6
    assert images.classes == ()
    assert "are read as parts of one data set" in images.notes[0]


def test_a_folder_with_images_is_no_folder_of_archives(tmp_path: Path) -> None:
    make_zip(touch(tmp_path / "pets", "cat/1.jpg", "dog/1.jpg") / "old.zip", PETS)
    images = scan_images(tmp_path / "pets")
    assert images.root == str(tmp_path / "pets")
    assert images.notes == ("pets: 1 left out (1 with the ending .zip)",)


def test_archives_in_an_archive_are_left_out_and_said(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", PETS).read_bytes()
    images = scan_images(make_zip(tmp_path / "outer.zip", {"a/1.jpg": b"1", "b/1.jpg": b"2", "more.zip": inner}))
    assert images.notes == ("outer.zip: 1 left out (1 archive in the archive, which is not opened)",)


def test_an_option_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"--label-column has no effect on .*pets.zip, which is an archive of folders"
    ):
        scan_images(make_zip(tmp_path / "pets.zip", PETS), label_column="species")


def test_classes_in_file_names_work_in_archives(tmp_path: Path) -> None:
    files = {f"train/{label}.{n}.jpg": b"x" for label in ("cat", "dog") for n in range(2)}
    images = scan_images(make_zip(tmp_path / "kaggle.zip", files), label_pattern=r"(?P<label>\w+?)\.\d+")
    assert images.classes == ("cat", "dog")


def test_a_file_is_read_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    make_tar(tmp_path / "pets.tar", PETS, "gz")
    make_tar(tmp_path / "pets.zip", PETS)
    assert read_all(scan_images(tmp_path / "pets.tar")) == read_all(scan_images(tmp_path / "pets.zip")) == PETS


def test_to_predict_images_are_listed_as_they_are_stored(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "pets.tar", list(reversed(PETS.items())))
    assert [file.path for file in list_images(path)] == list(reversed(PETS))


# Names


def test_names_in_any_encoding_survive(tmp_path: Path) -> None:
    names = [b"caf\xc3\xa9/1.jpg", b"caf\xe9/2.jpg", b"a b/new\nline.jpg", "鳥/3.jpg".encode()]
    folder = tmp_path / "odd"
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        archive.add(folder, ".")
    from_folder, from_tar = scan_images(folder), scan_images(tmp_path / "odd.tar")
    assert from_tar.paths.tolist() == from_folder.paths.tolist()
    assert from_tar.classes == from_folder.classes
    assert [from_tar.file(row).read().data for row in range(4)] == sorted(names)


def test_names_of_a_zip_are_utf_8_or_those_of_code_page_437(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "names.zip", {"x1/1.jpg": b"1", "x2/2.jpg": b"2", "ü/3.jpg": b"3"})
    data = path.read_bytes().replace(b"x1", b"\x81b").replace(b"x2", "é".encode())
    path.write_bytes(data)
    assert scan_images(path).classes == ("é", "ü", "üb")


def test_a_name_that_is_marked_as_utf_8_and_is_not_costs_nothing_else(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "names.zip", {"ü/3.jpg": b"3", "cat/1.jpg": b"1"})
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xfe"))
    assert read_all(scan_images(path)) == {"cat/1.jpg": b"1", os.fsdecode(b"\xff\xfe/3.jpg"): b"3"}


def test_backslashes_of_programs_of_windows_are_folders(tmp_path: Path) -> None:
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("cat\\1.jpg", "dog\\1.jpg"):
            info = zipfile.ZipInfo(name)
            info.create_system = 0
            archive.writestr(info, b"x")
    assert scan_images(path).classes == ("cat", "dog")


def test_names_that_lead_out_of_the_archive_are_left_out(tmp_path: Path) -> None:
    files = {
        "/cat/1.jpg": b"1",
        "./dog/2.jpg": b"2",
        "../3.jpg": b"3",
        "cat/../../4.jpg": b"4",
        f"{'n' * 5000}.jpg": b"5",
    }
    for name in ("odd.tar", "odd.zip"):
        images = scan_images(make_any(tmp_path / name, files))
        assert images.paths.tolist() == ["cat/1.jpg", "dog/2.jpg"]
        assert images.notes == (
            f"{name}: 3 left out (1 with names of more than 4,096 bytes, 2 with names that lead out of the archive)",
        )


# Members that are no plain files


def test_links_lead_to_members_and_nowhere_else(tmp_path: Path) -> None:
    links = {
        "cat/same.jpg": "1.jpg",
        "dog/other.jpg": "../cat/1.jpg",
        "dog/again.jpg": "other.jpg",
        "dog/out.jpg": "../../secret.jpg",
        "dog/passwd.jpg": "/etc/passwd",
        "dog/loop.jpg": "loop.jpg",
    }
    images = scan_images(make_tar(tmp_path / "links.tar", {"cat/1.jpg": b"1", "dog/2.jpg": b"2"}, links=links))
    assert read_all(images) == {
        "cat/1.jpg": b"1", "cat/same.jpg": b"1", "dog/2.jpg": b"2", "dog/again.jpg": b"1", "dog/other.jpg": b"1",
    }  # fmt: skip
    assert images.notes == ("links.tar: 3 left out (3 links to no file in the archive)",)


def test_hard_links_and_special_files_of_a_real_tar(tmp_path: Path) -> None:
    folder = touch(tmp_path / "pets", "cat/1.jpg", "dog/2.jpg")
    (folder / "cat/1.jpg").write_bytes(b"one")
    os.link(folder / "cat/1.jpg", folder / "cat/hard.jpg")
    os.mkfifo(folder / "cat/pipe.jpg")
    subprocess.run(["tar", "-cf", tmp_path / "pets.tar", "-C", folder, "."], check=True)
    images = scan_images(tmp_path / "pets.tar")
    assert read_all(images) == {"cat/1.jpg": b"one", "cat/hard.jpg": b"one", "dog/2.jpg": b""}
    assert images.notes == ("pets.tar: 1 left out (1 device, pipe or other thing that is no file)",)


def test_links_of_a_zip_lead_to_members(tmp_path: Path) -> None:
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.jpg", b"1")
        for name, target in (("dog/2.jpg", "../cat/1.jpg"), ("dog/3.jpg", "/etc/passwd")):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    assert read_all(scan_images(path)) == {"cat/1.jpg": b"1", "dog/2.jpg": b"1"}


@pytest.mark.parametrize("name", ["twice.tar", "twice.tar.gz"])
def test_of_members_with_one_name_the_last_one_counts(tmp_path: Path, name: str) -> None:
    files = [("cat/1.jpg", b"old"), ("dog/1.jpg", b"dog"), ("./cat/1.jpg", b"new")]
    images = scan_images(make_any(tmp_path / name, files))
    assert read_all(images) == {"cat/1.jpg": b"new", "dog/1.jpg": b"dog"}
    assert images.notes == (f"{name}: 1 left out (1 replaced by a later member of the same name)",)


# Zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_of_the_standard_library_is_read(tmp_path: Path, method: int) -> None:
    files = {**PETS, "dog/large.jpg": bytes(range(256)) * 2000, "dog/empty.jpg": b""}
    assert read_all(scan_images(make_zip(tmp_path / "pets.zip", files, method))) == files


def test_an_archive_of_more_entries_than_the_old_format_counts_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    path = make_zip(tmp_path / "large.zip", PETS)
    assert b"PK\6\6" in path.read_bytes()
    assert read_all(scan_images(path)) == PETS
    path.write_bytes(b"something before it" + path.read_bytes())
    assert open_store(str(path)).read("dog/2.jpg").data == b"dog 2"


def test_a_zip_behind_other_bytes_with_a_comment_is_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "pets.zip", PETS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"no PK\5\6 here, but a long comment" * 9
    path.write_bytes(b"#!/bin/sh: a program that unpacks itself\n" + path.read_bytes())
    store = open_store(str(path))
    assert store.read("dog/2.jpg").data == b"dog 2"


def test_large_sizes_of_the_extended_format_are_read(tmp_path: Path) -> None:
    path = tmp_path / "streamed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("cat/1.jpg", "dog/1.jpg"):
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(name.encode())
    assert read_all(scan_images(path)) == {"cat/1.jpg": b"cat/1.jpg", "dog/1.jpg": b"dog/1.jpg"}


def test_members_with_a_password_fail_alone_and_a_whole_archive_of_them_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "locked.zip", {"cat/1.jpg": b"1", "dog/2.jpg": b"2"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\1\2")
    data[at + 8] |= 1
    path.write_bytes(data)
    images = scan_images(path)
    with pytest.raises(ImageError, match="needs a password; unpack the archive"):
        images.file(0).read()
    assert images.file(1).read().data == b"2"
    data[data.find(b"PK\1\2", at + 4) + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"locked\.zip needs a password"):
        scan_images(path)


# Reading


@pytest.mark.parametrize("name", NAMES)
def test_many_threads_read_at_once(tmp_path: Path, name: str) -> None:
    chance = random.Random(0)
    files = {f"{n % 3}/{n}.jpg": chance.randbytes(chance.randrange(3000)) for n in range(60)}
    store = open_store(scan_images(make_any(tmp_path / name, files)).root)
    paths = sorted(files)
    store.order(paths)
    wrong: list[str] = []

    def read(seed: int) -> None:
        mine = random.Random(seed).sample(paths, len(paths))
        wrong.extend(path for path in mine if store.read(path).data != files[path])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_order_of_reading_is_that_of_the_archive(tmp_path: Path) -> None:
    files = list(PETS.items())
    random.Random(1).shuffle(files)
    images = scan_images(make_tar(tmp_path / "pets.tar.gz", files, "gz"))
    rows = images.order(np.arange(6))
    assert images.paths[rows].tolist() == [name for name, _ in files]


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_reading_in_order_passes_a_compressed_tar_once(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(2)
    files = [(f"{n % 3}/{chance.random()}.jpg", chance.randbytes(5000)) for n in range(100)]
    images = scan_images(make_tar(tmp_path / f"pets.tar.{compression}", files, compression))  # type: ignore[arg-type]
    starts = []
    rewind = unpacked.Unpacked._rewind
    monkeypatch.setattr(unpacked.Unpacked, "_rewind", lambda self, place: (starts.append(1), rewind(self, place))[1])
    rows = images.order(np.arange(100)).tolist()
    for begin in range(0, 100, 10):  # threads are at most some images ahead of one another
        near = rows[begin : begin + 10]
        for row in chance.sample(near, len(near)):
            assert images.file(row).read().data == dict(files)[images.paths[row]]
    assert starts == []


def test_a_reader_ahead_waits_where_the_buffer_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_passes, "BUFFER", 2500)
    path = make_tar(tmp_path / "pets.tar.xz", {f"a/{n}.jpg": bytes([n]) * 1000 for n in range(6)}, "xz")
    archive = archive_file.ArchiveFile(archive_store.place(path))
    members = sorted(archive.scan().members.values())
    passes = TarPasses(archive.file, "xz")
    passes.expect(members)
    found: dict[Member, bytes] = {}
    ahead = threading.Thread(target=lambda: found.update({members[5]: passes.read(members[5])}))
    ahead.start()
    for member in members[:5]:
        found[member] = passes.read(member)
    ahead.join()
    assert [found[member] for member in members] == [bytes([n]) * 1000 for n in range(6)]


def test_concatenated_streams_are_one_archive(tmp_path: Path) -> None:
    data = make_tar(tmp_path / "pets.tar", PETS).read_bytes()
    parts = [gzip.compress(data[at : at + 700]) for at in range(0, len(data), 700)]
    (tmp_path / "parts.tar.gz").write_bytes(b"".join(parts) + bytes(100))
    assert read_all(scan_images(tmp_path / "parts.tar.gz")) == PETS


def test_gzip_goes_on_from_places_that_were_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "_BETWEEN", 1000)
    monkeypatch.setattr(unpacked, "_OUTPUT", 300)
    monkeypatch.setattr(unpacked, "_MOST_PLACES", 8)
    chance = random.Random(3)
    data = b"".join(chance.randbytes(50) * 4 for _ in range(300))
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(data))
    stream = unpacked.Unpacked(archive_store.place(path), "gz")
    assert stream.read(len(data) + 1) == data
    for _ in range(100):
        at = chance.randrange(len(data))
        assert stream.seek(at) == at
        assert stream.read(500) == data[at : at + 500]
    assert len(stream._places) <= 9


# Facts, and archives that change


def test_an_image_has_its_own_size_and_the_times_of_its_archive(tmp_path: Path) -> None:
    images = scan_images(make_zip(tmp_path / "pets.zip", PETS))
    _, mtime, ctime, inode = facts_of((tmp_path / "pets.zip").stat())
    facts = images.facts()
    assert facts.sizes.tolist() == [5] * 6
    assert set(facts.mtimes.tolist()) == {mtime}
    file = images.file(0).read()
    assert (file.size, file.mtime_ns, file.marks) == (5, mtime, (ctime, inode))
    assert images.store.facts(["cat/0.jpg", "cat/none.jpg"]).sizes.tolist() == [5, -1]


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_that_is_replaced_is_never_read_by_its_old_list(tmp_path: Path, name: str) -> None:
    store = open_store(scan_images(make_any(tmp_path / name, PETS)).root)
    assert store.read("dog/2.jpg").data == b"dog 2"
    make_any(tmp_path / name, {"a/first.jpg": b"moved", "dog/2.jpg": b"another dog"})
    assert store.read("dog/2.jpg").data == b"another dog"
    assert store.facts(["dog/2.jpg", "cat/1.jpg"]).sizes.tolist() == [11, -1]
    with pytest.raises(ImageError, match="is not in the archive"):
        store.read("cat/1.jpg")
    (tmp_path / name).unlink()
    assert not store.exists()
    assert not store_exists(store.location)
    with pytest.raises(ImageError, match="cannot be read: there is no "):
        store.read("dog/2.jpg")


def test_an_archive_that_changes_all_the_time_is_not_listed_for_every_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tar(tmp_path / "pets.tar", PETS)
    store = open_store(scan_images(path).root)
    listed = []
    list_tar = archive_file.list_tar
    monkeypatch.setattr(archive_file, "list_tar", lambda *call: (listed.append(1), list_tar(*call))[1])
    monkeypatch.setattr(archive_file, "_PATIENCE", 1e6)
    os.utime(path, ns=(10**18, 10**18))
    assert store.read("dog/2.jpg").data == b"dog 2"
    for number in range(1, 20):
        os.utime(path, ns=(10**18 + number, 10**18 + number))
        with pytest.raises(ImageError, match="keeps changing while it is read; wait until it is complete"):
            store.read("dog/2.jpg")
    assert len(listed) == 1
    assert store.facts(["dog/2.jpg"]).mtimes.tolist() == [10**18 + 19]


# Lists that are kept


@pytest.mark.parametrize("name", NAMES)
def test_a_later_run_needs_no_listing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_any(tmp_path / name, PETS)
    first = scan_images(path)
    archive_store._archive.cache_clear()
    for listing in ("list_tar", "list_zip"):
        monkeypatch.setattr(archive_file, listing, lambda *_: pytest.fail("the archive was listed again"))
    second = scan_images(path)
    assert second.paths.tolist() == first.paths.tolist()
    assert read_all(second) == PETS


def test_a_kept_list_that_is_damaged_or_gone_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    path = make_tar(tmp_path / "pets.tar", PETS)
    scan_images(path)
    (kept,) = (tmp_path / "home/archives").iterdir()
    data = bytearray(kept.read_bytes())
    for at in (0, 70, len(data) // 2, len(data) - 1):
        archive_store._archive.cache_clear()
        kept.write_bytes(bytes(data[:at]) + bytes([data[at] ^ 4]) + bytes(data[at + 1 :]))
        assert read_all(scan_images(path)) == PETS
    archive_store._archive.cache_clear()
    kept.unlink()
    (tmp_path / "home/archives").rmdir()
    (tmp_path / "home/archives").write_text("no folder can be made here")
    assert read_all(scan_images(path)) == PETS


def test_the_number_of_kept_lists_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(index_files, "_MOST_FILES", 3)
    for number in range(6):
        scan_images(make_tar(tmp_path / f"pets{number}.tar", PETS))
    assert len(list((tmp_path / "home/archives").iterdir())) == 3


# Names of archives


def test_words_about_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no .*none\.zip; expected .*an archive"):
        scan_images(tmp_path / "none.zip")
    with pytest.raises(DatasetError, match=r"no archive matches .*none-\*\.zip"):
        scan_images(tmp_path / "none-*.zip")


def test_commands_and_foreign_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is a command; featx runs none"):
        scan_images("pipe:curl -s https://example.org/shard-000.tar")
    (tmp_path / "pets.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(DatasetError, match=r"pets\.7z is a kind of archive that featx does not read"):
        scan_images(tmp_path / "pets.7z")


def test_zstandard_is_refused_where_python_lacks_it(tmp_path: Path) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("this Python reads Zstandard")
    (tmp_path / "pets.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(
        DatasetError, match=r"Zstandard, which Python reads from version 3\.14 on; unpack it once: zstd -d"
    ):
        scan_images(tmp_path / "pets.tar.zst")


def test_a_folder_whose_name_looks_like_a_pattern_holds_archives(tmp_path: Path) -> None:
    make_zip(tmp_path / "photos [1]" / "cat.zip", {"1.jpg": b"1"})
    make_zip(tmp_path / "photos [1]" / "dog.zip", {"1.jpg": b"2"})
    images = scan_images(tmp_path / "photos [1]")
    assert images.classes == ("cat", "dog")
    assert open_store(images.root).read("dog.zip/1.jpg").data == b"2"


# Other machines


@pytest.mark.parametrize("name", [*NAMES, "shards"])
def test_archives_behind_urls_are_read_as_local_ones(tmp_path: Path, name: str) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    memory = fsspec.filesystem("memory")
    if name == "shards":
        for number in range(2):
            files = {f"{n}.{ending}": str(n % 2).encode() for n in range(3) for ending in ("jpg", "cls")}
            memory.pipe_file(f"/archives/shards/{number}.tar", make_tar(tmp_path / "s.tar", files).read_bytes())
        for data in ("shards", "shards/*.tar", "shards/{0..1}.tar"):
            images = scan_images(f"memory://archives/{data}")
            assert images.paths.tolist() == [f"{number}.tar/{n}.jpg" for number in range(2) for n in range(3)]
            assert images.file(4).read().data == b"1"
            assert open_store(images.root).read("1.tar/2.jpg").data == b"0"
        with pytest.raises(DatasetError, match=r"1 is not there: 2\.tar"):
            scan_images("memory://archives/shards/{0..2}.tar")
        return
    memory.pipe_file(f"/archives/{name}", make_any(tmp_path / name, PETS).read_bytes())
    images = scan_images(f"memory://archives/{name}")
    assert images.paths.tolist() == sorted(PETS)
    assert read_all(images) == PETS
    assert images.file(0).name == f"memory://archives/{name}/cat/0.jpg"


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar", "pets.tar.gz", "pets.tar.xz"])
@pytest.mark.parametrize("bare", ["download", "pets v1.0"])
def test_an_archive_whose_name_has_no_ending_is_known_by_its_content(tmp_path: Path, name: str, bare: str) -> None:
    path = make_any(tmp_path / name, PETS).rename(tmp_path / bare)
    images = scan_images(path)
    assert read_all(images) == PETS
    assert open_store(images.root).read(images.paths[0]).data == PETS[images.paths[0]]


def test_a_pattern_that_a_feature_file_holds_is_not_spelled_out_to_read_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_any(tmp_path / "a" / "train.zip", {"cat/1.jpg": b"1"})
    make_any(tmp_path / "a" / "test.zip", {"cat/2.jpg": b"2"})
    images = scan_images(tmp_path / "a")
    assert images.root.endswith("/**/*.zip")
    monkeypatch.setattr(archive_store, "expand", lambda _: pytest.fail("the disk is walked"))
    store = open_store(images.root)
    assert store.exists()
    assert [store.read(path).data for path in images.paths] == [b"2", b"1"]
    assert store.facts(images.paths.tolist()).sizes.tolist() == [1, 1]
    assert store.order(images.paths.tolist()).tolist() == [0, 1]
    for path in ("../a/train.zip/cat/1.jpg", "other.zip/cat/1.jpg"):
        with pytest.raises(ImageError, match="is in none of the archives"):
            store.read(path)
