"""Fixtures of the tests of estimators."""

from __future__ import annotations

import pytest

from featx.heads.estimators import linear


@pytest.fixture
def exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solve each problem of the search as exactly as possible."""
    monkeypatch.setattr(linear, "SEARCH_TOL", 1e-12)
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 3000)
