from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from featx import modelfile, scorers
from featx.decode import Transform
from featx.errors import CacheMissError, HeadError, OutputError, StaleCacheError
from featx.features import FeatureSet
from featx.head import (
    C_GRID,
    C_LIMITS,
    Head,
    _growing,
    _simplest,
    fit_head,
    fit_temperature,
    log_loss,
    softmax,
    stored_report,
)
from featx.report import Report

HEADS = {
    "logreg": {"kind": "logreg"},
    "linear": {"kind": "linear"},
    "svm": {"kind": "svm"},
    "svm-rbf": {"kind": "svm", "kernel": "rbf"},
    "ridge": {"kind": "ridge"},
    "knn": {"kind": "knn"},
    "centroid": {"kind": "centroid"},
}
LINEAR = ["logreg", "linear", "svm", "ridge", "centroid"]
EVERY_HEAD = pytest.mark.parametrize("name", HEADS)


PARTS = {"dtype": "float32", "weights_sha256": "abc", "transform": Transform(resize=32, crop=32).as_dict()}


def new(name: str, **options: Any) -> Head:
    """An unfitted head."""
    return Head(**HEADS[name], **options)


def photos(
    *,
    train: int = 20,
    test: int = 15,
    classes: tuple[str, ...] = ("ant", "bee", "cat"),
    dim: int = 6,
    gap: float = 2.5,
    seed: int = 0,
    **changes: Any,
) -> FeatureSet:
    """Features with so many rows of each class in the splits train and test; far from standardised."""
    rng = np.random.default_rng(seed)
    count, n = len(classes), len(classes) * (train + test)
    labels = np.arange(n) % count
    X = rng.normal(size=(n, dim))
    X[np.arange(n), labels] += gap
    X = X * np.linspace(0.5, 20.0, dim) + np.linspace(-30.0, 30.0, dim)
    made = FeatureSet(
        features=X.astype(np.float32),
        labels=labels,
        splits=np.array(["train"] * (count * train) + ["test"] * (count * test), dtype=object),
        classes=classes,
        paths=np.array([f"{row}.png" for row in range(n)], dtype=object),
        keys=rng.integers(0, 256, (n, 16), dtype=np.uint8),
        identity="f00d" * 16,
        backbone={"name": "lenet5", "weights": "default", "parts": PARTS},
        dataset={"name": "pets", "root": "photos"},
    )
    return dataclasses.replace(made, **changes)


def state(head: Head) -> dict[str, np.ndarray]:
    """All that a head computes with."""
    parts = {f.name: np.asarray(getattr(head.scorer_, f.name)) for f in dataclasses.fields(head.scorer_)}
    return {**parts, "mean": head.mean_, "scale": head.scale_, "temperature": np.array(head.temperature_)}


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
    probabilities = head.probabilities(features.features)
    np.testing.assert_array_equal(loaded.probabilities(features.features), probabilities)
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
    chosen = head.probabilities(features.features).argmax(axis=1)
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
    assert (one.C_, one.k_, one.search_) == (other.C_, other.k_, other.search_)


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
    close = np.abs(one.probabilities(features.features) - other.probabilities(half.features)) < 0.02
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
    assert np.isfinite(head.logits(unseen)).all()
    np.testing.assert_allclose(head.probabilities(unseen), head.probabilities(X), atol=0.05)


@EVERY_HEAD
def test_more_features_than_images_are_no_obstacle(name: str) -> None:
    features = photos(train=10, dim=40, gap=9.0)
    assert new(name).fit(features).evaluate(features).accuracy > 0.5


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge"])
def test_the_short_cut_for_few_images_changes_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features = photos(train=8, dim=40)
    short = new(name, C=0.01).fit(features).logits(features.features)
    monkeypatch.setattr(scorers, "row_space", lambda Z: None)
    long = new(name, C=0.01).fit(features).logits(features.features)
    np.testing.assert_allclose(short, long, atol=2e-3 * np.abs(long).max())


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
    assert head.C_ not in (min(head.search_), max(head.search_))


def test_logreg_is_scikit_learns_on_standardised_features() -> None:
    features = photos(gap=1.0)
    train = features.splits == "train"
    Z = (features.features - features.features[train].mean(axis=0)) / features.features[train].std(axis=0)
    reference = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000).fit(Z[train], features.labels[train])
    found = Head("logreg", C=0.3).fit(features).probabilities(features.features)
    np.testing.assert_allclose(found, reference.predict_proba(Z), atol=1e-3)


# The choice of C and k


def test_c_is_the_candidate_of_least_cross_validated_loss() -> None:
    head = Head("logreg").fit(photos(gap=1.0))
    assert set(C_GRID) <= set(head.search_)
    best = min(head.search_.values())
    assert head.search_[head.C_] <= best + 1e-3
    assert best < np.log(3)


@pytest.mark.parametrize(
    ("optimum", "seen"),
    [(1e-4, [0.1, 1.0, 0.01, 1e-3, 1e-4, 1e-5]), (1e3, [0.1, 1.0, 10.0, 100.0, 1e3, 1e4]), (0.1, [0.1, 1.0, 0.01])],
)
def test_the_grid_grows_beyond_an_end_until_a_step_no_longer_pays(optimum: float, seen: list[float]) -> None:
    losses: dict[float, float] = {}
    for candidate in _growing((0.1, 1.0), losses, grows=True):
        losses[candidate] = abs(np.log10(candidate / optimum))
    assert list(losses) == pytest.approx(seen)


def test_the_grid_stays_within_its_limits() -> None:
    for sign, end in ((1, C_LIMITS[0]), (-1, C_LIMITS[1])):
        losses: dict[float, float] = {}
        for candidate in _growing((0.1, 1.0), losses, grows=True):
            losses[candidate] = 20 + sign * np.log10(candidate)
        assert end in (min(losses), max(losses))


def test_on_a_plateau_the_more_regularised_head_is_taken() -> None:
    assert _simplest({0.1: 0.5, 1.0: 0.2004, 10.0: 0.2, 100.0: 0.3}) == 1.0
    head = Head("logreg").fit(photos(train=5, gap=100.0, dim=3))
    assert max(head.search_) < C_LIMITS[1]
    assert head.search_[head.C_] <= min(head.search_.values()) + 1e-3


def test_the_grid_does_not_grow_when_the_best_c_is_inside_it() -> None:
    head = Head("logreg").fit(photos(gap=1.0))
    assert min(C_GRID) < head.C_ < max(C_GRID)
    assert tuple(sorted(head.search_)) == C_GRID


@pytest.mark.parametrize("name", ["logreg", "svm", "svm-rbf", "ridge"])
def test_a_c_that_is_given_is_used_and_nothing_else_tried(name: str) -> None:
    features = photos(gap=1.0)
    weak, strong = new(name, C=0.001).fit(features), new(name, C=0.5).fit(features)
    assert (weak.C_, strong.C_) == (0.001, 0.5)
    assert set(strong.search_) <= {0.5}
    assert weak.parameters["C"] == 0.001
    assert not np.allclose(weak.logits(features.features), strong.logits(features.features))


def test_a_c_of_many_digits_is_the_same_after_a_save(tmp_path: Path) -> None:
    head = Head("svm", C=0.123456789).fit(photos())
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert loaded.search_.keys() == {loaded.C_} == {0.123456789}


def test_a_k_that_is_given_is_used_and_one_left_out_is_chosen() -> None:
    features = photos(gap=1.0)
    assert Head("knn", k=4).fit(features).k_ == 4
    head = Head("knn").fit(features)
    assert head.k_ == min(head.search_, key=lambda k: head.search_[k])
    assert sorted(head.search_) == [1, 3, 5, 10, 20]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mlp"}, "there is no head 'mlp'; expected one of logreg, linear, svm, ridge, knn, centroid"),
        ({"kind": "knn", "C": 1.0}, "-C is for logreg, svm, ridge; knn has none"),
        ({"kind": "centroid", "C": 1.0}, "-C is for logreg, svm, ridge; centroid has none"),
        ({"kind": "linear", "C": 1.0}, "-C is for logreg, svm, ridge; linear has none"),
        ({"kind": "svm", "C": 0.0}, "C is 0.0; expected a positive number"),
        ({"kind": "svm", "C": -1.0}, "C is -1.0; expected a positive number"),
        ({"kind": "svm", "C": float("nan")}, "C is nan; expected a positive number"),
        ({"kind": "svm", "C": float("inf")}, "C is inf; expected a positive number"),
        ({"kind": "logreg", "k": 3}, "k is 3 for logreg; it is a number of neighbours, at least 1, for knn"),
        ({"kind": "knn", "k": 0}, "k is 0 for knn; it is a number of neighbours, at least 1, for knn"),
        ({"kind": "svm", "kernel": "poly"}, "kernel is 'poly' for svm; it is linear or rbf, for svm"),
        ({"kind": "logreg", "kernel": "rbf"}, "kernel is 'rbf' for logreg; it is linear or rbf, for svm"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Head(**options).fit(photos())


def test_a_solver_that_has_not_converged_is_said_in_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "LogisticRegression", lambda **o: LogisticRegression(**{**o, "max_iter": 1}))
    head = Head("logreg", C=1.0).fit(photos())
    assert head.notes_ == ["LogisticRegression at C=1 had not converged after 1 iterations"]


# Temperature


@pytest.mark.parametrize("name", ["svm", "svm-rbf", "ridge", "centroid", "knn"])
def test_a_temperature_betters_the_log_loss_of_new_images_and_no_choice_changes(name: str) -> None:
    features = photos(train=40, test=100, gap=1.5)
    head = new(name).fit(features)
    test = features.split("test")
    logits = head.logits(test.features)
    scores = logits * head.temperature_
    assert head.temperature_ > 0
    assert head.temperature_ != 1.0
    assert log_loss(logits, test.labels) < log_loss(scores, test.labels)
    np.testing.assert_array_equal(logits.argmax(axis=1), scores.argmax(axis=1))


@pytest.mark.parametrize("name", ["logreg", "linear"])
def test_a_probability_model_needs_no_temperature(name: str) -> None:
    assert new(name).fit(photos()).temperature_ == 1.0


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_temperature_is_that_of_least_log_loss(scale: float) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    scores = rng.normal(size=(90, 3))
    scores[np.arange(90), y] += 1.0
    found = fit_temperature(scores * scale, y)
    grid = np.geomspace(1e-3, 1e3, 4001)
    targets = np.full((90, 3), 1 / 93)
    targets[np.arange(90), y] = 1 - 2 / 93
    best = grid[np.argmin([-(targets * np.log(softmax(scores / t) + 1e-300)).sum(axis=1).mean() for t in grid])]
    assert found / scale == pytest.approx(best, rel=0.01)


def test_scores_that_say_nothing_get_a_temperature_all_the_same() -> None:
    assert np.isfinite(fit_temperature(np.ones((6, 2)), np.array([0, 1] * 3)))


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
    np.testing.assert_allclose(X @ weight.T + bias, head.logits(features.features), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("name", "shown"), [("knn", "a knn head"), ("svm-rbf", "a svm --kernel rbf head")])
def test_a_head_that_is_not_linear_names_the_command_that_makes_one_that_is(name: str, shown: str) -> None:
    head = new(name).fit(photos())
    assert not head.is_linear
    with pytest.raises(HeadError, match=f"{shown} is not linear.*; featx fit-head --model logreg makes one that can"):
        head.as_linear()


def test_features_of_another_width_are_refused() -> None:
    head = Head("centroid").fit(photos())
    with pytest.raises(HeadError, match=r"features of shape \(2, 7\); this head takes \(N, 6\)"):
        head.logits(np.zeros((2, 7)))
    with pytest.raises(HeadError, match=r"features of shape \(6,\); this head takes \(N, 6\)"):
        head.logits(np.zeros(6))


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
def test_a_class_of_one_training_image_is_fitted_and_said(name: str) -> None:
    features = photos(gap=5.0)
    lonely = np.flatnonzero((features.labels == 2) & (features.splits == "train"))
    features = features.take(np.setdiff1d(np.arange(len(features)), lonely[1:]))
    head = new(name).fit(features)
    said = "a class has one training image only, so nothing could be cross-validated" in head.notes_
    assert said == (name != "linear")  # which has nothing to choose
    assert head.classes_ == ("ant", "bee", "cat")
    assert np.isfinite(head.logits(features.features)).all()
    assert head.evaluate(features).accuracy > 0.5


@EVERY_HEAD
def test_two_images_per_class_are_enough(name: str) -> None:
    features = photos(train=2, gap=12.0, dim=3)
    head = new(name).fit(features)
    assert not any("one training image" in note for note in head.notes_)
    assert head.evaluate(features).accuracy > 0.6


def test_images_that_were_trained_on_are_counted_where_they_judge() -> None:
    features = photos()
    features.keys[[60, 61, 70]] = features.keys[[0, 1, 1]]
    report = Head("centroid").fit(features).evaluate(features)
    assert report.notes == ("3 of 45 images of split test were trained on, byte for byte: they flatter the accuracy",)


def test_a_split_that_shares_no_image_with_train_gets_no_note() -> None:
    features = photos()
    assert Head("centroid").fit(features).evaluate(features).notes == ()


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
    probabilities = head.probabilities(X)
    assert np.isnan(probabilities[1:4]).all()
    np.testing.assert_allclose(probabilities[[0, 4, 5]], head.probabilities(X[[0, 4, 5]]))
    assert np.isnan(head.probabilities(X[1:2])).all()


def test_scores_that_overflow_are_an_error_when_they_judge() -> None:
    features = photos()
    head = Head("centroid").fit(features)
    head.scorer_ = scorers.LinearScorer(head.scorer_.weight * 1e308, head.scorer_.bias)
    with pytest.raises(HeadError, match="scores of images of the split 'test' are NaN or infinite; fit a head again"):
        head.evaluate(features)


def test_a_report_of_very_many_classes_is_kept_without_its_table() -> None:
    for count, kept in ((1000, True), (1001, False)):
        classes = tuple(map(str, range(count)))
        report = Report.of(np.array([0]), np.eye(count)[:1], classes, split="test")
        assert ("confusion" in stored_report(report)) == kept


# fit_head


def test_fit_head_writes_the_head_its_report_and_a_picture(tmp_path: Path) -> None:
    features = photos()
    features.splits[60:63] = "pretrain"
    fit = fit_head(features, Head("svm", C=0.1), models=tmp_path / "models")
    assert fit.path == tmp_path / "models" / "pets--svm.safetensors"
    assert fit.picture == tmp_path / "models" / "pets--svm.png"
    assert sorted(p.name for p in fit.path.parent.iterdir()) == ["pets--svm.png", "pets--svm.safetensors"]
    assert fit.picture.read_bytes().startswith(b"\x89PNG")
    assert modelfile.read_metadata(fit.path)["report"] == fit.report.as_dict()
    assert Head.load(fit.path).evaluate(features).as_dict() == fit.report.as_dict()
    (note,) = fit.notes
    assert note.startswith("3 images of split pretrain were ")


def test_the_dict_of_a_fit_is_json_with_what_a_script_needs(tmp_path: Path) -> None:
    fit = fit_head(photos(), Head("ridge"), out=tmp_path / "mine.safetensors")
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))
    expected = {"head", "model", "layer", "C", "n_train", "n_test", "test_split", "accuracy", "interval"}
    expected |= {"balanced_accuracy", "macro_f1", "log_loss", "seconds"}
    assert expected <= found.keys()
    assert found["head"] == str(tmp_path / "mine.safetensors")
    assert found["picture"] == str(tmp_path / "mine.png")
    assert (found["model"], found["layer"], found["n_train"], found["n_test"]) == ("ridge", "penultimate", 60, 45)
    assert found["test_split"] == "test"
    assert found["C"] == fit.head.C_
    assert found["accuracy"] == fit.report.accuracy
    assert found["seconds"] > 0


@pytest.mark.parametrize(
    ("head", "changes", "name"),
    [
        (Head("logreg", C=1.0), {"source": Path("cache/pets--lenet5.h5")}, "pets--lenet5--logreg.safetensors"),
        (Head("svm", C=1.0, kernel="rbf"), {"layer": "pool"}, "pets--pool--svm-rbf.safetensors"),
        (Head("centroid"), {"dataset": {}}, "features--centroid.safetensors"),
    ],
)
def test_a_head_is_named_after_its_features_layer_and_kind(
    head: Head, changes: dict[str, Any], name: str, tmp_path: Path
) -> None:
    assert fit_head(photos(**changes), head, models=tmp_path).path.name == name


def test_the_picture_does_not_take_the_place_of_the_head(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"head\.png is where the head's picture goes; name a file that ends in"):
        fit_head(photos(), Head("centroid"), out=tmp_path / "head.png")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said_before_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Head, "fit", lambda *_: pytest.fail("a head was fitted"))
    (tmp_path / "file").touch()
    (tmp_path / "taken.png").mkdir()
    for out, message in [
        (tmp_path, "is a folder; name a file to write with -o"),
        (tmp_path / "taken.safetensors", r"taken\.png is a folder; name a file to write with -o"),
        (tmp_path / "file" / "h", r"cannot write .*: Not a directory; name another file with -o"),
    ]:
        with pytest.raises(OutputError, match=message):
            fit_head(photos(), Head("centroid"), out=out)


@EVERY_HEAD
def test_room_for_the_whole_head_is_asked_for_before_the_fit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = photos(train=300, dim=40)
    asked = []
    monkeypatch.setattr(modelfile, "require_writable", lambda path, need=0: asked.append(need))
    size = fit_head(features, new(name), models=tmp_path).path.stat().st_size
    assert 0.5 * size < asked[0] < 3 * size


ODD_NAMES = [
    "$\\frac",
    "$$",
    "\\$",
    "${x}$",
    "$a$b$",
    "_^{",
    "\\",
    "%s{}",
    "\x1b[2J",
    "\u202eabc",
    "\udcff",
    "a\nb",
    "",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_class_of_any_name_is_drawn_printed_and_saved(name: str, tmp_path: Path) -> None:
    fit = fit_head(photos(classes=(name, "bee")), Head("centroid"), models=tmp_path)
    assert fit.picture.read_bytes().startswith(b"\x89PNG")
    assert Head.load(fit.path).classes_ == (name, "bee")
    assert all(line.isprintable() for line in str(fit.report).split("\n"))


def test_a_data_sets_name_leads_out_of_no_folder(tmp_path: Path) -> None:
    features = photos(dataset={"name": "../../pets"})
    assert (
        fit_head(features, Head("centroid"), models=tmp_path / "m").path
        == tmp_path / "m" / "pets--centroid.safetensors"
    )


def test_fit_head_without_anything_to_judge_by_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="there is no split to judge by"):
        fit_head(photos(test=0), Head("centroid"), models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fit_head_of_a_feature_file_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"none\.h5"):
        fit_head(tmp_path / "none.h5", Head("centroid"), models=tmp_path)
