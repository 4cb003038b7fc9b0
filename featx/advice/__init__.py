"""Which backbone to use, which layer, and how much of the network to fine-tune.

The public names are loaded on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Advice": "advice",
    "Decision": "decision",
    "Evidence": "decision",
    "HeldOutResult": "layer_scores",
    "LayerScore": "layer_scores",
    "LearningCurve": "learning_curve",
    "Measurements": "evidence",
    "PowerLaw": "learning_curve",
    "RankedBackbone": "ranking",
    "Ranking": "ranking",
    "advise": "advice",
    "best_layer": "layer_scores",
    "bootstrap": "decision",
    "decide": "decision",
    "gather": "evidence",
    "h_score": "transferability",
    "logme": "transferability",
    "measure_learning_curve": "learning_curve",
    "rank": "ranking",
    "score_layer": "layer_scores",
    "score_layers": "layer_scores",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.advice.advice import Advice as Advice
    from featx.advice.advice import advise as advise
    from featx.advice.decision import Decision as Decision
    from featx.advice.decision import Evidence as Evidence
    from featx.advice.decision import bootstrap as bootstrap
    from featx.advice.decision import decide as decide
    from featx.advice.evidence import Measurements as Measurements
    from featx.advice.evidence import gather as gather
    from featx.advice.layer_scores import HeldOutResult as HeldOutResult
    from featx.advice.layer_scores import LayerScore as LayerScore
    from featx.advice.layer_scores import best_layer as best_layer
    from featx.advice.layer_scores import score_layer as score_layer
    from featx.advice.layer_scores import score_layers as score_layers
    from featx.advice.learning_curve import LearningCurve as LearningCurve
    from featx.advice.learning_curve import PowerLaw as PowerLaw
    from featx.advice.learning_curve import measure_learning_curve as measure_learning_curve
    from featx.advice.ranking import RankedBackbone as RankedBackbone
    from featx.advice.ranking import Ranking as Ranking
    from featx.advice.ranking import rank as rank
    from featx.advice.transferability import h_score as h_score
    from featx.advice.transferability import logme as logme


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
