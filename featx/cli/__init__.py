"""The command line. ``main`` is the module of the command ``featx``; it is imported on first use.

It stays a module, and is no function of the same name: importing ``featx.cli.main`` would put the module in its place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["main"]

if TYPE_CHECKING:
    from featx.cli import main as main


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'featx.cli' has no attribute {name!r}")
    return importlib.import_module(f"featx.cli.{name}")


def __dir__() -> list[str]:
    return __all__
