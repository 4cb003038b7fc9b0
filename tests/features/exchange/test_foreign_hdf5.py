"""HDF5 files of strangers: what lies outside the file, or is larger than the file can hold, is not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.errors import DatasetError
from featx.features.exchange import import_features
from featx.features.feature_set import FeatureSet

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def external_link(root: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["features"] = X
    root["features"] = h5py.ExternalLink(str(folder / "other.h5"), "/features")


def soft_link(root: h5py.File, folder: Path) -> None:
    root["real"] = X
    root["features"] = h5py.SoftLink("/real")


def dangling_link(root: h5py.File, folder: Path) -> None:
    root["features"] = h5py.ExternalLink("/etc/passwd", "/features")


def external_storage(root: h5py.File, folder: Path) -> None:
    (folder / "secret.bin").write_bytes(X.tobytes())
    root.create_dataset("features", X.shape, "f4", external=[(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)])


def storage_in_a_group(root: h5py.File, folder: Path) -> None:
    root["features"] = X
    root.create_dataset("a/b/names", (32,), "S1", external=[("/etc/passwd", 0, 32)])


def virtual(root: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["features"] = X
    layout = h5py.VirtualLayout(X.shape, "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "features", X.shape)
    root.create_virtual_dataset("features", layout)


def bomb(root: h5py.File, folder: Path) -> None:
    root.create_dataset("features", (200_000, 512), "f4", chunks=(2000, 512), compression="gzip", fillvalue=0)[
        :2000
    ] = 0
    root["features"][2000:4000] = 0


def huge_shape(root: h5py.File, folder: Path) -> None:
    root.create_dataset("features", (1 << 40, 1 << 12), "f4", chunks=(1, 1 << 12))


def unallocated(root: h5py.File, folder: Path) -> None:
    root.create_dataset("features", (1 << 24, 1 << 10), "f4")  # no place is reserved before something is written


def deep(root: h5py.File, folder: Path) -> None:
    group = root
    for _ in range(40):
        group = group.create_group("a")
    group["features"] = X


def unknown_filter(root: h5py.File, folder: Path) -> None:
    space, kind = h5py.h5s.create_simple(X.shape), h5py.h5t.IEEE_F32LE
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(X.shape)
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # zstd, a plug-in
    h5py.h5d.create(root.id, b"features", kind, space, dcpl=plist)


@pytest.mark.parametrize(
    ("craft", "message"),
    [
        (external_link, "has an external link, features, and links are not followed"),
        (dangling_link, "has an external link, features"),
        (soft_link, "has a soft link, features, and links are not followed"),
        (external_storage, "has a data set, features, whose numbers lie in another file"),
        (storage_in_a_group, "has a data set, a/b/names, whose numbers lie in another file"),
        (virtual, "has a virtual data set, features, whose numbers lie in other files"),
        (
            bomb,
            r"has a data set, features, of 409,600,000 bytes that takes [\d,]+ of a file of [\d,]+; such a file would fill",
        ),
        (huge_shape, "has a data set, features, of 18,014,398,509,481,984 bytes that takes 0 of a file"),
        (unallocated, "has a data set, features, of 68,719,476,736 bytes that takes 0 of a file"),
        (deep, "has groups more than 32 deep"),
        (unknown_filter, "has a data set, features, with the filter 32015; known are gzip"),
    ],
)
def test_a_crafted_file_is_refused(craft: Callable[[h5py.File, Path], None], message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        craft(root, tmp_path)
    with pytest.raises(DatasetError, match=message):
        import_features(tmp_path / "x.h5", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.h5*"))


def test_groups_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        group = root.create_group("a")
        group["features"] = X
        group["again"] = group  # a hard link to itself
        root["a/up"] = root["/"]
        root["copy"] = root["a/features"]
    imported = import_features(tmp_path / "x.h5", cache=tmp_path / "cache")
    np.testing.assert_array_equal(FeatureSet.load(imported.path).features, X)


def test_own_filters_chunks_and_types_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root.create_dataset(
            "embeddings", data=X.astype("f8"), chunks=(3, 2), compression="lzf", shuffle=True, fletcher32=True
        )
        root.create_dataset("image_names", data=[f"{row}.jpg" for row in range(8)], dtype=h5py.string_dtype())
        root.create_dataset("labels", data=np.arange(8) % 2)
        root.create_dataset("fixed", data=np.array([b"a", b"b"] * 4))
        root.create_dataset("scalar", data=3.0)
        root.create_dataset("empty", data=h5py.Empty("f4"))
        root.create_dataset("compound", data=np.zeros(8, dtype=[("a", "f4"), ("b", "i4")]))
    imported = import_features(tmp_path / "x.h5", cache=tmp_path / "cache")
    features = FeatureSet.load(imported.path)
    np.testing.assert_array_equal(features.features, X)
    assert features.paths.tolist() == [f"{row}.jpg" for row in range(8)]
    assert features.classes == ("0", "1")
    assert features.columns["fixed"].tolist() == ["a", "b"] * 4
    assert "x.h5 holds float64 numbers; they are stored as float32" in imported.notes


@pytest.mark.parametrize("cut", [0, 7, 8, 96, 1000, 2000])
def test_a_file_that_is_cut_off_is_one_message(cut: int, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root["features"] = X
    data = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(data[:cut])
    with pytest.raises(DatasetError, match=r"x\.h5 cannot be read"):
        import_features(tmp_path / "x.h5", cache=tmp_path / "cache")


def test_damaged_files_never_end_the_program(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root.create_dataset("features", data=X, chunks=(4, 4), compression="gzip")
        root.create_dataset("names", data=[f"{row}.jpg" for row in range(8)], dtype=h5py.string_dtype())
    data, rng = (tmp_path / "x.h5").read_bytes(), np.random.default_rng(0)
    for number in range(6):
        damaged = bytearray(data)
        for at in rng.integers(8, len(data), 20):
            damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / f"{number}.h5").write_bytes(damaged)
        try:
            import_features(tmp_path / f"{number}.h5", out=tmp_path / f"out{number}.h5")
        except DatasetError as error:
            assert f"{number}.h5" in str(error)  # noqa: PT017 - either outcome is right
