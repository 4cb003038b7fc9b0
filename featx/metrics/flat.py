"""The numbers of a report by name, one for each end of an interval, as tracking tools take them."""

from __future__ import annotations

from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.reports import Report


def flat_numbers(report: Report, prefix: str = "") -> dict[str, float]:
    """All single numbers of a report; intervals are "<name>_low" and "<name>_high".

    Args:
        report: of any task.
        prefix: before each name.

    Examples:
        >>> import numpy as np
        >>> from featx.metrics.regression import RegressionReport
        >>> report = RegressionReport.from_predictions(np.array([1.0, 2.0]), np.array([1.5, 2.5]), split="test")
        >>> flat_numbers(report, "test_")["test_rmse"]
        0.5
    """
    facts = report.as_dict()
    of_main = "exact_match" if isinstance(report, MultiLabelReport) else "rmse" if "rmse" in facts else "accuracy"
    intervals = {"interval": of_main, "exact_match_interval": "exact_match", "selective_interval": "selective_accuracy"}
    found: dict[str, float] = {}
    for name, value in facts.items():
        if name in intervals and value is not None:
            found |= {
                f"{prefix}{intervals[name]}_{end}": float(each)
                for end, each in zip(("low", "high"), value, strict=True)
            }
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found
