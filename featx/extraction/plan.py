"""The plan of an extraction: what is known of its images before anything is written, and the work that is left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featx.backbones.backbone import Backbone
from featx.backbones.identities import other_form
from featx.errors import CacheMissError, CorruptFileError, UnreadableFileError
from featx.extraction.inventory import Inventory
from featx.extraction.reuse import KnownViews
from featx.extraction.unchanged import altered_rows, is_unchanged
from featx.features.feature_file import DONE, FeatureFile
from featx.features.file_marks import recorded_marks
from featx.features.folder import files_sharing, set_aside
from featx.features.header import partial_path
from featx.layer_spec import RandomView, View
from featx.reporter import Reporter
from featx.text import counted


@dataclass(frozen=True)
class Work:
    """Images to send through the network in the same views.

    Attributes:
        views: the views whose features are missing.
        rows: (M,) int64, ascending rows of the feature file.
    """

    views: tuple[View | RandomView, ...]
    rows: np.ndarray


@dataclass(frozen=True)
class Plan:
    """What is known of the images once the file's lock is held, and what is left to do.

    Attributes:
        inventory: the state of the disk, and the arguments of the run.
        backbone: the network in all layers and views of the file to write: those requested, and those that an earlier file
            at this path has besides.
        known: the features in files of the folder, by the images' keys.
        keys: (N, 16) uint8, the hashes of the images recognised so far; zeros for the others.
        unfinished: what an interrupted run of the same features left at this path; or None.
        in_place: whether what it left may be continued in place, since none of its rows belongs to another image by now.
        notes: sentences for the user.
    """

    inventory: Inventory
    backbone: Backbone
    known: KnownViews
    keys: np.ndarray
    unfinished: FeatureFile | None
    in_place: bool
    notes: tuple[str, ...]

    def work(self, rows: np.ndarray, keys: np.ndarray) -> list[Work]:
        """The work that is left, one entry for each set of missing views; entries are independent of one another.

        Args:
            rows: (M,) rows that have no features yet.
            keys: (M, 16) uint8, the hashes of their images; zeros where unknown.
        """
        return [Work(views, lacking) for views, lacking in self.known.lacking(rows, keys)]


@dataclass(frozen=True)
class Hashed:
    """Images that were read and hashed, without the lock of the file, since they may be other files than before.

    Attributes:
        inventory: the state of the disk before they were read.
        keys: (N, 16) uint8, the hashes of these images; zeros for the others.
        same: whether all of them have the bytes that the complete file was made from, so that it is up to date.
    """

    inventory: Inventory
    keys: np.ndarray
    same: bool

    def keys_now(self, inventory: Inventory) -> np.ndarray:
        """The hashes that still hold in a later state of the disk: (N, 16) uint8; zeros for the others."""
        before = self.inventory
        pairs = (
            (before.sizes, inventory.sizes),
            (before.mtimes, inventory.mtimes),
            (before.marks.ctimes, inventory.marks.ctimes),
            (before.marks.inodes, inventory.marks.inodes),
        )
        hold = np.logical_and.reduce([one == other for one, other in pairs])
        return np.where(hold[:, None], self.keys, 0).astype(np.uint8)


def hash_altered(inventory: Inventory, reporter: Reporter) -> Hashed | None:
    """Read the images that may be other files than before, if the complete file is up to date but for that.

    If all have the same bytes, and some the same change time too, the file system counts its inodes anew each time, as some
    network file systems do. Then inode numbers are not compared from now on.

    Args:
        inventory: the state of the disk. What is read corrects it.
        reporter: gets the progress of the reading, in images.
    """
    file, rows = inventory.earlier, altered_rows(inventory)
    if file is None or rows is None or not len(rows):
        return None
    recorded = recorded_marks(file)
    recounted = bool(recorded and (recorded.ctimes[rows] == inventory.marks.ctimes[rows]).any())
    reporter.stage(
        f"reading {counted(len(rows), 'image that may be another file', 'images that may be other files')} than before"
    )
    keys = _read_keys(inventory, rows, reporter)
    same = np.array_equal(file.keys[rows], keys[rows]) and altered_rows(inventory) is not None
    if same and recounted:
        inventory.marks.inodes[:] = 0
    return Hashed(inventory, keys, same)


def plan(inventory: Inventory, reporter: Reporter, hashed: Hashed | None = None) -> Plan | None:
    """Find out what is known of the images and what is to do; None if the complete file is up to date.

    Call it under the lock of the file: with ``rehash`` it reads every image, and it moves what an interrupted run for other
    features left out of the way.

    Args:
        inventory: the state of the disk, taken under the same lock.
        reporter: gets the progress of the reading, in images.
        hashed: images that were hashed before.
    """
    everything = np.arange(len(inventory.images))
    keys = _read_keys(inventory, everything, reporter) if inventory.request.rehash else None
    if is_unchanged(inventory, keys):
        return None
    backbone, earlier = inventory.request.backbone, inventory.earlier
    # Layers of the earlier file that were not requested this time stay as complete as the others.
    if earlier and len(earlier.layers) > len(backbone.layers):
        backbone = backbone.with_layers(earlier.layers)
    unfinished, notes = _unfinished_file(inventory, backbone.identities)
    known, unread = _known_views(inventory, backbone, [file for file in (unfinished, earlier) if file])
    if keys is None:
        keys = known.recognised(inventory.images, inventory.sizes, inventory.mtimes, inventory.marks)
        if hashed:
            unknown = ~keys.any(axis=1)
            keys[unknown] = hashed.keys_now(inventory)[unknown]
    in_place = unfinished is None or _is_in_place(inventory, unfinished, keys, reporter)
    return Plan(inventory, backbone, known, keys, unfinished, in_place, (*inventory.notes, *notes, *unread))


def _read_keys(inventory: Inventory, rows: np.ndarray, reporter: Reporter) -> np.ndarray:
    """(N, 16) uint8: the hashes of the images of (M,) rows, read now; zeros elsewhere, and where an image cannot be read."""
    keys = np.zeros((len(inventory.images), 16), dtype=np.uint8)
    for done, image in enumerate(inventory.read(rows), start=1):
        keys[image.row] = np.frombuffer(image.key, dtype=np.uint8)
        inventory.correct(image)
        reporter.progress(done, len(rows))
    return keys


def _is_in_place(inventory: Inventory, unfinished: FeatureFile, keys: np.ndarray, reporter: Reporter) -> bool:
    """Whether all rows that an unfinished file has done belong to the images that are at their paths now.

    If not, a row that is replaced may be that of another image now, whose features would be lost.

    Args:
        inventory: the state of the disk.
        unfinished: the file of an interrupted run.
        keys: (N, 16) uint8, the hashes of images as far as they are recognised; those of done rows are added.
        reporter: gets the progress of the reading, in images.
    """
    table, now = unfinished.images, inventory.table
    columns = ((table.paths, now.paths), (table.sizes, now.sizes), (table.mtimes, now.mtimes))
    if not all(np.array_equal(one, other) for one, other in columns):
        return True  # a new file is laid out anyway
    done = np.flatnonzero(unfinished.status == DONE)
    done = done[unfinished.vouched(done)]
    doubtful = done[~keys[done].any(axis=1) & (inventory.sizes[done] >= 0)]
    if len(doubtful):
        keys[doubtful] = _read_keys(inventory, doubtful, reporter)[doubtful]
    return np.array_equal(unfinished.keys[done], keys[done])


def _known_views(
    inventory: Inventory, backbone: Backbone, own: Sequence[FeatureFile]
) -> tuple[KnownViews, tuple[str, ...]]:
    """The features in a run's own files, which come first, and in all other files of their folder; and notes."""
    path = inventory.path
    forms = identities_by_view(backbone)
    holding = [file for file in own if file.holds(backbone.identities)]
    notes: list[str] = []
    own_paths = [path, partial_path(path)]
    groups = [identities for form in forms for identities in form.values()]
    shared = files_sharing(inventory.request.known_in, groups, without=own_paths, note=notes.append)
    return KnownViews([*holding, *shared], *forms), tuple(notes)


def identities_by_view(backbone: Backbone) -> list[dict[View | RandomView, dict[str, str]]]:
    """The identities of all layers in each view, in both forms of the backbone; see ``featx.backbones.identities``."""
    return [
        {view: form.with_views([view]).identities for view in form.views} for form in (backbone, other_form(backbone))
    ]


def _unfinished_file(inventory: Inventory, identities: Mapping[str, str]) -> tuple[FeatureFile | None, tuple[str, ...]]:
    """What an interrupted run left, if it has these features, and notes. Whatever else it left is renamed, never lost.

    Raises:
        UnreadableFileError: the system cannot read it now.
        OutputError: it cannot be renamed.
    """
    partial = partial_path(inventory.path)
    try:
        left = FeatureFile(partial, allow_partial=True)
    except CacheMissError:
        return None, ()
    except UnreadableFileError as error:
        raise UnreadableFileError(
            f"{error}. An interrupted run left it, so nothing is computed until it can be read; {inventory.request.way_out}"
        ) from error
    except CorruptFileError as error:
        aside = set_aside(partial, "unusable")
        return None, (f"an interrupted run left a file that cannot be used: {error}. It is kept as {aside}",)
    if left.holds(identities):
        return left, ()
    if not (left.status == DONE).any():
        return None, ()
    aside = set_aside(partial, hashlib.sha256(left.identity.encode()).hexdigest()[:8])
    return None, (f"an interrupted run for other features left rows, now stored in {aside}",)
