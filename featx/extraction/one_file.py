"""One feature file brought up to date: first a look at whether anything is to do, then the run under its lock."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.data.file_bytes import FileFacts
from featx.extraction.execute import Outcome, execute
from featx.extraction.inventory import Inventory, take_inventory
from featx.extraction.plan import Hashed, hash_altered, plan
from featx.extraction.request import Request
from featx.extraction.unchanged import is_unchanged
from featx.features.feature_file import FAILED
from featx.features.file_marks import record_marks, seal_of
from featx.features.folder import knows_of
from featx.features.lock import note_waits, remove_abandoned_lock, write_lock
from featx.reporter import Reporter
from featx.text import counted, portable


@dataclass(frozen=True)
class Look:
    """What a look at a feature file and its images has found, without the lock of the file.

    Attributes:
        inventory: the state of the disk.
        facts: what servers state of the images; None for local files, which are looked up again under the lock.
        hashed: images that were hashed, since they may be other files than before.
        outcome: the outcome of the run if nothing is to do; else None.
    """

    inventory: Inventory
    facts: FileFacts | None
    hashed: Hashed | None
    outcome: Outcome | None


def look(request: Request, reporter: Reporter) -> Look:
    """Find out whether the feature file is up to date. Nothing is written but what is known of the images.

    Raises:
        DatasetError: the run is strict, and the file has a failed image.
        UnreadableFileError, CorruptFileError, StaleCacheError: as of ``take_inventory``.
    """
    reporter.stage(f"looking for known features of {counted(len(request.images), 'image')}")
    facts = _remote_facts(request)
    inventory = take_inventory(request, facts)
    if not request.rehash and is_unchanged(inventory):
        return Look(inventory, facts, None, _nothing_done(inventory))
    hashed = None if request.rehash else hash_altered(inventory, reporter)
    done = _nothing_done(inventory) if hashed and hashed.same else None
    return Look(inventory, facts, hashed, done)


def run(
    request: Request, *, wait: bool, reporter: Reporter, looked: Look | None = None, out: Path | None = None
) -> tuple[Inventory, Outcome]:
    """Bring the feature file up to date; without its lock if it is so already.

    Args:
        request: the extraction.
        wait: wait while another process writes the same file, rather than raise.
        reporter: gets the progress.
        looked: what a look has found, if there was one.
        out: the file to write instead if anything is to do.

    Raises:
        EngineError: something is to do, and the cluster that is asked for does not answer; then nothing is written.
    """
    looked = looked or look(request, reporter)
    if looked.outcome:
        remove_abandoned_lock(looked.inventory.path)
        return looked.inventory, looked.outcome
    if request.ray:
        request.ray.require_answer()
    inventory = looked.inventory
    if out is not None:
        request = dataclasses.replace(request, out=out)
        inventory = take_inventory(request, looked.facts)
    while True:
        path = inventory.path
        with write_lock(path, wait=wait, waiting=note_waits(reporter)):
            inventory = take_inventory(
                request, looked.facts
            )  # again: another process may have written the file, or taken its name
            if inventory.path == path:
                work = plan(inventory, reporter, looked.hashed)
                return inventory, execute(work, reporter) if work else _nothing_done(inventory)


def _remote_facts(request: Request) -> FileFacts | None:
    """What servers state of the images, asked for once; None for local files, which are looked up again under the lock.

    Where each image costs a request and nothing is known of any, nothing is asked: the answer comes with the bytes.
    """
    images = request.images
    if not images.is_remote:
        return None
    if images.asks_for_each and (
        request.rehash or not knows_of(request.known_in, portable(images.root), request.backbone.identities)
    ):
        return FileFacts.unasked(len(images))
    return images.facts()


def _nothing_done(inventory: Inventory) -> Outcome:
    """The outcome of a run whose complete file is up to date.

    Raises:
        DatasetError: the run is strict, and the file has a failed image.
    """
    file = inventory.earlier
    assert file is not None
    failed = np.flatnonzero(file.status == FAILED).tolist()
    if failed and inventory.request.strict:
        raise inventory.request.strict_error(failed[0], file.error(failed[0]))
    record_marks(file.path, seal_of(file, file.images.paths), inventory.marks)
    with contextlib.suppress(OSError):  # a file of somebody else's cannot be touched; then it is just not the newest
        os.utime(inventory.path)  # the file that was requested last is the newest, which fit-head takes by default
    return Outcome(file, computed=0, reused=len(file) - len(failed), engine="", notes=inventory.notes)
