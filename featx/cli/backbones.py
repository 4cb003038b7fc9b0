"""``featx backbones``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from featx.cli.option_groups import Command, option
from featx.cli.options import JSON
from featx.cli.output import print_columns, print_result
from featx.errors import FeatxError
from featx.progress import progress_bar


def _show_layers(name: str | None, as_json: bool) -> None:
    """Print the stages and blocks of one backbone."""
    from featx.backbones.backbone import layers_of

    if not name:
        raise FeatxError("--layers needs the name of one backbone, as in featx backbones resnet50 --layers")
    stages, blocks = layers_of(name)
    rows = [[s.layer, " x ".join(map(str, s.shape)), s.width, f"{s.blocks} of {len(blocks)}"] for s in stages]

    def show() -> None:
        print_columns(["layer", "output", "width", "blocks"], rows)
        click.echo(f"\nall of them in one pass: featx extract DATA --backbone {name} --stages")
        click.echo(f"blocks: {', '.join(blocks)}")

    layers = [{"layer": s.layer, "shape": s.shape, "width": s.width, "blocks": s.blocks} for s in stages]
    print_result({"layers": layers, "blocks": blocks} if as_json else None, show)


def _show_entries(entries: Sequence[Any]) -> None:
    """Print one line for each backbone of the catalog."""
    width = max(len(e.name) for e in entries)
    family = max(len(e.family) for e in entries)
    click.echo(f"{'name':<{width}}  {'family':<{family}}  embedding  parameters  input  ImageNet top-1  weights here")
    for e in entries:
        top1 = f"{e.top1:.1f} %" if e.top1 is not None else "-"
        click.echo(
            f"{e.name:<{width}}  {e.family:<{family}}  {e.embedding:9}  {e.parameters / 1e6:8.2f} M"
            f"  {e.input_size:5}  {top1:>14}  {'yes' if e.local else 'no':>12}"
        )


@click.command(
    "backbones", cls=Command, short_help="List the backbones.",
    examples=("featx backbones resnet", "featx backbones resnet50 --layers", "featx backbones 'timm/vit_*'"),
)  # fmt: skip
@click.argument("pattern", required=False)
@option(
    "--layers", is_flag=True, section="Output",
    help="List the stages of one backbone, which featx extract --layer takes; PATTERN is its name.",
)  # fmt: skip
@JSON
def backbones(pattern: str | None, layers: bool, as_json: bool) -> None:
    """List the backbones whose name contains PATTERN, or matches it where it has a *. timm/PATTERN lists those of timm.

    The first call measures each backbone by a forward pass without data, and stores the result.
    """
    from featx.backbones import catalog

    if layers:
        _show_layers(pattern, as_json)
        return
    names = catalog.list_backbones(pattern)
    if not names:
        raise FeatxError(f"no backbone's name contains {pattern!r}; featx backbones lists them all")
    with progress_bar("measure", "backbones") as reporter:
        entries = catalog.describe_backbones(names, reporter=reporter)
    facts = {"backbones": [e.as_dict() for e in entries]}
    print_result(facts if as_json else None, lambda: _show_entries(entries))
