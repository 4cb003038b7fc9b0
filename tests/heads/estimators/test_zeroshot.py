"""Zero-shot heads: the texts of the classes, and nothing learned from images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featx import FeatureSet
from featx.errors import CorruptFileError, HeadError
from featx.heads.head import Head
from featx.heads.out_of_fold import predict_held_out
from featx.heads.registry import auto_candidates
from featx.heads.texts import ClassTexts
from featx.io import model_file


def texts_of(*names: str, width: int = 6, scale: float = 20.0, bias: float = 0.0, sigmoid: bool = False) -> ClassTexts:
    vectors = np.random.default_rng(1).normal(size=(len(names), width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ClassTexts(names, names, ("a photo of a {}",), vectors, scale, bias, sigmoid)


def features_like(texts: ClassTexts, count: int = 60, noise: float = 0.2) -> FeatureSet:
    """Embeddings of various lengths beside the texts of their classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % len(texts.names)
    X = texts.vectors[labels] + noise * rng.normal(size=(count, texts.vectors.shape[1]))
    return FeatureSet(
        features=(X * rng.uniform(0.5, 9, (count, 1))).astype(np.float32),
        labels=labels,
        splits=np.where(np.arange(count) < 40, "train", "test").astype(object),
        classes=texts.names,
        paths=np.arange(count).astype(str).astype(object),
        keys=rng.integers(0, 256, (count, 16), dtype=np.uint8),
    )


def test_a_zero_shot_head_is_the_softmax_of_scaled_cosines() -> None:
    texts = texts_of("ant", "bee", "cow")
    features = features_like(texts)
    head = Head("zeroshot", texts=texts).fit(features)
    X = np.asarray(features.features, np.float64)
    cosines = X / np.linalg.norm(X, axis=1, keepdims=True) @ texts.vectors.T
    expected = np.exp(20 * cosines)
    np.testing.assert_allclose(head.predict_proba(X), expected / expected.sum(1, keepdims=True), rtol=1e-9)
    assert (head.n_train_, len(head.train_keys_)) == (0, 0), "no image is one that the head has seen"
    assert head.evaluate(features).accuracy > 0.8
    assert head.evaluate(features, split="all").n == 60


def test_it_needs_no_training_images_and_keeps_classes_without_any(tmp_path: Path) -> None:
    texts = texts_of("ant", "bee", "cow", "dog")
    features = features_like(texts_of("ant", "bee", "cow", "dog"))
    few = FeatureSet(**{
        **{name: getattr(features, name) for name in ("features", "classes", "paths", "keys")},
        "labels": np.full(60, -1), "splits": np.full(60, "test", dtype=object),
    })  # fmt: skip
    head = Head("zeroshot", texts=texts).fit(few)
    assert head.classes_ == ("ant", "bee", "cow", "dog")
    assert (head.predict(features.features) == np.array(features.classes)[features.labels]).mean() > 0.8


def test_it_is_saved_with_its_texts_and_loaded_without_any_text_tower(tmp_path: Path) -> None:
    texts = texts_of("ant", "bee", "cow", bias=-3.0, sigmoid=True)
    features = features_like(texts)
    head = Head("zeroshot", texts=texts, reject_below=0.5).fit(features)
    again = Head.load(head.save(tmp_path / "h.safetensors"))
    np.testing.assert_array_equal(again.predict_proba(features.features), head.predict_proba(features.features))
    assert again.texts is not None
    assert again.texts.facts == texts.facts
    assert again.reject_below_ == 0.5
    np.testing.assert_array_equal(
        again.clone().fit(features).predict_proba(features.features), head.predict_proba(features.features)
    )


def test_several_labels_need_a_model_trained_by_sigmoids() -> None:
    texts = texts_of("ant", "bee", bias=-10.0, scale=20.0, sigmoid=True)
    features = features_like(texts)
    head = Head("zeroshot", texts=texts, task="multilabel").fit(features)
    X = np.asarray(features.features, np.float64)
    cosines = X / np.linalg.norm(X, axis=1, keepdims=True) @ texts.vectors.T
    np.testing.assert_allclose(head.predict_proba(X), 1 / (1 + np.exp(10 - 20 * cosines)), rtol=1e-9)
    with pytest.raises(HeadError, match=r"trained to tell texts apart \(softmax\).*such as SigLIP"):
        Head("zeroshot", texts=texts_of("ant", "bee"), task="multilabel").fit(features)


def test_out_of_fold_predictions_are_its_predictions() -> None:
    texts = texts_of("ant", "bee", "cow")
    features = features_like(texts)
    head = Head("zeroshot", texts=texts).fit(features)
    held_out = predict_held_out(head, features, features.rows("train"))
    np.testing.assert_allclose(held_out.outputs, head.predict_proba(features.features[:40])[held_out.rows], rtol=1e-9)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kind": "zeroshot", "calibrate": "temperature"}, "learns nothing from images, so calibrate has no effect"),
        ({"kind": "zeroshot", "class_weight": "balanced"}, "learns nothing from images, so class_weight has no effect"),
        ({"kind": "zeroshot", "logit_adjustment": 1.0}, "logit_adjustment would favour rare classes"),
        ({"kind": "svm"}, "only logreg can be regularised towards the texts of its classes, and this head is svm"),
    ],
)
def test_what_has_no_effect_on_a_zero_shot_head_is_refused(params: dict[str, object], message: str) -> None:
    texts = texts_of("ant", "bee")
    with pytest.raises(HeadError, match=message):
        Head(**params, texts=texts).fit(features_like(texts))  # type: ignore[arg-type]


def test_texts_that_are_missing_or_of_another_width_are_refused() -> None:
    texts = texts_of("ant", "bee")
    with pytest.raises(HeadError, match=r"needs the texts of its classes: featx\.fit_head"):
        Head("zeroshot").fit(features_like(texts))
    with pytest.raises(HeadError, match=r"the texts have 8 numbers and the features of .* 6"):
        Head("zeroshot", texts=texts_of("ant", "bee", width=8)).fit(features_like(texts))
    with pytest.raises(HeadError, match="expected at least two different ones"):
        texts_of("ant", "ant")


def test_a_zero_shot_head_cannot_be_the_last_layer_of_a_network() -> None:
    texts = texts_of("ant", "bee")
    head = Head("zeroshot", texts=texts).fit(features_like(texts))
    assert not head.is_linear
    with pytest.raises(HeadError, match="no layer of a network divides by that length"):
        head.as_linear()


def test_auto_compares_no_head_that_needs_texts() -> None:
    assert "zeroshot" not in dict(auto_candidates("classification", 100))


def test_texts_in_a_damaged_file_are_refused(tmp_path: Path) -> None:
    texts = texts_of("ant", "bee")
    path = Head("zeroshot", texts=texts).fit(features_like(texts)).save(tmp_path / "h.safetensors")
    from featx.heads.head_file import HEAD

    arrays, metadata = model_file.read(path, HEAD)
    for facts, message in (({**metadata["texts"], "scale": -1.0}, r"texts\.scale"), ({}, "texts lacks")):
        model_file.write(path, arrays, {**metadata, "texts": facts}, HEAD)
        with pytest.raises(CorruptFileError, match=message):
            Head.load(path)
