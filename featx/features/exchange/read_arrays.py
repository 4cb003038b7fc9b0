"""Files of arrays: ``.npy``, ``.npz``, ``.txt``, ``.safetensors``, ``.pt``, and HDF5 and MATLAB in a limited process."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from featx.errors import DatasetError
from featx.features.exchange.content import MARK
from featx.features.exchange.limited import read_in_limits
from featx.features.exchange.sort_arrays import CLASS_LISTS, sort_arrays, sort_list, take_columns
from featx.features.exchange.vectors import (
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
from featx.text import brief, described, size_text

_MOST_IN_MEMORY = 8 << 30
_SMALL, _MOST_RATIO = 64 << 20, 100
"""A part of an archive that is larger than the first number may take this many times its place in the file."""

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
    except (ValueError, EOFError, LookupError, zipfile.BadZipFile, RuntimeError, TypeError, ArithmeticError) as error:
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
                yield path, _limited(path, of_path[path], file, folder)
            else:
                yield path, read_arrays(path, folder)


def _read_npy(path: Path, folder: Path) -> Vectors:  # noqa: ARG001 - every reader takes it
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    return Vectors("npy", {PENULTIMATE: as_rows(found, str(path))})


def _read_npz(path: Path, folder: Path) -> Vectors:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            require_small(info.file_size, _MOST_IN_MEMORY, f"{info.filename} of {path}")
            if info.file_size > max(_SMALL, _MOST_RATIO * info.compress_size):
                raise DatasetError(
                    f"{path} has {info.filename}, of {info.file_size:,} bytes that take {info.compress_size:,} in the file, so "
                    "it is no file of vectors"
                )
    arrays, texts = dict[str, np.ndarray](), dict[str, list[Any]]()
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            array = _plain_array(archive, name, path)
            if array.ndim and array.dtype.kind in "fiu":
                arrays[name] = array
            elif array.ndim == 1 and array.dtype.kind in "US":
                texts[name] = [os.fsdecode(item) if isinstance(item, bytes) else item for item in array.tolist()]
    if all(re.fullmatch(r"arr_\d+", name) for name in (*arrays, *texts)):
        found = sort_list(path, [*arrays.values(), *texts.values()], "npz", folder)
        if found is not None:
            return found
    return sort_arrays(path, arrays, texts, "npz", folder)


def _plain_array(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(archive[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DatasetError(
            f"{path} has {name}, an array of Python objects, which are not loaded since they could run code; save it as text "
            f"or numbers, such as numpy.savez(file, {name}={name}.astype(str))"
        ) from error


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


def _read_safetensors(path: Path, folder: Path) -> Vectors:
    with path.open("rb") as file:
        try:
            metadata, tensors = read_header(file, path.stat().st_size)
        except ValueError as error:
            hint = "; save tensors as numbers that every reader knows: tensor.float()" if "dtype" in str(error) else ""
            raise DatasetError(f"{path} cannot be read: {brief(error)}{hint}") from error
        arrays, columns = dict[str, np.ndarray](), dict[str, list[Any]]()
        keys = None
        for name, tensor in tensors.items():
            dtype = DTYPES[tensor.dtype]
            if name == "keys" and tensor.dtype == "U8" and tensor.shape[1:] == (16,):
                keys = mapped(file, 16, dtype, offset=tensor.begin, rows=tensor.shape[0])
            elif len(tensor.shape) >= 2 and all(tensor.shape):
                flat = mapped(file, int(np.prod(tensor.shape[1:])), dtype, offset=tensor.begin, rows=tensor.shape[0])
                arrays[name] = flat.reshape(tensor.shape)
            elif len(tensor.shape) == 1 and dtype.kind in "iu":
                columns[name] = np.fromfile(file, dtype, tensor.shape[0], offset=tensor.begin - file.tell()).tolist()
    if metadata.get("featx") != MARK:
        numbers = {name: np.array(values) for name, values in columns.items()}
        return sort_arrays(path, {**arrays, **numbers}, {}, "safetensors", folder)
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
    if isinstance(found, list) and found:
        if (sorted_ := sort_list(path, found, "torch", folder)) is not None:
            return sorted_
        if all(isinstance(item, np.ndarray) for item in found):
            spool = Spool(folder)
            for item in found:
                spool.append(PENULTIMATE, item, str(path))
            return Vectors("torch", spool.matrices())
        if all(isinstance(item, Mapping) for item in found):
            found = _columns_of(found)
    if not isinstance(found, Mapping):
        raise DatasetError(
            f"{path} holds {described(found)}; expected a tensor, a list of tensors, a dictionary of them, or a tuple of "
            "features and labels"
        )
    flat = _flat(found)
    arrays = {name: array for name, array in flat.items() if isinstance(array, np.ndarray) and array.ndim}
    texts = {name: value for name, value in flat.items() if isinstance(value, list)}
    return sort_arrays(path, arrays, texts, "torch", folder)


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A list of dictionaries, one for each image, as a dictionary of columns."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        if len(arrays) == len(values) and len({array.shape for array in arrays}) == 1:
            found[name] = np.stack(arrays)
        else:
            found[name] = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    return found


def _flat(found: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The arrays and lists of nested dictionaries, with / between their names; numbers of classes become a list of names."""
    flat: dict[str, Any] = {}
    for name, value in found.items():
        if not isinstance(value, Mapping):
            flat[f"{before}{name}"] = value
        elif first_of([name], CLASS_LISTS) is not None and sorted(value.values(), key=str) == sorted(
            range(len(value)), key=str
        ):
            flat[f"{before}{name}"] = sorted(value, key=lambda key, numbers=value: numbers[key])  # type: ignore[misc]
        else:
            flat |= _flat(value, f"{before}{name}/")
    return flat


def load_tensors(path: Path) -> Any:
    """The tensors of a file of PyTorch as arrays: one, a list, or a dictionary of these and of lists. Nothing in it is run.

    Raises:
        DatasetError: it is damaged, or holds other objects than tensors.
    """
    import torch

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
            kind = "sparse" if found.is_sparse else "complex" if found.is_complex() else "quantized"
            raise DatasetError(f"{path} holds a {kind} tensor; expected a dense one of plain numbers")
        return found.detach().numpy()
    if isinstance(found, Mapping):
        return {str(name): _arrays(value, torch, path) for name, value in found.items()}
    if isinstance(found, list | tuple):
        if found and all(isinstance(item, torch.Tensor) for item in found):
            return [_arrays(item, torch, path) for item in found]
        return [_arrays(item, torch, path) for item in found]
    return found


def _read_limited(path: Path, folder: Path) -> Vectors:
    """An HDF5 or MATLAB file."""
    (found,), file = read_in_limits([path], folder)
    return _limited(path, found, file, folder)


def _limited(path: Path, found: Mapping[str, Any], file: IO[bytes], folder: Path) -> Vectors:
    arrays, was = dict[str, np.ndarray](), set[str]()
    for entry in found["matrices"]:
        shape = entry["shape"]
        matrix = mapped(
            file,
            int(np.prod(shape[1:])) if len(shape) > 1 else 1,
            np.dtype(entry["dtype"]),
            offset=entry["offset"],
            rows=shape[0],
        ).reshape(shape)
        arrays[entry["name"]] = matrix if entry["float"] else np.asarray(matrix, dtype=np.int64)
        was |= {entry["was"]} if entry["float"] and len(shape) > 1 else set()
    if found["anndata"]:
        return _anndata(path, found, arrays)
    arrays |= {name: np.array(values) for name, values in found["numbers"].items()}
    vectors = sort_arrays(path, arrays, found["texts"], "matlab" if path.suffix.lower() == ".mat" else "hdf5", folder)
    if "float64" in was:
        vectors.notes.append(f"{path.name} holds float64 numbers; they are stored as float32")
    return vectors


def _anndata(path: Path, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Vectors:
    layers = {PENULTIMATE: as_rows(arrays["X"], f"X of {path}")} if "X" in arrays else {}
    layers |= {
        name.removeprefix("obsm/"): as_rows(matrix, f"{name} of {path}")
        for name, matrix in arrays.items()
        if name.startswith("obsm/")
    }
    if not layers:
        raise DatasetError(f"{path} has neither X nor obsm; expected (N, D) numbers in one of them")
    require_equal_counts(layers, str(path))
    vectors = Vectors("anndata", layers, roles={"vectors": "X"} if PENULTIMATE in layers else {})
    for entry in found["matrices"]:
        if entry["sparse"]:
            vectors.notes.append(
                f"{entry['name']} of {path.name} is sparse; it is stored with all its zeros, in "
                f"{size_text(math.prod(entry['shape']) * np.dtype(entry['dtype']).itemsize)}"
            )
    if PENULTIMATE not in layers:
        main = max(layers, key=lambda name: layers[name].shape[1])
        vectors.layers = {PENULTIMATE: layers.pop(main), **layers}
        vectors.roles["vectors"] = main
        vectors.notes.append(f"{path.name} has no X; the layer penultimate is {main} of obsm")
    names = found["columns"].pop(found["index"], None)
    if names is not None:
        require_count(len(names), len(vectors), "name", str(path))
        vectors.names = unique_texts(names)
    take_columns(vectors, found["columns"], str(path))
    return vectors


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
