"""What an option needs among the others to have an effect. An option that is given without it is an error, not ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Needs:
    """A condition on the options of a command.

    Attributes:
        words: the end of the message "--last has no effect …".
        holds: whether the condition holds, from the value of each parameter by name.
    """

    words: str
    holds: Callable[[Mapping[str, Any]], bool]


Condition = Needs | tuple[Needs, ...]

ALWAYS: Condition = ()
"""The option has an effect whatever the others are."""

CHECKED: Condition = ()
"""The job itself refuses the option where it has no effect, since that depends on what is read or has a message of its own."""


def with_option(name: str, option: str) -> Needs:
    """The option has an effect only with another one, a parameter of that name."""
    return Needs(f"without {option}", lambda options: bool(options[name]))


def without_option(name: str, words: str) -> Needs:
    """The option has no effect with another one, a parameter of that name, which ``words`` describe."""
    return Needs(f"with {words}", lambda options: options[name] in (None, (), False))


NO_OUT = without_option("out", "--out, which is a file of any folder")
"""The condition of a folder in which the result gets a name."""


def faults(params: Iterable[click.Parameter], options: Mapping[str, Any], given: Iterable[str]) -> list[str]:
    """One sentence for the options of each kind that are given and have no effect.

    Args:
        params: of the command.
        options: the value of each parameter by name.
        given: the names of the parameters that were given.

    Examples:
        >>> from featx.cli.option_groups import option
        >>> @click.command()
        ... @option("--finetune", is_flag=True, section="Fine-tuning", needs=ALWAYS)
        ... @option("--lr", section="Fine-tuning", needs=with_option("finetune", "--finetune"))
        ... def promote(**options: object) -> None:
        ...     pass
        >>> faults(promote.params, {"finetune": False, "lr": "0.1"}, ["lr"])
        ['--lr has no effect without --finetune']
    """
    given, found = set(given), dict[str, list[str]]()
    for param in params:
        needs: Condition | None = getattr(param, "needs", None)
        if param.name not in given or not needs:
            continue
        for each in needs if isinstance(needs, tuple) else (needs,):
            if not each.holds(options):
                found.setdefault(each.words, []).append(_spelled(param, options[param.name]))
                break
    return [f"{_listed(names)} {'have' if names[1:] else 'has'} no effect {words}" for words, names in found.items()]


def given_in(ctx: click.Context) -> set[str]:
    """The names of the parameters that the command line gives."""
    default = (None, click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return {name for name in ctx.params if ctx.get_parameter_source(name) not in default}


def require_effect(ctx: click.Context) -> None:
    """Refuse options of the command line that have no effect.

    Raises:
        click.UsageError: with all of them.
    """
    if wrong := faults(ctx.command.params, ctx.params, given_in(ctx)):
        raise click.UsageError("; ".join(wrong), ctx)


def refuse(**why: str) -> None:
    """Refuse options that turn out to have no effect once a file is read, if the command line gives them.

    Args:
        why: the end of the message "--cache has no effect …", by the name of the parameter.

    Raises:
        click.UsageError: one of them is given.
    """
    ctx = click.get_current_context(silent=True)
    for name in [name for name in why if ctx and name in given_in(ctx)]:
        raise click.UsageError(f"--{name} has no effect {why[name]}", ctx)


def _spelled(param: click.Parameter, value: Any) -> str:
    """The name of an option as it was given: --no-flip where a flag is off."""
    return str(max(param.secondary_opts if value is False and param.secondary_opts else param.opts, key=len))


def _listed(names: list[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
