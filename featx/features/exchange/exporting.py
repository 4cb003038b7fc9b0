"""``export_features``: a feature file as a file that other tools read."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from featx.arguments import names_of, path_of
from featx.constants import CACHE
from featx.errors import FeatxError, OutputError, SettingsError, system_errors
from featx.features.exchange import write_arrays, write_csv, write_h5ad, write_parquet
from featx.features.exchange.content import FIRST_COLUMNS, MARK, Content, content_of
from featx.features.feature_set import FeatureSet
from featx.features.image_store import places_of
from featx.features.remote_folder import newest_file
from featx.io import atomic
from featx.io.outputs import Output, OutputKind, require_outputs
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.text import counted, did_you_mean

_Write = Callable[[BinaryIO, Content, Callable[[int], None]], None]

_WRITERS: dict[str, _Write] = {
    ".parquet": write_parquet.write,
    ".npy": write_arrays.write_npy,
    ".csv": write_csv.write,
    ".h5ad": write_h5ad.write,
    ".safetensors": write_arrays.write_safetensors,
}
ENDINGS = tuple(_WRITERS)
"""The endings of the files that are written; each is one format."""

_ONE_MATRIX = (".npy", ".csv")
"""Formats that hold one matrix."""

_BEGINNING = 1 << 16


@dataclass(frozen=True, eq=False)
class FeatureExport:
    """A file that was written for other tools.

    Attributes:
        path: of the file.
        names: the table of names beside it, or None where the file itself holds them.
        images: number of rows.
        layers: the width of each layer, by its name; of V views in one matrix V * D.
        columns: names of the columns.
        left_out: images that failed, which have no features.
        bytes: the size of the file.
        notes: for the user, one sentence each.
        seconds: the duration.
    """

    path: Path
    names: Path | None
    images: int
    layers: dict[str, int]
    columns: tuple[str, ...]
    left_out: int
    bytes: int
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx export --to FILE --json`` prints."""
        return {
            "file": str(self.path),
            "names": str(self.names) if self.names else None,
            "images": self.images,
            "layers": self.layers,
            "columns": list(self.columns),
            "left_out": self.left_out,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("export", "images")
def export_features(
    features: FeatureSet | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "",
    *,
    layers: str | Sequence[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> FeatureExport:
    """Write features to a file that other tools read, with their paths, labels, splits, keys and further columns.

    The file is written whole or not at all, and block by block, so that features larger than memory can be exported. Images
    that failed have no features and are left out. docs/exchange.md describes the formats.

    Args:
        features: a feature set or a feature file, by default the newest in ``cache``.
        out: the file to write; its ending is the format: ``.parquet``, ``.h5ad`` and ``.safetensors`` hold all layers, ``.npy``
            and ``.csv`` one matrix. Beside ``x.npy`` the names of the rows are written as ``x.csv``.
        layers: a layer spec or several. By default all layers in all views; where the format holds one matrix, the penultimate
            layer. There several layers are put side by side.
        cache: folder of feature files.
        progress: show the progress on stderr.
        reporter: receives the progress, in images.

    Raises:
        SettingsError: an ending that is no format, or layers that do not fit it.
        CacheMissError, CorruptFileError: the feature file or layer is missing or damaged.
        OutputError: the file cannot be written, is the feature file itself, is not an earlier export, or needs pyarrow.

    Example:

        exported = featx.export_features("cache/photos--resnet50.h5", "photos.parquet")
        print(exported.images, exported.layers)  # 400 {'penultimate': 2048}
    """
    started = time.perf_counter()
    path = Path(path_of(out, "out"))
    ending = ending_of(path)
    file = newest_file(cache, reporter) if features is None else features
    names = path.with_suffix(".csv") if ending == ".npy" else None
    outputs = [Output(path, _KIND, named=True), *([Output(names, _NAMES)] if names else [])]
    source = file.source if isinstance(file, FeatureSet) else file
    require_outputs(outputs, [source] if source else [])
    reporter.stage(f"reading {source or 'the features'}")
    content = content_of(file, None if layers is None else names_of(layers, "layers"), one_matrix=ending in _ONE_MATRIX)
    require_outputs(outputs, images=places_of(content.provenance["dataset"], content.paths))
    reporter.stage(f"writing {path}")
    need = sum(math.prod(content.shape(name)) * matrix.dtype.itemsize for name, matrix in content.layers.items())
    with _writing(path, need) as written:
        _WRITERS[ending](written, content, lambda done: reporter.progress(done, len(content)))
        if (
            names
        ):  # whole before the matrix gets its name, and not beside an earlier matrix for the time that this takes
            written.flush()
            os.fsync(written.fileno())
            with _writing(names) as table:
                write_csv.write_names(table, content)
    notes = list(content.notes)
    if content.left_out:
        failed = ("image failed and has no features, so it is", "images failed and have no features, so they are")
        notes.append(f"{counted(content.left_out, *failed)} left out")
    narrow = sorted({matrix.dtype.name for matrix in content.layers.values()} - {"float32"})
    if narrow and ending in (".parquet", ".h5ad"):
        notes.append(f"the features are {' and '.join(narrow)}, and are written as float32")
    return FeatureExport(
        path=path,
        names=names,
        images=len(content),
        layers={name: _width(content.shape(name)) for name in content.layers},
        columns=(*FIRST_COLUMNS, *content.columns),
        left_out=content.left_out,
        bytes=path.stat().st_size,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def ending_of(path: Path) -> str:
    """The ending of an export, in lower case.

    Raises:
        SettingsError: it is no format.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise SettingsError(
            f"{path} ends in {ending or 'nothing'}; expected a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
            f"{did_you_mean(ending, ENDINGS) if ending else ''}"
        )
    return ending


def _width(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) == 2 else shape[1] * shape[2]


@contextlib.contextmanager
def _writing(path: Path, need: int = 0) -> Iterator[BinaryIO]:
    """A file that appears under its name when all of it is written; ``need`` is its size in bytes, as far as it is known."""
    atomic.require_writable(path, need, option="--to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as file:
            yield file
    except OSError as error:
        if isinstance(error, FeatxError):
            raise
        why = atomic.reason(error) + atomic.full_disk(path.parent, need, error)
        raise OutputError(f"cannot write {path}: {why}; name another file with --to") from error


def _is_own(path: Path) -> bool:
    """Whether a file is an earlier export."""
    ending = path.suffix.lower()
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
        if ending == ".parquet":
            file.seek(max(0, path.stat().st_size - _BEGINNING * 16))
            return beginning.startswith(b"PAR1") and MARK.encode() in file.read()
    if ending == ".csv":
        header = beginning.partition(b"\n")[0].decode("utf-8", "replace")
        return header.startswith("filename,embedding_0,") and (
            len(header) == _BEGINNING or ",".join(write_csv.AFTER) in header
        )
    if ending == ".npy":
        return beginning.startswith(b"\x93NUMPY") and _is_table_of_names(path.with_suffix(".csv"))
    return MARK.encode() in beginning


def _is_table_of_names(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(_BEGINNING).startswith(",".join(FIRST_COLUMNS).encode())


def _missing(path: Path) -> str:
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        return f"writing {path} needs pyarrow: pip install 'featx[parquet]'; {', '.join(ENDINGS[1:])} need nothing"
    return ""


_KIND = OutputKind(
    "export of features", ENDINGS[0], _is_own, other_suffixes=ENDINGS[1:], option="--to", missing=_missing
)
_NAMES = OutputKind("table of names", ".csv", _is_table_of_names, option="--to")
