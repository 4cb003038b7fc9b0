"""What files contain, and whether they are intact. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "describe_file": "info",
    "file_kind": "info",
    "verify_file": "verify",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.inspection.info import describe_file as describe_file
    from featx.inspection.info import file_kind as file_kind
    from featx.inspection.verify import verify_file as verify_file


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
