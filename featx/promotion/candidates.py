"""The settings that a search tries, and how many of them go how far (successive halving)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import SettingsError
from featx.promotion.config import FineTuning

FOLDS = 3
"""Folds of the training images that a search judges settings on."""

KEPT = 3
"""One in so many settings goes on to the next stage (Li et al., 2018)."""

DEPTH = 3
"""Blocks that are trained where neither ``last`` nor ``from_layer`` says how many."""

_CHANGES = 3
"""Most settings that one candidate changes."""

Changes = dict[str, Any]
"""Names of fields of ``FineTuning`` and their values."""


@dataclass(frozen=True)
class Stage:
    """One stage of a search: each stage trains fewer settings for longer, or on more folds.

    Attributes:
        number: From 1; a search among two settings has no first stage.
        count: Settings that it tries.
        share: Epochs, as a share of those of the setting.
        folds: Numbers of the folds.
    """

    number: int
    count: int
    share: float
    folds: tuple[int, ...]


def stages(count: int) -> list[Stage]:
    """Return the stages of a search among so many settings.

    First all settings are trained for a quarter of their epochs on one fold, then a third of them for all their epochs on that
    fold, and then a third of those on all folds.

    Examples:
        >>> [(stage.number, stage.count, stage.share, stage.folds) for stage in stages(12)]
        [(1, 12, 0.25, (0,)), (2, 4, 1.0, (0,)), (3, 2, 1.0, (1, 2))]
        >>> [(stage.number, stage.count, stage.share, stage.folds) for stage in stages(2)]
        [(2, 2, 1.0, (0,)), (3, 2, 1.0, (1, 2))]
    """
    longer = max(2, math.ceil(count / KEPT))
    last = max(2, math.ceil(longer / KEPT))
    first = [Stage(1, count, 0.25, (0,))] if count > longer else []
    return [*first, Stage(2, longer, 1.0, (0,)), Stage(3, last, 1.0, tuple(range(1, FOLDS)))]


def epochs_of(count: int, epochs: int) -> float:
    """Return about how many epochs a search among so many settings trains.

    Examples:
        >>> epochs_of(12, 10)
        104.0
    """
    return sum(stage.count * max(1, round(stage.share * epochs)) * len(stage.folds) for stage in stages(count)) * 1.0


def affordable(count: int, epochs: int, seconds_per_epoch: float, budget: float) -> int:
    """Return how many of so many settings can be tried in a time, but at least three: fewer have no first stage.

    Examples:
        >>> affordable(12, 10, 1.0, 120.0), affordable(12, 10, 1.0, 72.0), affordable(12, 10, 1.0, 1.0)
        (12, 6, 3)
    """
    least = min(count, 3)
    return next((n for n in range(count, least, -1) if epochs_of(n, epochs) * seconds_per_epoch <= budget), least)


def space(settings: FineTuning, *, taught: bool) -> dict[str, tuple[Any, ...]]:
    """Return the values that are tried for each setting; those that differ from their default were given, and stay.

    Args:
        settings: The settings as given.
        taught: Whether there is a teacher.
    """
    default, depth = FineTuning(), settings.last or 0
    varied = {
        name: tried
        for name, tried in _values(settings, taught=taught).items()
        if getattr(settings, name) == getattr(default, name)
    }
    depths = tuple(sorted({1, depth // 2, depth - 1} - {0, depth}))
    return varied | ({"last": depths} if depth > 1 and depths else {})


def _values(settings: FineTuning, *, taught: bool) -> dict[str, tuple[Any, ...]]:
    """The values that are tried for each setting that was not given."""
    values: dict[str, tuple[Any, ...]] = {
        "lr": (3e-4, 3e-3, 1e-2),
        "backbone_lr": (0.03, 0.3, 1.0),
        "augment": ("none",),
        "mixup": (0.2,),
        "label_smoothing": (0.1,),
        "weight_decay": (1e-4, 0.1),
        "ema": (0.9,),
        "epochs": (settings.epochs * 2,),
    }
    if taught:
        values |= {"teacher_weight": (0.3, 0.7, 0.9), "temperature": (1.0, 4.0)}
    return values


def candidates(settings: FineTuning, count: int, *, taught: bool) -> list[Changes]:
    """Return different settings to try, as changes of those given; the first changes nothing.

    Each of the others changes one to three settings, drawn at random: the given ones are good, and most combinations of many
    changes are not (random search; Bergstra and Bengio, 2012). The first settings are the same for any ``count``.

    Args:
        settings: The settings as given; the seed is read too.
        count: How many.
        taught: Whether there is a teacher.
    """
    values = space(settings, taught=taught)
    rng, found = np.random.default_rng([settings.seed, len(values)]), [Changes()]
    for _ in range(100 * count if values else 0):
        if len(found) >= count:
            break
        names = rng.permutation(sorted(values))[: rng.integers(1, _CHANGES + 1)].tolist()
        changes = {name: values[name][rng.integers(len(values[name]))] for name in sorted(names)}
        if changes not in found:
            found.append(changes)
    return found


def require_variety(settings: FineTuning, *, taught: bool) -> None:
    """Raise SettingsError if there is nothing to search: all settings that a search varies were given."""
    if not space(settings, taught=taught):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(_values(settings, taught=taught)))
        raise SettingsError(f"--search has nothing to vary, since all of {names} were given; leave out some of them")


def with_changes(settings: FineTuning, changes: Mapping[str, Any], share: float = 1.0) -> FineTuning:
    """Return settings with some of them changed, for a share of their epochs."""
    changed = dataclasses.replace(settings, **changes)
    return dataclasses.replace(changed, epochs=max(1, round(share * changed.epochs)))
