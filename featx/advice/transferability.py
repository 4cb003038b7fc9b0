"""Transferability estimates: how well features fit labels, without fitting a head. LogME and the H-score.

They are hints only; the cross-validated head is what counts. LogME correlates with the accuracy after fine-tuning by 0.27 to
0.82, depending on the data set (You et al., 2021).
"""

from __future__ import annotations

import math

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

_MAX_ITERATIONS, _TOLERANCE = 200, 1e-10


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Compute LogME, the log of the maximum evidence of Bayesian linear regression, per image (You et al., 2021, ICML).

    There is one regression for each class, with targets 1 and 0. The weights w have the prior N(0, 1 / alpha), the targets the
    distribution N(F w, 1 / beta), and alpha and beta are those of the greatest evidence. They are found with MacKay's fixed
    point iteration in the axes of F's singular vectors, for all classes at once. The result is the mean over the classes.

    Args:
        features: (N, D) features F, not standardised.
        labels: (N,) int64.

    Returns:
        The evidence in nats, the higher the better; infinite if a class is fitted without error.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(60) % 3
        >>> noise = rng.normal(size=(60, 5))
        >>> logme(noise + 2 * np.eye(3, 5)[labels], labels) > logme(noise, labels)
        True
    """
    F = np.asarray(features, dtype=np.float64)
    Y = (labels[:, None] == np.unique(labels)).astype(np.float64)
    count, width = F.shape
    squares, Z = _in_singular_axes(F, Y)
    unexplained = np.maximum((Y**2).sum(axis=0) - (Z**2).sum(axis=0), 0.0)  # what no weights can fit
    alpha, beta = np.ones(Y.shape[1]), np.ones(Y.shape[1])
    evidence = np.full(Y.shape[1], -np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_MAX_ITERATIONS):
            A = alpha + beta * squares[:, None]
            norm = ((beta * np.sqrt(squares)[:, None] * Z / A) ** 2).sum(axis=0)  # |w|^2
            error = unexplained + ((alpha * Z / A) ** 2).sum(axis=0)  # |y - F w|^2
            before, evidence = evidence, 0.5 * (
                width * np.log(alpha) + count * np.log(beta / (2 * math.pi)) - beta * error - alpha * norm
                - np.log(A).sum(axis=0) - (width - len(squares)) * np.log(alpha)
            )  # fmt: skip
            if np.all(np.abs(evidence - before) <= _TOLERANCE * np.abs(evidence)):
                break
            gamma = (beta * squares[:, None] / A).sum(axis=0)
            alpha, beta = gamma / norm, (count - gamma) / error
    return float(np.where(np.isnan(evidence), np.inf, evidence).mean() / count)


def _in_singular_axes(F: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project targets onto the left singular vectors of F.

    The eigenvectors of the smaller Gram matrix suffice; a full singular value decomposition is not needed.

    Args:
        F: (N, D) features.
        Y: (N, C) targets.

    Returns:
        (R,) squared singular values above the rounding error, and the (R, C) projections.
    """
    wide = F.shape[0] < F.shape[1]
    values, axes = np.linalg.eigh(F @ F.T if wide else F.T @ F)
    positive = values > np.finfo(np.float64).eps * max(F.shape) * max(values[-1], 1e-300)
    squares = values[positive]
    Z = axes[:, positive].T @ Y if wide else (axes[:, positive].T @ (F.T @ Y)) / np.sqrt(squares)[:, None]
    return squares, Z


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """Compute the H-score, tr(cov(f)^-1 cov(E[f | y])): the variance between the classes relative to the whole variance.

    From Bao et al. (2019, ICIP), with the covariance shrunk by the Ledoit-Wolf estimate; without it the score is meaningless
    unless there are many more images than features (Ibrahim et al., 2022, "Newer is not always better").

    Args:
        features: (N, D).
        labels: (N,) int64.

    Returns:
        A number from 0 to the number of classes minus one; the higher the better.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(60) % 3
        >>> noise = rng.normal(size=(60, 5))
        >>> h_score(noise + 2 * np.eye(3, 5)[labels], labels) > h_score(noise, labels)
        True
    """
    F = np.asarray(features, dtype=np.float64)
    F = F - F.mean(axis=0)
    count, width = F.shape
    classes, class_of_row, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(classes), width))
    np.add.at(sums, class_of_row, F)
    B = sums / np.sqrt(sizes[:, None] * count)  # B.T B is the covariance of the class means
    shrinkage = float(ledoit_wolf_shrinkage(F, assume_centered=True))
    variance = float((F**2).sum() / (count * width))
    if not variance:
        return 0.0
    a, b = shrinkage * variance, (1 - shrinkage) / count  # the shrunk covariance is a I + b F.T F
    if not a:
        return float(np.trace(np.linalg.pinv(b * F.T @ F, hermitian=True) @ B.T @ B))
    if width <= count:
        solved = np.linalg.solve(a * np.eye(width) + b * F.T @ F, B.T)
    else:  # Woodbury: a system of N equations instead of D
        solved = (B.T - F.T @ np.linalg.solve(np.eye(count) * (a / b) + F @ F.T, F @ B.T)) / a
    return float((1 - shrinkage) * (B * solved.T).sum())
