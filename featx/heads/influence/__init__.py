"""Which training images a linear head's predictions depend on. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "leave_one_out": ["LeaveOneOut", "has_influence"],
    },
)

if TYPE_CHECKING:
    from featx.heads.influence.leave_one_out import LeaveOneOut as LeaveOneOut
    from featx.heads.influence.leave_one_out import has_influence as has_influence
