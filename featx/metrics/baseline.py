"""The baseline of a classifier: an answer that is the same for every image, judged on the images that the classifier is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.grouped import group_sums, sign_flip_test
from featx.metrics.paired import mcnemar
from featx.metrics.tables import answer_text, baseline_text

SIGNIFICANCE = 0.05
"""The largest p-value that shows a classifier to be better than its baseline."""


@dataclass(frozen=True)
class Baseline:
    """Always the same answer: the commonest class of the training images, or their commonest set of labels.

    Attributes:
        answer: the class, or the labels with ``|`` between them.
        share: of the images for which it is right.
        gain: how many more images the classifier has right; negative if fewer.
        p_value: of the paired test, two-sided: McNemar's exact one, or with groups the sign-flip test of their gains.
        is_trained: whether the answer is the commonest one of the training images; else it is the commonest one of the judged
            images themselves, and no other single answer is right for more of them.

    Examples:
        >>> right = np.array([True, True, True, False])
        >>> found = Baseline.judge("ants", np.array([True, False, False, False]), right)
        >>> found.share, found.gain, found.is_beaten, str(found)
        (0.25, 2, False, "always 'ants' 0.2500")
    """

    answer: str
    share: float
    gain: int
    p_value: float
    is_trained: bool = True

    @classmethod
    def judge(
        cls,
        answer: str,
        own: np.ndarray,
        right: np.ndarray,
        groups: np.ndarray | None = None,
        *,
        is_trained: bool = True,
    ) -> Baseline:
        """Compare a classifier with an answer that is always the same.

        Args:
            answer: in words.
            own: (N,) bool, the images for which it is right.
            right: (N,) bool, those that the classifier has right.
            groups: (N,) int64 from 0 on; None: each image is a group of its own.
            is_trained: as in the attributes.
        """
        gain = int(right.sum()) - int(own.sum())
        if groups is None:
            p = mcnemar(int((own & ~right).sum()), int((right & ~own).sum()))
        else:
            p = sign_flip_test(group_sums(right.astype(np.int64) - own, groups)[0].astype(np.int64))
        return cls(answer, float(own.mean()), gain, p, is_trained)

    @property
    def is_beaten(self) -> bool:
        """Whether the classifier is shown to be better."""
        return self.gain > 0 and self.p_value <= SIGNIFICANCE

    @property
    def note(self) -> str:
        """A sentence, where the classifier is not shown to be better; else ""."""
        if self.is_beaten:
            return ""
        of = "its training images" if self.is_trained else "these images"
        return (
            f"the model is not shown to be better than always answering {answer_text(self.answer)}, the commonest of {of}, "
            f"which is right for {self.share:.4f} of them here (p = {self.p_value:.2g}, paired test)"
        )

    def __str__(self) -> str:
        return baseline_text("accuracy", self.share, self.answer)

    def as_dict(self, metric: str) -> dict[str, Any]:
        """The baseline as ``--json`` prints it, for a metric such as "accuracy"."""
        return {
            "baseline_answer": self.answer,
            f"baseline_{metric}": self.share,
            "baseline_p_value": self.p_value,
            "baseline_from": "training images" if self.is_trained else "these images",
        }
