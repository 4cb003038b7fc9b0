"""Vectors and their labels in the shapes in which people save them by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featx.errors import DatasetError
from featx.features.exchange.layouts import read_vectors

N = 12
Y = np.arange(N) % 3
NAMES = [f"{'abc'[label]}/{row}.jpg" for row, label in enumerate(Y)]
CLASSES = [f"{'abc'[label]}" for label in Y]
NUMBERS = [str(label) for label in Y]
X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)


def _torch(value: Callable[[Any], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch = pytest.importorskip("torch")
        torch.save(value(torch.from_numpy), folder / "x.pt")
        return folder / "x.pt"

    return write


def _npz(*arrays: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "x.npz", *arrays)
        return folder / "x.npz"

    return write


def _folder(**arrays: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "x").mkdir()
        for name, array in arrays.items():
            np.save(folder / "x" / f"{name}.npy", array)
        return folder / "x"

    return write


def _matlab(folder: Path) -> Path:
    from scipy.io import savemat

    savemat(folder / "x.mat", {"features": X.T, "labels": Y[:, None], "image_files": np.array(NAMES, object)[:, None]})
    return folder / "x.mat"


def _square(folder: Path) -> Path:
    """As many numbers as images, so that the labels have the length of a vector."""
    return _torch(lambda tensor: (tensor(np.tile(X, 3)[:, :N].copy()), tensor(Y), NAMES))(folder)


LABELLED = {
    "tuple.pt": (_torch(lambda t: (t(X), t(Y))), NUMBERS),
    "list_and_names.pt": (_torch(lambda t: [t(X), t(Y), NAMES]), NUMBERS),
    "square.pt": (_square, NUMBERS),
    "records.pt": (
        _torch(
            lambda t: [{"path": n, "embedding": t(x), "label": int(y)} for n, x, y in zip(NAMES, X, Y, strict=True)]
        ),
        NUMBERS,
    ),
    "classes.pt": (
        _torch(lambda t: {"features": t(X), "labels": t(Y), "class_to_idx": {"b": 1, "a": 0, "c": 2}}),
        CLASSES,
    ),
    "nested.pt": (
        _torch(
            lambda t: {
                k: {"features": t(X[s]), "labels": t(Y[s])} for k, s in (("train", np.s_[:8]), ("test", np.s_[8:]))
            }
        ),
        NUMBERS,
    ),
    "args.npz": (_npz(X, Y), NUMBERS),
    "text_args.npz": (_npz(X, np.array(CLASSES)), CLASSES),
    "x_y": (_folder(X=X, y=Y), NUMBERS),
    "paths": (_folder(embeddings=X, labels=np.array(CLASSES), paths=np.array(NAMES)), CLASSES),
    "splits": (_folder(X_train=X[:8], y_train=Y[:8], X_test=X[8:], y_test=Y[8:]), NUMBERS),
    "dino": (_folder(trainfeat=X[:8], trainlabels=Y[:8], testfeat=X[8:], testlabels=Y[8:]), NUMBERS),
    "across.mat": (_matlab, NUMBERS),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_beside_features_are_read(tmp_path: Path, name: str) -> None:
    write, labels = LABELLED[name]
    found = read_vectors(write(tmp_path), tmp_path)
    if found.splits is not None:
        order = np.argsort([split != "train" for split in found.splits], kind="stable")
        assert sorted(found.splits) == ["test"] * 4 + ["train"] * 8
    else:
        order = np.arange(N)
    assert found.labels is not None
    assert [found.labels[row] for row in order] == labels
    assert found.layers["penultimate"][order][:, :5].tolist() == X.tolist()


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_an_array_for_each_image(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, row in zip(NAMES, X, strict=True):
            file[name] = row.reshape(shape)
    found = read_vectors(
        _torch(lambda t: {n: t(x.reshape(shape)) for n, x in zip(NAMES, X, strict=True)})(tmp_path), tmp_path
    )
    assert found.names == NAMES
    assert found.layers["penultimate"].tolist() == X.tolist()
    of_hdf5 = read_vectors(tmp_path / "x.h5", tmp_path)
    assert sorted(of_hdf5.names or []) == sorted(NAMES)
    assert list(of_hdf5.layers) == ["penultimate"]


def test_formats_of_the_same_slides_are_not_read_twice(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for kind in ("pt_files", "h5_files"):
        (tmp_path / "clam" / kind).mkdir(parents=True)
    for slide in range(3):
        rows = X[4 * slide : 4 * slide + 4]
        torch.save(torch.from_numpy(rows), tmp_path / f"clam/pt_files/s{slide}.pt")
        with h5py.File(tmp_path / f"clam/h5_files/s{slide}.h5", "w") as file:
            file["features"], file["coords"] = rows, np.arange(8).reshape(4, 2)
    found = read_vectors(tmp_path / "clam", tmp_path)
    assert len(found) == N
    assert found.columns["slide"][0] == "s0"  # and no class that is the name of the folder
    assert found.columns["x"][:2] == ["0", "2"]


def test_features_of_two_networks_are_refused(tmp_path: Path) -> None:
    for network in ("features_uni", "features_conch"):
        (tmp_path / "t" / network).mkdir(parents=True)
        np.save(tmp_path / "t" / network / "s.npy", X)
    with pytest.raises(DatasetError, match=r"several networks.*features_conch.*name one"):
        read_vectors(tmp_path / "t", tmp_path)


@pytest.mark.parametrize("kind", ["records", "dictionary", "columns"])
def test_json(tmp_path: Path, kind: str) -> None:
    rows = X.astype(float).tolist()
    value: Any = {
        "records": [{"path": name, "embedding": row} for name, row in zip(NAMES, rows, strict=True)],
        "dictionary": dict(zip(NAMES, rows, strict=True)),
        "columns": {"path": NAMES, "embedding": rows},
    }[kind]
    (tmp_path / "x.json").write_text(json.dumps(value))
    found = read_vectors(tmp_path / "x.json", tmp_path)
    assert found.names == NAMES
    assert found.layers["penultimate"].tolist() == X.tolist()


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"a": [1, 2], "b": "x"}', "[" * 100_000, '{"a": ['])
def test_json_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DatasetError, match=r"x\.json"):
        read_vectors(tmp_path / "x.json", tmp_path)


def test_names_in_json_beside_the_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.json").write_text(json.dumps(NAMES))
    assert read_vectors(tmp_path / "x.npy", tmp_path).names == NAMES


def test_a_header_of_numbers_as_pandas_writes_it(tmp_path: Path) -> None:
    lines = [",0,1,2", *(f"{name},1,2,3" for name in NAMES)]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    found = read_vectors(tmp_path / "x.csv", tmp_path)
    assert found.names == NAMES
    assert found.layers["penultimate"].tolist() == [[1, 2, 3]] * N


def test_pickles_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(DatasetError, match=r"pickle, which is never loaded.*numpy\.savez"):
        read_vectors(tmp_path / "x.pkl", tmp_path)
    np.savez(tmp_path / "y.npz", X=X, y=np.array(CLASSES, object))
    with pytest.raises(DatasetError, match=r"has y, an array of Python objects.*astype\(str\)"):
        read_vectors(tmp_path / "y.npz", tmp_path)
