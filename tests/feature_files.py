"""Small feature files that several test files are about."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from featx.features.feature_file import FeatureFile, ImageTable
from featx.features.writer import FeatureFileWriter

IDENTITIES = {"penultimate": "a" * 64, "hidden": "b" * 64}
DIMS = {"penultimate": 5, "hidden": 3}
BACKBONE = {"name": "lenet5", "weights": "default", "parts": {"dtype": "float32"}}


def table(count: int, *, paths: Sequence[bytes] | None = None, splits: Sequence[bytes] | None = None) -> ImageTable:
    """Rows of two classes; the last is unlabelled."""
    return ImageTable(
        paths=np.array(paths or [b"%02d.png" % row for row in range(count)]),
        labels=np.array([row % 2 for row in range(count - 1)] + [-1]),
        splits=np.array(splits or [b"train"] * count),
        sizes=np.arange(count) + 100,
        mtimes=np.arange(count) + 10**18,
    )


def vectors(count: int, dim: int, dtype: str = "float32") -> np.ndarray:
    """(count, dim), all different."""
    return (np.arange(count * dim).reshape(count, dim) / 8 + 1).astype(dtype)


def keys_of(count: int) -> np.ndarray:
    """(count, 16) uint8, none of them all zero."""
    return np.random.default_rng(0).integers(1, 256, (count, 16), dtype=np.uint8)


def begin(
    path: Path,
    count: int = 6,
    *,
    classes: Sequence[str] = ("ant", "bee"),
    dims: Mapping[str, int] = DIMS,
    dtype: str = "float32",
    root: str = "/photos",
    identities: Mapping[str, str] = IDENTITIES,
    images: ImageTable | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> FeatureFileWriter:
    """A writer with no rows yet."""
    return FeatureFileWriter(
        path,
        images=images or table(count),
        classes=classes,
        layers={name: (dim, identities[name]) for name, dim in dims.items()},
        dtype=dtype,
        identity="c" * 64,
        backbone=BACKBONE,
        dataset={"name": "photos", "root": root, "splits": "given"},
        columns={name: np.array(cells, dtype=object) for name, cells in (columns or {}).items()},
    )


def write_rows(writer: FeatureFileWriter, rows: Sequence[int], count: int = 6, dtype: str = "float32") -> None:
    """Commit these rows of ``vectors``."""
    rows = list(rows)
    features = {name: vectors(count, dim, dtype)[rows] for name, dim in writer._layers.items()}
    writer.write(rows, keys_of(count)[rows], features)


def make(path: Path, count: int = 6, *, dtype: str = "float32", **options: Any) -> FeatureFile:
    """A complete file; row 4 failed, where there is one."""
    writer = begin(path, count, dtype=dtype, **options)
    writer.publish()
    write_rows(writer, [row for row in range(count) if row != 4], count, dtype)
    if count > 4:
        writer.fail(4, keys_of(count)[4].tobytes(), "cannot be decoded: truncated")
    return writer.finish()


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


HOLD_LOCK = """
import sys, time
from pathlib import Path
from featx.features.lock import write_lock
with write_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
"""A program that holds the lock of the file that is its argument."""


@contextmanager
def holder_of(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock of a file until it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()
