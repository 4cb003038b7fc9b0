"""One data set in several feature files: which images go to which file, and the run that brings them up to date.

Each file is made as any other. What is new here: the ranges of paths, which stay as they are when images are added, so that
only files whose images have changed are written; splits by hashes, which are those of one file; and the manifest, which is
replaced last. A file that changes gets a new name, so that the earlier set stays whole until then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.backbones.identities import other_form
from featx.data.splits import hash_splits
from featx.errors import (
    CacheLockedError,
    CacheMissError,
    CorruptFileError,
    DatasetError,
    OutputError,
    StaleCacheError,
    UnknownVersionError,
    UnreadableFileError,
)
from featx.extraction.execute import Outcome
from featx.extraction.inventory import count_unversioned, encoded_paths
from featx.extraction.one_file import look, run
from featx.extraction.request import Request
from featx.extraction.reuse import count_removed
from featx.features.feature_file import DONE, FeatureFile
from featx.features.file_marks import forget_marks
from featx.features.folder import files_in, final_path, set_folder
from featx.features.header import FeatureFileHeader
from featx.features.lock import note_waits, remove_abandoned_lock, require_locks, write_lock
from featx.features.manifest import ListedFile, Manifest
from featx.features.resplit import write_with_splits
from featx.io.file_kinds import MANIFEST
from featx.reporter import ForwardingReporter, Reporter
from featx.text import portable


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


@dataclass(frozen=True)
class SetOutcome:
    """What a run did with a set.

    Attributes:
        folder: the set.
        outcomes: of each file.
        removed: images of the earlier set that are gone.
        unversioned: images that each run reads, as ``count_unversioned`` counts them.
    """

    folder: Path
    outcomes: Sequence[Outcome]
    removed: int
    unversioned: int


def extract_set(request: Request, split_rows: int, *, wait: bool, reporter: Reporter) -> SetOutcome:
    """Bring the set of feature files of a data set up to date.

    Args:
        request: the extraction of the whole data set; ``out`` is the folder of the set, or None for the usual one.
        split_rows: the most rows of a file.
        wait: wait while another process writes the set, rather than raise.
        reporter: gets the progress, in images of the whole data set.

    Raises:
        DatasetError: no image has features.
        CacheLockedError: another process is writing the set.
        OutputError: a file cannot be written.
    """
    folder, request = _place(request)
    update = _Update(folder, request, split_rows, reporter)
    if outcomes := update.unchanged():
        remove_abandoned_lock(folder / MANIFEST)
        return SetOutcome(folder, outcomes, 0, update.unversioned)

    with write_lock(folder / MANIFEST, wait=wait, waiting=note_waits(reporter, "set")):
        update.unversioned = 0
        outcomes, removed = update.write()
        return SetOutcome(folder, outcomes, removed, update.unversioned)


def _place(request: Request) -> tuple[Path, Request]:
    """The folder of the set, and the request with the backbone in the form, and with all layers, that its files have."""
    images = request.images
    for backbone in (request.backbone, other_form(request.backbone)):
        folder = request.out or set_folder(
            request.cache, images.name, portable(images.root), backbone.name, backbone.identities
        )
        for path in files_in(folder):
            with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
                header = FeatureFileHeader(path)
                if header.holds(backbone.identities):
                    wider = (
                        backbone.with_layers(header.layers) if len(header.layers) > len(backbone.layers) else backbone
                    )
                    return folder, dataclasses.replace(request, backbone=wider)
    folder = request.out or set_folder(
        request.cache, images.name, portable(images.root), request.backbone.name, request.backbone.identities
    )
    return folder, request


class _Update:
    """One run that brings a set up to date.

    Attributes:
        unversioned: images that each run reads, so far.
    """

    def __init__(self, folder: Path, request: Request, split_rows: int, reporter: Reporter) -> None:
        self._folder, self._request, self._split_rows, self._reporter = folder, request, split_rows, reporter
        self._paths = encoded_paths(request.images)
        self.unversioned = 0

    def unchanged(self) -> list[Outcome]:
        """The outcomes of a run that finds each file up to date, without a lock; nothing if something is to do."""
        before = self._manifest()
        if before is None or self._request.rehash:
            return []
        ranges, outcomes = self._ranges(before), list[Outcome]()
        if [each.present for each in ranges] != [file.name for file in before.files]:
            return []
        for each, listed in zip(ranges, before.files, strict=True):
            outcome = self._look(each)
            if outcome is None or outcome.file.digest != listed.digest:
                return []
            outcomes.append(_released(outcome))
        with contextlib.suppress(OSError):
            os.utime(self._folder / MANIFEST)  # the set that was requested last is the newest
        return outcomes

    def write(self) -> tuple[list[Outcome], int]:
        """Bring each file up to date, then the splits and the manifest, and remove what they replace, under the lock."""
        before = self._manifest()
        known = self._keys_of(before)
        ranges = self._ranges(before)
        outcomes = [_released(self._bring(each)) for each in ranges]
        if not any((outcome.file.status == DONE).any() for outcome in outcomes):
            first = outcomes[0].file
            raise DatasetError(
                f"none of the {len(self._paths):,} images in {self._request.images.root} has features; the first, "
                f"{first.paths[0]}: {first.error(0)}"
            )
        if "" in self._request.images.splits:
            outcomes = self._settle_splits(outcomes, before)
        files = [outcome.file for outcome in outcomes]
        manifest = Manifest(
            identity=files[0].identity,
            dataset=files[0].dataset["name"],
            root=files[0].dataset["root"],
            backbone=files[0].backbone["name"],
            split_rows=self._split_rows,
            files=tuple(
                ListedFile(file.path.name, len(file), file.digest, os.fsdecode(file.images.paths[0])) for file in files
            ),
        )
        manifest.write(self._folder)
        keys = np.concatenate([file.keys for file in files])
        self._remove_others(manifest, keys)
        return outcomes, count_removed(known, keys)

    def _manifest(self) -> Manifest | None:
        """The manifest of the earlier run; None if there is none that can be read."""
        try:
            return Manifest.read(self._folder)
        except CacheMissError:
            return None
        except UnknownVersionError as error:
            raise OutputError(f"{error}. It is not overwritten; -o names another folder") from error
        except CorruptFileError:
            return None

    def _ranges(self, before: Manifest | None) -> list[FileRange]:
        """The ranges of the files to be, and their names.

        A file that is not in the manifest yet is of a run that was killed; the same names are taken again.
        """
        files = before.files if before and before.split_rows == self._split_rows else ()
        names = [file.name for file in before.files] if before else []
        number = max([int(name.partition("-")[0].removesuffix(".h5")) for name in names], default=0)
        found = []
        for first, last, position in divide(self._paths, self._split_rows, files):
            if position is None:
                number += 1
                found.append(FileRange((first, last), None, f"{number:04d}.h5"))
            else:
                found.append(FileRange((first, last), names[position], next_name(names[position])))
        return found

    def _part(self, each: FileRange, name: str) -> Request:
        """The request for the images of one file."""
        images = self._request.images.take(np.arange(*each.rows))
        return dataclasses.replace(self._request, images=images, out=self._folder / name, in_set=True)

    def _look(self, each: FileRange) -> Outcome | None:
        """The outcome if the file is up to date; None if it is not, or is damaged."""
        assert each.present
        with contextlib.suppress(CorruptFileError, StaleCacheError):
            looked = look(self._part(each, each.present), _Offset(self._reporter, each.rows, len(self._paths)))
            if looked.outcome:
                self.unversioned += count_unversioned(looked.inventory, looked.outcome.file)
            return looked.outcome
        return None

    def _bring(self, each: FileRange) -> Outcome:
        """Bring one file up to date: under a new name, so that the earlier set stays whole; with ``rehash`` in its place."""
        reporter = _Offset(self._reporter, each.rows, len(self._paths))
        new = self._part(each, each.successor)
        looked = None
        if each.present:
            present = self._part(each, each.present)
            with contextlib.suppress(CorruptFileError, StaleCacheError):
                looked = look(present, reporter)
        if looked is None:
            inventory, outcome = run(new, wait=True, reporter=reporter)
        else:
            out = None if self._request.rehash else new.out
            inventory, outcome = run(present, wait=True, reporter=reporter, looked=looked, out=out)
        self.unversioned += count_unversioned(inventory, outcome.file)
        reporter.progress(each.rows[1] - each.rows[0], each.rows[1] - each.rows[0])
        return outcome

    def _settle_splits(self, outcomes: list[Outcome], before: Manifest | None) -> list[Outcome]:
        """Give each image the split that it has in a single file: the others of its class may decide."""
        keys = np.concatenate([outcome.file.keys for outcome in outcomes])
        labels = np.concatenate([outcome.file.images.labels for outcome in outcomes])
        splits, readable = np.full(len(keys), "", dtype=object), keys.any(axis=1)
        splits[readable] = hash_splits(keys[readable], labels[readable])
        listed = {file.name for file in before.files} if before else set()
        settled, at = [], 0
        for outcome in outcomes:
            file = outcome.file
            own = splits[at : at + len(file)]
            at += len(file)
            if not np.array_equal(file.splits, own):
                path = file.path
                new = path.with_name(next_name(path.name)) if path.name in listed else path
                outcome = dataclasses.replace(outcome, file=write_with_splits(file, own, new))
            settled.append(_released(outcome))
        return settled

    def _keys_of(self, manifest: Manifest | None) -> np.ndarray:
        """The keys of the images of an earlier set, as far as its files can be read: (N, 16) uint8."""
        keys = [np.empty((0, 16), dtype=np.uint8)]
        for listed in manifest.files if manifest else ():
            with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
                keys.append(FeatureFile(self._folder / listed.name).keys)
        return np.concatenate(keys)

    def _remove_others(self, manifest: Manifest, keys: np.ndarray) -> None:
        """Remove files that the set has replaced. Damaged ones stay, and unfinished ones with rows that the set lacks."""
        listed = {file.name for file in manifest.files}
        have = set(map(bytes, keys))
        for path in files_in(self._folder):
            if path.name in listed:
                continue
            with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError, CacheLockedError, OSError):
                file = FeatureFile(path, allow_partial=True)
                if not file.complete and any(bytes(key) not in have for key in file.keys[file.status == DONE]):
                    continue
                with write_lock(final_path(path)):
                    require_locks()
                    path.unlink()
                    forget_marks(path)


class _Offset(ForwardingReporter):
    """Reports the progress in one file of a set as that of the whole data set; other progress as it is."""

    def __init__(self, reporter: Reporter, rows: tuple[int, int], total: int) -> None:
        super().__init__(reporter)
        self._first, self._own, self._total = rows[0], rows[1] - rows[0], total

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Forward the progress."""
        if total == self._own:
            done, total = done + self._first, self._total
        self.reporter.progress(done, total, detail)


def next_name(name: str) -> str:
    """The name of the file that takes the place of another in a set.

    Examples:
        >>> next_name("0003.h5"), next_name("0003-9.h5")
        ('0003-2.h5', '0003-10.h5')
    """
    number, _, version = name.removesuffix(".h5").partition("-")
    return f"{number}-{int(version or 1) + 1}.h5"


def _released(outcome: Outcome) -> Outcome:
    """The outcome with its file closed until it is needed, so that the number of files is not limited."""
    outcome.file.release()
    return outcome
