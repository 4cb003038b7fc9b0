"""Images through a backbone into a feature file, each image once. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "encode": ["encode_images"],
        "engine_table": ["ENGINES", "EngineSpec"],
        "engines": ["Engine", "images_per_second", "installed", "open_engine"],
        "pipeline": ["extract"],
        "result": ["Extraction"],
    },
)

if TYPE_CHECKING:
    from featx.extraction.encode import encode_images as encode_images
    from featx.extraction.engine_table import ENGINES as ENGINES
    from featx.extraction.engine_table import EngineSpec as EngineSpec
    from featx.extraction.engines import Engine as Engine
    from featx.extraction.engines import images_per_second as images_per_second
    from featx.extraction.engines import installed as installed
    from featx.extraction.engines import open_engine as open_engine
    from featx.extraction.pipeline import extract as extract
    from featx.extraction.result import Extraction as Extraction
