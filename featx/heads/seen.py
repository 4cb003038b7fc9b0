"""The images that a head or a model has seen, by their content.

Where featx makes the splits, these images are not among those that judge it; else a note counts them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.features.feature_set import FeatureSet
from featx.heads.groups import row_groups, with_splits
from featx.text import counted, form

NO_KEYS = np.zeros((0, 16), dtype=np.uint8)
"""The content hashes of no images."""

_KEYS_AT_ONCE = 1 << 18
"""Keys of images that are looked up at once."""


@dataclass(frozen=True, eq=False)
class SeenImages:
    """The content hashes of the images that a head or a promoted model has seen.

    Attributes:
        train: (n, 16) uint8, of those that it was fitted to.
        validation: (m, 16) uint8, of others on which its thresholds or its epoch were chosen.
    """

    train: np.ndarray
    validation: np.ndarray = field(default_factory=lambda: NO_KEYS)

    def plus(self, *, train: np.ndarray = NO_KEYS, validation: np.ndarray = NO_KEYS) -> SeenImages:
        """These and further ones. An image that is a training image as well is one of these alone."""
        train = np.concatenate([self.train, train[~are_copies(train, self.train)]])
        both = np.concatenate([self.validation, validation[~are_copies(validation, self.validation)]])
        return SeenImages(train, both[~are_copies(both, train)])

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Which of some images are copies of one of these: (N, 16) uint8 to (N,) bool."""
        found: np.ndarray = are_copies(keys, self.train) | are_copies(keys, self.validation)
        return found

    def notes(self, keys: np.ndarray, *, split: str) -> list[str]:
        """Write notes if images of an evaluation are copies of these.

        Args:
            keys: (N, 16) uint8, of the images of the evaluation.
            split: the name of these.

        Returns:
            At most one note on training images and one on validation images.
        """
        trained, chose = (int(are_copies(keys, own).sum()) for own in (self.train, self.validation))
        found = []  # a head's file holds its report with these notes, so their words are part of its bytes
        if trained:
            found.append(
                f"{trained} of {counted(len(keys), 'image')} of split {split} {form(trained, 'was', 'were')} trained on, byte "
                f"for byte: {form(trained, 'it flatters', 'they flatter')} the accuracy"
            )
        if chose:
            found.append(
                f"thresholds or the epoch were chosen on {chose} of these {counted(len(keys), 'image')} of split {split}, byte "
                f"for byte: {form(chose, 'it flatters', 'they flatter')} the result"
            )
        return found


NOTHING_SEEN = SeenImages(NO_KEYS)
"""No images."""


def with_splits_of_head(features: FeatureSet, task: str, seen: SeenImages) -> tuple[FeatureSet, dict[str, str]]:
    """Replace the splits by those of ``splits_for``, but never test a head on an image that it has seen.

    Splits that featx makes change a little where images are added to small classes, and where featx splits in another way than
    at the time of the fit. Held-out images that the head was fitted to then count as training images, test images on which its
    thresholds or its epoch were chosen as validation images, and so do images of a group with such. Splits that the data set
    names stay, and so does a split of which nothing would be left: ``SeenImages.notes`` tells.

    Args:
        features: of the whole data set, with the groups that the head was fitted with.
        task: of the head.
        seen: by the head.

    Returns:
        The features; and for each split from which images were moved a note.
    """
    features, notes = with_splits(features, task), dict[str, str]()
    if features.dataset.get("splits") != "hash":
        return features, notes
    splits = features.splits.copy()
    for split, becomes, keys, why in (
        ("val", "train", seen.train, "which was fitted to"),
        ("test", "train", seen.train, "which was fitted to"),
        ("test", "val", seen.validation, "whose thresholds or epoch were chosen on"),
    ):
        rows = np.flatnonzero(splits == split)
        known = are_copies(features.keys[rows], keys)
        if not known.any():
            continue
        groups = row_groups(features, rows)
        known = np.isin(groups, groups[known])
        judged = features.labels[rows] != UNLABELLED
        if known[judged].all():
            continue
        splits[rows[known]] = becomes
        count = int(known[judged].sum())
        note = (
            f"{counted(count, 'image')} that featx would now put into split {split} {form(count, 'does', 'do')} not judge "
            f"this head, {why} {form(count, 'it', 'them')} or images of the same group"
        )
        notes[split] = f"{notes[split]}; {note}" if split in notes else note
    return dataclasses.replace(features, splits=splits), notes


def are_copies(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Find images whose content hash is that of another one.

    Args:
        keys: (N, 16) uint8, of the images.
        others: (n, 16) uint8, of the others; a set of all of them would take more memory than a fit.

    Returns:
        (N,) bool.

    Examples:
        >>> keys = np.arange(48, dtype=np.uint8).reshape(3, 16)
        >>> are_copies(keys, keys[1:]).tolist()
        [False, True, True]
    """
    if not len(others):
        return np.zeros(len(keys), dtype=bool)
    known, found = np.unique(_beginnings(keys)), set[bytes]()
    for at in range(0, len(others), _KEYS_AT_ONCE):
        some = others[at : at + _KEYS_AT_ONCE]
        found.update(map(bytes, some[np.isin(_beginnings(some), known)]))
    return np.array([bytes(key) in found for key in keys] if found else np.zeros(len(keys)), dtype=bool)


def _beginnings(keys: np.ndarray) -> np.ndarray:
    """The first halves of (N, 16) uint8 keys: (N,) uint64."""
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel()
