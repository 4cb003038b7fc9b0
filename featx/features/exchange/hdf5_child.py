"""HDF5 and MATLAB files of strangers, read in a process of their own, whose memory, time and output are limited.

``limited.py`` starts it. It follows hard links alone, and reads nothing that lies outside the file or is larger than the file
can hold: no external storage, no virtual data sets, no filters but HDF5's own. It writes matrices as raw numbers to a file that
it inherits, and one JSON object to stdout.
"""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.features.exchange.hdf5_anndata import is_anndata, read_anndata
from featx.features.exchange.hdf5_blocks import FaultError, text_of, write_blocks

_MOST_OBJECTS, _MOST_DEPTH = 100_000, 32
_MOST_RATIO = 100
"""How many times larger than its place in the file a data set may be when it is decompressed."""

_SMALL = 1 << 20
_MOST_CHUNK = 512 << 20
_MOST_TEXTS = 50_000_000

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters of the HDF5 library and of h5py, which need no plug-in."""


def main(request: str) -> None:
    """Read files as a request in JSON says: ``paths``, ``out`` (a descriptor), ``memory``, ``output`` (bytes), ``seconds``."""
    asked = json.loads(request)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"], asked["seconds"] + 5))
    resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], asked["memory"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (asked["output"], asked["output"]))
    out = os.fdopen(asked["out"], "wb")
    sys.stdout.write(json.dumps([_read(path, out, asked["output"]) for path in asked["paths"]]))


def _read(path: str, out: Any, most: int) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            is_hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n" or _has_later_signature(file)
        found = _read_hdf5(path, out, most) if is_hdf5 else _read_matlab(path, out)
        out.flush()
    except FaultError as error:
        return {"fault": str(error)}
    except MemoryError:
        return {"fault": "needs more memory than is given to a file of a stranger"}
    except (OSError, ValueError, LookupError, AttributeError, RuntimeError, TypeError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"no_room": os.strerror(error.errno)}
        return {"fault": f"cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"}
    return found


def _has_later_signature(file: Any) -> bool:
    """Whether HDF5 begins after a user block, as in MATLAB files of version 7.3."""
    file.seek(512)
    return bool(file.read(8) == b"\x89HDF\r\n\x1a\n")


def _read_hdf5(path: str, out: Any, most: int) -> dict[str, Any]:
    import h5py

    size = os.stat(path).st_size  # noqa: PTH116
    with h5py.File(path, "r", locking=False) as root:
        if text_of(root.attrs.get("format", "")) == "featx-features":
            raise FaultError("is a feature file of featx already; name it where FEATURES is expected")
        kinds: dict[str, Any] = {}
        for name, dataset in _datasets(root, h5py):
            _require_inside(name, dataset, size)
            kinds[name] = dataset
        if is_anndata(root):
            return read_anndata(root, out, most)
        is_matlab = any("MATLAB_class" in dataset.attrs for dataset in kinds.values())
        found: dict[str, Any] = {"matrices": [], "texts": {}, "numbers": {}, "anndata": False}
        for name, dataset in kinds.items():
            _take(name, dataset, found, out, h5py, is_matlab)
        return found


def _datasets(root: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    """Every data set that hard links lead to, each once."""
    seen, todo, count = {_place(root, h5py)}, [("", root, 0)], 0
    while todo:
        prefix, group, depth = todo.pop(0)
        if depth > _MOST_DEPTH:
            raise FaultError(f"has groups more than {_MOST_DEPTH} deep")
        for name in group:
            full, count = f"{prefix}{name}", count + 1
            if count > _MOST_OBJECTS:
                raise FaultError(f"has more than {_MOST_OBJECTS:,} objects")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
                raise FaultError(f"has {kind}, {full}, and links are not followed; expected data sets of its own")
            found = group[name]
            place = _place(found, h5py)
            if place in seen:
                continue
            seen.add(place)
            if isinstance(found, h5py.Group):
                todo.append((f"{full}/", found, depth + 1))
            elif isinstance(found, h5py.Dataset):
                yield full, found


def _place(found: Any, h5py: Any) -> int:
    return int(h5py.h5o.get_info(found.id).addr)


def _require_inside(name: str, dataset: Any, size: int) -> None:
    """Refuse a data set whose numbers lie elsewhere, or that is larger than the file can hold."""
    plist = dataset.id.get_create_plist()
    if dataset.is_virtual:
        raise FaultError(f"has a virtual data set, {name}, whose numbers lie in other files")
    if plist.get_external_count():
        raise FaultError(f"has a data set, {name}, whose numbers lie in another file")
    for number in range(plist.get_nfilters()):
        code = plist.get_filter(number)[0]
        if code not in _FILTERS:
            raise FaultError(
                f"has a data set, {name}, with the filter {code}; known are {', '.join(_FILTERS.values())}"
            )
    if dataset.shape is None:
        return
    declared, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if stored > size or declared > max(_SMALL, _MOST_RATIO * stored):
        raise FaultError(
            f"has a data set, {name}, of {declared:,} bytes that takes {stored:,} of a file of {size:,}; such a file "
            "would fill the disk"
        )
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > _MOST_CHUNK:
        raise FaultError(f"has a data set, {name}, in chunks of more than {_MOST_CHUNK:,} bytes")


def _take(name: str, dataset: Any, found: dict[str, Any], out: Any, h5py: Any, is_matlab: bool) -> None:
    """Write a matrix, or keep a column."""
    shape, kind = dataset.shape, dataset.dtype.kind
    if shape is None:
        return
    text = h5py.check_string_dtype(dataset.dtype)
    if text is not None:
        if len(shape) <= 1 and math.prod(shape) <= _MOST_TEXTS:
            values = np.atleast_1d(dataset[()])
            found["texts"][name] = [text_of(value) for value in values.tolist()]
        return
    if kind not in "fiub" or dataset.dtype.itemsize > 8 or not math.prod(shape):
        return
    if len(shape) >= 2 or (len(shape) == 1 and kind == "f"):
        begin = out.tell()
        dtype = "<f2" if dataset.dtype == np.float16 else "<f4"
        if len(shape) == 1 and dataset.dtype.itemsize == 8:
            dtype = "<f8"  # it may be a column, whose numbers stay as they are
        transposed = is_matlab and len(shape) == 2
        if transposed:
            out.write(np.ascontiguousarray(dataset[()].T, dtype=dtype).tobytes())
            shape = shape[::-1]
        else:
            write_blocks(dataset, dtype, out)
        found["matrices"].append(
            {
                "name": name,
                "shape": list(shape),
                "dtype": dtype,
                "offset": begin,
                "was": dataset.dtype.name,
                "float": kind == "f",
            }
        )
    elif len(shape) == 1 and shape[0] <= _MOST_TEXTS:
        found["numbers"][name] = dataset[()].tolist()


def _read_matlab(path: str, out: Any) -> dict[str, Any]:
    from scipy import io

    variables = io.loadmat(path, struct_as_record=True, squeeze_me=False)
    found: dict[str, Any] = {"matrices": [], "texts": {}, "numbers": {}, "anndata": False}
    for name, value in variables.items():
        if name.startswith("__") or not isinstance(value, np.ndarray):
            continue
        if value.dtype.kind in "fiu" and value.ndim >= 2 and value.size:
            flat = value.size == max(value.shape)
            if flat and value.dtype.kind in "iu":
                found["numbers"][name] = value.reshape(-1).tolist()
                continue
            dtype = "<f2" if value.dtype == np.float16 else "<f4"
            found["matrices"].append(
                {
                    "name": name, "shape": list(value.shape), "dtype": dtype, "offset": out.tell(), "was": value.dtype.name,
                    "float": value.dtype.kind == "f",
                }
            )  # fmt: skip
            with np.errstate(over="ignore"):
                out.write(np.ascontiguousarray(value, dtype=dtype).tobytes())
        elif value.dtype.kind == "U":
            found["texts"][name] = [text.strip() for text in value.reshape(-1).tolist()]
        elif value.dtype.kind == "O":
            cells = [
                cell for cell in value.reshape(-1).tolist() if isinstance(cell, np.ndarray) and cell.dtype.kind == "U"
            ]
            if len(cells) == value.size:
                found["texts"][name] = ["".join(cell.reshape(-1).tolist()) for cell in cells]
    return found
