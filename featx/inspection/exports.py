"""``export``: a feature file as a file for another tool."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import names_of, path_of, require_seed
from featx.constants import CACHE, EXPORT_PIXELS, MAPS, TOOLS
from featx.data.columns import beside
from featx.data.known_image import read_known_image
from featx.errors import HeadError, ImageError, SettingsError, system_errors
from featx.features.feature_set import FeatureSet
from featx.features.file_marks import is_own
from featx.features.image_store import image_places
from featx.features.remote_folder import newest_file
from featx.heads.head import Head
from featx.inspection.coordinates import finite_rows, map_coordinates
from featx.inspection.neighbours import Neighbours, nearest_neighbours
from featx.inspection.pipeline import inspect as inspect_images
from featx.inspection.pixels import inspect_pixels
from featx.inspection.result import Inspection
from featx.inspection.unsure import predicted_labels
from featx.io.outputs import Output, require_outputs
from featx.io.tables import PARQUET, table_kind, write_blocks
from featx.layer_spec import PENULTIMATE
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.text import counted, to_utf8

THUMBNAIL, FULL, NONE = EXPORT_PIXELS

EXPORT = dataclasses.replace(
    table_kind("export for embedding-atlas", ("path",), more=("",), option="-o"), suffix=PARQUET, other_suffixes=()
)
"""The exported file, as an output."""

_BLOCK = 512  # images that are written at a time


@dataclass(frozen=True, eq=False)
class Export:
    """A file that was written for another tool.

    Attributes:
        path: of the file.
        tool: its name.
        images: number of rows.
        pictures: number of rows with the image itself.
        columns: names of the columns.
        command: the command that opens the file in the tool.
        notes: for the user, one sentence each.
        seconds: the duration.
    """

    path: Path
    tool: str
    images: int
    pictures: int
    columns: tuple[str, ...]
    command: str
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx export --json`` prints."""
        return {
            "file": str(self.path),
            "for": self.tool,
            "images": self.images,
            "pictures": self.pictures,
            "columns": list(self.columns),
            "command": self.command,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("export", "images")
def export(
    features: FeatureSet | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    tool: str = TOOLS[0],
    layer: str | Sequence[str] = PENULTIMATE,
    method: str = "pca",
    findings: bool = True,
    task: str = "auto",
    head: Head | str | os.PathLike[str] | None = None,
    pixels: str = THUMBNAIL,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Export:
    """Write a feature file for another tool.

    "embedding-atlas" reads one Parquet file with a row for each image: ``path``, ``label``, ``split``, the place on a map ``x``
    and ``y``, ``neighbors`` (``ids`` of rows and cosine ``distances``), ``image`` (``bytes`` and ``path``), then the findings
    of ``featx.inspect`` and the predictions of a head.

    Args:
        features: a feature set or a feature file, by default the newest in ``cache``.
        out: the file to write, ``.parquet``.
        tool: the tool; one of ``featx.constants.TOOLS``.
        layer: layer of the feature file; several are concatenated. By default that of ``head``, if one is given.
        method: the map, as ``map_coordinates`` takes it: "pca" or "tsne".
        findings: inspect the images, and add a column for each finding.
        task: as ``Head`` takes it, for the findings.
        head: a fitted head, or its file; its predictions are added as ``prediction`` and ``probability``.
        pixels: "thumbnail", a small JPEG of each image; "full", the image files; or "none". An image that is missing or has
            changed is null.
        images: a folder, or folders, besides that of the data set in which the images may lie.
        seed: of the map and of the folds.
        cache: folder of feature files.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress.

    Raises:
        SettingsError: an unknown tool, map or sort of pixels, or a seed out of range.
        HeadError: a task that only the caller can tell, or no image to export.
        StaleCacheError: the head was fitted to other features.
        CacheMissError, CorruptFileError: the feature file is missing or damaged.
        OutputError: the file cannot be written, or pyarrow is missing.

    Example:

        exported = featx.export("cache/photos--resnet50.h5", out="photos.parquet", method="tsne")
        print(exported.command)  # embedding-atlas photos.parquet --x x --y y --neighbors neighbors --image image
    """
    started = time.perf_counter()
    _check(tool=(tool, TOOLS), method=(method, MAPS), pixels=(pixels, EXPORT_PIXELS))
    require_seed(seed)
    path = Path(path_of(out, "out"))
    output = Output(path, EXPORT, named=True)
    require_outputs([output])
    given = Head.load(head) if isinstance(head, str | os.PathLike) else head
    loaded, notes = _load(features, layer, given, cache, reporter)
    inputs = [str(file) for file in (loaded.source, head) if isinstance(file, str | os.PathLike)]
    require_outputs([output], inputs, images=image_places(loaded))
    folders = names_of(images, "images")
    found = None
    if findings and len(loaded) > 1:
        found = inspect_images(
            loaded, task=task, pixels=pixels != NONE, thumbnails=pixels == THUMBNAIL, images=folders, seed=seed,
            workers=workers, reporter=reporter,
        )  # fmt: skip
        notes += found.notes
    neighbours = found.neighbours if found else nearest_neighbours(loaded, reporter=reporter)
    columns = _columns(loaded, found, map_coordinates(loaded, neighbours, method=method, seed=seed, reporter=reporter))
    if given is not None:
        columns |= _predictions(loaded, given)
    columns |= beside(loaded.columns, {*columns, *_TYPES})
    read = _reader(loaded, found, pixels, folders, workers, reporter)
    writer = _Writer(columns, neighbours, read)
    reporter.stage(f"writing {path}")
    write_blocks(path, writer.blocks(reporter), EXPORT, _TYPES)
    if read is not None and writer.pictures < len(loaded):
        missing = counted(len(loaded) - writer.pictures, "image")
        notes.append(
            f"the file has no pixels of {missing}, which could not be read or had changed; --images names the images' folder"
        )
    return Export(
        path=path,
        tool=tool,
        images=len(loaded),
        pictures=writer.pictures,
        columns=writer.columns,
        command=_command(path, read is not None and writer.pictures > 0),
        notes=tuple(dict.fromkeys(notes)),
        seconds=time.perf_counter() - started,
    )


def _check(**choices: tuple[str, Sequence[str]]) -> None:
    for name, (value, known) in choices.items():
        if value not in known:
            raise SettingsError(f"{name} is {value!r}; expected one of {', '.join(known)}")


def _load(
    features: FeatureSet | str | os.PathLike[str] | None,
    layer: str | Sequence[str],
    head: Head | None,
    cache: str | os.PathLike[str],
    reporter: Reporter,
) -> tuple[FeatureSet, list[str]]:
    """The images with finite features, and a note on the others."""
    named = ",".join(dict.fromkeys(names_of(layer, "layer")))
    if head is not None and named == PENULTIMATE and hasattr(head, "layer_"):
        named = head.layer_
    if not isinstance(features, FeatureSet):
        file = newest_file(cache, reporter) if features is None else Path(path_of(features, "features"))
        reporter.stage(f"reading {file}")
        features = FeatureSet.load(file, named)
    if head is not None:
        head.require_identity(features)
    rows = finite_rows(features.plain)
    if not len(rows):
        raise HeadError("there is no image with finite features to export")
    if len(rows) == len(features):
        return features, []
    lost = counted(len(features) - len(rows), "image")
    return features.take(rows), [f"the features of {lost} are NaN or infinite, so these are left out"]


def _columns(features: FeatureSet, found: Inspection | None, places: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of text, numbers and booleans; (N,) each."""
    names = np.array([*features.classes, ""], dtype=object)
    labels = names[np.where(features.labels < 0, len(features.classes), features.labels)]
    splits = found.features.splits if found else features.splits
    columns = {"path": features.paths, "label": labels, "split": splits, "x": places[:, 0], "y": places[:, 1]}
    return columns | {
        name: values for name, values in (found.columns() if found else {}).items() if name not in columns
    }


def _predictions(features: FeatureSet, head: Head) -> dict[str, np.ndarray]:
    """What a head predicts for all images."""
    labels, probability = predicted_labels(head.predict_rows(features, np.arange(len(features))), head)
    return {"prediction": labels, "probability": probability}


_Read = Callable[[int], bytes | None]
"""Reads the picture of an image by its row; None where there is none."""


def _reader(
    features: FeatureSet,
    found: Inspection | None,
    pixels: str,
    folders: Sequence[str],
    workers: int | None,
    reporter: Reporter,
) -> _Read | None:
    """What reads the pictures; None where none are wanted."""
    if pixels == NONE:
        return None
    if pixels == THUMBNAIL:
        issues = found.pixels if found else None
        if issues is None:
            reporter.stage(f"reading {counted(len(features), 'image')}")
            issues = inspect_pixels(features, thumbnails=True, images=folders, workers=workers, reporter=reporter)
        return issues.thumbnails.get

    root, own = str(features.dataset.get("root", "")), is_own(features.source)

    def read(row: int) -> bytes | None:
        try:
            key = features.keys[row].tobytes()
            return read_known_image(root, features.paths[row], key, also=folders, own=own).data
        except ImageError:
            return None

    return read


class _Writer:
    """Makes the blocks of the file.

    Attributes:
        pictures: number of images whose pixels were written.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], neighbours: Neighbours, read: _Read | None) -> None:
        self._columns = {name: _clean(values) for name, values in columns.items()}
        self._neighbours, self._read = neighbours, read
        self.pictures = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        first, *rest = ("path", "label", "split", "x", "y"), *self._columns
        more = ("neighbors", "image") if self._read else ("neighbors",)
        return (*first, *more, *(name for name in rest if name not in first))

    def blocks(self, reporter: Reporter) -> Iterator[dict[str, Any]]:
        """The columns of a few hundred images after the other."""
        count = len(self._columns["path"])
        for at in range(0, count, _BLOCK):
            rows = range(at, min(at + _BLOCK, count))
            block: dict[str, Any] = {name: values[rows.start : rows.stop] for name, values in self._columns.items()}
            block["neighbors"] = [
                {"ids": ids, "distances": distances}
                for ids, distances in zip(
                    self._neighbours.indices[rows.start : rows.stop].tolist(),
                    self._neighbours.distances[rows.start : rows.stop].tolist(),
                    strict=True,
                )
            ]
            if self._read:
                block["image"] = [self._picture(row) for row in rows]
            yield {name: block[name] for name in self.columns}
            reporter.progress(rows.stop, count)

    def _picture(self, row: int) -> dict[str, Any] | None:
        assert self._read
        data = self._read(row)
        if data is None:
            return None
        self.pictures += 1
        return {"bytes": data, "path": self._columns["path"][row]}


_TYPES: dict[str, Callable[[Any], Any]] = {
    "neighbors": lambda arrow: arrow.struct(
        [("ids", arrow.list_(arrow.int64())), ("distances", arrow.list_(arrow.float32()))]
    ),
    "image": lambda arrow: arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]),
}


def _clean(values: np.ndarray) -> np.ndarray:
    """The same, with text that every reader of Parquet can decode."""
    if values.dtype.kind not in "OU":
        return values
    return np.array([to_utf8(value).decode("utf-8", "replace") for value in values.tolist()], dtype=object)


def _command(path: Path, pictures: bool) -> str:
    image = " --image image" if pictures else ""
    return f"embedding-atlas {shlex.quote(str(path))} --x x --y y --neighbors neighbors{image}"
