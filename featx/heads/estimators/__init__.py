"""One module for each kind of head: how it is fitted to training data.

The public names are loaded on first use (PEP 562), so that only the estimators of ``mlp`` load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "bilinear": ["BilinearEstimator"],
        "centroid": ["NearestCentroidEstimator"],
        "knn": ["KNearestEstimator"],
        "linear": ["LinearPathEstimator"],
        "mlp": ["MlpEstimator", "SgdLinearEstimator"],
        "ridge": ["RidgeEstimator"],
        "svm": ["KernelSvmEstimator", "LinearSvrEstimator"],
    },
)

if TYPE_CHECKING:
    from featx.heads.estimators.bilinear import BilinearEstimator as BilinearEstimator
    from featx.heads.estimators.centroid import NearestCentroidEstimator as NearestCentroidEstimator
    from featx.heads.estimators.knn import KNearestEstimator as KNearestEstimator
    from featx.heads.estimators.linear import LinearPathEstimator as LinearPathEstimator
    from featx.heads.estimators.mlp import MlpEstimator as MlpEstimator
    from featx.heads.estimators.mlp import SgdLinearEstimator as SgdLinearEstimator
    from featx.heads.estimators.ridge import RidgeEstimator as RidgeEstimator
    from featx.heads.estimators.svm import KernelSvmEstimator as KernelSvmEstimator
    from featx.heads.estimators.svm import LinearSvrEstimator as LinearSvrEstimator
