"""scikit-learn's digits as features: the only images at hand that need no file."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

import featx


def digit_features(seed: int = 0) -> featx.FeatureSet:
    """1,797 rows of 64 pixels in an order drawn by the seed, with names of classes."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    return featx.FeatureSet.from_arrays(X[order].astype(np.float32), [f"digit {n}" for n in y[order]])


def regression_features() -> featx.FeatureSet:
    """The same rows, to predict a number from."""
    X, y = load_digits(return_X_y=True)
    return featx.FeatureSet.from_arrays(X.astype(np.float32), y + X.mean(axis=1) / 7)
