"""Groups, not images, are the units of intervals and tests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from featx.metrics.classification import ClassificationReport
from featx.metrics.grouped import (
    effective_size,
    flip_ratio,
    flip_test,
    group_sums,
    lower_bound,
    mean_and_error,
    number_groups,
    proportion_interval,
    sign_flip_test,
)
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport
from featx.metrics.scores import wilson_interval

GROUPS = np.arange(60).repeat(10)


def test_images_without_a_shared_group_are_independent() -> None:
    right = np.arange(150) % 7 > 0
    assert number_groups(None) is None
    assert number_groups(np.array(["b", "a", "c"])) is None
    for groups in (["b", "a", "b"], [7, 3, 7], [-1, -2, -1], [10**12, 5, 10**12]):
        numbers = number_groups(np.array(groups))
        assert numbers is not None
        assert numbers.tolist() == [1, 0, 1]
    names = np.random.default_rng(0).permutation(150).astype(str)
    assert proportion_interval(right, names) == proportion_interval(right) == wilson_interval(right.sum(), 150)
    assert effective_size(*group_sums(right, None)) == (150, np.inf)


def test_a_group_that_is_wholly_right_or_wrong_counts_as_one_image() -> None:
    right = np.arange(60) % 4 > 0
    size, freedom = effective_size(10.0 * right, np.full(60, 10.0))
    assert size == pytest.approx(60, rel=0.03)
    assert 30 < freedom <= 59
    low, high = proportion_interval(right.repeat(10), GROUPS)
    expected = wilson_interval(right.sum(), 60)
    assert (low, high) == pytest.approx(expected, abs=0.01)
    assert low < expected[0], "a little wider: the design effect is estimated"


def test_the_interval_covers_the_truth_by_groups_where_it_does_not_by_images() -> None:
    rng, covered = np.random.default_rng(0), np.zeros(2)
    for _ in range(600):
        own = rng.beta(4.5, 0.5, 60)  # a mean of 0.9 and an intraclass correlation of 1/6
        right = rng.random(600) < own[GROUPS]
        covered += [low <= 0.9 <= high for low, high in (proportion_interval(right, each) for each in (None, GROUPS))]
    by_images, by_groups = covered / 600
    assert by_images < 0.85
    assert 0.93 <= by_groups <= 0.98


def test_one_group_shows_nothing_about_others() -> None:
    assert proportion_interval(np.arange(50) > 3, np.zeros(50)) == (0.0, 1.0)
    assert lower_bound(np.full(50, True), np.zeros(50)) == 0.0
    low, high = proportion_interval(np.full(50, True), np.arange(50) // 25)
    assert (low < 0.1, high) == (True, 1.0), "nor do two show much, though all of their images are right"


def test_one_huge_group_does_not_count_as_many_images() -> None:
    right = np.r_[np.full(200, True), np.arange(100) % 5 > 0]
    groups = np.r_[np.zeros(200), 1 + np.arange(100) // 10]
    size, freedom = effective_size(*group_sums(right, number_groups(groups)))
    assert size < 100
    assert freedom < 10


def test_the_lower_bound_is_clopper_pearsons_without_groups() -> None:
    right = np.arange(80) > 4
    exact = binomtest(75, 80, alternative="greater").proportion_ci(0.95, method="exact").low
    assert lower_bound(right) == pytest.approx(exact)
    assert lower_bound(np.full(8, False)) == 0.0
    assert lower_bound(right.repeat(10), np.arange(80).repeat(10)) == pytest.approx(exact, abs=0.02)
    assert lower_bound(right.repeat(10)) > exact + 0.02


def test_the_error_of_a_mean_is_of_groups() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=60)
    mean, error = mean_and_error(means[GROUPS], GROUPS)
    assert (mean, error) == pytest.approx((means.mean(), means.std(ddof=1) / 60**0.5))
    assert mean_and_error(means) == pytest.approx((mean, error))
    assert np.isnan(mean_and_error(means, np.zeros(60))).all()


@pytest.mark.parametrize("gains", [[5, 1, 1, 1, -1, 2], [3, -2, 4, 4, 1], [7], [2, 2, 2], [1, -1, 3, 0, 0]])
def test_the_sign_flip_test_counts_all_flips(gains: list[int]) -> None:
    flips = np.array(list(itertools.product([1, -1], repeat=len(gains)))) @ gains
    assert sign_flip_test(np.array(gains)) == pytest.approx(np.mean(abs(flips) >= abs(sum(gains))))


def test_the_sign_flip_test_of_single_images_is_mcnemars() -> None:
    assert sign_flip_test(np.array([1] * 8 + [-1] * 3)) == pytest.approx(binomtest(3, 11).pvalue)
    assert sign_flip_test(np.zeros(5, dtype=np.int64)) == 1.0


def test_very_many_groups_have_the_p_value_of_the_normal_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = np.random.default_rng(0).integers(-30, 33, 400)
    exact = sign_flip_test(gains)
    monkeypatch.setattr("featx.metrics.grouped._MOST_STEPS", 0)
    assert sign_flip_test(gains) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("count", [1, 5, 16])
def test_the_sign_flip_test_of_differences_counts_all_flips(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.5, size=count)
    flips = np.array(list(itertools.product([1, -1], repeat=count))) @ differences
    assert flip_test(differences) == pytest.approx(np.mean(abs(flips) >= abs(differences.sum()) - 1e-9))
    groups = np.zeros(count, dtype=np.int64)
    assert flip_test(differences, groups) == 1.0
    assert flip_test(np.zeros(count)) == 1.0


def test_the_sign_flip_test_of_many_differences_is_near_that_of_random_flips() -> None:
    rng = np.random.default_rng(0)
    differences = rng.exponential(size=60) - 0.75
    flips = rng.choice([1, -1], (100_000, 60)) @ differences
    assert flip_test(differences) == pytest.approx(np.mean(abs(flips) >= abs(differences.sum())), abs=0.01)
    gains = np.array([1] * 300 + [-1] * 250)
    assert flip_test(gains) == pytest.approx(sign_flip_test(gains), abs=0.01)


def test_a_flip_ratio_is_bounded_by_the_groups() -> None:
    assert flip_ratio(np.ones(600), GROUPS) == pytest.approx(60**0.5)
    assert flip_ratio(np.ones(600), np.arange(600) // 300) == pytest.approx(2**0.5)
    assert flip_ratio(np.zeros(9)) == 0.0


# Reports


def test_all_intervals_of_a_classification_are_by_groups_and_its_values_are_not() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 60)[GROUPS]
    certain = np.where(rng.random(60) < 0.2, 0.3, 0.95)[GROUPS]
    p = np.where(np.arange(2) == labels[:, None], certain[:, None], 1 - certain[:, None])
    one, other = (
        ClassificationReport.from_predictions(labels, p, ["a", "b"], split="test", reject_below=0.6, groups=groups)
        for groups in (None, GROUPS)
    )
    assert (one.groups, other.groups) == (600, 60)
    for name in ("interval", "selective_interval"):
        narrow, wide = getattr(one, name), getattr(other, name)
        assert narrow[1] - narrow[0] < 0.6 * (wide[1] - wide[0])
    assert (np.diff(one.recall_intervals) < 0.6 * np.diff(other.recall_intervals)).all()
    narrow, wide = ([b.interval for b in report.reliability if b.count] for report in (one, other))
    assert all(b[1] - b[0] < c[1] - c[0] for b, c in zip(narrow, wide, strict=True))
    by_image, by_group = one.as_dict(), other.as_dict()
    differ = {key for key in by_image if by_image[key] != by_group[key]}
    assert differ == {"groups", "interval", "baseline_p_value", "selective_interval", "reliability"}
    assert str(other).startswith("Evaluated on 600 images in 60 groups of split test\n")
    assert "groups" not in str(one)


def test_copies_of_one_image_do_not_narrow_an_interval() -> None:
    labels, p = np.arange(40) % 2, np.tile([[0.7, 0.3]], (40, 1))
    once = ClassificationReport.from_predictions(labels, p, ["a", "b"], split="test")
    copied = ClassificationReport.from_predictions(
        labels.repeat(5), p.repeat(5, axis=0), ["a", "b"], split="test", groups=np.arange(40).repeat(5)
    )
    assert copied.interval == pytest.approx(once.interval, abs=0.02)


def test_the_intervals_of_several_labels_and_of_numbers_are_by_groups() -> None:
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 2, (60, 3))[GROUPS]
    p = np.clip(targets + rng.normal(0, 0.5, (60, 3))[GROUPS], 0.01, 0.99)
    one, other = (
        MultiLabelReport.from_predictions(targets, p, "abc", thresholds=np.full(3, 0.5), split="test", groups=groups)
        for groups in (None, GROUPS)
    )
    assert np.diff(one.exact_match_interval) < 0.5 * np.diff(other.exact_match_interval)
    assert (np.diff(one.recall_intervals) < 0.5 * np.diff(other.recall_intervals)).all()
    assert "600 images in 60 groups" in str(other)
    errors = rng.normal(size=60)
    whole, grouped = (
        RegressionReport.from_predictions(np.zeros(n), errors.repeat(n // 60), split="test", groups=groups)
        for n, groups in ((60, None), (600, GROUPS))
    )
    assert (whole.rmse, *whole.interval) == pytest.approx((grouped.rmse, *grouped.interval))
    assert (whole.as_dict()["groups"], grouped.as_dict()["groups"]) == (60, 60)


def test_errors_of_heavy_tails_are_noted() -> None:
    rng = np.random.default_rng(0)
    normal, heavy = rng.normal(size=30), rng.normal(size=30)
    heavy[:2] *= 20
    y = np.arange(30.0)
    reports = [RegressionReport.from_predictions(y, y + errors, split="test") for errors in (normal, heavy)]
    assert reports[0].notes == ()
    (note,) = reports[1].notes
    assert "the 3 largest of 30 errors make" in note
    assert "the 95 % interval of the RMSE is too narrow" in note
