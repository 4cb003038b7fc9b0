"""Exact nearest rows by cosine: in memory, block by block, and by FAISS."""

from __future__ import annotations

import numpy as np
import pytest

from featx.heads import training_data
from featx.heads.training_data import Rows
from featx.retrieval import cosine_index, faiss_index
from featx.retrieval.cosine_index import CosineIndex


def rows_with_copies() -> np.ndarray:
    """(600, 8) rows, every third of which is a copy, so that there are many ties; one is zero."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 8)).astype(np.float32)
    X[::3] = X[rng.integers(0, 20, 200) * 3 + 1]
    X[7] = 0
    return X


def expected(X: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """By sorting all cosines, ties by the row."""

    def unit(Z: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(Z, axis=1, keepdims=True)
        return Z / np.where(length > 0, length, 1)

    cosines = (unit(queries.astype(np.float64)) @ unit(X.astype(np.float64)).T).round(6)
    return np.array([np.lexsort((np.arange(len(X)), -row))[:k] for row in cosines])


def is_same(X: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether the rows found are the wanted ones, apart from the order of copies, which rounding may decide."""
    return all(sorted(map(bytes, X[a])) == sorted(map(bytes, X[b])) for a, b in zip(found, wanted, strict=True))


def test_an_index_in_memory_and_one_in_blocks_find_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    X, queries = rows_with_copies(), np.random.default_rng(1).normal(size=(9, 8))
    in_memory = CosineIndex(Rows(X)).search(queries, 25)
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 100)
    monkeypatch.setattr(Rows.blocks, "__kwdefaults__", {"most": 32 * 64})
    in_blocks = CosineIndex(Rows(X)).search(queries, 25)
    np.testing.assert_allclose(in_memory[1], in_blocks[1], atol=1e-6)
    for found in (in_memory[0], in_blocks[0]):
        assert is_same(X, found, expected(X, queries, 25))


def test_all_rows_are_found_where_as_many_are_wanted() -> None:
    X = rows_with_copies()[:12]
    found, cosines = CosineIndex(Rows(X)).search(X[:2], 12)
    assert np.sort(found, axis=1).tolist() == [list(range(12))] * 2
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_faiss_finds_the_same_rows_and_breaks_ties_by_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="needs faiss-cpu")
    X, queries = rows_with_copies(), np.random.default_rng(1).normal(size=(9, 8))
    plain = CosineIndex(Rows(X)).search(queries, 25)
    monkeypatch.setattr(cosine_index, "MANY", 500)
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 100)
    index = CosineIndex(Rows(X))
    assert index._faiss is not None
    assert index.note == ""
    found, cosines = index.search(queries, 25)
    np.testing.assert_allclose(cosines, plain[1], atol=1e-6)
    assert is_same(X, found, expected(X, queries, 25))
    same = np.ones((600, 4), dtype=np.float32)
    assert CosineIndex(Rows(same)).search(same[:1], 5)[0].tolist() == [[0, 1, 2, 3, 4]]


def test_many_rows_without_faiss_are_searched_all_the_same_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosine_index, "MANY", 500)
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 100)
    monkeypatch.setattr(faiss_index, "is_installed", lambda: False)
    X = rows_with_copies()
    index = CosineIndex(Rows(X))
    assert "pip install 'featx[faiss]'" in index.note
    assert is_same(X, index.search(X[:3], 5)[0], expected(X, X[:3], 5))
