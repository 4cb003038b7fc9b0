"""What each of several backbones side by side adds, on training images that had no part in fitting or choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import is_joint
from featx.features.speeds import speed_of
from featx.heads.block_factors import SCALED_KINDS
from featx.heads.head import Head
from featx.heads.nested import nested_outputs
from featx.heads.search import losses
from featx.layer_spec import LayerSpec
from featx.metrics.grouped import flip_test
from featx.metrics.paired import PairedTest
from featx.metrics.scores import finite

MOST_JUDGED = 20_000
"""The most training images that heads are compared on."""

SIGNIFICANCE = 0.05
"""The largest p-value that shows a gain."""

_LEAST_PROBABILITY = 1e-9
_LOSS = {"classification": "log loss", "multilabel": "log loss", "regression": "squared error"}


@dataclass(frozen=True, eq=False)
class JudgedSet:
    """Some backbones side by side, and what heads on them predict for training images that were held out.

    Attributes:
        backbones: their names.
        task: of the heads.
        losses: (n,) float64, of each image.
        right: (n,) bool, whether the predicted class is right; None for another task.
        paths: (n,) str.
        groups: (n,) int64, which images belong together.
        images_per_second: of all these backbones one after the other on this machine; None if that was not measured.
    """

    backbones: tuple[str, ...]
    task: str
    losses: np.ndarray
    right: np.ndarray | None
    paths: np.ndarray
    groups: np.ndarray
    images_per_second: float | None

    @property
    def accuracy(self) -> float | None:
        """The share that is right; None where there are no classes."""
        return None if self.right is None else float(self.right.mean())

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(self.losses.mean())

    @property
    def value(self) -> float:
        """The number that a reader compares: the accuracy, or else the mean loss."""
        return self.loss if self.accuracy is None else self.accuracy

    @property
    def metric(self) -> str:
        """The name of that number."""
        return _LOSS[self.task] if self.right is None else "accuracy"

    def as_dict(self) -> dict[str, Any]:
        """The set as ``--json`` prints it."""
        return {
            "backbones": list(self.backbones),
            "accuracy": self.accuracy,
            "loss": finite(self.loss),
            "images_per_second": self.images_per_second,
        }


@dataclass(frozen=True)
class Gain:
    """What a set of backbones gains over a smaller one, tested on the same images.

    Attributes:
        difference: of the accuracies; of other tasks, of the mean losses, where less is better.
        p_value: of the paired test, two-sided.
        method: that test, in words.
        without_only: number of images that are right without the backbone alone; None where there are no classes.
        with_only: likewise, with it.
    """

    difference: float
    p_value: float
    method: str
    without_only: int | None = None
    with_only: int | None = None
    is_better: bool = False

    @property
    def proved(self) -> bool:
        """Whether the larger set is better, by the test."""
        return self.is_better and self.p_value <= SIGNIFICANCE

    @property
    def verdict(self) -> str:
        """What the test shows, in words."""
        if self.proved:
            return "it adds something"
        is_worse = not self.is_better and self.difference != 0 and self.p_value <= SIGNIFICANCE
        return "it makes the predictions worse" if is_worse else "not shown to add anything"

    def as_dict(self) -> dict[str, Any]:
        """The gain as ``--json`` prints it."""
        return {
            "difference": finite(self.difference),
            "p_value": self.p_value,
            "method": self.method,
            "without_only": self.without_only,
            "with_only": self.with_only,
        }


def judge_set(features: FeatureSet, head: Head, task: str, names: Sequence[str]) -> JudgedSet:
    """Cross-validate heads on the training rows of a feature set, and judge their predictions.

    Each head chooses its C or k, and its factors, on its own rows. Those of kinds that take minutes have the weight decay of
    one fit to all rows, which flatters all sets a little.

    Args:
        features: of one backbone, or of several side by side.
        head: unfitted; copies of it are fitted.
        task: of the head.
        names: of the backbones.

    Raises:
        HeadError: the rows allow no folds, or a head cannot be fitted.
    """
    without = {"target_precision": None, "reject_below": None, "conformal": None, "conformal_per_class": False}
    params = {**head.get_params(), **without, "task": task}
    own = head.kind in SCALED_KINDS
    found = nested_outputs(Head(**params), features, task=task, coarse=True, most=MOST_JUDGED, nested=own)
    y, outputs = found.targets.y, found.outputs
    scores = outputs
    if task != "regression":
        p = np.clip(outputs, _LEAST_PROBABILITY, 1.0)
        scores = np.log(p)
        if task == "multilabel":
            scores = scores - np.log(np.clip(1.0 - outputs, _LEAST_PROBABILITY, 1.0))
    return JudgedSet(
        tuple(names),
        task,
        losses(scores, y, task),
        outputs.argmax(axis=1) == y if task == "classification" else None,
        np.asarray(features.paths[found.rows]),
        found.groups,
        images_per_second(features),
    )


def images_per_second(features: FeatureSet) -> float | None:
    """The speed of a backbone on this machine, or of several one after the other; None where one was not measured."""
    parts = features.backbone["parts"] if is_joint(features.backbone) else []
    each: list[Any] = list(parts) or [{"backbone": features.backbone, "layer": features.layer}]
    rates = [speed_of(part["backbone"], views=len(LayerSpec.parse(part["layer"]).views)) for part in each]
    if any(rate is None for rate in rates):
        return None
    return 1 / sum(1 / rate for rate in rates if rate)


def gain_of(first: JudgedSet, second: JudgedSet) -> Gain:
    """What the second set gains over the first: McNemar's exact test, or the sign-flip test of groups or of losses."""
    if first.right is None or second.right is None:
        p_value = flip_test(first.losses - second.losses, first.groups)
        method = f"the sign-flip test of the {_LOSS[first.task]}"
        difference = second.loss - first.loss
        return Gain(difference, p_value, method, is_better=difference < 0)
    each_alone = len(np.unique(first.groups)) == len(first.groups)
    paired = PairedTest.from_predictions(
        first.paths.tolist(),
        np.full(len(first.right), True),
        first.right,
        second.right,
        None if each_alone else first.groups,
    )
    return Gain(
        paired.gained / paired.n, paired.p_value, paired.method, len(paired.first_only), len(paired.second_only),
        is_better=paired.gained > 0,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class BackboneGains:
    """Backbones side by side: what each is worth alone, all together, and what each adds to the others.

    Attributes:
        together: all of them.
        alone: each.
        gains: of each, what all gain over all others without it.
        factors: of each, the relative scale of its columns in the head.
    """

    together: JudgedSet
    alone: tuple[JudgedSet, ...]
    gains: tuple[Gain, ...]
    factors: tuple[float, ...]

    @property
    def judged(self) -> str:
        """What the numbers are about, in a sentence."""
        return (
            f"Cross-validated on {len(self.together.losses):,} training images, each predicted by heads that were fitted "
            'without it; the held-out split has no part in it. "adds" is the gain of all together over all but that one.'
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """What each backbone adds, in words."""
        others = "the other" if len(self.alone) == 2 else "the others"
        unit = "points of accuracy" if self.together.right is not None else f"of {self.together.metric}"
        found = []
        for each, gain in zip(self.alone, self.gains, strict=True):
            amount = (
                f"{100 * gain.difference:+.1f} {unit}"
                if self.together.right is not None
                else f"{gain.difference:+.4g} {unit}"
            )
            found.append(
                f"{each.backbones[0]} beside {others}: {amount} (p = {gain.p_value:.2g}, {gain.method}): {gain.verdict}"
            )
        return tuple(found)

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """A table: its heading, then a line for each backbone and one for all together."""
        metric = self.together.metric
        heading = (
            "backbones",
            metric,
            *(("log loss",) if metric == "accuracy" else ()),
            "images/s",
            "adds",
            "p",
            "scale",
        )
        lines = [
            (*_cells(each), _signed(gain, each.right is not None), f"{gain.p_value:.2g}", f"{factor:g}")
            for each, gain, factor in zip(self.alone, self.gains, self.factors, strict=True)
        ]
        return (heading, *lines, (*_cells(self.together, "together"), "", "", ""))

    def as_dict(self) -> dict[str, Any]:
        """The comparison as ``--json`` prints it, and as the head's file stores it."""
        return {
            "judged": {"images": len(self.together.losses), "split": "train, cross-validated"},
            "together": self.together.as_dict(),
            "backbones": [
                {**each.as_dict(), "backbone": each.backbones[0], "scale": factor, "adds": gain.as_dict()}
                for each, gain, factor in zip(self.alone, self.gains, self.factors, strict=True)
            ],
        }


def _cells(each: JudgedSet, name: str = "") -> tuple[str, ...]:
    speed = "" if each.images_per_second is None else f"{each.images_per_second:.0f}"
    losses_too = (f"{each.loss:.4f}",) if each.right is not None else ()
    return (name or each.backbones[0], f"{each.value:.4f}", *losses_too, speed)


def _signed(gain: Gain, is_accuracy: bool) -> str:
    return f"{100 * gain.difference:+.1f} points" if is_accuracy else f"{gain.difference:+.4g}"


def backbone_gains(
    features: FeatureSet, head: Head, task: str, names: Sequence[str], factors: Sequence[float]
) -> BackboneGains:
    """Judge several backbones side by side, each alone and each left out, on the training rows of a joint set.

    The held-out split has no part in it, so that it can still evaluate what is chosen by it.

    Args:
        features: joint.
        head: unfitted; copies of it are fitted.
        task: of the head.
        names: of the parts.
        factors: of the parts, in the head that is reported with it.

    Raises:
        HeadError: as ``judge_set``.
    """
    every = list(range(len(names)))
    known: dict[tuple[int, ...], JudgedSet] = {}

    def judged(numbers: Sequence[int]) -> JudgedSet:
        key = tuple(numbers)
        if key not in known:
            some = features if len(key) == len(every) else features.parts(key)
            known[key] = judge_set(some, head, task, [names[number] for number in key])
        return known[key]

    together = judged(every)
    alone = tuple(judged([number]) for number in every)
    gains = tuple(gain_of(judged([other for other in every if other != number]), together) for number in every)
    scales = tuple(factors) if len(factors) == len(every) else (1.0,) * len(every)
    return BackboneGains(together, alone, gains, scales)
