"""Figures of reports, hyperparameter searches, learning curves and training. The only package that imports matplotlib.

The public names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "curves": ["advice_figure", "courses_figure", "path_figure", "rank_figure", "shots_figure", "training_figure"],
        "evaluation": ["MOST_BARS", "confusion_figure", "per_class_figure", "reliability_figure", "scatter_figure"],
        "style": ["BLUE", "ORANGE", "as_png", "as_svg", "label", "missing_characters", "save_png"],
    },
)

if TYPE_CHECKING:
    from featx.report.plots.curves import advice_figure as advice_figure
    from featx.report.plots.curves import courses_figure as courses_figure
    from featx.report.plots.curves import path_figure as path_figure
    from featx.report.plots.curves import rank_figure as rank_figure
    from featx.report.plots.curves import shots_figure as shots_figure
    from featx.report.plots.curves import training_figure as training_figure
    from featx.report.plots.evaluation import MOST_BARS as MOST_BARS
    from featx.report.plots.evaluation import confusion_figure as confusion_figure
    from featx.report.plots.evaluation import per_class_figure as per_class_figure
    from featx.report.plots.evaluation import reliability_figure as reliability_figure
    from featx.report.plots.evaluation import scatter_figure as scatter_figure
    from featx.report.plots.style import BLUE as BLUE
    from featx.report.plots.style import ORANGE as ORANGE
    from featx.report.plots.style import as_png as as_png
    from featx.report.plots.style import as_svg as as_svg
    from featx.report.plots.style import label as label
    from featx.report.plots.style import missing_characters as missing_characters
    from featx.report.plots.style import save_png as save_png
