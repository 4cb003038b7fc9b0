"""Pretrained networks as frozen feature extractors. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Backbone": "backbone",
    "CatalogEntry": "catalog",
    "FeatureExtractor": "feature_extractor",
    "Stage": "blocks",
    "describe_backbones": "catalog",
    "layers_of": "backbone",
    "list_backbones": "catalog",
    "load_backbone": "backbone",
    "restore_backbone": "backbone",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.backbones.backbone import Backbone as Backbone
    from featx.backbones.backbone import layers_of as layers_of
    from featx.backbones.backbone import load_backbone as load_backbone
    from featx.backbones.backbone import restore_backbone as restore_backbone
    from featx.backbones.blocks import Stage as Stage
    from featx.backbones.catalog import CatalogEntry as CatalogEntry
    from featx.backbones.catalog import describe_backbones as describe_backbones
    from featx.backbones.catalog import list_backbones as list_backbones
    from featx.backbones.feature_extractor import FeatureExtractor as FeatureExtractor


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx.backbones' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.backbones.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
