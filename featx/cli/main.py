"""The command line: parse, call, print. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

from typing import Any

import click

from featx._version import __version__
from featx.cli.advise import advise
from featx.cli.backbones import backbones
from featx.cli.evaluate import evaluate
from featx.cli.extract import extract
from featx.cli.files import cache, info, verify
from featx.cli.fit_head import fit_head
from featx.cli.predict import predict
from featx.cli.promote import promote
from featx.cli.rank import rank
from featx.cli.run import run
from featx.errors import FeatxError
from featx.system import started
from featx.text import printable


class _Featx(click.Group):
    """Turns featx's errors into one line and exit code 1, Ctrl-C into exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FeatxError as error:
            raise click.ClickException("\n".join(map(printable, str(error).split("\n")))) from error
        except KeyboardInterrupt:
            kept = " What is done is kept: the same command goes on from there." if _goes_on(ctx) else ""
            click.echo(f"\nInterrupted.{kept}", err=True)
            ctx.exit(130)


def _goes_on(ctx: click.Context) -> bool:
    return ctx.invoked_subcommand in ("extract", "rank", "advise", "run", "evaluate", "promote")


@click.group(cls=_Featx, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="featx")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Image transfer learning on cached features.

    Extract once, fit heads in seconds, promote the one that deserves it:

    \b
        featx extract photos/ --backbone resnet50
        featx fit-head --model logreg
        featx promote --finetune
        featx predict models/photos--resnet50--logreg--promoted.safetensors new.jpg
    """  # noqa: D301 - click needs the real backspace
    if started()[1] > 1 and ctx.invoked_subcommand != "promote":
        raise click.UsageError(
            f"torchrun is for featx promote --finetune; featx {ctx.invoked_subcommand} is one process"
        )


for _command in (extract, fit_head, rank, advise, promote, predict, evaluate, info, verify, cache, backbones, run):
    _command.context_settings = main.context_settings
    main.add_command(_command)
