"""Linear support vector regression by an interior point method: its end, and its bound."""

from __future__ import annotations

import numpy as np
import pytest

from featx.heads.solver.interior_point import EPSILON, MAX_STEPS, fit_regression


@pytest.mark.parametrize("C", [1e-6, 1.0, 1e3, 1e8])
@pytest.mark.parametrize("kind", ["linear", "noise", "outliers", "constant", "copies", "two values"])
@pytest.mark.parametrize(("n", "dim"), [(60, 5), (40, 40), (200, 20), (3, 1)])
def test_every_fit_ends_at_its_optimum(n: int, dim: int, kind: str, C: float) -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(n, dim))
    y = Z @ rng.normal(size=dim) + 0.3 * rng.normal(size=n)
    if kind == "noise":
        y = rng.normal(size=n)
    elif kind == "outliers":
        y[::20] += 50
    elif kind == "constant":
        y = np.zeros(n)
    elif kind == "copies":
        Z[:] = Z[:1]
    elif kind == "two values":
        y = np.where(np.arange(n) % 2, 1.0, -1.0)
    y = (y - y.mean()) / (y.std() or 1.0)
    fitted = fit_regression(Z, y, np.full(n, C))
    assert fitted.gap < 1e-7
    assert fitted.steps < MAX_STEPS
    assert np.isfinite(fitted.weight).all()
    if kind == "constant":
        assert not fitted.weight.any()
        assert abs(fitted.bias) <= EPSILON
