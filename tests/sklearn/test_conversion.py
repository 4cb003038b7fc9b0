"""Pipelines of scikit-learn as heads of featx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.errors import HeadError
from featx.inference import predict
from featx.sklearn import HeadClassifier, HeadRegressor, ImageEmbedder, to_head

RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 3
IMAGES = (RNG.integers(0, 120, (24, 12, 12)) + 60 * LABELS[:, None, None]).astype(np.uint8)


def embedder(**params: str) -> ImageEmbedder:
    return ImageEmbedder("lenet5", cache=None, device="cpu", **params)


@pytest.mark.parametrize(
    "pipeline",
    [
        make_pipeline(embedder(), HeadClassifier("ridge", C=0.1)),
        make_pipeline(embedder(), "passthrough", HeadClassifier("knn", k=3)),
        make_pipeline(embedder(layer="features.3:max,penultimate"), StandardScaler(), HeadClassifier("logreg", C=0.1)),
        make_pipeline(embedder(views="flip"), StandardScaler(with_mean=False), HeadClassifier("ridge", C=0.1)),
        make_pipeline(embedder(), StandardScaler(with_std=False), HeadClassifier("centroid", calibrate="isotonic")),
    ],
    ids=["plain", "neighbours", "scaled", "views", "centred"],
)
def test_the_head_of_a_pipeline_predicts_images_as_the_pipeline_does(pipeline: HeadClassifier, tmp_path: Path) -> None:
    pipeline.fit(IMAGES, LABELS)
    file = to_head(pipeline).save(tmp_path / "head.safetensors")
    found = predict(file, list(IMAGES), top=3, cache=None)
    assert [prediction.value for prediction in found] == pipeline.predict(IMAGES).astype(str).tolist()
    by_class = [dict(prediction.top) for prediction in found]
    np.testing.assert_allclose(
        [[each[name] for name in ("0", "1", "2")] for each in by_class], pipeline.predict_proba(IMAGES), atol=1e-6
    )
    assert pipeline.predict(IMAGES).dtype.kind == "i"  # the pipeline is as it was


def test_the_head_of_a_regression_predicts_numbers(tmp_path: Path) -> None:
    pipeline = make_pipeline(embedder(), HeadRegressor()).fit(IMAGES, LABELS / 2)
    file = to_head(pipeline).save(tmp_path / "head.safetensors")
    values = [prediction.value for prediction in predict(file, list(IMAGES), cache=None)]
    np.testing.assert_allclose(np.array(values, dtype=float), pipeline.predict(IMAGES), atol=1e-6)


def test_the_best_pipeline_of_a_search_on_a_data_frame_is_a_head(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    frame = pandas.DataFrame({"image": list(IMAGES), "age": LABELS})
    pipeline = make_pipeline(make_column_transformer((embedder(), ["image"])), HeadClassifier("ridge"))
    search = GridSearchCV(pipeline, {"headclassifier__C": [0.01, 0.1]}, cv=2).fit(frame, LABELS)
    file = to_head(search).save(tmp_path / "head.safetensors")
    values = [prediction.value for prediction in predict(file, list(IMAGES), cache=None)]
    assert values == search.predict(frame).astype(str).tolist()
    both = make_pipeline(
        make_column_transformer((embedder(), ["image"]), ("passthrough", ["age"])), HeadClassifier("centroid")
    )
    with pytest.raises(HeadError, match="the pipeline is ColumnTransformer, HeadClassifier; expected an ImageEmbedder"):
        to_head(both.fit(frame, LABELS))


def test_what_is_no_head_is_refused_with_the_reason() -> None:
    with pytest.raises(HeadError, match="expected a fitted Pipeline"):
        to_head(HeadClassifier())
    with pytest.raises(HeadError, match="ImageEmbedder, LogisticRegression; expected an ImageEmbedder first"):
        to_head(make_pipeline(embedder(), LogisticRegression()))
    with pytest.raises(HeadError, match="the pipeline has a PCA between the images and the head"):
        to_head(make_pipeline(embedder(), PCA(5), HeadClassifier("ridge", C=1.0)).fit(IMAGES, LABELS))
    with pytest.raises(HeadError, match="averages the features of 2 views, and a knn head averages scores"):
        to_head(make_pipeline(embedder(views="flip"), HeadClassifier("knn", k=3)).fit(IMAGES, LABELS))
    with pytest.raises(ValueError, match="not fitted"):
        to_head(make_pipeline(embedder(), HeadClassifier()))
