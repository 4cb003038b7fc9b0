"""The report of any task."""

from __future__ import annotations

from featx.metrics.classification import Report
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport

AnyReport = Report | MultiLabelReport | RegressionReport
"""What all three have: n, split, notes, headline, metrics, with_notes, as_dict and a text."""
