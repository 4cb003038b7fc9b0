"""Images through a backbone into a feature file, each image once. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ENGINES": "engine_table",
    "Engine": "engines",
    "EngineSpec": "engine_table",
    "Extraction": "result",
    "encode_images": "encode",
    "extract": "pipeline",
    "images_per_second": "engines",
    "installed": "engines",
    "open_engine": "engines",
}

__all__ = sorted(_HOMES)

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx.extraction' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.extraction.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
