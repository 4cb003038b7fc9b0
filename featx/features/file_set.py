"""A set of feature files that hold one data set together, opened as one; and ``open_features``, which opens a file or a set."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from featx.arguments import path_of
from featx.errors import CacheMissError, CorruptFileError
from featx.features.feature_file import FeatureFile, ImageTable
from featx.features.header import Layer
from featx.features.manifest import SETS, Manifest, manifest_path
from featx.features.stacked_rows import StackedRows
from featx.io.file_kinds import FEATURE_SET, MANIFEST, kind_of_file
from featx.text import counted, native

_SAME = ("name", "root", "splits", "table")
"""What the files of a set state alike about the data set."""


class FeatureFileSet:
    """The files of a set, open for reading, as one feature file: the rows of one file after the other.

    The tables are put together when they are asked for. The features stay in the files, see ``StackedRows``.

    Attributes:
        path: the folder.
        files: the feature files, in the order of the paths.
        manifest: what the set consists of.
        identity, backbone, dataset, layers, classes, column_names: of each file.
        rows: the number of images.

    Example:

        files = featx.features.file_set.FeatureFileSet("cache/photos--resnet50.set")
        print(len(files.files), files.rows, files.features("penultimate")[[5, 20_000_000]].shape)
    """

    complete = True
    engine = ""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open all files, and check them against the manifest and against one another.

        Args:
            path: the folder of the set, or its manifest.

        Raises:
            CacheMissError: the manifest or a file is missing.
            CorruptFileError: the manifest or a file is damaged, or a file is another one than the manifest lists.
        """
        path = Path(path_of(path, "the set of feature files"))
        self.path, self.manifest = folder_of(path), Manifest.read(path)
        self.files = tuple(_each_of_set(self.path, self.manifest))
        first = self.files[0]
        self.identity, self.backbone, self.dataset = first.identity, first.backbone, first.dataset
        self.classes, self.column_names = first.classes, first.column_names
        self.layers: dict[str, Layer] = first.layers
        self.rows = self.manifest.rows
        self._ends = np.cumsum([len(file) for file in self.files])

    def __len__(self) -> int:
        return self.rows

    @property
    def root(self) -> str:
        """Where the images of the data set are, as ``ImageSet.root``."""
        return native(self.dataset["root"])

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each layer, by its name."""
        return self.files[0].identities

    @cached_property
    def images(self) -> ImageTable:
        """The table of images."""
        tables = [file.images for file in self.files]
        names = ImageTable.__dataclass_fields__
        return ImageTable(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})

    @cached_property
    def keys(self) -> np.ndarray:
        """(N, 16) uint8, content hashes of the images."""
        return np.concatenate([file.keys for file in self.files])

    @cached_property
    def status(self) -> np.ndarray:
        """(N,) uint8, as ``FeatureFile.status``."""
        return np.concatenate([file.status for file in self.files])

    @property
    def paths(self) -> list[str]:
        """The paths of the images, relative to the root."""
        return [path for file in self.files for path in file.paths]

    @property
    def splits(self) -> np.ndarray:
        """The split of each image: (N,) str."""
        return np.concatenate([file.splits for file in self.files])

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The further columns by their names."""
        return {name: self.column(name) for name in self.column_names}

    def column(self, name: str) -> np.ndarray:
        """The cells of a further column: (N,) object array of str."""
        return np.concatenate([file.column(name) for file in self.files])

    def holds(self, identities: Any) -> bool:
        """Whether the files have all these layers with these identities."""
        return self.files[0].holds(identities)

    def layer(self, name: str) -> Layer:
        """The description of a layer.

        Raises:
            CacheMissError: the files have no such layer.
        """
        return self.files[0].layer(name)

    def features(self, layer: str) -> np.ndarray:
        """The features of a layer, memory-mapped: ``StackedRows``, which are read as an (N, D) array is.

        Raises:
            CacheMissError: the files have no such layer.
            UnreadableFileError: the system cannot map a file.
        """
        return cast(np.ndarray, StackedRows([[[file.features(layer)]] for file in self.files]))

    def checksums(self, layer: str) -> np.ndarray:
        """The CRC-32 of each row's features in a layer: (N,) uint32."""
        return np.concatenate([file.checksums(layer) for file in self.files])

    def checksums_match(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Which of (R,) rows are done and match their checksums: (R,) bool; see ``FeatureFile.checksums_match``."""
        return self._by_file(rows, lambda file, own: file.checksums_match(layer, own))

    def checksums_match_in_all(self, layers: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Which of these rows are done and match their checksums in each of these layers: (R,) bool."""
        return self._by_file(rows, lambda file, own: file.checksums_match_in_all(layers, own))

    def error(self, row: int) -> str:
        """The reason why a row failed; "" if it did not."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self.files[number].error(row - int(self._ends[number] - len(self.files[number])))

    def release(self) -> None:
        """Close the files until they are needed again. Features that were handed out stay readable."""
        for file in self.files:
            file.release()

    @contextlib.contextmanager
    def needed(self) -> Iterator[None]:
        """Open files that were released for the length of a block."""
        with contextlib.ExitStack() as stack:
            for file in self.files:
                stack.enter_context(file.needed())
            yield

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.path.stat().st_size for file in self.files)

    def _by_file(self, rows: np.ndarray, ask: Callable[[FeatureFile, np.ndarray], np.ndarray]) -> np.ndarray:
        rows = np.asarray(rows, dtype=np.int64)
        found = np.zeros(len(rows), dtype=bool)
        number = np.searchsorted(self._ends, rows, side="right")
        for each in np.unique(number).tolist():
            mine = number == each
            file = self.files[each]
            found[mine] = ask(file, rows[mine] - int(self._ends[each] - len(file)))
        return found


Features: TypeAlias = FeatureFile | FeatureFileSet
"""A feature file or a set of them."""


def open_features(path: str | os.PathLike[str], *, allow_partial: bool = False) -> Features:
    """Open a feature file, or a set of them by its folder or manifest.

    Args:
        path: of the file, or of the folder or the manifest of a set.
        allow_partial: also accept the file of an interrupted extraction.

    Raises:
        CacheMissError, CorruptFileError: as of ``FeatureFile`` and ``FeatureFileSet``.
    """
    if is_set(path):
        return FeatureFileSet(path)
    return FeatureFile(path, allow_partial=allow_partial)


def is_set(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for a set of feature files: by its manifest; if there is none, by the ending of the folder."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        return False
    return kind_of_file(path) == FEATURE_SET or Path(path).suffix == SETS


def each_file(path: str | os.PathLike[str]) -> Iterator[FeatureFile]:
    """Open the feature files that a path stands for, one after the other: one, or those of a set in the order of the paths.

    Raises:
        CacheMissError, CorruptFileError: as of ``FeatureFile`` and ``FeatureFileSet``.
    """
    if is_set(path):
        yield from _each_of_set(folder_of(Path(path)), Manifest.read(Path(path)))
    else:
        yield FeatureFile(path)


def folder_of(path: Path) -> Path:
    """The folder of a set that is named by its folder or its manifest."""
    return manifest_path(path).parent


def _each_of_set(folder: Path, manifest: Manifest) -> Iterator[FeatureFile]:
    """Open the files of a set one after the other, each checked against the manifest and the first one."""
    alike: tuple[Any, ...] | None = None
    for number, listed in enumerate(manifest.files):
        path = folder / listed.name
        again = "the same featx extract makes it again"
        try:
            file = FeatureFile(path)
        except CacheMissError as error:
            raise CacheMissError(
                f"{folder} is not whole: {listed.name} is missing, file {number + 1} of {len(manifest.files)}, with "
                f"{counted(listed.rows, 'image')}; {again}"
            ) from error
        except CorruptFileError as error:
            raise CorruptFileError(f"{folder} is not whole: {error}; {again}") from error
        if (file.digest, len(file), file.identity) != (listed.digest, listed.rows, manifest.identity):
            what = "has other features" if file.identity != manifest.identity else "is another file"
            raise CorruptFileError(
                f"{path} {what} than {MANIFEST} lists: its digest is {file.digest[:12]}…, expected {listed.digest[:12]}…; "
                f"{again}"
            )
        facts = [file.dataset.get(name) for name in _SAME], file.classes, file.column_names
        if alike not in (None, facts):
            raise CorruptFileError(f"{path} is of another state of the data set than the files before it; {again}")
        alike = facts
        yield file
