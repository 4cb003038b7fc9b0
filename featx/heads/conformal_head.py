"""What a head promises: its prediction sets, and the rows that choose their thresholds."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads.arguments import checked_rows, require_fitted
from featx.heads.array_estimator import ArrayEstimator
from featx.heads.calibration_rows import chosen_on_rows
from featx.heads.conformal import require_conformal
from featx.heads.parameters import WITHOUT_GUARANTEES


class ConformalHead(ArrayEstimator):
    """The part of ``Head`` that makes prediction sets and intervals."""

    def clone(self) -> Self:
        """Make an unfitted head with this fitted head's choices: its task, its C or k, and its rejection threshold.

        It has no prediction sets.

        ``sklearn.base.clone(head)`` makes an unfitted copy with the original arguments instead.
        """
        chosen = {"C": self.C_, "k": self.k_, "task": self.task_, "reject_below": self.reject_below_ or None}
        return type(self)(**{**self.get_params(), **chosen, **WITHOUT_GUARANTEES})

    def predict_set(self, X: Any) -> np.ndarray:
        """Compute prediction sets, or intervals of a regression, that miss the truth no more often than ``conformal`` says.

        Args:
            X: (N, D) features, or (N, V, D) of V views.

        Returns:
            (N, C) bool, which of ``classes_`` are in the set, the most probable one always, whatever ``reject_below_`` is; of a
            regression (N, 2) float64, the ends of the interval. A row without a prediction has no class, or NaN.

        Raises:
            HeadError: the head has no prediction sets; or as ``predict_values``.
        """
        require_fitted(self, "predict_set")
        conformal = require_conformal(self.conformal_)
        outputs = self.predict_values(self._checked(X, "predict_set"))
        return conformal.intervals(outputs) if self.task_ == "regression" else conformal.sets(outputs)

    def conformalize(self, features: FeatureSet, *, split: str = "val", rows: np.ndarray | None = None) -> Self:
        """Choose the thresholds of ``conformal`` and ``target_precision`` anew, on rows that the fit has not seen.

        What is promised then holds exactly for rows that are drawn as these were (split conformal prediction).

        Args:
            features: of the same identity as those of the fit, and with groups if those had groups.
            split: whose labelled rows to take.
            rows: (n,) int64, labelled rows to take instead.

        Raises:
            StaleCacheError: the features are of another identity.
            HeadError: nothing is promised, there are no such rows, or they are too few.
        """
        require_fitted(self, "conformalize")
        rows = checked_rows(features, rows, "conformalize")
        self.require_identity(features)
        self.postprocess_, notes, keys = chosen_on_rows(self, features, self.get_params(), split=split, rows=rows)
        self.validation_keys_ = self.seen.plus(validation=keys).validation
        self.notes_ = [*self.notes_, *notes]
        return self
