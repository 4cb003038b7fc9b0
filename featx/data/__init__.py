"""Images in: sources, splits, decoding, transforms and the loader."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ImageSet": "image_set",
    "Transform": "transform",
    "hash_group_splits": "splits",
    "hash_splits": "splits",
    "image_key": "image_set",
    "join_groups": "splits",
    "scan_images": "scan",
}

__all__ = ["ImageSet", "Transform", "hash_group_splits", "hash_splits", "image_key", "join_groups", "scan_images"]

if TYPE_CHECKING:
    from featx.data.image_set import ImageSet as ImageSet
    from featx.data.image_set import image_key as image_key
    from featx.data.scan import scan_images as scan_images
    from featx.data.splits import hash_group_splits as hash_group_splits
    from featx.data.splits import hash_splits as hash_splits
    from featx.data.splits import join_groups as join_groups
    from featx.data.transform import Transform as Transform


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
