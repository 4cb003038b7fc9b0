"""Options and types that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from featx.constants import CACHE
from featx.workflows.recipe import FitHeadStep


def options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several decorators as one, the first outermost."""
    return lambda command: functools.reduce(lambda decorated, option: option(decorated), reversed(decorators), command)


class BatchSize(click.ParamType):  # type: ignore[type-arg]
    """A whole number above 0, or auto."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Parse a value."""
        return "auto" if value == "auto" else click.IntRange(min=1).convert(value, param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers above 0 with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse a value."""
        if isinstance(value, tuple):
            return value
        number = click.IntRange(min=1)
        return tuple(number.convert(part.strip(), param, ctx) for part in value.split(","))


POSITIVE = click.FloatRange(min=0, min_open=True)


SHARE = click.FloatRange(0, 1, min_open=True)


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")


WORKERS = click.option(
    "-j", "--workers", type=click.IntRange(min=1), help="Threads that read and decode.  [default: one per core]"
)


CACHE_FOLDER = click.option("--cache", default=CACHE, show_default=True, help="Folder of feature files.")


MODELS_FOLDER = click.option(
    "--models", default=FitHeadStep.models, show_default=True, help="Folder of heads and models."
)


BACKBONE_AGAIN = options(
    click.option("--backbone", "-b", help="The backbone, where the stored name is a file of code (file.py:factory)."),
    click.option("--weights", help="The backbone's weights, where the file has moved."),
)
