"""featx in pipelines of scikit-learn: images to features through the cache, and heads as its classifiers and regressors.

The public names are loaded on first use (PEP 562). Importing the package makes its estimators known to skops, whichever of
the two is imported first; see ``featx.sklearn.trusted_types``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names
from featx.sklearn.trusted_types import trust_when_imported

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "conversion": ["to_head"],
        "head_estimators": ["HeadClassifier", "HeadRegressor"],
        "image_embedder": ["ImageEmbedder"],
    },
)

if TYPE_CHECKING:
    from featx.sklearn.conversion import to_head as to_head
    from featx.sklearn.head_estimators import HeadClassifier as HeadClassifier
    from featx.sklearn.head_estimators import HeadRegressor as HeadRegressor
    from featx.sklearn.image_embedder import ImageEmbedder as ImageEmbedder

trust_when_imported()
