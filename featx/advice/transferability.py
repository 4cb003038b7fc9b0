"""How well features fit labels, without a head: LogME and the H-score. Hints; the cross-validated head is the judge.

LogME correlates with the accuracy after fine-tuning by 0.27 to 0.82, depending on the data set (You et al., 2021).
"""

from __future__ import annotations

import math

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

_ROUNDS, _CONVERGED = 200, 1e-10


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """The log of the maximum evidence that Bayesian linear regression gives the labels, per image (You et al., 2021, ICML).

    For each class, of targets 1 and 0: the weights are drawn from N(0, 1 / alpha), the targets from N(F w, 1 / beta), and
    alpha and beta are those of the greatest evidence. They are found by MacKay's fixed point in the axes of F's singular
    vectors, for all classes at once, to convergence. The mean over the classes.

    Args:
        features: (N, D), as they are: not standardised.
        labels: (N,) int64.

    Returns:
        In nats; the higher the better. Infinite where a class is fitted without error.
    """
    F = np.asarray(features, dtype=np.float64)
    Y = (labels[:, None] == np.unique(labels)).astype(np.float64)
    count, width = F.shape
    if count >= width:  # the axes of the smaller Gram matrix: all that is wanted of F's singular value decomposition
        values, axes = np.linalg.eigh(F.T @ F)
        known = values > np.finfo(np.float64).eps * max(F.shape) * max(values[-1], 1e-300)
        squares = values[known]
        Z = (axes[:, known].T @ (F.T @ Y)) / np.sqrt(squares)[:, None]
    else:
        values, axes = np.linalg.eigh(F @ F.T)
        known = values > np.finfo(np.float64).eps * max(F.shape) * max(values[-1], 1e-300)
        squares = values[known]
        Z = axes[:, known].T @ Y
    outside = np.maximum((Y**2).sum(axis=0) - (Z**2).sum(axis=0), 0.0)  # of the targets, what no weights explain
    alpha, beta = np.ones(Y.shape[1]), np.ones(Y.shape[1])
    evidence = np.full(Y.shape[1], -np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_ROUNDS):
            A = alpha + beta * squares[:, None]
            length = ((beta * np.sqrt(squares)[:, None] * Z / A) ** 2).sum(axis=0)
            error = outside + ((alpha * Z / A) ** 2).sum(axis=0)
            before, evidence = evidence, 0.5 * (
                width * np.log(alpha) + count * np.log(beta / (2 * math.pi)) - beta * error - alpha * length
                - np.log(A).sum(axis=0) - (width - len(squares)) * np.log(alpha)
            )  # fmt: skip
            if np.all(np.abs(evidence - before) <= _CONVERGED * np.abs(evidence)):
                break
            gamma = (beta * squares[:, None] / A).sum(axis=0)
            alpha, beta = gamma / length, (count - gamma) / error
    return float(np.where(np.isnan(evidence), np.inf, evidence).mean() / count)


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """The share of the features' variance that lies between the classes, in units of the whole: tr(cov(f)^-1 cov(E[f | y])).

    Of Bao et al. (2019, ICIP), with the covariance shrunk by Ledoit and Wolf's estimate, without which it means nothing where
    there are not many more images than features (Ibrahim et al., 2022, "Newer is not always better").

    Args:
        features: (N, D).
        labels: (N,) int64.

    Returns:
        From 0 to the number of classes less one; the higher the better.
    """
    F = np.asarray(features, dtype=np.float64)
    F = F - F.mean(axis=0)
    count, width = F.shape
    names, of_class, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), width))
    np.add.at(sums, of_class, F)
    B = sums / np.sqrt(sizes[:, None] * count)  # B.T B is the covariance of the class means
    shrinkage = float(ledoit_wolf_shrinkage(F, assume_centered=True))
    variance = float((F**2).sum() / (count * width))
    if not variance:
        return 0.0
    a, b = shrinkage * variance, (1 - shrinkage) / count  # the shrunk covariance is a I + b F.T F
    if not a:
        return float(np.trace(np.linalg.pinv(b * F.T @ F, hermitian=True) @ B.T @ B))
    if width <= count:
        inside = np.linalg.solve(a * np.eye(width) + b * F.T @ F, B.T)
    else:  # Woodbury: a system of as many equations as there are images
        inside = (B.T - F.T @ np.linalg.solve(np.eye(count) * (a / b) + F @ F.T, F @ B.T)) / a
    return float((1 - shrinkage) * (B * inside.T).sum())
