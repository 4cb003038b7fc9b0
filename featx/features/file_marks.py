"""Change times and inode numbers of image files, by which swapped files of equal size and modification time are noticed.

A rename, a copy, or an edit whose modification time is set back (``touch -r``, ``cp -p``, ``rsync -t``) sets the change time of
a file (``st_ctime``), which no program can set back. A renamed folder leaves those of its files as they are, but brings files
with other change times, or at least other inode numbers (``st_ino``), to the same paths.

A feature file has no place for either, and tables that featx does not know are refused. So they are kept below
``featx.system.home()``, in one file for each feature file. They are compared for equality with what ``stat`` returns now,
never with a clock. Losing such a record costs little: then the change times of images, links and folders are compared with the
feature file's own time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.data.file_bytes import UNKNOWN, file_marks
from featx.errors import FeatxError, OutputError
from featx.features.feature_file import FeatureFile
from featx.features.header import FeatureFileHeader
from featx.io.atomic import keep
from featx.system import home

_FOLDER = "marks"
_MOST_RECORDS = 500
_SEAL_BYTES = 64

_WHOLE_SECOND, _COARSE_TICK = 1_000_000_000, 2_000_000_000


@dataclass(frozen=True)
class FileMarks:
    """The change times and inode numbers of N image files.

    Attributes:
        ctimes: (N,) int64, change times in ns; -1 where there is not a regular file, ``UNKNOWN`` where nothing is known.
        inodes: (N,) int64, inode numbers; 0 where they are not compared.
    """

    ctimes: np.ndarray
    inodes: np.ndarray


def unaltered(file: FeatureFile, rows: np.ndarray, now: FileMarks) -> np.ndarray:
    """Which images are still the files that a feature file was made from, as far as their marks can show.

    Args:
        file: the feature file, complete or not.
        rows: (M,) row numbers in the feature file.
        now: the M marks of the images at these rows, as they are now. Sizes and modification times are the same.

    Returns:
        (M,) bool.
    """
    # A version on a server needs no marks, and a run that was interrupted has recorded none for images that came after.
    by_version = (now.ctimes == 0) & (now.inodes == 0)
    recorded = recorded_marks(file)
    if recorded is None:
        return np.asarray(by_version | (_older(file, rows, now.ctimes) & (now.ctimes != UNKNOWN)))
    known = recorded.inodes[rows]
    same = (recorded.ctimes[rows] == now.ctimes) & (now.ctimes != UNKNOWN) & ((known == now.inodes) | (known == 0))
    return np.asarray(by_version | same)


def recorded_marks(file: FeatureFile) -> FileMarks | None:
    """The N marks that were recorded for a feature file; None if there are none for its present content."""
    seal, table = _read(file.path)
    if seal != seal_of(file, file.images.paths) or len(table) != len(file):
        return None
    return FileMarks(table[:, 0], table[:, 1])


def is_own(path: Path | None) -> bool:
    """Whether featx has read the images of a complete feature file on behalf of this user: then there is a record of them.

    A feature file of somebody else names URLs that nobody here has asked for. ``featx extract`` on its data, with the file in
    the cache folder, makes it one of this user's, without a forward pass. The content of the file counts, not its place.
    """
    if path and path.is_dir():  # a set, whose files are read by the same run
        return any(map(is_own, sorted(path.glob("*.h5"))))
    with contextlib.suppress(FeatxError, OSError):
        header = FeatureFileHeader(path) if path else None
        if header is None or not header.complete:
            return False
        seal = seal_of(header, np.empty(0))
        return _read(header.path)[0] == seal or any(_begins_with(each, seal) for each in (home() / _FOLDER).iterdir())
    return False


def _begins_with(path: Path, seal: bytes) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(seal)) == seal
    return False


def record_marks(path: Path, seal: bytes, marks: FileMarks) -> None:
    """Keep the marks of all images of a feature file. A failure is ignored: it only costs time later.

    Args:
        path: the feature file.
        seal: what ``seal_of`` returns for it.
        marks: the N marks, from before the images were read.
    """
    before_seal, before = _read(path)
    table = np.stack([marks.ctimes, marks.inodes], axis=1).astype("<i8")
    if seal == before_seal and np.array_equal(before, table):
        return
    with contextlib.suppress(OutputError):
        keep(f"{_FOLDER}/{_record(path).name}", seal + table.tobytes(), most=_MOST_RECORDS)


def forget_marks(path: Path) -> None:
    """Remove the record of a feature file that is gone."""
    with contextlib.suppress(OSError, OutputError):
        _record(path).unlink(missing_ok=True)


def seal_of(file: FeatureFileHeader, paths: np.ndarray) -> bytes:
    """Bytes that bind a record to the content of a feature file; in an unfinished one, to its images and its layers.

    An unfinished file is written after its record: whatever is read into it was read after the marks were taken.
    """
    if file.complete:
        return file.digest.encode().ljust(_SEAL_BYTES)[:_SEAL_BYTES]
    return hashlib.sha256(b"\0".join([file.identity.encode(), *paths.tolist()])).hexdigest().encode()


def _older(file: FeatureFile, rows: np.ndarray, ctimes: np.ndarray) -> np.ndarray:
    """Which images of (M,) rows were put in their places, as links and folders too, before the feature file was written.

    A time of whole seconds may be that of a coarse clock.
    """
    try:
        written = file.path.stat().st_mtime_ns
    except OSError:  # it was replaced a moment ago
        return np.zeros(len(ctimes), dtype=bool)
    latest = ctimes + np.where(ctimes % _WHOLE_SECOND == 0, _COARSE_TICK, 0)
    older = np.asarray(latest < written)
    root, replaced = os.fsencode(file.root), dict[bytes, bool]()
    for at, path in enumerate(file.images.paths[rows].tolist()):
        folder = path.rpartition(b"/")[0]
        if folder not in replaced:
            replaced[folder] = any(_is_replaced(root, each, written) for each in _folders_above(folder))
        older[at] &= not (replaced[folder] or _is_replaced(root, path, written))
    return older


def _folders_above(folder: bytes) -> Iterator[bytes]:
    """A relative path and all above it, down to the empty one."""
    while folder:
        yield folder
        folder = folder.rpartition(b"/")[0]
    yield folder


def _is_replaced(root: bytes, path: bytes, written: int) -> bool:
    """Whether a link below a root was made, or a folder renamed, after a time in ns.

    New entries set both times of a folder; a new name sets the change time alone.
    """
    try:
        found = os.lstat(os.path.join(root, path))  # noqa: PTH118 - Path takes several times as long
    except (OSError, ValueError):
        return False
    ctime = file_marks(found)[0]
    if stat.S_ISLNK(found.st_mode):
        return ctime >= written
    return stat.S_ISDIR(found.st_mode) and ctime >= written and ctime > found.st_mtime_ns


def _record(path: Path) -> Path:
    """The path of the record of a feature file.

    Raises:
        OutputError: there is no folder for it.
    """
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    return home() / _FOLDER / name


def _read(path: Path) -> tuple[bytes, np.ndarray]:
    """The seal and the (N, 2) int64 table of the record of a feature file; both empty if there is no sound one."""
    with contextlib.suppress(OSError, OutputError, ValueError, MemoryError):
        data = _record(path).read_bytes()
        return data[:_SEAL_BYTES], np.frombuffer(data, dtype="<i8", offset=_SEAL_BYTES).reshape(-1, 2)
    return b"", np.empty((0, 2), dtype=np.int64)
