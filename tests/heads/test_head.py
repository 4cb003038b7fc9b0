"""Every kind of head, from features to predictions and reports."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made import EVERY_HEAD, PARTS, new, with_labels
from made_heads import assert_same_state, measured, photos, tagged, truth
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from featx.errors import BackboneError, HeadError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads import predictors, registry
from featx.heads.estimators import mlp
from featx.heads.folds import make_folds
from featx.heads.head import Head
from featx.heads.postprocess import label_thresholds
from featx.heads.solver import matrices
from featx.heads.solver.matrices import Rotated
from featx.metrics.multilabel import MultiLabelReport


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need; tests/heads/estimators/test_mlp.py is about the others."""
    monkeypatch.setattr(mlp, "EPOCHS", 30)


LINEAR = ["logreg", "linear", "svm", "ridge", "centroid"]


# Every kind of head


@EVERY_HEAD
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("dim", [40, 130])
def test_a_loaded_head_gives_the_same_bits_for_any_number_of_rows(
    name: str, task: str, dim: int, tmp_path: Path
) -> None:
    features = photos(train=20, dim=dim, classes=tuple("abcde"))
    if task == "multilabel":
        features = with_labels(features, ["|".join(sorted({f"a{i % 3}", f"b{i % 2}"})) for i in range(len(features))])
    elif task == "regression":
        features = with_labels(features, [f"{x:.3f}" for x in features.features[:, 0]])
    if task not in registry.get_kind(name.partition("-")[0]).tasks:
        pytest.skip(f"{name} does no {task}")
    head = new(name, task=task).fit(features)
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    for rows in (1, 7, len(features)):
        X = features.features[:rows]
        np.testing.assert_array_equal(loaded.decision_function(X), head.decision_function(X))
        np.testing.assert_array_equal(loaded.predict_values(X), head.predict_values(X))


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
    with pytest.raises(HeadError, match=f"{shown} is not linear.*; featx fit-head --model logreg makes one that is"):
        head.as_linear()


def test_features_of_another_width_are_refused() -> None:
    head = Head("centroid").fit(photos())
    with pytest.raises(HeadError, match=r"features of shape \(2, 7\); expected \(N, 6\), or \(N, V, 6\)"):
        head.decision_function(np.zeros((2, 7)))
    with pytest.raises(HeadError, match=r"features of shape \(6,\); expected \(N, 6\)"):
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
    with pytest.raises(
        HeadError, match=r"15 images of the split 'test' are of classes .* \(cat\); its classes are ant, bee"
    ):
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
    message = (
        "there is no held-out split: no labelled images in test or val; found 105 in train. Name a split in the table"
    )
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
    with pytest.raises(HeadError, match="the split 'train' has one class only, 'bee'; expected at least two"):
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
    with pytest.raises(HeadError, match="1 row of features of the split 'test' is NaN or infinite"):
        head.evaluate(features)


@EVERY_HEAD
def test_a_class_of_one_training_image_is_fitted_and_the_others_are_cross_validated(name: str) -> None:
    features = photos(gap=5.0)
    lonely = np.flatnonzero((features.labels == 2) & (features.splits == "train"))
    features = features.take(np.setdiff1d(np.arange(len(features)), lonely[1:]))
    head = new(name).fit(features, cross_validate=True)
    assert head.classes_ == ("ant", "bee", "cat")
    assert not any("no two training images" in note for note in head.notes_)
    assert head.held_out_.support.tolist() == [20, 20, 0]
    assert np.isfinite(head.decision_function(features.features)).all()
    assert head.evaluate(features).accuracy > 0.5


@EVERY_HEAD
def test_where_each_class_has_one_image_alone_a_middle_candidate_is_taken_and_that_is_said(name: str) -> None:
    features = photos(train=1, gap=100.0, dim=3)
    head = new(name).fit(features)
    (note,) = head.notes_ or [""]
    value = [f"{key} is {chosen:g}, the middle of its grid, without a search" for key, chosen in head.chosen.items()]
    calibrated = [] if name in ("logreg", "bilinear") else ["the scores are not calibrated"]
    differ = "no two training images of a class differ (copies and images of one group count once)"
    assert note == f"{differ}, so {' and '.join(value + calibrated)}"
    assert (head.search_, head.temperature_, head.held_out_) == ((), 1.0, None)
    assert head.evaluate(features).accuracy > 0.9
    with pytest.raises(
        HeadError,
        match="no rows could be held out to choose the rejection threshold by; give the threshold with --reject-b",
    ):
        new(name, target_precision=0.5).fit(features)


@EVERY_HEAD
def test_two_images_per_class_are_enough(name: str) -> None:
    features = photos(train=2, gap=12.0, dim=3)
    head = new(name).fit(features)
    assert not any("no two training images" in note for note in head.notes_)
    assert head.evaluate(features).accuracy > 0.6


def test_images_that_were_trained_on_are_counted_where_they_judge() -> None:
    features = photos()
    features.keys[[60, 61, 70]] = features.keys[[0, 1, 1]]
    report = Head("centroid").fit(features).evaluate(features)
    assert report.notes == ("3 of 45 images of split test were trained on, byte for byte: they flatter the accuracy",)


def test_a_split_that_shares_no_image_with_train_gets_no_note() -> None:
    features = photos()
    assert Head("centroid").fit(features).evaluate(features).notes == ()


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


# Labels and numbers


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
    with pytest.raises(HeadError, match="a regression head predicts numbers, not probabilities; use predict"):
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
    with pytest.raises(HeadError, match=f"a head of {task} cannot be promoted; only heads of classification can"):
        head.as_linear()


def test_one_value_or_labels_that_are_all_alike_are_no_task() -> None:
    features = photos(classes=("x",), train=4, test=4)
    with pytest.raises(
        HeadError, match="every image of the split 'train' has the value 3, so there is nothing to learn"
    ):
        Head("ridge", task="regression").fit(with_labels(features, ["3"] * 4 + ["4"] * 4))
    with pytest.raises(HeadError, match=r"every image of the split 'train' has the same labels \(a, b\)"):
        Head("ridge").fit(with_labels(features, ["a|b"] * 4 + ["a"] * 4))


def test_labels_that_are_no_numbers_are_refused_for_a_regression() -> None:
    with pytest.raises(
        HeadError, match=r"of the split 'train' have labels that are not finite numbers \('ant', 'bee', 'c"
    ):
        Head("ridge", task="regression").fit(photos())


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
