"""Figures, and self-contained HTML pages about heads.

The public names are loaded on first use (PEP 562), so that ``import featx.report`` does not load matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Mistake": "html",
    "Number": "html",
    "Page": "html",
    "Picture": "html",
    "Section": "html",
    "Table": "html",
    "as_png": "plots",
    "as_svg": "plots",
    "confusion_figure": "plots",
    "headline_of": "sections",
    "numbers_of": "sections",
    "per_class_figure": "plots",
    "reliability_figure": "plots",
    "render_page": "html",
    "scatter_figure": "plots",
    "sections_of": "sections",
    "write_head_page": "head_page",
    "write_page": "html",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.report.head_page import write_head_page as write_head_page
    from featx.report.html import Mistake as Mistake
    from featx.report.html import Number as Number
    from featx.report.html import Page as Page
    from featx.report.html import Picture as Picture
    from featx.report.html import Section as Section
    from featx.report.html import Table as Table
    from featx.report.html import render_page as render_page
    from featx.report.html import write_page as write_page
    from featx.report.plots import as_png as as_png
    from featx.report.plots import as_svg as as_svg
    from featx.report.plots import confusion_figure as confusion_figure
    from featx.report.plots import per_class_figure as per_class_figure
    from featx.report.plots import reliability_figure as reliability_figure
    from featx.report.plots import scatter_figure as scatter_figure
    from featx.report.sections import headline_of as headline_of
    from featx.report.sections import numbers_of as numbers_of
    from featx.report.sections import sections_of as sections_of


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
