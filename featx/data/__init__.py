"""Images in: sources, splits, decoding, transforms and the loader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "file_bytes": ["image_key"],
        "image_set": ["ImageSet"],
        "scan": ["scan_images"],
        "scan_options": ["ScanOptions"],
        "splits": ["hash_group_splits", "hash_splits", "join_groups"],
        "transform": ["Transform"],
    },
)

if TYPE_CHECKING:
    from featx.data.file_bytes import image_key as image_key
    from featx.data.image_set import ImageSet as ImageSet
    from featx.data.scan import scan_images as scan_images
    from featx.data.scan_options import ScanOptions as ScanOptions
    from featx.data.splits import hash_group_splits as hash_group_splits
    from featx.data.splits import hash_splits as hash_splits
    from featx.data.splits import join_groups as join_groups
    from featx.data.transform import Transform as Transform
