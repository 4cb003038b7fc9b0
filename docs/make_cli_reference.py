"""Write docs/cli-reference.md from the commands themselves; ``--check`` reports whether it is up to date.

python docs/make_cli_reference.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from featx.cli.main import main
from featx.cli.option_groups import Command, Group, titled

PAGE = Path(__file__).resolve().parent / "cli-reference.md"
HEADER = """# The command line

This page is made from the commands by `make docs`; CI checks that it is up to date. Every command prints the same text with
`-h` or `--help`.

Results go to stdout; progress and notes go to stderr. With `--json` a result is one JSON object (see [JSON output](json.md)).

| exit status | meaning |
|---|---|
| 0 | The command succeeded. |
| 1 | An error: one line with what was found, what was expected, and the option or command that fixes it. Also what \
`verify` finds wrong, and `predict` if every image fails. |
| 2 | Wrong usage: an unknown command or option, or a value that an option does not take. |
| 130 | The command was interrupted. |

The shell completes commands, options and their values after one of these lines, which belongs in the shell's startup file:

```console
$ eval "$(_FEATX_COMPLETE=bash_source featx)"   # bash 4.4 or later
$ eval "$(_FEATX_COMPLETE=zsh_source featx)"    # zsh
$ _FEATX_COMPLETE=fish_source featx | source    # fish
```
"""


def page() -> str:
    """The whole reference, as Markdown."""
    return "\n".join([HEADER, *_sections("featx", main)])


def _sections(name: str, command: click.Command) -> Iterator[str]:
    """The section of a command, and those of the commands in it."""
    ctx = click.Context(command, info_name=name, **command.context_settings)
    yield f"## {name}\n\n```text\n{_usage(ctx)}\n```\n\n{_prose(command.help)}\n"
    for title, options in titled(command.get_params(ctx)).items():
        yield f"**{title}**\n\n" + "".join(_item(option, ctx) for option in options)
    if isinstance(command, Command | Group):
        yield "**Examples**\n\n```console\n" + "".join(f"$ {example}\n" for example in command.examples) + "```\n"
    if isinstance(command, Group):
        for title, names in command.titled_commands().items():
            yield f"**{title}**\n\n" + "".join(_link(name, command.commands[inner]) for inner in names)
        for inner in command.list_commands(ctx):
            yield from _sections(f"{name} {inner}", command.commands[inner])


def _link(group: str, command: click.Command) -> str:
    """A command of a group as an item of a list, which leads to its section."""
    name = f"{group} {command.name}"
    return f"- [{name}](#{name.replace(' ', '-')}): {command.short_help}\n"


def _usage(ctx: click.Context) -> str:
    """The usage of a command on one line."""
    return " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])


def _prose(text: str | None) -> str:
    """The help of a command as Markdown."""
    return _escaped(inspect.cleandoc(text or ""))


def _item(option: click.Option, ctx: click.Context) -> str:
    """An option as an item of a list."""
    record = option.get_help_record(ctx)
    return f"- `{record[0]}`: {_escaped(re.sub('  +', ' ', record[1]))}\n" if record else ""


def _escaped(text: str) -> str:
    """Text in which Markdown finds no tag, link or emphasis."""
    return re.sub(r"([\[*])", r"\\\1", text.replace("<", "&lt;"))


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE.name} is out of date: run make docs")
    PAGE.write_text(page(), encoding="utf-8")
