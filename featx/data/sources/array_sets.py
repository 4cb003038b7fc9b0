"""Images in arrays: ``.npz`` files such as those of MedMNIST, and folders of idx files such as those of MNIST."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.data.cells import BETWEEN_LABELS, cell_text
from featx.data.file_bytes import MISSING_FACTS, FileBytes, FileFacts, facts_of, let_age, require_size
from featx.data.formats import ENDINGS
from featx.data.image_set import ImageSet, assemble
from featx.data.places import is_remote, local_path
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.sources.array_file import NPZ, Rows, is_idx_name, name_in_idx, read_arrays
from featx.data.split_names import worded_splits
from featx.data.store import Store
from featx.errors import DatasetError, ImageError
from featx.text import counted, listed, printable

EXPECTED = "images in arrays (.npz, or a folder of idx files)"

OPTIONS: Collection[str] = ()
"""The options of the source; see ``featx.data.scan.Source``."""

_IMAGES = {"images", "image", "imgs", "img", "x", "data"}
_LABELS = {"labels", "label", "y", "targets", "target"}
_WORDS = re.compile(r"[A-Za-z0-9]+")


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are an ``.npz`` or an idx file, or a folder with idx files and no images."""
    if is_remote(data):
        return False
    path = local_path(os.fspath(data))
    if path.is_dir():
        return bool(_idx_files(path))
    return (path.suffix.lower() == NPZ or is_idx_name(path.name)) and path.is_file()


def opens(location: str) -> bool:
    """Whether a location is one of arrays."""
    return not is_remote(location) and matches(location)


def open_store(location: str) -> Store:
    """Open the images of arrays again."""
    return ArrayStore(location)


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images of arrays.

    Raises:
        DatasetError: there are none, or the arrays of images and labels do not go together.
    """
    path = local_path(os.fspath(data)).absolute()
    if path.is_file() and is_idx_name(path.name):
        raise DatasetError(f"{path} is one of several idx files; name the folder that holds them, {path.parent}")
    if path.is_dir() and len(folders := sorted({str(file.parent) for file in _idx_files(path)})) > 1:
        raise DatasetError(f"{path} has idx files in several folders ({listed(folders)}); name one of them")
    store = ArrayStore(str(path))
    arrays = store.arrays()
    pairs = _pairs(arrays, str(path))
    splits = worded_splits([_of_split(image) for _, image, _ in pairs])
    are_splits = len(pairs) > 1 and all(splits.values())
    paths, labels, split_of, notes = list[str](), list[str | None](), list[str](), list[str]()
    given = [(_whole(arrays[label], path) if label else None, len(arrays[image])) for _, image, label in pairs]
    try:
        names, about = _label_names(given)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
    notes += about
    for (_, image, label), found in zip(pairs, names, strict=True):
        count = len(arrays[image])
        paths += [f"{image}/{row}" for row in range(count)]
        labels += found
        split_of += [splits[_of_split(image)] if are_splits else ""] * count
        if label is None:
            notes.append(f"there are no labels for the images in {printable(image)}")
    shown = listed(
        [
            f"{printable(image)} {arrays[image].shape}" + (f" with {printable(label)}" if label else "")
            for _, image, label in pairs
        ]
    )
    notes.insert(0, f"the images are the rows of {shown}")
    if not paths:
        raise DatasetError(f"{path} has no images: its arrays have no rows")
    name = path.stem if path.is_file() else path.name
    return assemble(name, store, paths, labels, split_of, [f"{path.name}: {note}" for note in notes], options=options)


def _idx_files(folder: Path) -> list[Path]:
    """The idx files right in a folder or in a folder in it, sorted; none if there are images too."""
    found: dict[str, Path] = {}
    try:
        with os.scandir(folder) as entries:
            inner = [Path(entry) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        for here in [folder, *sorted(inner)[:20]]:
            with os.scandir(here) as entries:
                files = list(entries)
            for entry in files:
                if entry.name.lower().endswith(ENDINGS) and entry.is_file():
                    return []
                if is_idx_name(entry.name) and entry.is_file():
                    key = str(Path(here, name_in_idx(entry.name)))
                    found[key] = min(found.get(key, Path(entry)), Path(entry), key=lambda path: len(path.name))
    except OSError:
        return []
    return [found[key] for key in sorted(found)]


def _pairs(arrays: Mapping[str, Rows], where: str) -> list[tuple[str, str, str | None]]:
    """What remains of the names of arrays of images without the word for images, these names, and those of their labels.

    Raises:
        DatasetError: there are no images, or an array of labels has another length.
    """
    kinds: dict[str, dict[str, str]] = {"images": {}, "labels": {}}
    for name, array in arrays.items():
        words = [word.lower() for word in _WORDS.findall(name)]
        if words and len(array.shape) in (3, 4) and array.dtype.kind in "uifb" and set(words) & _IMAGES:
            kinds["images"][" ".join(word for word in words if word not in _IMAGES)] = name
        elif words and len(array.shape) in (1, 2) and set(words) & _LABELS:
            kinds["labels"][" ".join(word for word in words if word not in _LABELS)] = name
    if not kinds["images"]:
        found = listed([f"{printable(name)} {array.shape} {array.dtype}" for name, array in arrays.items()]) or "none"
        raise DatasetError(
            f"{where} has no array of images: found {found}; expected names such as train_images and train_labels, or "
            "x_train and y_train, and shapes (N, H, W) or (N, H, W, C). Vectors are read by featx import"
        )
    pairs = [(rest, image, kinds["labels"].get(rest)) for rest, image in sorted(kinds["images"].items())]
    for _, image, label in pairs:
        if label is not None and len(arrays[label]) != len(arrays[image]):
            raise DatasetError(
                f"{where}: {image} has {counted(len(arrays[image]), 'image')}, and {label} has "
                f"{counted(len(arrays[label]), 'label')}; expected one for each"
            )
    return pairs


def _whole(array: Rows, path: Path) -> np.ndarray:
    try:
        return array.whole()
    except (EOFError, OSError) as error:
        raise DatasetError(f"{path} cannot be read as arrays: {error}") from error


def _of_split(name: str) -> str:
    """The words of the name of an array, without its folder, that may tell a split; t10k of MNIST means test."""
    words = [word.lower() for word in _WORDS.findall(name.rpartition("/")[2])]
    return " ".join("test" if word == "t10k" else word for word in words if word not in _IMAGES)


def _label_names(found: Sequence[tuple[np.ndarray | None, int]]) -> tuple[list[list[str | None]], list[str]]:
    """The label of each image, and notes. Rows of 0 and 1 are several labels, or one if each has exactly one 1."""
    wide = [labels for labels, _ in found if labels is not None and labels.ndim == 2 and labels.shape[1] > 1]
    if not wide:
        return [_plain(labels, count) for labels, count in found], []
    if any(not np.isin(labels, (0, 1)).all() for labels in wide):
        return [[None] * count for _, count in found], [
            "the labels are rows of numbers other than 0 and 1, and are not read"
        ]
    one_each = all((labels.sum(axis=1) == 1).all() for labels in wide)
    names = list[list[str | None]]()
    for labels, count in found:
        rows: list[str | None] = [None] * count if labels is None or labels.ndim != 2 else list(map(_flags, labels))
        names.append(rows)
    how = "one class" if one_each else "several labels"
    return names, [f"each row of 0 and 1 in the labels is read as {how}, named by the numbers of the columns from 0"]


def _plain(labels: np.ndarray | None, count: int) -> list[str | None]:
    if labels is None:
        return [None] * count
    found = list[str | None]()
    for row, value in enumerate(np.asarray(labels).reshape(count).tolist()):
        try:
            found.append(cell_text(value) or None)
        except ValueError as error:
            raise ValueError(f"the label of row {row} {error}") from error
    return found


def _flags(row: np.ndarray) -> str:
    return BETWEEN_LABELS.join(sorted(map(str, np.flatnonzero(row).tolist()))) or BETWEEN_LABELS


@dataclass(frozen=True)
class _Opened:
    """The arrays of a file as it was.

    Attributes:
        facts: of the file, as ``facts_of`` gives them.
        arrays: by their names in the paths of images.
    """

    facts: tuple[int, int, int, int]
    arrays: Mapping[str, Rows]


class ArrayStore:
    """Images in arrays; see ``featx.data.store.Store``. The path of an image is the name of its array and its row.

    An image is read as an ``.npy`` file, byte for byte as ``numpy.save`` writes the row.

    Args:
        location: the absolute path of an ``.npz`` file or of a folder of idx files.
    """

    concurrency = 0

    def __init__(self, location: str) -> None:
        self.location = location
        self._opened: dict[Path, _Opened] = {}
        self._lock = threading.Lock()

    def arrays(self) -> dict[str, Rows]:
        """All arrays by their names in the paths of images.

        Raises:
            DatasetError: a file cannot be read as arrays.
        """
        return {name: array for opened in self._files() for name, array in opened.arrays.items()}

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``: each image has the size of its bytes, and the times and the inode number of its file."""
        try:
            known = {name: (opened, array) for opened in self._files() for name, array in opened.arrays.items()}
        except (DatasetError, OSError):
            known = {}
        rows = np.full((len(paths), 4), MISSING_FACTS, dtype=np.int64)
        for number, path in enumerate(paths):
            name, row = _split(path)
            if name in known and 0 <= row < len(known[name][1]):
                opened, array = known[name]
                rows[number] = 128 + array.row_size, *opened.facts[1:]
        return FileFacts.of_rows(rows)

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        name, row = _split(path)
        try:
            file = self._file_of(name)
            opened = self._open(file) if file else None
        except (DatasetError, OSError) as error:
            raise ImageError(f"cannot be read: {error}") from error
        if file is None or opened is None or name not in opened.arrays or not 0 <= row < len(opened.arrays[name]):
            raise ImageError(f"is not in {self.location}")
        size = opened.arrays[name].row_size
        require_size(size)
        admit(size)
        let_age(opened.facts[1], opened.facts[2])
        try:
            data = _npy(opened.arrays[name].row(row))
            if facts_of(file.stat()) != opened.facts:
                raise ImageError("changes while it is being read")
        except (EOFError, OSError) as error:
            raise ImageError(f"cannot be read: {error}") from error
        return FileBytes(data, 128 + size, opened.facts[1], opened.facts[2:])

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: by rows."""
        keys = [_split(path) for path in paths]
        return np.array(sorted(range(len(paths)), key=keys.__getitem__), dtype=np.int64)

    def name(self, path: str) -> str:
        """As ``Store.name``."""
        return f"{self.location}/{path}"

    def exists(self) -> bool:
        """As ``Store.exists``."""
        return os.path.lexists(self.location)

    def _files(self) -> Iterator[_Opened]:
        """The files, opened again where they have changed."""
        path = Path(self.location)
        for file in _idx_files(path) if path.is_dir() else [path]:
            yield self._open(file)

    def _file_of(self, name: str) -> Path | None:
        """The file of an array; those of a folder are only listed again for an array that none of them has."""
        for _ in range(2):
            with self._lock:
                found = next((file for file, opened in self._opened.items() if name in opened.arrays), None)
            if found is not None:
                return found
            list(self._files())
        return None

    def _open(self, file: Path) -> _Opened:
        facts = facts_of(file.stat())
        with self._lock:
            if file not in self._opened or self._opened[file].facts != facts:
                root = Path(self.location)
                inside = file.parent.relative_to(root).as_posix() if file != root else "."
                prefix = "" if inside == "." else f"{inside}/"
                arrays = {prefix + name: array for name, array in read_arrays(file).items()}
                self._opened[file] = _Opened(facts, arrays)
            return self._opened[file]


def _split(path: str) -> tuple[str, int]:
    name, _, row = path.rpartition("/")
    return name, int(row) if row.isascii() and row.isdecimal() else -1


def _npy(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(image), allow_pickle=False)
    return file.getvalue()
