"""Light heads on cached features: ``Head``, the kinds that it can be, and the parts that a new kind is made of.

The public names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "groups": ["with_groups"],
        "nested": ["nested_report"],
        "head": ["Head"],
        "postprocess": ["Postprocess"],
        "predictors": [
            "HiddenLayerPredictor",
            "KernelPredictor",
            "LinearPredictor",
            "NotConvergedWarning",
            "Predictor",
        ],
        "registry": ["EstimatorOptions", "HeadKind", "register_head"],
        "training_data": ["Estimator", "TrainingData"],
    },
)

if TYPE_CHECKING:
    from featx.heads.groups import with_groups as with_groups
    from featx.heads.head import Head as Head
    from featx.heads.nested import nested_report as nested_report
    from featx.heads.postprocess import Postprocess as Postprocess
    from featx.heads.predictors import HiddenLayerPredictor as HiddenLayerPredictor
    from featx.heads.predictors import KernelPredictor as KernelPredictor
    from featx.heads.predictors import LinearPredictor as LinearPredictor
    from featx.heads.predictors import NotConvergedWarning as NotConvergedWarning
    from featx.heads.predictors import Predictor as Predictor
    from featx.heads.registry import EstimatorOptions as EstimatorOptions
    from featx.heads.registry import HeadKind as HeadKind
    from featx.heads.registry import register_head as register_head
    from featx.heads.training_data import Estimator as Estimator
    from featx.heads.training_data import TrainingData as TrainingData
