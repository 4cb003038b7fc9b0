"""``HeadClassifier`` and ``HeadRegressor``: heads with the conventions of scikit-learn's estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, check_is_fitted, check_random_state, column_or_1d

from featx.errors import HeadError
from featx.heads.head import Head
from featx.heads.registry import HEAD_KINDS
from featx.sklearn.checks import validated
from featx.sklearn.stored_head import from_state, to_state
from featx.text import counted

_FEATURES = [np.float64, np.float32, np.float16]
"""Features of these types stay as they are; others become the first."""


class _HeadEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn publishes no types
    """What a classifier and a regressor share: a ``Head`` that is made, fitted and asked."""

    kind: str
    head_: Head
    n_features_in_: int
    random_state: Any

    _OF_HEAD: tuple[str, ...] = ("kind", "C", "kernel", "k", "calibrate", "conformal", "device")
    """The parameters of ``Head`` that have the same name here."""

    def _fit_head(self, X: np.ndarray, y: Any, task: str) -> None:
        params = {name: getattr(self, name) for name in self._OF_HEAD}
        seed = self.random_state
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        self.head_ = Head(**params, task=task, seed=int(seed)).fit(X, y)

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        matrix: np.ndarray = validated(self, X, reset=False, dtype=_FEATURES)
        return matrix

    def predict(self, X: Any) -> np.ndarray:
        """Predict.

        Args:
            X: (N, D) features.

        Returns:
            (N,) of the type of ``y``; (N, L) of 0 and 1 for several labels. A class whose probability is below
            ``reject_below`` is None, in an array of objects.

        Raises:
            ValueError: X has another number of features, or NaN.
        """
        X = self._checked(X)
        return self.head_.predict(X)

    @classmethod
    def _require_fitted(cls, head: Any) -> None:
        if not isinstance(head, Head) or "predictor_" not in vars(head):
            raise HeadError(f"{cls.__name__}.from_head takes a fitted Head; Head.load(file) reads one")

    @classmethod
    def _of_head(cls, head: Head, **attributes: Any) -> Self:
        params = {name: getattr(head, name) for name in cls._OF_HEAD}
        estimator = cls(**{**params, "C": head.C_, "k": head.k_, "random_state": head.seed})
        estimator.__dict__.update(head_=head, n_features_in_=len(head.mean_), **attributes)
        return estimator

    # Files

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for pickle and skops: plain values, and the head as the bytes of its file."""
        state = dict(super().__getstate__())
        if "head_" in state:
            state["head_"] = to_state(state["head_"])
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take the attributes from pickle or skops, whose file may be anybody's.

        Raises:
            CorruptFileError: the head is damaged.
        """
        attributes = dict(state)
        if "head_" in attributes:
            attributes["head_"] = from_state(attributes["head_"])
        super().__setstate__(attributes)


class HeadClassifier(ClassifierMixin, _HeadEstimator):  # type: ignore[misc]
    """A classifier of scikit-learn that fits a ``featx.Head``: C or k is chosen by cross-validation unless it is given.

    Args:
        kind: "logreg", "svm", "ridge", "knn", "centroid", "bilinear", "mlp", "linear", or a kind added by ``register_head``.
        C: inverse strength of the penalty, for logreg, svm, ridge and bilinear; None: chosen by
            cross-validation.
        kernel: "linear" or "rbf", for svm.
        k: number of neighbours, for knn; None: chosen.
        class_weight: "balanced": each class has the same weight, however many rows it has. Or the weight of each class, as
            ``{class: weight}``; others have the weight 1.
        logit_adjustment: this times the log of each class's share is subtracted from its logit; see ``Head``.
        calibrate: "temperature", "isotonic" or "none"; None: a temperature for all kinds but logreg and
            bilinear.
        reject_below: no class is predicted (None) if the highest probability is lower.
        target_precision: choose ``reject_below`` so that this share of the predictions is right, on held-out rows.
        conformal: calibrate prediction sets of which this share may miss the class, such as 0.1, for ``predict_set``.
        conformal_per_class: let the sets miss at most this share of each class.
        device: of torch, or "auto": where logreg, svm, linear, bilinear and mlp compute their products.
        random_state: of the folds, and of minibatches.

    Attributes:
        head_: the fitted ``Head``, whose class names are text.
        classes_: (C,) the classes, of the type of ``y``; of several labels, the numbers of its columns.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from featx.sklearn import HeadClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> classifier = HeadClassifier("ridge", C=1.0).fit(X, y)
        >>> classifier.predict(X[:2]).tolist(), classifier.predict_proba(X).shape
        ([0, 0], (150, 3))
    """

    _OF_HEAD = (
        *_HeadEstimator._OF_HEAD,
        "class_weight",
        "logit_adjustment",
        "reject_below",
        "target_precision",
        "conformal_per_class",
    )

    def __init__(
        self,
        kind: str = "logreg",
        *,
        C: float | None = None,
        kernel: str = "linear",
        k: int | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        logit_adjustment: float = 0.0,
        calibrate: str | None = None,
        reject_below: float | None = None,
        target_precision: float | None = None,
        conformal: float | None = None,
        conformal_per_class: bool = False,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.kind = kind
        self.C = C
        self.kernel = kernel
        self.k = k
        self.class_weight = class_weight
        self.logit_adjustment = logit_adjustment
        self.calibrate = calibrate
        self.reject_below = reject_below
        self.target_precision = target_precision
        self.conformal = conformal
        self.conformal_per_class = conformal_per_class
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a head.

        Args:
            X: (N, D) features.
            y: (N,) classes, or (N, L) of 0 and 1 for several labels.

        Raises:
            ValueError: X or y are no such arrays, or the parameters do not suit them.
        """
        several = y is not None and type_of_target(y, input_name="y") == "multilabel-indicator"
        if several:
            X, y = validated(self, X, y, dtype=_FEATURES, multi_output=True)
            y = y.toarray() if sparse.issparse(y) else check_array(y, dtype=np.int64)
        else:
            X, y = validated(self, X, y, dtype=_FEATURES)
            check_classification_targets(y)
        self._fit_head(X, y, "multilabel" if several else "classification")
        self.classes_ = self.head_.classes_
        return self

    @classmethod
    def from_head(cls, head: Head) -> Self:
        """Make a fitted classifier of a fitted ``Head``, such as one from a file. It predicts the names of its classes.

        Raises:
            HeadError: the head is not fitted, or a regression.
        """
        cls._require_fitted(head)
        if head.task_ == "regression":
            raise HeadError("this head is a regression; HeadRegressor.from_head takes it")
        return cls._of_head(head, classes_=np.asarray(head.classes_))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Compute probabilities, (N, C) float64, whose columns are those of ``classes_``.

        Raises:
            ValueError: as ``predict``.
        """
        X = self._checked(X)
        return self.head_.predict_proba(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute logits: (N, C) float64; (N,) for two classes, the logit of the second less that of the first.

        Raises:
            ValueError: as ``predict``.
        """
        X = self._checked(X)
        return self.head_.decision_function(X)

    def predict_set(self, X: Any) -> np.ndarray:
        """Compute prediction sets, (N, C) bool: which of ``classes_`` are in the set of each row.

        Raises:
            HeadError: ``conformal`` is None.
            ValueError: as ``predict``.
        """
        X = self._checked(X)
        return self.head_.predict_set(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy of ``predict``; of several labels, the share of rows that are all right. A rejected row is wrong.

        Args:
            X: (N, D) features.
            y: as ``fit`` takes it.
            sample_weight: (N,) the weight of each row, or None.

        Raises:
            ValueError: as ``predict``, or the numbers of rows differ.
        """
        predicted, true = self.predict(X), y.toarray() if sparse.issparse(y) else np.asarray(y)
        if len(predicted) != len(true):
            raise HeadError(
                f"found {counted(len(predicted), 'row')} of X and {len(true)} of y; expected the same number"
            )
        right = np.equal(predicted, true.reshape(predicted.shape))
        rows = right.all(axis=1) if right.ndim == 2 else right
        return float(np.average(rows.astype(np.float64), weights=sample_weight))

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools ask: whether the kind can predict several labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self.kind in HEAD_KINDS and "multilabel" in HEAD_KINDS[self.kind].tasks
        return tags


class HeadRegressor(RegressorMixin, _HeadEstimator):  # type: ignore[misc]
    """A regressor of scikit-learn that fits a ``featx.Head``: C or k is chosen by cross-validation unless it is given.

    Args:
        kind: "ridge", "svm", "knn", "bilinear", "mlp", "linear", or a kind added by ``register_head``.
        C: inverse strength of the penalty, for ridge (alpha = 1 / (2 C)) and svm; None: chosen by cross-validation.
        kernel: "linear" or "rbf", for svm.
        k: number of neighbours, for knn; None: chosen.
        calibrate: "temperature" or "none", as in ``Head``.
        conformal: calibrate prediction intervals of which this share may miss the number, for ``predict_interval``.
        device: of torch, or "auto": where linear and mlp compute their products.
        random_state: of the folds, and of minibatches.

    Attributes:
        head_: the fitted ``Head``.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Examples:
        >>> import numpy as np
        >>> from featx.sklearn import HeadRegressor
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> HeadRegressor(C=100.0).fit(X, X @ [1.0, 2.0, 3.0]).score(X, X @ [1.0, 2.0, 3.0]) > 0.99
        True
    """

    def __init__(
        self,
        kind: str = "ridge",
        *,
        C: float | None = None,
        kernel: str = "linear",
        k: int | None = None,
        calibrate: str | None = None,
        conformal: float | None = None,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.kind = kind
        self.C = C
        self.kernel = kernel
        self.k = k
        self.calibrate = calibrate
        self.conformal = conformal
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a head.

        Args:
            X: (N, D) features.
            y: (N,) numbers.

        Raises:
            ValueError: X or y are no such arrays, or the parameters do not suit them.
        """
        X, y = validated(self, X, y, dtype=_FEATURES, y_numeric=True)
        self._fit_head(X, column_or_1d(y).astype(np.float64), "regression")
        return self

    def predict_interval(self, X: Any) -> np.ndarray:
        """Compute prediction intervals, (N, 2) float64: their lower and upper ends.

        Raises:
            HeadError: ``conformal`` is None.
            ValueError: as ``predict``.
        """
        X = self._checked(X)
        return self.head_.predict_set(X)

    @classmethod
    def from_head(cls, head: Head) -> Self:
        """Make a fitted regressor of a fitted ``Head`` of numbers, such as one from a file.

        Raises:
            HeadError: the head is not fitted, or no regression.
        """
        cls._require_fitted(head)
        if head.task_ != "regression":
            raise HeadError(f"this head does {head.task_}; HeadClassifier.from_head takes it")
        return cls._of_head(head)
