"""Vectors in the layouts of other tools, for the tests of imports."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

NAMES = [f"{label}/{number:02d}.jpg" for label in ("ant", "bee") for number in range(6)]
X = np.random.default_rng(0).normal(size=(len(NAMES), 5)).astype(np.float32)


def thingsvision(folder: Path, ending: str) -> Path:
    """A matrix in one of the tool's formats, and the names."""
    folder.mkdir(parents=True)
    file = folder / f"features.{ending}"
    if ending == "npy":
        np.save(file, X)
    elif ending == "hdf5":
        with h5py.File(file, "w") as root:
            root.create_dataset("features", data=X)
    elif ending == "mat":
        from scipy.io import savemat

        savemat(file, {"features": X, "file_names": NAMES})
    elif ending == "pt":
        torch = pytest.importorskip("torch")
        torch.save(torch.from_numpy(X), file)
    else:
        np.savetxt(file, X)
    (folder / "file_names.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def modules(folder: Path) -> Path:
    """A folder for each of two modules."""
    thingsvision(folder / "features.10", "npy")
    np.save(thingsvision(folder / "avgpool", "npy") / "features.npy", X[:, :2])
    return folder


def clip_retrieval(folder: Path, parts: int = 3) -> Path:
    """Parts of unequal sizes, without padding of their numbers, so that 10 sorts before 9 as text."""
    pyarrow, parquet = (
        pytest.importorskip(name, reason="pyarrow is an extra") for name in ("pyarrow", "pyarrow.parquet")
    )
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(X)), parts), start=9):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", X[rows].astype(np.float16))
        table = {"image_path": [f"/data/{NAMES[row]}" for row in rows], "caption": [f"a photo {row}" for row in rows]}
        parquet.write_table(pyarrow.table(table), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def slides(folder: Path) -> Path:
    """Patches of three slides as TRIDENT and CLAM write them: one file with an axis before the others."""
    folder.mkdir(parents=True)
    for number, rows in enumerate(np.array_split(np.arange(len(X)), 3)):
        with h5py.File(folder / f"slide_{number}.h5", "w") as root:
            root.create_dataset(
                "features", data=X[rows][None] if number == 1 else X[rows], chunks=True, compression="gzip"
            )
            places = root.create_dataset("coords", data=np.stack([rows * 256, rows * 0], axis=1))
            places.attrs["patch_size"] = 256
    return folder


def slide_vectors(folder: Path) -> Path:
    """One vector for each slide."""
    folder.mkdir(parents=True)
    for row in range(len(X)):
        with h5py.File(folder / f"slide_{row:02d}.h5", "w") as root:
            root.create_dataset("features", data=X[row])
    return folder


def eva(folder: Path) -> Path:
    """A manifest, and a file for each image."""
    torch = pytest.importorskip("torch")
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["origin", "embeddings", "target", "split"])
        for row, name in enumerate(NAMES):
            torch.save(torch.from_numpy(X[row : row + 1].copy()), folder / f"{row}.pt")
            table.writerow([name, f"{row}.pt", row // 6, "val" if row % 3 == 0 else "train"])
    return folder


def lightly_train(file: Path) -> Path:
    """``filename,embedding_0,...``."""
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["filename", *(f"embedding_{number}" for number in range(X.shape[1]))])
        table.writerows([name, *map(repr, vector.tolist())] for name, vector in zip(NAMES, X, strict=True))
    return file


def lists_in_parquet(file: Path) -> Path:
    pyarrow, parquet = (
        pytest.importorskip(name, reason="pyarrow is an extra") for name in ("pyarrow", "pyarrow.parquet")
    )
    table = {
        "image_path": NAMES,
        "embedding": X.tolist(),
        "label": [name[:3] for name in NAMES],
        "camera": [1.0, *[2.0] * 11],
    }
    parquet.write_table(pyarrow.table(table), file, row_group_size=5)
    return file


def lists_in_json(file: Path) -> Path:
    rows = [{"id": name, "vector": vector.tolist(), "split": "train"} for name, vector in zip(NAMES, X, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def lists_in_csv(file: Path) -> Path:
    """As pandas writes a column of lists."""
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["", "path", "features"])
        table.writerows([row, name, str(X[row].tolist())] for row, name in enumerate(NAMES))
    return file


def datasets_folder(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets", reason="datasets is an extra")
    features = datasets.Features(
        {
            "image_path": datasets.Value("string"),
            "embedding": datasets.Sequence(datasets.Value("float32"), length=X.shape[1]),
            "label": datasets.ClassLabel(names=["ant", "bee"]),
        }
    )
    parts = {}
    for split, rows in {"train": range(0, len(X), 2), "test": range(1, len(X), 2)}.items():
        columns = {
            "image_path": [NAMES[r] for r in rows],
            "embedding": [X[r].tolist() for r in rows],
            "label": [r // 6 for r in rows],
        }
        parts[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return folder


def npz(file: Path) -> Path:
    np.savez(file, embeddings=X.astype(np.float64), filenames=np.array(NAMES), labels=np.arange(len(X)) // 6)
    return file


def named_vectors(file: Path) -> Path:
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(vector.copy()) for name, vector in zip(NAMES, X, strict=True)}, file)
    return file


def files_of_images(folder: Path) -> Path:
    """One .npy for each image, in folders of classes."""
    for name, vector in zip(NAMES, X, strict=True):
        file = (folder / name).with_suffix(".npy")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, vector)
    return folder


def matlab_73(file: Path) -> Path:
    """HDF5 as MATLAB writes it: transposed, after a block of 512 bytes."""
    with h5py.File(file, "w", userblock_size=512) as root:
        features = root.create_dataset("features", data=X.T.astype(np.float64))
        features.attrs["MATLAB_class"] = np.bytes_(b"double")
    with file.open("r+b") as out:
        out.write(b"MATLAB 7.3 MAT-file".ljust(128))
    file.with_name("names.txt").write_text("\n".join(NAMES))
    return file


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    **{
        f"thingsvision {each}": lambda folder, each=each: thingsvision(folder / "out", each)
        for each in ("npy", "hdf5", "mat", "pt", "txt")
    },
    "eva": lambda folder: eva(folder / "out"),
    "lightly-train": lambda folder: lightly_train(folder / "x.csv"),
    "parquet": lambda folder: lists_in_parquet(folder / "x.parquet"),
    "jsonl": lambda folder: lists_in_json(folder / "x.jsonl"),
    "csv of lists": lambda folder: lists_in_csv(folder / "x.csv"),
    "npz": lambda folder: npz(folder / "x.npz"),
    "dictionary": lambda folder: named_vectors(folder / "x.pt"),
    "matlab 7.3": lambda folder: matlab_73(folder / "x.mat"),
}
"""Layouts with the names of the images and one layer."""
