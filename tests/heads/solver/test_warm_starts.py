"""Starts between and beyond known solutions."""

from __future__ import annotations

import numpy as np
import pytest

from featx.heads.solver import warm_starts
from featx.heads.solver.problems import Solution
from featx.heads.solver.warm_starts import WarmStarts

FOLDS = 2


def solution(*places: float) -> Solution:
    """Of one output and two folds at each log C: weights and intercept are log C, plus 100 for the second fold."""
    numbers = np.array([place + 100.0 * fold for place in places for fold in range(FOLDS)])
    count = len(numbers)
    weight = np.repeat(numbers[None, :, None], 3, axis=2)
    return Solution(weight, numbers[None], np.zeros(count), np.zeros(count), np.zeros(count, np.int64), numbers + 1)


def known(*places: float) -> WarmStarts:
    starts = WarmStarts()
    starts.add(np.array(places), solution(*places))
    return starts


@pytest.mark.parametrize(
    ("places", "at", "expected"),
    [
        ((), 1.0, (0.0, 0.0)),  # nothing is known
        ((2.0,), 1.0, (0.0, 0.0)),  # below all
        ((2.0,), 5.0, (2.0, 102.0)),  # above the only one
        ((2.0, 4.0), 3.0, (3.0, 103.0)),  # between
        ((2.0, 4.0, 8.0), 5.0, (5.0, 105.0)),
        ((2.0, 4.0), 4.0, (4.0, 104.0)),  # the same
        ((2.0, 4.0), 7.0, (7.0, 107.0)),  # beyond two
        ((4.0, 2.0), 7.0, (7.0, 107.0)),  # in whatever order they were solved
    ],
)
def test_a_start_lies_on_the_line_through_the_nearest_solutions(
    places: tuple[float, ...], at: float, expected: tuple[float, float]
) -> None:
    weight, bias = (known(*places) if places else WarmStarts()).start(np.array([at]), FOLDS, 1, 3)
    np.testing.assert_allclose(bias[0], expected)
    np.testing.assert_allclose(weight[0], np.repeat(np.array(expected)[:, None], 3, axis=1))


def test_starts_of_several_values_are_consecutive_problems_of_the_folds() -> None:
    _, bias = known(2.0, 4.0).start(np.array([3.0, 4.0]), FOLDS, 1, 3)
    np.testing.assert_allclose(bias[0], [3.0, 103.0, 4.0, 104.0])
    np.testing.assert_allclose(known(2.0, 4.0).first_step(np.array([1.0, 3.0]), FOLDS), [1.0, 1.0, 3.0, 103.0])


def test_the_mean_over_the_folds_is_that_of_a_value_that_was_solved() -> None:
    mean = known(2.0, 4.0).mean(4.0)
    assert mean is not None
    np.testing.assert_allclose(mean[1], [[54.0]])
    assert known(2.0, 4.0).mean(3.0) is None


def test_the_solutions_farthest_from_the_last_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_starts, "MAX_BYTES", 0)
    starts = known(1.0, 2.0, 3.0)
    starts.add(np.array([2.5]), solution(2.5))
    assert sorted(starts.solved) == [2.0, 2.5, 3.0]
