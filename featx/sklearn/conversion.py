"""A pipeline that was fitted in scikit-learn as a head of featx, which predicts, serves and exports images."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from featx.errors import HeadError
from featx.heads.head import Head
from featx.heads.predictors import LinearPredictor
from featx.sklearn.head_estimators import HeadClassifier, HeadRegressor
from featx.sklearn.image_embedder import ImageEmbedder
from featx.text import described


def to_head(pipeline: Any) -> Head:
    """Turn a fitted pipeline, images to predictions, into a ``Head`` that knows its backbone.

    Its file, ``to_head(pipeline).save("head.safetensors")``, is one as ``featx fit-head`` writes it, for ``featx predict``
    and every other command that takes a head.

    Args:
        pipeline: a fitted ``Pipeline`` of an ``ImageEmbedder`` and a ``HeadClassifier`` or ``HeadRegressor``, perhaps with a
            ``StandardScaler`` between them; or a fitted search, whose best pipeline is one. The ``ImageEmbedder`` may be the
            only transformer of a ``ColumnTransformer``.

    Raises:
        HeadError: the pipeline has other steps, or is not linear and averages the features of several views.

    Example:

        pipeline = make_pipeline(ImageEmbedder("resnet50"), HeadClassifier()).fit(paths, labels)
        to_head(pipeline).save("models/flowers.safetensors")
    """
    pipeline = getattr(pipeline, "best_estimator_", pipeline)
    if not isinstance(pipeline, Pipeline):
        raise HeadError(f"to_head got {described(pipeline)}; expected a fitted Pipeline(ImageEmbedder, HeadClassifier)")
    steps = [step for _, step in pipeline.steps if step is not None and step != "passthrough"]
    embedder, *between, estimator = steps if len(steps) > 1 else (None, None)
    if isinstance(embedder, ColumnTransformer):
        embedder = _only_one_of(embedder)
    if not isinstance(embedder, ImageEmbedder) or not isinstance(estimator, HeadClassifier | HeadRegressor):
        found = ", ".join(type(step).__name__ for step in steps)
        raise HeadError(
            f"the pipeline is {found}; expected an ImageEmbedder first, and a HeadClassifier or HeadRegressor last"
        )
    check_is_fitted(estimator)
    head = copy.copy(estimator.head_)
    head._forget_arrays()
    for step in reversed(between):
        _fold(step, head)
    embedding = embedder.embedding()
    backbone = embedding.backbone
    if len(backbone.views) > 1 and not isinstance(head.predictor_, LinearPredictor):
        raise HeadError(
            f"the pipeline averages the features of {len(backbone.views)} views, and a {head.kind} head averages scores, which "
            "are others; views='plain', or a linear kind such as logreg, makes a pipeline that is a head"
        )
    head.__dict__.update(
        layer_=embedding.layer,
        identity_=backbone.identity_of(embedding.layer),
        backbone_={"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()},
    )
    return head


def _only_one_of(columns: ColumnTransformer) -> Any:
    """The only transformer of a ``ColumnTransformer``; itself if it has several."""
    fitted = [step for _, step, _ in getattr(columns, "transformers_", columns.transformers) if step != "drop"]
    return fitted[0] if len(fitted) == 1 else columns


def _fold(step: Any, head: Head) -> None:
    """Fold a scaler into the standardisation of the head that follows it."""
    if not isinstance(step, StandardScaler):
        raise HeadError(
            f"the pipeline has a {type(step).__name__} between the images and the head, and a head takes features as the "
            "network gives them; expected nothing there, or a StandardScaler"
        )
    check_is_fitted(step)
    scale = np.ones(len(head.mean_)) if step.scale_ is None else step.scale_
    mean = np.zeros(len(head.mean_)) if not step.with_mean else step.mean_
    head.__dict__.update(mean_=mean + scale * head.mean_, scale_=scale * head.scale_)
