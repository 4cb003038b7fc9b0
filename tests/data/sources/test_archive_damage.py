"""Archives that are damaged, cut off or hostile: one clear line, or an image that fails alone."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import PETS, make_any, make_shard, make_tar, make_zip

from featx.data.file_bytes import MAX_BYTES
from featx.data.scan import scan_images
from featx.data.sources import archive_store, unpacked, zip_index
from featx.errors import DatasetError, FeatxError, ImageError


def errors_of(path: Path) -> list[str]:
    """Why images of an archive cannot be read; an error of the whole archive is raised."""
    images, found = scan_images(path), []
    for row in range(len(images)):
        try:
            images.file(row).read()
        except ImageError as error:
            found.append(f"{images.paths[row]} {error}")
    return found


# Cut off


def test_of_a_tar_that_is_cut_off_the_last_image_fails_alone_and_a_warning_says_so(tmp_path: Path) -> None:
    files = {f"{label}/{n}.jpg": bytes(3000) for label in ("cat", "dog") for n in range(3)}
    path = make_tar(tmp_path / "pets.tar", files)
    path.write_bytes(path.read_bytes()[: 4 * 3584 + 600])
    images = scan_images(path)
    assert images.notes == (
        "Warning: pets is cut off in or after dog/1.jpg; what follows is missing. Download or make it again",
    )
    assert errors_of(path) == [f"dog/1.jpg is cut off: {path} ends before it does"]


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_of_a_compressed_tar_that_is_cut_off_the_images_before_are_read(tmp_path: Path, compression: str) -> None:
    chance = random.Random(0)
    files = {f"{label}/{n}.jpg": chance.randbytes(150_000) for label in ("cat", "dog") for n in range(8)}
    path = make_any(tmp_path / f"pets.tar.{compression}", files)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    images = scan_images(path)
    assert images.notes[0].startswith("Warning: pets is cut off in or after ")
    failed = errors_of(path)
    assert len(failed) == 1
    assert failed[0].endswith("is cut off: its archive ends before it does")


@pytest.mark.parametrize("name", ["pets.tar.gz", "pets.tar", "pets.zip"])
def test_an_archive_without_a_whole_member_is_refused(tmp_path: Path, name: str) -> None:
    path = make_any(tmp_path / name, PETS)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DatasetError, match=r"pets.* (is cut off|is no tar that can be read)"):
        scan_images(path)


def test_an_empty_file_and_another_kind_of_file_are_no_archives(tmp_path: Path) -> None:
    for name in ("pets.tar", "pets.zip"):
        (tmp_path / name).touch()
        with pytest.raises(DatasetError, match=rf"{name} is empty; expected an archive"):
            scan_images(tmp_path / name)
    for name, data in (("text.tar", b"text" * 500), ("text.zip", b"text" * 500)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            DatasetError, match=r"(is no tar that can be read|is cut off or no zip).*Download or make it"
        ):
            scan_images(tmp_path / name)


# Damaged


def test_a_member_of_a_zip_whose_bytes_have_changed_fails_alone(tmp_path: Path) -> None:
    files = {f"{label}/{n}.jpg": os.urandom(500) for label in ("cat", "dog") for n in range(2)}
    path = make_zip(tmp_path / "pets.zip", files, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.find(files["dog/0.jpg"]) + 9] ^= 1
    path.write_bytes(data)
    assert errors_of(path) == ["dog/0.jpg is damaged in its archive: its checksum does not fit"]


def test_a_damaged_header_of_a_tar_is_one_line(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "pets.tar", PETS)
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        DatasetError, match=r"pets.tar is damaged after its member cat/1.jpg: bad checksum. Download or"
    ):
        scan_images(path)


@pytest.mark.parametrize("compression", ["gz", "xz"])
def test_a_compressed_tar_with_a_wrong_checksum_is_one_line(tmp_path: Path, compression: str) -> None:
    files = PETS | {"large.jpg": bytes(range(256)) * (5000 if compression == "gz" else 1)}
    path = make_any(tmp_path / f"pets.tar.{compression}", files)
    data = bytearray(path.read_bytes())
    data[-6 if compression == "gz" else -20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"pets.tar.* (is damaged after its member|is no tar that can be read)"):
        scan_images(path)


def test_archives_joined_in_one_file_are_noted(tmp_path: Path) -> None:
    first, second = (make_tar(tmp_path / f"{n}.tar", {f"{n}/1.jpg": b"1", "x/2.jpg": b"2"}).read_bytes() for n in "ab")
    for name, data in (("joined.tar", first + second), ("joined.tar.gz", gzip.compress(first + second))):
        (tmp_path / name).write_bytes(data)
        images = scan_images(tmp_path / name)
        assert len(images) == 2
        assert "Warning: joined goes on behind the end of its archive, as if several had been joined" in images.notes[0]


def test_a_part_of_a_split_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "pets.zip", PETS)
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\5\6") + 4] = 3
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"is a part of a split zip; join its parts first"):
        scan_images(path)


def test_a_compression_that_python_lacks_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "pets.zip", {"cat/1.jpg": b"1", "dog/1.jpg": b"2"})
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\1\2") + 10] = 9
    path.write_bytes(data)
    assert errors_of(path) == [
        "cat/1.jpg is compressed with Deflate64, which featx does not read; unpack the archive, or make it again"
    ]


# Hostile


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    found = tarfile.TarInfo(name)
    found.size, found.type = size, kind
    return found.tobuf(tarfile.GNU_FORMAT)


def negative() -> bytes:
    data = bytearray(header("a/1.jpg", 100))
    data[124:136] = b"\xff" * 12
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data) + bytes(2048)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a size below zero": (
        negative,
        "(a header has a negative size|invalid offset)",
    ),  # the latter by newer standard libraries
    "names of names": (
        lambda: (header("x", 10, tarfile.GNUTYPE_LONGNAME) + b"n" * 512) * 3000,
        "maximum recursion depth",
    ),
    "a name of gigabytes": (
        lambda: header("x", 1 << 34, tarfile.GNUTYPE_LONGNAME) + bytes(4096),
        "a header has more than 16,777,216 bytes",
    ),
    "attributes of gigabytes": (
        lambda: header("x", 1 << 34, tarfile.XHDTYPE) + bytes(4096),
        "a header has more than 16,777,216 bytes",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_one_line(tmp_path: Path, what: str) -> None:
    make, message = HOSTILE[what]
    (tmp_path / "bad.tar").write_bytes(make())
    with pytest.raises(DatasetError, match=f"bad.tar is no tar that can be read: {message}"):
        scan_images(tmp_path / "bad.tar")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_an_archive_that_unpacks_to_far_more_than_images_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacked, "_SMALL", 1 << 20)
    (tmp_path / "bomb.tar.gz").write_bytes(pack(header("a/1.jpg", 1 << 40) + bytes(1 << 23)))
    with pytest.raises(DatasetError, match="unpacks to more than 100 times its size, as no archive of images does"):
        scan_images(tmp_path / "bomb.tar.gz")


def test_of_a_member_never_more_is_unpacked_than_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "bomb.zip", {"cat/1.jpg": bytes(1 << 24), "dog/1.jpg": b"2"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, data.find(b"PK\1\2") + 24, 1000)
    path.write_bytes(data)
    sizes = []
    inflate = zip_index._READERS[8]

    def measured(packed: memoryview, size: int) -> bytes:
        found = inflate(packed, size)
        sizes.append(len(found))
        return found

    monkeypatch.setitem(zip_index._READERS, 8, measured)
    (message,) = errors_of(path)
    assert message.startswith("cat/1.jpg is damaged in its archive: ")
    assert max(sizes, default=0) <= 1001


@pytest.mark.parametrize("name", ["huge.tar", "huge.zip"])
def test_an_image_that_declares_more_than_memory_holds_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("zip"):
        make_zip(path, {"cat/1.jpg": b"1"})
        data = bytearray(path.read_bytes())
        struct.pack_into("<L", data, data.find(b"PK\1\2") + 24, MAX_BYTES + 1)
        path.write_bytes(data)
    else:
        path.write_bytes(header("cat/1.jpg", MAX_BYTES + 1) + bytes(4096))
    assert errors_of(path) == ["cat/1.jpg has 1,073,741,825 bytes; at most 1,073,741,824 are read"]


# Any damage


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The data cut off, or with some bytes changed, taken out or put in."""
    found = bytearray(data)
    if chance.random() < 0.3:
        return bytes(found[: chance.randrange(len(found))])
    for _ in range(chance.choice((1, 1, 3, 20))):
        at = chance.randrange(len(found))
        found[at] = chance.choice((found[at] ^ 1 << chance.randrange(8), 0, 255, chance.randrange(256)))
    if chance.random() < 0.2:
        at = chance.randrange(len(found))
        found[at : at + chance.randrange(600)] = chance.randbytes(chance.randrange(600))
    return bytes(found)


def originals(folder: Path) -> list[tuple[str, bytes]]:
    chance = random.Random(9)
    files = {
        f"set/{s}/{c}/{n}{'é' * 90}.png": chance.randbytes(300) for s in ("train", "test") for c in "ab" for n in "12"
    }
    made = [make_any(folder / name, files) for name in ("a.tar", "b.tar.gz", "c.tar.bz2", "d.tar.xz", "e.zip")]
    made += [make_zip(folder / f"m{method}.zip", files, method) for method in (0, 12, 14)]
    gnu = io.BytesIO()
    with tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(folder / "a.tar", "a/" + "n" * 200 + ".png")
    shard = make_shard(folder / "w.tar", {f"{n}": {"jpg": b"x", "cls": n % 2, "json": {"k": n}} for n in range(6)})
    return [(path.suffix, path.read_bytes()) for path in [*made, shard]] + [(".tar", gnu.getvalue())]


def test_no_damage_raises_anything_but_errors_of_featx(tmp_path: Path) -> None:
    chance, whole = random.Random(4), originals(tmp_path)
    outcomes = set()
    for number in range(250):
        suffix, data = chance.choice(whole)
        path = tmp_path / f"damaged{'.zip' if suffix == '.zip' else '.tar'}"
        path.write_bytes(damaged(data, chance))
        os.utime(path, ns=(10**18 + number, 10**18 + number))
        archive_store._archive.cache_clear()
        try:
            images = scan_images(path)
        except FeatxError:
            outcomes.add("refused")
            continue
        for row in range(len(images)):
            try:
                images.file(row).read()
                outcomes.add("read")
            except ImageError:
                outcomes.add("failed alone")
    assert outcomes == {"refused", "read", "failed alone"}
