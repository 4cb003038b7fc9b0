"""featx: image transfer learning on cached features.

Extract once. Fit in seconds. Promote when it pays. The public names are loaded on first use (PEP 562), so that
``import featx`` costs neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbone",
    "Extraction": "extraction",
    "FeatureCache": "cache",
    "FeatureSet": "features",
    "FeatxError": "errors",
    "Head": "head",
    "ImageSet": "images",
    "PromotedModel": "promoted",
    "Promotion": "promotion",
    "Report": "report",
    "Transform": "decode",
    "evaluate": "prediction",
    "extract": "extraction",
    "load_backbone": "backbone",
    "load_model": "prediction",
    "predict": "prediction",
    "promote": "promotion",
    "scan_images": "images",
}

__all__ = [*sorted(_HOMES), "__version__"]

if TYPE_CHECKING:
    from featx.backbone import Backbone as Backbone
    from featx.backbone import load_backbone as load_backbone
    from featx.cache import FeatureCache as FeatureCache
    from featx.decode import Transform as Transform
    from featx.errors import FeatxError as FeatxError
    from featx.extraction import Extraction as Extraction
    from featx.extraction import extract as extract
    from featx.features import FeatureSet as FeatureSet
    from featx.head import Head as Head
    from featx.images import ImageSet as ImageSet
    from featx.images import scan_images as scan_images
    from featx.prediction import evaluate as evaluate
    from featx.prediction import load_model as load_model
    from featx.prediction import predict as predict
    from featx.promoted import PromotedModel as PromotedModel
    from featx.promotion import Promotion as Promotion
    from featx.promotion import promote as promote
    from featx.report import Report as Report


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
