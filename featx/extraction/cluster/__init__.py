"""Extraction on a cluster with Ray Data: the driver plans and writes, the cluster reads, decodes and runs the network.

The public names are loaded on first use (PEP 562), so that settings are checked without Ray and without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"computation": ["RayComputation"], "connection": ["Cluster", "Connection"], "settings": ["RaySettings"]},
)

if TYPE_CHECKING:
    from featx.extraction.cluster.computation import RayComputation as RayComputation
    from featx.extraction.cluster.connection import Cluster as Cluster
    from featx.extraction.cluster.connection import Connection as Connection
    from featx.extraction.cluster.settings import RaySettings as RaySettings
