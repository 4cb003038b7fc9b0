"""Heads at several depths of a backbone, judged on the same held-out rows: which of them to take. numpy only."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.heads.groups import with_splits
from featx.heads.head import Head
from featx.heads.search import losses
from featx.heads.targets import targets_of
from featx.layer_spec import PENULTIMATE, LayerSpec, by_depth, plain_layers

BETTER = 2.0
"""Standard errors of the difference by which a layer's loss must be less than the penultimate's."""

_LEAST = 1e-12  # a probability that counts as none


@dataclass(frozen=True, eq=False)
class HeldOutResult:
    """What fits that left an image out made of it, for each of some images.

    Attributes:
        losses: (m,) float64, in nats (of many labels: their mean), or squared errors.
        right: (m,) bool, of a classification: whether the most probable class was the true one; else empty.
    """

    losses: np.ndarray
    right: np.ndarray

    @property
    def loss(self) -> float:
        """The mean; NaN where nothing was held out."""
        return float(self.losses.mean()) if len(self.losses) else math.nan

    @property
    def accuracy(self) -> float:
        """Share of right ones; NaN where there are none to ask."""
        return float(self.right.mean()) if len(self.right) else math.nan

    def gain_over(self, other: HeldOutResult) -> tuple[float, float]:
        """How much less the loss is than another's, image by image: the mean, and its standard error. NaN if unknown."""
        if len(self.losses) < 2 or len(self.losses) != len(other.losses):
            return math.nan, math.nan
        difference = other.losses - self.losses
        return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))

    def beats(self, other: HeldOutResult) -> bool:
        """Whether the loss is less by more than chance would have it."""
        gain, error = self.gain_over(other)
        return gain > BETTER * error

    def take(self, rows: np.ndarray) -> HeldOutResult:
        """The same of some of the images."""
        return HeldOutResult(self.losses[rows], self.right[rows])


@dataclass(frozen=True, eq=False)
class LayerScore:
    """A head on one layer, and what cross-validation says of it.

    Attributes:
        layer: its name; of several side by side, their names with commas between them.
        width: D.
        head: fitted.
        outcome: on the rows it was fitted to, each held out once; empty where nothing could be.
    """

    layer: str
    width: int
    head: Head
    outcome: HeldOutResult

    @classmethod
    def of(
        cls, features: FeatureSet, asked: Head, rows: np.ndarray | None = None, *, coarse: bool = False
    ) -> LayerScore:
        """Fit a head like the one that is asked for, and judge it by cross-validation.

        Args:
            features: of the layer.
            asked: unfitted; it is left as it is.
            rows: (n,) int64, labelled rows to fit to; by default those of split train.
            coarse: as ``Head.fit``.

        Raises:
            HeadError: as ``Head.fit``.
        """
        head = Head(**asked.get_params()).fit(features, rows=rows, cross_validate=True, coarse=coarse)
        rows = with_splits(features, head.task_).rows("train") if rows is None else rows
        outcome = HeldOutResult(np.empty(0), np.empty(0, dtype=bool))
        if head.out_of_fold_ is not None:
            held_out, out = head.out_of_fold_
            y = targets_of(features.facts(rows[held_out]), head.task_, head.classes_).y
            outcome = _outcome(out, y, head.task_)
        return cls(features.layer, features.width, head, outcome)


def measure(
    path: str | os.PathLike[str],
    asked: Head,
    *,
    layers: Sequence[str] = (),
    views: str = "plain",
    load: Callable[[str], FeatureSet] | None = None,
) -> tuple[LayerScore, ...]:
    """A head on each layer of a feature file, from the input on; on the same rows and the same folds.

    Args:
        path: of the file.
        asked: unfitted.
        layers: instead of all; several side by side as ``FeatureSet.load`` takes them.
        views: how they are seen.
        load: loads a layer of the file; by default ``FeatureSet.load``, which attaches no groups.

    Raises:
        HeadError: as ``Head.fit``.
        CacheMissError, CorruptFileError: the file is not there or not sound.
    """
    load = load or partial(FeatureSet.load, path)
    return tuple(
        LayerScore.of(load(str(LayerSpec.parse(layer, views))), asked)
        for layer in layers or sorted(plain_layers(FeatureFile(path).layers), key=by_depth)
    )


def best(depths: Sequence[LayerScore]) -> LayerScore:
    """That of the least loss, if it beats the penultimate; else the penultimate. Where that is not there, the least."""
    least = min(depths, key=lambda depth: depth.outcome.loss if len(depth.outcome.losses) else math.inf)
    own = next((depth for depth in depths if LayerSpec.parse(depth.layer).layers == (PENULTIMATE,)), least)
    return least if least.outcome.beats(own.outcome) else own


def _outcome(out: np.ndarray, y: np.ndarray, task: str) -> HeldOutResult:
    """From (m, C) outputs and the targets."""
    p = np.clip(out, _LEAST, 1.0)
    scores = out if task == "regression" else np.log(p)
    if task == "multilabel":
        scores = scores - np.log(np.clip(1.0 - out, _LEAST, 1.0))
    right = out.argmax(axis=1) == y if task == "classification" else np.empty(0, dtype=bool)
    return HeldOutResult(losses(scores, y, task), right)
