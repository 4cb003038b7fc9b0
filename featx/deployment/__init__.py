"""Models that run elsewhere: as one torch module. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "exporting": ["export_model"],
        "job": ["ExportJob", "ModelExport"],
        "whole": ["Classified", "Measured", "WholeModel"],
    },
)

if TYPE_CHECKING:
    from featx.deployment.exporting import export_model as export_model
    from featx.deployment.job import ExportJob as ExportJob
    from featx.deployment.job import ModelExport as ModelExport
    from featx.deployment.whole import Classified as Classified
    from featx.deployment.whole import Measured as Measured
    from featx.deployment.whole import WholeModel as WholeModel
