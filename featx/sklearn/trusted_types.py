"""The estimators of featx among the types that skops loads without being told. Standard library only.

``skops.io.load`` builds only objects whose types it trusts: those of scikit-learn, numpy and scipy, and those that the caller
lists. It has no public way for a package to vouch for its own types (skops-dev/skops#501 asks for one), so this module appends
their names to the list of scikit-learn's estimators that skops keeps. It does so when both packages are imported: at once, or
when skops is imported later.

What vouches for them is their ``__setstate__``: it takes nothing but plain values, and a fitted head as the bytes of a head's
file, which are checked like any such file. A network that is Python code is not run (``featx.sklearn.image_embedder``).

Where skops keeps no such list, ``skops.io.load(file, trusted=[ImageEmbedder, HeadClassifier, HeadRegressor])`` does the same;
skops names the types that it misses.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

TYPES = (
    "featx.sklearn.head_estimators.HeadClassifier",
    "featx.sklearn.head_estimators.HeadRegressor",
    "featx.sklearn.image_embedder.ImageEmbedder",
)
"""The types, as a file of skops names them."""

_MODULE, _LIST = "skops.io._trusted_types", "SKLEARN_ESTIMATOR_TYPE_NAMES"


def trust_when_imported() -> None:
    """Add the types to the list of skops, now or when skops is imported. skops itself is not imported."""
    if _MODULE in sys.modules:
        _add_types(sys.modules[_MODULE])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _add_types(module: ModuleType) -> None:
    names = getattr(module, _LIST, None)
    if isinstance(names, list):  # else another version of skops, which asks for the types by name
        names += [name for name in TYPES if name not in names]


class _AfterImport(MetaPathFinder):
    """Finds the module with the list as Python would, and adds the types when it has been loaded."""

    def find_spec(self, fullname: str, *_: Sequence[str] | ModuleType | None) -> ModuleSpec | None:
        """The spec of the module with the list; None for any other module."""
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_add(module: ModuleType) -> None:
                load(module)
                _add_types(module)

            spec.loader.exec_module = load_and_add  # type: ignore[method-assign]
        return spec
