"""Temperature, weights of classes, calibration and rejection of fitted heads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made import HEADS, new, with_labels
from made_heads import photos, tagged, uneven
from sklearn.linear_model import LogisticRegression

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.estimators import mlp
from featx.heads.head import Head
from featx.heads.postprocess import softmax
from featx.heads.search import losses


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need; tests/heads/estimators/test_mlp.py is about the others."""
    monkeypatch.setattr(mlp, "EPOCHS", 30)


# Temperature


def log_loss(logits: np.ndarray, y: np.ndarray) -> float:
    return float(losses(logits, y, "classification").mean())


@pytest.mark.parametrize("name", ["svm", "svm-rbf", "ridge", "centroid", "knn", "linear"])
def test_a_temperature_betters_the_log_loss_of_new_images_and_no_choice_changes(name: str) -> None:
    features = photos(train=40, test=100, gap=1.5)
    head = new(name).fit(features)
    test = features.split("test")
    logits = head.decision_function(test.features)
    scores = logits * head.temperature_
    assert head.temperature_ > 0
    assert head.temperature_ != 1.0
    assert log_loss(logits, test.labels) < log_loss(scores, test.labels)
    np.testing.assert_array_equal(logits.argmax(axis=1), scores.argmax(axis=1))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_few_images_with_rare_labels_have_probabilities_about_as_low_as_the_labels_are_rare(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random((219, 4)) < 0.25).astype(int)
    X = rng.normal(size=(219, 200)).astype(np.float32)
    X[:, :4] += 2.5 * y
    X[:, 4:40] += 0.7 * y.repeat(9, axis=1)
    names = ["|".join(name for name, has in zip("abcd", row, strict=True) if has) or "|" for row in y]
    features = FeatureSet.from_arrays(X, names, splits=["train"] * 19 + ["test"] * 200)
    p = Head("svm", task="multilabel").fit(features).predict_values(X[19:])
    assert p.mean() == pytest.approx(0.25, abs=0.1)  # not 1/2, as of scores that say nothing
    assert p[y[19:] > 0].mean() > p[y[19:] == 0].mean() + 0.03


def test_a_probability_model_needs_no_temperature() -> None:
    assert new("logreg").fit(photos()).temperature_ == 1.0


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_network_for_numbers_has_nothing_to_calibrate(name: str) -> None:
    features = photos(train=40)
    features = with_labels(features, [f"{x:.3f}" for x in features.features[:, 0]])
    head = new(name, task="regression").fit(features)
    assert (head.temperature_, head.held_out_ is None) == (1.0, name == "linear")


@pytest.mark.parametrize("name", ["centroid", "ridge", "svm", "knn", "linear"])
def test_probabilities_are_as_even_as_they_should_be_with_many_classes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "EPOCHS", 200)
    rng = np.random.default_rng(0)
    means = rng.normal(size=(102, 102)) * 0.5
    labels = np.arange(102 * 30) % 102
    features = dataclasses.replace(
        photos(train=10, test=20, classes=tuple(f"c{label:03d}" for label in range(102)), dim=102),
        features=(means[labels] + rng.normal(size=(len(labels), 102))).astype(np.float32),
    )
    options = {"C": 1e-3} if name == "svm" else {}
    report = new(name, **options).fit(features).evaluate(features)
    assert report.accuracy > 0.7
    assert report.ece < 0.05


def test_softmax_and_log_loss_are_stable_for_large_logits() -> None:
    logits = np.array([[1e5, 0.0, -1e5], [-1e5, -1e5, -1e5 + 1.0]])
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities[0], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(probabilities[1], np.array([1.0, 1.0, np.e]) / (2 + np.e))
    assert log_loss(logits[:1], np.array([0])) == 0.0
    assert log_loss(logits[:1], np.array([2])) == pytest.approx(2e5)


# Classes that are not alike


@pytest.mark.parametrize("classes", [("ant", "bee"), ("ant", "bee", "cat")], ids=["two", "three"])
def test_balanced_weights_are_scikit_learn_s(classes: tuple[str, ...]) -> None:
    features = uneven()
    features = features.take(np.flatnonzero(features.labels < len(classes)))
    train = features.splits == "train"
    X = features.features.astype(np.float64)
    Z = (X - X[train].mean(axis=0)) / X[train].std(axis=0)
    plain = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000).fit(Z[train], features.labels[train])
    even = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000, class_weight="balanced")
    expected = even.fit(Z[train], features.labels[train]).predict_proba(Z)
    found = Head("logreg", C=0.3, class_weight="balanced").fit(features).predict_proba(features.features)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(plain.predict_proba(Z) - expected).max() > 0.1


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("linear", "centroid")])
def test_balanced_weights_find_rare_classes_more_often(name: str) -> None:
    features = uneven()
    plain, even = new(name).fit(features), new(name, class_weight="balanced").fit(features)
    assert even.evaluate(features).recall[2] > plain.evaluate(features).recall[2]
    assert even.parameters["class_weight"] == "balanced"


def test_a_weight_for_each_class_is_kept_in_the_file_by_its_name(tmp_path: Path) -> None:
    features = uneven()
    rows = np.bincount(features.labels[features.splits == "train"])
    weights = dict(zip(features.classes, rows.sum() / (3 * rows), strict=True))  # those of "balanced"
    head = new("ridge", class_weight=weights).fit(features)
    even = new("ridge", class_weight="balanced").fit(features)
    np.testing.assert_allclose(head.predict_proba(features.features), even.predict_proba(features.features))
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert loaded.class_weight == head.parameters["class_weight"] == {name: float(w) for name, w in weights.items()}
    one = {name: weight for name, weight in weights.items() if name == "cat"}
    assert new("ridge", class_weight=one).fit(features).parameters["class_weight"] == {"cat": pytest.approx(120 / 30)}
    with pytest.raises(HeadError, match="class_weight gives every class the weight 0"):
        new("ridge", class_weight=dict.fromkeys(features.classes, 0)).fit(features)


@pytest.mark.parametrize("name", ["logreg", "ridge", "knn"])
def test_logit_adjustment_takes_the_log_of_each_class_s_share_from_the_logits(name: str, tmp_path: Path) -> None:
    features = uneven()
    plain, adjusted = new(name).fit(features), new(name, logit_adjustment=0.5).fit(features)
    shift = 0.5 * np.log(np.array([80, 30, 10]) / 120)
    np.testing.assert_allclose(adjusted.offset_, shift)
    expected = plain.decision_function(features.features) - shift
    np.testing.assert_allclose(adjusted.decision_function(features.features), expected, atol=1e-12)
    np.testing.assert_allclose(adjusted.predict_proba(features.features), softmax(expected), atol=1e-12)
    assert adjusted.evaluate(features).recall[2] > plain.evaluate(features).recall[2]
    loaded = Head.load(adjusted.save(tmp_path / "h"))
    np.testing.assert_array_equal(
        loaded.decision_function(features.features), adjusted.decision_function(features.features)
    )
    assert loaded.logit_adjustment == 0.5


def test_logit_adjustment_is_part_of_the_matrix_and_vector() -> None:
    features = uneven()
    head = Head("svm", logit_adjustment=1.0).fit(features)
    weight, bias = head.as_linear()
    logits = features.features.astype(np.float64) @ weight.T + bias
    np.testing.assert_allclose(logits, head.decision_function(features.features), atol=1e-9)


# Calibration and rejection


@pytest.mark.parametrize("name", ["logreg", "ridge", "knn", "centroid"])
def test_isotonic_curves_are_fitted_to_held_out_rows_and_saved(name: str, tmp_path: Path) -> None:
    features = photos(train=60, test=60, gap=1.0)
    head = new(name, calibrate="isotonic").fit(features)
    plain = new(name, calibrate="temperature").fit(features)
    assert head.temperature_ == plain.temperature_
    p = head.predict_proba(features.features)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_allclose(p, head.isotonic_.apply(plain.predict_proba(features.features)), atol=1e-12)
    assert np.abs(p - plain.predict_proba(features.features)).max() > 0.02
    loaded = Head.load(head.save(tmp_path / "h"))
    np.testing.assert_array_equal(loaded.predict_proba(features.features), p)
    X = np.array(features.features[:3], dtype=np.float64)
    X[1, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(loaded.predict_proba(X)).all(axis=1), [False, True, False])
    with pytest.raises(HeadError, match=f"a {name} head with isotonic calibration is not linear, .* --calibrate temp"):
        loaded.as_linear()


def test_isotonic_curves_of_labels_are_each_for_itself(tmp_path: Path) -> None:
    features = tagged(noise=1.0)
    head = Head("ridge", calibrate="isotonic").fit(features)
    plain = Head("ridge").fit(features).predict_proba(features.features)
    p = head.predict_proba(features.features)
    np.testing.assert_allclose(p, head.isotonic_.apply(plain, normalise=False), atol=1e-12)
    loaded = Head.load(head.save(tmp_path / "h"))
    np.testing.assert_array_equal(loaded.predict_proba(features.features), p)
    assert head.held_out_.ece < Head("ridge").fit(features).held_out_.ece


@pytest.mark.parametrize("name", ["ridge", "svm", "knn", "centroid"])
def test_scores_may_stay_as_they_are(name: str) -> None:
    features = photos(gap=1.0)
    head = new(name, calibrate="none").fit(features)
    assert (head.temperature_, head.isotonic_) == (1.0, None)
    Z = (features.features.astype(np.float64) - head.mean_) / head.scale_
    np.testing.assert_allclose(head.decision_function(features.features), head.predictor_.decision_function(Z))


def test_a_probability_model_may_be_given_a_temperature_all_the_same() -> None:
    head = Head("logreg", C=100.0, calibrate="temperature").fit(photos(train=30, gap=1.0, dim=30))
    assert head.temperature_ > 1.2  # so weak a penalty makes it too sure
    assert (
        head.held_out_.log_loss
        < Head("logreg", C=100.0).fit(photos(train=30, gap=1.0, dim=30), cross_validate=True).held_out_.log_loss
    )


def test_what_is_not_probable_enough_is_not_said(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    head = Head("logreg", reject_below=0.6).fit(features)
    p, said = head.predict_proba(features.features), head.predict(features.features)
    for name, row in zip(said, p, strict=True):
        assert name == (features.classes[row.argmax()] if row.max() >= 0.6 else None)
    accepted = p[60:].max(axis=1) >= 0.6
    report = head.evaluate(features)
    assert 0 < report.coverage == accepted.mean() < 1
    right = p[60:].argmax(axis=1) == features.labels[60:]
    assert report.selective_accuracy == right[accepted].mean()
    loaded = Head.load(head.save(tmp_path / "h"))
    assert (loaded.reject_below_, loaded.predict(features.features).tolist()) == (0.6, said.tolist())
    assert loaded.evaluate(features).as_dict() == report.as_dict()


def test_a_wanted_precision_is_had_on_held_out_rows(tmp_path: Path) -> None:
    features = photos(train=400, test=400, gap=1.5)
    head = Head("logreg", target_precision=0.9).fit(features)
    assert head.held_out_.accuracy < 0.85
    assert head.held_out_.selective_accuracy >= 0.9
    assert 0.1 < head.held_out_.coverage < 1
    assert head.held_out_.reject_below == head.reject_below_
    assert head.evaluate(features).selective_accuracy >= 0.9
    assert "the rejection threshold was chosen on these same rows" in " ".join(head.held_out_.notes)
    assert None in head.predict(features.features)
    loaded = Head.load(head.save(tmp_path / "h"))
    assert loaded.predict(features.features).tolist() == head.predict(features.features).tolist()


def test_a_precision_that_nothing_gives_names_the_best_that_something_does() -> None:
    features = photos(gap=0.0)
    features.features[:] = 1.0  # so that all images are alike
    with pytest.raises(
        HeadError,
        match=r"precision of 0\.9, with 95 % confidence, on the 60 held-out rows\. What is shown is a precision of 0\.",
    ):
        Head("logreg", target_precision=0.9).fit(features)
