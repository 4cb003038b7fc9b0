"""The most important number of an evaluation that a file stores: whoever wrote the file, whatever it states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HEADLINES = (("accuracy", "accuracy", "interval"), ("mAP", "mAP", ""), ("rmse", "RMSE", "interval"))
"""The key of each task's main number, its name, and the key of its interval."""


@dataclass(frozen=True)
class StoredResult:
    """The main number of a stored report.

    Attributes:
        name: "accuracy", "mAP" or "RMSE".
        value: of that number.
        interval: its 95 % interval, or None.
        n: number of evaluated images.
        split: the split that they are from.

    Examples:
        >>> found = StoredResult.of({"accuracy": 0.9, "interval": [0.8, 0.96], "n": 50, "split": "test"})
        >>> str(found)
        'accuracy 0.9000 (0.8000 to 0.9600) on 50 images of split test'
        >>> StoredResult.of({"n": 50, "split": "test"}) is None
        True
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    n: int
    split: str

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
                )
        return None

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

    def __str__(self) -> str:
        interval = f" ({self.interval_text})" if self.interval else ""
        return f"{self.name} {self.text}{interval} on {self.n:,} images of split {self.split}"

    def as_dict(self) -> dict[str, Any]:
        """The number as ``--json`` prints it."""
        return {
            "metric": self.name, "value": self.value, "interval": None if self.interval is None else list(self.interval),
            "n": self.n, "split": self.split,
        }  # fmt: skip


def number(value: Any) -> float | None:
    """A finite number of a stored file; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = map(number, value)
    return None if low is None or high is None else (low, high)
