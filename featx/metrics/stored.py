"""The most important number of an evaluation that a file stores: whoever wrote the file, whatever it states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featx.metrics.tables import baseline_text
from featx.text import counted

_HEADLINES = (("accuracy", "accuracy", "interval"), ("mAP", "mAP", ""), ("rmse", "RMSE", "interval"))
"""The key of each task's main number, its name, and the key of its interval."""


@dataclass(frozen=True)
class _Stored:
    """A number with its interval."""

    name: str
    value: float
    interval: tuple[float, float] | None

    @property
    def is_error(self) -> bool:
        """Whether a lower value is better."""
        return self.name == "RMSE"

    @property
    def text(self) -> str:
        """The value with its digits."""
        return self._digits(self.value)

    @property
    def interval_text(self) -> str:
        """The interval with its digits; "" if there is none."""
        return "" if self.interval is None else " to ".join(map(self._digits, self.interval))

    def _digits(self, value: float) -> str:
        return f"{value:.6g}" if self.is_error else f"{value:.4f}"


@dataclass(frozen=True)
class StoredCrossValidation(_Stored):
    """The main number of a stored cross-validation.

    Attributes:
        name: "accuracy", "mAP" or "RMSE".
        value: of that number, the mean over the folds.
        interval: its 95 % interval, or None.
        n: number of cross-validated images.
        design: "4 x 5 folds", or "the folds of 'site'".
        baseline: "always 'glass' 0.2800", or "".

    Examples:
        >>> stored = {"metric": "accuracy", "value": 0.9, "interval": [0.8, 0.96], "n": 50, "repeats": 4, "folds": 5}
        >>> str(StoredCrossValidation.of(stored))
        'accuracy 0.9000 (0.8000 to 0.9600), cross-validated by 4 x 5 folds of 50 images'
    """

    n: int
    design: str
    baseline: str = ""

    @classmethod
    def of(cls, stored: Any) -> StoredCrossValidation | None:
        """Read what ``cross_validation.stored`` gave; None where it is no such number."""
        if not isinstance(stored, Mapping) or (value := number(stored.get("value"))) is None:
            return None
        n, repeats, folds = (
            each if isinstance(each := stored.get(key), int) else 0 for key in ("n", "repeats", "folds")
        )
        column, baseline = stored.get("column"), stored.get("baseline")
        design = f"the {folds} folds of {column}" if isinstance(column, str) else f"{repeats} x {folds} folds"
        name = str(stored.get("metric", ""))
        return cls(
            name, value, _interval(stored.get("interval")), n, design, baseline if isinstance(baseline, str) else ""
        )

    def __str__(self) -> str:
        interval, baseline = (
            (f" ({self.interval_text})" if self.interval else ""),
            f"; {self.baseline}" if self.baseline else "",
        )
        return f"{self.name} {self.text}{interval}, cross-validated by {self.design} of {counted(self.n, 'image')}{baseline}"

    def as_dict(self) -> dict[str, Any]:
        """The number as ``--json`` prints it."""
        return {
            "metric": self.name, "value": self.value, "interval": None if self.interval is None else list(self.interval),
            "n": self.n, "design": self.design, "baseline": self.baseline or None,
        }  # fmt: skip


@dataclass(frozen=True)
class StoredResult(_Stored):
    """The main number of a stored report.

    Attributes:
        name: "accuracy", "mAP" or "RMSE".
        value: of that number.
        interval: its 95 % interval, or None.
        n: number of evaluated images.
        split: the split that they are from.
        baseline: "always 'glass' 0.2800", the same number of a model that gives every image the same answer; "" if unknown.

    Examples:
        >>> found = StoredResult.of({"accuracy": 0.9, "interval": [0.8, 0.96], "n": 50, "split": "test"})
        >>> str(found)
        'accuracy 0.9000 (0.8000 to 0.9600) on 50 images of split test'
        >>> StoredResult.of({"n": 50, "split": "test"}) is None
        True
    """

    n: int
    split: str
    baseline: str = ""

    @classmethod
    def of(cls, report: Any) -> StoredResult | None:
        """Read the report of a file; None where it states no such number."""
        if not isinstance(report, Mapping):
            return None
        for key, name, interval in _HEADLINES:
            if (value := number(report.get(key))) is not None:
                n = report.get("n")
                return cls(
                    name,
                    value,
                    _interval(report.get(interval)),
                    n if isinstance(n, int) else 0,
                    str(report.get("split", "")),
                    _baseline(report, key),
                )
        return None

    def __str__(self) -> str:
        interval = f" ({self.interval_text})" if self.interval else ""
        baseline = f"; {self.baseline}" if self.baseline else ""
        return f"{self.name} {self.text}{interval} on {counted(self.n, 'image')} of split {self.split}{baseline}"

    def as_dict(self) -> dict[str, Any]:
        """The number as ``--json`` prints it."""
        return {
            "metric": self.name, "value": self.value, "interval": None if self.interval is None else list(self.interval),
            "n": self.n, "split": self.split, "baseline": self.baseline or None,
        }  # fmt: skip


def _baseline(report: Mapping[str, Any], key: str) -> str:
    """The baseline of a stored report in words."""
    if (value := number(report.get(f"baseline_{key}"))) is None:
        return ""
    return baseline_text(key, value, str(report.get("baseline_answer", "")))


def number(value: Any) -> float | None:
    """A finite number of a stored file; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = map(number, value)
    return None if low is None or high is None else (low, high)
