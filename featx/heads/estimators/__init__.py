"""One module for each kind of head: how it is fitted to training data.

The public names are loaded on first use (PEP 562), so that only the estimators of ``mlp`` load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "KNearestEstimator": "knn",
    "KernelSvmEstimator": "svm",
    "LinearPathEstimator": "linear",
    "LinearSvrEstimator": "svm",
    "MlpEstimator": "mlp",
    "NearestCentroidEstimator": "centroid",
    "RidgeEstimator": "ridge",
    "SgdLinearEstimator": "mlp",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.heads.estimators.centroid import NearestCentroidEstimator as NearestCentroidEstimator
    from featx.heads.estimators.knn import KNearestEstimator as KNearestEstimator
    from featx.heads.estimators.linear import LinearPathEstimator as LinearPathEstimator
    from featx.heads.estimators.mlp import MlpEstimator as MlpEstimator
    from featx.heads.estimators.mlp import SgdLinearEstimator as SgdLinearEstimator
    from featx.heads.estimators.ridge import RidgeEstimator as RidgeEstimator
    from featx.heads.estimators.svm import KernelSvmEstimator as KernelSvmEstimator
    from featx.heads.estimators.svm import LinearSvrEstimator as LinearSvrEstimator


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
