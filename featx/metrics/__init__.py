"""Evaluation of predictions: a report for each task, cross-validation, and a paired test of two models.

The public names are loaded on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ClassificationReport": "classification",
    "CrossValidated": "cross_validation",
    "MultiLabelReport": "multilabel",
    "PairedTest": "paired",
    "RegressionReport": "regression",
    "Report": "reports",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.metrics.classification import ClassificationReport as ClassificationReport
    from featx.metrics.cross_validation import CrossValidated as CrossValidated
    from featx.metrics.multilabel import MultiLabelReport as MultiLabelReport
    from featx.metrics.paired import PairedTest as PairedTest
    from featx.metrics.regression import RegressionReport as RegressionReport
    from featx.metrics.reports import Report as Report


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
