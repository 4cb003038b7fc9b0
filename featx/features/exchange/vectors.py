"""Vectors of another tool, as they were read: matrices, names, and what is known of the rows."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from featx.errors import DatasetError, OutputError
from featx.features.stacked_rows import StackedRows
from featx.text import counted, listed, size_text

BLOCK = 16 << 20
"""Bytes that are read or written at a time."""

NAMED_ENDINGS = (".npy", ".npz", ".txt", ".safetensors", ".pt", ".pth", ".h5", ".hdf5", ".h5ad", ".mat")
"""The endings of files of arrays."""

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".feather")
"""The endings of tables with embeddings in them."""

SLIDES = "slides"
"""The tool of several vectors in each of several files, whose column ``slide`` names the file of each."""

_MOST_WIDTH = (1 << 24) - 1


@dataclass
class Vectors:
    """N vectors of one or several layers, and what their files tell of them. Every column has N items, or is None.

    Attributes:
        tool: what made or holds them, such as "thingsvision" or "npy".
        layers: (N, D) numbers of each layer, memory-mapped where the format can.
        names: of the images.
        labels: names of classes; "" for none. Several labels have ``|`` between them.
        splits: "" where there is none.
        keys: (N, 16) uint8, where an export of featx has them.
        columns: further columns of text.
        origin: what an export of featx tells of its features.
        notes: for the user, one sentence each.
        roles: the columns that became ``names``, ``labels`` and ``splits``, and the array that is the penultimate layer
            (``vectors``), by these words.
    """

    tool: str
    layers: dict[str, np.ndarray]
    names: list[str] | None = None
    labels: list[str] | None = None
    splits: list[str] | None = None
    keys: np.ndarray | None = None
    columns: dict[str, list[str]] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    roles: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())))


class Spool:
    """Rows of several matrices, written one block after the other into unnamed files and mapped in the end.

    Args:
        folder: where the files lie; they disappear with the last mapping.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[IO[bytes], int, np.dtype[Any]]] = {}

    def append(self, layer: str, rows: np.ndarray, where: str) -> None:
        """Add (n, D) numbers to a layer.

        Args:
            layer: its name.
            rows: of any type of number; they are stored as float32, or float16 where the first are.
            where: the file that they come from, for messages.

        Raises:
            DatasetError: they are no such rows, or of another width than those before.
            OutputError: the disk is full.
        """
        rows = as_rows(rows, where)
        if layer not in self._files:
            self._files[layer] = (unnamed_file(self._folder), rows.shape[1], storable_type(rows.dtype))
        file, width, dtype = self._files[layer]
        if rows.shape[1] != width:
            raise DatasetError(
                f"{where} has vectors of {counted(rows.shape[1], 'number')}; expected {width}, as in the ones before"
            )
        with output_errors(self._folder):
            for at in range(0, len(rows), step := max(1, BLOCK // (4 * width))):
                with np.errstate(over="ignore"):
                    file.write(np.ascontiguousarray(rows[at : at + step], dtype=dtype).tobytes())

    def matrices(self) -> dict[str, np.ndarray]:
        """The matrices of all layers, memory-mapped."""
        found = {}
        for layer, (file, width, dtype) in self._files.items():
            with output_errors(self._folder):
                file.flush()
            found[layer] = mapped(file, width, dtype)
        return found


def mapped(
    file: IO[bytes], width: int, dtype: np.dtype[Any], *, offset: int = 0, rows: int | None = None
) -> np.ndarray:
    """The rows of a matrix in a file, memory-mapped."""
    if rows is None:
        rows = (os.fstat(file.fileno()).st_size - offset) // (width * dtype.itemsize)
    if not rows:
        return np.empty((0, width), dtype)
    return np.memmap(file, dtype, "r", offset, (rows, width))


def let_go(array: np.ndarray | StackedRows) -> None:
    """Let the system take back the memory of what was read of a mapped file."""
    if isinstance(array, StackedRows):
        array.forget()
        return
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") and not array.flags.writeable:
        base.madvise(mmap.MADV_DONTNEED)


def unnamed_file(folder: Path) -> IO[bytes]:
    """A file without a name in a folder, or in the system's temporary folder if that cannot be written."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()


@contextlib.contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the system into an OutputError about temporary space."""
    try:
        yield
    except OSError as error:
        raise no_room(folder, error.strerror or "") from error


def no_room(folder: Path, why: str) -> OutputError:
    """The error for temporary files that do not fit on a disk."""
    return OutputError(
        f"there is no room in {folder} for the vectors while they are read: {why}; name a file on another disk with -o"
    )


def storable_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which a feature file stores numbers: float16 stays, everything else is float32."""
    return np.dtype("<f2") if dtype == np.float16 else np.dtype("<f4")


def as_rows(found: np.ndarray, where: str) -> np.ndarray:
    """A matrix (n, D) of numbers: a single vector is one row, and axes of length 1 are dropped.

    Raises:
        DatasetError: it holds no numbers, or has more axes.

    Examples:
        >>> as_rows(np.zeros((1, 5, 3)), "a.npy").shape, as_rows(np.zeros((5, 3, 1, 1)), "a.npy").shape
        ((5, 3), (5, 3))
    """
    if found.dtype.kind not in "fiub" or found.dtype.itemsize > 8:
        raise DatasetError(f"{where} holds {found.dtype}; expected numbers")
    while found.ndim > 2 and found.shape[-1] == 1:
        found = found[..., 0]
    while found.ndim > 2 and found.shape[0] == 1:
        found = found[0]
    if found.ndim == 1:
        found = found[None]
    if found.ndim != 2:
        raise DatasetError(
            f"{where} is an array of shape {found.shape}; expected (N, D), one vector for each image. Average or flatten the "
            "other axes first, such as the places of a feature map or the tokens of a transformer"
        )
    if not 1 <= found.shape[1] <= _MOST_WIDTH:
        raise DatasetError(f"{where} has vectors of {found.shape[1]:,} numbers; expected 1 to {_MOST_WIDTH:,}")
    return found


def require_count(count: int, expected: int, what: str, where: str) -> None:
    """Refuse a list of another length than the vectors.

    Raises:
        DatasetError: with both numbers.
    """
    if count != expected:
        raise DatasetError(
            f"{where} has {counted(count, what)} for {counted(expected, 'vector')}; expected one for each vector"
        )


def require_equal_counts(layers: Mapping[str, np.ndarray], where: str) -> None:
    """Refuse layers of unequal numbers of rows.

    Raises:
        DatasetError: with the numbers.
    """
    if len({len(matrix) for matrix in layers.values()}) > 1:
        counts = [f"{len(matrix):,} in {name}" for name, matrix in layers.items()]
        raise DatasetError(
            f"{where} has layers of unequal numbers of rows ({listed(counts)}); expected the same images in each"
        )


def require_small(size: int, most: int, where: str) -> None:
    """Refuse what is too large for memory.

    Raises:
        DatasetError: with the sizes.
    """
    if size > most:
        raise DatasetError(
            f"{where} would take {size_text(size)} of memory; at most {size_text(most)} are read. Save it as .npy"
        )


def lines_of(path: Path) -> list[str]:
    """The lines of a list of names; a header line such as ``filename`` is none of them."""
    names = os.fsdecode(path.read_bytes().removeprefix(b"\xef\xbb\xbf")).replace("\r\n", "\n").split("\n")
    while names and not names[-1]:
        names.pop()
    return names


def unique_texts(values: Iterable[Any]) -> list[str]:
    """Values as text; None and NaN are empty, and whole numbers have no fraction.

    Examples:
        >>> unique_texts(["a", 2.0, 0.5, None, float("nan")])
        ['a', '2', '0.5', '', '']
    """
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def numbers_of(array: np.ndarray) -> list[Any]:
    """The numbers of an array as those that a person wrote: 0.1 of float32 is 0.1, and not 0.10000000149011612."""
    flat = array.reshape(-1)
    if flat.dtype.kind == "f" and flat.dtype.itemsize < 8:
        return [float(str(number)) for number in flat]
    return list(flat.tolist())


def keys_of(texts: list[str]) -> np.ndarray | None:
    """Keys of images from hexadecimal digits: (N, 16) uint8; None if the texts are something else."""
    try:
        raw = b"".join(bytes.fromhex(text) for text in texts)
    except ValueError:
        return None
    if len(raw) != 16 * len(texts) or any(len(text) != 32 for text in texts):
        return None
    return np.frombuffer(raw, np.uint8).reshape(-1, 16)


def first_of(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of some names that is wanted, in the order of the wanted ones; case, plurals, spaces, - and _ do not count.

    Examples:
        >>> first_of(["Label", "Image_Names"], ["path", "imagename"])
        'Image_Names'
    """
    plain = {_plain(name): name for name in reversed(names)}
    return next((plain[key] for each in wanted if (key := _plain(each)) in plain), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in " -_").rstrip("s")


NAME_COLUMNS = (
    "path", "imagepath", "filepath", "filename", "filenames", "file", "files", "paths", "image", "imagename", "imagefile",
    "name", "names", "fname", "origin", "imageid", "id", "url", "key",
)  # fmt: skip
"""Names of columns or arrays of names, without case, spaces, - and _; the first that is there is taken."""

LABEL_COLUMNS = ("label", "labels", "class", "classname", "category", "target", "targets", "y")
"""Names of columns or arrays of labels."""

SPLIT_COLUMNS = ("split", "splits", "set", "subset", "partition")
"""Names of columns of splits."""

VECTOR_COLUMNS = (
    "features", "feature", "feats", "feat", "embeddings", "embedding", "emb", "imgemb", "imageembedding", "imageembeddings",
    "imageembeds", "imagefeatures", "vectors", "vector", "x", "data", "penultimate",
)  # fmt: skip
"""Names of arrays or columns of lists of features."""
