"""Images in arrays: .npz files and folders of idx files."""

from __future__ import annotations

import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listings import label_names
from numpy.lib import format as npy

from featx.data.openers import open_store
from featx.data.scan import scan_images
from featx.data.sources.array_sets import ArrayStore
from featx.errors import DatasetError, ImageError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (6, 8, 9, 3)).astype(np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def medical(path: Path, save: Callable[..., Any] = np.savez) -> Path:
    """The arrays of MedMNIST."""
    arrays = {"train_images": X[:3], "val_images": X[3:4], "test_images": X[4:]}
    save(path, **arrays, train_labels=Y[:3, None], val_labels=Y[3:4, None], test_labels=Y[4:, None])
    return path


def digits(folder: Path) -> Path:
    """The files of MNIST."""
    folder.mkdir(parents=True)
    for name, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(X[rows, :, :, 0]))
        (folder / f"{name}-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx(Y[rows])))
    return folder


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_arrays_of_splits_are_images_with_the_bytes_that_numpy_saves(
    tmp_path: Path, save: Callable[..., Any]
) -> None:
    images = scan_images(medical(tmp_path / "path.npz", save))
    assert images.paths.tolist() == [
        "test_images/0",
        "test_images/1",
        "train_images/0",
        "train_images/1",
        "train_images/2",
        "val_images/0",
    ]
    assert label_names(images) == ["1", "2", "0", "1", "2", "0"]
    assert images.splits.tolist() == ["test", "test", "train", "train", "train", "val"]
    np.save(tmp_path / "row.npy", X[1])
    read = images.file(3).read()
    assert read.data == (tmp_path / "row.npy").read_bytes()
    facts = images.facts()
    assert facts.sizes.tolist() == [len(read.data)] * 6
    assert (read.size, read.mtime_ns, *read.marks) == tuple(
        int(each[3]) for each in (facts.sizes, facts.mtimes, facts.ctimes, facts.inodes)
    )
    assert images.order(np.arange(6)).tolist() == list(range(6))
    assert open_store(images.root).read("train_images/1").data == read.data


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    file = medical(tmp_path / "a.npz")
    store = ArrayStore(str(file))
    before, facts = store.read("train_images/0").key, store.facts(["train_images/0", "train_images/9", "else/0", "x"])
    assert (facts.sizes >= 0).tolist() == [True, False, False, False]
    np.savez(file, train_images=X[::-1])
    assert store.read("train_images/0").key != before
    assert store.facts(["train_images/0"]).mtimes[0] != facts.mtimes[0]
    with pytest.raises(ImageError, match=r"is not in .*a\.npz"):
        store.read("test_images/0")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_in_the_order_of_fortran_and_of_other_byte_orders_are_read(
    tmp_path: Path, save: Callable[..., Any]
) -> None:
    save(tmp_path / "a.npz", images=np.asfortranarray(X), labels=Y.astype(">i4"), test_images=X[:0], test_labels=Y[:0])
    images = scan_images(tmp_path / "a.npz")
    assert label_names(images) == ["0", "1", "2", "0", "1", "2"]
    np.save(tmp_path / "row.npy", X[2])
    assert images.file(2).read().data == (tmp_path / "row.npy").read_bytes()


def test_a_file_that_is_cut_off_meanwhile_fails_by_images(tmp_path: Path) -> None:
    file = medical(tmp_path / "a.npz")
    store = ArrayStore(str(file))
    opened = store.arrays()["train_images"]
    with file.open("r+b") as handle:
        handle.truncate(300)
    with pytest.raises(EOFError, match="the file has been cut off"):
        opened.row(2)
    with pytest.raises(ImageError, match="cannot be read"):
        store.read("train_images/2")


@pytest.mark.parametrize("around", ["", "raw"])
def test_a_folder_of_idx_files_is_read_with_its_splits(tmp_path: Path, around: str) -> None:
    digits(tmp_path / "MNIST" / around)
    images = scan_images(tmp_path / "MNIST")
    prefix = f"{around}/" if around else ""
    assert images.paths.tolist() == [f"{prefix}t10k-images/{row}" for row in range(2)] + [
        f"{prefix}train-images/{row}" for row in range(4)
    ]
    assert label_names(images) == ["1", "2", "0", "1", "2", "0"]
    assert images.splits.tolist() == ["test"] * 2 + ["train"] * 4
    with pytest.raises(DatasetError, match="one of several idx files; name the folder that holds them"):
        scan_images(tmp_path / "MNIST" / around / "train-images-idx3-ubyte")
    digits(tmp_path / "MNIST" / "other")
    if around:
        with pytest.raises(DatasetError, match="has idx files in several folders"):
            scan_images(tmp_path / "MNIST")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (Y, ["0", "1", "2", "0", "1", "2"]),
        (np.array(["a", "b", "c", "a", "", "c"]), ["a", "b", "c", "a", None, "c"]),
        (np.eye(3)[Y], ["0", "1", "2", "0", "1", "2"]),
        (np.array([[1, 1], [0, 1], [0, 0], [1, 0], [0, 1], [0, 1]]), ["0|1", "1", "|", "0", "1", "1"]),
        (np.array([[0.5, 1]] * 6), [None] * 6),
    ],
)
def test_labels_are_numbers_names_or_rows_of_0_and_1(
    tmp_path: Path, labels: np.ndarray, found: list[str | None]
) -> None:
    np.savez(tmp_path / "a.npz", X=X, y=labels)
    images = scan_images(tmp_path / "a.npz")
    assert label_names(images) == found
    assert set(images.splits) == {""}


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _negative(file: Path) -> None:
    """A header with a negative number of rows."""
    with zipfile.ZipFile(file, "w") as archive, archive.open("images.npy", "w") as member:
        npy.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (-4, 8, 8)})


def _flip(file: Path) -> None:
    """Change a byte of a compressed member."""
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo("train_images.npy")
    data = bytearray(file.read_bytes())
    data[member.header_offset + 200] ^= 255
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda path: _cut(medical(path)), "cannot be read as arrays: File is not a zip file"),
        (lambda path: _flip(medical(path, np.savez_compressed)), r"a\.npz cannot be read as arrays"),
        (
            lambda path: np.savez(path, train_images=X, train_labels=Y[:4]),
            "has 6 images, and train_labels has 4 labels",
        ),
        (
            lambda path: np.savez(path, arr_0=X),
            r"has no array of images: found arr_0 \(6, 8, 9, 3\) uint8; expected names such as",
        ),
        (lambda path: np.savez(path, x=X[:0]), "has no images: its arrays have no rows"),
        (
            lambda path: np.savez(path, x=X, y=np.array([b"\xff"] * 6)),
            r"a\.npz: the label of row 0 holds bytes that are not UTF-8",
        ),
        (lambda path: _negative(path), "the header of the array is damaged"),
        (
            lambda path: np.savez(path, x=np.array([{}], dtype=object)),
            "holds Python objects, which featx never unpickles",
        ),
    ],
)
def test_a_damaged_file_and_arrays_that_do_not_go_together_are_refused(
    tmp_path: Path, make: Callable[[Path], None], fault: str
) -> None:
    make(tmp_path / "a.npz")
    with pytest.raises(DatasetError, match=fault):
        scan_images(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (idx(X[..., 0])[:-5], r"the array is cut off \(427 of 432 bytes\)"),
        (b"P5 8 9", "name of an idx file, but other content"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_idx_file_is_refused(tmp_path: Path, content: bytes, fault: str, *, packed: bool) -> None:
    name = "train-images-idx3-ubyte"
    (tmp_path / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DatasetError, match=fault):
        scan_images(tmp_path)


def test_folders_with_images_are_not_taken_for_arrays(tmp_path: Path) -> None:
    digits(tmp_path / "a" / "raw")
    for row in range(2):
        (tmp_path / "a" / f"{row}.jpg").write_bytes(b"image")
    assert scan_images(tmp_path / "a").paths.tolist() == ["0.jpg", "1.jpg"]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("train-00000-of-00001.tfrecord", "TFRecord files are not read: write their images to a folder"),
        ("data.mdb", "LMDB databases are not read"),
        ("train_32x32.mat", r"numpy\.savez\('photos\.npz', train_images"),
        ("data_batch_1", "pickled files are never opened"),
        ("annotations.xml", "annotations in XML are not read: convert them to JSON in the form of COCO"),
        ("train.lst", r"rename it to \.tsv, and number its columns"),
    ],
)
def test_files_that_are_not_read_are_refused_with_the_remedy(tmp_path: Path, name: str, how: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_bytes(b"content of a file")
    for data in (tmp_path / "d", tmp_path / "d" / name):
        with pytest.raises(DatasetError, match=how):
            scan_images(data)
