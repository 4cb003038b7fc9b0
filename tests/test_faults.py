"""Whichever call of the system fails, a command ends with one message, loses nothing that was done, and succeeds afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import SCENARIOS, calls_of, faults_of

SAMPLED = 4
"""Calls that fail in each scenario."""


@pytest.mark.parametrize(
    "name", ["first", "resumed", "beside", "fit-head", "promote", "predict", "evaluate", "rank", "advise"]
)
def test_a_call_that_fails_is_an_error_with_its_cause_and_costs_nothing_that_was_done(
    name: str, tmp_path: Path
) -> None:
    calls = sorted(calls_of(name, tmp_path), key=lambda call: (call.kind, call.site))
    first = list(SCENARIOS).index(name)  # other places in other scenarios
    wrong = {call: faults_of(name, call, tmp_path) for call in calls[first :: max(1, len(calls) // SAMPLED)]}
    assert len(wrong) > 3
    assert {call: found for call, found in wrong.items() if found} == {}
