"""Heads as torch modules: standardise, score, average over the views, calibrate and decide, as ``featx.heads`` does in numpy.

N is the number of images, V of views, D the width of the features, and C the number of classes, labels or targets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.errors import HeadError
from featx.heads.head import Head
from featx.heads.postprocess import Isotonic, Postprocess
from featx.heads.predictors import (
    BilinearPredictor,
    CosinePredictor,
    HiddenLayerPredictor,
    KernelPredictor,
    LinearPredictor,
    NeighbourLabelsPredictor,
    NeighbourMeanPredictor,
    NeighbourPredictor,
)

ROUNDING = 1e-6
"""A probability that is so little below a threshold counts as reaching it: the output is float32, and a threshold that was
chosen on held-out images is often the probability of one of them."""

_MAX_DEVIATIONS = 1e15  # as in featx.heads.fitted: rows further away get NaN


class HeadLayers(nn.Module):
    """A fitted head, from features to scores.

    Args:
        head: fitted.
        dtype: the floating-point type in which it computes; featx itself computes in float64.

    Raises:
        HeadError: the head is of a kind that was added by ``register_head`` and has a predictor of its own.
    """

    def __init__(self, head: Head, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.dtype = dtype
        self.mean, self.scale = _buffer(head.mean_, dtype), _buffer(head.scale_, dtype)
        self.predictor = predictor_layers(head.predictor_, dtype)

    def forward(self, features: Tensor) -> Tensor:
        """Score.

        Args:
            features: (N, V, D) float32.

        Returns:
            (N, C), the mean over the views; NaN for an image with a row that no image can have.
        """
        rows = (features.flatten(0, 1).to(self.dtype) - self.mean) / self.scale
        possible = (rows.abs() < _MAX_DEVIATIONS).all(dim=1, keepdim=True)
        scores = self.predictor(rows).masked_fill(~possible, float("nan"))
        mean: Tensor = scores.unflatten(0, (-1, features.shape[1])).mean(dim=1)
        return mean


class PostprocessLayers(nn.Module):
    """From scores to probabilities and a decision.

    Args:
        postprocess: what the head or promoted model does with its scores.
        dtype: as in ``HeadLayers``.
    """

    def __init__(self, postprocess: Postprocess, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.task, self.temperature = postprocess.task, postprocess.temperature
        self.reject_below = postprocess.reject_below
        self.offset = _buffer(postprocess.offset, dtype)
        thresholds = postprocess.thresholds
        self.thresholds = None if thresholds is None else _buffer(thresholds, dtype)
        self.isotonic = (
            None
            if postprocess.isotonic is None
            else _Curves(postprocess.isotonic, self.task == "classification", dtype)
        )

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrate and decide.

        Args:
            scores: (N, C).

        Returns:
            (N, C) probabilities; and (N,) int64 classes, -1 where the model predicts none, or (N, C) bool labels.
        """
        logits = scores / self.temperature - self.offset
        p = torch.softmax(logits, dim=1) if self.task == "classification" else torch.sigmoid(logits)
        if self.isotonic is not None:
            p = self.isotonic(p)
        if self.thresholds is not None:
            return p, p >= self.thresholds - ROUNDING
        best, label = p.max(dim=1)
        least = -1.0 if self.reject_below is None else self.reject_below - ROUNDING
        return p, torch.where(best >= least, label, torch.full_like(label, -1))


def predictor_layers(predictor: Any, dtype: torch.dtype) -> nn.Module:
    """The torch module of a predictor, from (N, D) standardised features to (N, C) scores.

    Raises:
        HeadError: it is none of ``featx.heads.predictors``.
    """
    make = _LAYERS.get(type(predictor))
    if make is None:
        raise HeadError(
            f"{type(predictor).__name__} is a predictor that featx does not know as layers of a network; expected one of "
            f"{', '.join(known.__name__ for known in _LAYERS)}"
        )
    return make(predictor, dtype)


class _Linear(nn.Module):
    def __init__(self, predictor: LinearPredictor | CosinePredictor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.bias = _buffer(predictor.weight.T, dtype), _buffer(predictor.bias, dtype)
        self.unit = isinstance(predictor, CosinePredictor)

    def forward(self, rows: Tensor) -> Tensor:
        return (_unit(rows) if self.unit else rows) @ self.weight + self.bias


class _Bilinear(nn.Module):
    def __init__(self, predictor: BilinearPredictor, dtype: torch.dtype) -> None:
        super().__init__()
        self.projection, self.weight = _buffer(predictor.projection.T, dtype), _buffer(predictor.weight.T, dtype)
        count = len(predictor.bias)
        self.by_pair, self.bias = (
            _buffer(predictor.quadratic.reshape(count, -1).T, dtype),
            _buffer(predictor.bias, dtype),
        )

    def forward(self, rows: Tensor) -> Tensor:
        y = rows @ self.projection
        length = (y * y).sum(dim=1, keepdim=True).sqrt()
        products = (y[:, :, None] * y[:, None, :]).flatten(1) / torch.where(length > 0, length, torch.ones_like(length))
        return rows @ self.weight + products @ self.by_pair + self.bias


class _HiddenLayer(nn.Module):
    def __init__(self, predictor: HiddenLayerPredictor, dtype: torch.dtype) -> None:
        super().__init__()
        self.hidden_weight = _buffer(predictor.hidden_weight.T, dtype)
        self.hidden_bias = _buffer(predictor.hidden_bias, dtype)
        self.weight, self.bias = _buffer(predictor.weight.T, dtype), _buffer(predictor.bias, dtype)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.relu(rows @ self.hidden_weight + self.hidden_bias) @ self.weight + self.bias


class _Kernel(nn.Module):
    def __init__(self, predictor: KernelPredictor, dtype: torch.dtype) -> None:
        super().__init__()
        support = predictor.support.astype(np.float64)
        self.support, self.squares = _buffer(support.T, dtype), _buffer((support**2).sum(axis=1), dtype)
        self.dual, self.bias = _buffer(predictor.dual.T, dtype), _buffer(predictor.bias, dtype)
        self.gamma = float(predictor.gamma)

    def forward(self, rows: Tensor) -> Tensor:
        distances = (rows * rows).sum(dim=1, keepdim=True) - 2 * (rows @ self.support) + self.squares
        return torch.exp(-self.gamma * torch.relu(distances)) @ self.dual + self.bias


class _Neighbours(nn.Module):
    """The k nearest support rows and their votes; subclasses make scores of them."""

    def __init__(
        self,
        predictor: NeighbourPredictor | NeighbourLabelsPredictor | NeighbourMeanPredictor,
        values: np.ndarray,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.support = _buffer(predictor.support.T, torch.float32)  # cosines are float32 in featx too
        self.weight = _buffer(predictor.support_weight, dtype)
        self.values = _buffer(values, torch.int64 if values.dtype == np.int64 else dtype)
        self.k, self.sharpness = int(predictor.k), float(predictor.sharpness)

    def votes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Search: (N, k) int64, the rows nearest to each of (N, D), and their (N, k) votes."""
        cosines, nearest = torch.topk(_unit(rows.to(torch.float32)) @ self.support, self.k, dim=1)
        cosines = cosines.to(self.dtype)
        return nearest, self.weight[nearest] * torch.exp(self.sharpness * (cosines - cosines[:, :1]))

    def sums(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C), the votes for each of ``values``, (S, C); and (N, 1), all votes."""
        nearest, cast = self.votes(rows)
        return (cast[:, None] @ self.values[nearest]).squeeze(1), cast.sum(dim=1, keepdim=True)


class _Neighbour(_Neighbours):
    def __init__(self, predictor: NeighbourPredictor, dtype: torch.dtype) -> None:
        super().__init__(predictor, predictor.support_labels, dtype)
        self.count = int(predictor.count)

    def forward(self, rows: Tensor) -> Tensor:
        nearest, cast = self.votes(rows)
        tally = cast.new_zeros(cast.shape[0], self.count).scatter_add(1, self.values[nearest], cast)
        return torch.log((tally + 1.0 / self.count) / (cast.sum(dim=1, keepdim=True) + 1.0))


class _NeighbourLabels(_Neighbours):
    def __init__(self, predictor: NeighbourLabelsPredictor, dtype: torch.dtype) -> None:
        super().__init__(predictor, predictor.support_labels.astype(np.float64), dtype)

    def forward(self, rows: Tensor) -> Tensor:
        has, everything = self.sums(rows)
        return torch.log(has + 0.5) - torch.log(torch.relu(everything - has) + 0.5)


class _NeighbourMean(_Neighbours):
    def __init__(self, predictor: NeighbourMeanPredictor, dtype: torch.dtype) -> None:
        super().__init__(predictor, predictor.support_values, dtype)

    def forward(self, rows: Tensor) -> Tensor:
        has, everything = self.sums(rows)
        return has / everything


_LAYERS: dict[type[Any], Callable[[Any, torch.dtype], nn.Module]] = {
    LinearPredictor: _Linear,
    CosinePredictor: _Linear,
    HiddenLayerPredictor: _HiddenLayer,
    BilinearPredictor: _Bilinear,
    KernelPredictor: _Kernel,
    NeighbourPredictor: _Neighbour,
    NeighbourLabelsPredictor: _NeighbourLabels,
    NeighbourMeanPredictor: _NeighbourMean,
}


class _Curves(nn.Module):
    """Isotonic calibration: piecewise linear interpolation of each class's probability, mixed with doubt.

    A curve is the sum of what each piece rises by, up to the probability. Other runtimes compute sums alike; a search for the
    piece, by counting knots and gathering, gives other results for the last image of a batch in OpenVINO 2026.4.
    """

    def __init__(self, isotonic: Isotonic, normalise: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.normalise, self.doubt = normalise, float(isotonic.doubt)
        self.left, self.base = _buffer(isotonic.x[:, :-1], dtype), _buffer(isotonic.y[:, 0], dtype)
        self.steepness = _buffer(1.0 / np.maximum(np.diff(isotonic.x, axis=1), 1e-30), dtype)
        self.rise = _buffer(np.diff(isotonic.y, axis=1), dtype)

    def forward(self, p: Tensor) -> Tensor:
        share = ((p[:, :, None] - self.left) * self.steepness).clamp(0.0, 1.0)
        steps = self.base + (self.rise * share).sum(dim=2)
        mixed = (1.0 - self.doubt) * steps + self.doubt * p
        if self.normalise:
            mixed = mixed / mixed.sum(dim=1, keepdim=True)
        return (1.0 - self.doubt) * mixed + self.doubt / (p.shape[1] if self.normalise else 2)


def _unit(rows: Tensor) -> Tensor:
    """Divide rows by their length; a row of zeros stays zero."""
    lengths = (rows * rows).sum(dim=1, keepdim=True).sqrt()
    return rows / torch.where(lengths > 0, lengths, torch.ones_like(lengths))


def _buffer(array: np.ndarray, dtype: torch.dtype) -> nn.Buffer:
    return nn.Buffer(torch.from_numpy(np.array(array)).to(dtype).contiguous())
