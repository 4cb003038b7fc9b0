"""The union of the three reports, for code that handles any task."""

from __future__ import annotations

from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport

Report = ClassificationReport | MultiLabelReport | RegressionReport
"""The evaluation of a head or model on one split, whatever its task.

All three reports are immutable and share these members:

- ``n``: number of evaluated images; ``split``: the split they belong to.
- ``headline``: name and value of the most important metric: accuracy, mAP or RMSE.
- ``baseline_headline``: the value of that metric for a model that gives every image the same answer.
- ``metrics``: name to value, of the metrics that cross-validation averages.
- ``notes``: caveats about the numbers, one sentence each; ``with_notes(notes)`` returns a copy with more.
- ``as_dict()``: JSON-compatible, with None for NaN; ``str(report)``: the text that ``fit-head`` and ``evaluate`` print.

As a union of classes, it also works in ``isinstance(value, Report)``.

Examples:
    >>> import numpy as np
    >>> report: Report = RegressionReport.from_predictions(np.array([1.0, 2.0]), np.array([1.5, 2.5]), split="test")
    >>> isinstance(report, Report), report.headline
    (True, ('RMSE', 0.5))
"""
