"""featx: image transfer learning on cached features.

Extract once. Fit in seconds. Promote when it pays. The public names are loaded on first use (PEP 562), so that
``import featx`` costs neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featx._version import __version__

_HOMES = {
    "Advice": "advice.advice",
    "Backbone": "backbones.backbone",
    "ClassificationReport": "metrics.classification",
    "CrossValidated": "metrics.cross_validation",
    "Extraction": "extraction.result",
    "FeatureFile": "features.feature_file",
    "FeatureSet": "features.feature_set",
    "FeatxError": "errors",
    "FineTuning": "promotion.config",
    "Fit": "workflows.fit",
    "Head": "heads.head",
    "ImageSet": "data.image_set",
    "MultiLabelReport": "metrics.multilabel",
    "PairedTest": "metrics.paired",
    "Prediction": "inference",
    "PromotedModel": "promotion.model",
    "Promotion": "promotion.promotion",
    "Ranking": "advice.ranking",
    "RegressionReport": "metrics.regression",
    "Reporter": "reporter",
    "Transform": "data.transform",
    "advise": "advice.advice",
    "evaluate": "inference",
    "extract": "extraction.pipeline",
    "fit_head": "workflows.fit",
    "load_backbone": "backbones.backbone",
    "load_model": "inference",
    "predict": "inference",
    "promote": "promotion.promotion",
    "rank": "advice.ranking",
    "register_head": "heads.registry",
    "scan_images": "data.scan",
}

__all__ = [*sorted(_HOMES), "__version__"]

if TYPE_CHECKING:
    from featx.advice.advice import Advice as Advice
    from featx.advice.advice import advise as advise
    from featx.advice.ranking import Ranking as Ranking
    from featx.advice.ranking import rank as rank
    from featx.backbones.backbone import Backbone as Backbone
    from featx.backbones.backbone import load_backbone as load_backbone
    from featx.data.image_set import ImageSet as ImageSet
    from featx.data.scan import scan_images as scan_images
    from featx.data.transform import Transform as Transform
    from featx.errors import FeatxError as FeatxError
    from featx.extraction.pipeline import extract as extract
    from featx.extraction.result import Extraction as Extraction
    from featx.features.feature_file import FeatureFile as FeatureFile
    from featx.features.feature_set import FeatureSet as FeatureSet
    from featx.heads.head import Head as Head
    from featx.heads.registry import register_head as register_head
    from featx.inference import Prediction as Prediction
    from featx.inference import evaluate as evaluate
    from featx.inference import load_model as load_model
    from featx.inference import predict as predict
    from featx.metrics.classification import ClassificationReport as ClassificationReport
    from featx.metrics.cross_validation import CrossValidated as CrossValidated
    from featx.metrics.multilabel import MultiLabelReport as MultiLabelReport
    from featx.metrics.paired import PairedTest as PairedTest
    from featx.metrics.regression import RegressionReport as RegressionReport
    from featx.promotion.config import FineTuning as FineTuning
    from featx.promotion.model import PromotedModel as PromotedModel
    from featx.promotion.promotion import Promotion as Promotion
    from featx.promotion.promotion import promote as promote
    from featx.reporter import Reporter as Reporter
    from featx.workflows.fit import Fit as Fit
    from featx.workflows.fit import fit_head as fit_head


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
