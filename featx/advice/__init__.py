"""Which backbone to use, which layer, and how much of the network to fine-tune.

The public names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "advice": ["Advice", "advise"],
        "decision": ["Decision", "Evidence", "bootstrap", "decide"],
        "evidence": ["Measurements", "gather"],
        "layer_scores": ["HeldOutResult", "LayerScore", "best_layer", "score_layer", "score_layers"],
        "learning_curve": ["LearningCurve", "PowerLaw", "measure_learning_curve"],
        "ranking": ["RankedBackbone", "Ranking", "rank"],
        "transferability": ["h_score", "logme"],
    },
)

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
