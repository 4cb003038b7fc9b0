"""``featx heads``."""

from __future__ import annotations

import datetime
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.job import JobCommand
from featx.cli.needs import Condition, Needs
from featx.cli.option_groups import option
from featx.cli.options import DEVICE, HEAD_TABLE, MODELS_SOURCE, WORKERS, cache_folder, needing
from featx.cli.output import print_columns, print_csv
from featx.constants import KINDS, ZERO_SHOT
from featx.errors import ModelNotFoundError
from featx.reporter import Reporter, stage_of_import
from featx.text import columns_of, counted, did_you_mean, listed, printable, size_text

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.workflows.head_comparison import HeadComparison
    from featx.workflows.head_list import HeadEntry, HeadList

_SORTS = ("date", "accuracy", "time", "name", "data", "kind", "backbone", "size")
_LISTING = Needs("with two heads, which are compared", lambda options: len(options["words"]) < 2)
_COMPARING: Condition = Needs("without two heads to compare", lambda options: len(options["words"]) == 2)

_COLUMNS = (
    "head",
    "cross-validated",
    "accuracy",
    "95 % interval",
    "baseline",
    "test",
    "fitted",
    "kind",
    "data",
    "backbone",
    "layer",
    "took",
    "size",
    "calibrated",
    "sets",
    "verdict",
)
"""The columns of the list. Where the terminal is too narrow, those of ``_LEFT_OUT_FIRST`` are left out one by one."""
_LEFT_OUT_FIRST = ("sets", "calibrated", "size", "baseline", "layer", "backbone", "data", "took", "verdict", "kind")
_SECOND_LINE = ("cross-validated", "accuracy", "95 % interval", "test", "fitted", "kind", "verdict")
"""What stands below the name where one line is too short, as far as it fits."""
_INDENT = "    "
_TEXT = (
    "95 % interval",
    "baseline",
    "test",
    "cross-validated",
    "kind",
    "data",
    "backbone",
    "layer",
    "calibrated",
    "sets",
    "verdict",
)


def _show(result: HeadList | HeadComparison) -> None:
    """Print a list or a comparison."""
    from featx.workflows.head_list import HeadList

    if isinstance(result, HeadList):
        if (ctx := click.get_current_context(silent=True)) and ctx.params.get("as_csv"):
            _print_csv(result)
        else:
            _show_list(result, by=str(ctx.params["sort"]) if ctx else "date")
    else:
        _show_comparison(result)


def _show_list(found: HeadList, by: str) -> None:
    """Print the heads as a table as wide as the terminal, and what each test set is."""
    good, faulty = ([e for e in found if bool(e.fault) == bad] for bad in (False, True))
    if not len(found):
        click.echo(f"there is no head or model in {found.folder}")
    width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
    if good:
        _print_heads(good, width, by_set=by == "accuracy")
    if len(found.test_sets) > 1 or (found.test_sets and width):
        click.echo()
        for letter, words in found.test_sets.items():
            click.echo(f"{letter}: {printable(words)}")
    if len(found.test_sets) > 1:
        click.echo("Numbers of different letters are of different images or labels, so they cannot be compared.")
    if faulty:
        click.echo(f"\n{counted(len(faulty), 'file')} that cannot be used:" if good else "")
        for entry in faulty:
            click.echo(f"  {printable(entry.path.name)}: {printable(entry.fault)}")


def _print_heads(entries: Sequence[HeadEntry], width: int | None, *, by_set: bool) -> None:
    """Print one line for each head, or two where the terminal has no room for one."""
    lines = [_cells(entry) for entry in entries]
    columns = [name for name in _COLUMNS if any(line[name] for line in lines)]
    for name in _LEFT_OUT_FIRST:
        if width is None or _width(columns, lines) <= width:
            break
        columns = [each for each in columns if each != name]
    if width is None or _width(columns, lines) <= width:
        rows = [[line[name] for name in columns] for line in lines]
        print_columns(columns, rows, text=_TEXT)
        return
    inner = [name for name in _SECOND_LINE if any(line[name] for line in lines)]
    while len(inner) > 1 and _width(inner, lines, header=False) > width - len(_INDENT):
        inner.pop()
    widths = {name: max(columns_of(line[name]) for line in lines) for name in inner}
    before = ""
    for entry, line in zip(entries, lines, strict=True):
        if by_set and before and entry.test_set != before:
            click.echo()
        before = entry.test_set
        click.echo(printable(line["head"]))
        cells = [printable(line[name]).ljust(widths[name]) for name in inner]
        click.echo(f"{_INDENT}{'  '.join(cells).rstrip()}")


def _width(columns: Sequence[str], lines: Sequence[dict[str, str]], *, header: bool = True) -> int:
    widths = [
        max([columns_of(name) if header else 0, *(columns_of(printable(line[name])) for line in lines)])
        for name in columns
    ]
    return sum(widths) + 2 * (len(columns) - 1)


def _cells(entry: HeadEntry) -> dict[str, str]:
    """The cells of a head by the names of the columns."""
    result = entry.result
    chosen = "".join(f" {name}={value:.3g}" for name, value in entry.chosen.items() if name != "weight_decay")
    layer = "" if entry.layer == "penultimate" else entry.layer
    name = "" if result is None or result.name == "accuracy" else f" {result.name}"
    return {
        "head": entry.name,
        "accuracy": "-" if result is None else f"{result.text}{name}",
        "95 % interval": result.interval_text if result else "",
        "baseline": result.baseline if result else "",
        "test": f"{entry.test_set} {result.n:,}" if result else "",
        "cross-validated": _crossed(entry),
        "fitted": _when(entry.at),
        "kind": f"{entry.head}{chosen}",
        "data": entry.dataset,
        "backbone": entry.backbone,
        "layer": " ".join([layer, *([f"({entry.views})"] if entry.views != "plain" else [])]).strip(),
        "took": "" if entry.seconds is None else _duration(entry.seconds),
        "size": size_text(entry.bytes),
        "calibrated": "" if entry.calibration == "none" else entry.calibration,
        "sets": entry.sets,
        "verdict": entry.verdict,
    }


def _crossed(entry: HeadEntry) -> str:
    """The main number of the cross-validation, with its interval and its number of images; "" without one."""
    found = entry.cross_validated
    if found is None:
        return ""
    name = "" if found.name == "accuracy" else f" {found.name}"
    return f"{found.text}{name}{f' ({found.interval_text})' if found.interval else ''} of {found.n:,}"


def _when(at: datetime.datetime) -> str:
    """The local time of a fit, to the minute."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 60
        else f"{seconds / 60:.0f} min"
        if seconds < 3600
        else f"{seconds / 3600:.1f} h"
    )


def _print_csv(found: HeadList) -> None:
    """Print the list as CSV, numbers with all their digits."""
    header = (
        "file", "kind", "head", "C", "k", "data", "backbone", "layer", "views", "metric", "value", "low", "high", "n", "split",
        "test_set", "calibration", "n_train", "at", "seconds", "bytes", "verdict", "fault", "sets", "baseline", "cv", "cv_low",
        "cv_high", "cv_n",
    )  # fmt: skip
    print_csv(header, (_csv_row(entry) for entry in found))


def _csv_row(entry: HeadEntry) -> list[Any]:
    result = entry.result
    low, high = result.interval if result and result.interval else ("", "")
    number = [result.name, result.value, low, high, result.n, result.split] if result else [""] * 6
    seconds, crossed = "" if entry.seconds is None else entry.seconds, entry.cross_validated
    ends = crossed.interval if crossed and crossed.interval else ("", "")
    return [
        entry.path, entry.kind, entry.head, entry.chosen.get("C", ""), entry.chosen.get("k", ""), entry.dataset, entry.backbone,
        entry.layer, entry.views, *number, entry.test_set, entry.calibration, entry.n_train,
        entry.at.isoformat(timespec="seconds"), seconds, entry.bytes, entry.verdict, entry.fault, entry.sets,
        result.baseline if result else "", *([crossed.value, *ends, crossed.n] if crossed else [""] * 4),
    ]  # fmt: skip


def _show_comparison(found: HeadComparison) -> None:
    """Print two heads side by side, and what their difference shows."""
    click.echo(f"{counted(found.paired.n, 'image')} of split {found.split} that neither has seen:")
    header, *lines = found.lines
    print_columns(header, lines)
    if found.difference_text:
        click.echo(printable(found.difference_text))
    for name, paths in zip(found.short, (found.paired.first_only, found.paired.second_only), strict=True):
        if paths:
            click.echo(
                f"only {printable(name)} is {found.good} on: {listed([printable(path) for path in paths], most=5)}"
            )
    for remark in found.remarks:
        click.echo(remark)
    click.echo(printable(found.sentence))


def _facts(result: HeadList | HeadComparison) -> dict[str, Any]:
    """The object that ``--json`` prints."""
    from featx.workflows.head_list import HeadList

    return result.as_dict() if isinstance(result, HeadList) else result.as_pair()


@click.command(
    "heads", cls=JobCommand, show=_show, progress=("heads", "images"), facts=_facts, notes=lambda _: (),
    short_help="List what was fitted, and compare two heads.",
    examples=(
        "featx heads",
        "featx heads --sort accuracy --data photos",
        "featx heads photos--resnet50--logreg photos--resnet50--svm",
        "featx heads --csv > heads.csv",
    ),
)  # fmt: skip
@click.argument("words", nargs=-1, metavar="[FOLDER | HEAD HEAD]")
@option(
    "--sort", type=click.Choice(_SORTS), default="date", show_default=True, section="Output", needs=_LISTING, metavar="COLUMN",
    help=f"Order of the list: {', '.join(_SORTS)}; accuracy is the main number of each task, the best of each test set first.",
)  # fmt: skip
@option(
    "--data", section="Input", needs=_LISTING, metavar="NAME",
    help="List only heads of this data set; * stands for any text.",
)  # fmt: skip
@option(
    "--kind", type=click.Choice((*KINDS, ZERO_SHOT, "promoted")), section="Input", needs=_LISTING, metavar="KIND",
    help="List only heads of this kind, or promoted models.",
)  # fmt: skip
@option("--csv", "as_csv", is_flag=True, section="Output", needs=_LISTING, help="Print the list as CSV.")
@option(
    "--features", multiple=True, section="Input", needs=_COMPARING, metavar="FILE",
    help="Feature file of one of the two heads, where it is not where the head names it. May be repeated.",
)  # fmt: skip
@option(
    "--split", section="Input", needs=_COMPARING, metavar="NAME", show_default="test, or val where there is no test",
    help="Split to compare on.",
)  # fmt: skip
@needing(_COMPARING, HEAD_TABLE)
@needing(_COMPARING, cache_folder("Advanced"))
@needing(Needs("with FOLDER, which is listed", lambda options: len(options["words"]) != 1), MODELS_SOURCE)
@option(
    "--backbone", "-b", section="Advanced", needs=_COMPARING, metavar="NAME",
    help="Backbone of a promoted model whose network is a Python file (file.py:factory).",
)  # fmt: skip
@needing(_COMPARING, DEVICE)
@needing(_COMPARING, WORKERS)
def heads(
    reporter: Reporter, words: tuple[str, ...], sort: str, data: str | None, kind: str | None, as_csv: bool, models: str,
    **options: Any,
) -> HeadList | HeadComparison:  # fmt: skip
    """List the heads and promoted models of FOLDER, by default the models folder; or compare two of them.

    The list has the main number on held-out images with its interval, and a letter for these images: numbers of different
    letters cannot be compared. Two heads are compared on the held-out images that neither has seen, image by image. HEAD is a
    file, or the name of one in the models folder without its ending. Heads of two backbones are joined by the content of the
    images; a promoted model predicts from the images themselves.
    """
    ctx = click.get_current_context(silent=True)
    if len(words) > 2:
        raise click.UsageError(f"found {len(words)} arguments; expected a folder to list or two heads to compare", ctx)
    if as_csv and ctx and ctx.params.get("as_json"):
        raise click.UsageError("--csv and --json exclude one another", ctx)
    if len(words) < 2:
        from featx.workflows.head_list import list_heads

        if words and not Path(words[0]).is_dir() and (head := _file(words[0], models)) is not None:
            raise click.UsageError(
                f"{head} is one file; featx info {head} describes it, and a second head compares both", ctx
            )
        return list_heads(words[0] if words else models, sort=sort, data=data, kind=kind)
    files = [_named(word, models) for word in words]
    stage_of_import(reporter)
    from featx.workflows.compare_files import compare_heads

    return compare_heads(*files, reporter=reporter, **options)


def _file(word: str, models: str) -> Path | None:
    """The file that a word names: a path, or the name of a file in the models folder, with or without its ending."""
    for path in (Path(word), Path(models, word), Path(models, f"{word}.safetensors")):
        if path.is_file():
            return path
    return None


def _named(word: str, models: str) -> Path:
    """As ``_file``.

    Raises:
        ModelNotFoundError: there is none.
    """
    if (path := _file(word, models)) is not None:
        return path
    names = [each.stem for each in Path(models).glob("*.safetensors")]
    raise ModelNotFoundError(
        f"there is no head {word}, neither as a file nor in {models}{did_you_mean(word, names) or '; featx heads lists them'}"
    )
