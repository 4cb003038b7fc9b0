"""Runs the command ``featx`` in the process of the tests."""

from __future__ import annotations

import re

from click.testing import CliRunner, Result

from featx.cli.main import main

_PROGRESS = re.compile(
    rb"^(extract|fit-head|promote|predict|evaluate|rank|advise|inspect|search|suggest|serve|export|measure|heads): .*\n",
    re.MULTILINE,
)


def featx(*arguments: object, status: int = 0) -> Result:
    """Run a command in this process, and assert its exit status; the result's stderr lacks the lines of progress."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    result.stderr_bytes = _PROGRESS.sub(b"", result.stderr_bytes or b"")
    assert result.exit_code == status, f"{result.output}\n{result.exception!r}"
    return result


def without_times(text: str) -> str:
    """Replace durations and speeds by TIME."""
    return re.sub(r"\(?[\d.,]+ (?:s|images/s)(?:, eager)?\)?", "TIME", text)
