"""A head as an estimator of scikit-learn: fitted to arrays ``X`` and ``y``, with predictions of the type of ``y``.

====================================  ========================  ==========================================
``y``                                 task                      ``predict``
====================================  ========================  ==========================================
(N,) text, whole numbers, booleans    classification            (N,) of the same type
(N, C), one 1 in every row (one-hot)  classification            (N, C) of 0 and 1
(N, C) of 0 and 1                     multilabel                (N, C) of 0 and 1
N lists of names                      multilabel                (N,) object array of lists
(N,) numbers                          ``task="regression"``     (N,) float64
====================================  ========================  ==========================================

A head that was fitted to a ``FeatureSet``, or loaded, predicts names.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils import validation

from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.array_labels import NAMES, NUMBERS, TABLE, ArrayLabels, array_labels
from featx.features.array_set import matrix_of
from featx.features.feature_set import FeatureSet
from featx.heads.arguments import require_fitted
from featx.heads.fitted import FittedHead
from featx.heads.registry import HEAD_KINDS
from featx.text import counted

_TYPES = [np.float64, np.float32, np.float16]
"""Features of these types stay as they are; others become the first."""

_NEVER = -np.finfo(np.float64).max
"""The logit of a label that no training row has."""


class NoProbabilitiesError(HeadError, AttributeError):
    """Probabilities or logits of a regression, which has none."""


class _OfClasses:
    """A method that a regression does not have, so that ``hasattr`` tells; the message tells why.

    Args:
        method: the method.
        of_arrays: whether only a regression that was fitted to arrays lacks it.
    """

    def __init__(self, method: Callable[..., np.ndarray], *, of_arrays: bool = False) -> None:
        self._method, self._of_arrays = method, of_arrays
        functools.update_wrapper(self, method)  # type: ignore[arg-type]

    def __get__(self, head: Any, owner: type[Any]) -> Callable[..., np.ndarray]:
        if head is None:
            return self._method
        is_regression = head.task == "regression" or vars(head).get("task_") == "regression"
        if is_regression and (head._arrays is not None or not self._of_arrays):
            raise NoProbabilitiesError("a regression head predicts numbers, not probabilities; use predict")
        return types.MethodType(self._method, head)


class ArrayEstimator(FittedHead, BaseEstimator):  # type: ignore[misc]  # scikit-learn publishes no types
    """The part of ``Head`` that scikit-learn's tools use: pipelines, searches, cross-validation and scorers."""

    kind: str
    task: str

    _arrays: ArrayLabels | None = None
    """What the labels of ``fit(X, y)`` were; None after a fit to a feature set."""

    @property
    def names_(self) -> tuple[str, ...]:  # type: ignore[override]
        """(C,) the names of the classes or labels; of a regression "value"."""
        names: tuple[str, ...] = self._fitted("classes_")
        return names

    @property
    def classes_(self) -> Any:
        """(C,) the classes or labels: names or, after ``fit(X, y)``, an array of the type of ``y``."""
        names = self.names_
        if self._arrays is None:
            return names
        if self.task_ == "regression":
            raise AttributeError("a regression has no classes_")
        if self._arrays.form == TABLE:
            return self._arrays.values
        if self._arrays.form == NAMES and self.task_ == "classification":
            at = {name: row for row, name in enumerate(self._arrays.classes)}
            return self._arrays.values[[at[name] for name in names]]
        return np.array(names, dtype=object)

    def predict(self, X: Any) -> np.ndarray:
        """Predict class names, lists of label names, or numbers; after ``fit(X, y)``, what ``y`` was.

        Args:
            X: (N, D) features, or (N, V, D) of V views.

        Returns:
            (N,): object for names, where a class whose probability is below ``reject_below_`` is None; float64 for numbers; or
            the type of ``y``, as the module describes. A rejected class makes an array of ``y``'s type one of objects.

        Raises:
            HeadError: X is of another shape or holds no numbers, or the head is not fitted.
        """
        X = self._checked(X, "predict")
        labels = self._arrays
        if labels is None or self.task_ == "regression" or (self.task_ == "multilabel" and labels.form != TABLE):
            return super().predict(X)
        outputs = self.predict_values(X)
        if self.task_ == "multilabel":
            assert self.thresholds_ is not None
            return self._in_columns((outputs >= self.thresholds_).astype(np.int64), 0)
        best = outputs.argmax(axis=1)
        with np.errstate(invalid="ignore"):
            none = ~(outputs.max(axis=1) >= (self.reject_below_ or 0))
        if labels.one_hot:
            return self._in_columns((np.arange(len(self.names_)) == best[:, None]) & ~none[:, None], 0).astype(np.int64)
        predicted: np.ndarray = self.classes_[best]
        if none.any():
            predicted = predicted.astype(object)
            predicted[none] = None
        return predicted

    @_OfClasses
    def predict_proba(self, X: Any) -> np.ndarray:
        """Compute probabilities: (N, C) float64, whose columns are those of ``classes_``.

        Raises:
            HeadError: the head is a regression, which has none; or as ``predict``.
        """
        return self._in_columns(super().predict_proba(self._checked(X, "predict_proba")), 0.0)

    @functools.partial(_OfClasses, of_arrays=True)
    def decision_function(self, X: Any) -> np.ndarray:
        """Compute logits, whose softmax (of labels: sigmoid) are the probabilities before isotonic calibration.

        Args:
            X: (N, D) features, or (N, V, D) of V views.

        Returns:
            (N, C) float64. After ``fit(X, y)`` with two classes (N,), the logit of the second less that of the first, as
            scikit-learn's scorers take it.

        Raises:
            HeadError: as ``predict``.
        """
        logits = super().decision_function(self._checked(X, "decision_function"))
        if self._arrays is None:
            return logits
        if self.task_ == "classification" and logits.shape[1] == 2:
            return np.asarray(logits[:, 1] - logits[:, 0])
        return self._in_columns(logits, _NEVER)

    def score(self, X: Any, y: Any) -> float:
        """The accuracy of ``predict`` (of several labels: the share of rows whose labels are all right), or R² of a regression.

        Args:
            X: (N, D) features.
            y: (N,) labels or numbers, as ``fit`` takes them.

        Raises:
            HeadError: as ``predict``, or X is a feature set, which ``evaluate`` judges.
        """
        if isinstance(X, FeatureSet):
            raise HeadError("score takes arrays X and y; head.evaluate(features) judges a head on a FeatureSet")
        predicted = self.predict(X)
        if len(predicted) != len(y):
            raise HeadError(
                f"found {counted(len(predicted), 'row')} of features and {counted(len(y), 'label')}; expected one "
                "for each row"
            )
        if self.task_ == "regression":
            return float(r2_score(np.asarray(y, dtype=np.float64), predicted))
        if predicted.ndim == 2:
            return float((np.asarray(y) == predicted).all(axis=1).mean())
        several = self.task_ == "multilabel"
        right = [
            set(found) == _label_set(own) if several else found == own
            for found, own in zip(predicted, list(y), strict=True)
        ]
        return float(np.mean(right))

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools ask about an estimator: a classifier, unless the task is a regression."""
        from sklearn.utils import ClassifierTags, RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = self._estimator_type
        tags.target_tags.required = True
        if tags.estimator_type == "regressor":
            tags.regressor_tags = RegressorTags()
        else:
            tags.classifier_tags = ClassifierTags(multi_label="multilabel" in HEAD_KINDS[self.kind].tasks)
        return tags

    @property
    def _estimator_type(self) -> str:
        """The same for scikit-learn 1.5."""
        return "regressor" if self.task == "regression" else "classifier"

    # Arrays

    def _take_arrays(self, X: Any, y: Any) -> tuple[FeatureSet, str]:
        """The feature set of the arrays of ``fit(X, y)``, whose rows are all of the split train, and the task.

        Raises:
            HeadError: X or y are no such arrays, or a row has no label.
        """
        matrix = matrix_of(X) if getattr(X, "ndim", 2) == 3 else self._validated(X, reset=True)
        self.n_features_in_ = matrix.shape[-1]
        labels = array_labels(y)
        if len(matrix) < 2:
            raise HeadError(
                f"a head cannot be fitted to 1 sample (n_samples={len(matrix)}); expected at least two rows"
            )
        if getattr(y, "ndim", 1) == 2 and labels.form in (NAMES, NUMBERS) and not labels.one_hot:
            validation.column_or_1d(y, warn=True)  # a column, of which scikit-learn's estimators warn
        if len(labels.labels) != len(matrix):
            raise HeadError(
                f"found {counted(len(matrix), 'row')} of X and {len(labels.labels)} of y; expected one label for each row"
            )
        if unlabelled := np.count_nonzero(labels.labels == UNLABELLED):
            raise HeadError(
                f"{counted(unlabelled, 'row of y holds', 'rows of y hold')} no label (None, NaN or an empty text); "
                "expected one for each row"
            )
        task = self.task
        if labels.form == NUMBERS and task != "regression":
            raise HeadError(
                f"Unknown label type: y holds numbers such as {labels.classes[0]}, which are no classes; "
                "Head(task='regression') predicts numbers"
            )
        if task == "auto":
            is_text = labels.form == NAMES and labels.values.dtype.kind in "US"
            task = (
                task if is_text and not labels.one_hot else "classification" if labels.form == NAMES else "multilabel"
            )
        form = TABLE if labels.one_hot and task == "multilabel" else labels.form
        self._arrays = dataclasses.replace(
            labels, labels=labels.labels[:0], form=form, one_hot=labels.one_hot and form == NAMES
        )
        names, keys = np.full(len(matrix), "train", dtype=object), np.zeros((len(matrix), 16), dtype=np.uint8)
        return FeatureSet(matrix, labels.labels, names, labels.classes, names, keys), task

    def _forget_arrays(self) -> None:
        """Forget what an earlier fit to arrays left."""
        for name in ("_arrays", "feature_names_in_"):
            self.__dict__.pop(name, None)

    def _checked(self, X: Any, method: str) -> Any:
        """Features to predict; after a fit to arrays, with scikit-learn's checks of their number, names and values."""
        require_fitted(self, method)
        if self._arrays is None or isinstance(X, FeatureSet) or getattr(X, "ndim", 2) == 3:
            return X
        return self._validated(X, reset=False)

    def _validated(self, X: Any, *, reset: bool) -> np.ndarray:
        try:
            if hasattr(validation, "validate_data"):  # from scikit-learn 1.6 on
                found = validation.validate_data(self, X, reset=reset, dtype=_TYPES)
            else:
                found = self._validate_data(X, reset=reset, dtype=_TYPES)
        except (ValueError, TypeError) as error:
            raise HeadError(str(error)) from error
        matrix: np.ndarray = found
        return matrix

    def _in_columns(self, outputs: np.ndarray, missing: float) -> np.ndarray:
        """(N, C) outputs of the labels in the columns of ``y``, where that was a table; ``missing`` for labels without rows."""
        labels = self._arrays
        if labels is None or not (labels.form == TABLE or labels.one_hot) or outputs.ndim != 2:
            return outputs
        if labels.one_hot and outputs.dtype.kind == "f":
            return outputs  # its columns are those of classes_
        names = labels.columns
        out = np.full((len(outputs), len(names)), missing, dtype=outputs.dtype)
        out[:, [names.index(name) for name in self.names_]] = outputs
        return out

    def _fitted(self, name: str) -> Any:
        """A fitted attribute whose name is that of a property."""
        if name not in vars(self):
            raise AttributeError(f"this head is not fitted, so it has no {name}")
        return vars(self)[name]


def _label_set(labels: Any) -> set[str]:
    return {labels} if isinstance(labels, str) else set(map(str, labels))
