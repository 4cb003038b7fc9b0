"""Heads on several views of each image."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import made
import numpy as np
import pytest
from made import EVERY_HEAD, HEADS, in_views, new
from made_heads import measured, photos, tagged, truth
from sklearn.linear_model import LogisticRegression

from featx.errors import HeadError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads import registry
from featx.heads.estimators import mlp
from featx.heads.head import Head
from featx.heads.postprocess import label_thresholds, softmax
from featx.heads.search import losses


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need; tests/heads/estimators/test_mlp.py is about the others."""
    monkeypatch.setattr(mlp, "EPOCHS", 30)


TASKS = {"classification": partial(photos, gap=1.0), "multilabel": tagged, "regression": measured}


def stacked(features: FeatureSet) -> FeatureSet:
    """Each view as an image of its own, which shares its key with the others of its image."""
    count = features.views
    rows = np.arange(len(features)).repeat(count)
    every = dataclasses.replace(features, features=features.features[:, 0]).take(rows)
    return dataclasses.replace(every, features=features.features.reshape(-1, features.width))


def test_logreg_on_views_is_scikit_learns_on_all_of_them() -> None:
    features = in_views(photos(gap=1.0))
    flat = stacked(features)
    train = flat.splits == "train"
    Z = (flat.features - flat.features[train].mean(axis=0)) / flat.features[train].std(axis=0)
    reference = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000).fit(Z[train], flat.labels[train])
    head = Head("logreg", C=0.3).fit(features)
    np.testing.assert_allclose(head.predict_proba(flat.features), reference.predict_proba(Z), atol=1e-3)
    logits = reference.decision_function(Z).reshape(len(features), 3, 3).mean(axis=1)
    np.testing.assert_allclose(head.predict_proba(features.features), softmax(logits), atol=1e-3)


@EVERY_HEAD
@pytest.mark.parametrize("task", TASKS)
def test_every_head_fits_to_all_views_and_averages_their_scores(task: str, name: str, tmp_path: Path) -> None:
    features = in_views(TASKS[task]())
    if task not in registry.HEAD_KINDS[HEADS[name]["kind"]].tasks:
        with pytest.raises(HeadError, match=f"cannot do {task}"):
            new(name, task=task).fit(features)
        return
    head = new(name, seed=1, task=task).fit(features, cross_validate=True)
    assert head.n_train_ == len(head.train_keys_) == np.count_nonzero(features.splits == "train")
    assert (head.layer, head.views, head.layer_) == ("penultimate", "flip", "penultimate@flip")
    report, rows, out = head.judge(features)
    assert report.n == len(rows) == len(out) == np.count_nonzero(features.splits == "test")
    assert head.held_out_.n <= head.n_train_
    scores = np.stack([head.decision_function(features.features[:, view]) for view in range(3)], axis=1)
    np.testing.assert_allclose(head.decision_function(features.features), scores.mean(axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(head.predict_values(features.features[rows]), out, rtol=1e-9, atol=1e-12)
    again = Head.load(head.save(tmp_path / "head.safetensors"))
    np.testing.assert_allclose(
        again.predict_values(features.features), head.predict_values(features.features), rtol=1e-9, atol=1e-12
    )
    assert (again.layer, again.views) == ("penultimate", "flip")


@EVERY_HEAD
def test_views_of_an_image_never_straddle_a_fold(name: str) -> None:
    """With labels of pure chance a head that saw another view of an image would know it again."""
    rng = np.random.default_rng(0)
    features = photos(train=60, test=10, gap=0.0, dim=40)
    features = in_views(dataclasses.replace(features, labels=rng.permutation(features.labels)), noise=1e-3)
    head = new(name).fit(features, cross_validate=True)
    assert head.held_out_.accuracy < 0.5
    flat = stacked(features)  # the copies of an image are told by their keys there
    assert new(name).fit(flat, cross_validate=True).held_out_.accuracy < 0.5
    strangers = dataclasses.replace(flat, keys=rng.integers(0, 256, flat.keys.shape, dtype=np.uint8))
    if name in ("knn", "svm-rbf"):
        assert new(name).fit(strangers, cross_validate=True).held_out_.accuracy > 0.6


def test_a_search_judges_images_and_not_their_views() -> None:
    features = in_views(photos(gap=1.0), noise=1.0)
    head = Head("ridge").fit(features, cross_validate=True)
    rows, out = head.out_of_fold_
    assert rows.tolist() == sorted(rows.tolist())
    assert len(rows) == head.n_train_
    y = features.labels[np.flatnonzero(features.splits == "train")][rows]
    assert head.held_out_.accuracy == (out.argmax(axis=1) == y).mean()
    best = min(head.search_, key=lambda tried: tried.loss)
    smoothed = losses(np.log(out), y, "classification", smoothed=True).mean()
    assert best.loss == pytest.approx(smoothed, abs=1e-3)


def test_averaging_over_noisy_views_pays() -> None:
    features = in_views(made.photos(train=40, test=200), 8, noise=2.0)
    noisy = dataclasses.replace(features, features=features.features[:, 1])
    averaged, once = (Head("logreg").fit(some).evaluate(some).accuracy for some in (features, noisy))
    assert averaged > once + 0.05


def test_calibration_thresholds_and_rejection_are_of_the_averaged_scores() -> None:
    features = in_views(photos(gap=2.5))
    for options in (
        {"calibrate": "isotonic"},
        {"target_precision": 0.5},
        {"class_weight": "balanced"},
        {"logit_adjustment": 1.0},
    ):
        head = Head("svm", **options).fit(features)
        out = head.predict_values(features.features)
        np.testing.assert_allclose(out.sum(axis=1), 1.0)
        assert head.held_out_.n == head.n_train_
    head = Head("logreg").fit(in_views(tagged()), cross_validate=True)
    rows, out = head.out_of_fold_
    np.testing.assert_allclose(head.thresholds_, label_thresholds(out, truth(tagged())[:150][rows]))


def test_a_share_of_the_rows_is_searched_image_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    features = in_views(photos(train=400, test=20, gap=1.0))
    monkeypatch.setattr("featx.heads.search.MAX_SEARCH_BYTES", 1)
    head = Head("logreg").fit(features)
    assert any(note.startswith("C was chosen on 1000 of 1200 rows") for note in head.notes_)
    assert head.held_out_.n == 1000


def test_a_view_that_is_not_finite_is_an_image_that_is_not(tmp_path: Path) -> None:
    features = in_views(photos())
    head = Head("logreg").fit(features)
    X = features.features.copy()
    X[3, 2, 0] = np.nan
    assert np.isnan(head.predict_values(X)[3]).all()
    assert np.isfinite(np.delete(head.predict_values(X), 3, axis=0)).all()
    with pytest.raises(HeadError, match="1 row of features of the split 'train' is NaN"):
        Head("logreg").fit(dataclasses.replace(features, features=X))


def test_features_of_one_view_are_not_those_of_several() -> None:
    features = in_views(photos())
    plain = dataclasses.replace(features, features=features.features[:, 0], layer="penultimate", identity="f00d" * 16)
    with pytest.raises(StaleCacheError, match="layer: penultimate@flip against penultimate"):
        Head("centroid").fit(features).evaluate(plain)
    with pytest.raises(HeadError, match=r"features of shape \(2, 3, 4, 5\); expected \(N, 6\), or \(N, V, 6\)"):
        Head("centroid").fit(features).predict_values(np.zeros((2, 3, 4, 5)))
