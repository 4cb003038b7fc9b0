"""The settings of fine-tuning."""

from __future__ import annotations

import dataclasses
import re

import pytest

from featx.errors import SettingsError
from featx.promotion.config import FineTuning


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 0, "at least 1"), ("lr", 0.0, "a number above 0"), ("lr", float("nan"), "a number above 0"),
        ("clip", float("inf"), "a number above 0"), ("mixup", -1.0, "a number of at least 0"),
        ("crop_scale", 1.5, "a share above 0 and at most 1"), ("ema", 1.0, "a share of at least 0 and below 1"),
        ("last", -1, "a number of blocks of at least 0"), ("cached_crops", -1, "a number of crops of at least 0"),
        ("repeats", 1, "at least 2, or 0"), ("optimizer", "lion", "adamw or sgd"),
        ("augment", "cutout", "none, crop or randaugment"), ("class_weight", "none", "balanced or None"),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_an_error_that_says_what_is_valid(name: str, value: object, expected: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"{name} is {value!r}; expected {expected}") + "$"):
        FineTuning(**{name: value})  # type: ignore[arg-type]


def test_the_first_trained_block_is_set_in_one_way() -> None:
    with pytest.raises(SettingsError, match="two ways to set the first block that is trained"):
        FineTuning(last=5, from_layer="features")


def test_stored_settings_keep_the_key_views_of_cached_crops_and_can_be_read() -> None:
    settings = FineTuning(cached_crops=7, last=2)
    stored = settings.as_stored()
    names = [field.name for field in dataclasses.fields(FineTuning)]
    assert list(stored) == ["views" if name == "cached_crops" else name for name in names]
    assert stored["views"] == 7
    assert FineTuning.from_stored(stored) == settings
