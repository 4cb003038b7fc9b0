"""What files contain, and whether they are intact. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "coordinates": ["map_coordinates"],
        "info": ["describe_file", "file_kind"],
        "verify": ["verify_file"],
    },
)

if TYPE_CHECKING:
    from featx.inspection.coordinates import map_coordinates as map_coordinates
    from featx.inspection.info import describe_file as describe_file
    from featx.inspection.info import file_kind as file_kind
    from featx.inspection.verify import verify_file as verify_file
