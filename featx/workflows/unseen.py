"""The held-out images by which two heads can be compared: neither was fitted to them, and no near-duplicate favours one.

N is the number of images of the features, n of the held-out ones, D the width of the features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.arguments import path_of
from featx.errors import FeatxError, HeadError
from featx.features.feature_set import FeatureSet
from featx.features.joint_files import load_parts
from featx.features.joint_sets import is_joint
from featx.heads import nearest
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.seen import NOTHING_SEEN, SeenImages
from featx.inspection.neighbours import SHARE_OF_MEDIAN, unit_rows

if TYPE_CHECKING:  # it imports torch, which a fit does not need
    from featx.promotion.on_images import PromotedOnImages

_SAMPLE = 2000
"""The most images whose distance to their nearest neighbour is measured for the threshold."""

_SAME = 1e-6
"""The cosine distance up to which two images count as one content."""


@dataclass(frozen=True, eq=False)
class EarlierHead:
    """A head that was fitted before, with the features that it can predict.

    Attributes:
        head: fitted; or a promoted model.
        name: of its file; its kind where it comes from none.
        features: of the head's identity.
        at: (N,) int64, the row in ``features`` of each image of the new features; -1 where it is not among them.
        others: further features of its identity, from the file that it was fitted to.
    """

    head: Head | PromotedOnImages
    name: str
    features: FeatureSet
    at: np.ndarray
    others: tuple[FeatureSet, ...] = ()

    @classmethod
    def load(
        cls, head: Head | str | os.PathLike[str], features: FeatureSet, *, more: Sequence[Path] = ()
    ) -> EarlierHead:
        """Load a head, and find the features that it can predict: the new ones, the same file's, or those it was fitted to.

        Args:
            head: fitted, or its file.
            features: N images, of any identity.
            more: further feature files that may be those that it was fitted to.

        Raises:
            ModelNotFoundError, CorruptFileError: the file is missing, or holds no head.
            StaleCacheError: none of these features are of the head's identity.
        """
        name = head.kind if isinstance(head, Head) else path_of(head, "compare")
        head = head if isinstance(head, Head) else Head.load(head)
        found = [each for each in _features_for(head, features, more) if each.identity == head.identity_]
        if not found:
            head.require_identity(features)
        same = found[0] is features
        at = np.arange(len(features)) if same else _rows_by_key(found[0].keys, features.keys)
        return cls(head, name, found[0], at, tuple(found[1:]))

    def rows_of(self, features: FeatureSet, rows: np.ndarray) -> FeatureSet:
        """What the head can predict of some images, (n,) rows of the new features, with their new labels."""
        taken = features.without_features(rows)
        return dataclasses.replace(
            self.features.take(self.at[rows]), labels=taken.labels, splits=taken.splits, classes=taken.classes,
            paths=taken.paths, groups=taken.groups, group=taken.group,
        )  # fmt: skip

    def labels_before(self) -> dict[bytes, set[str]]:
        """The labels of each image in the file that the head was fitted to, by its key; {} where that is not known.

        Copies of one image may have several.
        """
        before: dict[bytes, set[str]] = {}
        for features in (*self.others, self.features):
            own = _resolved(self.head.source_) if isinstance(self.head, Head) else None
            if features.source is not None and features.source == own:
                names = [*features.classes, ""]
                for key, label in zip(map(bytes, features.keys), features.labels.tolist(), strict=True):
                    before.setdefault(key, set()).add(names[label])
                break
        return before


@dataclass(frozen=True, eq=False)
class Unseen:
    """Held-out images that two heads can be compared by.

    Attributes:
        split: that they are from.
        rows: (m,) int64, ascending.
        left_out: number of held-out images that are left out, by the reason.
    """

    split: str
    rows: np.ndarray
    left_out: Mapping[str, int]


def unseen_rows(
    features: FeatureSet, earlier: EarlierHead, *, held_out: str, seen: SeenImages = NOTHING_SEEN,
    calibrated_on: str | None = None,
) -> Unseen:  # fmt: skip
    """Select the labelled images of the held-out split that are new to both heads.

    Left out are copies of images that either was fitted to, images of one group with such, and near-duplicates of images that
    one head alone was fitted to: they would favour that head. Near-duplicates of images that both were fitted to favour
    neither; ``featx inspect`` finds them. Images on which thresholds or the epoch of either were chosen, and images of one
    group with such, are left out too, unless nothing else remains.

    Args:
        features: N images, in the splits that the new head is fitted and judged by.
        earlier: the other head.
        held_out: the split.
        seen: what the new head has seen besides the training images of the features.
        calibrated_on: the split whose images are to choose thresholds of the new head, or None.

    Raises:
        HeadError: none is left.
    """
    rows, train = features.rows(held_out), features.rows("train")
    unknown = {bytes(16)}
    known = earlier.head.seen
    ours, theirs = (set(map(bytes, keys)) - unknown for keys in (np.r_[features.keys[train], seen.train], known.train))
    calibrating = features.keys[features.splits == calibrated_on]
    chose = set(map(bytes, np.r_[seen.validation, known.validation, calibrating])) - unknown
    trained, chosen = (
        np.array([bytes(key) in those for key in features.keys], dtype=bool) for those in (ours | theirs, chose)
    )
    trained[train] = True
    groups = row_groups(features, np.arange(len(features)))
    left_out, remaining = dict[str, int](), rows
    for why, mask in (
        ("without features of the earlier head", earlier.at < 0),
        ("copies of training images", trained),
        ("in a group with training images", np.isin(groups, groups[trained])),
    ):
        count = int(np.count_nonzero(mask[remaining]))
        left_out |= {why: count} if count else {}
        remaining = remaining[~mask[remaining]]
    unchosen = remaining[~np.isin(groups, groups[chosen])[remaining]]
    if 0 < len(unchosen) < len(remaining):
        left_out |= {"images on which thresholds or the epoch were chosen": len(remaining) - len(unchosen)}
        remaining = unchosen
    near = np.zeros(len(remaining), dtype=bool)
    if len(remaining) and ours != theirs:
        near = np.any([space.is_near() for space in _spaces(features, earlier, remaining, ours, theirs)], axis=0)
    left_out |= {"near-duplicates of images that one head alone was fitted to": int(near.sum())} if near.any() else {}
    if near.all():
        reasons = ", ".join(f"{why}: {count:,}" for why, count in left_out.items())
        raise HeadError(
            f"no image of split {held_out} is new to both heads ({reasons}), so they cannot be compared; expected images that "
            "neither was fitted to"
        )
    return Unseen(held_out, remaining[~near], left_out)


def _features_for(head: Head, features: FeatureSet, more: Sequence[Path]) -> Iterator[FeatureSet]:
    """The features that a head may be able to predict."""
    yield features
    file = features.source
    if is_joint(head.backbone_):
        with contextlib.suppress(FeatxError):
            yield load_parts(head.backbone_)
        return
    for path in dict.fromkeys([file, _resolved(head.source_), *map(_resolved, more)]):
        if path is not None and not (path == file and head.layer_ == features.layer):
            with contextlib.suppress(FeatxError):  # the file is gone, or has no such layer
                yield FeatureSet.load(path, head.layer_)


def _resolved(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _rows_by_key(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The first row with each key, (N,) int64; -1 where there is none."""
    place = dict[bytes, int]()
    for row, key in enumerate(map(bytes, keys)):
        place.setdefault(key, row)
    return np.array([place.get(bytes(key), -1) for key in wanted], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Space:
    """Features of one identity that a head was fitted to, of length 1.

    Attributes:
        queries: (m, D) float32, of the images that may be near-duplicates.
        support: (S, D) float32, of the training images of both heads.
        alone: (S,) bool, those that one head alone was fitted to.
    """

    queries: np.ndarray
    support: np.ndarray
    alone: np.ndarray

    def is_near(self) -> np.ndarray:
        """Mark the queries that are closer to an image of one head alone than half the median distance between neighbours."""
        finite = np.isfinite(self.support).all(axis=1)
        support, alone = self.support[finite], self.support[finite & self.alone]
        if len(support) < 2 or not len(alone):
            return np.zeros(len(self.queries), dtype=bool)
        drawn = np.random.default_rng(0).permutation(len(support))[:_SAMPLE]
        k = min(len(support), 10)
        apart = 1 - np.concatenate([cosines for _, _, cosines in nearest.search(support[drawn], support, k)])
        first = np.where(apart > _SAME, apart, np.inf).min(axis=1)
        known = first[np.isfinite(first)]
        threshold = SHARE_OF_MEDIAN * float(np.median(known)) if len(known) else 0.0
        closest = 1 - np.concatenate([cosines[:, 0] for _, _, cosines in nearest.search(self.queries, alone, 1)])
        near: np.ndarray = closest < threshold
        return near


def _spaces(
    features: FeatureSet, earlier: EarlierHead, rows: np.ndarray, ours: set[bytes], theirs: set[bytes]
) -> Iterator[_Space]:
    """Compare some rows with the training images of both heads, by the features of each identity.

    Args:
        features: N images.
        earlier: the other head.
        rows: (m,) int64, of the features.
        ours: the keys of the new head's training images.
        theirs: the keys of the earlier head's training images.
    """
    others, gone = list(earlier.others), theirs - set(map(bytes, features.keys))
    same = earlier.features is features
    yield _space(features, rows, [(features, ours | theirs), *((each, gone) for each in others if same)], ours ^ theirs)
    if not same:
        yield _space(
            earlier.features, earlier.at[rows], [(each, theirs) for each in (earlier.features, *others)], theirs - ours
        )


def _space(
    features: FeatureSet, rows: np.ndarray, support: Sequence[tuple[FeatureSet, set[bytes]]], alone: set[bytes]
) -> _Space:
    """The features of some rows, and of the images with some keys in each of several feature sets."""
    found, is_alone = list[np.ndarray](), list[bool]()
    for each, wanted in support:
        keys = list(map(bytes, each.keys))
        chosen = [row for row, key in enumerate(keys) if key in wanted]
        found.append(unit_rows(each.plain, np.array(chosen, dtype=np.int64)))
        is_alone += [keys[row] in alone for row in chosen]
    return _Space(unit_rows(features.plain, rows), np.concatenate(found), np.array(is_alone, dtype=bool))
