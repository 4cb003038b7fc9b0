"""Write docs/cli-reference.md from the commands themselves; ``--check`` says whether it is up to date.

python docs/make_cli_reference.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from featx.cli.main import main

PAGE = Path(__file__).resolve().parent / "cli-reference.md"
HEADER = """# The command line

Made from the commands by `make docs`; CI checks that it is up to date. Results go to stdout, progress and notes to stderr.
Exit status: 0 done, 1 an error (one line that says what was found, what was expected and what mends it), 2 wrong usage,
130 interrupted.
"""


def page() -> str:
    """The whole reference, as Markdown."""
    return "\n".join([HEADER, *_sections("featx", main)])


def _sections(name: str, command: click.Command) -> Iterator[str]:
    """A command's, and those of the commands inside it."""
    yield _section(name, command)
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from _sections(f"{name} {inner}", command.commands[inner])


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, terminal_width=100, **main.context_settings)
    return f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE.name} is out of date: run make docs")
    PAGE.write_text(page(), encoding="utf-8")
