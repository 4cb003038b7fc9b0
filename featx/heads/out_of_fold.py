"""Predictions of a fitted head's training images by the folds that hold them out."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads.fitting import device_name, prepare, search_folds, useful_threads
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.ranks import alone
from featx.heads.registry import EstimatorOptions, get_kind
from featx.heads.targets import Targets, targets_of
from featx.heads.training_data import Folds


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of training images by heads that were fitted without them and their groups.

    Attributes:
        rows: (m,) int64, which of the training images, ascending; those that no fold can hold out are missing.
        fold: (m,) int64, the fold that held each out, from 0 on.
        outputs: (m, C) float64, as ``Head.predict_values`` gives them.
    """

    rows: np.ndarray
    fold: np.ndarray
    outputs: np.ndarray


def predict_held_out(head: Head, features: FeatureSet, rows: np.ndarray, *, coarse: bool = False) -> HeldOut:
    """Predict each training image of a fitted head by the fold that holds it out, at the hyper-parameter of the head.

    The folds are those that chose the hyper-parameter. Scores that the fit kept (``Head.out_of_fold_``) are taken from there;
    where the hyper-parameter was chosen on a share of the images, the folds are fitted once more to all of them.

    Args:
        head: fitted to these rows. Its calibration applies.
        features: that it was fitted to.
        rows: (n,) int64, its training rows.
        coarse: fit less exactly, where the kind can.

    Raises:
        HeadError: features are not finite.

    Example:

        head = featx.Head("logreg").fit(features, cross_validate=True)
        held_out = predict_held_out(head, features, features.rows("train"))
        print(held_out.outputs.shape)
    """
    targets = targets_of(features.without_features(rows), head.task_, head.names_, where="the training images")
    folds = search_folds(targets, head.task_, row_groups(features, rows), head.seed)
    fold_of = np.full(len(rows), -1)
    for number, (_, test) in enumerate(folds):
        fold_of[test] = number
    judged = np.flatnonzero(fold_of >= 0)
    kept = head.out_of_fold_
    if kept is not None and len(kept[0]) == len(judged):
        outputs = kept[1]
    else:
        scores = _scores(head, features, rows, targets, folds, coarse)
        outputs = head.postprocess_.apply(scores[judged])
    return HeldOut(judged, fold_of[judged], outputs)


def _scores(
    head: Head, features: FeatureSet, rows: np.ndarray, targets: Targets, folds: Folds, coarse: bool
) -> np.ndarray:
    """Fit each fold once, and score the images that it holds out: (n, C), NaN for images that none does."""
    if not folds:
        return np.full((len(rows), len(head.names_)), np.nan)
    training = alone(prepare(features, rows, targets, head.task_, head.get_params(), where="the training images"))
    if training.share is not None:  # every image is to be predicted, not only those that C was chosen on
        training = dataclasses.replace(training, folds=folds, share=None)
    texts = None if head.texts is None else head.texts.of_classes(head.names_)
    options = EstimatorOptions(head.task_, head.kernel, device_name(head.device), coarse, texts)
    estimator = get_kind(head.kind, kernel=head.kernel).estimator(options)
    chosen = float(next(iter(head.chosen.values()), 0.0))
    with warnings.catch_warnings(), useful_threads(training):
        warnings.simplefilter("ignore", UserWarning)  # the fit has reported what does not converge
        ((_, scores),) = estimator.cross_val_scores(training.views_as_images, (chosen,))
    return training.mean_over_views(scores)
