"""Which candidate is chosen, with models that are made up, so that every loss is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import log_loss

from featx.heads.folds import make_folds
from featx.heads.postprocess import fit_temperature
from featx.heads.predictors import Predictor
from featx.heads.search import C_LIMITS, EQUAL_LOSS, Search, losses, search
from featx.heads.training_data import Folds, Rows, TrainingData

N = 40


class MadeUp:
    """A model of two classes whose held-out loss is what a function of the candidate says, in every row."""

    def __init__(self, loss: Callable[[float], float], candidates: Sequence[float]) -> None:
        self.loss, self.candidates = loss, tuple(candidates)
        self.asked: list[tuple[float, ...]] = []

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        self.asked.append(tuple(candidates))
        for candidate in candidates:
            wanted = self.loss(candidate)
            right = brentq(lambda score, wanted=wanted: smoothed_loss(score) - wanted, -100.0, math.log(N + 1))
            scores = np.where(training.y[:, None] == np.arange(2), right, 0.0)
            yield candidate, scores

    def fit(self, training: TrainingData, candidate: float) -> Predictor:
        raise AssertionError("a search fits nothing itself")


def smoothed_loss(right: float) -> float:
    """The log loss of N rows of two classes whose scores are (right, 0), where one of N + 2 answers counts as wrong."""
    return math.log1p(math.exp(-right)) + right / (N + 2)


class Fixed:
    """A model whose scores are given."""

    def __init__(self, scores: dict[float, np.ndarray]) -> None:
        self.scores, self.candidates = scores, tuple(scores)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        yield from ((candidate, self.scores[candidate]) for candidate in candidates)

    def fit(self, training: TrainingData, candidate: float) -> Predictor:
        raise AssertionError("a search fits nothing itself")


def training(
    *,
    y: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    folds: Folds | None = None,
    task: str = "classification",
) -> TrainingData:
    """N rows without features."""
    y = np.arange(N) % 2 if y is None else y
    weight = np.ones(N) if weight is None else weight
    folds = make_folds(None, np.arange(N), folds=5, seed=0) if folds is None else folds
    return TrainingData(Rows(np.zeros((N, 1))), y, 2 if y.ndim == 1 else y.shape[1], task, weight, folds)


class ClosesIn(MadeUp):
    """The same, searched from a few candidates on; what is asked roughly has another loss in each row, of the same mean."""

    def __init__(
        self,
        loss: Callable[[float], float],
        candidates: Sequence[float],
        *,
        looks: tuple[int, int] = (0, 4),
        noise: float = 0.0,
        error: Callable[[float], float] = lambda candidate: 0.0,
    ) -> None:
        super().__init__(loss, candidates)
        self.first_looks, self.noise, self.error, self.exactly = looks, noise, error, set[float]()

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float], *, rough: bool = False
    ) -> Iterator[tuple[float, np.ndarray]]:
        self.asked.append(tuple(candidates))
        self.exactly |= set() if rough else {*candidates}
        for candidate in candidates:
            level = self.loss(candidate) + (self.error(candidate) if rough else 0.0)
            sign = np.random.default_rng(round(4 * math.log10(candidate)) + 100).permutation(np.arange(N) % 2)
            high, low = (score_of(level + change) for change in (self.noise, -self.noise))
            right = np.where(sign, high, low)
            yield candidate, np.where(training.y[:, None] == np.arange(2), right[:, None], 0.0)


def score_of(wanted: float) -> float:
    """The score of the right class that has a smoothed loss."""
    return float(brentq(lambda score: smoothed_loss(score) - wanted, -100.0, math.log(N + 1)))


def valley(bottom: float, *, depth: float = 0.3) -> Callable[[float], float]:
    """A loss that rises by a hundredth for each factor of ten from its bottom."""
    return lambda C: depth + 0.01 * abs(math.log10(C / bottom))


def found(model: MadeUp, *, extends: bool = True) -> Search:
    return search(model, training(), gives_logits=True, extends=extends)


# Losses


def test_losses_are_log_loss_and_squared_error() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=(50, 3)) * 3, rng.integers(0, 3, 50)
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert losses(scores, y, "classification").mean() == pytest.approx(log_loss(y, p))
    labels = rng.integers(0, 2, (50, 3)).astype(np.float32)
    each = [log_loss(labels[:, label], 1 / (1 + np.exp(-scores[:, label]))) for label in range(3)]
    assert losses(scores, labels, "multilabel").mean() == pytest.approx(np.mean(each))
    np.testing.assert_allclose(losses(scores[:, :1], scores[:, :1] + 2.0, "regression"), 4.0)


def test_losses_of_large_scores_neither_overflow_nor_vanish() -> None:
    scores = np.array([[1e5, 0.0], [1e5, 0.0]])
    np.testing.assert_allclose(losses(scores, np.array([0, 1]), "classification"), [0.0, 1e5])
    labels = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(losses(scores, labels, "multilabel"), [math.log(2) / 2, (1e5 + math.log(2)) / 2])


@pytest.mark.parametrize("count", [2, 3, 200])
def test_smoothed_labels_spread_one_answer_of_n_plus_2_over_the_other_classes(count: int) -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=(50, count)) * 3, rng.integers(0, count, 50)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    labels = np.where(np.arange(count) == y[:, None], 1 - 1 / 52, 1 / 52 / (count - 1))
    expected = -(labels * log_p).sum(axis=1)
    np.testing.assert_allclose(losses(scores, y, "classification", smoothed=True), expected)


def test_smoothed_answers_to_each_label_are_wrong_once_in_n_plus_2() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=(50, 3)) * 3, rng.integers(0, 2, (50, 3)).astype(np.float32)
    right, wrong = losses(scores, y, "multilabel"), losses(scores, 1 - y, "multilabel")
    np.testing.assert_allclose(losses(scores, y, "multilabel", smoothed=True), (51 * right + wrong) / 52, rtol=1e-6)


def test_a_path_does_not_grow_where_every_held_out_row_is_right_and_ever_surer() -> None:
    model = Fixed({C: np.where(np.arange(2) == (np.arange(N) % 2)[:, None], C, 0.0) for C in path(-2, 3)})
    result = search(model, training(), gives_logits=True, extends=True)
    assert result.chosen == 10.0  # 100.0 has a lower log loss, of probabilities that 40 rows do not support
    assert result.tried[-1].candidate == 1e3


# The choice


def test_the_candidate_of_least_loss_is_chosen_and_the_table_is_of_all_in_order() -> None:
    path = (0.001, 0.01, 0.1, 1.0, 10.0)
    result = found(MadeUp(valley(0.1), path))
    assert result.chosen == 0.1
    assert tuple(t.candidate for t in result.tried) == path
    assert [t.loss for t in result.tried] == pytest.approx([0.32, 0.31, 0.3, 0.31, 0.32])
    assert [t.error for t in result.tried] == pytest.approx([0.0] * 5)
    assert result.best is result.tried[2]


@pytest.mark.parametrize(("apart", "chosen"), [(0.9 * EQUAL_LOSS, 0.1), (1.1 * EQUAL_LOSS, 1.0)])
def test_of_candidates_within_the_tolerance_the_simplest_is_taken(apart: float, chosen: float) -> None:
    values = {0.01: 0.3, 0.1: 0.2 + apart, 1.0: 0.2, 10.0: 0.2 + apart}
    assert found(MadeUp(values.__getitem__, tuple(values)), extends=False).chosen == chosen


def test_the_simplest_is_the_first_of_the_model_s_own_order() -> None:
    values = {200.0: 0.2, 20.0: 0.2, 1.0: 0.2}
    result = found(MadeUp(values.__getitem__, tuple(values)), extends=False)
    assert result.chosen == 200.0
    assert [t.candidate for t in result.tried] == [1.0, 20.0, 200.0]


def test_the_tolerance_of_a_squared_error_is_a_share_of_it() -> None:
    y = np.random.default_rng(0).normal(size=(N, 1))
    for unit in (1e-3, 1e3):
        scores = {
            1.0: unit * (y + 1 + 0.6 * EQUAL_LOSS), 2.0: unit * (y + 1 + 0.4 * EQUAL_LOSS), 3.0: unit * (y + 1)
        }  # fmt: skip
        made = training(y=unit * y, task="regression")
        result = search(Fixed(scores), made, gives_logits=False, extends=False)
        assert result.chosen == 2.0
        assert result.best.loss == pytest.approx(unit**2, rel=1e-3)


def test_a_loss_that_is_no_number_is_never_the_least() -> None:
    right = np.where(np.arange(2) == (np.arange(N) % 2)[:, None], 1.0, 0.0)
    scores = {1.0: np.full((N, 2), np.nan), 2.0: right}
    result = search(Fixed(scores), training(), gives_logits=True, extends=False)
    assert result.chosen == 2.0
    assert math.isnan(result.tried[0].loss)


# A path that grows


def path(low: int, high: int) -> tuple[float, ...]:
    return tuple(10.0**power for power in range(low, high + 1))


@pytest.mark.parametrize(
    ("bottom", "asked"),
    [
        (0.1, [path(-3, 1)]),
        (1e-3, [path(-3, 1), path(-7, -4)]),
        (1e-5, [path(-3, 1), path(-7, -4)]),
        (1e-7, [path(-3, 1), path(-7, -4), path(-9, -8)]),
        (1e1, [path(-3, 1), path(2, 5)]),
        (1e4, [path(-3, 1), path(2, 5)]),
        (1e6, [path(-3, 1), path(2, 5), path(6, 8)]),
    ],
)
def test_a_path_goes_on_four_values_at_a_time_while_the_best_stands_at_an_end(
    bottom: float, asked: list[tuple[float, ...]]
) -> None:
    model = MadeUp(valley(bottom), path(-3, 1))
    result = found(model)
    assert model.asked == [pytest.approx(values) for values in asked]
    assert result.chosen == pytest.approx(bottom)
    every = sorted(c for values in asked for c in values)
    assert [t.candidate for t in result.tried] == pytest.approx(every)


@pytest.mark.parametrize(("bottom", "end"), [(1e-30, C_LIMITS[0]), (1e30, C_LIMITS[1])])
def test_a_path_stays_within_its_limits(bottom: float, end: float) -> None:
    result = found(MadeUp(valley(bottom), path(-3, 1)))
    assert result.chosen == pytest.approx(end)
    assert C_LIMITS[0] <= result.tried[0].candidate
    assert result.tried[-1].candidate <= C_LIMITS[1]


def test_a_path_goes_on_in_its_own_steps() -> None:
    model = MadeUp(valley(1e4), (1.0, 2.0, 4.0))
    found(model)
    assert model.asked[1] == (8.0, 16.0, 32.0, 64.0)


def test_a_path_that_may_not_grow_does_not() -> None:
    model = MadeUp(valley(1e-30), path(-3, 1))
    assert found(model, extends=False).chosen == 1e-3
    assert len(model.asked) == 1


def test_on_a_plateau_at_the_lower_end_a_path_does_not_grow() -> None:
    model = MadeUp(lambda C: 0.2 if C <= 0.1 else 0.5, path(-3, 2))
    assert found(model).chosen == 1e-3
    assert len(model.asked) == 1


def test_on_a_plateau_at_the_upper_end_a_path_does_not_grow() -> None:
    model = MadeUp(lambda C: 0.2 if C >= 1.0 else 0.5, path(-3, 2))
    assert found(model).chosen == 1.0
    assert len(model.asked) == 1


# A path that is closed in on


QUARTERS = tuple(10.0 ** (power / 4) for power in range(-24, 21))


@pytest.mark.parametrize("looks", [(0, 1), (0, 4), (8, 4), (0, 8), (44, 4)])
@pytest.mark.parametrize("bottom", [QUARTERS[at] for at in (0, 1, 7, 8, 13, 22, 30, 41, 43, 44)])
def test_closing_in_finds_the_bottom_of_a_valley_wherever_it_lies_and_solves_it_and_its_neighbours_exactly(
    looks: tuple[int, int], bottom: float
) -> None:
    model = ClosesIn(valley(bottom), QUARTERS, looks=looks)
    result = found(model, extends=False)
    assert result.chosen == bottom
    place = QUARTERS.index(bottom)
    assert {*QUARTERS[max(0, place - 1) : place + 2]} <= model.exactly
    asked = [c for candidates in model.asked for c in candidates]
    assert {t.candidate for t in result.tried} == {*asked}


def test_closing_in_tries_a_fraction_of_the_path() -> None:
    model = ClosesIn(valley(QUARTERS[17] * 1.1), QUARTERS, looks=(8, 4))
    found(model)
    first = [(QUARTERS[at],) for at in (8, 12, 16, 20)]
    assert model.asked == [*first, (QUARTERS[14], QUARTERS[18]), QUARTERS[17:20], (QUARTERS[16],)]


@pytest.mark.parametrize(("noise", "goes_on"), [(0.0, False), (0.4, True)])
def test_candidates_beyond_one_that_has_lost_by_two_standard_errors_are_not_tried(noise: float, goes_on: bool) -> None:
    model = ClosesIn(valley(QUARTERS[10], depth=0.6), QUARTERS, noise=noise)
    result = found(model)
    assert result.chosen == QUARTERS[10]
    assert (max(t.candidate for t in result.tried) == QUARTERS[44]) is goes_on


def test_a_lower_valley_is_found_beyond_a_hill_that_may_be_noise() -> None:
    def two_valleys(C: float) -> float:
        return min(valley(QUARTERS[8], depth=0.5)(C), 2 * valley(QUARTERS[32], depth=0.225)(C))

    assert found(ClosesIn(two_valleys, QUARTERS, noise=0.15)).chosen == QUARTERS[32]
    assert found(ClosesIn(two_valleys, QUARTERS)).chosen == QUARTERS[8]


def test_on_a_plateau_closing_in_takes_its_simplest_candidate() -> None:
    model = ClosesIn(lambda C: 0.3 if QUARTERS[21] <= C else 0.3 + 0.01 * math.log10(QUARTERS[21] / C), QUARTERS)
    assert found(model).chosen == QUARTERS[21]


def test_a_rough_loss_that_is_far_off_is_not_what_is_chosen_or_kept() -> None:
    model = ClosesIn(valley(QUARTERS[17]), QUARTERS, looks=(8, 4), error=lambda C: -0.02 if QUARTERS[20] == C else 0.0)
    result = found(model)
    assert result.chosen == QUARTERS[17]
    assert {t.candidate: t.loss for t in result.tried}[QUARTERS[20]] == pytest.approx(
        valley(QUARTERS[17])(QUARTERS[20])
    )


def test_scores_of_a_candidate_that_becomes_the_best_only_when_others_are_solved_exactly_are_there() -> None:
    model = ClosesIn(
        lambda C: 0.3 if QUARTERS[16] == C else 0.31,
        QUARTERS[:20],
        looks=(8, 4),
        error=lambda C: -0.02 if C == 1e-2 else 0,
    )
    result = found(model, extends=False)
    assert result.chosen in {t.candidate for t in result.tried}
    assert result.scores.shape == (N, 2)


def test_groups_count_as_one_where_a_candidate_is_to_lose() -> None:
    """40 images of 4 groups, each worse or better as a whole: no more evidence than 4 images are."""

    class ByGroup(ClosesIn):
        def cross_val_scores(
            self, training: TrainingData, candidates: Sequence[float], *, rough: bool = False
        ) -> Iterator[tuple[float, np.ndarray]]:
            for candidate, scores in super().cross_val_scores(training, candidates, rough=rough):
                up = candidate > QUARTERS[9]
                worse = np.array([0.4, 0.4, 0.4, -0.4])[np.arange(N) % 4] if up else np.zeros(N)
                yield candidate, scores - np.where(training.y[:, None] == np.arange(2), worse[:, None], 0.0)

    groups = np.arange(N) % 4
    made = training()
    tried = []
    for some in (None, groups):
        model = ByGroup(valley(QUARTERS[8], depth=0.5), QUARTERS)
        grouped = dataclasses.replace(made, groups=some)
        tried.append(len(search(model, grouped, gives_logits=True, extends=False).tried))
    assert tried[0] < tried[1]


# What a loss is of


def test_without_folds_the_middle_candidate_is_taken_untried() -> None:
    model = MadeUp(valley(1.0), path(-2, 2))
    result = search(model, training(folds=()), gives_logits=True, extends=True)
    assert (result.chosen, result.tried, result.best, model.asked) == (1.0, (), None, [])
    assert result.rows.shape == (0,)
    assert result.scores.shape == (0, 2)


def test_losses_are_means_by_weight_and_errors_are_from_the_folds() -> None:
    rng = np.random.default_rng(0)
    scores, weight = rng.normal(size=(N, 2)), rng.uniform(0.1, 2.0, N)
    made = training(weight=weight)
    (tried,) = search(Fixed({1.0: scores}), made, gives_logits=True, extends=False).tried
    each = losses(scores, made.y, "classification", smoothed=True)
    folds = [np.average(each[test], weights=weight[test]) for _, test in made.folds]
    assert tried.loss == pytest.approx(np.average(each, weights=weight))
    assert tried.error == pytest.approx(np.std(folds, ddof=1) / math.sqrt(5))


def test_rows_that_no_fold_holds_out_judge_nothing() -> None:
    scores = np.where(np.arange(2) == (np.arange(N) % 2)[:, None], 1.0, 0.0)
    scores[:10] = np.nan
    folds = tuple((np.setdiff1d(np.arange(N), test), test) for test in (np.arange(10, 25), np.arange(25, N)))
    result = search(Fixed({1.0: scores}), training(folds=folds), gives_logits=True, extends=False)
    np.testing.assert_array_equal(result.rows, np.arange(10, N))
    np.testing.assert_array_equal(result.scores, scores[10:])
    assert result.tried[0].loss == pytest.approx(math.log1p(math.exp(-1)) + 1 / (30 + 2))


def test_scores_that_are_no_logits_are_judged_at_their_best_temperature() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(N) % 2
    scores = rng.normal(size=(N, 2)) + np.eye(2)[y]
    given = {1.0: scores, 2.0: 100.0 * scores}
    apart = search(Fixed(given), training(), gives_logits=True, extends=False).tried
    assert apart[1].loss > 10 * apart[0].loss
    alike = search(Fixed(given), training(), gives_logits=False, extends=False).tried
    expected = losses(scores / fit_temperature(scores, y), y, "classification", smoothed=True).mean()
    assert [t.loss for t in alike] == pytest.approx([expected, expected], rel=1e-4)


def test_the_chosen_candidate_s_scores_come_as_the_model_gave_them() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(N) % 2
    good, bad = 5.0 * rng.normal(size=(N, 2)) + 50.0 * np.eye(2)[y], rng.normal(size=(N, 2))
    result = search(Fixed({1.0: bad, 2.0: good, 3.0: bad}), training(), gives_logits=False, extends=False)
    assert result.chosen == 2.0
    np.testing.assert_array_equal(result.scores, good)
    np.testing.assert_array_equal(result.rows, np.arange(N))
