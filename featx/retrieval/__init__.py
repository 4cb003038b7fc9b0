"""Images like others, and the training images behind a prediction. The public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "explanation": ["Explanation", "Influence", "TrainingImage", "explain", "iter_explanations"],
        "sheet": ["write_explanation_sheet", "write_search_sheet"],
        "similar": ["Hit", "SearchResult", "iter_search", "search"],
    },
)

if TYPE_CHECKING:
    from featx.retrieval.explanation import Explanation as Explanation
    from featx.retrieval.explanation import Influence as Influence
    from featx.retrieval.explanation import TrainingImage as TrainingImage
    from featx.retrieval.explanation import explain as explain
    from featx.retrieval.explanation import iter_explanations as iter_explanations
    from featx.retrieval.sheet import write_explanation_sheet as write_explanation_sheet
    from featx.retrieval.sheet import write_search_sheet as write_search_sheet
    from featx.retrieval.similar import Hit as Hit
    from featx.retrieval.similar import SearchResult as SearchResult
    from featx.retrieval.similar import iter_search as iter_search
    from featx.retrieval.similar import search as search
