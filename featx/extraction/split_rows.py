"""One data set in several feature files: the run that brings them up to date.

Each file is made as any other. ``featx.features.set_update`` tells which images go to which file, and replaces the manifest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.backbones.identities import other_form
from featx.errors import CacheMissError, CorruptFileError, DatasetError, StaleCacheError, UnreadableFileError
from featx.extraction.execute import Outcome
from featx.extraction.inventory import count_unversioned, encoded_paths
from featx.extraction.one_file import look, run
from featx.extraction.request import Request
from featx.extraction.reuse import count_removed
from featx.features.feature_file import DONE, FeatureFile
from featx.features.folder import files_in, set_folder
from featx.features.header import FeatureFileHeader
from featx.features.lock import note_waits, write_lock
from featx.features.manifest import Manifest
from featx.features.set_update import FileRange, SetUpdate
from featx.io.file_kinds import MANIFEST
from featx.reporter import ForwardingReporter, Reporter
from featx.text import portable


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
        update = SetUpdate(self._folder, self._split_rows)
        if update.before is None or update.before.missing or self._request.rehash:
            return []
        ranges, outcomes = update.ranges(self._paths), list[Outcome]()
        if [each.present for each in ranges] != [file.name for file in update.before.files]:
            return []
        for each, listed in zip(ranges, update.before.files, strict=True):
            outcome = self._look(each)
            if outcome is None or outcome.file.digest != listed.digest:
                return []
            outcomes.append(_released(outcome))
        update.tidy([outcome.file for outcome in outcomes])
        with contextlib.suppress(OSError):
            os.utime(self._folder / MANIFEST)  # the set that was requested last is the newest
        return outcomes

    def write(self) -> tuple[list[Outcome], int]:
        """Bring each file up to date, then the splits and the manifest, and remove what they replace, under the lock."""
        update = SetUpdate(self._folder, self._split_rows)
        known = self._keys_of(update.before)
        outcomes = [_released(self._bring(each)) for each in update.ranges(self._paths)]
        if not any((outcome.file.status == DONE).any() for outcome in outcomes):
            first = outcomes[0].file
            raise DatasetError(
                f"no image in {self._request.images.root} has features; the first, {first.paths[0]}: {first.error(0)}"
            )
        if "" in self._request.images.splits:
            settled = update.with_splits([outcome.file for outcome in outcomes])
            outcomes = [
                dataclasses.replace(outcome, file=file) for outcome, file in zip(outcomes, settled, strict=True)
            ]
        update.finish([outcome.file for outcome in outcomes])
        return outcomes, count_removed(known, np.concatenate([outcome.file.keys for outcome in outcomes]))

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

    def _keys_of(self, manifest: Manifest | None) -> np.ndarray:
        """The keys of the images of an earlier set, as far as its files can be read: (N, 16) uint8."""
        keys = [np.empty((0, 16), dtype=np.uint8)]
        for listed in manifest.files if manifest else ():
            with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
                keys.append(FeatureFile(self._folder / listed.name).keys)
        return np.concatenate(keys)


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


def _released(outcome: Outcome) -> Outcome:
    """The outcome with its file closed until it is needed, so that the number of files is not limited."""
    outcome.file.release()
    return outcome
