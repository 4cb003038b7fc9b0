"""Products on a torch device: on the processor, and on a GPU where there is one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from featx.heads.estimators.linear import LinearPathEstimator
from featx.heads.solver import matrices
from featx.heads.solver.matrices import DenseMatrix
from featx.heads.solver.on_device import DeviceMatrix
from featx.heads.training_data import Rows, TrainingData

EACH_DEVICE = pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=pytest.mark.cuda)])


@EACH_DEVICE
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("squared", [False, True])
def test_a_sweep_on_a_device_has_the_sums_of_numpy(
    device: str, dtype: type, squared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceMatrix, "_SCORES", 100)
    monkeypatch.setattr(DeviceMatrix, "_ROWS", 7)
    rng = np.random.default_rng(0)
    Z, R = rng.normal(size=(100, 5)).astype(dtype), rng.normal(size=(3, 100)).astype(dtype)
    V = [rng.normal(size=(4, 5)).astype(dtype), None, rng.normal(size=(1, 5)).astype(dtype)]
    spans = [(slice(0, 40), V[0]), (slice(40, 90), None), (slice(90, 100), V[2])]

    def process(rows: slice, M: np.ndarray | None) -> np.ndarray:
        return R[:, rows] if M is None else np.tanh(M)

    one, other = DeviceMatrix(Z, device), DenseMatrix(Z)
    assert len(one) == 100
    assert one.dtype == dtype
    for actual, expected in zip(
        one.sweep(spans, process, squared=squared), other.sweep(spans, process, squared=squared), strict=True
    ):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 1e-12)


def training() -> TrainingData:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 900)
    X = (rng.normal(size=(900, 20)) + 0.7 * rng.normal(size=(4, 20))[y]).astype(np.float32)
    folds = tuple(StratifiedKFold(3).split(X, y))
    return TrainingData(Rows(X), y, 4, "classification", np.ones(900), folds)


@EACH_DEVICE
@pytest.mark.parametrize("hinge", [False, True])
def test_a_path_on_a_device_has_the_scores_and_the_optimum_of_the_processor(
    device: str, hinge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "_SMALL", 0)
    some, Cs = training(), (1e-3, 1e-2, 0.1)
    here, there = LinearPathEstimator(hinge=hinge), LinearPathEstimator(hinge=hinge, device=device)
    for (_, expected), (_, actual) in zip(
        here.cross_val_scores(some, Cs), there.cross_val_scores(some, Cs), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=2e-2)
    assert isinstance(there._matrix, DeviceMatrix)
    expected, actual = here.fit(some, 0.01), there.fit(some, 0.01)
    np.testing.assert_allclose(actual.weight, expected.weight, atol=1e-4)
    np.testing.assert_allclose(actual.bias, expected.bias, atol=1e-4)
    assert there.solution_.gap[0] <= 1e-6


def test_a_small_matrix_stays_on_the_processor_in_float64() -> None:
    model = LinearPathEstimator(device="cpu:0")
    model.fit(dataclasses.replace(training(), folds=()), 0.1)
    assert isinstance(model._matrix, DenseMatrix)
