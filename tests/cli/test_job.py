"""Commands that run a job: their progress, results and notes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from made import Recorder

from featx.cli.job import JobCommand
from featx.cli.option_groups import option
from featx.errors import SettingsError
from featx.reporter import Reporter


def check(options: Mapping[str, Any]) -> None:
    if options["times"] == 13:
        raise SettingsError("times is 13; expected another number")


@click.command(
    "count",
    cls=JobCommand,
    check=check,
    show=lambda result: click.echo(f"counted {result.total}"),
    progress=("count", "images"),
    facts=vars,
    notes=lambda result: (f"it was {result.total}",),
)
@click.argument("data", default="digits")
@option("--times", default=2, section="Input", help="Number of times.")
def count(reporter: Reporter, data: str, times: int) -> SimpleNamespace:
    """Count the letters of DATA."""
    reporter.note(f"counting {data}")
    return SimpleNamespace(total=times * len(data))


def test_a_job_prints_its_result_and_then_its_notes() -> None:
    result = CliRunner().invoke(count, ["abc", "--times", "3"])
    assert (result.exit_code, result.stdout) == (0, "counted 9\n")
    assert result.stderr == "Note: counting abc\nNote: it was 9\n"


def test_a_job_prints_one_json_object_on_request() -> None:
    result = CliRunner().invoke(count, ["--json"])
    assert json.loads(result.stdout) == {"total": 12}
    assert "--json" in CliRunner().invoke(count, ["--help"]).stdout


def test_of_several_processes_the_first_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(count, ["abc"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_options_are_checked_before_the_job_begins() -> None:
    result = CliRunner().invoke(count, ["--times", "13"])
    assert isinstance(result.exception, SettingsError)
    assert (result.stdout, result.stderr) == ("", "")


def test_a_job_runs_without_a_command_line() -> None:
    recorder = Recorder()
    assert [param.name for param in count.job_params] == ["data", "times"]
    assert count.run({"data": "ab", "times": 1}, recorder).total == 2
    assert recorder.notes == ["counting ab"]
