"""Whole jobs on features: fit a head, evaluate it and save it. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "comparison": ["Compared"],
        "fit": ["fit_head"],
        "fit_result": ["Fit"],
    },
)

if TYPE_CHECKING:
    from featx.workflows.comparison import Compared as Compared
    from featx.workflows.fit import fit_head as fit_head
    from featx.workflows.fit_result import Fit as Fit
