"""``featx backbones``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from featx.cli.options import JSON
from featx.cli.output import print_columns, print_result
from featx.cli.progress import progress_bar
from featx.errors import FeatxError

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    pass


def _show_layers(name: str | None, as_json: bool) -> None:
    from featx.backbones.backbone import layers_of

    if not name:
        raise FeatxError("--layers needs the name of one backbone, as in featx backbones resnet50 --layers")
    stages, blocks = layers_of(name)
    rows = [[s.layer, " x ".join(map(str, s.shape)), s.width, f"{s.blocks} of {len(blocks)}"] for s in stages]

    def show() -> None:
        print_columns(["layer", "gives", "width", "blocks"], rows)
        click.echo(f"\nall of them in one pass: featx extract DATA --backbone {name} --stages")
        click.echo(f"blocks: {', '.join(blocks)}")

    found = [{"layer": s.layer, "shape": s.shape, "width": s.width, "blocks": s.blocks} for s in stages]
    print_result({"layers": found, "blocks": blocks} if as_json else None, show)


@click.command(short_help="List the backbones.")
@click.argument("pattern", required=False)
@click.option("--layers", is_flag=True, help="The stages of the backbone of just that name, to extract with --layer.")
@JSON
def backbones(pattern: str | None, layers: bool, as_json: bool) -> None:
    """List the backbones whose name contains PATTERN (or fits it, with *); timm/PATTERN asks timm.

    The first call measures each by a forward pass without data and remembers it.

    Example: featx backbones resnet
    """
    from featx.backbones.catalog import describe_backbones, list_backbones

    if layers:
        _show_layers(pattern, as_json)
        return

    names = list_backbones(pattern)
    if not names:
        raise FeatxError(f"no backbone's name contains {pattern!r}; featx backbones lists them all")
    with progress_bar("measure", "backbones") as reporter:
        entries = describe_backbones(names, reporter=reporter)

    def show() -> None:
        width = max(len(e.name) for e in entries)
        family = max(len(e.family) for e in entries)
        click.echo(
            f"{'name':<{width}}  {'family':<{family}}  embedding  parameters  input  ImageNet top-1  weights here"
        )
        for e in entries:
            top1 = f"{e.top1:.1f} %" if e.top1 is not None else "-"
            click.echo(
                f"{e.name:<{width}}  {e.family:<{family}}  {e.embedding:9}  {e.parameters / 1e6:8.2f} M"
                f"  {e.input_size:5}  {top1:>14}  {'yes' if e.local else 'no':>12}"
            )

    print_result({"backbones": [e.as_dict() for e in entries]} if as_json else None, show)
