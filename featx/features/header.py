"""The header of a feature file: its attributes and the layout of its tables, and its further columns, read one by one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import path_of
from featx.constants import CACHE
from featx.errors import CacheMissError, CorruptFileError, StaleCacheError, UnknownVersionError
from featx.features import hdf5
from featx.features.open_file import OpenFile, read_array, read_errors
from featx.identity import brief_value
from featx.io.file_kinds import FEATURE_FILE, HDF5, data_hint, misplaced
from featx.io.strict_json import strict_json
from featx.text import counted, listed, native

FORMAT, VERSION = "featx-features", 1

WITH_COLUMNS = 2
"""The version of a file with further columns; all others are of version 1."""

VERSIONS = (VERSION, WITH_COLUMNS)
"""The versions that featx reads."""

INCOMPLETE: Mapping[str, hdf5.Value] = {"digest": b"0" * 64, "complete": np.uint8(0)}
"""The attributes of a file whose extraction has not finished."""

COLUMNS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "classes": ("S", ()),
    "images/path": ("S", ()),
    "images/label": ("<i8", ()),
    "images/split": ("S", ()),
    "images/size": ("<i8", ()),
    "images/mtime_ns": ("<i8", ()),
    "images/key": ("u1", (16,)),
    "images/status": ("u1", ()),
    "images/error": ("S", ()),
}
"""Every table except the features and their checksums: its type, and the shape of one row."""

_COLUMNS = "columns/"
_ESCAPES = {"%": "%25", "/": "%2F"}
_FEATURE_TYPES = (np.dtype("<f4"), np.dtype("<f2"))
_MAX_PATH, _MAX_WIDTH = 1 << 12, 1 << 24
"""The longest path that a system allows, and the most numbers in a row. A file that exceeds them is refused."""


@dataclass(frozen=True)
class Layer:
    """One layer of a feature file.

    Attributes:
        dim: width D of its features.
        dtype: float32 or float16, little-endian.
        identity: SHA-256, in hex, of everything that the features depend on.
        offset: where its rows begin in the file, in bytes.
    """

    dim: int
    dtype: np.dtype[Any]
    identity: str
    offset: int


class FeatureFileHeader:
    """The header of a feature file. Opening one reads a few kilobytes, however large the file is.

    Attributes:
        path: the path of the file.
        complete: whether the extraction finished.
        identity: SHA-256, in hex, of all layers together.
        digest: SHA-256, in hex, of everything but the features; until the file is complete, the engine's name and zeros.
        backbone: name, weights, and the parts that the identity is made of.
        dataset: name, root, whether splits were "given" or made by "hash", the limits that images were read under, and the
            table that named the images, if there was one.
        layers: the layers by name.
        rows: the number of images.
        column_names: the names of the further columns, in their order.
        structure: the parsed HDF5 structure.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_partial: bool = True) -> None:
        """Open a file and check its header.

        Args:
            path: the path of the file.
            allow_partial: also accept the file of an interrupted extraction.

        Raises:
            CacheMissError: there is no such file.
            UnreadableFileError: the system cannot read it.
            UnknownVersionError: it has an unknown version.
            CorruptFileError: it is not a feature file, is incomplete, or is damaged.
        """
        self.path = Path(path_of(path, "the feature file"))
        with _naming_kind(self.path):
            self._file = OpenFile(self.path)
            with read_errors(self.path):
                self.structure = hdf5.parse(self._file.fileno(), self.path, torn=INCOMPLETE if allow_partial else None)
        attrs = self.structure.attrs
        found = (attrs.get("format"), attrs.get("version"))
        if found[0] != FORMAT or found[1] not in VERSIONS or isinstance(found[1], np.uint8):
            shown = "format {}, version {}".format(*map(brief_value, map(repr, found)))
            expected = f"expected {FORMAT}, {' or '.join(map(str, VERSIONS))}"
            if found[0] == FORMAT:
                raise UnknownVersionError(f"{self.path}: {shown}; {expected}. A newer featx may read it")
            raise CorruptFileError(f"{self.path}: {shown}; {expected}")
        self.complete = bool(self._attribute("complete", np.uint8))
        if not self.complete and not allow_partial:
            raise CorruptFileError(f"{self.path} is incomplete; run the same featx extract again to finish it")
        self.identity: str = self._attribute("identity", str)
        self.digest: str = self._attribute("digest", bytes).decode("ascii", errors="replace")
        self.backbone = self._json("backbone", name=str, weights=str, parts=dict)
        self.dataset = self._json("dataset", name=str, root=str, splits=str)
        self._check_dataset()
        self.column_names = tuple(name_of_column(name) for name in self.structure.tables if name.startswith(_COLUMNS))
        self.rows = self._check_tables()
        self.layers = {
            name.removeprefix("features/"): Layer(t.shape[1], t.dtype, t.attrs["identity"], t.offset)
            for name, t in self.structure.tables.items()
            if name.startswith("features/")
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path, not the descriptor, which is another file's in another process."""
        return _opened_again, (type(self), self.path.absolute(), self.complete, self.digest)

    @property
    def engine(self) -> str:
        """The engine that computes the features of an unfinished file; "" if none has begun, and in a complete file."""
        return "" if self.complete else self.digest.strip("0")

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each layer, by its name."""
        return {name: layer.identity for name, layer in self.layers.items()}

    @property
    def root(self) -> str:
        """Where the images of the data set are, as ``ImageSet.root``: a local path or a URL."""
        return native(self.dataset["root"])

    def column(self, name: str) -> np.ndarray:
        """The cells of a further column: (N,) object array of str, "" where a cell is empty.

        Raises:
            CacheMissError: there is no such column.
            UnreadableFileError: the system cannot read the file.
        """
        if name not in self.column_names:
            raise CacheMissError(f"{self.path} has no column {name!r}; it has {listed(self.column_names) or 'none'}")
        cells = np.empty(self.rows, dtype=object)
        cells[:] = [cell.decode(errors="replace") for cell in self.encoded_column(name).tolist()]
        return cells

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The further columns by their names, as ``column`` reads them."""
        return {name: self.column(name) for name in self.column_names}

    def encoded_column(self, name: str) -> np.ndarray:
        """The cells of a further column: (N,) bytes, UTF-8."""
        with read_errors(self.path), self._file.needed() as file:
            table = self.structure.tables[table_of_column(name)]
            return read_array(file, table.dtype, table.shape, table.offset)

    def holds(self, identities: Mapping[str, str]) -> bool:
        """Whether the file has all these layers with these identities.

        Args:
            identities: identities by the name of the layer.
        """
        return all(name in self.layers and self.layers[name].identity == i for name, i in identities.items())

    def _attribute(self, name: str, kind: type[Any]) -> Any:
        value = self.structure.attrs.get(name)
        if not isinstance(value, kind):
            shown = brief_value(repr(value))
            raise CorruptFileError(f"{self.path}: the attribute {name} is {shown}; expected {kind.__name__}")
        return value

    def _json(self, attribute: str, /, **expected: type[Any]) -> dict[str, Any]:
        try:
            value = strict_json(self._attribute(attribute, str))
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")  # refuses half a surrogate pair
        except ValueError as error:
            raise CorruptFileError(f"{self.path}: the attribute {attribute} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise CorruptFileError(f"{self.path}: the attribute {attribute} is not a JSON object")
        for key, kind in expected.items():
            if not isinstance(value.get(key), kind):
                raise CorruptFileError(f"{self.path}: {key} of the attribute {attribute} is not a {kind.__name__}")
        return value

    def _check_dataset(self) -> None:
        table = self.dataset.get("table", "")
        lengths = [len(self.dataset["root"]), len(table) if isinstance(table, str) else _MAX_PATH + 1]
        if not isinstance(self.dataset.get("max_pixels", 0), int) or max(lengths) > _MAX_PATH:
            raise CorruptFileError(f"{self.path}: max_pixels, root or table of the attribute dataset is not valid")

    def _check_tables(self) -> int:
        """Check that every table has the name, type and shape of the format, and return the number of rows."""
        tables = self.structure.tables
        rows = tables["images/status"].shape[0] if "images/status" in tables else 0
        layers = [name.removeprefix("features/") for name in tables if name.startswith("features/")]
        expected = [
            *COLUMNS,
            *map(table_of_column, self.column_names),
            *(f"{group}/{layer}" for layer in layers for group in ("features", "checks")),
        ]
        needs_columns = self.structure.attrs["version"] == WITH_COLUMNS
        if needs_columns != bool(self.column_names):
            found = (
                f"{counted(len(self.column_names), 'column')}, and is of version {self.structure.attrs['version']!r}"
            )
            raise CorruptFileError(f"{self.path} has {found}; version {WITH_COLUMNS} has some, version {VERSION} none")
        if list(tables) != expected or not layers:
            shown, wanted = brief_value(", ".join(tables)), brief_value(", ".join(expected))
            raise CorruptFileError(f"{self.path} has the tables {shown}; expected {wanted}")
        for name, table in tables.items():
            if not _is_valid_table(name, table, rows):
                raise CorruptFileError(
                    f"{self.path}: {name} is {table.shape} of {table.dtype}, for {counted(rows, 'row')}"
                )
        if not rows:
            raise CorruptFileError(f"{self.path} has no rows")
        return rows


def table_of_column(name: str) -> str:
    """The table of a further column; characters that HDF5 does not allow in a name are escaped as in a URL.

    Examples:
        >>> table_of_column("mg/dl"), table_of_column(".")
        ('columns/mg%2Fdl', 'columns/%2E')
    """
    return _COLUMNS + ("%2E" if name == "." else "".join(_ESCAPES.get(letter, letter) for letter in name))


def name_of_column(table: str) -> str:
    """The inverse of ``table_of_column``."""
    name = table.removeprefix(_COLUMNS)
    return name.replace("%2F", "/").replace("%2E", ".").replace("%25", "%")


def _opened_again(kind: type[FeatureFileHeader], path: Path, complete: bool, digest: str) -> FeatureFileHeader:
    """Open a file that was pickled.

    Raises:
        StaleCacheError: the path leads to other features by now.
    """
    file = kind(path, allow_partial=not complete)
    if complete and file.digest != digest:
        raise StaleCacheError(f"{path} has been replaced since this object was pickled; open the file again")
    return file


def partial_path(path: Path) -> Path:
    """The path of the unfinished file that becomes ``path`` when it is complete: ``<name>.h5.partial``."""
    return path.with_name(path.name + ".partial")


@contextlib.contextmanager
def _naming_kind(path: Path) -> Iterator[None]:
    """Name the kind of a file that is no feature file, in the place of what is wrong with its structure."""
    try:
        yield
    except CorruptFileError as error:
        if found := misplaced(
            path, f"a feature file, which featx extract makes in the folder {CACHE}", fits=[FEATURE_FILE, HDF5]
        ):
            raise CorruptFileError(f"{found}{data_hint(path)}") from error
        raise


def _is_valid_table(name: str, table: hdf5.Table, rows: int) -> bool:
    """Whether a table has the type, shape and attributes of the format."""
    group = name.partition("/")[0]
    if group == "features":
        is_matrix = table.shape[:1] == (rows,) and (0,) < table.shape[1:] < (_MAX_WIDTH,)
        return is_matrix and table.dtype in _FEATURE_TYPES and "identity" in table.attrs
    if group == "columns":
        return table.dtype.kind == "S" and table.shape == (rows,)
    if group == "checks":
        return (table.dtype, table.shape) == (np.dtype("<u4"), (rows,))
    count = table.shape[0] if name == "classes" and table.shape else rows
    kind, shape = COLUMNS[name]
    return (table.dtype.kind == kind or table.dtype.str == np.dtype(kind).str) and table.shape == (count, *shape)
