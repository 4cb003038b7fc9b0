"""The matrices of the solver: the same products in memory, from a file, block by block and in rotated columns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from estimator_fits import draw

from featx.heads.solver import matrices
from featx.heads.solver.matrices import DenseMatrix, Matrix, Rotated, RotatedMatrix, StreamedMatrix, parallel_map
from featx.heads.training_data import Rows, statistics

EACH_DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
EACH_PRECISION = pytest.mark.parametrize("exact", [True, False], ids=["float64", "float32"])
N, D = 570, 6


def features(n: int = N, dim: int = D, dtype: type = np.float16) -> Rows:
    """Standardised features."""
    X = (np.random.default_rng(0).normal(size=(n, dim)) * np.arange(1, dim + 1) + 2).astype(dtype)
    mean, scale = statistics(X)
    return Rows(X, mean=mean, scale=scale)


def multiply(matrix: Matrix, V: np.ndarray) -> np.ndarray:
    """Multiply (M, D) weights by all rows: (M, N)."""
    out = np.full((len(V), len(matrix)), np.nan, matrix.dtype)

    def record(rows: slice, M: np.ndarray | None) -> np.ndarray:
        assert M is not None
        out[:, rows] = M
        return M

    matrix.sweep([(slice(0, len(matrix)), V)], record)
    return out


def weighted_sum(matrix: Matrix, R: np.ndarray, *, squared: bool = False) -> np.ndarray:
    """Sum all rows with (M, N) factors: (M, D)."""
    (out,) = matrix.sweep([(slice(0, len(matrix)), None)], lambda rows, _: R[:, rows], squared=squared)
    return out


@pytest.mark.parametrize("most", [1 << 20, 1])
@pytest.mark.parametrize("stored", [np.float32, np.float64])
@pytest.mark.parametrize("computed", [None, np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 3, 100])
def test_a_dense_matrix_has_the_products_of_numpy(
    most: int, stored: type, computed: type | None, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DenseMatrix, "most", most)
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(N, 5)).astype(stored)
    matrix = DenseMatrix(Z, computed)
    assert len(matrix) == N
    assert matrix.dtype == (computed or stored)
    V, R = rng.normal(size=(columns, 5)).astype(matrix.dtype), rng.normal(size=(columns, N)).astype(matrix.dtype)
    exact = Z.astype(np.float64)
    tolerance = 1e-12 if matrix.dtype == stored == np.float64 else 1e-4
    for actual, expected in (
        (multiply(matrix, V), V @ exact.T),
        (weighted_sum(matrix, R), R @ exact),
        (weighted_sum(matrix, R, squared=True), R @ exact**2),
    ):
        assert actual.dtype == matrix.dtype
        assert actual.flags.c_contiguous
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@EACH_DTYPE
@pytest.mark.parametrize("most", [1 << 20, 1])
def test_each_span_has_its_own_scores_and_sum(dtype: type, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DenseMatrix, "most", most)
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(N, D)).astype(dtype)
    V = [rng.normal(size=(2, D)).astype(dtype), rng.normal(size=(70, D)).astype(dtype), np.zeros((0, D), dtype)]
    spans = [(slice(10, 200), V[0]), (slice(200, 201), V[1]), (slice(201, N), V[2]), (slice(0, 10), None)]
    visits = np.zeros(N, dtype=int)

    def process(rows: slice, M: np.ndarray | None) -> np.ndarray:
        visits[rows] += 1
        return np.ones((4, rows.stop - rows.start), dtype) if M is None else M * 2

    actual = DenseMatrix(Z).sweep(spans, process)
    assert (visits == 1).all()
    for (rows, weights), out in zip(spans[:3], actual, strict=False):
        assert weights is not None
        np.testing.assert_allclose(out, 2 * weights @ Z[rows].T @ Z[rows], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(actual[3], np.tile(Z[:10].sum(axis=0), (4, 1)), rtol=1e-4, atol=1e-5)


@EACH_DTYPE
def test_a_sweep_in_many_blocks_repeats_bit_for_bit(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DenseMatrix, "most", 1)
    rng = np.random.default_rng(0)
    matrix, R = DenseMatrix(rng.normal(size=(5000, D)).astype(dtype)), rng.normal(size=(3, 5000)).astype(dtype)
    first = weighted_sum(matrix, R)
    for _ in range(5):
        np.testing.assert_array_equal(weighted_sum(matrix, R), first)


def test_an_error_in_a_block_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DenseMatrix, "most", 1)

    def process(rows: slice, _: np.ndarray | None) -> np.ndarray:
        if rows.start <= 300 < rows.stop:
            raise ValueError("row 300")
        return np.ones((1, rows.stop - rows.start))

    with pytest.raises(ValueError, match="row 300"):
        DenseMatrix(np.ones((N, D))).sweep([(slice(0, N), None)], process)


def test_a_parallel_map_returns_its_results_in_order() -> None:
    assert parallel_map(lambda part: part**2, range(50)) == [part**2 for part in range(50)]
    assert parallel_map(str, [7]) == ["7"]
    assert parallel_map(str, []) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_parallel_map_works_in_a_fork_of_a_process_that_has_used_it() -> None:
    script = (
        "import os\nfrom featx.heads.solver.matrices import parallel_map\n"
        "assert parallel_map(abs, range(50)) == list(range(50))\nchild = os.fork()\n"
        "if not child:\n    os._exit(7 if parallel_map(abs, range(50)) == list(range(50)) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7\n"


@EACH_DTYPE
def test_a_streamed_matrix_has_the_products_of_a_matrix_in_memory(
    dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamedMatrix, "most", 1)
    rows = features()
    dense = DenseMatrix(rows.whole(dtype))
    rows.features.tofile(tmp_path / "features")
    rows.features = np.memmap(tmp_path / "features", np.float16, "r", shape=(N, D))
    streamed = StreamedMatrix(rows, dtype)
    rng = np.random.default_rng(0)
    V, R = rng.normal(size=(3, D)).astype(dtype), rng.normal(size=(3, N)).astype(dtype)
    assert len(streamed) == N
    for actual, expected in (
        (multiply(streamed, V), multiply(dense, V)),
        (weighted_sum(streamed, R), weighted_sum(dense, R)),
        (weighted_sum(streamed, R, squared=True), weighted_sum(dense, R, squared=True)),
    ):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 1e-12)


@EACH_DTYPE
def test_a_rotated_matrix_multiplies_in_the_axes_of_its_sample(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "_BLOCK", 1)
    rows, drawn = features(), np.arange(0, N, 3)
    matrix, sample = DenseMatrix(rows.whole(dtype)), Rotated.of(rows.take(drawn))
    rotated_matrix, axes = RotatedMatrix(matrix, sample, drawn), rows.whole(np.float64) @ sample.basis.T
    rng = np.random.default_rng(0)
    V, R = rng.normal(size=(3, D)).astype(dtype), rng.uniform(0.5, 1, size=(3, N)).astype(dtype)
    assert len(rotated_matrix) == N
    np.testing.assert_allclose(multiply(rotated_matrix, V), V @ axes.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(weighted_sum(rotated_matrix, R), R @ axes, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(weighted_sum(rotated_matrix, R, squared=True), R @ axes**2, rtol=0.4)
    expected = 3 * R[:, drawn] @ axes[drawn] ** 2
    np.testing.assert_allclose(weighted_sum(rotated_matrix, R, squared=True), expected, rtol=1e-4)


def rotated(X: np.ndarray) -> tuple[Rotated, np.ndarray]:
    some = Rows(X.astype(np.float64))
    return Rotated.of(some), some.whole(np.float64)


SHAPES = {
    "tall": lambda rng: rng.normal(size=(50, 8)),
    "wide": lambda rng: rng.normal(size=(8, 50)),
    "square": lambda rng: rng.normal(size=(12, 12)),
    "of rank 3": lambda rng: rng.normal(size=(40, 3)) @ rng.normal(size=(3, 15)),
    "wide, of rank 3": lambda rng: rng.normal(size=(15, 3)) @ rng.normal(size=(3, 40)),
    "with every row twice": lambda rng: np.repeat(rng.normal(size=(10, 40)), 2, axis=0),
    "with rows of zeros": lambda rng: np.concatenate([rng.normal(size=(6, 20)), np.zeros((6, 20))]),
    "with columns of zeros": lambda rng: np.concatenate([rng.normal(size=(20, 6)), np.zeros((20, 6))], axis=1),
    "of one row": lambda rng: rng.normal(size=(1, 5)),
    "of one column": lambda rng: rng.normal(size=(9, 1)),
    "of zeros": lambda rng: np.zeros((4, 9)),
    "of zeros, tall": lambda rng: np.zeros((9, 4)),
    "of very different columns": lambda rng: rng.normal(size=(30, 8)) * np.logspace(-4, 2, 8),
}


@pytest.mark.parametrize("shape", SHAPES)
@EACH_PRECISION
def test_a_rotation_preserves_inner_products(shape: str, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    actual, Z = rotated(SHAPES[shape](np.random.default_rng(0)))
    N, D = Z.shape
    size = max(float(np.abs(Z).max()), 1.0) ** 2 * D
    tolerance = (1e-12 if exact else 1e-6) * size
    assert actual.coordinates.dtype == (np.float64 if exact else np.float32)
    assert actual.coordinates.shape[1] <= min(N, D)
    coordinates = actual.coordinates.astype(np.float64)
    np.testing.assert_allclose(coordinates @ coordinates.T, Z @ Z.T, atol=tolerance)
    if actual.basis is not None and actual.basis.size:
        basis = actual.basis.astype(np.float64)
        np.testing.assert_allclose(coordinates @ basis, Z, atol=np.sqrt(size) * (1e-8 if exact else 1e-5))
        gram = coordinates.T @ coordinates
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0.0, atol=N * tolerance)
    w = np.random.default_rng(1).normal(size=(2, 3, actual.coordinates.shape[1]))
    weight = actual.unrotate(w.astype(actual.coordinates.dtype))
    assert weight.shape == (2, 3, D)
    assert weight.dtype == np.float64
    np.testing.assert_allclose(weight @ Z.T, w @ coordinates.T, atol=np.sqrt(size) * (1e-8 if exact else 1e-4))
    np.testing.assert_allclose(
        np.linalg.norm(weight, axis=-1), np.linalg.norm(w, axis=-1), rtol=1e-6 if exact else 1e-4
    )
    np.testing.assert_allclose(actual.rotate(weight), w, atol=1e-8 if exact else 1e-4)


def test_a_rotation_leaves_the_features_unchanged() -> None:
    for rows in (features(), features(5, 40, np.float32), features(dtype=np.float64)):
        before = rows.features.copy()
        Rotated.of(rows)
        np.testing.assert_array_equal(rows.features, before)


def test_a_rotation_reproduces_the_rows_and_has_no_more_axes_than_either_side() -> None:
    Z, _, _ = draw(30, 60, 2)
    for some in (Z, Z[:, :30], Z[:, :7], np.column_stack([Z[:, :7], Z[:, :7]])):
        rotated = Rotated.of(Rows(some))
        assert rotated.coordinates.shape[1] <= min(some.shape)
        np.testing.assert_allclose(rotated.coordinates @ rotated.basis, some, atol=1e-12)
        np.testing.assert_allclose(rotated.basis @ rotated.basis.T, np.eye(len(rotated.basis)), atol=1e-10)
