"""Predictions of any number of images, written to a table as they come. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"writing": ["WrittenPredictions", "write_predictions"]})

if TYPE_CHECKING:
    from featx.streaming.writing import WrittenPredictions as WrittenPredictions
    from featx.streaming.writing import write_predictions as write_predictions
