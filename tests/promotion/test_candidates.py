"""The settings that a search tries."""

from __future__ import annotations

import pytest

from featx.promotion.candidates import affordable, candidates, epochs_of, space, stages, with_changes
from featx.promotion.config import FineTuning, in_words


def test_candidates_are_different_begin_with_the_given_settings_and_do_not_depend_on_their_number() -> None:
    few, many = (candidates(FineTuning(last=3), count, taught=False) for count in (6, 30))
    assert many[0] == {}
    assert many[:6] == few
    assert len({in_words(each) for each in many}) == 30
    assert all(1 <= len(each) <= 3 for each in many[1:])
    assert many != candidates(FineTuning(last=3, seed=1), 30, taught=False)


def test_settings_that_were_given_are_never_varied() -> None:
    settings = FineTuning(last=4, lr=5e-3, mixup=0.3, epochs=7)
    assert not {"lr", "mixup", "epochs"} & {name for each in candidates(settings, 60, taught=False) for name in each}
    assert space(settings, taught=False)["last"] == (1, 2, 3)
    assert "last" not in space(FineTuning(from_layer="layer4"), taught=False)
    assert "temperature" not in space(settings, taught=False)
    assert "temperature" in space(settings, taught=True)


def test_there_are_no_more_candidates_than_combinations() -> None:
    given = {
        "backbone_lr": 0.2,
        "augment": "none",
        "mixup": 0.1,
        "label_smoothing": 0.2,
        "weight_decay": 0.5,
        "ema": 0.5,
    }
    only = FineTuning(last=1, epochs=3, lr=1e-3, **given)  # type: ignore[arg-type]
    assert len(candidates(only, 40, taught=False)) == 1 + len(space(only, taught=False)["lr"])


@pytest.mark.parametrize("count", [2, 3, 5, 12, 40])
def test_each_stage_tries_fewer_settings_and_the_last_all_folds(count: int) -> None:
    plan = stages(count)
    counts = [stage.count for stage in plan]
    assert counts[0] == count
    assert counts == sorted(counts, reverse=True)
    assert plan[-1].count >= 2
    assert sorted({fold for stage in plan[-2:] for fold in stage.folds}) == [0, 1, 2]
    assert epochs_of(count, 10) >= epochs_of(max(2, count - 1), 10)


def test_a_budget_allows_as_many_settings_as_fit_and_never_less_than_three() -> None:
    for budget in (1.0, 50.0, 100.0, 400.0):
        count = affordable(30, 10, 1.0, budget)
        assert count == 3 or epochs_of(count, 10) <= budget
        assert count == 30 or epochs_of(count + 1, 10) > budget
    assert affordable(2, 10, 1.0, 1.0) == 2


def test_a_share_of_the_epochs_is_at_least_one() -> None:
    assert with_changes(FineTuning(epochs=10), {"epochs": 20, "lr": 0.1}, 0.25) == FineTuning(epochs=5, lr=0.1)
    assert with_changes(FineTuning(epochs=1), {}, 0.25).epochs == 1
