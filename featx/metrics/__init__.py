"""Evaluation of predictions: a report for each task, cross-validation, and a paired test of two models.

The public names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "classification": ["ClassificationReport"],
        "cross_validation": ["CrossValidated"],
        "multilabel": ["MultiLabelReport"],
        "paired": ["PairedTest"],
        "regression": ["RegressionReport"],
        "reports": ["Report"],
    },
)

if TYPE_CHECKING:
    from featx.metrics.classification import ClassificationReport as ClassificationReport
    from featx.metrics.cross_validation import CrossValidated as CrossValidated
    from featx.metrics.multilabel import MultiLabelReport as MultiLabelReport
    from featx.metrics.paired import PairedTest as PairedTest
    from featx.metrics.regression import RegressionReport as RegressionReport
    from featx.metrics.reports import Report as Report
