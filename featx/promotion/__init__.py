"""Promotion: a head moved onto its backbone as one network, fine-tuned, and saved as a model.

The public names are loaded on first use (PEP 562), so that ``featx --help`` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": ["FineTuning"],
        "model": ["PromotedModel"],
        "promotion": ["Promotion", "promote"],
    },
)

if TYPE_CHECKING:
    from featx.promotion.config import FineTuning as FineTuning
    from featx.promotion.model import PromotedModel as PromotedModel
    from featx.promotion.promotion import Promotion as Promotion
    from featx.promotion.promotion import promote as promote
