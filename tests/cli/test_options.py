"""Options and types that several commands share."""

from __future__ import annotations

import click
import pytest

from featx.arguments import backbone_name
from featx.cli.options import BatchSize, Numbers


@pytest.mark.parametrize(
    ("data", "backbone", "name"),
    [
        ("digits", None, "lenet5"),
        ("photos", None, "resnet50"),
        ("digits", "vgg11", "vgg11"),
        ("photos", "vgg11", "vgg11"),
    ],
)
def test_the_backbone_is_by_default_lenet5_for_digits_and_resnet50_for_the_rest(
    data: str, backbone: str | None, name: str
) -> None:
    assert backbone_name(data, backbone) == name


def test_a_batch_size_is_a_whole_number_or_auto() -> None:
    assert [BatchSize().convert(text, None, None) for text in ("4", "auto")] == [4, "auto"]
    for text in ("0", "1.5", "most"):
        with pytest.raises(click.BadParameter, match=f"'{text}' is neither a whole number above 0 nor auto"):
            BatchSize().convert(text, None, None)


def test_numbers_are_separated_by_commas() -> None:
    assert Numbers().convert("1, 2,16", None, None) == (1, 2, 16)
    with pytest.raises(click.BadParameter, match="0 is not in the range x>=1"):
        Numbers().convert("2,0", None, None)
