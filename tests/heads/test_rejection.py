"""The confidence from which on predictions are right as often as wished."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from featx.errors import HeadError
from featx.heads.rejection import threshold_for_precision


def ranked(right: np.ndarray, confidence: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes and labels of rows that are right or not, by default the most confident first."""
    p = np.linspace(0.99, 0.51, len(right)) if confidence is None else confidence
    return np.stack([p, 1 - p], axis=1), 1 - np.asarray(right, dtype=np.int64)


def clopper_pearson(right: int, n: int) -> float:
    return float(binomtest(right, n, alternative="greater").proportion_ci(0.95, method="exact").low)


def test_the_lower_bound_of_the_precision_reaches_the_target() -> None:
    right = np.arange(120) < 90
    found = threshold_for_precision(*ranked(right), 0.9)
    accepted = round(found.coverage * 120)
    assert found.precision == right[:accepted].mean()
    assert clopper_pearson(right[:accepted].sum(), accepted) >= 0.9
    assert clopper_pearson(right[: accepted + 1].sum(), accepted + 1) < 0.9, "no lower threshold has it"
    assert found.threshold == ranked(right)[0].max(axis=1)[accepted - 1]


def test_the_plain_share_of_right_rows_is_not_enough() -> None:
    right = np.arange(100) % 20 != 19  # 0.95 are right: no more than wished
    with pytest.raises(HeadError, match=r"precision of 0\.95, with 95 % confidence, on the 100 held-out rows"):
        threshold_for_precision(*ranked(right), 0.95)
    right = np.arange(400) % 20 != 19
    assert threshold_for_precision(*ranked(right), 0.9) == (0.0, 1.0, 0.95), "all rows are accepted"


@pytest.mark.parametrize(("rows", "target"), [(58, 0.95), (148, 0.98), (28, 0.9)])
def test_too_few_rows_are_named_though_all_are_right(rows: int, target: float) -> None:
    shown = rf"What is shown is a precision of 0\.\d+: of the {rows} rows .* {rows} are right"
    message = rf"{shown}.* at least {rows + 1} accepted rows"
    with pytest.raises(HeadError, match=message):
        threshold_for_precision(*ranked(np.full(rows, True)), target)
    assert threshold_for_precision(*ranked(np.full(rows + 1, True)), target) == (0.0, 1.0, 1.0)


def test_rows_of_one_confidence_are_accepted_together() -> None:
    confidence = np.r_[np.full(60, 0.9), np.full(60, 0.7)]
    found = threshold_for_precision(*ranked(np.r_[np.full(60, True), np.arange(60) % 2 == 0], confidence), 0.9)
    assert found == (0.9, 0.5, 1.0)


def test_groups_count_as_units_and_copies_show_nothing_new() -> None:
    right = np.full(200, True)
    assert threshold_for_precision(*ranked(right), 0.95).coverage == 1.0
    with pytest.raises(
        HeadError, match=r"200 held-out rows in 20 groups\. .* at least 59 accepted groups without an error"
    ):
        threshold_for_precision(*ranked(right), 0.95, np.arange(200) // 10)
    alone = threshold_for_precision(*ranked(right), 0.95, np.arange(200))
    assert alone == threshold_for_precision(*ranked(right), 0.95)


@pytest.mark.parametrize("wanted", [0.0, 1.0, 95.0, -1.0, float("nan")])
def test_a_precision_that_no_rows_can_show_is_an_error(wanted: float) -> None:
    with pytest.raises(HeadError, match=r"expected a share above 0 and below 1, such as 0\.95"):
        threshold_for_precision(*ranked(np.full(100, True)), wanted)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_accepted_has_the_precision_that_is_reported(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    confidence = np.array(data.draw(st.lists(st.sampled_from([0.6, 0.7, 0.8, 0.9]), min_size=count, max_size=count)))
    right = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    p, y = ranked(right, confidence)
    bounds = {
        level: clopper_pearson(right[confidence >= level].sum(), (confidence >= level).sum()) for level in confidence
    }
    try:
        found = threshold_for_precision(p, y, 0.6)
    except HeadError:
        assert max(bounds.values()) < 0.95
        return
    accepted = confidence >= found.threshold
    assert found.coverage == pytest.approx(accepted.mean())
    assert found.precision == pytest.approx(right[accepted].mean())
    assert bounds[confidence[accepted].min()] >= 0.6


def test_among_many_thresholds_the_luckiest_is_not_chosen() -> None:
    """Every threshold has a precision of 0.9 exactly, so that to find one above it is always an error."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(400):
        try:
            threshold_for_precision(*ranked(rng.random(400) < 0.9), 0.9)
        except HeadError:
            continue
        found += 1
    assert found / 400 <= 0.05


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_the_precision_that_a_refusal_names_is_one_that_is_found(target: float) -> None:
    rng, refused = np.random.default_rng(1), 0
    for _ in range(30):
        given = ranked(rng.random(150) < 0.99 * np.linspace(1.0, 0.3, 150))
        with contextlib.suppress(HeadError):
            threshold_for_precision(*given, target)
            continue
        refused += 1
        with pytest.raises(HeadError, match="What is shown is a precision of ") as error:
            threshold_for_precision(*given, target)
        lower = float(str(error.value).partition("What is shown is a precision of ")[2].partition(":")[0])
        assert lower < target
        accepted = round(150 * threshold_for_precision(*given, lower).coverage)
        assert f"of the {accepted} rows with a confidence of" in str(error.value)
    assert refused
