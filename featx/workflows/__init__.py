"""Whole jobs on features: fit a head, evaluate it and save it. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Compared": "comparison",
    "Fit": "fit",
    "fit_head": "fit",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.workflows.comparison import Compared as Compared
    from featx.workflows.fit import Fit as Fit
    from featx.workflows.fit import fit_head as fit_head


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx.workflows' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.workflows.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
