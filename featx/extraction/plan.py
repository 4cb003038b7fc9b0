"""The plan of an extraction: what is known of its images before anything is written, and the work that is left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featx.backbones.backbone import Backbone
from featx.errors import CacheMissError, CorruptFileError, UnreadableFileError
from featx.extraction.inventory import Inventory
from featx.extraction.reuse import KnownViews
from featx.extraction.unchanged import is_unchanged
from featx.features.feature_file import DONE, FeatureFile
from featx.features.folder import files_sharing, set_aside
from featx.features.header import partial_path
from featx.layer_spec import RandomView, View
from featx.reporter import Reporter


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
        notes: sentences for the user.
    """

    inventory: Inventory
    backbone: Backbone
    known: KnownViews
    keys: np.ndarray
    unfinished: FeatureFile | None
    notes: tuple[str, ...]

    def work(self, rows: np.ndarray, keys: np.ndarray) -> list[Work]:
        """The work that is left, one entry for each set of missing views; entries are independent of one another.

        Args:
            rows: (M,) rows that have no features yet.
            keys: (M, 16) uint8, the hashes of their images; zeros where unknown.
        """
        return [Work(views, lacking) for views, lacking in self.known.lacking(rows, keys)]


def plan(inventory: Inventory, reporter: Reporter) -> Plan | None:
    """Find out what is known of the images and what is to do; None if the complete file is up to date.

    Call it under the lock of the file: with ``rehash`` it reads every image, and it moves what an interrupted run for other
    features left out of the way.

    Args:
        inventory: the state of the disk, taken under the same lock.
        reporter: gets the progress of the reading, in images.
    """
    keys = _read_all_keys(inventory, reporter) if inventory.request.rehash else None
    if is_unchanged(inventory, keys):
        return None
    backbone, earlier = inventory.request.backbone, inventory.earlier
    # Layers of the earlier file that were not requested this time stay as complete as the others.
    if earlier and len(earlier.layers) > len(backbone.layers):
        backbone = backbone.with_layers(earlier.layers)
    unfinished, notes = _unfinished_file(inventory, backbone.identities)
    known, unread = _known_views(inventory, backbone, [file for file in (unfinished, earlier) if file])
    if keys is None:
        keys = known.recognised(inventory.images, inventory.sizes, inventory.mtimes)
    return Plan(inventory, backbone, known, keys, unfinished, (*inventory.notes, *notes, *unread))


def _read_all_keys(inventory: Inventory, reporter: Reporter) -> np.ndarray:
    """(N, 16) uint8: the hashes of all images, read now; zeros where an image cannot be read."""
    count = len(inventory.images)
    keys = np.zeros((count, 16), dtype=np.uint8)
    for done, image in enumerate(inventory.read(np.arange(count)), start=1):
        keys[image.row] = np.frombuffer(image.key, dtype=np.uint8)
        inventory.correct(image)
        reporter.progress(done, count)
    return keys


def _known_views(
    inventory: Inventory, backbone: Backbone, own: Sequence[FeatureFile]
) -> tuple[KnownViews, tuple[str, ...]]:
    """The features in a run's own files, which come first, and in all other files of their folder; and notes."""
    path = inventory.path
    split_views = {view: backbone.with_views([view]).identities for view in backbone.views}
    holding = [file for file in own if file.holds(backbone.identities)]
    notes: list[str] = []
    own_paths = [path, partial_path(path)]
    shared = files_sharing(path.parent, split_views.values(), without=own_paths, note=notes.append)
    return KnownViews([*holding, *shared], split_views), tuple(notes)


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
            f"{error}. An interrupted run left it, so nothing is computed until it can be read; -o names another file"
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
