"""Pretrained networks as frozen feature extractors. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "backbone": ["Backbone", "layers_of", "load_backbone"],
        "restored": ["restore_backbone"],
        "blocks": ["Stage"],
        "catalog": ["CatalogEntry", "describe_backbones", "list_backbones"],
        "feature_extractor": ["FeatureExtractor"],
    },
)

if TYPE_CHECKING:
    from featx.backbones.backbone import Backbone as Backbone
    from featx.backbones.backbone import layers_of as layers_of
    from featx.backbones.backbone import load_backbone as load_backbone
    from featx.backbones.blocks import Stage as Stage
    from featx.backbones.catalog import CatalogEntry as CatalogEntry
    from featx.backbones.catalog import describe_backbones as describe_backbones
    from featx.backbones.catalog import list_backbones as list_backbones
    from featx.backbones.feature_extractor import FeatureExtractor as FeatureExtractor
    from featx.backbones.restored import restore_backbone as restore_backbone
