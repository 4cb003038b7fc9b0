"""Identities of features, and the parts in which they differ."""

from __future__ import annotations

from featx.identity import differences


def test_differences_name_the_parts_with_both_values() -> None:
    ours = {"dtype": "float32", "transform": {"crop": 224}, "decoder": 1}
    theirs = {"dtype": "float16", "transform": {"crop": 32}, "decoder": 1, "long": "x" * 300}
    found = differences(ours, theirs)
    assert found[0] == "dtype: float32 against float16"
    assert found[1] == f"long: None against {'x' * 197}..."
    assert found[2:] == ["transform: crop 224 against 32"]
