"""Files written whole or not at all, strict JSON, and the container of heads and models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "require_writable": "atomic",
    "write_whole": "atomic",
}

__all__ = ["require_writable", "write_whole"]

if TYPE_CHECKING:
    from featx.io.atomic import require_writable as require_writable
    from featx.io.atomic import write_whole as write_whole


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
