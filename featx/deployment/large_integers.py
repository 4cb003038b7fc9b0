"""Whole numbers of any size as tensors of float32, for runtimes that have neither float64 nor 64-bit integers.

A number is a list of tensors, its digits to the base 1,024 from the lowest on; digits may be negative. Every sum of products
stays below 2^24, so each step is exact in float32, in any order and whether or not a runtime fuses operations.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor

BASE = 1024
"""The base of the digits."""

Digits = list[Tensor]
"""A whole number: float32 tensors of one shape, or of shapes that broadcast."""


def digits_of(number: Tensor, count: int) -> Digits:
    """The digits of whole numbers below BASE to the power of ``count``, from int64 or, below 2^24 in size, float32.

    Examples:
        >>> [int(digit) for digit in digits_of(torch.tensor(5000), 2)]
        [904, 4]
    """
    found = []
    for _ in range(count - 1):
        higher = torch.div(number, BASE, rounding_mode="trunc")
        found.append((number - BASE * higher).to(torch.float32))
        number = higher
    return [*found, number.to(torch.float32)]


def product(first: Digits, second: Digits) -> Digits:
    """The sums of products of the digits of two numbers, one of up to five digits; ``carried`` makes digits of them."""
    return [
        reduce(add, [first[n] * second[at - n] for n in range(len(first)) if 0 <= at - n < len(second)])
        for at in range(len(first) + len(second) - 1)
    ]


def combination(*terms: tuple[int | Tensor, Digits]) -> Digits:
    """The digits of a sum of numbers, each times a small whole number: the sums of products stay below 2^24.

    Examples:
        >>> [int(digit) for digit in combination((3, digits_of(torch.tensor(1000), 1)), (-1, digits_of(torch.tensor(2), 1)))]
        [950, 2]
    """
    count = max(len(digits) for _, digits in terms)
    return carried(
        [reduce(add, [factor * digits[at] for factor, digits in terms if at < len(digits)]) for at in range(count)]
    )


def total(number: Digits) -> Digits:
    """The digits of the sum over the last axis, which is kept; of at most 16,000 numbers."""
    return carried([digit.sum(dim=-1, keepdim=True) for digit in number])


def carried(sums: Digits) -> Digits:
    """The digits of a number, all from 0 to 1,023 but the highest, which has the sign; from sums below 2^24 in size."""
    found: Digits = []
    carry: Tensor | None = None
    for place in sums:
        place = place if carry is None else place + carry
        carry = torch.floor(place / BASE)
        found.append(place - BASE * carry)
    assert carry is not None
    return [*found, carry]
