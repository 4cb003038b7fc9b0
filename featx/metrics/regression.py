"""The report of a regression: RMSE with its interval, mean absolute error, R2, and the baseline of the mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import MetricError
from featx.metrics.baseline import SIGNIFICANCE
from featx.metrics.grouped import count_groups, flip_test, group_sums, number_groups
from featx.metrics.prediction_sets import IntervalReport
from featx.metrics.scores import Z95, finite
from featx.metrics.tables import baseline_text, images_text, interval_text, metric_lines, metric_table
from featx.text import counted, form

_RESAMPLES = 1000
_MOST_RESAMPLED = 10_000  # groups; of more, the quantiles equal the normal distribution's to two digits
_HEAVY_SHARE = 0.6
"""Share of the squared error in the tenth of the images with the largest errors from which on the tails count as heavy. It is
0.44 for normal errors, 0.60 for Laplace's, 0.74 for Student's t of 3 degrees of freedom."""


@dataclass(frozen=True, eq=False)
class RegressionReport:
    """Metrics of predicted numbers on one split, in the target's unit.

    Attributes:
        split: the evaluated split: "test", "val" or "all".
        n: number of evaluated images.
        rmse: root mean squared error.
        mae: mean absolute error.
        interval: the 95 % interval of the RMSE, by groups; None if the errors are too few or too equal for one.
        groups: number of groups that the images belong to, such as patients; n where each image is its own.
        baseline_rmse: RMSE of always predicting ``baseline_answer``.
        baseline_p_value: of the sign-flip test of the squared errors against those of that answer, two-sided.
        r2: as scikit-learn's ``r2_score``: 1 minus the mean squared error divided by the variance of these targets; None if
            all targets are equal.
        notes: caveats about the numbers, one sentence each.
        prediction_intervals: the coverage of prediction intervals; None without any.
        baseline_answer: the mean of the training targets or, where that is unknown, of these targets.
        is_trained: whether it is that of the training targets.

    Examples:
        >>> report = RegressionReport.from_predictions(
        ...     np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.5]), split="test"
        ... )
        >>> round(report.rmse, 4), round(report.mae, 4), round(report.r2, 4)
        (0.4082, 0.3333, 0.8929)
    """

    split: str
    n: int
    rmse: float
    mae: float
    interval: tuple[float, float] | None
    baseline_rmse: float
    baseline_p_value: float
    r2: float | None
    groups: int
    notes: tuple[str, ...] = ()
    prediction_intervals: IntervalReport | None = None
    baseline_answer: float = math.nan
    is_trained: bool = False

    @classmethod
    def from_predictions(
        cls,
        targets: np.ndarray,
        predictions: np.ndarray,
        *,
        split: str,
        groups: np.ndarray | None = None,
        notes: Sequence[str] = (),
        mean: float | None = None,
    ) -> RegressionReport:
        """Compute all metrics of predicted numbers.

        The interval is a bootstrap-t interval (Efron and Tibshirani, 1993, chapter 12) of the log of the mean squared
        error, from 1,000 resamples with a fixed seed; whole groups are resampled. Its standard error counts 10 images more
        than there are, with the spread of Laplace's errors, because few images show too little of heavy tails. Unlike the
        chi-square interval it does not assume normal errors, and unlike a percentile or BCa bootstrap it keeps 95 % coverage
        with 30 images of normal and Laplace's errors. (``scipy.stats.bootstrap`` has no bootstrap-t.) No interval can know of
        large errors that are rarer than the images are many, so errors with heavy tails get a note.

        Args:
            targets: (N,) or (N, 1) float; N is at least 1.
            predictions: (N,) or (N, 1) float.
            split: name of the evaluated split.
            groups: (N,) the group of each image, such as its patient; None: each image is a group of its own.
            notes: caveats about the numbers.
            mean: of the training targets, which the baseline predicts for every image; None: the mean of these targets,
                which no model knows beforehand.

        Raises:
            MetricError: there is not exactly one number for each image.
        """
        targets, predictions = _one_column(targets), _one_column(predictions)
        if len(targets) != len(predictions):
            raise MetricError(
                f"{counted(len(predictions), 'prediction')} for {counted(len(targets), 'target')}; expected equally many"
            )
        errors, groups = predictions - targets, number_groups(groups)
        rmse = math.sqrt((errors**2).mean())
        # The standard deviation of equal numbers is rarely exactly 0.
        constant = bool((targets == targets[0]).all())
        always = float(targets[0] if constant else targets.mean()) if mean is None else mean
        if constant:
            notes = [*notes, f"all targets of split {split} are equal, so R2 is undefined"]
        interval = _rmse_interval(errors, groups)
        notes = [*notes, *(_note_on_tails(errors) if interval else ())]
        return cls(
            split=split,
            n=len(targets),
            rmse=rmse,
            mae=float(np.abs(errors).mean()),
            interval=interval,
            baseline_rmse=math.sqrt(((targets - always) ** 2).mean()),
            baseline_p_value=flip_test((targets - always) ** 2 - errors**2, groups),
            r2=None if constant else 1.0 - float((errors**2).mean() / targets.var()),
            groups=count_groups(groups, len(targets)),
            notes=tuple(notes),
            baseline_answer=always,
            is_trained=mean is not None,
        )

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the most important metric."""
        return "RMSE", self.rmse

    @property
    def baseline_headline(self) -> float:
        """The RMSE of the baseline."""
        return self.baseline_rmse

    @property
    def baseline_note(self) -> str:
        """A sentence, where the model is not shown to be better than always predicting the mean; else ""."""
        if self.rmse < self.baseline_rmse and self.baseline_p_value <= SIGNIFICANCE:
            return ""
        return (
            f"the model is not shown to be better than always predicting the mean target: RMSE {self.rmse:.6g} against "
            f"{self.baseline_rmse:.6g} (p = {self.baseline_p_value:.2g}, paired test)"
        )

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that cross-validation averages over its folds; NaN where one is undefined."""
        return {"rmse": self.rmse, "mae": self.mae, "r2": math.nan if self.r2 is None else self.r2}

    def with_notes(self, notes: Sequence[str]) -> RegressionReport:
        """A copy with more notes, after those it has."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def as_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it and head files store it."""
        return {
            "rmse": finite(self.rmse),
            "interval": None if self.interval is None else list(self.interval),
            "mae": finite(self.mae),
            "r2": finite(self.metrics["r2"]),
            "baseline_answer": finite(self.baseline_answer),
            "baseline_rmse": finite(self.baseline_rmse),
            "baseline_p_value": finite(self.baseline_p_value),
            "baseline_from": "training images" if self.is_trained else "these images",
            "n": self.n,
            "groups": self.groups,
            "split": self.split,
            "notes": list(self.notes),
            **(
                {}
                if self.prediction_intervals is None
                else {"prediction_intervals": self.prediction_intervals.as_dict()}
            ),
        }

    def __str__(self) -> str:
        interval = "too few or too equal errors for an interval"
        if self.interval is not None:
            interval = interval_text(self.interval, "rmse")
        lines = [
            ("RMSE", f"{self.rmse:.6g}", f"{interval}; {baseline_text('rmse', self.baseline_rmse, '')}"),
            *([] if self.prediction_intervals is None else self.prediction_intervals.lines),
        ]
        return "\n".join([f"Evaluated on {images_text(self)}", *metric_lines(lines), *metric_table(self.metrics)])


def _note_on_tails(errors: np.ndarray) -> list[str]:
    """A note if a few of (N,) errors make most of the squared error, so that the interval is too narrow; none for under 10."""
    squares, largest = np.sort(errors**2)[::-1], len(errors) // 10
    share = float(squares[:largest].sum() / squares.sum())
    if not largest or share < _HEAVY_SHARE:
        return []
    return [
        f"the {form(largest, 'largest', f'{largest} largest')} of {len(errors)} errors {form(largest, 'makes', 'make')} "
        f"{100 * share:.0f} % of the squared error; with tails this heavy the 95 % interval of the RMSE is too narrow (it "
        "covers the true RMSE in about 60 to 90 % of samples of 30 images), and the MAE is the steadier number"
    ]


_PRIOR_SPREAD, _PRIOR_IMAGES = 5.0, 10
"""The relative variance of the squared error that counts as seen in so many images more. It is 5 for Laplace's errors, 2 for
normal ones; few images show too little of it where tails are heavy."""
_MOST_EXPONENT = 2 * math.log(1000)  # an interval that ends beyond 1,000 times the RMSE says nothing, and may overflow


def _rmse_interval(errors: np.ndarray, groups: np.ndarray | None) -> tuple[float, float] | None:
    """The 95 % bootstrap-t interval of the RMSE of (N,) errors, on a log scale; None if it is not finite or far too wide."""
    squares, sizes = group_sums(errors**2, groups)
    mean = float(squares.sum() / sizes.sum())
    deviation = float(np.sqrt(np.mean((squares - mean * sizes) ** 2)))
    if not np.isfinite(deviation) or deviation <= 1e-12 * mean:
        return None
    low, high = _bootstrap_t(squares / mean, sizes)
    own = float(np.var(errors**2)) / mean**2  # the relative variance of single images
    wider = (len(squares) + _PRIOR_IMAGES * _PRIOR_SPREAD / own) / (len(squares) + _PRIOR_IMAGES) if own else 1.0
    error = deviation / mean * math.sqrt(len(squares) * max(1.0, wider)) / float(sizes.sum())
    if not (math.isfinite(low) and math.isfinite(high)) or -min(low, high) * error > _MOST_EXPONENT:
        return None
    return math.sqrt(mean * math.exp(-high * error)), math.sqrt(mean * math.exp(-low * error))


def _bootstrap_t(values: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """2.5 % and 97.5 % quantiles of the studentised log mean of resamples of groups, whose own mean is 1.

    A resample that repeats one value has no deviation, so its t is infinite. With very few values, such as three, that is
    common enough to make a quantile infinite too.

    Args:
        values: (G,) sums over groups.
        sizes: (G,) images of each group; the mean is the ratio of both sums.
    """
    count = len(values)
    if count > _MOST_RESAMPLED:
        return -Z95, Z95
    rng = np.random.default_rng(0)
    t = np.empty(_RESAMPLES)
    step = max(1, _MOST_RESAMPLED * 10 // count)
    for start in range(0, _RESAMPLES, step):
        block = t[start : start + step]
        rows = rng.integers(count, size=(len(block), count))
        drawn, weight = values[rows], sizes[rows]
        total = weight.sum(axis=1)
        mean = drawn.sum(axis=1) / total
        deviation = np.sqrt(np.mean((drawn - mean[:, None] * weight) ** 2, axis=1))
        varied = deviation > 1e-12 * mean
        block[~varied] = np.copysign(np.inf, mean[~varied] - 1.0)
        error = deviation[varied] * math.sqrt(count) / total[varied]
        block[varied] = np.log(mean[varied]) * mean[varied] / error
    low, high = np.quantile(t, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _one_column(values: np.ndarray) -> np.ndarray:
    """(N,) or (N, 1) numbers as (N,) float64."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise MetricError(f"numbers of shape {values.shape}; expected one number for each image, (N,)")
    return values
