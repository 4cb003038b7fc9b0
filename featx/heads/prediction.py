"""``Prediction``: what a head or a promoted model says of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SET_COLUMN, INTERVAL_COLUMNS = "set", ("lower", "upper")
"""The columns of the prediction set, whose classes stand with ``|`` between them, and of the ends of the interval."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: the image's path, as it was given, or as found in a given folder.
        top: (class or label, probability), the most probable first; empty for failed images and for regression.
        error: why the image failed, otherwise "".
        value: the predicted class; for multilabel the list of predicted labels; for regression the number. None if the image
            failed, or if the probability of the most probable class is too low (the head rejects).
        set: the classes of the prediction set, the most probable first; None where the model has none.
        interval: the ends of the prediction interval of a regression, or None.

    Examples:
        >>> prediction = Prediction("a.jpg", (("ant", 0.9), ("bee", 0.1)), value="ant")
        >>> prediction.rows()
        [('ant', 0.9, ''), ('bee', 0.1, '')]
        >>> Prediction("b.jpg", (("ant", 0.55), ("bee", 0.45))).as_dict()["rejected"]
        True
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""
    value: Any = None
    set: tuple[str, ...] | None = None
    interval: tuple[float, float] | None = None

    def rows(self) -> list[tuple[str, float | None, str]]:
        """Return the prediction as rows of a table: (label or number, probability or None, why there is no label or "").

        A classification has a row for each class in ``top``, a multilabel prediction one for each predicted label, and a failed
        image none.
        """
        if self.error:
            return []
        if isinstance(self.value, float):
            return [(f"{self.value:.6g}", None, "")]
        if isinstance(self.value, list):
            return [(label, p, "") for label, p in self.top if label in self.value] or [("", None, "")]
        if self.value is None:
            label, p = self.top[0]
            return [("", p, f"rejected: the most probable class, {label}, is not probable enough")]
        return [(label, p, "") for label, p in self.top]

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as ``featx predict --json`` prints it."""
        if self.error:
            return {"path": self.path, "error": self.error}
        if isinstance(self.value, float):
            interval = {} if self.interval is None else {"interval": list(self.interval)}
            return {"path": self.path, "value": self.value, **interval}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        if isinstance(self.value, list):
            return {"path": self.path, "labels": self.value, "top": top}
        rejected = {} if self.value is not None else {"rejected": True}
        members = {} if self.set is None else {"set": list(self.set)}
        return {"path": self.path, **top[0], "label": self.value, **rejected, **members, "top": top}
