"""Files of arrays: ``.npy``, ``.npz``, ``.txt``, ``.safetensors``, ``.pt``, and HDF5 and MATLAB in a limited process."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from featx.errors import DatasetError
from featx.features.exchange.content import MARK
from featx.features.exchange.limited import read_in_limits
from featx.features.exchange.vectors import (
    LABEL_COLUMNS,
    NAME_COLUMNS,
    SPLIT_COLUMNS,
    VECTOR_COLUMNS,
    Spool,
    Vectors,
    as_rows,
    first_of,
    mapped,
    require_count,
    require_equal_counts,
    require_small,
    unique_texts,
)
from featx.io.tensor_file import DTYPES, read_header
from featx.layer_spec import PENULTIMATE
from featx.text import brief

_MOST_IN_MEMORY = 8 << 30
_COORDINATES = ("coords", "coord", "coordinates")
_LINES, _AT_ONCE = 4096, 256


def read_arrays(path: Path, folder: Path) -> Vectors:
    """Read a file of arrays.

    Args:
        path: of the file; its ending is one of ``NAMED_ENDINGS``.
        folder: for temporary files.

    Raises:
        DatasetError: it is damaged, or holds no vectors.
    """
    try:
        return _READERS[path.suffix.lower()](path, folder)
    except DatasetError:
        raise
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, RuntimeError, TypeError) as error:
        raise DatasetError(f"{path} cannot be read: {brief(error)}") from error


def read_each(paths: Sequence[Path], folder: Path) -> Iterator[tuple[Path, Vectors]]:
    """Read many files of arrays, those of HDF5 and MATLAB in few processes.

    Raises:
        DatasetError: as ``read_arrays``.
    """
    for at in range(0, len(paths), _AT_ONCE):
        part = paths[at : at + _AT_ONCE]
        limited = [path for path in part if _READERS[path.suffix.lower()] is _read_limited]
        found, file = read_in_limits(limited, folder) if limited else ([], None)
        of_path = dict(zip(limited, found, strict=True))
        for path in part:
            if path in of_path and file is not None:
                yield path, _limited(path, of_path[path], file)
            else:
                yield path, read_arrays(path, folder)


def chosen(path: Path, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The layers among the arrays of a file: a single matrix is the penultimate layer, as is the one with a usual name.

    Args:
        path: of the file, for messages.
        found: arrays by their names.

    Raises:
        DatasetError: there is none, or several of unequal numbers of rows.
    """
    names = list(found)
    if not names:
        raise DatasetError(f"{path} holds no array of numbers; expected (N, D), one vector for each image")
    if len(names) == 1:
        return {PENULTIMATE: as_rows(found[names[0]], str(path))}
    leaves = {name.rpartition("/")[2]: name for name in reversed(names)}
    main = leaves.get(first_of(list(leaves), VECTOR_COLUMNS) or "")
    if main is None:
        layers = {name.replace("/", "."): as_rows(found[name], f"{name} of {path}") for name in names}
    else:
        matrix = as_rows(found[main], f"{main} of {path}")
        others = {name for name in names if name != main and len(found[name]) == len(matrix) and found[name].ndim == 2}
        layers = {PENULTIMATE: matrix} | {
            name.replace("/", "."): as_rows(found[name], str(path)) for name in names if name in others
        }
    require_equal_counts(layers, str(path))
    return layers


def _read_npy(path: Path, folder: Path) -> Vectors:  # noqa: ARG001 - every reader takes it
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    return Vectors("npy", {PENULTIMATE: as_rows(found, str(path))})


def _read_npz(path: Path, folder: Path) -> Vectors:  # noqa: ARG001 - every reader takes it
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    for name, size in sizes.items():
        require_small(size, _MOST_IN_MEMORY, f"{name} of {path}")
    arrays, texts = dict[str, np.ndarray](), dict[str, list[Any]]()
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            array = archive[name]
            if array.ndim >= 2 and array.dtype.kind in "fiu":
                arrays[name] = array
            elif array.ndim == 1 and array.dtype.kind in "USiuf":
                values = [os.fsdecode(item) if isinstance(item, bytes) else item for item in array.tolist()]
                texts[name] = values
    vectors = Vectors("npz", chosen(path, arrays))
    take_columns(vectors, texts, str(path))
    return vectors


def _read_txt(path: Path, folder: Path) -> Vectors:
    """Numbers with spaces or commas between them, as ``numpy.savetxt`` writes them."""
    spool = Spool(folder)
    with path.open(encoding="utf-8-sig") as file:
        while lines := [line for line, _ in zip(file, range(_LINES), strict=False)]:
            given = [line for line in lines if line.strip()]
            if given:
                separator = "," if "," in given[0] else None
                spool.append(PENULTIMATE, np.loadtxt(given, delimiter=separator, ndmin=2), str(path))
    return Vectors("txt", spool.matrices())


def _read_safetensors(path: Path, folder: Path) -> Vectors:  # noqa: ARG001 - every reader takes it
    with path.open("rb") as file:
        metadata, tensors = read_header(file, path.stat().st_size)
        arrays, columns = dict[str, np.ndarray](), dict[str, list[Any]]()
        keys = None
        for name, tensor in tensors.items():
            dtype = DTYPES[tensor.dtype]
            if len(tensor.shape) >= 2 and dtype.kind == "f" and all(tensor.shape):
                flat = mapped(file, int(np.prod(tensor.shape[1:])), dtype, offset=tensor.begin, rows=tensor.shape[0])
                arrays[name] = flat.reshape(tensor.shape)
            elif len(tensor.shape) == 1 and dtype.kind in "iu":
                columns[name] = np.fromfile(file, dtype, tensor.shape[0], offset=tensor.begin - file.tell()).tolist()
            elif name == "keys" and tensor.dtype == "U8" and tensor.shape[1:] == (16,):
                keys = mapped(file, 16, dtype, offset=tensor.begin, rows=tensor.shape[0])
    if metadata.get("featx") != MARK:
        vectors = Vectors("safetensors", chosen(path, arrays))
        take_columns(vectors, columns, str(path))
        return vectors
    known = {name: json.loads(metadata[name]) for name in ("paths", "splits", "classes", "columns", "origin")}
    labels = [known["classes"][label] if label >= 0 else "" for label in columns["labels"]]
    return Vectors(
        "featx", arrays, names=known["paths"], labels=labels, splits=known["splits"], keys=keys, columns=known["columns"],
        origin=known["origin"],
    )  # fmt: skip


def _read_pt(path: Path, folder: Path) -> Vectors:
    """Tensors as ``torch.save`` writes them: one, a list of equal ones, or a dictionary of layers or of images."""
    found = load_tensors(path)
    if isinstance(found, np.ndarray):
        return Vectors("torch", {PENULTIMATE: as_rows(found, str(path))})
    if isinstance(found, list):
        spool = Spool(folder)
        for item in found:
            spool.append(PENULTIMATE, item, str(path))
        return Vectors("torch", spool.matrices())
    matrices = {name: array for name, array in found.items() if isinstance(array, np.ndarray) and array.ndim >= 2}
    rows = {name: array for name, array in found.items() if isinstance(array, np.ndarray) and array.ndim == 1}
    if rows and not matrices and len({array.shape for array in rows.values()}) == 1 and len(rows) > 1:
        spool = Spool(folder)
        for array in rows.values():
            spool.append(PENULTIMATE, array, str(path))
        return Vectors("torch", spool.matrices(), names=list(rows))
    vectors = Vectors("torch", chosen(path, matrices))
    columns: dict[str, list[Any]] = {name: array.tolist() for name, array in rows.items()}
    columns |= {name: value for name, value in found.items() if isinstance(value, list)}
    take_columns(vectors, columns, str(path))
    return vectors


def load_tensors(path: Path) -> Any:
    """The tensors of a file of PyTorch as arrays: one, a list, or a dictionary of these and of lists. Nothing in it is run.

    Raises:
        DatasetError: it is damaged, or holds other objects than tensors.
    """
    import torch

    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if type(error).__name__ == "UnpicklingError" and named:
            raise DatasetError(
                f"{path} holds other objects than tensors, such as {named[1]}, which are not loaded since they could run code; "
                "save tensors alone: torch.save(tensor, path)"
            ) from error
        raise DatasetError(f"{path} is not a file of tensors that can be read: {brief(error)}") from error
    return _arrays(found, torch, path)


def _arrays(found: Any, torch: Any, path: Path) -> Any:
    if isinstance(found, torch.Tensor):
        if found.dtype == torch.bfloat16:
            found = found.float()
        if found.is_sparse or found.is_complex() or found.is_quantized:
            raise DatasetError(f"{path} holds a tensor of {found.dtype}; expected a dense one of numbers")
        return found.detach().numpy()
    if isinstance(found, Mapping):
        return {str(name): _arrays(value, torch, path) for name, value in found.items()}
    if isinstance(found, list | tuple):
        if found and all(isinstance(item, torch.Tensor) for item in found):
            return [_arrays(item, torch, path) for item in found]
        return list(found)
    return found


def _read_limited(path: Path, folder: Path) -> Vectors:
    """An HDF5 or MATLAB file."""
    (found,), file = read_in_limits([path], folder)
    return _limited(path, found, file)


def _limited(path: Path, found: Mapping[str, Any], file: IO[bytes]) -> Vectors:
    arrays, was = dict[str, np.ndarray](), dict[str, str]()
    for entry in found["matrices"]:
        shape, name = entry["shape"], entry["name"]
        width = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        if name.rpartition("/")[2] in _COORDINATES or not entry["float"]:
            continue
        matrix = mapped(file, width, np.dtype(entry["dtype"]), offset=entry["offset"], rows=shape[0])
        arrays[name], was[name] = matrix.reshape(shape), entry["was"]
    if found["anndata"]:
        return _anndata(path, found, arrays)
    two = {name: array for name, array in arrays.items() if array.ndim > 1}
    vectors = Vectors("matlab" if path.suffix.lower() == ".mat" else "hdf5", chosen(path, two or arrays))
    _note_types(vectors, was, path)
    columns = {name.rpartition("/")[2]: values for name, values in {**found["texts"], **found["numbers"]}.items()}
    columns |= _coordinates(found, file, len(vectors))
    take_columns(vectors, columns, str(path))
    return vectors


def _coordinates(found: Mapping[str, Any], file: Any, count: int) -> dict[str, list[str]]:
    """The places of the patches of a slide."""
    for entry in found["matrices"]:
        shape = [n for n in entry["shape"] if n != 1] if len(entry["shape"]) > 2 else entry["shape"]
        if entry["name"].rpartition("/")[2] in _COORDINATES and shape == [count, 2]:
            places = mapped(file, 2, np.dtype(entry["dtype"]), offset=entry["offset"], rows=count)
            return {name: [f"{value:g}" for value in places[:, at].tolist()] for at, name in enumerate(("x", "y"))}
    return {}


def _anndata(path: Path, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Vectors:
    layers = {PENULTIMATE: as_rows(arrays["X"], f"X of {path}")} if "X" in arrays else {}
    layers |= {
        name.removeprefix("obsm/"): as_rows(matrix, f"{name} of {path}")
        for name, matrix in arrays.items()
        if name.startswith("obsm/")
    }
    if not layers:
        raise DatasetError(f"{path} has no dense X and no dense obsm; expected (N, D) numbers in one of them")
    require_equal_counts(layers, str(path))
    vectors = Vectors("anndata", layers)
    columns = {name: found["texts"].get(f"obs/{name}", found["numbers"].get(f"obs/{name}")) for name in found["order"]}
    vectors.names = found["texts"].get(f"obs/{found['index']}")
    if vectors.names is not None:
        require_count(len(vectors.names), len(vectors), "names", str(path))
    take_columns(vectors, {name: values for name, values in columns.items() if values is not None}, str(path))
    return vectors


def _note_types(vectors: Vectors, was: Mapping[str, str], path: Path) -> None:
    if "float64" in was.values():
        vectors.notes.append(f"{path.name} holds float64 numbers; they are stored as float32")


def take_columns(vectors: Vectors, columns: Mapping[str, list[Any]], where: str) -> None:
    """Keep the columns of a file that have an item for each vector: names, labels, splits, keys and others."""
    fit = {name: unique_texts(values) for name, values in columns.items() if len(values) == len(vectors)}
    name = first_of(list(fit), NAME_COLUMNS) if vectors.names is None else None
    if name is not None:
        vectors.names = fit.pop(name)
    elif vectors.names is None and (wrong := first_of(list(columns), NAME_COLUMNS)) is not None:
        require_count(len(columns[wrong]), len(vectors), f"items of {wrong}", where)
    plain = [each for each in fit if each != "y" or "x" not in fit]  # x and y are places
    if (label := first_of(plain, LABEL_COLUMNS)) is not None:
        vectors.labels = fit.pop(label)
    if (split := first_of(list(fit), SPLIT_COLUMNS)) is not None:
        vectors.splits = fit.pop(split)
    fit.pop("label_index", None)
    if vectors.keys is None and "key" in fit:
        vectors.keys = keys_of(fit["key"])
        if vectors.keys is not None:
            del fit["key"]
    vectors.columns |= fit


def keys_of(texts: list[str]) -> np.ndarray | None:
    """Keys of images from hexadecimal digits: (N, 16) uint8; None if the texts are something else."""
    try:
        raw = b"".join(bytes.fromhex(text) for text in texts)
    except ValueError:
        return None
    if len(raw) != 16 * len(texts) or any(len(text) != 32 for text in texts):
        return None
    return np.frombuffer(raw, np.uint8).reshape(-1, 16)


_READERS: dict[str, Callable[[Path, Path], Vectors]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".txt": _read_txt,
    ".safetensors": _read_safetensors,
    ".pt": _read_pt,
    ".pth": _read_pt,
    ".h5": _read_limited,
    ".hdf5": _read_limited,
    ".h5ad": _read_limited,
    ".mat": _read_limited,
}
