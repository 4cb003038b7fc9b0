"""Streams that are closed, full or cut, and variables of the environment that make no sense: one message, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featx.cli.streams import STDOUT, _ClosedStdout, _Forgiving, _Named

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $F is featx; its exit status is that of featx."""
    variables = {**os.environ, "F": f"{sys.executable} -m featx", **environment}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], env=variables, capture_output=True, text=True, check=False
    )


@needs_full
def test_results_that_cannot_be_printed_are_an_error_and_messages_are_not(in_tmp: Path) -> None:
    Path("r.toml").write_text("[extract]\ndata = 'digits'\n")
    for line, status, stderr in [
        ("$F run r.toml --dry-run > /dev/full", 1, f"Error: {STDOUT}: No space left on device\n"),
        ("$F run r.toml --dry-run >&-", 1, f"Error: {STDOUT}: Bad file descriptor\n"),
        ("$F --help > /dev/full", 1, f"Error: {STDOUT}: No space left on device\n"),
        ("$F run r.toml --dry-run 2>&- ", 0, ""),
        ("$F run nowhere.toml 2>&-", 1, ""),
        ("$F run nowhere.toml 2> /dev/full", 1, ""),
        ("$F run r.toml --dry-run <&-", 0, ""),
    ]:
        result = shell(line)
        assert (result.returncode, result.stderr) == (status, stderr), line
        assert result.stdout == ("featx extract\n" if status == 0 else ""), line


def test_no_file_gets_the_number_of_a_stream_that_is_closed(in_tmp: Path) -> None:
    code = "import os, featx.cli.streams as s; s.prepare_streams(); print(os.open('x', os.O_CREAT), file=open('number', 'w'))"
    shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-')
    assert int(Path("number").read_text()) > 2


def test_a_reader_that_wants_no_more_ends_the_command_without_a_word(in_tmp: Path) -> None:
    result = shell("$F --help | head -c 1")
    assert (result.stdout, result.stderr) == ("U", "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLD_SIZE", "foo", "WORLD_SIZE is 'foo' in the environment; expected a whole number of at least 1, or none"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is '0' in the environment; expected a whole number of at least 1, or none"),
        ("RANK", "-1", "RANK is '-1' in the environment; expected a whole number of at least 0, or none"),
    ],
)
def test_a_variable_of_torchrun_that_is_no_number_is_an_error(
    name: str, value: str, message: str, in_tmp: Path
) -> None:
    result = shell("$F info x.h5", **{name: value})
    assert (result.returncode, result.stderr) == (1, f"Error: {message}\n")


def test_variables_of_other_programs_stop_nothing(split_photos: Path, in_tmp: Path) -> None:
    senseless = dict.fromkeys(("OMP_NUM_THREADS", "MPLBACKEND", "CUDA_VISIBLE_DEVICES", "COLUMNS"), "foo")
    command = f"$F extract {split_photos} -b lenet5 && $F fit-head --model centroid"
    assert shell(command, **senseless).returncode == 0


def test_the_streams_themselves(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    read_only = os.open(tmp_path / "x", os.O_RDONLY)  # writing to it fails
    assert _Forgiving(read_only, "wb", closefd=False).write(b"lost") == 4
    with pytest.raises(OSError, match=f"Bad file descriptor: '{STDOUT}'"):
        _Named(read_only, "wb", closefd=False).write(b"lost")
    with pytest.raises(OSError, match=f"Bad file descriptor: '{STDOUT}'"):
        _ClosedStdout().write("lost")
    os.close(read_only)
    assert _ClosedStdout().write("") == 0
