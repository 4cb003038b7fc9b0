"""Prediction sets and intervals that contain the truth as often as wished."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_heads import measured, photos, tagged

from featx.errors import CorruptFileError, HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.conformal import OUT_OF_FOLD, Conformal, coverage_quantile, fit_conformal, mass_before
from featx.heads.head import Head
from featx.heads.postprocess import fit_postprocess, with_promises


def made(thresholds: list[float], *, per_class: bool = False) -> Conformal:
    return Conformal(0.1, np.array(thresholds), per_class, 100, 100, OUT_OF_FOLD)


def gaussian(rows: int, *, seed: int, gap: float = 1.2, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> FeatureSet:
    """Rows of overlapping classes of unequal size, all of the split train."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), size=rows, p=shares)
    X = (gap * np.eye(len(shares), 4)[labels] + rng.normal(size=(rows, 4))).astype(np.float32)
    return FeatureSet(
        X, labels, np.full(rows, "train", dtype=object), tuple("abc"), np.arange(rows).astype(str).astype(object),
        rng.integers(0, 256, (rows, 16), dtype=np.uint8), dataset={"splits": "given"},
    )  # fmt: skip


@given(st.integers(1, 300), st.floats(0.01, 0.9))
@settings(max_examples=60, deadline=None)
def test_the_quantile_is_the_one_of_split_conformal_prediction(rows: int, alpha: float) -> None:
    scores = np.random.default_rng(rows).permutation(rows).astype(float)
    place = int(np.ceil((rows + 1) * (1 - alpha) - 1e-9))
    assert coverage_quantile(scores, alpha) == (place - 1 if place <= rows else np.inf)
    assert coverage_quantile(scores, alpha, np.arange(rows)) == coverage_quantile(scores, alpha), "groups of one"


def test_each_group_counts_once_however_many_rows_it_has() -> None:
    scores = np.r_[np.zeros(1000), np.arange(1.0, 10.0)]
    groups = np.r_[np.zeros(1000, int), np.arange(1, 10)]
    assert coverage_quantile(scores, 0.2, groups) == 8.0, "the ninth of ten groups"
    assert coverage_quantile(scores, 0.2) == 0.0


def test_a_set_grows_with_doubt_and_always_has_the_most_probable_class() -> None:
    p = np.array([[0.97, 0.02, 0.01], [0.5, 0.4, 0.1], [0.34, 0.33, 0.33]])
    assert made([0.6, 0.6, 0.6]).sets(p).sum(axis=1).tolist() == [1, 2, 3]
    assert made([0.0, 0.0, 0.0]).sets(p).tolist() == np.eye(3, dtype=bool)[[0, 0, 0]].tolist()
    assert made([0.0, 0.95, 0.0], per_class=True).sets(p)[:, 1].tolist() == [False, True, True]
    assert made([0.6, 0.6, 0.6]).members(np.array([0.1, 0.4, 0.5])) == [2, 1]


def test_equally_probable_classes_are_in_a_set_together() -> None:
    p = np.array([[0.4, 0.2, 0.4], [0.25, 0.5, 0.25]])
    np.testing.assert_allclose(mass_before(p), [[0, 0.8, 0], [0.5, 0, 0.5]])
    assert made([0.3, 0.3, 0.3]).sets(p).tolist() == [[True, False, True], [False, True, False]]
    assert mass_before(np.array([[0.0, 1.0, 0.0]])).tolist() == [[1.0, 0.0, 1.0]]


def test_a_row_without_a_prediction_has_no_class_in_its_set() -> None:
    head = Head("logreg", conformal=0.1).fit(photos(gap=1.0))
    X = np.full((1, head.n_features_in_), np.nan)
    assert not head.predict_set(X).any()
    numbers = Head("ridge", task="regression", conformal=0.1).fit(measured())
    assert np.isnan(numbers.predict_set(np.full((1, numbers.n_features_in_), np.inf))).all()


@pytest.mark.parametrize("kind", ["logreg", "ridge", "knn", "svm", "centroid"])
def test_sets_of_other_rows_miss_as_often_as_wished(kind: str) -> None:
    other = gaussian(20_000, seed=1)
    coverage, worst = [], []
    for seed in range(4):
        head = Head(kind, conformal=0.2).fit(gaussian(300, seed=10 + seed), coarse=True)
        sets = head.predict_set(other.features)
        hit = sets[np.arange(len(other)), other.labels]
        coverage.append(hit.mean())
        worst.append(min(hit[other.labels == label].mean() for label in range(3)))
        assert sets.any(axis=1).all()
    assert 0.76 < np.mean(coverage) < 0.86
    assert np.mean(worst) < 0.78, "the rarest class is covered less, unless each is wanted"


def test_sets_per_class_cover_each_class() -> None:
    other = gaussian(20_000, seed=1)
    coverage = []
    for seed in range(5):
        head = Head("logreg", conformal=0.2, conformal_per_class=True).fit(gaussian(400, seed=20 + seed), coarse=True)
        hit = head.predict_set(other.features)[np.arange(len(other)), other.labels]
        coverage.append([hit[other.labels == label].mean() for label in range(3)])
    assert (np.mean(coverage, axis=0) > 0.77).all()


def test_a_class_with_too_few_rows_is_in_every_set_and_noted() -> None:
    features = gaussian(400, seed=0, shares=(0.6, 0.385, 0.015))
    assert 2 <= np.bincount(features.labels)[2] < 9
    head = Head("logreg", conformal=0.1, conformal_per_class=True).fit(features)
    assert head.predict_set(features.features)[:, 2].all()
    assert (
        "1 class is in every prediction set, because it takes 9 held-out images of a class, or groups of them"
        in str(head.notes_)
    )


def test_intervals_of_numbers_cover_as_wished() -> None:
    features, other = measured(train=300), measured(train=4000, seed=5)
    head = Head("ridge", task="regression", conformal=0.1).fit(features)
    y = np.array([float(other.classes[label]) for label in other.labels])
    ends = head.predict_set(other.features)
    assert ends.shape == (len(other), 2)
    np.testing.assert_allclose(ends.mean(axis=1), head.predict(other.features))
    assert 0.86 < ((ends[:, 0] <= y) & (y <= ends[:, 1])).mean() < 0.95


def test_groups_of_like_rows_make_sets_larger() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 10)
    p = np.repeat(rng.dirichlet(np.ones(3), 40), 10, axis=0)
    y = np.repeat([rng.choice(3, p=row) for row in p[::10]], 10)
    alone = fit_conformal(p, y, "classification", 0.1)
    grouped = fit_conformal(p, y, "classification", 0.1, groups=group)
    assert (alone.groups, grouped.groups, grouped.rows) == (400, 40, 400)
    assert grouped.thresholds[0] >= alone.thresholds[0]
    with pytest.raises(HeadError, match=r"at most a share of 0\.02 take 49 held-out groups or more, and there are 40"):
        fit_conformal(p, y, "classification", 0.02, groups=group)


def test_isotonic_curves_do_not_choose_by_rows_that_they_have_seen() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)  # nothing can be learned
    folds = np.arange(60) % 5
    fitted = fit_postprocess(scores, y, "classification", calibrate="isotonic")
    made = with_promises(fitted, scores, y, conformal=0.2, folds=folds)
    seen = fit_conformal(made.apply(scores), y, "classification", 0.2)
    assert made.conformal is not None
    assert made.conformal.thresholds[0] > seen.thresholds[0]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("logreg", {"class_weight": "balanced"}), ("logreg", {"logit_adjustment": 1.0}), ("svm", {"kernel": "rbf"}),
        ("logreg", {"calibrate": "isotonic"}), ("ridge", {"reject_below": 0.7}),
    ],
)  # fmt: skip
def test_a_head_with_sets_is_the_same_after_it_was_stored(tmp_path: Path, kind: str, params: dict[str, object]) -> None:
    features = photos(gap=1.0)
    head = Head(kind, conformal=0.1, conformal_per_class=True, **params).fit(features)  # type: ignore[arg-type]
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert (loaded.conformal, loaded.conformal_per_class) == (0.1, True)
    assert loaded.conformal_ is not None
    assert head.conformal_ is not None
    assert loaded.conformal_.as_dict() == head.conformal_.as_dict()
    np.testing.assert_array_equal(loaded.predict_set(features.features), head.predict_set(features.features))
    top = head.predict_values(features.features).argmax(axis=1)
    assert head.predict_set(features.features)[np.arange(len(top)), top].all(), "whatever is rejected"


def test_a_damaged_description_of_sets_is_a_damaged_file(tmp_path: Path) -> None:
    head = Head("logreg", conformal=0.1).fit(photos(gap=1.0))
    assert head.conformal_ is not None
    for change in ({"alpha": 0.0}, {"source": "tea leaves"}, {"rows": 0}, {"per_class": "yes"}):
        conformal = dataclasses.replace(head.conformal_, **change)
        head.postprocess_ = dataclasses.replace(head.postprocess_, conformal=conformal)
        try:
            path = head.save(tmp_path / "head.safetensors")
        except HeadError:
            continue  # what could not be read again is not written
        with pytest.raises(CorruptFileError, match="not a valid head: conformal"):
            Head.load(path)


def test_the_report_of_a_head_has_the_coverage_of_its_sets() -> None:
    features = photos(gap=1.0)
    head = Head("logreg", conformal=0.1).fit(features)
    report = head.evaluate(features)
    rows = features.rows("test")
    sets = head.predict_set(features.features[rows])
    assert report.sets is not None
    assert report.sets.coverage == sets[np.arange(len(rows)), features.labels[rows]].mean()
    assert report.sets.mean_size == sets.sum(axis=1).mean()
    assert report.as_dict()["sets"]["wanted"] == 0.9
    assert "set coverage" in str(report)
    assert "sets" not in Head("logreg").fit(features).evaluate(features).as_dict()


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"conformal": 1.0}, r"conformal is 1; expected the share of prediction sets, or of intervals, that may miss"),
        ({"conformal": "0.1"}, r"conformal is .*0\.1.*; expected a number"),
        ({"conformal_per_class": True}, "conformal_per_class covers each class as often as conformal says"),
        ({"conformal": 0.1, "conformal_per_class": 1}, "conformal_per_class is .*; expected True or False"),
    ],
)
def test_values_that_mean_nothing_are_refused(params: dict[str, object], why: str) -> None:
    with pytest.raises(HeadError, match=why):
        Head("logreg", **params)  # type: ignore[arg-type]


def test_sets_are_refused_where_they_have_no_meaning() -> None:
    with pytest.raises(HeadError, match="conformal makes a set of classes of which exactly one is right"):
        Head("logreg", task="multilabel", conformal=0.1).fit(tagged())
    with pytest.raises(HeadError, match="conformal_per_class is only for classification"):
        Head("ridge", task="regression", conformal=0.1, conformal_per_class=True).fit(measured())
    with pytest.raises(HeadError, match=r"take 999 held-out rows or more.* use a larger --conformal, from 0\.\d+ on"):
        Head("logreg", conformal=0.001).fit(photos(gap=1.0))
    with pytest.raises(HeadError, match="this head has no prediction sets"):
        Head("logreg").fit(photos(gap=1.0)).predict_set(np.zeros((1, 5)))
