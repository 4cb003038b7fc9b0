"""``featx run``."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from featx.cli.interrupt import interruptible
from featx.cli.job import NotesOnce
from featx.cli.needs import ALWAYS
from featx.cli.option_groups import Command, option
from featx.cli.options import JSON, VERBOSITY, verbosity
from featx.cli.output import print_notes, print_result
from featx.cli.recipe import STEPS, Recipe, load_recipe, run_recipe
from featx.progress import progress_bar
from featx.reporter import Reporter
from featx.text import printable


@click.command(
    "run", cls=Command, short_help="Run the steps of a TOML recipe.",
    examples=("featx run pipelines/quickstart.toml", "featx run pipelines/quickstart.toml --dry-run"),
)  # fmt: skip
@click.argument("recipe")
@option(
    "--dry-run",
    is_flag=True,
    section="Output",
    needs=ALWAYS,
    help="Print the commands of the steps without running them.",
)
@VERBOSITY
@JSON
@click.pass_context
def run(ctx: click.Context, /, recipe: str, dry_run: bool, as_json: bool, **_: bool) -> None:
    """Run the steps of RECIPE, a TOML file with the tables extract, fit-head and promote.

    The keys of a table are the options of its command. Each step takes what the step before it made.
    """
    loaded = load_recipe(recipe)
    if dry_run:
        commands = [step.as_command() for step in loaded.steps.values()]
        print_result(
            {"commands": commands} if as_json else None, lambda: click.echo("\n".join(map(printable, commands)))
        )
    else:
        _run(loaded, as_json, verbosity(ctx))


def _run(recipe: Recipe, as_json: bool, shown: int) -> None:
    """Run each step under a progress bar of its own, and print its command, its result and its notes."""
    facts: dict[str, Any] = {}
    steps: dict[str, NotesOnce] = {}
    with contextlib.ExitStack() as bars:

        def begin(name: str) -> Reporter:
            if not as_json:
                click.echo(f"{chr(10) if facts else ''}$ {printable(recipe.steps[name].as_command())}")
            once = steps[name] = NotesOnce(bars.enter_context(progress_bar(*STEPS[name].progress, shown)))
            return bars.enter_context(interruptible(once))

        for name, result in run_recipe(recipe, reporter=begin):
            bars.close()
            command = recipe.steps[name].command
            facts[name] = command.facts(result)
            if not as_json:
                command.show(result)
            print_notes(*steps[name].left(command.notes(result)))
    if as_json:
        print_result(facts, lambda: None)
