"""What a fitted head computes from features: scores, logits, probabilities and decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import FOREIGN
from featx.errors import HeadError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.arguments import as_matrix, require_fitted
from featx.heads.conformal import Conformal
from featx.heads.postprocess import Isotonic, Postprocess
from featx.heads.predictors import CosinePredictor, LinearPredictor
from featx.heads.registry import PARAMETERS
from featx.heads.search import Tried
from featx.heads.seen import NO_KEYS, SeenImages
from featx.heads.targets import Constant
from featx.heads.training_data import Rows, flatten_views, mean_over_views
from featx.identity import differences
from featx.layer_spec import LayerSpec

_MAX_DEVIATIONS = 1e15  # its square is still a float32, in which distances are compared


class FittedHead:
    """The fitted attributes of a ``Head``, which documents them, and the predictions that follow from them."""

    kind: str
    kernel: str

    task_: str
    names_: tuple[str, ...]
    predictor_: Any  # a Predictor; the tests and as_linear read the arrays of its class
    postprocess_: Postprocess
    mean_: np.ndarray
    scale_: np.ndarray
    factors_: tuple[float, ...] = ()
    gains_: dict[str, Any] | None = None
    C_: float | None
    k_: int | None
    weight_decay_: float | None
    search_: tuple[Tried, ...]
    held_out_: Any  # a Report of the head's task, or None
    out_of_fold_: tuple[np.ndarray, np.ndarray] | None
    convergence_: dict[str, float] | None
    layer_: str
    identity_: str
    backbone_: dict[str, Any]
    dataset_: dict[str, Any]
    source_: Path | None
    group_: str | None
    n_train_: int
    train_keys_: np.ndarray
    validation_keys_: np.ndarray = NO_KEYS
    constant_: Constant
    notes_: list[str]
    seconds_: float

    # Predictions

    def predict_values(self, X: np.ndarray) -> np.ndarray:
        """Compute what ``predict`` and the reports are based on, whatever the task.

        Args:
            X: (N, D) features, or (N, V, D) of V views, whose scores are averaged.

        Returns:
            (N, C) float64: probabilities of classes, which sum to 1; of labels, each between 0 and 1; or the numbers of a
            regression. A row that is NaN, infinite, or further from the training rows than any image can be, gets NaN.

        Raises:
            HeadError: X is of another shape or holds no numbers, or the head is not fitted.
        """
        require_fitted(self, "predict")
        return self.postprocess_.apply(self._scores(X))

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Compute logits, whose softmax (of labels: sigmoid) are the probabilities before isotonic calibration.

        Args:
            X: (N, D) features, or (N, V, D) of V views.

        Returns:
            (N, C) float64; NaN as in ``predict_values``.

        Raises:
            HeadError: X is of another shape or holds no numbers, or the head is not fitted.
        """
        require_fitted(self, "decision_function")
        return self.postprocess_.logits(self._scores(X))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Compute probabilities, (N, C) float64, as ``predict_values`` does.

        Raises:
            HeadError: the head is a regression, which has none; or as ``predict_values``.
        """
        require_fitted(self, "predict_proba")
        if self.task_ == "regression":
            raise HeadError("a regression head predicts numbers, not probabilities; use predict")
        return self.predict_values(X)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict class names, lists of label names, or numbers.

        Args:
            X: (N, D) features, or (N, V, D) of V views.

        Returns:
            (N,): object for names, where a class whose probability is below ``reject_below_`` is None; float64 for numbers.

        Raises:
            HeadError: X is of another shape or holds no numbers, or the head is not fitted.
        """
        outputs = self.predict_values(X)
        if self.task_ == "regression":
            return outputs[:, 0]
        decisions = np.empty(len(outputs), dtype=object)
        for row, p in enumerate(outputs):
            decisions[row] = self.decide(p)
        return decisions

    def predict_rows(self, features: FeatureSet, rows: np.ndarray) -> np.ndarray:
        """Compute ``predict_values`` of some rows of a feature set, (n,) int64, reading its features block by block."""
        blocks = Rows(*flatten_views(features.features, rows)).blocks(np.float64)
        nothing = np.empty((0, len(self.names_)))
        scores = np.concatenate([nothing, *(self._scores(block) for _, block in blocks)])
        return self.postprocess_.apply(mean_over_views(scores, features.views))

    def decide(self, p: np.ndarray) -> Any:
        """Turn (C,) outputs of one image into a class name or None, a list of label names, or a number."""
        return self.postprocess_.decide(p, self.names_)

    def _scores(self, X: np.ndarray) -> np.ndarray:
        """(N, C) scores of the predictor, the mean over the views; NaN for rows that no image can have."""
        X = as_matrix(X, len(self.mean_))
        views = 1 if X.ndim == 2 else X.shape[1]
        X = X.reshape(-1, X.shape[-1])
        scores = np.full((len(X), len(self.names_)), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            Z = (X.astype(np.float64) - self.mean_) / self.scale_
            rows = (np.abs(Z) < _MAX_DEVIATIONS).all(axis=1)
            if rows.any():
                scores[rows] = self.predictor_.decision_function(Z[rows])
        return mean_over_views(scores, views)

    # The features that it was fitted to

    def require_identity(self, features: FeatureSet) -> None:
        """Raise StaleCacheError unless the features have the identity of those that the head was fitted to."""
        self.require_same(
            features.identity,
            features.backbone.get("parts", {}),
            layers=(features.layer,),
            where=str(features.source or "this feature set"),
        )

    def require_same(
        self, identity: str | None, parts: Mapping[str, Any], *, layers: Sequence[str], where: str
    ) -> None:
        """Raise StaleCacheError, naming the parts that differ, unless an identity is that of the head's features.

        Args:
            identity: of the head's layer in the file or backbone that is checked.
            parts: what that identity is made of, as ``Backbone.describe`` gives it.
            layers: the layers in the file or backbone.
            where: the feature file or backbone, in words.
        """
        if identity == self.identity_:
            return
        parts_that_differ = differences(self.backbone_.get("parts", {}), parts)
        if self.layer_ not in layers:
            parts_that_differ.insert(0, f"layer: {self.layer_} against {', '.join(layers)}")
        if FOREIGN in parts and FOREIGN in self.backbone_.get("parts", {}) and self.layer_ in layers:
            raise StaleCacheError(
                f"this head was fitted to other imported vectors than those of {where}; if one network made both, import both "
                "with the same --backbone NAME and fit the head again"
            )
        shown = parts_that_differ or [f"identity: {self.identity_ or 'none'} against {identity or 'none'}"]
        raise StaleCacheError(
            f"this head was fitted to other features than those of {where} ({'; '.join(shown)}); "
            "fit a head to them with featx fit-head"
        )

    # The head as a layer of a network

    @property
    def is_linear(self) -> bool:
        """Whether the head is W x + b, so that it can become the last layer of its backbone."""
        linear = isinstance(self.predictor_, LinearPredictor)
        return linear and self.isotonic_ is None and self.task_ == "classification"

    def as_linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Fold standardisation, temperature and offset into weights and biases: logits = X W' + b.

        Returns:
            W (C, D) and b (C,), float64.

        Raises:
            HeadError: the head has a kernel, neighbours, a hidden layer or isotonic calibration, or another task than
                classification.
        """
        require_fitted(self, "as_linear")
        if self.task_ != "classification":
            raise HeadError(f"a head of {self.task_} cannot be promoted; only heads of classification can")
        if isinstance(self.predictor_, CosinePredictor):
            raise HeadError(
                "this head compares embeddings of length 1 with the texts of its classes, and no layer of a network divides by "
                "that length; featx fit-head --model logreg, without --anchor, makes one that can be promoted"
            )
        if not self.is_linear:
            name = f"{self.kind} --kernel {self.kernel}" if self.kernel != "linear" else self.kind
            curved = " with isotonic calibration" if self.isotonic_ is not None else ""
            raise HeadError(
                f"a {name} head{curved} is not linear, so no layer of a network can replace it; "
                f"featx fit-head --model logreg{' --calibrate temperature' if curved else ''} makes one that is, which this "
                "head can teach (featx promote --finetune --teacher); featx export takes this head on its backbone as it is"
            )
        weight = self.predictor_.weight / self.scale_ / self.temperature_
        return weight, self.predictor_.bias / self.temperature_ - self.offset_ - weight @ self.mean_

    # Parts of other attributes

    @property
    def chosen(self) -> dict[str, float]:
        """The hyper-parameter that was chosen or given, by its name; empty where the kind has none."""
        return {name: value for name in PARAMETERS if (value := vars(self)[f"{name}_"]) is not None}

    @property
    def seen(self) -> SeenImages:
        """The content hashes of the images that it was fitted to, or on which its thresholds were chosen."""
        return SeenImages(self.train_keys_, self.validation_keys_)

    @property
    def temperature_(self) -> float:
        """What scores are divided by."""
        return self.postprocess_.temperature

    @property
    def offset_(self) -> np.ndarray:
        """(C,) float64, what is subtracted from the logits."""
        return self.postprocess_.offset

    @property
    def isotonic_(self) -> Isotonic | None:
        """The curves of isotonic calibration, or None."""
        return self.postprocess_.isotonic

    @property
    def thresholds_(self) -> np.ndarray | None:
        """(C,) the probability from which on a label is predicted; None unless the task is multilabel."""
        return self.postprocess_.thresholds

    @property
    def reject_below_(self) -> float | None:
        """The probability below which no class is predicted, or None."""
        return self.postprocess_.reject_below

    @property
    def conformal_(self) -> Conformal | None:
        """What prediction sets follow from, or None."""
        return self.postprocess_.conformal

    @property
    def layer(self) -> str:
        """The layer, or layers separated by commas, without their views."""
        return LayerSpec.parse(self.layer_).layer

    @property
    def views(self) -> str:
        """The name of the set of views of each image (test-time augmentation); "plain" for one."""
        return LayerSpec.parse(self.layer_).views_name
