"""The report of any task."""

from __future__ import annotations

from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport

Report = ClassificationReport | MultiLabelReport | RegressionReport
"""What all three have: n, split, notes, headline, metrics, with_notes, as_dict and a text."""
