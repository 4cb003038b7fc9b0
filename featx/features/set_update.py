"""A set brought up to date: which rows go to which of its files, the splits of all images, and what is replaced at the end.

Ranges of paths stay as they are when images are added, so that only files whose images have changed are written. A file that
changes gets a new name, and the manifest is replaced last, so that the earlier set stays whole until then. Who writes the files
is another matter: an extraction, or a merge of shards.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.data.splits import hash_splits_of_readable
from featx.errors import (
    CacheLockedError,
    CacheMissError,
    CorruptFileError,
    OutputError,
    UnknownVersionError,
    UnreadableFileError,
)
from featx.features.feature_file import DONE, FeatureFile, are_among
from featx.features.file_marks import forget_marks
from featx.features.folder import files_in, final_path
from featx.features.lock import remove_abandoned_lock, require_locks, write_lock
from featx.features.manifest import ListedFile, Manifest
from featx.features.resplit import write_with_splits
from featx.io.atomic import temporaries_of
from featx.io.file_kinds import MANIFEST


@dataclass(frozen=True)
class FileRange:
    """The images of one file of a set.

    Attributes:
        rows: of the whole data set, the first and the one after the last.
        present: the name of the file that has them by the manifest; None if there is none.
        successor: the name of the file to write if anything is to change.
    """

    rows: tuple[int, int]
    present: str | None
    successor: str


def divide(paths: np.ndarray, most: int, files: Sequence[ListedFile] = ()) -> list[tuple[int, int, int | None]]:
    """Divide the rows of a data set into ranges, one for each file.

    Ranges begin at the same paths as those of the files that are there. One that has grown too large is divided evenly; the
    last one, into full files and the rest.

    Args:
        paths: (N,) bytes, ascending.
        most: the most rows of a file.
        files: those that are there, in the order of their paths.

    Returns:
        The first row of each range, the one after its last, and the position of the file in ``files`` that begins there.

    Examples:
        >>> divide(np.array([b"%02d" % row for row in range(7)]), 3)
        [(0, 3, None), (3, 6, None), (6, 7, None)]
    """
    firsts = np.array([os.fsencode(file.first) for file in files[1:]], dtype=bytes)
    starts = [0, *np.searchsorted(paths, firsts).tolist()]
    found: list[tuple[int, int, int | None]] = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(paths)], strict=True)):
        count = -(-(end - start) // most)
        if number == len(starts) - 1:
            cuts = [*range(start, end, most), end]
        else:
            cuts = np.linspace(start, end, count + 1).astype(int).tolist() if count else [start]
        for first, last in itertools.pairwise(cuts):
            found.append((first, last, number if files and first == start else None))
    return found


def next_name(name: str) -> str:
    """The name of the file that takes the place of another in a set.

    Examples:
        >>> next_name("0003.h5"), next_name("0003-9.h5")
        ('0003-2.h5', '0003-10.h5')
    """
    number, _, times = name.removesuffix(".h5").partition("-")
    return f"{number}-{int(times or 1) + 1}.h5"


class SetUpdate:
    """The set in a folder as it is, and what becomes of it. Writing is under the lock of its manifest.

    Args:
        folder: of the set.
        split_rows: the most rows of a file.

    Attributes:
        before: the manifest of the earlier set; None if there is none that can be read.

    Raises:
        OutputError: there is a set of a later version.
    """

    def __init__(self, folder: Path, split_rows: int) -> None:
        self.folder, self.split_rows = folder, split_rows
        self.before = _readable_manifest(folder)
        self._listed = [file.name for file in self.before.files] if self.before else []

    @property
    def is_whole(self) -> bool:
        """Whether there is an earlier set, and it has all images of the data set as it was."""
        return self.before is not None and not self.before.missing

    def ranges(self, paths: np.ndarray) -> list[FileRange]:
        """The ranges of the files to be, and their names, from the (N,) bytes paths of all images.

        A file that is not in the manifest yet is of a run that was killed; the same names are taken again.
        """
        if self.before is None or self.before.missing:  # as if there were no set, but for the names
            return [
                self._named((first, last), f"{number:04d}.h5")
                for number, (first, last, _) in enumerate(divide(paths, self.split_rows), 1)
            ]
        number = max(_number(name) for name in self._listed)
        found = []
        files = self.before.files if self.before.split_rows == self.split_rows else ()
        for first, last, position in divide(paths, self.split_rows, files):
            if position is None:
                number += 1
                found.append(FileRange((first, last), None, f"{number:04d}.h5"))
            else:
                found.append(self._named((first, last), self._listed[position]))
        return found

    def ranges_so_far(self, rows: np.ndarray, images: int) -> list[FileRange]:
        """The ranges of the files that can be made of some of the images; ``FileRange.rows`` counts these alone.

        Files that have all images of their range get the names that they keep.

        Args:
            rows: (M,) int64, ascending: which rows of the data set these are.
            images: the number of images of the data set.
        """
        found = []
        for number, start in enumerate(range(0, images, self.split_rows), 1):
            end = min(start + self.split_rows, images)
            first, last = np.searchsorted(rows, [start, end]).tolist()
            if last - first == end - start:
                found.append(self._named((first, last), f"{number:04d}.h5"))
            elif last > first:
                present = next((name for name in self._listed if _number(name) == number), None)
                found.append(FileRange((first, last), present, self._free(f"{number:04d}-1.h5")))
        return found

    def with_splits(self, files: Sequence[FeatureFile]) -> list[FeatureFile]:
        """Give each image the split by its hash that it has in a single file: the others of its class may decide."""
        keys = np.concatenate([file.keys for file in files])
        labels = np.concatenate([file.images.labels for file in files])
        splits = hash_splits_of_readable(keys, labels)
        settled, at = [], 0
        for file in files:
            own = splits[at : at + len(file)]
            at += len(file)
            if not np.array_equal(file.splits, own):
                new = file.path.with_name(self._free(file.path.name))
                file = write_with_splits(file, own, new)
            file.release()
            settled.append(file)
        return settled

    def finish(self, files: Sequence[FeatureFile], missing: int = 0) -> None:
        """Write the manifest, and remove what it replaces.

        Args:
            files: the complete files, in the order of their paths.
            missing: images of the data set that the set does not have yet.

        Raises:
            OutputError: the manifest cannot be written.
        """
        first = files[0]
        listed = tuple(
            ListedFile(file.path.name, len(file), file.digest, os.fsdecode(file.images.paths[0])) for file in files
        )
        manifest = Manifest(
            identity=first.identity,
            dataset=first.dataset["name"],
            root=first.dataset["root"],
            backbone=first.backbone["name"],
            split_rows=self.split_rows,
            files=listed,
            missing=missing,
        )
        if manifest != self.before:
            manifest.write(self.folder)
        with contextlib.suppress(OSError):
            os.utime(self.folder / MANIFEST)  # the set that was requested last is the newest
        self._remove_others(manifest, files)

    def tidy(self, files: Sequence[FeatureFile]) -> None:
        """Remove what a killed run left beside the earlier set, which has these files, unless a process is writing it."""
        others = [path for path in files_in(self.folder) if path.name not in self._listed]
        if self.before and (others or any(self._locks()) or temporaries_of(self.folder / MANIFEST)):
            with contextlib.suppress(CacheLockedError, OutputError), write_lock(self.folder / MANIFEST):
                if _readable_manifest(self.folder) == self.before:
                    self._remove_others(self.before, files)

    def _named(self, rows: tuple[int, int], name: str) -> FileRange:
        """The range of a file that has a name already, or gets it."""
        return FileRange(rows, name if name in self._listed else None, self._free(name))

    def _free(self, name: str) -> str:
        """A name, or the next one that no file of the earlier set has."""
        while name in self._listed:
            name = next_name(name)
        return name

    def _locks(self) -> Iterator[Path]:
        """The files whose locks are in the folder; a killed run leaves them."""
        for lock in self.folder.glob(".*.lock"):
            yield lock.with_name(lock.name[1:].removesuffix(".lock"))

    def _remove_others(self, manifest: Manifest, files: Sequence[FeatureFile]) -> None:
        """Remove files that the set has replaced. Damaged ones stay, and unfinished ones with rows that the set lacks."""
        listed = {file.name for file in manifest.files}
        others = [path for path in files_in(self.folder) if path.name not in listed]
        keys = np.concatenate([file.keys for file in files])
        for path in others:
            with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError, CacheLockedError, OSError):
                if not path.name.endswith(".new"):  # such a file has no rows yet, and may not be laid out
                    file = FeatureFile(path, allow_partial=True)
                    if not file.complete and not are_among(file.keys[file.status == DONE], keys):
                        continue
                with write_lock(final_path(path)):
                    require_locks()
                    path.unlink()
                    forget_marks(path)
        for path in temporaries_of(self.folder / MANIFEST):  # only who has the lock writes the manifest
            with contextlib.suppress(OSError):
                path.unlink()
        for path in list(self._locks()):
            if path.name != MANIFEST:
                remove_abandoned_lock(path)


def _number(name: str) -> int:
    """The number of a file of a set, which its successors have too."""
    return int(name.removesuffix(".h5").partition("-")[0])


def _readable_manifest(folder: Path) -> Manifest | None:
    """The manifest of the set in a folder; None if there is none, or a damaged one.

    Raises:
        OutputError: it is of a later version.
    """
    try:
        return Manifest.read(folder)
    except UnknownVersionError as error:
        raise OutputError(f"{error}. It is not overwritten; -o names another folder") from error
    except (CacheMissError, CorruptFileError):
        return None
