"""Features of other tools in, and features out for them. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "exporting": ["FeatureExport", "export_features"],
        "importing": ["FeatureImport", "import_features"],
    },
)

if TYPE_CHECKING:
    from featx.features.exchange.exporting import FeatureExport as FeatureExport
    from featx.features.exchange.exporting import export_features as export_features
    from featx.features.exchange.importing import FeatureImport as FeatureImport
    from featx.features.exchange.importing import import_features as import_features
