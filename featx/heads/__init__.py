"""Light heads on cached features: ``Head``, the kinds that it can be, and the parts that a new kind is made of.

The public names are loaded on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Estimator": "training_data",
    "EstimatorOptions": "registry",
    "Head": "head",
    "HeadKind": "registry",
    "HiddenLayerPredictor": "predictors",
    "KernelPredictor": "predictors",
    "LinearPredictor": "predictors",
    "NotConvergedWarning": "predictors",
    "Postprocess": "postprocess",
    "Predictor": "predictors",
    "TrainingData": "training_data",
    "register_head": "registry",
    "with_groups": "groups",
}

__all__ = [*sorted(_HOMES)]

if TYPE_CHECKING:
    from featx.heads.groups import with_groups as with_groups
    from featx.heads.head import Head as Head
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx.heads' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.heads.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
