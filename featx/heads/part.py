"""The rows of one process of those that fit a head together, and what it computes of them. numpy only.

Each public method is a question of ``Ranks``, whose arguments and answers travel between processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from featx.errors import FeatxError
from featx.features.feature_set import FeatureSet
from featx.features.shared_reading import Read, reading_shared
from featx.heads.training_data import ColumnSums, Rows, TrainingData, column_sums


class Part:
    """The part of one process.

    Args:
        messages: to the other processes, as ``featx.heads.ranks.Messages``.
        load: loads a layer of the features; not needed by the first process.

    Attributes:
        fields: what the first process has read.
    """

    def __init__(self, messages: Any, load: Callable[[str], FeatureSet] | None = None) -> None:
        self.messages, self._load = messages, load
        self._features: FeatureSet | None = None
        self._training: TrainingData | None = None
        self._shared: Mapping[str, Any] = {}
        self._losses: tuple[Any, Any] | None = None
        self.fields: dict[str, Any] = {}

    def read(self, read: Read | None = None, layer: str = "") -> None:
        """Read the features of a layer, of which this process checks its part.

        Args:
            read: how, in the first process, which keeps the ``fields``; None: this one loads the layer.
            layer: the layer.
        """
        part = self.messages.rank, self.messages.count
        if read is not None:
            self.fields = read(*part)
            return
        assert self._load is not None
        with reading_shared(lambda _, read: read(*part)):
            self._features = self._load(layer)

    def use(self, features: FeatureSet) -> None:
        """Take features that are open already."""
        self._features = features

    def open(self, layer: str, facts: Mapping[str, Any]) -> None:
        """Load a layer, unless it is open, and compare it with that of the first process.

        Raises:
            FeatxError: it differs.
        """
        if self.messages.rank == 0:
            return
        if self._features is None or self._features.layer != layer or facts_of(self._features) != facts:
            assert self._load is not None
            self._features = self._load(layer)
        own = facts_of(self._features)
        differ = [name for name, value in facts.items() if own[name] != value]
        if differ:
            shown = "; ".join(f"{name} {own[name]} against {facts[name]}" for name in differ)
            where = self._features.source or "the feature set"
            raise FeatxError(
                f"{where} holds other features than rank 0 reads ({shown}); give all processes the same feature file"
            )

    def column_sums(self, index: np.ndarray) -> ColumnSums:
        """The sums that mean and deviation of each column follow from, of (n,) rows."""
        return column_sums(self._matrix, index)

    def take(
        self, *, index: np.ndarray, y: np.ndarray, weight: np.ndarray, mean: np.ndarray, scale: np.ndarray, unit: bool,
        count: int, task: str, seed: int, **shared: Any,
    ) -> None:  # fmt: skip
        """Take (n,) rows to fit to, with their targets and weights, and what is known of all."""
        self._training = TrainingData(
            Rows(self._matrix, index, mean=mean, scale=scale, unit=unit), y, count, task, weight, seed=seed
        )
        self._shared, self._losses = shared, None

    def moments(self, *, offset: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
        """The sums that ridge regression follows from, of targets with an offset and a scale."""
        from featx.heads.estimators.ridge import sum_moments

        return sum_moments(self._own, offset, scale)

    def losses(self, *, hinge: bool, dtype: str, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        """The share of these rows in the loss of a linear classifier, and in its gradients."""
        from featx.heads.estimators.linear import loss_sums

        if self._losses is None:
            self._losses = loss_sums(self._own, hinge=hinge, weight_sum=self._shared["weight_sum"]), hinge
        return tuple(self._losses[0](np.dtype(dtype), W, b))

    def train(self, **plan: Any) -> Any:
        """Train a linear layer on minibatches together with the other processes: its weights and biases."""
        from featx.heads.estimators.mlp import train_part

        return train_part(self._own, self.messages, **self._shared, **plan)

    @property
    def _own(self) -> TrainingData:
        assert self._training is not None
        return self._training

    @property
    def _matrix(self) -> np.ndarray:
        """The features with a row for each view."""
        assert self._features is not None
        features = self._features.features
        return features if features.ndim == 2 else features.reshape(-1, features.shape[2])


def facts_of(features: FeatureSet) -> dict[str, Any]:
    """What has to be the same of the features of all processes, in words that tell them apart."""
    digest = hashlib.blake2b(digest_size=8)
    for column in (features.keys, features.labels):  # not the splits, which a head may make anew
        digest.update(np.ascontiguousarray(column).data)
    return {
        "layer": features.layer, "identity": features.identity[:16] or "none", "rows": len(features),
        "shape": features.features.shape[1:], "type": str(features.features.dtype), "digest of the images": digest.hexdigest(),
    }  # fmt: skip
