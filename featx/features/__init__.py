"""Feature files and the folder that holds them. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "entries": ["FolderEntry", "list_folder"],
        "feature_file": ["FeatureFile", "ImageTable"],
        "feature_set": ["FeatureSet"],
        "header": ["FeatureFileHeader", "Layer"],
        "lock": ["write_lock"],
        "writer": ["FeatureFileWriter"],
    },
)

if TYPE_CHECKING:
    from featx.features.entries import FolderEntry as FolderEntry
    from featx.features.entries import list_folder as list_folder
    from featx.features.feature_file import FeatureFile as FeatureFile
    from featx.features.feature_file import ImageTable as ImageTable
    from featx.features.feature_set import FeatureSet as FeatureSet
    from featx.features.header import FeatureFileHeader as FeatureFileHeader
    from featx.features.header import Layer as Layer
    from featx.features.lock import write_lock as write_lock
    from featx.features.writer import FeatureFileWriter as FeatureFileWriter
