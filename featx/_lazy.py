"""Public names of a package that are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make what a package needs to load its public names on first use, as ``lazy_loader.attach`` does.

    Args:
        package: the ``__name__`` of the package.
        modules: {module, relative to the package: its public names}.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.

    Examples:
        >>> getattr_, _, names = lazy_names("featx", {"errors": ["FeatxError"]})
        >>> names, getattr_("FeatxError").__name__
        (['FeatxError'], 'FeatxError')
    """
    module_of = {name: f"{package}.{module}" for module, names in modules.items() for name in names}
    public = sorted(module_of)

    def __getattr__(name: str) -> Any:  # noqa: N807 - it becomes the package's own
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:  # noqa: N807 - it becomes the package's own
        return public

    return __getattr__, __dir__, public
