"""Heads of every kind, compared by cross-validation on the training rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.parameters import WITHOUT_GUARANTEES
from featx.heads.registry import auto_candidates, full_name
from featx.metrics.scores import finite


@dataclass(frozen=True)
class Compared:
    """One line of a comparison: a kind of head, or a layer.

    Attributes:
        kind: the kind of head, with its kernel where that is not linear; or the layer.
        candidate: the best hyper-parameter, such as ``C=0.1``.
        loss: mean cross-validated loss on the training rows.
        error: standard error of ``loss``.
        value: headline metric (accuracy, mAP or RMSE) on the same held-out rows.
        seconds: duration of the fit.
        why: the reason where the head could not be fitted, else "".
    """

    kind: str
    candidate: str = ""
    loss: float = math.nan
    error: float = math.nan
    value: float = math.nan
    seconds: float = 0.0
    why: str = ""

    @classmethod
    def of(cls, name: str, head: Head) -> Compared:
        """Describe a fitted head."""
        best = min(head.search_, key=lambda tried: tried.loss) if head.search_ else None
        chosen = ", ".join(f"{name}={value:g}" for name, value in head.chosen.items())
        return cls(
            name,
            chosen,
            loss=best.loss if best else math.nan,
            error=best.error if best else math.nan,
            value=head.held_out_.headline[1] if head.held_out_ else math.nan,
            seconds=head.seconds_,
        )

    def as_dict(self, *, less: str = "") -> dict[str, Any]:
        """The fields for JSON, without one: a number that is not finite is null."""
        return {name: finite(value) for name, value in dataclasses.asdict(self).items() if name != less}

    def cells(self) -> tuple[str, ...]:
        """The cells of a table: name, hyper-parameter, loss, its standard error, metric, seconds.

        Examples:
            >>> Compared("ridge", "C=0.1", 0.25, 0.01, 0.9, 1.5).cells()
            ('ridge', 'C=0.1', '0.2500', '0.0100', '0.9000', '1.50')
        """
        if self.why:
            return (self.kind, self.why, "", "", "", "")
        return (
            self.kind, self.candidate, f"{self.loss:.4f}", f"{self.error:.4f}", f"{self.value:.4f}", f"{self.seconds:.2f}"
        )  # fmt: skip


def compare_kinds(
    features: FeatureSet, head: Head, *, rows: int, done: Callable[[], None]
) -> tuple[Head, tuple[Compared, ...]]:
    """Fit a head of every kind that suits the task, and select one.

    Args:
        features: of one layer.
        head: unfitted; its task is known, and its options other than the kind and hyper-parameters apply to all kinds.
        rows: number of training rows, views included.
        done: called after each fit.

    Returns:
        The simplest head whose loss is within one standard error of the lowest, and a line for each kind.

    Raises:
        HeadError: no kind of head can be fitted.
    """
    fitted: list[Head] = []
    compared: list[Compared] = []
    for kind, kernel in auto_candidates(head.task_, rows):
        name = full_name(kind, kernel)
        own = {**head.get_params(), "kind": kind, "kernel": kernel, "C": None, "k": None}
        candidate = Head(**{**own, **WITHOUT_GUARANTEES})
        try:
            fitted.append(candidate.fit(features, cross_validate=True))
            compared.append(Compared.of(name, candidate))
        except HeadError as error:
            compared.append(Compared(name, why=str(error)))
        done()
    if not fitted:
        raise HeadError(f"no kind of head could be fitted: {compared[0].why}")
    selected = fitted[_simplest([line for line in compared if not line.why])]
    promised = {name: getattr(head, name) for name in WITHOUT_GUARANTEES}
    if promised != WITHOUT_GUARANTEES:  # which takes further fits, of the selected head alone
        selected = Head(**{**selected.get_params(), **promised}).fit(features, cross_validate=True)
    return selected, tuple(compared)


def _simplest(lines: Sequence[Compared]) -> int:
    """The first line whose loss is within one standard error of the lowest; simple heads come first."""
    finite = [line for line in lines if math.isfinite(line.loss)]
    if not finite:
        return 0
    best = min(finite, key=lambda line: line.loss)
    highest = best.loss + (best.error if math.isfinite(best.error) else 0.0)
    return next(i for i, line in enumerate(lines) if line.loss <= highest)
