"""A model as an HTTP service. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "creation": ["create_app"],
        "limits": ["Limits"],
    },
)

if TYPE_CHECKING:
    from featx.serving.creation import create_app as create_app
    from featx.serving.limits import Limits as Limits
