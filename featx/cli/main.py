"""The command ``featx``. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import click

from featx._version import __version__
from featx.cli.advise import advise
from featx.cli.backbones import backbones
from featx.cli.evaluate import evaluate
from featx.cli.export import export
from featx.cli.extract import extract
from featx.cli.files import cache, info, verify
from featx.cli.fit_head import fit_head
from featx.cli.heads import heads
from featx.cli.import_ import import_
from featx.cli.inspect import inspect
from featx.cli.option_groups import Group
from featx.cli.options import RESUMABLE, TRACEBACKS
from featx.cli.predict import predict
from featx.cli.promote import promote
from featx.cli.rank import rank
from featx.cli.run import run
from featx.cli.search import search
from featx.cli.serve import serve
from featx.cli.streams import STDOUT, give_up_stdout, prepare_streams
from featx.cli.suggest import suggest
from featx.confidential import without_secrets
from featx.errors import FeatxError, FileError, system_errors
from featx.system import require_utf8, started
from featx.text import printable_lines

_RESUMABLE = ("extract", "rank", "advise", "run", "evaluate", "promote")
"""Commands that keep what they have done when they are interrupted."""

_SECONDS_OF_FIRST_PROCESS = 60
"""How long other processes of torchrun leave the word to the first one when there is an error."""


def _shown(error: Exception) -> str:
    """An error without what grants access in the URLs that the user named."""
    return printable_lines(without_secrets(str(error)))


def _let_first_process_speak() -> None:
    """In other processes of torchrun, wait before an error is printed: the first one ends them if the error is also its own."""
    with contextlib.suppress(FeatxError):  # variables that are no numbers are an error of their own
        if started()[0] > 0:
            time.sleep(_SECONDS_OF_FIRST_PROCESS)


@contextlib.contextmanager
def _without_secrets_in_usage() -> Iterator[None]:
    """Take what grants access out of an error about the command line, which repeats what the user named."""
    try:
        yield
    except click.ClickException as error:
        _let_first_process_speak()
        vars(error)["message"] = without_secrets(error.message)
        raise


class Featx(Group):
    """The group of all commands: prints an error of featx as one message, and sets the exit status."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; what click itself cannot print, such as a help text on a full disk, is an error too.

        Without arguments it is the command itself, which runs with UTF-8 names of files in every locale.
        """
        if not args and not extra:
            require_utf8()
        prepare_streams()
        os.environ["MPLBACKEND"] = (
            "agg"  # no command opens a window, and a backend that is not there would stop matplotlib
        )
        try:
            with system_errors():
                return super().main(*args, **extra)
        except FeatxError as error:
            give_up_stdout()
            click.echo(f"Error: {_shown(error)}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit with status 1 after an error of featx, and 130 after Ctrl-C."""
        try:
            with system_errors(), _without_secrets_in_usage():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except FeatxError as error:
            _let_first_process_speak()
            if isinstance(error, FileError) and STDOUT in str(error):
                give_up_stdout()
            if ctx.meta.get(TRACEBACKS):
                click.echo(printable_lines(without_secrets("".join(traceback.format_exception(error)))), err=True)
            raise click.ClickException(_shown(error)) from error
        except KeyboardInterrupt:
            kept = " Completed work is kept: the same command resumes it."
            resumable = ctx.invoked_subcommand in _RESUMABLE or ctx.meta.get(RESUMABLE)
            click.echo(f"\nInterrupted.{kept if resumable else ''}", err=True)
            ctx.exit(130)


@click.group(
    "featx", cls=Featx,
    sections={
        "From images to a model": ("extract", "fit-head", "promote", "evaluate", "predict", "serve", "run"),
        "Choosing a backbone": ("backbones", "rank", "advise"),
        "Looking at the data": ("inspect", "search", "suggest"),
        "Files": ("heads", "info", "verify", "cache", "export", "import"),
    },
    examples=(
        "featx extract photos/ --backbone resnet50",
        "featx fit-head --model logreg",
        "featx promote --finetune",
        "featx predict models/photos--resnet50--logreg--promoted.safetensors new.jpg",
    ),
)  # fmt: skip
@click.version_option(__version__, prog_name="featx")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Image transfer learning on cached features.

    Extract features once, fit heads in seconds, and promote the best head to a fine-tuned network.
    """
    if started()[1] > 1 and ctx.invoked_subcommand not in ("promote", "fit-head"):
        raise click.UsageError(
            f"torchrun is for featx promote --finetune and featx fit-head; featx {ctx.invoked_subcommand} runs in one process"
        )


for _command in (
    extract,
    fit_head,
    promote,
    evaluate,
    predict,
    serve,
    run,
    backbones,
    rank,
    advise,
    inspect,
    search,
    suggest,
    heads,
    info,
    verify,
    cache,
    export,
    import_,
):
    main.add_command(_command)
