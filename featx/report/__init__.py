"""Figures, and self-contained HTML pages about heads.

The public names are loaded on first use (PEP 562), so that ``import featx.report`` does not load matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "head_parts": ["head_facts", "head_sections", "head_summary"],
        "html": ["Mistake", "Number", "Page", "Picture", "Section", "Table", "render_inspection"],
        "plots": ["as_png", "as_svg", "confusion_figure", "per_class_figure", "reliability_figure", "scatter_figure"],
        "sections": ["headline_of", "numbers_of", "sections_of"],
    },
)

if TYPE_CHECKING:
    from featx.report.head_parts import head_facts as head_facts
    from featx.report.head_parts import head_sections as head_sections
    from featx.report.head_parts import head_summary as head_summary
    from featx.report.html import Mistake as Mistake
    from featx.report.html import Number as Number
    from featx.report.html import Page as Page
    from featx.report.html import Picture as Picture
    from featx.report.html import Section as Section
    from featx.report.html import Table as Table
    from featx.report.html import render_inspection as render_inspection
    from featx.report.plots import as_png as as_png
    from featx.report.plots import as_svg as as_svg
    from featx.report.plots import confusion_figure as confusion_figure
    from featx.report.plots import per_class_figure as per_class_figure
    from featx.report.plots import reliability_figure as reliability_figure
    from featx.report.plots import scatter_figure as scatter_figure
    from featx.report.sections import headline_of as headline_of
    from featx.report.sections import numbers_of as numbers_of
    from featx.report.sections import sections_of as sections_of
