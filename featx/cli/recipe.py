"""Recipes: TOML files whose tables are commands and whose keys are the options of the command.

A table is parsed by the command that it names, so that an option is defined once. Paths are relative to the current folder,
as on the command line.
"""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from featx.cli import needs
from featx.cli.extract import extract
from featx.cli.fit_head import fit_head
from featx.cli.job import JobCommand
from featx.cli.options import BatchSize, Duration, FoldsType, Names, Numbers
from featx.cli.promote import promote
from featx.data.scan_options import names_text
from featx.errors import FeatxError, RecipeError
from featx.reporter import SILENT, Reporter
from featx.text import brief, shortened

STEPS: Mapping[str, JobCommand] = {"extract": extract, "fit-head": fit_head, "promote": promote}
"""The tables of a recipe, in the order in which they run, and their commands."""

_INPUTS = {"fit-head": ("features", "extract", "file"), "promote": ("head", "fit-head", "path")}
"""The parameter of a step that names its input, the step that makes it, and the attribute of the result that names it."""

_MOST_DOTS = 1000
"""The most dots on one line of a recipe: tomllib's time and memory grow with the square of the parts of a dotted key."""


@dataclass(frozen=True)
class Step:
    """One step of a recipe.

    Attributes:
        command: runs it.
        options: the value of each parameter of the command, by name.
        given: the names of the parameters that the table sets.
    """

    command: JobCommand
    options: Mapping[str, Any]
    given: frozenset[str] = frozenset()

    def as_command(self) -> str:
        """The command line that does the same, without options that have their default."""
        name = str(self.command.name)
        defaults = _parsed(self.command, [])
        words = ["featx", name]
        for param in self.command.job_params:
            value = self.options[str(param.name)]
            if value is not None and value != defaults[str(param.name)]:
                words += _words(param, value)
        return shlex.join(words)


@dataclass(frozen=True)
class Recipe:
    """The steps of a recipe.

    Attributes:
        steps: by the name of their command, in the order in which they run.
    """

    steps: Mapping[str, Step]


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: no such file, not TOML, unknown tables or keys, or values that an option does not take; with all faults.
    """
    from featx.io.file_kinds import EMPTY, RECIPE, TOML, misplaced

    path = Path(path)
    if wrong := misplaced(path, "a recipe, a TOML file", fits=[RECIPE, TOML, EMPTY]):
        raise RecipeError(wrong)
    deep = f"{path} is not TOML that can be read: it is nested too deeply"
    try:
        text = path.read_text(encoding="utf-8")
        if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
            raise RecursionError
        tables = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except RecursionError as error:
        raise RecipeError(deep) from error
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise RecipeError(f"{path} is not TOML: {brief(error)}") from error
    faults = [f"[{name}] is no step{_did_you_mean(name, STEPS)}" for name in tables if name not in STEPS]
    steps: dict[str, Step] = {}
    for name, command in STEPS.items():
        if name in tables:
            steps[name], found = _read_table(name, tables[name], command)
            faults += found
    if not tables:
        faults.append(f"there is no step; expected one or more of {', '.join(f'[{name}]' for name in STEPS)}")
    _raise_faults(str(path), faults)
    return Recipe(steps)


def run_recipe(
    recipe: Recipe,
    *,
    reporter: Callable[[str], Reporter] = lambda _: SILENT,
) -> Iterator[tuple[str, Any]]:
    """Run the steps in order; each takes what an earlier one made, unless it names something else.

    Args:
        recipe: from ``load_recipe``.
        reporter: gives the reporter of each step, by its name.

    Yields:
        The name of a step and its result, as each ends.

    Raises:
        RecipeError: options of a step exclude or need one another; no step has run by then.
    """
    _raise_faults("the recipe", _conflicts(recipe))
    results: dict[str, Any] = {}
    for name, step in recipe.steps.items():
        options = dict(step.options)
        parameter, source, attribute = _INPUTS.get(name, ("", "", ""))
        if source in results and not options[parameter]:
            path = str(getattr(results[source], attribute))
            options[parameter] = (path,) if options[parameter] == () else path
        results[name] = step.command.run(options, reporter(name))
        yield name, results[name]


def _conflicts(recipe: Recipe) -> Iterator[str]:
    """One sentence for each step whose options exclude or need one another."""
    for name, step in recipe.steps.items():
        yield from (f"[{name}] {fault}" for fault in needs.faults(step.command.params, step.options, step.given))
        try:
            step.command.check(step.options)
        except FeatxError as error:
            yield f"[{name}] {error}"


def _raise_faults(where: str, faults: Iterable[str]) -> None:
    """Raise all faults as one error, if there are any."""
    faults = list(faults)
    if faults:
        raise RecipeError(f"{where} has {len(faults)} fault{'s' * (len(faults) > 1)}:", faults)


def _read_table(name: str, table: Any, command: JobCommand) -> tuple[Step, list[str]]:
    """Parse a table by its command, key by key, so that every fault is found.

    Returns:
        The step of the valid keys, and a sentence for each error.
    """
    if not isinstance(table, dict):
        return Step(command, {}), [f"{name} is {table!r}; expected a table [{name}]"]
    params = {str(param.name).replace("_", "-"): param for param in command.job_params}
    options: dict[str, Any] = {}
    faults = []
    for key, value in table.items():
        if key not in params:
            faults.append(f"[{name}] {key} is no option{_did_you_mean(key, params)}")
            continue
        types, expected = _expected(params[key])
        if not _is_of(value, types, many=_takes_many(params[key])):
            faults.append(f"[{name}] {key} is {shortened(value, most=100)}; expected {expected}")
            continue
        try:
            parsed = _parsed(command, _arguments(params[key], value))
        except click.UsageError as error:
            faults.append(f"[{name}] {key}: {error.message.rstrip('.')}")
        else:
            options[str(params[key].name)] = parsed[str(params[key].name)]
    return Step(command, {**_parsed(command, []), **options}, frozenset(options)), faults


def _parsed(command: JobCommand, words: list[str]) -> dict[str, Any]:
    """The parameters of a command by name, as click parses its arguments."""
    params = command.make_context(str(command.name), words).params
    return {str(param.name): params[str(param.name)] for param in command.job_params}


def _arguments(param: click.Parameter, value: Any) -> list[str]:
    """The arguments that set a parameter to a value, safe for values that begin with a dash."""
    if not isinstance(param, click.Option):
        return ["--", *_words(param, value)]
    return [
        name if text is None else f"{name}={text}" if name.startswith("--") else f"{name}{text}"
        for name, text in _spelled(param, value)
    ]


def _words(param: click.Parameter, value: Any) -> list[str]:
    """The words that set a parameter to a value, as a person types them."""
    if not isinstance(param, click.Option):
        return [str(item) for item in (value if isinstance(value, list | tuple) else [value])]
    return [word for pair in _spelled(param, value) for word in pair if word is not None]


def _spelled(param: click.Option, value: Any) -> list[tuple[str, str | None]]:
    """The names under which an option is given, each with the text of its value; a flag has none."""
    name = max(param.opts, key=len)
    if param.is_flag:
        return [(flag, None) for flag in ([name] if value else param.secondary_opts[-1:])]
    items = value if isinstance(value, list | tuple) else [value]
    if isinstance(param.type, Numbers):
        items = [",".join(map(str, items))] if items else []
    if isinstance(param.type, Names):
        items = [names_text(items)] if items else []
    return [(name, str(item)) for item in items]


def _takes_many(param: click.Parameter) -> bool:
    """Whether a parameter takes a list; one item does without."""
    return isinstance(param.type, Names | Numbers) or getattr(param, "multiple", False) or param.nargs < 0


def _is_of(value: Any, types: tuple[type, ...], *, many: bool) -> bool:
    """Whether a value of TOML, or with ``many`` each item of a list, is of one of some types."""
    if many and isinstance(value, list):
        return all(type(item) in types for item in value)
    return type(value) in types


def _expected(param: click.Parameter) -> tuple[tuple[type, ...], str]:
    """The types of TOML that a parameter takes, and words for them."""
    if getattr(param, "is_flag", False):
        return (bool,), "true or false"
    if isinstance(param.type, BatchSize | FoldsType):
        return (int, str), "a whole number or a string"
    if isinstance(param.type, Duration):
        return (int, float, str), "a number of seconds or a string such as 5min"
    if isinstance(param.type, Numbers):
        return (int,), "a list of whole numbers"
    if isinstance(param.type, click.types.IntParamType):
        return (int,), "a whole number"
    if isinstance(param.type, click.types.FloatParamType):
        return (int, float), "a number"
    return (str,), "a list of strings" if _takes_many(param) else "a string"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the most similar known name, or all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"
