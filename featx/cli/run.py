"""``featx run``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from featx.cli.extract import show_extraction
from featx.cli.fit_head import show_fit
from featx.cli.options import JSON
from featx.cli.output import print_notes, print_result
from featx.cli.progress import progress_bar
from featx.cli.promote import show_promotion
from featx.reporter import Reporter
from featx.workflows.recipe import as_command, load_recipe, run_recipe

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    pass


_SHOW: dict[str, Callable[[Any], None]] = {
    "extract": show_extraction,
    "fit-head": show_fit,
    "promote": show_promotion,
}


@click.command(short_help="Run the steps of a TOML recipe.")
@click.argument("recipe")
@click.option("--dry-run", is_flag=True, help="Show the commands that would run.")
@JSON
def run(recipe: str, dry_run: bool, as_json: bool) -> None:
    """Run the steps of RECIPE, a TOML file with the tables extract, fit-head and promote.

    Example: featx run pipelines/quickstart.toml
    """
    loaded = load_recipe(recipe)
    commands = {name: as_command(name, step) for name, step in loaded.steps.items()}
    if dry_run:
        print_result(
            {"commands": list(commands.values())} if as_json else None, lambda: click.echo("\n".join(commands.values()))
        )
        return
    results = {}
    with contextlib.ExitStack() as bars:

        def reporter(name: str) -> Reporter:
            bars.close()
            if not as_json:
                click.echo(f"{'' if name == next(iter(commands)) else chr(10)}$ {commands[name]}")
            return bars.enter_context(progress_bar(name, "heads" if name == "fit-head" else "images"))

        for name, result in run_recipe(loaded, reporter=reporter):
            bars.close()
            results[name] = result.as_dict()
            if not as_json:
                _SHOW[name](result)
            print_notes(*result.notes)
    if as_json:
        print_result(results, lambda: None)
