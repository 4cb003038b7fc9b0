"""Named sections of options and commands in ``--help``, on plain click (8.1 and later)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import click

from featx.cli.needs import Condition, require_effect
from featx.text import did_you_mean

SECTIONS = (
    "Input",
    "Backbone",
    "Head",
    "Fine-tuning",
    "Evaluation",
    "Corrected table",
    "Data",
    "Server",
    "Limit",
    "Compute",
    "Output",
    "Advanced",
)
"""The sections of options in the order in which ``--help`` shows them: everyday options first."""

FEW = 5
"""A command with at most this many options shows them in one section."""

_WIDEST = 26  # characters; the help of a longer option begins on the next line
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class Option(click.Option):
    """An option that belongs to a section of ``--help``."""

    def __init__(
        self,
        param_decls: Sequence[str] | None = None,
        *,
        section: str,
        needs: Condition | None = None,
        **attributes: Any,
    ) -> None:
        if section not in SECTIONS:
            raise ValueError(f"{section!r} is not a section of options; expected one of {', '.join(SECTIONS)}")
        super().__init__(param_decls, **attributes)
        self.section, self.needs = section, needs

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The two columns of the option, in plain words: "[default: one per core; x>=1]" less the lower bound."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names, text = record
        text = re.sub(r"\[default: \((.+)\)(?=[;\]])", r"[default: \1", text)
        return names, re.sub(r"; x>=?\d+\]$", "]", re.sub(r"  \[x>=?\d+\]$", "", text))


def option(
    *declarations: str, section: str, needs: Condition | None = None, **attributes: Any
) -> Callable[[_Decorated], _Decorated]:
    """Declare an option as ``click.option`` does, in one of ``SECTIONS``, with what it needs to have an effect.

    ``needs`` is a condition on the other options, ``ALWAYS`` or ``CHECKED``; a test refuses an option that states nothing.

    Examples:
        >>> @click.command(cls=Command)
        ... @option("--device", section="Compute", default="auto", help="Device to run on.")
        ... def extract(device: str) -> None:
        ...     pass
        >>> by_section(extract.params)
        {'Compute': [<Option device>]}
    """
    return click.option(*declarations, cls=Option, section=section, needs=needs, **attributes)


def by_section(params: Iterable[click.Parameter]) -> dict[str, list[click.Option]]:
    """Group the visible options of a command by section.

    Args:
        params: options and arguments; arguments are left out.

    Returns:
        The options by section, in the order of ``SECTIONS``. Options without a section, such as ``--help``, are in the last.
    """
    sections: dict[str, list[click.Option]] = {section: [] for section in SECTIONS}
    for param in params:
        if isinstance(param, click.Option) and not param.hidden:
            sections[getattr(param, "section", SECTIONS[-1])].append(param)
    return {section: options for section, options in sections.items() if options}


def titled(params: Iterable[click.Parameter]) -> dict[str, list[click.Option]]:
    """The sections of ``by_section`` by their titles; those of a command with few options are one section, "Options"."""
    sections = by_section(params)
    options = [option for section in sections.values() for option in section]
    if sum(isinstance(option, Option) for option in options) <= FEW:
        return {"Options": options} if options else {}
    return {f"{section} options": options for section, options in sections.items()}


class Command(click.Command):
    """A command whose ``--help`` shows its options by section, and examples.

    Args:
        name: of the command.
        examples: command lines that run.
        context_settings: instead of those of every command of featx.
        attributes: as ``click.Command`` takes them.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        examples: Sequence[str] = (),
        context_settings: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, context_settings={**_SETTINGS, **(context_settings or {})}, **attributes)
        self.examples = tuple(examples)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, unless an option is given that has no effect."""
        require_effect(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of options, in one column."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        _write_examples(self.examples, formatter)


class Group(click.Group):
    """A group of commands whose ``--help`` is like that of ``Command``, and shows the commands by section.

    A mistyped command brings the most similar ones, whichever version of click is installed.

    Args:
        name: of the group.
        sections: titles, each with names of commands; the others are listed under "Other commands".
        examples: command lines that run.
        context_settings: instead of those of every command of featx.
        attributes: as ``click.Group`` takes them.
    """

    command_class: ClassVar[type[click.Command]] = Command  # type: ignore[misc]

    def __init__(
        self,
        name: str | None = None,
        *,
        sections: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[str] = (),
        context_settings: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, context_settings={**_SETTINGS, **(context_settings or {})}, **attributes)
        self.sections = {title: tuple(names) for title, names in (sections or {}).items()}
        self.examples = tuple(examples)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """The names of the commands, section by section."""
        named = [name for names in self.sections.values() for name in names if name in self.commands]
        return named + sorted(set(self.commands) - set(named))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def titled_commands(self) -> dict[str, list[str]]:
        """The names of the visible commands by the titles of their sections."""
        visible = {name for name, command in self.commands.items() if not command.hidden}
        titled = {title: [name for name in names if name in visible] for title, names in self.sections.items()}
        other = sorted(visible.difference(*self.sections.values()))
        titled["Other commands" if self.sections else "Commands"] = other
        return {title: names for title, names in titled.items() if names}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click's
        """Write the commands by section, in one column."""
        sections = self.titled_commands()
        width = max((len(name) for names in sections.values() for name in names), default=0)
        limit = formatter.width - width - 6  # click's indent, and the space between columns
        for title, names in sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names]
                )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        _write_examples(self.examples, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; where there is none, the error names the most similar ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError as error:  # click 8.4 and later suggest commands too, in other words
            hint = did_you_mean(args[0], self.list_commands(ctx), most=1)
            raise click.UsageError(f"{error.message.rstrip('.')}{hint or '.'}", ctx) from error


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options of a command by section; all sections share the width of their first column."""
    sections = {
        title: [record for option in options if (record := option.get_help_record(ctx))]
        for title, options in titled(command.get_params(ctx)).items()
    }
    width = min(max((len(first) for records in sections.values() for first, _ in records), default=0), _WIDEST)
    for title, records in sections.items():
        with formatter.section(title):
            formatter.write_dl([(first.ljust(width), second) for first, second in records], col_max=_WIDEST)


def _write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """Write one example on each line, however long it is."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
