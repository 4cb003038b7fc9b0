"""Folds that tear no group apart and judge nothing that could not be learned, and few-shot draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from featx.errors import FoldError
from featx.heads.folds import draw_shots, judged, make_folds
from featx.heads.training_data import Folds


def held_out(folds: Folds) -> list[list[int]]:
    return [rows.tolist() for _, rows in folds]


def fold_numbers(folds: Folds, count: int) -> np.ndarray:
    """(count,) the fold that holds each row out, -1 for none."""
    numbers = np.full(count, -1)
    for fold, (_, rows) in enumerate(folds):
        assert (numbers[rows] == -1).all(), "a row is held out twice"
        numbers[rows] = fold
    return numbers


def assert_honest(folds: Folds, member: np.ndarray, groups: np.ndarray) -> None:
    """Every held-out row is judged by a fold that has none of its group and some of each of its classes."""
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(len(groups)))
        assert len(test)
        assert not set(groups[train]) & set(groups[test])
        wanted = member[test].any(axis=0)
        assert member[train].any(axis=0)[wanted].all()


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_without_groups_are_those_of_scikit_learn(folds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([3, 0, 2], [17, 5, 31]))
    theirs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)
    for (train, test), (train_too, test_too) in zip(make_folds(y, None, folds=folds, seed=seed), theirs, strict=True):
        np.testing.assert_array_equal(train, train_too)
        np.testing.assert_array_equal(test, test_too)


def test_rows_without_strata_are_shuffled_and_dealt_evenly() -> None:
    folds = make_folds(None, np.arange(23), folds=5, seed=0)
    assert sorted(len(rows) for _, rows in folds) == [4, 4, 5, 5, 5]
    assert held_out(folds) != held_out(make_folds(None, np.arange(23), folds=5, seed=1))
    assert judged(folds, 23).all()


def test_the_same_seed_and_repeat_give_the_same_folds_and_others_others() -> None:
    y, groups = np.tile([0, 1], 30), np.arange(60) // 2
    ways = [held_out(make_folds(y, groups, folds=3, seed=seed, repeat=repeat)) for seed in (0, 1) for repeat in (0, 1)]
    again = [held_out(make_folds(y, groups, folds=3, seed=seed, repeat=repeat)) for seed in (0, 1) for repeat in (0, 1)]
    assert ways == again
    assert len({str(way) for way in ways}) == 4


def test_there_are_no_more_folds_than_the_largest_class_has_groups() -> None:
    y = np.array([0, 0, 0, 1, 1])
    assert len(make_folds(y, None, folds=5, seed=0)) == 3
    assert len(make_folds(y, np.array([0, 0, 1, 2, 3]), folds=5, seed=0)) == 2


def test_a_class_of_fewer_groups_than_folds_is_held_out_in_some_of_them() -> None:
    y = np.repeat([0, 1], [20, 2])
    folds = make_folds(y, None, folds=5, seed=0)
    assert len(folds) == 5
    assert sorted((y[rows] == 1).sum() for _, rows in folds) == [0, 0, 0, 1, 1]
    assert judged(folds, 22).all()


@pytest.mark.parametrize("groups", [None, np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10])])
def test_the_only_group_of_a_class_is_never_held_out_and_the_others_are(groups: np.ndarray | None) -> None:
    y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2])[: 11 if groups is None else 12]
    folds = make_folds(y, groups, folds=5, seed=0)
    assert len(folds) == 5
    np.testing.assert_array_equal(judged(folds, len(y)), y < 2)
    assert all({10, *range(10, len(y))} <= set(train.tolist()) for train, _ in folds)


def test_a_group_with_the_only_rows_of_a_class_stays_whole() -> None:
    y = np.array([0, 0, 0, 0, 1, 0])
    folds = make_folds(y, np.array([0, 1, 2, 3, 4, 4]), folds=2, seed=0)
    np.testing.assert_array_equal(judged(folds, 6), [True, True, True, True, False, False])


def test_a_class_that_one_fold_would_hold_out_whole_keeps_its_smallest_group_in_training() -> None:
    # With two folds, two of the three groups share one, and with them all rows of the class that the two have in common.
    y = np.array([0, 1, 0, 2, 1, 2, 2])
    groups = np.array([0, 0, 1, 1, 2, 2, 2])
    folds = make_folds(y, groups, folds=2, seed=0)
    assert_honest(folds, y[:, None] == np.arange(3), groups)
    assert np.count_nonzero(~judged(folds, 7)) == 2


def test_no_class_with_two_groups_leaves_nothing_to_cross_validate() -> None:
    assert make_folds(np.array([0, 1, 2]), None, folds=5, seed=0) == ()
    assert make_folds(np.zeros(9, np.int64), np.zeros(9, np.int64), folds=5, seed=0) == ()
    assert make_folds(np.zeros(0, np.int64), None, folds=5, seed=0) == ()


def test_groups_are_spread_at_least_as_evenly_as_by_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 600)
    y = (rng.random(600) < (groups % 7 + 1) / 10).astype(np.int64)

    def unevenness(parts: list[np.ndarray]) -> float:
        shares = np.array([np.bincount(y[rows], minlength=2) for rows in parts]) / np.maximum(
            np.bincount(y, minlength=2), 1
        )
        return float(shares.std(axis=0).mean())

    ours = [rows for _, rows in make_folds(y, groups, folds=5, seed=0)]
    theirs = [rows for _, rows in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, groups)]
    assert unevenness(ours) <= unevenness(theirs)
    sizes = [len(rows) for rows in ours]
    assert max(sizes) - min(sizes) <= 0.05 * 600


def test_labels_of_rows_with_several_are_each_spread_over_the_folds() -> None:
    rng = np.random.default_rng(0)
    Y = rng.random((400, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
    folds = make_folds(Y, None, folds=4, seed=0)
    assert judged(folds, 400).all()
    shares = np.array([Y[rows].sum(axis=0) for _, rows in folds]) / Y.sum(axis=0)
    assert (np.abs(shares - 0.25) < 0.13).all()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_classes_and_groups_each_row_is_held_out_once_or_could_not_be_judged(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    y = np.array(data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)))
    groups = np.array(data.draw(st.lists(st.integers(0, 12), min_size=count, max_size=count)))
    folds = make_folds(y, groups, folds=data.draw(st.integers(2, 5)), seed=data.draw(st.integers(0, 3)))
    assert_honest(folds, y[:, None] == np.arange(5), groups)
    fold_numbers(folds, count)
    if (np.bincount(groups) <= 1).all() and folds:  # each row its own group: all but the single ones are judged
        np.testing.assert_array_equal(judged(folds, count), np.bincount(y)[y] > 1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_label_sets_no_label_is_judged_that_training_rows_lack(data: st.DataObject) -> None:
    count, labels = data.draw(st.integers(2, 20)), data.draw(st.integers(1, 4))
    cells = data.draw(st.lists(st.integers(0, 1), min_size=count * labels, max_size=count * labels))
    Y = np.array(cells, dtype=np.float32).reshape(count, labels)
    groups = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    folds = make_folds(Y, groups, folds=data.draw(st.integers(2, 4)), seed=0)
    assert_honest(folds, Y > 0, groups)
    fold_numbers(folds, count)


def test_fewer_than_two_folds_are_none() -> None:
    with pytest.raises(FoldError, match="1 fold; cross-validation needs at least 2"):
        make_folds(np.array([0, 1]), None, folds=1, seed=0)
    with pytest.raises(FoldError, match="neither strata nor groups"):
        make_folds(None, None, folds=2, seed=0)


# Few-shot draws


def test_each_class_gives_as_many_rows_as_are_asked_for() -> None:
    labels = np.repeat([2, 0, 1], [4, 9, 5])
    rows = draw_shots(labels, shots=4, classes="abc", seed=0)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert np.bincount(labels[rows]).tolist() == [4, 4, 4]
    assert {0, 1, 2, 3} <= set(rows.tolist())


def test_draws_repeat_exactly_and_differ_by_seed_and_repeat() -> None:
    labels = np.zeros(1000, np.int64)
    draws = [
        draw_shots(labels, shots=5, classes="a", seed=seed, repeat=repeat).tolist()
        for seed, repeat in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert draws[0] == draws[3]
    assert len({str(draw) for draw in draws}) == 3


def test_every_row_is_drawn_equally_often() -> None:
    labels = np.repeat([0, 1], [5, 20])
    drawn = np.concatenate([draw_shots(labels, shots=1, classes="ab", seed=0, repeat=r) for r in range(2000)])
    times = np.bincount(drawn, minlength=25)
    assert np.abs(times[:5] / 2000 - 1 / 5).max() < 0.05
    assert np.abs(times[5:] / 2000 - 1 / 20).max() < 0.02


def test_fewer_shots_are_among_more() -> None:
    labels, groups = np.arange(60) % 3, np.arange(60) // 4
    sets = [set(draw_shots(labels, groups, shots=n, classes="abc", seed=3).tolist()) for n in (1, 2, 4, 8)]
    assert sets[0] < sets[1] < sets[2] < sets[3]


@pytest.mark.parametrize("seed", range(5))
def test_shots_are_of_different_groups_as_far_as_there_are_so_many(seed: int) -> None:
    labels, groups = np.zeros(10, np.int64), np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 2])
    assert sorted(groups[draw_shots(labels, groups, shots=3, classes="a", seed=seed)]) == [0, 1, 2]
    assert sorted(groups[draw_shots(labels, groups, shots=5, classes="a", seed=seed)]) == [0, 0, 1, 2, 2]


def test_too_many_shots_name_the_classes_that_have_fewer() -> None:
    labels = np.repeat([0, 1, 2], [2, 8, 3])
    with pytest.raises(
        FoldError,
        match=r"4 shots are more than the training images of 2 of 3 classes: ant \(2\), cat \(3\); .* at most 2",
    ):
        draw_shots(labels, shots=4, classes=("ant", "bee", "cat"), seed=0)
    with pytest.raises(FoldError, match="0 shots; expected at least 1"):
        draw_shots(labels, shots=0, classes=("ant", "bee", "cat"), seed=0)
