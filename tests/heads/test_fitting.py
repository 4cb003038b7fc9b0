"""The choice of the hyper-parameter, folds and groups, and data larger than memory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import new
from made_heads import assert_same_state, photos, tried
from sklearn.model_selection import StratifiedKFold

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads import fitting, training_data
from featx.heads.estimators import linear, mlp
from featx.heads.estimators.linear import C_PATH
from featx.heads.folds import make_folds
from featx.heads.groups import with_groups, with_splits
from featx.heads.head import Head
from featx.heads.out_of_fold import predict_held_out
from featx.heads.postprocess import fit_temperature
from featx.heads.search import EQUAL_LOSS, draw_share, losses
from featx.heads.training_data import steadied


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need; tests/heads/estimators/test_mlp.py is about the others."""
    monkeypatch.setattr(mlp, "EPOCHS", 30)


# The choice of C and k


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge"])
def test_c_is_a_candidate_of_least_cross_validated_loss(name: str) -> None:
    head = new(name).fit(photos(gap=1.0))
    found = tried(head)
    path = sorted({*C_PATH, *found})
    place = path.index(head.C_)
    assert {*path[place - 1 : place + 2]} <= found.keys()
    assert list(found) == sorted(found)
    best = min(found.values())
    assert found[head.C_] <= best + EQUAL_LOSS
    assert best < np.log(3)


def test_of_equally_good_values_of_c_the_most_regularised_is_taken() -> None:
    head = Head("logreg").fit(photos(gap=1.0))
    found = tried(head)
    assert min(c for c, loss in found.items() if loss <= min(found.values()) + EQUAL_LOSS) == head.C_


def test_the_path_does_not_grow_when_the_best_c_is_inside_it() -> None:
    head = Head("logreg").fit(photos(gap=1.0))
    assert C_PATH[0] < head.C_ < C_PATH[-1]
    assert tried(head).keys() < {*C_PATH}


def test_a_standard_error_is_that_of_the_folds_mean_losses() -> None:
    features = photos(gap=1.0)
    (line,) = Head("centroid").fit(features).search_
    X, y = features.features[:60].astype(np.float64), features.labels[:60]
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    scores, folds = np.empty((60, 3)), list(StratifiedKFold(5, shuffle=True, random_state=0).split(Z, y))
    for train, test in folds:
        centres = np.stack([Z[train][y[train] == label].mean(axis=0) for label in range(3)])
        scores[test] = Z[test] @ centres.T - 0.5 * (centres**2).sum(axis=1)
    each = losses(scores / fit_temperature(scores, y), y, "classification", smoothed=True)
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
    chosen = max(k for k, loss in found.items() if loss <= min(found.values()) + EQUAL_LOSS)
    assert head.k_ == min(chosen, 60)  # no more than there are rows
    assert list(found) == [1, 3, 5, 10, 20, 50, 100, 200]


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
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 1)
    notes = Head("logreg").fit(photos(gap=1.0)).notes_
    assert any(re.match(r"\d+ of \d+ fits of the search, from C=\S+ on, had not converged", note) for note in notes)


@pytest.mark.parametrize("name", ["logreg", "svm"])
def test_how_far_a_solver_came_is_kept_with_the_head(name: str, tmp_path: Path) -> None:
    head = new(name, C=0.3).fit(photos(gap=1.0))
    assert 0 <= head.convergence_["gap"] <= 1e-7
    assert head.convergence_["iterations"] >= 1
    assert Head.load(head.save(tmp_path / "h")).convergence_ == head.convergence_


@pytest.mark.parametrize("name", ["ridge", "knn", "centroid"])
def test_a_closed_form_has_no_convergence_to_tell_of(name: str) -> None:
    assert new(name).fit(photos()).convergence_ is None


def test_another_seed_gives_other_folds() -> None:
    features = photos(gap=1.0)
    one, other = (Head("logreg", seed=seed).fit(features).search_ for seed in (0, 1))
    assert one != other


# Groups


def with_table(folder: Path, groups: Sequence[str], features: FeatureSet) -> FeatureSet:
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

    monkeypatch.setattr("featx.heads.fitting.make_folds", spy)
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
    new(name).fit(with_groups(with_table(tmp_path, patients, features), "patient"))
    ((_, folds),) = folded
    assert_whole(patients[:60], folds)
    new(name).fit(with_groups(features, "patient", tmp_path / "table.csv"))
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
    features = with_groups(with_table(tmp_path, patients, features), "patient")
    head = Head("logreg", C=0.1).fit(features)
    split = with_splits(features, "classification")
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
        Head("logreg").fit(with_groups(with_table(tmp_path, patients, features), "patient"))


def test_a_column_that_the_table_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"table\.csv has no column 'site'; .* it has 'patient'"):
        with_groups(with_table(tmp_path, ["p"] * 105, photos()), "site")


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
    monkeypatch.setattr("featx.heads.search.MAX_SEARCH_BYTES", 1)
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 1)
    some = new(name).fit(features)
    said = "k" if name == "knn" else "C"
    assert some.notes_ == [
        "the 1500 training rows take 48.0 kB, so they were read block by block",
        f"{said} was chosen on 1000 of 1500 rows, drawn by the seed",
    ]
    assert some.n_train_ == 1500
    found, expected = (head.predict_proba(features.features) for head in (some, every))
    assert np.abs(found - expected).mean() < 0.02
    assert some.held_out_.n == 1000
    assert some.held_out_.support.min() > 300
    assert some.held_out_.accuracy == pytest.approx(every.evaluate(features, split="train").accuracy, abs=0.05)
    assert_same_state(some, new(name).fit(features))


@pytest.mark.parametrize("seed", [101, 7, 23])
@pytest.mark.parametrize("name", ["logreg", "svm", "ridge"])
def test_labels_that_cannot_be_learnt_make_no_fit_fail(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(90, 10)).astype(np.float32), rng.integers(0, 3, 90)
    features = dataclasses.replace(photos(train=30, test=0), features=X, labels=y)
    head = new(name).fit(features)
    assert np.isfinite(head.predict_proba(X)).all()
    assert not head.notes_


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge", "knn"])
def test_of_more_rows_than_are_divided_into_folds_those_are_that_choose(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = big(tmp_path)
    every = new(name).fit(features)
    monkeypatch.setattr("featx.heads.search.MAX_SEARCH_BYTES", 1)
    monkeypatch.setattr("featx.heads.search._MIN_SEARCH_ROWS", 600)
    monkeypatch.setattr("featx.heads.estimators.linear.MAX_STORED", 0)
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 1)
    monkeypatch.setattr(fitting, "MOST_IN_FOLDS", 0)
    some = new(name, calibrate="temperature").fit(features, cross_validate=True)
    assert some.n_train_ == 1500
    assert 500 < some.held_out_.n < 700
    assert some.held_out_.accuracy == pytest.approx(every.evaluate(features, split="train").accuracy, abs=0.06)
    found, expected = (head.predict(features.features) for head in (some, every))
    assert np.mean(found == expected) > 0.95
    assert_same_state(some, new(name, calibrate="temperature").fit(features, cross_validate=True))
    assert len(predict_held_out(some, features, np.arange(1500)).rows) == 1500  # all of them, in folds of their own


def test_a_share_of_very_many_rows_has_some_of_each_class_and_label() -> None:
    y = np.array([0] * 5000 + [1] * 40 + [2] * 3 + list(range(3, 33)))
    drawn = draw_share(y, "classification", most=200, seed=0)
    counts = np.bincount(y[drawn])
    assert counts[1:4].tolist() == [10, 3, 1]
    assert (counts[3:] == 1).all()
    assert 100 < counts[0] < 300
    assert np.array_equal(drawn, draw_share(y, "classification", most=200, seed=0))
    labels = (y[:, None] == np.arange(3)).astype(np.float32)
    drawn = draw_share(labels, "multilabel", most=200, seed=0)
    assert labels[drawn].sum(axis=0)[1:].tolist() == [10, 3]
    assert 100 < len(draw_share(y[:, None] * 0.5, "regression", most=200, seed=0)) < 300
    assert draw_share(y, "classification", most=10**6, seed=0).tolist() == list(range(len(y)))


def test_few_images_of_a_network_are_not_stretched_along_columns_that_hardly_vary() -> None:
    rng = np.random.default_rng(0)
    features = photos(gap=2.0, train=8)
    spread = rng.uniform(0.1, 3.0, features.width)
    X = (features.features * spread).astype(np.float32)
    X[:, 0] = np.where(features.splits == "train", 5.0, X[:, 0])
    features = dataclasses.replace(features, features=X)
    rows = features.rows("train")
    deviation = X[rows].astype(np.float64).std(axis=0)
    extracted = Head("ridge").fit(features)
    assert features.backbone
    mean = np.square(deviation).mean()
    expected = np.sqrt(np.square(deviation) + 30 * (1 / len(rows) - 1 / 50) * mean)
    np.testing.assert_allclose(extracted.scale_, expected, rtol=1e-6)
    arrays = Head("ridge").fit(dataclasses.replace(features, backbone={}))
    np.testing.assert_allclose(arrays.scale_[1:], deviation[1:], rtol=1e-6)
    assert arrays.scale_[0] == 1.0


def test_copies_of_an_image_count_as_one_where_images_are_few() -> None:
    features = photos(train=12)
    rows = features.rows("train")
    once, thrice = (Head("ridge", C=1.0).fit(features, rows=np.tile(rows, times)) for times in (1, 3))
    np.testing.assert_allclose(thrice.scale_, once.scale_, rtol=1e-6)


def test_many_images_are_standardised_by_their_own_deviations() -> None:
    scale = np.array([3.0, 1e-6, 1.0])
    assert steadied(scale, 50, [slice(0, 3)]) is scale
    apart = steadied(scale, 20, [slice(0, 1), slice(1, 3)])
    np.testing.assert_allclose(apart[0], 3 * np.sqrt(1 + 30 * (1 / 20 - 1 / 50)))
    np.testing.assert_allclose(apart[1:], 1e-6 * np.sqrt([1 + 0.45, 0.45]))
    np.testing.assert_array_equal(steadied(np.ones(4), 5, [slice(0, 4)]), np.ones(4))
