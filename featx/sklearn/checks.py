"""scikit-learn's checks of what an estimator is given, by whichever of its functions the installed version has."""

from __future__ import annotations

from typing import Any

from sklearn.utils import validation


def validated(estimator: Any, *arrays: Any, **how: Any) -> Any:
    """Check X, or X and y, as ``sklearn.utils.validation.validate_data`` does, which came with scikit-learn 1.6."""
    if hasattr(validation, "validate_data"):
        return validation.validate_data(estimator, *arrays, **how)
    return estimator._validate_data(*arrays, **how)


def check_names(estimator: Any, frame: Any, *, reset: bool) -> None:
    """Note the names of a data frame's columns, or check that they are those of the fit.

    Raises:
        ValueError: the names, or their number, are others than in the fit.
    """
    if hasattr(validation, "validate_data"):
        validation.validate_data(estimator, frame, reset=reset, skip_check_array=True)
    else:
        estimator._check_feature_names(frame, reset=reset)
        estimator._check_n_features(frame, reset=reset)
