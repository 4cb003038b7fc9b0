"""Files written whole or not at all, strict JSON, and the container of heads and models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "atomic": ["require_writable", "write_whole"],
    },
)

if TYPE_CHECKING:
    from featx.io.atomic import require_writable as require_writable
    from featx.io.atomic import write_whole as write_whole
