"""``import_features``: vectors of another tool as a feature file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import path_of
from featx.constants import CACHE, FOREIGN
from featx.data.columns import storable
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.layout import read_layout
from featx.data.path_labels import with_path_labels
from featx.data.scan import scan_images
from featx.data.scan_options import ScanOptions
from featx.data.split_names import splits_of_cells
from featx.data.splits import hash_splits
from featx.data.store import FolderStore
from featx.errors import DatasetError, SettingsError, system_errors
from featx.features.array_set import vector_keys
from featx.features.exchange.joining import FoundImages, find_images, join_labels
from featx.features.exchange.layouts import read_vectors
from featx.features.exchange.vectors import BLOCK, Vectors, let_go, storable_type
from featx.features.feature_file import ImageTable
from featx.features.folder import feature_file_path, require_named, require_writable
from featx.features.lock import write_lock
from featx.features.writer import FeatureFileWriter
from featx.identity import joint_identity
from featx.layer_spec import LayerSpec
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.system import cores
from featx.text import counted, listed, portable, printable, shortened

_MOST_PATH = 4096


@dataclass(frozen=True, eq=False)
class FeatureImport:
    """A feature file that was made of vectors of another tool.

    Attributes:
        path: of the file.
        tool: what made the vectors, or the format of the file.
        images: number of rows.
        failed: rows whose vectors are not finite, which have no features.
        layers: the width of each layer, by its name.
        classes: number of classes.
        unlabelled: rows without a label.
        splits: number of rows of each split.
        with_images: rows whose image was found.
        identity: of the features.
        notes: for the user, one sentence each.
        seconds: the duration.
    """

    path: Path
    tool: str
    images: int
    failed: int
    layers: dict[str, int]
    classes: int
    unlabelled: int
    splits: dict[str, int]
    with_images: int
    identity: str
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx import --json`` prints."""
        return {
            "file": str(self.path),
            "tool": self.tool,
            "images": self.images,
            "failed": self.failed,
            "layers": self.layers,
            "classes": self.classes,
            "unlabelled": self.unlabelled,
            "splits": self.splits,
            "with_images": self.with_images,
            "identity": self.identity,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("import", "images")
def import_features(
    vectors: str | os.PathLike[str],
    *,
    name: str | None = None,
    out: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    names: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    vector_column: str | None = None,
    options: ScanOptions | None = None,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
    **fields: Any,
) -> FeatureImport:
    """Make a feature file of vectors that another tool computed.

    It reads the layouts of thingsvision, clip-retrieval, TRIDENT and CLAM, kaiko eva, lightly-train, ``datasets`` and featx's
    own exports, arrays (``.npy``, ``.npz``, ``.txt``, ``.pt``, ``.safetensors``, ``.h5``, ``.h5ad``, ``.mat``), and tables
    (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, ``.arrow``). Nothing in a file is run. docs/exchange.md describes what
    becomes labels, splits and keys.

    Args:
        vectors: a file or a folder.
        name: of the data set; by default that of the file or folder.
        out: the feature file to write; by default ``<name>--<tool>.h5`` in ``cache``.
        cache: folder of feature files.
        names: a list of names, one on each line, or a table, in the order of the vectors.
        labels: a table with the labels, the splits and further columns of the images, found by their names.
        images: the images: whatever ``scan_images`` takes. They are found by their names, and give the keys.
        backbone: the name of the network that made the vectors. Imports of the same name, layer, width and type share an
            identity, so that a head fitted to one can be judged on another. By default the identity is that of the numbers.
        vector_column: the column of a table with the lists of numbers.
        options: the columns of the table (``path_column``, ``label_column``, ``split_column``), ``label_pattern``, and
            ``group_level``.
        workers: threads that read images.
        progress: show the progress on stderr.
        reporter: receives the progress, in images.
        fields: the same as ``options`` as keyword arguments.

    Raises:
        DatasetError: the vectors, names, labels or images cannot be read, or do not fit together.
        SettingsError: an option has no effect, or a layer has an impossible name.
        OutputError: the file cannot be written.

    Example:

        imported = featx.import_features("clip/", images="photos/", labels="labels.csv", backbone="ViT-B-32 laion2b")
        featx.fit_head(imported.path)
    """
    started = time.perf_counter()
    source = Path(path_of(vectors, "vectors"))
    scan = ScanOptions.of(options, fields)
    target = Path(path_of(out, "out")) if out is not None else None
    if target is not None:
        require_named(target, *_inputs(source, names, labels))
    require_writable(Path(cache), target)
    reporter.stage(f"reading {source}")
    own = _own_columns(scan, labels, vector_column)
    found = read_vectors(
        source, target.parent if target else Path(cache), names=None if names is None else Path(names), columns=own
    )
    _clean_names(found)
    if labels is not None:
        join_labels(found, os.fspath(labels), scan)
    pictures = None
    if images is not None:
        pictures = _find_images(found, images, workers, reporter)
    content = _Content(found, source, name, scan, pictures, backbone)
    file, notes = _write(content, target, Path(cache), reporter)
    labelled = content.images.labels != UNLABELLED
    return FeatureImport(
        path=file.path,
        tool=found.tool,
        images=len(file),
        failed=int((file.status == 2).sum()),
        layers={layer: entry.dim for layer, entry in file.layers.items()},
        classes=len(file.classes),
        unlabelled=int((~labelled).sum()),
        splits=dict(sorted(Counter(file.splits.tolist()).items())),
        with_images=0 if pictures is None else int(pictures.keys.any(axis=1).sum()),
        identity=file.identity,
        notes=tuple(dict.fromkeys([*found.notes, *content.images.notes, *content.notes, *notes])),
        seconds=time.perf_counter() - started,
    )


def _inputs(*paths: str | os.PathLike[str] | None) -> list[str | os.PathLike[str]]:
    return [path for path in paths if path is not None]


def _own_columns(scan: ScanOptions, labels: object, vector_column: str | None) -> dict[str, str | None]:
    """The columns of the vectors' own table; with a table of labels the options describe that."""
    of_table = {"names": scan.path_column, "labels": scan.label_column, "splits": scan.split_column}
    return {**(of_table if labels is None else {}), "vectors": vector_column}


def _clean_names(found: Vectors) -> None:
    """Give the vectors names that a feature file can hold, each once.

    Raises:
        DatasetError: a name is empty, too long, or that of two vectors which differ.
    """
    if not len(found):
        raise DatasetError("there are no vectors: the file has no rows")
    if found.names is None:
        digits = len(str(len(found) - 1))
        found.names = [f"{row:0{digits}d}" for row in range(len(found))]
        found.notes.append(
            "the vectors have no names, so they are numbered; --names FILE gives them, one on each line or as a table"
        )
    names = found.names
    if all("\\" in name and "/" not in name for name in names):
        names = [name.replace("\\", "/") for name in names]
    names = [name.removeprefix("./") for name in names]
    for row, name in enumerate(names):
        if not name.strip() or "\0" in name or len(os.fsencode(portable(name))) > _MOST_PATH:
            raise DatasetError(
                f"the name of vector {row + 1} is {printable(shortened(name))}; expected 1 to {_MOST_PATH:,} bytes without a "
                "null character"
            )
    found.names = names
    _drop_repeated(found)


def _drop_repeated(found: Vectors) -> None:
    assert found.names is not None
    first: dict[str, int] = {}
    keep = np.ones(len(found.names), dtype=bool)
    for row, name in enumerate(found.names):
        before = first.setdefault(name, row)
        if before == row:
            continue
        if any(not np.array_equal(matrix[before], matrix[row], equal_nan=True) for matrix in found.layers.values()):
            raise DatasetError(
                f"two vectors are named {printable(shortened(name))}, number {before + 1} and number {row + 1}, and they "
                "differ; --names FILE gives each a name of its own"
            )
        keep[row] = False
    if keep.all():
        return
    rows = np.flatnonzero(keep)
    found.notes.append(
        f"{counted(int((~keep).sum()), 'vector')} repeat an earlier one of the same name, and are left out"
    )
    found.layers = {layer: matrix[rows] for layer, matrix in found.layers.items()}
    found.names = [found.names[row] for row in rows]
    found.labels = None if found.labels is None else [found.labels[row] for row in rows]
    found.splits = None if found.splits is None else [found.splits[row] for row in rows]
    found.keys = None if found.keys is None else found.keys[rows]
    found.columns = {name: [cells[row] for row in rows] for name, cells in found.columns.items()}


def _find_images(
    found: Vectors, images: str | os.PathLike[str], workers: int | None, reporter: Reporter
) -> FoundImages:
    assert found.names is not None
    reporter.stage(f"looking for the images in {os.fspath(images)}")
    scanned = scan_images(images)
    pictures = find_images(found.names, scanned, workers or cores(), lambda done: reporter.progress(done, len(found)))
    found.notes += pictures.notes
    found.names = pictures.paths
    if found.labels is None:
        found.labels = pictures.labels
    if found.splits is None:
        found.splits = pictures.splits
    return pictures


class _Content:
    """What a feature file is made of: the images, the matrices, and where they come from."""

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
        self.backbone = {
            "name": backbone or found.tool,
            "weights": "",
            "parts": {
                "dtype": self.dtype.name,
                FOREIGN: {"tool": found.tool, "source": portable(str(source.absolute())), "origin": found.origin},
            },
        }

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
                for _, block in _blocks(matrix, self.dtype):
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
        labels, by_folder, notes = _by_folders(paths, source)
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
        notes.append(f"the folders in the names are {counted(len(classes), 'class', 'classes')}: {shown}")
    return labels, splits if any(splits) and all(splits) else None, notes


def _known_splits(splits: Sequence[str] | None, count: int, notes: list[str]) -> list[str]:
    """The splits under featx's names; all "" where there are none."""
    if splits is None or not any(splits):
        return [""] * count
    if without := sum(not split for split in splits):
        notes.append(
            f"{counted(without, 'vector')} of {count:,} have no split, so no head is fitted to them or judged on them"
        )
    known = splits_of_cells(sorted(set(splits) - {""}))
    return [known.get(split, "") for split in splits]


def _faults(layers: Mapping[str, np.ndarray], dtype: np.dtype[Any]) -> dict[int, str]:
    """Why rows fail, by their numbers: their vectors are not finite in the type in which they are stored."""
    faults: dict[int, str] = {}
    for layer, matrix in layers.items():
        for at, block in _blocks(matrix, dtype):
            bad = ~np.isfinite(block)
            for row in np.flatnonzero(bad.any(axis=1)).tolist():
                own = np.asarray(matrix[at + row], dtype=np.float64)
                what = (
                    "NaN or infinity" if not np.isfinite(own).all() else f"numbers that are too large for {dtype.name}"
                )
                where = f" in layer {layer}" if len(layers) > 1 else ""
                faults.setdefault(
                    at + row, f"the vector holds {what} ({int(bad[row].sum())} of {bad.shape[1]} numbers{where})"
                )
    return faults


def _blocks(matrix: np.ndarray, dtype: np.dtype[Any]) -> Iterator[tuple[int, np.ndarray]]:
    """A matrix in blocks of rows, in the type in which it is stored."""
    step = max(1, BLOCK // (dtype.itemsize * matrix.shape[1]))
    for at in range(0, len(matrix), step):
        with np.errstate(over="ignore"):
            yield at, np.ascontiguousarray(matrix[at : at + step], dtype=dtype)
        let_go(matrix)


def _write(content: _Content, target: Path | None, cache: Path, reporter: Reporter) -> tuple[Any, list[str]]:
    images, notes = content.images, list[str]()
    given = any(images.splits)
    if not given:
        images = replace(images, splits=hash_splits(content.keys, images.labels).astype(object))
    if len(content.faults) == len(images):
        row, why = next(iter(content.faults.items()))
        raise DatasetError(f"none of the {len(images):,} vectors is finite; {printable(str(images.paths[row]))}: {why}")
    identities = content.identities
    if target is None:
        target, note = feature_file_path(
            cache,
            dataset=images.name,
            root=portable(images.root),
            backbone=str(content.backbone["name"]),
            identities=identities,
        )
        notes += [note] if note else []
    reporter.stage(f"writing {target}")
    options = images.options.as_dict()
    with write_lock(target):
        writer = FeatureFileWriter(
            target,
            images=ImageTable(
                paths=np.array([os.fsencode(path) for path in images.paths]),
                labels=images.labels,
                splits=np.array([split.encode() for split in images.splits]),
                sizes=content.sizes,
                mtimes=content.mtimes,
            ),
            classes=images.classes,
            layers={layer: (matrix.shape[1], identities[layer]) for layer, matrix in content.layers.items()},
            dtype=content.dtype.name,
            identity=joint_identity(list(identities.values())),
            backbone=content.backbone,
            dataset={
                "name": images.name,
                "root": portable(images.root),
                "splits": "given" if given else "hash",
                **({"options": options} if options else {}),
                **({"labels": "numbers"} if _are_values(images.classes) else {}),
            },
            columns=content.columns,
            resume=False,
        )
        try:
            _write_rows(writer, content, reporter)
            return writer.finish(), notes
        except BaseException:
            writer.discard()
            raise


def _are_values(classes: Sequence[str]) -> bool:
    """Whether labels are numbers to predict: numbers all, and some with fractions."""
    try:
        return any(value % 1 for value in map(float, classes))
    except ValueError:
        return False


def _write_rows(writer: FeatureFileWriter, content: _Content, reporter: Reporter) -> None:
    width = sum(matrix.shape[1] for matrix in content.layers.values()) * content.dtype.itemsize
    step, count = max(1, BLOCK // width), len(content.keys)
    failed = np.zeros(count, dtype=bool)
    failed[list(content.faults)] = True
    for at in range(0, count, step):
        rows = np.arange(at, min(at + step, count))
        rows = rows[~failed[rows]]
        if len(rows):
            with np.errstate(over="ignore"):
                blocks = {
                    layer: np.asarray(matrix[rows], dtype=content.dtype) for layer, matrix in content.layers.items()
                }
            writer.write(rows, content.keys[rows], blocks)
            for matrix in content.layers.values():
                let_go(matrix)
        reporter.progress(min(at + step, count), count)
    for row, why in content.faults.items():
        writer.fail(row, content.keys[row].tobytes(), why)
