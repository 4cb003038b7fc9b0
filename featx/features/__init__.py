"""Feature files and the folder that holds them. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "FeatureFile": "feature_file",
    "FeatureFileHeader": "header",
    "FeatureFileWriter": "writer",
    "FeatureSet": "feature_set",
    "FolderEntry": "folder",
    "ImageTable": "feature_file",
    "Layer": "header",
    "list_folder": "folder",
    "write_lock": "lock",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from featx.features.feature_file import FeatureFile as FeatureFile
    from featx.features.feature_file import ImageTable as ImageTable
    from featx.features.feature_set import FeatureSet as FeatureSet
    from featx.features.folder import FolderEntry as FolderEntry
    from featx.features.folder import list_folder as list_folder
    from featx.features.header import FeatureFileHeader as FeatureFileHeader
    from featx.features.header import Layer as Layer
    from featx.features.lock import write_lock as write_lock
    from featx.features.writer import FeatureFileWriter as FeatureFileWriter


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featx.features' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.features.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
