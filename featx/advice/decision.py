"""Which head, and how far to tune: the choice that the evidence asks for, and how sure it is. numpy and scipy only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom
from scipy.stats import t as student_t

from featx.advice.layer_scores import HeldOutResult
from featx.layer_spec import PENULTIMATE, LayerSpec

RECOMMENDATIONS = ("head", "head-inner", "tune-part", "tune-all", "none")
"""A head on the penultimate; on another layer, or on several; tuning from some block on; tuning all; nothing to transfer."""

MUCH = 1000
"""Training images from which on there is much data."""

BEYOND = 0.1
"""Share of the errors of a head on several layers that tuning is expected to take away besides (docs/advise.md)."""

FEW = 150
"""Training images up to which tuning is not expected to take away any error of a head on the penultimate."""

DOUBLED = 0.1
"""Share of these errors that it is expected to take away for each doubling of the images from there on (docs/advise.md)."""

AT_MOST = 0.4
"""That share, of however many images."""

WORTH = 0.01
"""Accuracy by which tuning must be ahead of every head: it takes minutes or hours instead of seconds."""

NEARLY = 0.05
"""Accuracy by which pretrained features must be able to be ahead of those of random weights, to be of much use."""

_CHANCE = 0.01  # significance at which something has been learned, over all depths together
_DRAWS = 300


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the choice goes by; all on the same images.

    Attributes:
        images: that there are to train on.
        guess: by the classes' shares alone.
        depths: {layer: outcome}, from the input on, the penultimate last.
        together: {layer: outcome of a head on it and all later ones side by side}, the same layers.
        frozen: {layer: share of the network's blocks up to it}.
        transferred: how much more accurate a head on pretrained features may be, at most, than one on those of the same network
            with random weights (upper end of the interval); infinite where that is unknown.
    """

    images: int
    guess: HeldOutResult
    depths: Mapping[str, HeldOutResult]
    together: Mapping[str, HeldOutResult]
    frozen: Mapping[str, float]
    transferred: float = math.inf

    def take(self, rows: np.ndarray) -> Evidence:
        """The same of some of the images that judge."""
        guess, depths, together = self.guess.take(rows), _each(self.depths, rows), _each(self.together, rows)
        return dataclasses.replace(self, guess=guess, depths=depths, together=together)

    @property
    def much(self) -> bool:
        """Whether there is much data."""
        return self.images >= MUCH

    @property
    def peak(self) -> str:
        """The layer that is best by itself, by its loss."""
        return _least(self.depths)

    @property
    def earlier(self) -> bool:
        """Whether the network's last layers lose what the classes need: an earlier layer alone beats the penultimate."""
        return self.depths[self.peak].beats(self.depths[PENULTIMATE])

    @property
    def unlike(self) -> bool:
        """Whether the images are unlike what the network was trained on: by that, or since its training is of little use."""
        return self.earlier or self.transferred < NEARLY

    @property
    def lost_after(self) -> str:
        """The latest layer from which on a head on all layers is as good as the best of them, within the errors."""
        best = self.together[_least(self.together)]
        return next(layer for layer in reversed(list(self.together)) if not best.beats(self.together[layer]))

    @property
    def tuned(self) -> float:
        """Share of the errors of a head on the penultimate that tuning is expected to take away, by the number of images."""
        return min(AT_MOST, DOUBLED * math.log2(max(1.0, self.images / FEW)))

    @property
    def learned(self) -> bool:
        """Whether some head tells the classes apart better than their shares alone do, by its losses or by what it says."""
        images, most = len(self.guess.losses), self.guess.accuracy
        each = _CHANCE / (2 * len(self.depths))
        for outcome in self.depths.values():
            gain, error = outcome.gain_over(self.guess)
            if error > 0 and student_t.sf(gain / error, images - 1) < each:
                return True
            if binom.sf(int(outcome.right.sum()) - 1, images, most) < each:
                return True
        return False

    def accuracy(self, layer: str) -> float:
        """Of a head on one layer, or on one and all later ones, as ``LayerSpec`` has them."""
        first = LayerSpec.parse(layer).layers[0]
        return (self.depths if layer == first else self.together)[first].accuracy


@dataclass(frozen=True)
class Choice:
    """What the evidence asks for.

    Attributes:
        recommendation: one of ``RECOMMENDATIONS``.
        layer: of the head (of several, their names with commas between them); or after which training begins; "" for none, and
            for training all where nothing tells where the network loses what the classes need.
        accuracy: that is expected.
        gain: how much more that is than a head on the penultimate has.
    """

    recommendation: str
    layer: str
    accuracy: float
    gain: float


def decide(evidence: Evidence, *, luck: float = 1.0) -> Choice:
    """What pays, by what was measured.

    Where no head is better than guessing: nothing. Else the most accurate head: on the penultimate, or, where the log loss is
    less by two standard errors, image by image, on an earlier layer or on several side by side. Tuning is advised where it is
    expected to be ahead of every head by a point.

    Args:
        evidence: what was measured.
        luck: how much of what tuning is expected to add it does add.
    """
    own = evidence.accuracy(PENULTIMATE)
    if not evidence.learned:
        return Choice("none", "", own, 0.0)
    layer = _best_head(evidence)
    reached = evidence.accuracy(layer)
    behind, expected = _by_tuning(evidence, luck)
    if expected >= reached + WORTH:
        part = evidence.frozen.get(behind, 0.0) >= 0.5
        return Choice("tune-part" if part else "tune-all", behind, expected, expected - own)
    return Choice("head" if layer == PENULTIMATE else "head-inner", layer, reached, reached - own)


def _best_head(evidence: Evidence) -> str:
    """The layer, or several side by side, whose head is the most accurate."""
    lost_after = evidence.lost_after
    heads = [PENULTIMATE]
    if evidence.earlier:
        heads.append(evidence.peak)
    if lost_after != PENULTIMATE:
        names = list(evidence.depths)
        # One layer, where several are no better.
        enough = not evidence.together[lost_after].beats(evidence.depths[evidence.peak])
        heads.append(evidence.peak if enough else ",".join(names[names.index(lost_after) :]))
    return max(heads, key=evidence.accuracy)


def _by_tuning(evidence: Evidence, luck: float) -> tuple[str, float]:
    """After which layer training begins, "" for all, and the accuracy to expect.

    Tuning takes away a share of the errors of a head on the penultimate, the larger the more images there are.

    What the last layers lose of the earlier ones, a head on several layers gains, and tuning may gain: to first order the two
    are the same (Head2Toe; Evci et al., 2022, ICML). So where such a head gains, tuning is expected to reach it and to take
    away a further share of its errors, from the latest layer on from which on nothing is lost; but not where few images are
    unlike what the network was trained on, and the layers that lose the most would have to be learned anew.

    The one that promises more is taken.
    """
    own, lost_after = evidence.accuracy(PENULTIMATE), evidence.lost_after
    found = [("", own + luck * evidence.tuned * (1 - own))]
    if lost_after != PENULTIMATE and (evidence.much or not evidence.unlike):
        several = evidence.together[lost_after].accuracy
        found.insert(0, (lost_after, several + luck * BEYOND * (1 - several)))
    return max(found, key=lambda each: each[1])


def redrawn(evidence: Evidence, *, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """How often the same choice comes out where the images are drawn anew, with repetition (Efron, 1979).

    What tuning adds is drawn too, from nothing to twice of what is expected.

    Returns:
        The share of draws that recommend the same, and the 95 % interval of the gain over those.
    """
    rng, images, first = np.random.default_rng(seed), len(evidence.guess.losses), decide(evidence)
    drawn = [decide(evidence.take(rng.integers(images, size=images)), luck=rng.uniform(0, 2)) for _ in range(_DRAWS)]
    same = [choice.gain for choice in drawn if choice.recommendation == first.recommendation]
    low, high = np.percentile(same or [first.gain], [2.5, 97.5])
    return len(same) / _DRAWS, (float(low), float(high))


def _each(outcomes: Mapping[str, HeldOutResult], rows: np.ndarray) -> dict[str, HeldOutResult]:
    return {layer: outcome.take(rows) for layer, outcome in outcomes.items()}


def _least(outcomes: Mapping[str, HeldOutResult]) -> str:
    return min(outcomes, key=lambda layer: outcomes[layer].loss)
