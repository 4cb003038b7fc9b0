"""Options of ``fit_head`` that exclude or need one another."""

from __future__ import annotations

from typing import Any

import pytest
from made import photos

from featx.errors import SettingsError
from featx.heads.head import Head
from featx.workflows.fit import fit_head
from featx.workflows.fit_options import require_compatible

PLAIN: dict[str, Any] = {"model": "svm", "C": None, "k": None, "kernel": "linear", "cv": None, "repeat": 1, "shots": ()}


@pytest.mark.parametrize(
    "given", [{}, {"C": 1.0, "kernel": "rbf"}, {"repeat": 3, "cv": 5}, {"repeat": 3, "shots": (1,)}, {"model": "auto"}]
)
def test_options_that_go_together_are_accepted(given: dict[str, Any]) -> None:
    assert require_compatible(**{**PLAIN, **given}) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"repeat": 2}, "repeat is the number of times that cv or shots are repeated; expected one of them with it"),
        ({"model": "auto", "C": 1.0}, "auto chooses C, k and kernel itself; name a kind of head to set them"),
        ({"model": "auto", "k": 3}, "auto chooses C, k and kernel itself"),
        ({"model": "auto", "kernel": "rbf"}, "auto chooses C, k and kernel itself"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        require_compatible(**{**PLAIN, **given})
    with pytest.raises(SettingsError, match=message):
        fit_head(photos(), **given)


def test_a_head_is_not_given_together_with_its_arguments() -> None:
    with pytest.raises(
        SettingsError, match="C, task: expected as arguments of the Head that is given, not of fit_head"
    ):
        fit_head(photos(), Head("ridge"), C=1.0, task="classification")
