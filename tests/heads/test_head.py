from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from made import EVERY_HEAD, HEADS, PARTS, in_views, new, with_labels
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from featx.errors import BackboneError, CacheMissError, CorruptFileError, HeadError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads import predictors, registry, training_data
from featx.heads.estimators import linear, mlp
from featx.heads.estimators.linear import C_PATH
from featx.heads.folds import make_folds
from featx.heads.head import Head, softmax, stored_report
from featx.heads.postprocess import fit_temperature, label_thresholds
from featx.heads.search import AS_GOOD, losses
from featx.heads.solver import matrices
from featx.heads.solver.matrices import Rotated
from featx.inspection.info import describe_file
from featx.io import model_file
from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport

photos = partial(made.photos, stretched=True)
LINEAR = ["logreg", "linear", "svm", "ridge", "centroid"]


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need; tests/test_minibatch.py is about the others."""
    monkeypatch.setattr(mlp, "EPOCHS", 30)


def state(head: Head) -> dict[str, np.ndarray]:
    """All that a head computes with."""
    parts = {f.name: np.asarray(getattr(head.predictor_, f.name)) for f in dataclasses.fields(head.predictor_)}
    calibration = {"temperature": np.array(head.temperature_), "offset": head.offset_}
    return {**parts, "mean": head.mean_, "scale": head.scale_, **calibration}


def assert_same_state(one: Head, other: Head) -> None:
    for name, array in state(one).items():
        np.testing.assert_array_equal(array, state(other)[name], err_msg=name)


# Every kind of head


@EVERY_HEAD
@pytest.mark.parametrize("classes", [("ant", "bee"), ("ant", "bee", "cat")], ids=["two", "three"])
def test_every_head_learns_and_is_the_same_after_a_save(name: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    features = photos(classes=classes, train=30, test=50, gap=2.0, seed=2)
    head = new(name).fit(features)
    report = head.evaluate(features)
    assert report.accuracy > 0.3 + 1 / len(classes)
    assert report.log_loss < 0.8 * np.log(len(classes))
    path = head.save(tmp_path / "head.safetensors", report=report)
    loaded = Head.load(path)
    probabilities = head.predict_proba(features.features)
    np.testing.assert_array_equal(loaded.predict_proba(features.features), probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert loaded.classes_ == classes
    assert loaded.parameters == head.parameters
    assert loaded.search_ == head.search_
    assert (loaded.kind, loaded.layer_, loaded.identity_, loaded.n_train_, loaded.notes_, loaded.seconds_) == (
        (head.kind, head.layer_, head.identity_, head.n_train_, head.notes_, head.seconds_)
    )
    assert (loaded.backbone_, loaded.dataset_, loaded.source_) == (features.backbone, features.dataset, None)
    np.testing.assert_array_equal(loaded.train_keys_, features.keys[features.splits == "train"])
    assert loaded.evaluate(features).as_dict() == report.as_dict()


@EVERY_HEAD
def test_every_head_is_the_same_when_it_is_fitted_again(name: str) -> None:
    features = photos(gap=1.0)
    assert_same_state(new(name).fit(features), new(name).fit(features))


@EVERY_HEAD
def test_predict_names_the_class_of_the_greatest_probability(name: str) -> None:
    features = photos()
    head = new(name).fit(features)
    chosen = head.predict_proba(features.features).argmax(axis=1)
    assert head.predict(features.features).tolist() == [features.classes[c] for c in chosen]


@EVERY_HEAD
def test_nothing_that_a_head_computes_with_comes_from_other_rows_than_those_of_train(name: str) -> None:
    features = photos(gap=1.0)
    test = features.splits == "test"
    X, labels = features.features.copy(), features.labels.copy()
    X[test] = X[test] * -1000.0 + 7.0
    labels[test] = (labels[test] + 1) % 3
    changed = dataclasses.replace(features, features=X, labels=labels)
    one, other = new(name).fit(features), new(name).fit(changed)
    assert_same_state(one, other)
    assert (one.parameters, one.search_) == (other.parameters, other.search_)


def test_features_are_standardised_with_the_mean_and_deviation_of_the_training_rows() -> None:
    features = photos()
    train = features.features[features.splits == "train"].astype(np.float64)
    head = Head("centroid").fit(features)
    np.testing.assert_allclose(head.mean_, train.mean(axis=0))
    np.testing.assert_allclose(head.scale_, train.std(axis=0))


@pytest.mark.parametrize("name", ["logreg", "svm", "svm-rbf", "knn"])
def test_features_in_half_precision_give_nearly_the_same_probabilities(name: str) -> None:
    features = photos()
    half = dataclasses.replace(features, features=features.features.astype(np.float16))
    options = {"k": 5} if name == "knn" else {"C": 0.1}
    one, other = new(name, **options).fit(features), new(name, **options).fit(half)
    close = np.abs(one.predict_proba(features.features) - other.predict_proba(half.features)) < 0.02
    assert close.mean() > 0.98  # a neighbour may change
    assert other.mean_.dtype == np.float64


@EVERY_HEAD
def test_a_feature_that_never_changes_does_no_harm(name: str) -> None:
    features = photos()
    X = np.column_stack(
        [features.features, np.full(len(features), 0.1, np.float32), np.zeros(len(features), np.float32)]
    )
    head = new(name).fit(dataclasses.replace(features, features=X))
    assert head.scale_[-2:].tolist() == [1.0, 1.0]
    unseen = X.copy()
    unseen[:, -2:] += 0.01
    assert np.isfinite(head.decision_function(unseen)).all()
    np.testing.assert_allclose(head.predict_proba(unseen), head.predict_proba(X), atol=0.05)


@EVERY_HEAD
def test_more_features_than_images_are_no_obstacle(name: str) -> None:
    features = photos(train=10, dim=40, gap=9.0)
    assert new(name).fit(features).evaluate(features).accuracy > 0.5


@pytest.mark.parametrize("name", ["logreg", "svm"])
@pytest.mark.parametrize("dim", [6, 40], ids=["narrow", "wide"])
def test_the_short_cut_of_turned_axes_changes_no_result(name: str, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = photos(train=8, dim=dim)
    short = new(name, C=0.01, calibrate="none").fit(features).decision_function(features.features)
    monkeypatch.setattr(Rotated, "of", lambda rows: Rotated(rows.whole(np.float64), None))
    long = new(name, C=0.01, calibrate="none").fit(features).decision_function(features.features)
    np.testing.assert_allclose(short, long, atol=1e-3 * np.abs(long).max())


def test_logreg_reaches_what_raw_pixels_of_digits_allow() -> None:
    digits = load_digits()
    n = len(digits.target)
    features = FeatureSet(
        features=digits.data.astype(np.float32),
        labels=digits.target.astype(np.int64),
        splits=np.where(np.arange(n) % 3 == 0, "train", "test").astype(object),
        classes=tuple(map(str, digits.target_names)),
        paths=np.arange(n).astype(str).astype(object),
        keys=np.random.default_rng(0).integers(0, 256, (n, 16), dtype=np.uint8),
    )
    head = Head("logreg").fit(features)
    report = head.evaluate(features)
    assert report.n == 1198
    assert report.accuracy > 0.95
    assert report.log_loss < 0.2
    assert head.search_[0].candidate < head.C_ < head.search_[-1].candidate


def test_logreg_is_scikit_learns_on_standardised_features() -> None:
    features = photos(gap=1.0)
    train = features.splits == "train"
    Z = (features.features - features.features[train].mean(axis=0)) / features.features[train].std(axis=0)
    reference = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000).fit(Z[train], features.labels[train])
    found = Head("logreg", C=0.3).fit(features).predict_proba(features.features)
    np.testing.assert_allclose(found, reference.predict_proba(Z), atol=1e-3)


# The choice of C and k


def tried(head: Head) -> dict[float, float]:
    """Cross-validated losses by candidate."""
    return {t.candidate: t.loss for t in head.search_}


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge"])
def test_c_is_a_candidate_of_least_cross_validated_loss(name: str) -> None:
    head = new(name).fit(photos(gap=1.0))
    found = tried(head)
    assert set(C_PATH) <= found.keys()
    assert list(found) == sorted(found)
    best = min(found.values())
    assert found[head.C_] <= best + AS_GOOD
    assert best < np.log(3)


def test_of_equally_good_values_of_c_the_most_regularised_is_taken() -> None:
    head = Head("logreg").fit(photos(gap=1.0))
    found = tried(head)
    assert min(c for c, loss in found.items() if loss <= min(found.values()) + AS_GOOD) == head.C_


def test_the_path_does_not_grow_when_the_best_c_is_inside_it() -> None:
    head = Head("logreg").fit(photos(gap=1.0))
    assert C_PATH[0] < head.C_ < C_PATH[-1]
    assert tuple(tried(head)) == C_PATH


def test_a_standard_error_is_that_of_the_folds_mean_losses() -> None:
    features = photos(gap=1.0)
    (line,) = Head("centroid").fit(features).search_
    X, y = features.features[:60].astype(np.float64), features.labels[:60]
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    scores, folds = np.empty((60, 3)), list(StratifiedKFold(5, shuffle=True, random_state=0).split(Z, y))
    for train, test in folds:
        centres = np.stack([Z[train][y[train] == label].mean(axis=0) for label in range(3)])
        scores[test] = Z[test] @ centres.T - 0.5 * (centres**2).sum(axis=1)
    each = losses(scores / fit_temperature(scores, y), y, "classification")
    found = [each[test].mean() for _, test in folds]
    assert line.loss == pytest.approx(each.mean())
    assert line.error == pytest.approx(np.std(found, ddof=1) / np.sqrt(5))


@pytest.mark.parametrize("name", ["logreg", "svm", "svm-rbf", "ridge"])
def test_a_c_that_is_given_is_used_and_nothing_else_tried(name: str) -> None:
    features = photos(gap=1.0)
    weak, strong = new(name, C=0.001).fit(features), new(name, C=0.5).fit(features)
    assert (weak.C_, strong.C_) == (0.001, 0.5)
    assert tried(strong).keys() <= {0.5}
    assert weak.parameters["C"] == 0.001
    assert not np.allclose(weak.decision_function(features.features), strong.decision_function(features.features))


def test_a_c_of_many_digits_is_the_same_after_a_save(tmp_path: Path) -> None:
    head = Head("svm", C=0.123456789).fit(photos())
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert tried(loaded).keys() == {loaded.C_} == {0.123456789}


def test_a_k_that_is_given_is_used_and_one_left_out_is_chosen() -> None:
    features = photos(gap=1.0)
    assert Head("knn", k=4).fit(features).k_ == 4
    head = Head("knn").fit(features)
    found = tried(head)
    chosen = max(k for k, loss in found.items() if loss <= min(found.values()) + AS_GOOD)
    assert head.k_ == min(chosen, 60)  # no more than there are rows
    assert list(found) == [1, 3, 5, 10, 20, 50, 100, 200]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "tree"}, "there is no head 'tree'; expected one of logreg, linear, svm, ridge, knn, centroid, mlp"),
        ({"kind": "knn", "C": 1.0}, "-C is for logreg, svm, ridge; knn has none"),
        ({"kind": "centroid", "C": 1.0}, "-C is for logreg, svm, ridge; centroid has none"),
        ({"kind": "linear", "C": 1.0}, "-C is for logreg, svm, ridge; linear has none"),
        ({"kind": "mlp", "C": 1.0}, "-C is for logreg, svm, ridge; mlp has none"),
        ({"kind": "svm", "C": 0.0}, "C is 0.0; expected a positive number"),
        ({"kind": "svm", "C": -1.0}, "C is -1.0; expected a positive number"),
        ({"kind": "svm", "C": float("nan")}, "C is nan; expected a positive number"),
        ({"kind": "svm", "C": float("inf")}, "C is inf; expected a positive number"),
        ({"kind": "logreg", "k": 3}, "k is 3 for logreg; it is a number of neighbours, at least 1, for knn"),
        ({"kind": "knn", "k": 0}, "k is 0 for knn; it is a number of neighbours, at least 1, for knn"),
        ({"kind": "svm", "kernel": "poly"}, "kernel is 'poly' for svm; it is linear or rbf, for svm"),
        ({"kind": "logreg", "kernel": "rbf"}, "kernel is 'rbf' for logreg; it is linear or rbf, for svm"),
        (
            {"task": "ranking"},
            "there is no task 'ranking'; expected one of auto, classification, multilabel, regression",
        ),
        ({"task": "regression"}, "logreg does not do regression; expected one of ridge, svm, linear, knn, mlp"),
        ({"kind": "centroid", "task": "multilabel"}, "centroid does not do multilabel; expected one of ridge, logreg"),
        ({"class_weight": "even"}, "class_weight is 'even'; expected one of balanced"),
        ({"calibrate": "platt"}, "calibrate is 'platt'; expected one of temperature, isotonic, none"),
        ({"logit_adjustment": -1.0}, "logit_adjustment is -1.0; expected a number from 0 on, usually 1"),
        ({"logit_adjustment": float("nan")}, "logit_adjustment is nan; expected a number from 0 on, usually 1"),
        ({"reject_below": 0.0}, "reject_below is 0.0; expected a share above 0, at most 1"),
        ({"reject_below": 1.5}, "reject_below is 1.5; expected a share above 0, at most 1"),
        ({"precision": -0.5}, "precision is -0.5; expected a share above 0, at most 1"),
        (
            {"precision": 0.9, "reject_below": 0.5},
            "are two ways to say when nothing is predicted; expected one of them",
        ),
        (
            {"kind": "ridge", "task": "multilabel", "class_weight": "balanced"},
            "class_weight is for classification, not for multilabel",
        ),
        (
            {"kind": "ridge", "task": "regression", "logit_adjustment": 1.0, "precision": 0.9},
            "logit_adjustment, precision are for classification, not for regression",
        ),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Head(**options).fit(photos())


def test_a_solver_that_has_not_converged_is_said_in_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Head("logreg", C=1.0).fit(photos(gap=1.0)).notes_ == []
    minimise = linear.minimise
    monkeypatch.setattr(linear, "minimise", lambda *a, **o: minimise(*a, **{**o, "max_iter": 1}))
    monkeypatch.setattr(linear, "NEWTON_STEPS", 0)
    head = Head("logreg", C=1.0).fit(photos(gap=1.0))
    (note,) = head.notes_
    assert re.match(r"at C=1 the optimum was not reached: the objective may still fall by \S+ of itself", note)
    assert head.convergence_["gap"] > linear.NOT_CONVERGED


def test_fits_of_the_search_that_have_not_converged_are_counted_in_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 0)
    notes = Head("logreg").fit(photos(gap=1.0)).notes_
    assert any(re.match(r"\d+ of 225 fits of the search, from C=\S+ on, had not converged", note) for note in notes)


@pytest.mark.parametrize("name", ["logreg", "svm"])
def test_how_far_a_solver_came_is_kept_with_the_head(name: str, tmp_path: Path) -> None:
    head = new(name, C=0.3).fit(photos(gap=1.0))
    assert 0 <= head.convergence_["gap"] <= 1e-7
    assert head.convergence_["iterations"] >= 1
    assert Head.load(head.save(tmp_path / "h")).convergence_ == head.convergence_


@pytest.mark.parametrize("name", ["ridge", "knn", "centroid"])
def test_a_closed_form_has_no_convergence_to_tell_of(name: str) -> None:
    assert new(name).fit(photos()).convergence_ is None


# Temperature


def log_loss(logits: np.ndarray, y: np.ndarray) -> float:
    return float(losses(logits, y, "classification").mean())


@pytest.mark.parametrize("name", ["svm", "svm-rbf", "ridge", "centroid", "knn"])
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


@pytest.mark.parametrize("name", ["logreg", "linear", "mlp"])
def test_a_probability_model_needs_no_temperature(name: str) -> None:
    assert new(name).fit(photos()).temperature_ == 1.0


def test_softmax_and_log_loss_are_stable_for_large_logits() -> None:
    logits = np.array([[1e5, 0.0, -1e5], [-1e5, -1e5, -1e5 + 1.0]])
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities[0], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(probabilities[1], np.array([1.0, 1.0, np.e]) / (2 + np.e))
    assert log_loss(logits[:1], np.array([0])) == 0.0
    assert log_loss(logits[:1], np.array([2])) == pytest.approx(2e5)


# A head as a layer


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("dim", [6, 90], ids=["narrow", "wide"])
def test_a_linear_head_is_one_matrix_and_one_vector(name: str, dim: int) -> None:
    features = photos(dim=dim)
    head = new(name).fit(features)
    weight, bias = head.as_linear()
    assert (weight.shape, bias.shape) == ((3, dim), (3,))
    X = features.features.astype(np.float64)
    np.testing.assert_allclose(X @ weight.T + bias, head.decision_function(features.features), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "shown"), [("knn", "a knn head"), ("svm-rbf", "a svm --kernel rbf head"), ("mlp", "a mlp head")]
)
def test_a_head_that_is_not_linear_names_the_command_that_makes_one_that_is(name: str, shown: str) -> None:
    head = new(name).fit(photos())
    assert not head.is_linear
    with pytest.raises(HeadError, match=f"{shown} is not linear.*; featx fit-head --model logreg makes one that can"):
        head.as_linear()


def test_features_of_another_width_are_refused() -> None:
    head = Head("centroid").fit(photos())
    with pytest.raises(HeadError, match=r"features of shape \(2, 7\); this head takes \(N, 6\)"):
        head.decision_function(np.zeros((2, 7)))
    with pytest.raises(HeadError, match=r"features of shape \(6,\); this head takes \(N, 6\)"):
        head.decision_function(np.zeros(6))


# Rows that take part


def test_a_class_without_training_images_is_none_of_the_heads() -> None:
    features = photos(classes=("ant", "bee", "cat", "dog"))
    features.splits[features.labels == 1] = "pretrain"
    head = Head("centroid").fit(features)
    assert head.classes_ == ("ant", "cat", "dog")
    assert set(head.predict(features.features)) == {"ant", "cat", "dog"}
    assert head.n_train_ == 60
    report = head.evaluate(features)
    assert report.classes == ("ant", "cat", "dog")
    assert report.n == 45
    assert report.accuracy > 0.8


def test_labels_are_matched_by_name_where_the_classes_are_in_another_order() -> None:
    features = photos()
    head = Head("centroid").fit(features)
    order = np.array([2, 0, 1])  # class i of the one is class order[i] of the other
    names = tuple(features.classes[i] for i in np.argsort(order))
    turned = dataclasses.replace(features, labels=order[features.labels], classes=names)
    assert head.evaluate(turned).as_dict() == head.evaluate(features).as_dict()


def test_images_of_a_class_that_the_head_does_not_know_cannot_judge_it() -> None:
    features = photos()
    features.splits[(features.labels == 2) & (features.splits == "train")] = "val"
    head = Head("logreg").fit(features)
    with pytest.raises(HeadError, match=r"15 images of the split 'test' are of classes .* \(cat\); it knows ant, bee"):
        head.evaluate(features)


def test_unlabelled_images_take_no_part() -> None:
    features = photos()
    labels = features.labels.copy()
    labels[::4] = -1
    some = dataclasses.replace(features, labels=labels)
    labelled = labels >= 0
    head = Head("logreg", C=0.1).fit(some)
    assert_same_state(head, Head("logreg", C=0.1).fit(some.take(np.flatnonzero(labelled))))
    assert head.evaluate(some).n == np.count_nonzero(labelled & (features.splits == "test"))


def test_the_split_that_judges_is_test_and_val_only_where_there_is_no_test() -> None:
    features = photos()
    head = Head("centroid").fit(features)
    features.splits[60:75] = "val"
    assert head.evaluate(features).split == "test"
    assert head.evaluate(features).n == 30
    assert head.evaluate(features, split="val").n == 15
    features.splits[features.splits == "test"] = "val"
    assert head.evaluate(features).split == "val"
    assert head.evaluate(features, split="all").n == 105


def test_no_split_to_judge_by_is_said_with_what_was_found() -> None:
    features = photos()
    features.splits[:] = "train"
    message = "no split to judge by: no labelled images in test or val; found 105 in train. Name a split in the table"
    with pytest.raises(HeadError, match=message):
        Head("centroid").fit(features).evaluate(features)


def test_no_training_images_are_said_with_what_was_found() -> None:
    features = photos(train=0)
    with pytest.raises(HeadError, match="no labelled images in the split 'train'; found 45 in test"):
        Head("logreg").fit(features)


def test_unlabelled_images_alone_are_said_to_be_that() -> None:
    features = photos()
    features = dataclasses.replace(features, labels=np.full_like(features.labels, -1))
    with pytest.raises(HeadError, match="no labelled images in the split 'train'; found 105 unlabelled"):
        Head("logreg").fit(features)


def test_one_class_alone_is_no_task() -> None:
    features = photos()
    with pytest.raises(HeadError, match="the split 'train' has one class only, 'bee'; a head needs at least two"):
        Head("logreg").fit(features.take(np.flatnonzero(features.labels == 1)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@EVERY_HEAD
def test_training_features_that_are_not_finite_are_refused(name: str, value: float) -> None:
    features = photos()
    features.features[[1, 5], 2] = value
    with pytest.raises(HeadError, match="2 rows of features of the split 'train' are NaN or infinite"):
        new(name).fit(features)


def test_held_out_features_that_are_not_finite_are_refused_when_they_judge() -> None:
    features = photos()
    features.features[-1, 2] = np.nan
    head = Head("logreg").fit(features)
    with pytest.raises(HeadError, match="1 rows of features of the split 'test' are NaN or infinite"):
        head.evaluate(features)


@EVERY_HEAD
def test_a_class_of_one_training_image_is_fitted_and_the_others_are_cross_validated(name: str) -> None:
    features = photos(gap=5.0)
    lonely = np.flatnonzero((features.labels == 2) & (features.splits == "train"))
    features = features.take(np.setdiff1d(np.arange(len(features)), lonely[1:]))
    head = new(name).fit(features, cross_validate=True)
    assert head.classes_ == ("ant", "bee", "cat")
    assert not any("nothing could be cross-validated" in note for note in head.notes_)
    assert head.held_out_.support.tolist() == [20, 20, 0]
    assert np.isfinite(head.decision_function(features.features)).all()
    assert head.evaluate(features).accuracy > 0.5


@EVERY_HEAD
def test_where_each_class_has_one_image_alone_a_middle_candidate_is_taken_and_that_is_said(name: str) -> None:
    features = photos(train=1, gap=100.0, dim=3)
    head = new(name).fit(features)
    note = "no class has two training images that could be told apart, so nothing could be cross-validated"
    assert head.notes_ == [note]
    assert (head.search_, head.temperature_, head.held_out_) == ((), 1.0, None)
    assert head.evaluate(features).accuracy > 0.9
    with pytest.raises(
        HeadError, match="nothing could be held out to choose a probability by; name it with --reject-b"
    ):
        new(name, precision=0.5).fit(features)


@EVERY_HEAD
def test_two_images_per_class_are_enough(name: str) -> None:
    features = photos(train=2, gap=12.0, dim=3)
    head = new(name).fit(features)
    assert not any("nothing could be cross-validated" in note for note in head.notes_)
    assert head.evaluate(features).accuracy > 0.6


def test_images_that_were_trained_on_are_counted_where_they_judge() -> None:
    features = photos()
    features.keys[[60, 61, 70]] = features.keys[[0, 1, 1]]
    report = Head("centroid").fit(features).evaluate(features)
    assert report.notes == ("3 of 45 images of split test were trained on, byte for byte: they flatter the accuracy",)


def test_a_split_that_shares_no_image_with_train_gets_no_note() -> None:
    features = photos()
    assert Head("centroid").fit(features).evaluate(features).notes == ()


# Labels and numbers


def tagged(*, train: int = 150, test: int = 100, noise: float = 0.3, seed: int = 0, **changes: Any) -> FeatureSet:
    """Images with any of the labels cat, dog and red, each by a feature of its own; some with none."""
    features = photos(classes=("x",), train=train, test=test, dim=5, seed=seed, **changes)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(len(features), 5)).astype(np.float32)
    has = X[:, :3] + rng.normal(scale=noise, size=(len(X), 3)) > [0.0, 0.3, 0.9]
    names = np.array(["cat", "dog", "red"])
    strings = ["|".join(names[row]) or "|" for row in has]
    return dataclasses.replace(with_labels(features, strings), features=X * [1, 5, 25, 0.2, 3] + 7)


def truth(features: FeatureSet) -> np.ndarray:
    """(N, 3) which of cat, dog and red each image has."""
    return np.array([[name in features.classes[label] for name in ("cat", "dog", "red")] for label in features.labels])


def measured(*, train: int = 150, test: int = 100, noise: float = 0.3, seed: int = 0) -> FeatureSet:
    """Images with a number each, which two features make."""
    features = photos(classes=("x",), train=train, test=test, dim=5, seed=seed)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(len(features), 5)).astype(np.float32)
    values = 100 + 20 * (X[:, 0] - 0.5 * X[:, 1] + noise * rng.normal(size=len(X)))
    found = with_labels(features, [f"{value:.4f}" for value in values])
    return dataclasses.replace(found, features=X)


@pytest.mark.parametrize("name", ["logreg", "ridge", "svm", "svm-rbf", "knn", "linear", "mlp"])
def test_a_head_of_labels_learns_says_lists_and_is_the_same_after_a_save(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "EPOCHS", 100)
    features = tagged()
    head = new(name).fit(features)
    assert (head.task_, head.classes_) == ("multilabel", ("cat", "dog", "red"))
    report = head.evaluate(features)
    assert report.mean_average_precision > 0.8
    assert report.n == 100
    assert ((head.thresholds_ > 0) & (head.thresholds_ < 1)).all()
    out = head.predict_values(features.features)
    np.testing.assert_array_equal(head.predict_proba(features.features), out)
    for said, p in zip(head.predict(features.features), out, strict=True):
        assert set(said) == {head.classes_[i] for i in np.flatnonzero(p >= head.thresholds_)}
        assert said == sorted(said, key=lambda label: -p[head.classes_.index(label)])
    loaded = Head.load(head.save(tmp_path / "head.safetensors", report=report))
    np.testing.assert_array_equal(loaded.predict_values(features.features), out)
    np.testing.assert_array_equal(loaded.thresholds_, head.thresholds_)
    assert loaded.evaluate(features).as_dict() == report.as_dict()


def test_labels_thresholds_are_those_of_cross_validated_scores() -> None:
    features = tagged(noise=1.0)
    train = features.features[:150].astype(np.float64)
    Z, y = (train - train.mean(axis=0)) / train.std(axis=0), truth(features)[:150].astype(np.float32)
    p = np.empty((150, 3))
    for fit, test in make_folds(y, np.arange(150), folds=5, seed=0):
        for label in range(3):
            model = LogisticRegression(C=0.1, tol=1e-10).fit(Z[fit], y[fit, label])
            p[test, label] = model.predict_proba(Z[test])[:, 1]
    head = Head("logreg", C=0.1).fit(features)
    np.testing.assert_allclose(head.thresholds_, label_thresholds(p, y), atol=2e-3)
    assert head.held_out_.mean_average_precision == pytest.approx(MultiLabelReport.from_predictions(
        y, p, ("cat", "dog", "red"), thresholds=head.thresholds_, split="train"
    ).mean_average_precision, abs=1e-3)  # fmt: skip


def test_without_two_images_of_a_label_its_threshold_is_one_half() -> None:
    features = with_labels(photos(classes=("x",), train=2, test=4), ["a", "b", "a", "b|", "|", "a|b"])
    assert Head("logreg").fit(features).thresholds_.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["ridge", "svm", "svm-rbf", "knn", "linear", "mlp"])
def test_a_head_of_numbers_is_far_better_than_their_mean_and_the_same_after_a_save(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "EPOCHS", 100)
    features = measured()
    head = new(name, task="regression").fit(features)
    assert (head.task_, head.classes_) == ("regression", ("value",))
    report = head.evaluate(features)
    assert report.rmse < (0.4 if name in ("ridge", "svm", "linear") else 0.7) * report.baseline_rmse
    assert (head.temperature_, head.thresholds_, head.isotonic_) == (1.0, None, None)
    found = head.predict(features.features)
    assert found.shape == (250,)
    values = np.array([float(features.classes[label]) for label in features.labels[150:]])
    assert report.rmse == pytest.approx(np.sqrt(np.mean((found[150:] - values) ** 2)))
    loaded = Head.load(head.save(tmp_path / "head.safetensors", report=report))
    np.testing.assert_array_equal(loaded.predict(features.features), found)
    assert loaded.evaluate(features).as_dict() == report.as_dict()
    with pytest.raises(HeadError, match="a regression head predicts numbers, not probabilities; predict gives them"):
        loaded.predict_proba(features.features)


def test_the_table_of_a_regression_is_of_squared_errors() -> None:
    head = Head("ridge", task="regression").fit(measured())
    report = head.held_out_
    best = min(t.loss for t in head.search_)
    assert report.rmse**2 == pytest.approx(best, rel=2e-4)
    assert report.split == "train, cross-validated"


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_heads_of_other_tasks_are_not_promoted(task: str) -> None:
    head = Head("ridge", task=task).fit(tagged() if task == "multilabel" else measured())
    assert not head.is_linear
    with pytest.raises(HeadError, match=f"a head of {task} cannot be promoted; promotion is for heads of class"):
        head.as_linear()


def test_one_value_or_labels_that_are_all_alike_are_no_task() -> None:
    features = photos(classes=("x",), train=4, test=4)
    with pytest.raises(HeadError, match="every image of the split 'train' has the value 3: there is nothing to learn"):
        Head("ridge", task="regression").fit(with_labels(features, ["3"] * 4 + ["4"] * 4))
    with pytest.raises(HeadError, match=r"every image of the split 'train' has the same labels \(a, b\)"):
        Head("ridge").fit(with_labels(features, ["a|b"] * 4 + ["a"] * 4))


def test_labels_that_are_no_numbers_are_refused_for_a_regression() -> None:
    with pytest.raises(
        HeadError, match=r"of the split 'train' have labels that are no finite numbers \('ant', 'bee', 'c"
    ):
        Head("ridge", task="regression").fit(photos())


# Classes that are not alike


def uneven(*, test: int = 100) -> FeatureSet:
    """Three classes of 80, 30 and 10 training images that overlap."""
    features = photos(train=80, test=test, gap=1.0)
    few = [np.flatnonzero((features.labels == c) & (features.splits == "train"))[n:] for c, n in ((1, 30), (2, 10))]
    return features.take(np.setdiff1d(np.arange(len(features)), np.concatenate(few)))


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


# Calibration and abstention


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
    features = photos(train=200, test=200, gap=1.5)
    head = Head("logreg", precision=0.9).fit(features)
    assert head.held_out_.accuracy < 0.85
    assert head.held_out_.selective_accuracy >= 0.9
    assert 0.1 < head.held_out_.coverage < 1
    assert head.held_out_.reject_below == head.reject_below_
    assert head.evaluate(features).selective_accuracy > 0.85
    assert None in head.predict(features.features)
    loaded = Head.load(head.save(tmp_path / "h"))
    assert loaded.predict(features.features).tolist() == head.predict(features.features).tolist()


def test_a_precision_that_nothing_gives_names_the_best_that_something_does() -> None:
    features = photos(gap=0.0)
    features.features[:] = 1.0  # so that all images are alike
    with pytest.raises(
        HeadError, match=r"no confidence gives a precision of 0\.9 on the 60 held-out rows; the best is 0\."
    ):
        Head("logreg", precision=0.9).fit(features)


# What belongs together


def with_groups(folder: Path, groups: Sequence[str], features: FeatureSet) -> FeatureSet:
    """The features, with a table that has a column "patient"."""
    rows = [f"{path},{group}" for path, group in zip(features.paths, groups, strict=True)]
    (folder / "table.csv").write_text("\n".join(["path,patient", *rows]))
    dataset = {**features.dataset, "table": str(folder / "table.csv")}
    return dataclasses.replace(features, dataset=dataset)


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, Any]]:
    """Groups and folds, as they are made."""
    made: list[tuple[np.ndarray, Any]] = []

    def spy(strata: Any, groups: np.ndarray, **options: Any) -> Any:
        folds = make_folds(strata, groups, **options)
        made.append((groups, folds))
        return folds

    monkeypatch.setattr("featx.heads.head.make_folds", spy)
    return made


def assert_whole(labels: np.ndarray, folds: Any) -> None:
    """No fold has rows of one label on both sides."""
    assert len(folds) > 1
    for train, test in folds:
        assert not set(labels[train]) & set(labels[test])


@pytest.mark.parametrize("name", ["logreg", "ridge", "knn"])
def test_a_group_never_straddles_a_fold(name: str, folded: list[Any], tmp_path: Path) -> None:
    features = photos(gap=1.0)
    patients = np.array([f"p{row // 6}" for row in range(60)] + [f"q{row}" for row in range(45)])
    new(name, group="patient").fit(with_groups(tmp_path, patients, features))
    ((_, folds),) = folded
    assert_whole(patients[:60], folds)
    new(name, group="patient", table=str(tmp_path / "table.csv")).fit(features)
    assert_whole(patients[:60], folded[1][1])


@pytest.mark.parametrize("name", ["logreg", "ridge", "knn"])
def test_copies_of_an_image_never_straddle_a_fold(name: str, folded: list[Any]) -> None:
    features = photos(gap=1.0)
    copy_of = np.arange(105)
    copy_of[30:60] = np.arange(30)
    features = dataclasses.replace(features, keys=features.keys[copy_of], features=features.features[copy_of])
    labels = features.labels[copy_of]
    new(name).fit(dataclasses.replace(features, labels=labels))
    assert_whole(copy_of[:60], folded[0][1])


def test_a_row_and_its_copy_do_not_make_a_neighbour_head_look_perfect() -> None:
    features = photos(gap=0.0, train=40)  # nothing to learn, but each image is there twice
    copy_of = np.arange(len(features))
    copy_of[60:120] = np.arange(60)
    features = features.take(copy_of)
    head = Head("knn", k=1).fit(features, cross_validate=True)
    assert head.held_out_.accuracy < 0.5


def test_splits_that_featx_made_are_made_again_by_group(tmp_path: Path) -> None:
    features = photos(train=60, test=40, dataset={"name": "pets", "root": "photos", "splits": "hash"})
    patients = np.array([f"p{row // 3}" for row in range(len(features))])
    features = with_groups(tmp_path, patients, features)
    head = Head("logreg", C=0.1, group="patient").fit(features)
    split = head.with_splits(features)
    for name in ("train", "test"):
        others = split.splits != name
        assert not set(patients[~others]) & set(patients[others])
    assert head.n_train_ == np.count_nonzero(split.splits == "train")
    report, rows, _ = head.judge(features)
    np.testing.assert_array_equal(rows, split.rows("test"))
    assert report.n == len(rows)


def test_groups_that_the_named_splits_tear_apart_are_refused(tmp_path: Path) -> None:
    features = photos()
    patients = np.array([f"p{row % 20}" for row in range(105)])
    with pytest.raises(HeadError, match=r"20 of 20 groups have images in more than one split \('p0' in test and train"):
        Head("logreg", group="patient").fit(with_groups(tmp_path, patients, features))


def test_a_column_that_the_table_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"table\.csv has no column 'site'; .* it has 'patient'"):
        Head("logreg", group="site").fit(with_groups(tmp_path, ["p"] * 105, photos()))


# Larger than memory


def big(folder: Path) -> FeatureSet:
    """3,000 images whose float16 features lie in a file."""
    features = photos(train=500, test=500, gap=1.5, dim=8)
    half = features.features.astype(np.float16)
    half.tofile(folder / "rows")
    mapped = np.memmap(folder / "rows", dtype=np.float16, mode="r", shape=half.shape)
    return dataclasses.replace(features, features=mapped)


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge", "knn", "centroid"])
def test_a_head_on_rows_that_stay_in_their_file_is_the_head_on_rows_in_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = big(tmp_path)
    options: dict[str, Any] = {"knn": {"k": 20}, "centroid": {}}.get(name, {"C": 0.1})
    options["calibrate"] = "none"  # a temperature is fitted to folds here and to rows left out one by one there
    inside = new(name, **options).fit(dataclasses.replace(features, features=np.array(features.features)))
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 1)
    monkeypatch.setattr(training_data, "BLOCK_BYTES", 1 << 12)
    outside = new(name, **options).fit(features)
    found, expected = (head.predict_proba(features.features) for head in (outside, inside))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert outside.evaluate(features).accuracy == pytest.approx(inside.evaluate(features).accuracy, abs=5e-3)


@pytest.mark.parametrize("name", ["logreg", "ridge", "knn"])
def test_of_very_many_rows_a_share_that_has_each_class_chooses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = big(tmp_path)
    every = new(name).fit(features)
    monkeypatch.setattr("featx.heads.head.MOST_SEARCHED", 1)
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 1)
    some = new(name).fit(features)
    said = "k" if name == "knn" else "C"
    assert some.notes_ == [f"{said} was chosen on 1000 of 1500 rows, drawn by the seed"]
    assert some.n_train_ == 1500
    found, expected = (head.predict_proba(features.features) for head in (some, every))
    assert np.abs(found - expected).mean() < 0.02
    assert some.held_out_.n == 1000
    assert some.held_out_.support.min() > 300
    assert some.held_out_.accuracy == pytest.approx(every.evaluate(features, split="train").accuracy, abs=0.05)
    assert_same_state(some, new(name).fit(features))


# Identity


def test_features_of_another_backbone_are_refused_with_the_part_that_differs() -> None:
    features = photos()
    head = Head("centroid").fit(features)
    backbone = {"name": "lenet5", "parts": {**PARTS, "dtype": "float16"}}
    other = dataclasses.replace(features, identity="beef" * 16, backbone=backbone)
    with pytest.raises(
        StaleCacheError, match=r"\(dtype: float32 against float16\); fit a head to them with featx fit-head"
    ):
        head.evaluate(other)


def test_features_of_another_layer_are_refused_with_both_layers() -> None:
    features = photos()
    head = Head("centroid").fit(features)
    other = dataclasses.replace(features, identity="beef" * 16, layer="features.9")
    with pytest.raises(StaleCacheError, match=r"\(layer: penultimate against features\.9\)"):
        head.evaluate(other)


def test_features_that_differ_in_their_identity_alone_are_refused_with_both() -> None:
    features = photos()
    head = Head("centroid").fit(features)
    for other, shown in (("beef" * 16, "beef" * 16), ("", "none")):
        with pytest.raises(StaleCacheError, match=rf"\(identity: {'f00d' * 16} against {shown}\)"):
            head.evaluate(dataclasses.replace(features, identity=other))


# Files


def test_a_head_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match="there is no head or model"):
        Head.load(tmp_path / "none.safetensors")


def test_a_head_on_features_made_by_hand_is_saved_and_judges_them(tmp_path: Path) -> None:
    features = photos(identity="", backbone={}, dataset={})
    head = Head.load(Head("centroid").fit(features).save(tmp_path / "h"))
    assert head.evaluate(features).n == 45


def test_what_a_user_has_set_by_hand_to_nonsense_is_not_saved(tmp_path: Path) -> None:
    head = Head("centroid").fit(photos())
    head.temperature_ = 0.0
    with pytest.raises(HeadError, match=r"h was not written, for it could not be read again: .*temperature is 0\.0"):
        head.save(tmp_path / "h")
    assert list(tmp_path.iterdir()) == []


@EVERY_HEAD
def test_rows_that_no_image_gives_get_no_scores_and_spoil_no_others(name: str) -> None:
    features = photos()
    head = new(name).fit(features)
    X = np.array(features.features[:6], dtype=np.float64)
    X[1, 0], X[2, 3], X[3, 5] = np.nan, np.inf, 1e300
    probabilities = head.predict_proba(X)
    assert np.isnan(probabilities[1:4]).all()
    np.testing.assert_allclose(probabilities[[0, 4, 5]], head.predict_proba(X[[0, 4, 5]]))
    assert np.isnan(head.predict_proba(X[1:2])).all()


def test_scores_that_overflow_are_an_error_when_they_judge() -> None:
    features = photos()
    head = Head("centroid").fit(features)
    head.predictor_ = predictors.LinearPredictor(head.predictor_.weight * 1e308, head.predictor_.bias)
    with pytest.raises(HeadError, match="scores of images of the split 'test' are NaN or infinite; fit a head again"):
        head.evaluate(features)


def test_a_report_of_very_many_classes_is_kept_without_its_table() -> None:
    for count, kept in ((1000, True), (1001, False)):
        classes = tuple(map(str, range(count)))
        report = ClassificationReport.from_predictions(np.array([0]), np.eye(count)[:1], classes, split="test")
        assert ("confusion" in stored_report(report)) == kept


@EVERY_HEAD
def test_the_same_seed_gives_files_of_the_same_arrays(name: str, tmp_path: Path) -> None:
    features = photos(gap=1.0)
    first, second = (
        model_file.load_model(new(name, seed=7).fit(features).save(tmp_path / at), format=model_file.HEAD)
        for at in "ab"
    )
    assert first[0].keys() == second[0].keys()
    for array, other in zip(first[0].values(), second[0].values(), strict=True):
        assert array.tobytes() == other.tobytes()
    assert {**first[1], "seconds": 0} == {**second[1], "seconds": 0}


def test_another_seed_gives_other_folds() -> None:
    features = photos(gap=1.0)
    one, other = (Head("logreg", seed=seed).fit(features).search_ for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_the_file_of_a_head_holds_what_it_was_chosen_on_and_what_it_is_worth(task: str, tmp_path: Path) -> None:
    features = {"classification": lambda: photos(gap=1.0), "multilabel": tagged, "regression": measured}[task]()
    head = Head("ridge", task=task).fit(features)
    report = head.evaluate(features)
    kept = model_file.read_metadata(head.save(tmp_path / "h", report=report))
    table = [(line["candidate"], line["mean"], line["standard_error"]) for line in kept["search"]]
    assert table == [(t.candidate, t.loss, t.error) for t in head.search_]
    assert len(table) >= 45
    assert kept["parameters"]["C"] == head.C_
    assert kept["report"] == report.as_dict()
    assert kept["held_out"] == head.held_out_.as_dict()
    assert kept["task"] == task
    described = describe_file(tmp_path / "h")
    assert described["report"]["split"] == "test"
    assert described["held_out"]["split"] == "train, cross-validated"


def test_a_flipped_bit_anywhere_in_the_file_of_a_head_is_found(tmp_path: Path) -> None:
    path = Head("ridge", C=0.1, calibrate="isotonic").fit(photos(train=4, dim=3)).save(tmp_path / "h")
    data, rng = path.read_bytes(), np.random.default_rng(0)
    places = np.union1d(np.arange(0, len(data), 13), np.arange(16))
    for place, bit in zip(places.tolist(), rng.integers(0, 8, len(places)).tolist(), strict=True):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=r"h is|h cannot be"):
            Head.load(path)
    path.write_bytes(data)
    assert Head.load(path).C_ == 0.1


# Where products are taken


def test_a_head_on_another_device_is_the_processor_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "_SMALL", 0)
    features = photos(gap=1.0)
    here, there = (Head("logreg", device=device).fit(features) for device in ("cpu", "cpu:0"))
    assert here.C_ == there.C_
    np.testing.assert_allclose(
        here.predict_values(features.features), there.predict_values(features.features), atol=1e-4
    )


@pytest.mark.parametrize("name", ["logreg", "svm", "linear", "mlp"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(BackboneError, match=r"--device tpu: .*; expected auto, cpu, cuda or mps"):
        Head(name, device="tpu").fit(photos())


# Several views of each image


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
    if task not in registry.TABLE[HEADS[name]["kind"]].tasks:
        with pytest.raises(HeadError, match=f"does not do {task}"):
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
    log_loss = -np.log(out[np.arange(len(y)), y]).mean()
    assert best.loss == pytest.approx(log_loss, abs=1e-3)


def test_averaging_over_noisy_views_pays() -> None:
    features = in_views(made.photos(train=40, test=200), 8, noise=2.0)
    noisy = dataclasses.replace(features, features=features.features[:, 1])
    averaged, once = (Head("logreg").fit(some).evaluate(some).accuracy for some in (features, noisy))
    assert averaged > once + 0.05


def test_calibration_thresholds_and_rejection_are_of_the_averaged_scores() -> None:
    features = in_views(photos(gap=1.0))
    for options in (
        {"calibrate": "isotonic"},
        {"precision": 0.9},
        {"class_weight": "balanced", "logit_adjustment": 1.0},
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
    monkeypatch.setattr("featx.heads.head.MOST_SEARCHED", 1)
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
    with pytest.raises(HeadError, match="1 rows of features of the split 'train' are NaN"):
        Head("logreg").fit(dataclasses.replace(features, features=X))


def test_features_of_one_view_are_not_those_of_several() -> None:
    features = in_views(photos())
    plain = dataclasses.replace(features, features=features.features[:, 0], layer="penultimate", identity="f00d" * 16)
    with pytest.raises(StaleCacheError, match="layer: penultimate@flip against penultimate"):
        Head("centroid").fit(features).evaluate(plain)
    with pytest.raises(
        HeadError, match=r"features of shape \(2, 3, 4, 5\); this head takes \(N, 6\), or views of that"
    ):
        Head("centroid").fit(features).predict_values(np.zeros((2, 3, 4, 5)))
