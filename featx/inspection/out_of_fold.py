"""Out-of-fold predictions: each labelled image predicted by a head that was fitted without it and its like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.data.cells import BETWEEN_LABELS
from featx.data.image_set import PRETRAIN, UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.out_of_fold import predict_held_out
from featx.heads.targets import targets_of
from featx.heads.training_data import Rows, flatten_views

MOST_SEARCHED = 4_000
"""The most rows, images times views, that C or k is chosen on; of more, so many are drawn."""

_LEAST = 10  # images of each class among those that are drawn

WHY_LEFT_OUT = "no other image of the class, or features that are not finite"
"""Why a labelled image is not predicted."""

_ABSENT: Any = None
"""What stands for arrays that follow from the others."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions of labelled images by heads that were fitted to images of other groups only.

    Attributes:
        rows: (n,) int64, the rows of the set, ascending; images that no fold could hold out are missing.
        y: (n,) int64, (n, C) float32 or (n, 1) float64, the given targets, as ``Targets.y``.
        outputs: (n, C) float64, probabilities of classes or labels, or the values of a regression.
        classes: (C,) names.
        task: one of ``TASKS``.
        head: fitted to all labelled rows; its hyper-parameter was chosen on them.
        fold: (n,) int64, the fold that held out each image; by default, all are of one.
        groups: (n,) int64, which images belong together, copies too; by default, each is alone.
        given: (n,) object array of str, the labels as the data set has them; by default, as ``label_strings`` writes them.
        left_out: number of labelled images that could not be predicted: the only ones of their class, or NaN.
    """

    rows: np.ndarray
    y: np.ndarray
    outputs: np.ndarray
    classes: tuple[str, ...]
    task: str
    head: Head
    fold: np.ndarray = _ABSENT
    groups: np.ndarray = _ABSENT
    given: np.ndarray = _ABSENT
    left_out: int = 0

    def __post_init__(self) -> None:
        """Fill in what is not given."""
        count = len(self.rows)
        for name, make in (
            ("fold", lambda: np.zeros(count, dtype=np.int64)),
            ("groups", lambda: np.arange(count)),
            ("given", lambda: label_strings(self.y, self.classes, self.task)),
        ):
            if getattr(self, name) is _ABSENT:
                object.__setattr__(self, name, make())

    @property
    def skill(self) -> float:
        """How much better the outputs fit the targets than their mean does: 1 is perfect, 0 or less means nothing was learned.

        For numbers this is R2; for classes and labels, the skill score of Brier (1950), which is R2 of the probabilities.
        """
        targets = np.eye(len(self.classes))[self.y] if self.task == "classification" else self.y.astype(np.float64)
        spread = float(np.square(targets - targets.mean(axis=0)).sum())
        return 1 - float(np.square(targets - self.outputs).sum()) / spread if spread else 0.0


def label_strings(y: np.ndarray, classes: tuple[str, ...], task: str) -> np.ndarray:
    """Write targets as a data set has them: the class, labels with ``|`` between them, or the number.

    Args:
        y: (n,) int64, (n, C) of 0 and 1, or (n, 1) of numbers, as ``Targets.y``.
        classes: (C,) names.
        task: one of ``TASKS``.

    Returns:
        (n,) object array of str.

    Examples:
        >>> import numpy as np
        >>> label_strings(np.array([[1, 1], [0, 0]]), ("cat", "dog"), "multilabel").tolist()
        ['cat|dog', '|']
    """
    if task == "classification":
        texts = [classes[label] for label in y.tolist()]
    elif task == "multilabel":
        texts = [BETWEEN_LABELS.join(classes[c] for c in np.flatnonzero(row)) or BETWEEN_LABELS for row in y]
    else:
        texts = [f"{value:.6g}" for value in y[:, 0].tolist()]
    return np.array([*texts, None], dtype=object)[:-1]


def predict_out_of_fold(features: FeatureSet, head: Head) -> OutOfFold:
    """Fit a head to all labelled images, and predict each by the fold that holds it out.

    Images of the split "pretrain", which the backbone was made with, take no part, and neither do those whose features are NaN
    or infinite. All other splits do.

    Args:
        features: N images; images of one of its ``groups`` never straddle a fold, and neither do copies.
        head: unfitted; it is fitted here, less exactly where the kind can (``coarse``).

    Raises:
        HeadError: too few labelled images, or nothing can be held out.

    Example:

        found = predict_out_of_fold(FeatureSet.load("cache/photos--resnet50.h5"), Head("logreg"))
        print(found.rows.shape, found.outputs.shape, found.left_out)
    """
    labelled = np.flatnonzero((features.labels != UNLABELLED) & (features.splits != PRETRAIN))
    if not len(labelled):
        raise HeadError(f"there are no labelled images to learn from; {features.describe_splits()}")
    rows = labelled[_are_finite(features, labelled)]
    if not len(rows):
        raise HeadError("the features of all labelled images are NaN or infinite; extract them again")
    fit_quickly(head, features, rows, cross_validate=True)
    held_out = predict_held_out(head, features, rows, coarse=True)
    judged = rows[held_out.rows]
    if not len(judged):
        raise HeadError(
            "no labelled image can be held out; expected two images or more of some class, which are no "
            "copies and belong to different groups"
        )
    facts = features.without_features(judged)
    targets = targets_of(facts, head.task_, head.names_)
    return OutOfFold(
        judged,
        targets.y,
        held_out.outputs,
        head.names_,
        head.task_,
        head,
        fold=held_out.fold,
        groups=row_groups(features, judged),
        given=np.array(facts.classes, dtype=object)[facts.labels],
        left_out=len(labelled) - len(judged),
    )


def fit_quickly(head: Head, features: FeatureSet, rows: np.ndarray, *, cross_validate: bool = False) -> Head:
    """Fit a head to some rows, less exactly where the kind can.

    Of more than ``MOST_SEARCHED`` rows, its hyper-parameter is chosen on a share that is drawn by its seed.

    Args:
        head: unfitted; it is fitted here.
        features: of one layer.
        rows: (n,) int64, labelled rows.
        cross_validate: keep the out-of-fold predictions, if all rows chose the hyper-parameter.

    Raises:
        HeadError: as ``Head.fit``.
    """
    most = max(1, MOST_SEARCHED // features.views)
    given = head.get_params()
    if len(rows) > most and given["C"] is None and given["k"] is None:
        drawn = _drawn(features.labels[rows], most, head.seed)
        chosen = Head(**given).fit(features, rows=rows[drawn], coarse=True).chosen
        head.set_params(**{name: value for name, value in chosen.items() if name in ("C", "k")})
    head.fit(features, rows=rows, cross_validate=cross_validate and len(rows) <= most, coarse=True)
    head.set_params(**given)
    return head


def _drawn(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw some of (n,) labels, (count,) int64 ascending: the first ``_LEAST`` of each class, the others at random."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    turn = np.empty(len(labels), dtype=np.int64)
    turn[by_label] = np.arange(len(labels)) - np.searchsorted(labels[by_label], labels[by_label])
    first = np.argsort(turn[order] >= _LEAST, kind="stable")
    return np.sort(order[first[:count]])


def _are_finite(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Mark the rows whose features, in all views, are numbers: (n,) bool."""
    blocks = Rows(*flatten_views(features.features, rows)).blocks()
    finite = np.concatenate([np.empty(0, bool), *(np.isfinite(block).all(axis=1) for _, block in blocks)])
    whole: np.ndarray = np.all(finite.reshape(len(rows), -1), axis=1)
    return whole
