"""Cross-validated heads on several layers of a backbone, compared on the same images, and the choice of the best layer.

Numpy only.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from featx.arguments import names_of
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.heads.groups import row_groups, with_splits
from featx.heads.head import Head
from featx.heads.search import losses
from featx.heads.targets import targets_of
from featx.layer_spec import PENULTIMATE, LayerSpec, by_depth, plain_layers
from featx.metrics.grouped import flip_ratio, mean_and_error, number_groups

SIGNIFICANT = 2.0
"""Standard errors by which the loss of one head must be lower than another's to count as better."""

_LEAST_PROBABILITY = 1e-12  # keeps the log of a probability finite


@dataclass(frozen=True, eq=False)
class HeldOutResult:
    """The loss of each held-out image, and whether its class was predicted correctly.

    Attributes:
        losses: (m,) float64. Log loss in nats (multilabel: the mean over the labels), or squared error.
        correct: (m,) bool, for classification: whether the most probable class is the true one. Empty for other tasks.
        groups: (m,) int64, the group of each image, such as its patient; None where each image is a group of its own.

    Examples:
        >>> good = HeldOutResult(np.array([0.1, 0.2] * 4), np.array([True, True] * 4))
        >>> poor = HeldOutResult(np.array([0.9, 0.8] * 4), np.array([True, False] * 4))
        >>> poor.accuracy
        0.5
        >>> good.beats(poor), poor.beats(good)
        (True, False)
    """

    losses: np.ndarray
    correct: np.ndarray
    groups: np.ndarray | None = None

    @property
    def loss(self) -> float:
        """The mean loss; NaN if nothing was held out."""
        return float(self.losses.mean()) if len(self.losses) else math.nan

    @property
    def accuracy(self) -> float:
        """The share of correct predictions; NaN if there are none."""
        return float(self.correct.mean()) if len(self.correct) else math.nan

    def gain_over(self, other: HeldOutResult) -> tuple[float, float]:
        """Return by how much the mean loss is lower than another's on the same images, and the standard error of that.

        The difference is paired, image by image, and its error is by groups. Both numbers are NaN for fewer than two groups,
        or different numbers of images.
        """
        if len(self.losses) < 2 or len(self.losses) != len(other.losses):
            return math.nan, math.nan
        return mean_and_error(other.losses - self.losses, self.groups)

    def beats(self, other: HeldOutResult) -> bool:
        """Return whether the loss is lower than another's by more than ``SIGNIFICANT`` standard errors.

        The error is that of a sign-flip test (``flip_ratio``), in which the difference of each group, or of each image without
        groups, is as likely with the other sign.
        """
        if len(self.losses) < 2 or len(self.losses) != len(other.losses):
            return False
        return flip_ratio(other.losses - self.losses, self.groups) > SIGNIFICANT

    def take(self, rows: np.ndarray, groups: np.ndarray | None = None) -> HeldOutResult:
        """Return the result on some of the images, (r,) int64, with these groups; a row may be repeated."""
        return HeldOutResult(self.losses[rows], self.correct[rows], groups)


@dataclass(frozen=True, eq=False)
class LayerScore:
    """A head on one layer, with its cross-validated result.

    Attributes:
        layer: the layer's name; for several layers side by side, their names separated by commas.
        width: number of features D.
        head: the fitted head.
        held_out: its out-of-fold result on the rows it was fitted to, each held out once; empty if the rows allow no folds.
    """

    layer: str
    width: int
    head: Head
    held_out: HeldOutResult


def score_layer(
    features: FeatureSet, head: Head, *, rows: np.ndarray | None = None, coarse: bool = False
) -> LayerScore:
    """Fit a head to the features of one layer, and evaluate it by cross-validation.

    Args:
        features: the features of the layer.
        head: an unfitted head with the settings to use; a copy of it is fitted.
        rows: (n,) int64, the labelled rows to fit to; by default those of the split "train".
        coarse: see ``Head.fit``.

    Raises:
        HeadError: the head cannot be fitted, see ``Head.fit``.
    """
    fitted = Head(**head.get_params()).fit(features, rows=rows, cross_validate=True, coarse=coarse)
    rows = with_splits(features, fitted.task_).rows("train") if rows is None else rows
    held_out = HeldOutResult(np.empty(0), np.empty(0, dtype=bool))
    if fitted.out_of_fold_ is not None:
        held_out_rows, outputs = fitted.out_of_fold_
        judged = rows[held_out_rows]
        y = targets_of(features.without_features(judged), fitted.task_, fitted.names_).y
        groups = number_groups(row_groups(features, judged))
        held_out = dataclasses.replace(_held_out_result(outputs, y, fitted.task_), groups=groups)
    return LayerScore(features.layer, features.width, fitted, held_out)


def score_layers(
    path: str | os.PathLike[str],
    head: Head,
    *,
    layers: str | Sequence[str] = (),
    views: str = "plain",
    load: Callable[[str], FeatureSet] | None = None,
) -> tuple[LayerScore, ...]:
    """Fit and cross-validate a head on each layer of a feature file, on the same rows and the same folds.

    Args:
        path: the feature file.
        head: an unfitted head with the settings to use.
        layers: the layer or layers to score, by default all in order of depth; several side by side are named as for
            ``FeatureSet.load``.
        views: the views (test-time augmentation) of the features: "plain", "flip" or "10crop".
        load: loads a layer of the file; by default ``FeatureSet.load``, which attaches no groups.

    Returns:
        One score for each layer, from the input on.

    Raises:
        HeadError: the head cannot be fitted, see ``Head.fit``.
        CacheMissError, CorruptFileError: the file is missing or damaged.
    """
    load = load or partial(FeatureSet.load, path)
    return tuple(
        score_layer(load(str(LayerSpec.parse(layer, views))), head)
        for layer in names_of(layers, "layers") or sorted(plain_layers(open_features(path).layers), key=by_depth)
    )


def best_layer(scores: Sequence[LayerScore]) -> LayerScore:
    """Return the score of the layer to use.

    That is the layer with the lowest loss if it beats the penultimate significantly, otherwise the penultimate. If the
    penultimate is not among the scores, it is the layer with the lowest loss.
    """
    lowest = min(scores, key=lambda score: score.held_out.loss if len(score.held_out.losses) else math.inf)
    penultimate = next((s for s in scores if LayerSpec.parse(s.layer).layers == (PENULTIMATE,)), lowest)
    return lowest if lowest.held_out.beats(penultimate.held_out) else penultimate


def _held_out_result(outputs: np.ndarray, y: np.ndarray, task: str) -> HeldOutResult:
    """Return the result for the (m, C) out-of-fold outputs and the targets."""
    p = np.clip(outputs, _LEAST_PROBABILITY, 1.0)
    scores = outputs if task == "regression" else np.log(p)
    if task == "multilabel":
        scores = scores - np.log(np.clip(1.0 - outputs, _LEAST_PROBABILITY, 1.0))
    correct = outputs.argmax(axis=1) == y if task == "classification" else np.empty(0, dtype=bool)
    return HeldOutResult(losses(scores, y, task), correct)
