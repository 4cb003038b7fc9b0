"""Rows that are multiplied by: the same products whether in memory, from a file, block by block, or in other axes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featx.heads.solver import matrices
from featx.heads.solver.matrices import Dense, Matrix, Rotated, Streamed, Turned, side_by_side
from featx.heads.training_data import Rows, statistics

EACH_DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
EACH_PRECISION = pytest.mark.parametrize("exact", [True, False], ids=["float64", "float32"])
N, D = 570, 6


def features(n: int = N, dim: int = D, dtype: type = np.float16) -> Rows:
    """Standardised features."""
    X = (np.random.default_rng(0).normal(size=(n, dim)) * np.arange(1, dim + 1) + 2).astype(dtype)
    mean, scale = statistics(X)
    return Rows(X, mean=mean, scale=scale)


def times(matrix: Matrix, V: np.ndarray) -> np.ndarray:
    """(M, D) by all rows: (M, N)."""
    out = np.full((len(V), len(matrix)), np.nan, matrix.dtype)

    def keep(rows: slice, M: np.ndarray | None) -> np.ndarray:
        assert M is not None
        out[:, rows] = M
        return M

    matrix.sweep([(slice(0, len(matrix)), V)], keep)
    return out


def gathered(matrix: Matrix, R: np.ndarray, *, squared: bool = False) -> np.ndarray:
    """(M, N) of all rows: (M, D)."""
    (out,) = matrix.sweep([(slice(0, len(matrix)), None)], lambda rows, _: R[:, rows], squared=squared)
    return out


@pytest.mark.parametrize("most", [1 << 20, 1])
@pytest.mark.parametrize("stored", [np.float32, np.float64])
@pytest.mark.parametrize("computed", [None, np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 3, 100])
def test_a_dense_matrix_multiplies_as_numpy_does(
    most: int, stored: type, computed: type | None, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dense, "most", most)
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(N, 5)).astype(stored)
    matrix = Dense(Z, computed)
    assert len(matrix) == N
    assert matrix.dtype == (computed or stored)
    V, R = rng.normal(size=(columns, 5)).astype(matrix.dtype), rng.normal(size=(columns, N)).astype(matrix.dtype)
    exact = Z.astype(np.float64)
    tolerance = 1e-12 if matrix.dtype == stored == np.float64 else 1e-4
    for found, expected in (
        (times(matrix, V), V @ exact.T),
        (gathered(matrix, R), R @ exact),
        (gathered(matrix, R, squared=True), R @ exact**2),
    ):
        assert found.dtype == matrix.dtype
        assert found.flags.c_contiguous
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@EACH_DTYPE
@pytest.mark.parametrize("most", [1 << 20, 1])
def test_each_span_has_scores_and_a_sum_of_its_own(dtype: type, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "most", most)
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(N, D)).astype(dtype)
    V = [rng.normal(size=(2, D)).astype(dtype), rng.normal(size=(70, D)).astype(dtype), np.zeros((0, D), dtype)]
    spans = [(slice(10, 200), V[0]), (slice(200, 201), V[1]), (slice(201, N), V[2]), (slice(0, 10), None)]
    seen = np.zeros(N, dtype=int)

    def work(rows: slice, M: np.ndarray | None) -> np.ndarray:
        seen[rows] += 1
        return np.ones((4, rows.stop - rows.start), dtype) if M is None else M * 2

    found = Dense(Z).sweep(spans, work)
    assert (seen == 1).all()
    for (rows, weights), out in zip(spans[:3], found, strict=False):
        assert weights is not None
        np.testing.assert_allclose(out, 2 * weights @ Z[rows].T @ Z[rows], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[3], np.tile(Z[:10].sum(axis=0), (4, 1)), rtol=1e-4, atol=1e-5)


@EACH_DTYPE
def test_a_sweep_in_many_blocks_repeats_bit_for_bit(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "most", 1)
    rng = np.random.default_rng(0)
    matrix, R = Dense(rng.normal(size=(5000, D)).astype(dtype)), rng.normal(size=(3, 5000)).astype(dtype)
    first = gathered(matrix, R)
    for _ in range(5):
        np.testing.assert_array_equal(gathered(matrix, R), first)


def test_what_goes_wrong_in_a_block_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "most", 1)

    def work(rows: slice, _: np.ndarray | None) -> np.ndarray:
        if rows.start <= 300 < rows.stop:
            raise ValueError("row 300")
        return np.ones((1, rows.stop - rows.start))

    with pytest.raises(ValueError, match="row 300"):
        Dense(np.ones((N, D))).sweep([(slice(0, N), None)], work)


def test_parts_side_by_side_come_back_in_order() -> None:
    assert side_by_side(lambda part: part**2, range(50)) == [part**2 for part in range(50)]
    assert side_by_side(str, [7]) == ["7"]
    assert side_by_side(str, []) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_of_a_process_that_has_multiplied_multiplies_too() -> None:
    script = (
        "import os\nfrom featx.heads.solver.matrices import side_by_side\n"
        "assert side_by_side(abs, range(50)) == list(range(50))\nchild = os.fork()\n"
        "if not child:\n    os._exit(7 if side_by_side(abs, range(50)) == list(range(50)) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7\n"


@EACH_DTYPE
def test_a_matrix_read_from_its_file_multiplies_as_in_memory(
    dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Streamed, "most", 1)
    rows = features()
    dense = Dense(rows.whole(dtype))
    rows.features.tofile(tmp_path / "features")
    rows.features = np.memmap(tmp_path / "features", np.float16, "r", shape=(N, D))
    streamed = Streamed(rows, dtype)
    rng = np.random.default_rng(0)
    V, R = rng.normal(size=(3, D)).astype(dtype), rng.normal(size=(3, N)).astype(dtype)
    assert len(streamed) == N
    for found, expected in (
        (times(streamed, V), times(dense, V)),
        (gathered(streamed, R), gathered(dense, R)),
        (gathered(streamed, R, squared=True), gathered(dense, R, squared=True)),
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 1e-12)


@EACH_DTYPE
def test_a_turned_matrix_multiplies_in_the_axes_of_its_share(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "_BLOCK", 1)
    rows, drawn = features(), np.arange(0, N, 3)
    matrix, share = Dense(rows.whole(dtype)), Rotated.of(rows.take(drawn))
    turned, axes = Turned(matrix, share, drawn), rows.whole(np.float64) @ share.basis.T
    rng = np.random.default_rng(0)
    V, R = rng.normal(size=(3, D)).astype(dtype), rng.uniform(0.5, 1, size=(3, N)).astype(dtype)
    assert len(turned) == N
    np.testing.assert_allclose(times(turned, V), V @ axes.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gathered(turned, R), R @ axes, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(gathered(turned, R, squared=True), R @ axes**2, rtol=0.4)
    expected = 3 * R[:, drawn] @ axes[drawn] ** 2
    np.testing.assert_allclose(gathered(turned, R, squared=True), expected, rtol=1e-4)


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
def test_rotated_rows_keep_their_inner_products(shape: str, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    found, Z = rotated(SHAPES[shape](np.random.default_rng(0)))
    N, D = Z.shape
    size = max(float(np.abs(Z).max()), 1.0) ** 2 * D
    tolerance = (1e-12 if exact else 1e-6) * size
    assert found.coordinates.dtype == (np.float64 if exact else np.float32)
    assert found.coordinates.shape[1] <= min(N, D)
    coordinates = found.coordinates.astype(np.float64)
    np.testing.assert_allclose(coordinates @ coordinates.T, Z @ Z.T, atol=tolerance)
    if found.basis is not None and found.basis.size:
        basis = found.basis.astype(np.float64)
        np.testing.assert_allclose(coordinates @ basis, Z, atol=np.sqrt(size) * (1e-8 if exact else 1e-5))
        gram = coordinates.T @ coordinates
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0.0, atol=N * tolerance)
    w = np.random.default_rng(1).normal(size=(2, 3, found.coordinates.shape[1]))
    back = found.back(w.astype(found.coordinates.dtype))
    assert back.shape == (2, 3, D)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back @ Z.T, w @ coordinates.T, atol=np.sqrt(size) * (1e-8 if exact else 1e-4))
    np.testing.assert_allclose(np.linalg.norm(back, axis=-1), np.linalg.norm(w, axis=-1), rtol=1e-6 if exact else 1e-4)
    np.testing.assert_allclose(found.turn(back), w, atol=1e-8 if exact else 1e-4)


def test_rotating_changes_no_features() -> None:
    for rows in (features(), features(5, 40, np.float32), features(dtype=np.float64)):
        before = rows.features.copy()
        Rotated.of(rows)
        np.testing.assert_array_equal(rows.features, before)
