"""What to do with a backbone on a data set: which head to fit, and how much of the network to fine-tune.

``decide`` is a pure function of the ``Evidence``. Numpy and scipy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc
from scipy.stats import t as student_t

from featx.advice.layer_scores import HeldOutResult
from featx.layer_spec import PENULTIMATE, LayerSpec
from featx.metrics.grouped import count_groups, effective_size, group_sums

RECOMMENDATIONS = ("head", "head-inner", "tune-part", "tune-all", "none")
"""A head on the penultimate; a head on another layer, or on several; fine-tuning from some block on; fine-tuning the whole
network; nothing, because no head is better than chance."""

MUCH_DATA = 1000
"""Number of training images from which on the data set counts as large."""

SHARE_BEYOND_JOINT = 0.1
"""Share of the errors of a head on several layers that fine-tuning is expected to remove in addition (docs/advise.md)."""

FEW_IMAGES = 150
"""Number of training images up to which fine-tuning is not expected to remove any error of a head on the penultimate."""

SHARE_PER_DOUBLING = 0.1
"""Share of these errors that it is expected to remove for each doubling of the images beyond that (docs/advise.md)."""

MAX_SHARE = 0.4
"""Upper limit of that share, for any number of images."""

WORTHWHILE_GAIN = 0.01
"""Accuracy by which fine-tuning must beat every head to be recommended: it takes minutes or hours instead of seconds."""

LEAST_TRANSFER_GAIN = 0.05
"""Accuracy by which pretrained features must be able to beat those of random weights; below it, pretraining hardly helps."""

RANDOM_WEIGHTS = -math.inf
"""The gain of the pretraining of a network that has had none."""

_CHANCE_LEVEL = 0.01  # significance level of "better than chance", over all layers together
_BOOTSTRAP_DRAWS = 300


@dataclass(frozen=True, eq=False)
class Evidence:
    """The measurements that the decision depends on; every result is on the same images.

    Attributes:
        images: number of training images.
        majority: result of always predicting the classes' shares, as scikit-learn's ``DummyClassifier(strategy="prior")``;
            its predicted class is the commonest.
        single: {layer: result of a head on this layer}, from the input on, the penultimate last.
        joint: {layer: result of a head on this and all later layers side by side}, for the same layers.
        frozen_share: {layer: share of the network's blocks up to and including this layer}.
        transfer_gain: upper end of the interval for how much more accurate a head on pretrained features is than one on
            features of the same network with random weights; infinite if it was not measured, ``RANDOM_WEIGHTS`` if the
            network's weights are random themselves.
    """

    images: int
    majority: HeldOutResult
    single: Mapping[str, HeldOutResult]
    joint: Mapping[str, HeldOutResult]
    frozen_share: Mapping[str, float]
    transfer_gain: float = math.inf

    def take(self, rows: np.ndarray, groups: np.ndarray | None = None) -> Evidence:
        """Return the evidence on some of the held-out images, (r,) int64, with these groups; a row may be repeated."""
        return dataclasses.replace(
            self,
            majority=self.majority.take(rows, groups),
            single={layer: result.take(rows, groups) for layer, result in self.single.items()},
            joint={layer: result.take(rows, groups) for layer, result in self.joint.items()},
        )

    @property
    def much_data(self) -> bool:
        """Whether there are at least ``MUCH_DATA`` training images."""
        return self.images >= MUCH_DATA

    @property
    def peak(self) -> str:
        """The single layer with the lowest loss."""
        return _lowest_loss(self.single)

    @property
    def peaks_early(self) -> bool:
        """Whether an earlier layer alone beats the penultimate, so that the last layers lose what the classes need."""
        return self.single[self.peak].beats(self.single[PENULTIMATE])

    @property
    def unlike_pretraining(self) -> bool:
        """Whether the images are unlike those of the pretraining: an earlier layer is best, or pretraining hardly helps."""
        return self.peaks_early or self.transfer_gain < LEAST_TRANSFER_GAIN

    @property
    def lossless_layer(self) -> str:
        """The latest layer from which on nothing is lost.

        A head on it and all later layers is as good as the best head on several layers, within the standard errors.
        """
        best = self.joint[_lowest_loss(self.joint)]
        return next(layer for layer in reversed(list(self.joint)) if not best.beats(self.joint[layer]))

    @property
    def finetuning_share(self) -> float:
        """Share of the errors of a head on the penultimate that fine-tuning is expected to remove, by number of images."""
        return min(MAX_SHARE, SHARE_PER_DOUBLING * math.log2(max(1.0, self.images / FEW_IMAGES)))

    @property
    def beats_chance(self) -> bool:
        """Whether a head on some layer is significantly better than the majority baseline, by log loss or by accuracy."""
        groups, commonest = self.majority.groups, self.majority.accuracy
        count = count_groups(groups, len(self.majority.losses))
        level = _CHANCE_LEVEL / (2 * len(self.single))  # Bonferroni: two tests for each layer
        for result in self.single.values():
            gain, error = result.gain_over(self.majority)
            if error > 0 and student_t.sf(gain / error, count - 1) < level:
                return True
            size = float(len(result.correct))
            if groups is not None:
                size = effective_size(*group_sums(result.correct, groups))[0]
            right = size * result.accuracy
            # The binomial test, for an effective number of images that need not be whole.
            if right > 0 and betainc(right, size - right + 1, commonest) < level:
                return True
        return False

    @property
    def cell(self) -> str:
        """The cell of the usual table: "little-similar", "little-unlike", "much-similar", "much-unlike", or "chance"."""
        if not self.beats_chance:
            return "chance"
        return f"{'much' if self.much_data else 'little'}-{'unlike' if self.unlike_pretraining else 'similar'}"

    def accuracy(self, layer: str) -> float:
        """Return the accuracy of a head on one layer; on it and all later ones if ``layer`` is a list with commas."""
        first = LayerSpec.parse(layer).layers[0]
        return (self.single if layer == first else self.joint)[first].accuracy


@dataclass(frozen=True)
class Decision:
    """The recommendation that follows from the evidence.

    Attributes:
        recommendation: one of ``RECOMMENDATIONS``.
        layer: the layer of the recommended head (several separated by commas), or the layer after which fine-tuning begins.
            "" for none, and for fine-tuning the whole network if no layer stands out.
        expected_accuracy: the accuracy to expect.
        expected_gain: by how much it exceeds the accuracy of a head on the penultimate.
    """

    recommendation: str
    layer: str
    expected_accuracy: float
    expected_gain: float


def decide(evidence: Evidence, *, realised: float = 1.0) -> Decision:
    """Decide what pays, by the evidence alone.

    If no head is better than chance: nothing. Otherwise the most accurate head: on the penultimate, or, if the log loss is
    lower by two standard errors, paired by image, on an earlier layer or on several side by side. Fine-tuning is recommended
    if it is expected to beat every head by ``WORTHWHILE_GAIN``.

    Args:
        evidence: the measurements.
        realised: share of the expected benefit of fine-tuning that is assumed to come true.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> def result(accuracy):
        ...     correct = np.arange(200) < 200 * accuracy
        ...     return HeldOutResult(np.where(correct, 0.1, 2.0) + rng.normal(0, 0.02, 200), correct)
        >>> single = {"layer3": result(0.8), "penultimate": result(0.95)}
        >>> joint = {"layer3": result(0.95), "penultimate": single["penultimate"]}
        >>> majority = HeldOutResult(np.full(200, np.log(2)), np.arange(200) < 100)
        >>> evidence = Evidence(200, majority, single, joint, {"layer3": 0.75, "penultimate": 1.0})
        >>> decide(evidence)
        Decision(recommendation='head', layer='penultimate', expected_accuracy=0.95, expected_gain=0.0)
    """
    penultimate = evidence.accuracy(PENULTIMATE)
    if not evidence.beats_chance:
        return Decision("none", "", penultimate, 0.0)
    layer = _best_head(evidence)
    by_head = evidence.accuracy(layer)
    start, by_finetuning = _expected_by_finetuning(evidence, realised)
    if by_finetuning >= by_head + WORTHWHILE_GAIN:
        part = evidence.frozen_share.get(start, 0.0) >= 0.5
        return Decision("tune-part" if part else "tune-all", start, by_finetuning, by_finetuning - penultimate)
    return Decision("head" if layer == PENULTIMATE else "head-inner", layer, by_head, by_head - penultimate)


def bootstrap(evidence: Evidence, *, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """Estimate how stable the decision is, by resampling the held-out images with replacement (Efron, 1979), group by group.

    The benefit of fine-tuning is drawn too, uniformly from nothing to twice what is expected.

    Args:
        evidence: the measurements.
        seed: of the draws.

    Returns:
        The share of draws with the same recommendation, and the 95 % interval of the expected gain over those draws.
    """
    rng, decision = np.random.default_rng(seed), decide(evidence)
    decisions = [decide(_resampled(evidence, rng), realised=rng.uniform(0, 2)) for _ in range(_BOOTSTRAP_DRAWS)]
    gains = [drawn.expected_gain for drawn in decisions if drawn.recommendation == decision.recommendation]
    low, high = np.percentile(gains or [decision.expected_gain], [2.5, 97.5])
    return len(gains) / _BOOTSTRAP_DRAWS, (float(low), float(high))


def _resampled(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Draw groups with replacement, each with all its images; a group that is drawn twice counts as two."""
    groups, images = evidence.majority.groups, len(evidence.majority.losses)
    if groups is None:
        return evidence.take(rng.integers(images, size=images))
    rows_of = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    drawn = [rows_of[group] for group in rng.integers(len(rows_of), size=len(rows_of))]
    return evidence.take(np.concatenate(drawn), np.arange(len(drawn)).repeat([len(rows) for rows in drawn]))


def _best_head(evidence: Evidence) -> str:
    """Return the layer, or several separated by commas, on which a head is the most accurate."""
    heads = [PENULTIMATE]
    if evidence.peaks_early:
        heads.append(evidence.peak)
    if (first := evidence.lossless_layer) != PENULTIMATE:
        layers = list(evidence.single)
        # A single layer is simpler: several are taken only where they beat the best one.
        several = evidence.joint[first].beats(evidence.single[evidence.peak])
        heads.append(",".join(layers[layers.index(first) :]) if several else evidence.peak)
    return max(heads, key=evidence.accuracy)


def _expected_by_finetuning(evidence: Evidence, realised: float) -> tuple[str, float]:
    """Return the layer after which fine-tuning should begin ("" for the input), and the accuracy to expect of it.

    There are two estimates, and the higher one counts.

    Fine-tuning removes a share of the errors of a head on the penultimate, which grows with the number of images.

    If a head on several layers beats the penultimate, the last layers lose something that earlier ones have, and to first
    order such a head gains what fine-tuning gains (Head2Toe; Evci et al., 2022, ICML). Fine-tuning is then expected to reach
    that head and to remove a further share of its errors, training the blocks after the latest layer from which on nothing is
    lost. This does not hold for few images unlike those of the pretraining: the layers that lose the most would have to be
    learned anew.
    """
    penultimate, first = evidence.accuracy(PENULTIMATE), evidence.lossless_layer
    estimates = [("", penultimate + realised * evidence.finetuning_share * (1 - penultimate))]
    if first != PENULTIMATE and (evidence.much_data or not evidence.unlike_pretraining):
        joint = evidence.joint[first].accuracy
        estimates.insert(0, (first, joint + realised * SHARE_BEYOND_JOINT * (1 - joint)))
    return max(estimates, key=lambda estimate: estimate[1])


def _lowest_loss(results: Mapping[str, HeldOutResult]) -> str:
    return min(results, key=lambda layer: results[layer].loss)
