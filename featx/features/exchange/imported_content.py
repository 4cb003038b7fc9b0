"""What a feature file of imported vectors holds: images, classes, splits, keys, matrices and their identities."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import FOREIGN
from featx.data.columns import storable
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.layout import read_layout
from featx.data.path_labels import with_path_labels
from featx.data.scan_options import ScanOptions
from featx.data.split_names import splits_of_cells
from featx.data.store import FolderStore
from featx.errors import DatasetError, SettingsError
from featx.features.array_set import vector_keys
from featx.features.exchange.joining import FoundImages
from featx.features.exchange.vectors import BLOCK, SLIDES, Vectors, let_go, storable_type
from featx.layer_spec import LayerSpec
from featx.text import counted, form, listed, portable, printable


class ImportedContent:
    """What a feature file is made of: the images, the matrices, and where they come from.

    Args:
        found: the vectors.
        source: the file or folder that they come from.
        name: of the data set, or None.
        scan: classes in names, and groups in folders.
        pictures: the images of the vectors, or None.
        backbone: the name of the network, or None.

    Attributes:
        layers: the matrix of each layer.
        dtype: the type in which they are stored.
        images: names, classes and splits, in the order of the vectors; splits are "" where there are none.
        columns: further columns that a feature file can hold.
        keys: (N, 16) uint8, of the images, or of the vectors where there is none.
        sizes: (N,) int64, bytes of the images; 0 where there is none.
        mtimes: (N,) int64, in ns; -1 where there is none.
        faults: why rows fail, by their numbers.
        identities: of each layer.
        backbone: as a feature file stores it.
        notes: for the user.
    """

    def __init__(
        self,
        found: Vectors,
        source: Path,
        name: str | None,
        scan: ScanOptions,
        pictures: FoundImages | None,
        backbone: str | None,
    ) -> None:
        self.layers = {_layer_name(layer): matrix for layer, matrix in found.layers.items()}
        types = {storable_type(matrix.dtype) for matrix in self.layers.values()}
        self.dtype = types.pop() if len(types) == 1 else np.dtype("<f4")
        self.notes = list(_type_notes(self.layers, self.dtype))
        self.images = _image_set(found, source, name, scan, pictures)
        columns, notes = storable({column: cells.tolist() for column, cells in self.images.columns.items()})
        self.columns = {column: np.array(cells, dtype=object) for column, cells in columns.items()}
        self.notes += notes
        self.keys = np.zeros((len(found), 16), np.uint8) if found.keys is None else np.array(found.keys)
        self.sizes, self.mtimes = np.zeros(len(found), np.int64), np.full(len(found), -1, np.int64)
        if pictures is not None:
            self.keys, self.sizes, self.mtimes = pictures.keys.copy(), pictures.sizes, pictures.mtimes
        self.faults = _faults(self.layers, self.dtype)
        self._add_vector_keys()
        self.identities = self._identities(backbone)
        self._tool = found.tool
        self.backbone = {
            "name": backbone or found.tool,
            "weights": "",
            "parts": {
                "dtype": self.dtype.name,
                FOREIGN: {"tool": found.tool, "source": portable(str(source.absolute())), "origin": found.origin},
            },
        }

    @property
    def split_keys(self) -> np.ndarray:
        """(N, 16) uint8: what decides about the split of each row. All patches of a slide have the key of the slide."""
        if self._tool != SLIDES:
            return self.keys
        keys = [hashlib.blake2b(os.fsencode(name), digest_size=16).digest() for name in self.columns["slide"]]
        return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)

    def _add_vector_keys(self) -> None:
        rows = np.flatnonzero(~self.keys.any(axis=1))
        first = next(iter(self.layers.values()))
        step = max(1, BLOCK // (8 * first.shape[1]))
        for at in range(0, len(rows), step):
            some = rows[at : at + step]
            self.keys[some] = vector_keys(np.asarray(first[some]))
            let_go(first)

    def _identities(self, backbone: str | None) -> dict[str, str]:
        """The identity of each layer: of the declared network, or of the numbers themselves."""
        found = {}
        for layer, matrix in self.layers.items():
            facts = {"layer": layer, "width": matrix.shape[1], "dtype": self.dtype.str, "backbone": backbone}
            digest = hashlib.sha256(json.dumps(["featx foreign features 1", facts], sort_keys=True).encode())
            if backbone is None:
                for _, block in blocks(matrix, self.dtype):
                    digest.update(block.tobytes())
            found[layer] = f"{FOREIGN}:{digest.hexdigest()}"
        return found


def _layer_name(name: str) -> str:
    """The name of a layer as featx parses it."""
    plain = (
        "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name).strip("._-") or "features"
    )
    if not LayerSpec.is_valid(plain):
        raise SettingsError(f"the layer {name!r} has no name that featx can use")
    return plain


def _type_notes(layers: Mapping[str, np.ndarray], dtype: np.dtype[Any]) -> Iterator[str]:
    others = sorted({matrix.dtype.name for matrix in layers.values()} - {dtype.name})
    if others:
        yield f"the vectors are {' and '.join(others)}, and are stored as {dtype.name}"


def _image_set(
    found: Vectors, source: Path, name: str | None, scan: ScanOptions, pictures: FoundImages | None
) -> ImageSet:
    """The images, their classes and splits, in the order of the vectors."""
    assert found.names is not None
    root, paths = _rooted(found.names, source, found, pictures)
    labels, splits, notes = found.labels, found.splits, list[str]()
    if labels is None and scan.label_pattern is None:
        files = found.columns["slide"] if found.tool == SLIDES else paths  # the name of a patch is no folder's
        labels, by_folder, notes = _by_folders(files, source)
        splits = splits if splits is not None else by_folder
    labels = ["" if label == "|" * len(label) and label != "|" else label for label in labels or [""] * len(paths)]
    classes = tuple(sorted(set(labels) - {""}))
    index = {label: number for number, label in enumerate(classes)}
    columns = {column: np.array(cells, dtype=object) for column, cells in found.columns.items()}
    known = _known_splits(splits, len(paths), notes)
    images = ImageSet(
        name=name or _name_of(source, found),
        store=FolderStore(root),
        paths=np.array(paths, dtype=object),
        labels=np.array([index.get(label, UNLABELLED) for label in labels], dtype=np.int64),
        splits=np.array(known, dtype=object),
        classes=classes,
        notes=tuple(notes),
        columns=columns,
    )
    return with_path_labels(images, replace(scan, path_column=None, label_column=None, split_column=None))


def _rooted(names: Sequence[str], source: Path, found: Vectors, pictures: FoundImages | None) -> tuple[str, list[str]]:
    """Where the images lie or lay, and their paths there."""
    if pictures is not None:
        return pictures.root, list(names)
    origin = found.origin.get("dataset")
    if isinstance(origin, dict) and isinstance(origin.get("root"), str) and origin["root"]:
        return origin["root"], list(names)
    if all(name.startswith("/") for name in names):
        common = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120 - of text
        return common, [os.path.relpath(name, common) for name in names]
    return str(source.absolute().parent if source.is_file() else source.absolute()), list(names)


def _name_of(source: Path, found: Vectors) -> str:
    origin = found.origin.get("dataset")
    if isinstance(origin, dict) and isinstance(origin.get("name"), str) and origin["name"]:
        return str(origin["name"])
    return (source.stem if source.is_file() else source.absolute().name) or "vectors"


def _by_folders(paths: Sequence[str], source: Path) -> tuple[list[str], list[str] | None, list[str]]:
    """Classes and splits by the folders in the names, as in a folder of images."""
    folders = [path.rpartition("/")[0] for path in paths]
    if not any(folders):
        return [""] * len(paths), None, []
    try:
        layout = read_layout(Counter(folders), source)
    except DatasetError as error:
        return [""] * len(paths), None, [f"the folders in the names are not read as classes: {error}"]
    places = [layout.places.get(folder) for folder in folders]
    labels = [place.label or "" if place else "" for place in places]
    splits = [place.split if place else "" for place in places]
    notes = [*layout.notes]
    if classes := sorted(set(labels) - {""}):
        shown = listed(list(map(printable, classes)), most=5)
        notes.append(f"the folders in the names stand for {counted(len(classes), 'class', 'classes')}: {shown}")
    return labels, splits if any(splits) and all(splits) else None, notes


def _known_splits(splits: Sequence[str] | None, count: int, notes: list[str]) -> list[str]:
    """The splits under featx's names; all "" where there are none."""
    if splits is None or not any(splits):
        return [""] * count
    if without := sum(not split for split in splits):
        has, them = form(without, "has", "have"), form(without, "it", "them")
        notes.append(
            f"{counted(without, 'vector')} of {count:,} {has} no split, so no head is fitted to {them} or judged on {them}"
        )
    known = splits_of_cells(sorted(set(splits) - {""}))
    return [known.get(split, "") for split in splits]


def _faults(layers: Mapping[str, np.ndarray], dtype: np.dtype[Any]) -> dict[int, str]:
    """Why rows fail, by their numbers: their vectors are not finite in the type in which they are stored."""
    faults: dict[int, str] = {}
    for layer, matrix in layers.items():
        for at, block in blocks(matrix, dtype):
            bad = ~np.isfinite(block)
            for row in np.flatnonzero(bad.any(axis=1)).tolist():
                own = np.asarray(matrix[at + row], dtype=np.float64)
                what = (
                    "NaN or infinity" if not np.isfinite(own).all() else f"numbers that are too large for {dtype.name}"
                )
                where = f" in layer {layer}" if len(layers) > 1 else ""
                faults.setdefault(
                    at + row,
                    f"the vector holds {what} ({int(bad[row].sum())} of {counted(bad.shape[1], 'number')}{where})",
                )
    return faults


def blocks(matrix: np.ndarray, dtype: np.dtype[Any]) -> Iterator[tuple[int, np.ndarray]]:
    """A matrix in blocks of rows, in the type in which it is stored."""
    step = max(1, BLOCK // (dtype.itemsize * matrix.shape[1]))
    for at in range(0, len(matrix), step):
        with np.errstate(over="ignore"):
            yield at, np.ascontiguousarray(matrix[at : at + step], dtype=dtype)
        let_go(matrix)
