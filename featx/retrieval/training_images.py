"""The images that a head was fitted to, found again in a feature file by their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.own_features import Named, features_for, fitted_files
from featx.heads.postprocess import class_weights
from featx.heads.targets import targets_of
from featx.heads.training_data import Rows, TrainingData, flatten_views
from featx.system import exists
from featx.text import counted, form


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The n images that a head was fitted to.

    Attributes:
        paths: (n,) str, relative to the data set's root.
        labels: (n,) str, their labels as they are in the data set.
        data: what the head was fitted to, in all views.
        plain: (n, D), standardised, in the plain view.
        features: the set that they are in.
        rows: (n,) int64, their rows of it.
    """

    paths: np.ndarray
    labels: Sequence[str]
    data: TrainingData
    plain: Rows
    features: FeatureSet
    rows: np.ndarray


def training_images(head: Head, features: FeatureSet | Named | None = None) -> TrainingImages:
    """Find the images that a head was fitted to.

    Args:
        head: fitted.
        features: the set, or the feature file, that has them; by default the file that the head was fitted to. Of several
            backbones their files, or some of them.

    Raises:
        HeadError: the file is gone or lacks some of them, or the head was fitted to none, as a zero-shot head is.
        StaleCacheError: the features are of another identity.
    """
    if not len(head.train_keys_):
        raise HeadError(
            f"this head was made of the names of its classes (--model {head.kind}), so its predictions rest on no training "
            "images. Explain a head of --model logreg, perhaps with --anchor zeroshot, or find similar images with featx search"
        )
    found = features if isinstance(features, FeatureSet) else features_for(head, _source(head, features))
    head.require_identity(found)
    rows = _rows(head, found)
    facts = found.without_features(rows)
    y, count = targets_of(facts, head.task_, head.names_).y, len(head.names_)
    weight = class_weights(head.class_weight, y, head.names_)[y] if head.class_weight else np.ones(len(y))
    X, index = flatten_views(found.features, rows)
    standardised = Rows(X, index, mean=head.mean_, scale=head.scale_)
    plain = Rows(found.plain, rows, mean=head.mean_, scale=head.scale_)
    data = TrainingData(standardised, y, count, head.task_, weight, views=found.views, keys=facts.keys)
    return TrainingImages(facts.paths, [facts.classes[label] for label in facts.labels], data, plain, found, rows)


def _source(head: Head, named: Named | None) -> Named | None:
    """The feature files that were named, or else None for those that the head was fitted to, if they are there."""
    if named is not None:
        return named
    remedy = "--features FILE (in Python: features=...) names one that has the training images"
    files = fitted_files(head)
    if not files:
        raise HeadError(f"the head was fitted to features that are in no file; {remedy}")
    if gone := [file for file in files if not exists(file)]:
        raise HeadError(f"the feature file that the head was fitted to is gone, {gone[0]}; {remedy}")
    return None


def _rows(head: Head, features: FeatureSet) -> np.ndarray:
    """The rows of a head's training images, (n,) int64: of several with the same content, those of the split train first."""
    labelled = np.flatnonzero(features.labels != UNLABELLED)
    keys = _as_text(features.keys[labelled])
    order = np.lexsort((labelled, features.splits[labelled] != "train", keys))
    keys = keys[order]
    wanted = _as_text(head.train_keys_)
    places = np.searchsorted(keys, wanted) + _occurrence(wanted)
    there = places < len(keys)
    there[there] = keys[places[there]] == wanted[there]
    if gone := np.count_nonzero(~there):
        raise HeadError(
            f"{gone:,} of the {counted(len(wanted), 'training image')} of the head {form(gone, 'is', 'are')} not among the "
            f"labelled images of {features.source or 'this feature set'}; --features FILE (in Python: features=...) names a "
            f"file that has {form(gone, 'it', 'them')}, or fit a head again with featx fit-head"
        )
    return np.asarray(labelled[order[places]])


def _occurrence(keys: np.ndarray) -> np.ndarray:
    """How many times each key occurred before, (n,) int64."""
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], keys[order])
    out = np.empty(len(keys), dtype=np.int64)
    out[order] = np.arange(len(keys)) - first
    return out


def _as_text(keys: np.ndarray) -> np.ndarray:
    """View (n, 16) uint8 as (n,) S16, which sorts and compares like the bytes."""
    return np.ascontiguousarray(keys).view("S16").ravel()
