"""Products on a device of torch: the processor's, and a GPU's where there is one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from featx.heads.estimators.linear import PenalisedModel
from featx.heads.solver import matrices
from featx.heads.solver.matrices import Dense
from featx.heads.solver.on_device import OnDevice
from featx.heads.training_data import Rows, TrainingData

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
EACH_DEVICE = pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=GPU)])


@EACH_DEVICE
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("squared", [False, True])
def test_a_sweep_on_a_device_is_the_processor_s(
    device: str, dtype: type, squared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnDevice, "_SCORES", 100)
    monkeypatch.setattr(OnDevice, "_ROWS", 7)
    rng = np.random.default_rng(0)
    Z, R = rng.normal(size=(100, 5)).astype(dtype), rng.normal(size=(3, 100)).astype(dtype)
    V = [rng.normal(size=(4, 5)).astype(dtype), None, rng.normal(size=(1, 5)).astype(dtype)]
    spans = [(slice(0, 40), V[0]), (slice(40, 90), None), (slice(90, 100), V[2])]

    def work(rows: slice, M: np.ndarray | None) -> np.ndarray:
        return R[:, rows] if M is None else np.tanh(M)

    one, other = OnDevice(Z, device), Dense(Z)
    assert len(one) == 100
    assert one.dtype == dtype
    for found, expected in zip(
        one.sweep(spans, work, squared=squared), other.sweep(spans, work, squared=squared), strict=True
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 1e-12)


def training() -> TrainingData:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 900)
    X = (rng.normal(size=(900, 20)) + 0.7 * rng.normal(size=(4, 20))[y]).astype(np.float32)
    folds = tuple(StratifiedKFold(3).split(X, y))
    return TrainingData(Rows(X), y, 4, "classification", np.ones(900), folds)


@EACH_DEVICE
@pytest.mark.parametrize("hinge", [False, True])
def test_a_path_on_a_device_has_the_processor_s_scores_and_optimum(
    device: str, hinge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "_SMALL", 0)
    some, Cs = training(), (1e-3, 1e-2, 0.1)
    here, there = PenalisedModel(hinge=hinge), PenalisedModel(hinge=hinge, device=device)
    for (_, expected), (_, found) in zip(
        here.cross_val_scores(some, Cs), there.cross_val_scores(some, Cs), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-2)
    assert isinstance(there._matrix, OnDevice)
    expected, found = here.fit(some, 0.01), there.fit(some, 0.01)
    np.testing.assert_allclose(found.weight, expected.weight, atol=1e-4)
    np.testing.assert_allclose(found.bias, expected.bias, atol=1e-4)
    assert there.solution_.gap[0] <= 1e-6


def test_rows_so_few_that_float64_costs_nothing_stay_here() -> None:
    model = PenalisedModel(device="cpu:0")
    model.fit(dataclasses.replace(training(), folds=()), 0.1)
    assert isinstance(model._matrix, Dense)
