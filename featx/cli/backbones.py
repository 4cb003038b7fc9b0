"""``featx backbones``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from featx.cli.needs import CHECKED
from featx.cli.option_groups import Command, option
from featx.cli.options import JSON
from featx.cli.output import print_columns, print_notes, print_result
from featx.errors import FeatxError
from featx.progress import progress_bar
from featx.text import did_you_mean, form, printable


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


def _show_entries(names: Sequence[str]) -> list[Any]:
    """Print one line for each backbone of the catalog as soon as it is known, and return those that cannot be used."""
    from featx.backbones.catalog import SkippedBackbone, measure_backbones

    width, skipped = max(map(len, names)), []
    click.echo(f"{'name':<{width}}  {'family':<18}  embedding  parameters  input  ImageNet top-1  weights here")
    for e in measure_backbones(names):
        if isinstance(e, SkippedBackbone):
            skipped.append(e)
            if len(names) > 1:
                click.echo(f"{e.name:<{width}}  cannot be used: {printable(e.why.removeprefix(f'{e.name} '))}")
            continue
        top1 = f"{e.top1:.1f} %" if e.top1 is not None else "-"
        size = e.input_size if isinstance(e.input_size, int) else "x".join(map(str, e.input_size))
        click.echo(
            f"{e.name:<{width}}  {e.family:<18}  {e.embedding:9}  {e.parameters / 1e6:8.2f} M"
            f"  {size:>5}  {top1:>14}  {'yes' if e.local else 'no':>12}"
        )
    return skipped


def _entries_as_json(names: Sequence[str]) -> dict[str, Any]:
    from featx.backbones.catalog import SkippedBackbone, measure_backbones

    with progress_bar("measure", "backbones") as reporter:
        found = list(measure_backbones(names, reporter=reporter))
    skipped = [e.as_dict() for e in found if isinstance(e, SkippedBackbone)]
    return {
        "backbones": [e.as_dict() for e in found if not isinstance(e, SkippedBackbone)],
        "skipped": skipped,
    }


@click.command(
    "backbones", cls=Command, short_help="List the backbones.",
    examples=(
        "featx backbones resnet", "featx backbones resnet50 --layers", "featx backbones 'timm/vit_*'",
        "featx backbones 'open_clip/ViT-B-*'",
    ),
)  # fmt: skip
@click.argument("pattern", required=False)
@option(
    "--layers", is_flag=True, section="Output", needs=CHECKED,
    help="List the stages of one backbone, which featx extract --layer takes; PATTERN is its name.",
)  # fmt: skip
@JSON
def backbones(pattern: str | None, layers: bool, as_json: bool) -> None:
    """List the backbones whose name contains PATTERN, or matches it where it has a *.

    timm/PATTERN lists those of timm, open_clip/PATTERN those of open_clip, hf/PATTERN the models in the local cache of the
    Hugging Face hub.

    The first call builds each backbone without its weights, and stores what it measures. The line of a backbone that cannot be
    built has the reason.
    """
    from featx.backbones import catalog

    if layers:
        _show_layers(pattern, as_json)
        return
    names = catalog.list_backbones(pattern)
    if not names:
        hint = did_you_mean(pattern or "", catalog.list_backbones())
        raise FeatxError(f"no backbone's name contains {pattern!r}{hint or ';'} featx backbones lists them all")
    if as_json:
        print_result(_entries_as_json(names), lambda: None)
        return
    skipped = _show_entries(names)
    if len(skipped) == len(names) == 1:
        raise FeatxError(skipped[0].why)
    if skipped:
        reasons = form(len(skipped), "its line has the reason", "their lines have the reasons")
        print_notes(f"{len(skipped)} of {len(names)} backbones cannot be used; {reasons}")
