"""``import_features``: vectors of another tool as a feature file."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import path_of
from featx.constants import CACHE
from featx.data.image_set import UNLABELLED
from featx.data.places import is_remote, local_path
from featx.data.scan import scan_images
from featx.data.scan_options import ScanOptions
from featx.data.splits import hash_splits
from featx.data.urls import public
from featx.errors import DatasetError, system_errors
from featx.features.exchange.imported_content import ImportedContent
from featx.features.exchange.joining import FoundImages, find_images, join_labels
from featx.features.exchange.layouts import read_vectors
from featx.features.exchange.vectors import BLOCK, Vectors, let_go
from featx.features.feature_file import ImageTable
from featx.features.folder import feature_file_path, require_named, require_writable, tagged_name
from featx.features.lock import note_waits, write_lock
from featx.features.remote_folder import RemoteFolder
from featx.features.writer import FeatureFileWriter
from featx.identity import joint_identity
from featx.io.atomic import require_writable as require_writable_file
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.system import cores
from featx.text import counted, form, portable, printable, shortened

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
    (``.csv``, ``.tsv``, ``.jsonl``, ``.json``, ``.parquet``, ``.arrow``,
    ``.feather``). Nothing in a file is run. docs/exchange.md describes what
    becomes labels, splits and keys.

    Args:
        vectors: a file or a folder.
        name: of the data set; by default that of the file or folder.
        out: the feature file to write; by default ``<name>--<tool>.h5`` in ``cache``.
        cache: folder of feature files; or its URL, to which the file is copied.
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
    if is_remote(named := path_of(vectors, "vectors")):
        raise DatasetError(f"{public(named)} is on another machine; import reads files of this one: copy it here first")
    source = local_path(named)
    scan = ScanOptions.of(options, fields)
    target = Path(path_of(out, "out")) if out is not None else None
    copies = RemoteFolder(os.fspath(cache)) if is_remote(cache) and target is None else None
    folder = copies.folder if copies else Path(cache)
    if target is not None:
        require_named(target, *_inputs(source, names, labels))
    if copies:
        copies.require_there()
    require_writable(folder, target)
    reporter.stage(f"reading {source}")
    own = _own_columns(scan, labels, vector_column)
    found = read_vectors(
        source, target.parent if target else folder, names=None if names is None else Path(names), columns=own
    )
    _clean_names(found)
    if labels is not None:
        join_labels(found, os.fspath(labels), scan)
    pictures = None
    if images is not None:
        pictures = _find_images(found, images, workers, reporter)
    content = ImportedContent(found, source, name, scan, pictures, backbone)
    file, notes = _write_and_copy(content, copies, reporter) if copies else _write(content, target, folder, reporter)
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
    left = int((~keep).sum())
    found.notes.append(
        f"{counted(left, 'vector')} with the name and numbers of an earlier one {form(left, 'is', 'are')} left out"
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


def _write(content: ImportedContent, target: Path | None, cache: Path, reporter: Reporter) -> tuple[Any, list[str]]:
    images, notes = content.images, list[str]()
    given = any(images.splits)
    if not given:
        images = replace(images, splits=hash_splits(content.split_keys, images.labels).astype(object))
    if len(content.faults) == len(images):
        row, why = next(iter(content.faults.items()))
        raise DatasetError(f"no vector is finite; {printable(str(images.paths[row]))}: {why}")
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
    require_writable_file(target, sum(matrix.size for matrix in content.layers.values()) * content.dtype.itemsize)
    reporter.stage(f"writing {target}")
    options = images.options.as_dict()
    with write_lock(target, wait=True, waiting=note_waits(reporter)):
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


def _write_and_copy(content: ImportedContent, copies: RemoteFolder, reporter: Reporter) -> tuple[Any, list[str]]:
    """Write the file into the folder of copies, under a name that no other vectors have, and copy it to the server."""
    dataset, root = content.images.name, portable(content.images.root)
    name = tagged_name(dataset, root, str(content.backbone["name"]), content.identities)
    file, notes = _write(content, copies.folder / name, copies.folder, reporter)
    copies.copy_back(file.path, reporter)
    return file, [*notes, *copies.notes]


def _are_values(classes: Sequence[str]) -> bool:
    """Whether labels are numbers to predict: numbers all, and some with fractions."""
    try:
        return any(value % 1 for value in map(float, classes))
    except ValueError:
        return False


def _write_rows(writer: FeatureFileWriter, content: ImportedContent, reporter: Reporter) -> None:
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
