"""Bilinear heads: a linear head on the features and on the products of pairs of their principal components.

N rows of D features, R components, C classes, labels or targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from featx.heads.estimators.linear import LinearPathEstimator
from featx.heads.estimators.ridge import RidgeEstimator
from featx.heads.predictors import BilinearPredictor, LinearPredictor, root_scaled
from featx.heads.training_data import ColumnSums, Estimator, Rows, TrainingData, steadied

COMPONENTS = 64
"""R. On the real features at hand 32, 64 and 96 were equally good."""

_MOST_ROWS = 20_000  # that principal components are computed from; they hardly depend on more
_NEGLIGIBLE = 1e-7  # deviation of a component, relative to the first one's, below which it is rounding error


class BilinearEstimator:
    """Fits a linear head on features z and on the products y_i y_j / |y| of R whitened principal components y of them.

    The products are those of low-rank bilinear pooling (Lin et al., 2015; Kim et al., 2017), here of a vector with itself.
    Their division by the length of y is the matrix square root of y y', which second-order pooling takes (Li et al., 2017).
    Features and products are standardised, those of few images by steadied deviations, and share one penalty. Components and
    deviations are those of all training rows, without labels; C is chosen by cross-validation, and the weights are exact, as in
    ``logreg``, or in ``ridge`` for a regression.

    Args:
        task: one of ``TASKS``.
        device: of torch, for the products of a classification.
        coarse: as ``LinearPathEstimator`` has it.

    Attributes:
        candidates: values of C, the smallest first.
        first_looks: as ``Estimator`` has it; (0, 0) for a regression, whose values of C share one decomposition.

    Examples:
        >>> rows = Rows(np.array([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]] * 5))
        >>> training = TrainingData(rows, np.array([0, 0, 1, 1] * 5), 2, "classification", np.ones(20))
        >>> predictor = BilinearEstimator("classification").fit(training, 100.0)
        >>> predictor.decision_function(np.array([[2.0, 2.0], [2.0, -2.0]])).argmax(axis=1)  # as exclusive or
        array([0, 1])
    """

    def __init__(self, task: str, *, device: str = "cpu", coarse: bool = False) -> None:
        linear = RidgeEstimator() if task == "regression" else LinearPathEstimator(device=device, coarse=coarse)
        self._linear: Any = linear
        self._pairs: _Pairs | None = None
        self._last: tuple[TrainingData, TrainingData] | None = None

    @property
    def candidates(self) -> tuple[float, ...]:
        """Values of C, the smallest first."""
        estimator: Estimator = self._linear
        return estimator.candidates

    @property
    def first_looks(self) -> tuple[int, int]:
        """Where a search begins, and its stride."""
        looks: tuple[int, int] = getattr(self._linear, "first_looks", (0, 0))
        return looks

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float], **options: bool
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by a fit to the training rows of the fold that holds it out; of a regression, without the row.

        Args:
            training: with folds.
            candidates: values of C.
            options: as the linear estimator takes them.

        Yields:
            Each C, and its (N, C) float64 scores; NaN for rows that no fold holds out.
        """
        yield from self._linear.cross_val_scores(self._with_pairs(training), candidates, **options)

    def fit(self, training: TrainingData, candidate: float) -> BilinearPredictor:
        """Fit to all rows.

        Warns:
            NotConvergedWarning: the optimum was not reached.
        """
        extended = self._with_pairs(training)
        fitted: LinearPredictor = self._linear.fit(extended, candidate)
        if hasattr(self._linear, "solution_"):
            self.solution_ = self._linear.solution_
        rows = extended.rows
        weight = fitted.weight / rows.scale
        bias = fitted.bias - weight @ rows.mean
        width, projection = training.rows.width, self._pairs_of(training).projection
        return BilinearPredictor(projection, weight[:, :width], _symmetric(weight[:, width:], len(projection)), bias)

    def _pairs_of(self, training: TrainingData) -> _Pairs:
        """The components of the data; those of the search serve the fit too, so that both solve one problem."""
        rows = training.rows
        if self._pairs is None or self._pairs.features is not rows.features:
            self._pairs = _Pairs.of(rows, images=training.different)
        return self._pairs

    def _with_pairs(self, training: TrainingData) -> TrainingData:
        """The same data with the products as further columns."""
        if self._last is None or self._last[0] is not training:
            rows = self._pairs_of(training).added_to(training.rows)
            share = training.share and (self._with_pairs(training.share[0]), training.share[1])
            self._last = training, dataclasses.replace(training, rows=rows, share=share)
        return self._last[1]


class _Pairs:
    """Principal components of some rows, and what the features and their products are standardised by.

    Attributes:
        features: the matrix that the rows are of.
        projection: (R, D) float64, from standardised features to whitened components.
        mean: (D + R (R + 1) / 2,) float64, of features, which are standardised already, and products.
        scale: of the same shape: 1, and the deviations of the products.
    """

    def __init__(self, features: Any, projection: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
        self.features, self.projection, self.mean, self.scale = features, projection, mean, scale

    @classmethod
    def of(cls, rows: Rows, *, images: int) -> _Pairs:
        """Compute them, from the rows of so many different images."""
        step = -(-len(rows) // _MOST_ROWS)
        some = rows.take(np.arange(0, len(rows), step))
        projection = _components(some.whole(np.float64))
        width = rows.width + len(projection) * (len(projection) + 1) // 2
        extended = _PairRows(some, projection, np.zeros(width), np.ones(width))
        sums = ColumnSums.of_blocks(width, (block for _, block in extended.blocks(np.float64)))
        mean, scale = sums.statistics()
        mean[: rows.width], scale[: rows.width] = 0.0, 1.0
        scale = steadied(scale, images, [slice(rows.width, width)])
        return cls(rows.features, projection, mean, scale)

    def added_to(self, rows: Rows) -> Rows:
        """The rows with their products, standardised."""
        return _PairRows(rows, self.projection, self.mean, self.scale)


class _PairRows(Rows):
    """Rows with the products of their components as further columns, computed block by block.

    Args:
        rows: standardised features.
        projection: as in ``_Pairs``.
        mean: of all columns.
        scale: of all columns.
    """

    def __init__(self, rows: Rows, projection: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
        super().__init__(rows.features, rows.index, mean=mean, scale=scale)
        self._rows, self._projection = rows, projection
        self._first, self._second = np.triu_indices(len(projection))

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.mean)

    def take(self, rows: np.ndarray) -> Rows:
        """Select some of these rows, by (n,) int64 or bool."""
        return _PairRows(self._rows.take(rows), self._projection, self.mean, self.scale)

    def block(self, rows: slice | np.ndarray, dtype: Any = np.float32, *, forget: bool = False) -> np.ndarray:
        """Extend and standardise some of the rows; see ``Rows.block``."""
        own = self._rows.block(rows, np.float64, forget=forget)
        scaled = root_scaled(own @ self._projection.T)
        block = np.concatenate([own, scaled[:, self._first] * scaled[:, self._second]], axis=1)
        block -= self.mean
        block /= self.scale
        return block.astype(dtype, copy=False)


def _components(Z: np.ndarray) -> np.ndarray:
    """(R, D) float64, from (N, D) rows to their whitened principal components; a row of zeros where none vary."""
    Z = Z - Z.mean(axis=0)
    if len(Z) < Z.shape[1]:
        values, vectors = np.linalg.eigh(Z @ Z.T)
        kept = _largest(values, len(Z))
        axes = Z.T @ vectors[:, kept] / np.sqrt(values[kept])
    else:
        values, axes = np.linalg.eigh(Z.T @ Z)
        kept = _largest(values, len(Z))
        axes = axes[:, kept]
    if not len(kept):
        return np.zeros((1, Z.shape[1]))
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(kept))])
    projection: np.ndarray = axes.T / np.sqrt(values[kept] / len(Z))[:, None]
    return np.ascontiguousarray(projection)


def _largest(values: np.ndarray, rows: int) -> np.ndarray:
    """The places of the largest eigenvalues, the largest first: at most ``COMPONENTS``, and one for each four rows.

    Along as many components as rows, whitened rows would all be equally far from one another.
    """
    order = np.argsort(values)[::-1][: min(COMPONENTS, max(1, rows // 4))]
    kept: np.ndarray = order[values[order] > _NEGLIGIBLE**2 * max(values.max(initial=0.0), np.finfo(np.float64).tiny)]
    return kept


def _symmetric(weight: np.ndarray, components: int) -> np.ndarray:
    """(C, R (R + 1) / 2) weights of products to (C, R, R) symmetric matrices."""
    out = np.zeros((len(weight), components, components))
    first, second = np.triu_indices(components)
    out[:, first, second] = weight / 2
    symmetric: np.ndarray = out + out.transpose(0, 2, 1)
    return symmetric
