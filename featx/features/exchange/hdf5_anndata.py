"""What an ``.h5ad`` file holds: ``X`` and ``obsm``, dense or sparse, and the columns of ``obs``.

It runs in the process of ``hdf5_child.py``, which has checked every data set of the file. Sparse matrices are written with all
their zeros, block by block. https://anndata.readthedocs.io/en/stable/fileformat-prose.html describes the format.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from featx.features.exchange.hdf5_blocks import BLOCK, FaultError, text_of, write_blocks

_MOST_COLUMNS = 10_000
_MOST_SMALL = 50_000_000


def is_anndata(root: Any) -> bool:
    """Whether a file of HDF5 was written by anndata 0.7 or later."""
    return text_of(root.attrs.get("encoding-type", "")) == "anndata" or (
        "obs" in root and "_index" in root["obs"].attrs
    )


def read_anndata(root: Any, out: Any, most: int) -> dict[str, Any]:
    """Write the matrices of a file, and describe it.

    Args:
        root: the open file.
        out: the file that gets the matrices.
        most: the bytes that it may have.

    Returns:
        ``matrices`` as of any file, ``columns`` with a list for each column of ``obs``, and the name of its ``index``.

    Raises:
        FaultError: a matrix is malformed, or too large.
    """
    found: dict[str, Any] = {"matrices": [], "anndata": True, "columns": {}, "index": ""}
    places = [("X", root["X"])] if "X" in root else []
    places += [(f"obsm/{name}", each) for name, each in root["obsm"].items()] if _is_group(root, "obsm") else []
    for name, each in places:
        _take_matrix(name, each, found["matrices"], out, most)
    if _is_group(root, "obs"):
        obs = root["obs"]
        found["index"] = text_of(obs.attrs.get("_index", "_index"))
        order = [text_of(name) for name in list(obs.attrs.get("column-order", []))[:_MOST_COLUMNS]]
        for name in [found["index"], *order]:
            values = _column(obs[name]) if name in obs else None
            if values is not None:
                found["columns"][name] = values
    return found


def _is_group(root: Any, name: str) -> bool:
    return name in root and not hasattr(root[name], "dtype")


def _take_matrix(name: str, found: Any, matrices: list[dict[str, Any]], out: Any, most: int) -> None:
    kind, is_dense = text_of(found.attrs.get("encoding-type", "")), hasattr(found, "dtype")
    if not is_dense and kind not in ("csr_matrix", "csc_matrix"):
        return  # a data frame
    data = found if is_dense else found["data"]
    shape = found.shape if is_dense else _shape(name, found, kind == "csr_matrix")
    if shape is None or len(shape) < 2 or data.dtype.kind not in "fiub" or not math.prod(shape):
        return
    dtype = "<f2" if data.dtype == np.float16 else "<f4"
    begin, size = out.tell(), math.prod(shape) * np.dtype(dtype).itemsize
    if begin + size > most:
        raise FaultError(
            f"has a sparse matrix, {name}, of {shape[0]:,} rows and {shape[1]:,} columns, which takes {size:,} bytes with its "
            "zeros; keep the columns that count, or a reduction such as X_pca"
        )
    if is_dense:
        write_blocks(found, dtype, out)
    elif kind == "csr_matrix":
        _write_rows(name, found, shape, dtype, out)
    else:
        _write_columns(name, found, shape, dtype, out)
    matrices.append(
        {
            "name": name, "shape": list(map(int, shape)), "dtype": dtype, "offset": begin, "was": data.dtype.name,
            "float": data.dtype.kind == "f" or not is_dense, "sparse": not is_dense,
        }
    )  # fmt: skip


def _shape(name: str, group: Any, by_rows: bool) -> tuple[int, int]:
    """The shape of a sparse matrix, whose parts fit it."""
    given = [int(number) for number in np.atleast_1d(group.attrs.get("shape", ())).tolist()]
    parts = [group[part].shape for part in ("data", "indices", "indptr")]
    if len(given) != 2 or min(given) < 0 or any(part is None or len(part) != 1 for part in parts):
        raise FaultError(f"has a sparse matrix, {name}, that is malformed")
    if parts[2][0] != given[0 if by_rows else 1] + 1 or parts[0] != parts[1]:
        raise FaultError(f"has a sparse matrix, {name}, whose parts do not fit its shape, {given[0]:,} x {given[1]:,}")
    return given[0], given[1]


def _starts(name: str, group: Any) -> np.ndarray:
    starts = np.asarray(group["indptr"][()], dtype=np.int64)
    if starts[0] != 0 or starts[-1] != len(group["data"]) or (np.diff(starts) < 0).any():
        raise FaultError(f"has a sparse matrix, {name}, whose rows do not follow one another")
    return starts


def _places(name: str, group: Any, part: slice, most: int) -> np.ndarray:
    found = np.asarray(group["indices"][part], dtype=np.int64)
    if len(found) and (found.min() < 0 or found.max() >= most):
        raise FaultError(f"has a sparse matrix, {name}, with a number outside its {most:,} places")
    return found


def _write_rows(name: str, group: Any, shape: tuple[int, int], dtype: str, out: Any) -> None:
    starts = _starts(name, group)
    step = max(1, BLOCK // (4 * shape[1]))
    for at in range(0, shape[0], step):
        end = min(at + step, shape[0])
        part = slice(int(starts[at]), int(starts[end]))
        rows = np.repeat(np.arange(end - at), np.diff(starts[at : end + 1]))
        block = np.zeros((end - at, shape[1]), np.float64 if group["data"].dtype.itemsize > 4 else np.float32)
        np.add.at(block, (rows, _places(name, group, part, shape[1])), group["data"][part])
        with np.errstate(over="ignore"):
            out.write(np.ascontiguousarray(block, dtype=dtype).tobytes())


def _write_columns(name: str, group: Any, shape: tuple[int, int], dtype: str, out: Any) -> None:
    """A matrix that is stored by columns: all of it is put into the order of its rows."""
    starts = _starts(name, group)
    rows = _places(name, group, slice(None), shape[0])
    order = np.argsort(rows, kind="stable")
    columns = np.repeat(np.arange(shape[1]), np.diff(starts))[order]
    inner = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    _write_rows(name, {"data": group["data"][()][order], "indices": columns, "indptr": inner}, shape, dtype, out)


def _column(found: Any) -> list[Any] | None:
    """A column of obs as a list of texts, numbers and None; None if it has some other form."""
    if hasattr(found, "dtype"):
        return _values(found)
    if "codes" in found and "categories" in found:
        codes, values = found["codes"][()].tolist(), _values(found["categories"])
        return None if values is None else [values[code] if 0 <= code < len(values) else None for code in codes]
    if "values" in found and "mask" in found:
        values, missing = _values(found["values"]), found["mask"][()].tolist()
        return None if values is None else [None if no else value for value, no in zip(values, missing, strict=True)]
    return None


def _values(dataset: Any) -> list[Any] | None:
    if dataset.shape is None or len(dataset.shape) != 1 or dataset.shape[0] > _MOST_SMALL:
        return None
    if dataset.dtype.kind in "OSU":
        return [text_of(value) for value in dataset[()].tolist()]
    if dataset.dtype.kind == "f" and dataset.dtype.itemsize < 8:
        return [float(str(number)) for number in dataset[()]]
    return list(dataset[()].tolist()) if dataset.dtype.kind in "fiub" else None
