"""Promotion: a head moved onto its backbone as one network, fine-tuned, and saved as a model.

The public names are loaded on first use (PEP 562), so that ``featx --help`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "FineTuning": "config",
    "PromotedModel": "model",
    "Promotion": "promotion",
    "promote": "promotion",
}

__all__ = [*sorted(_HOMES)]

if TYPE_CHECKING:
    from featx.promotion.config import FineTuning as FineTuning
    from featx.promotion.model import PromotedModel as PromotedModel
    from featx.promotion.promotion import Promotion as Promotion
    from featx.promotion.promotion import promote as promote


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
