"""Which images choose the thresholds of what a head promises, and which must not."""

from __future__ import annotations

from collections.abc import Callable

from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.parameters import WITHOUT_GUARANTEES
from featx.heads.registry import get_kind
from featx.workflows.comparison import Compared

_LEAVE_OUT = "leave it out: out-of-fold predictions of the training images are taken then"


def require_apart(split: FeatureSet, held_out: str, head: Head, calibrate_on: str | None) -> None:
    """Refuse to calibrate on images that judge the head, or that it is fitted to.

    Args:
        split: the rows, in the splits that the head uses.
        held_out: the split that judges it, or "".
        head: not fitted yet.
        calibrate_on: the split that was named, or None.

    Raises:
        SettingsError: they are the same, or the head promises nothing.
        HeadError: there are no such images.
    """
    learns = get_kind(head.kind).is_fitted
    promises = (head.conformal, head.target_precision) != (None, None)
    if calibrate_on is not None and not promises:
        raise SettingsError("calibrate_on has no effect without conformal or target_precision; expected one of them")
    if calibrate_on is None and (learns or not promises):
        return
    name = calibrate_on or "train"
    split.rows(name)
    if name == "all" or held_out in (name, "all"):
        raise SettingsError(
            f"images of split {name} would choose what the head promises, and judge it too; name another split with "
            f"--calibrate-on{f', or {_LEAVE_OUT}' if learns else ''}"
        )
    if name == "train" and learns:
        raise SettingsError(f"--calibrate-on train names the images that the head is fitted to; {_LEAVE_OUT}")


def fit_and_calibrate(
    fit: Callable[[Head], tuple[Head, tuple[Compared, ...]]], head: Head, features: FeatureSet, calibrate_on: str | None
) -> tuple[Head, tuple[Compared, ...]]:
    """Fit a head, and choose the thresholds of what it promises on a split, if one is named.

    Args:
        fit: fits a head, or the best of all kinds, and describes those that were compared.
        head: not fitted yet.
        features: all rows.
        calibrate_on: the split, or None: the fit itself chooses the thresholds.
    """
    if calibrate_on is None:
        return fit(head)
    promised = {name: getattr(head, name) for name in WITHOUT_GUARANTEES}
    fitted, compared = fit(head.set_params(**WITHOUT_GUARANTEES))
    return fitted.set_params(**promised).conformalize(features, split=calibrate_on), compared
