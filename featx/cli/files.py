"""``featx info``, ``verify`` and ``cache``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.options import BACKBONE_AGAIN, CACHE_FOLDER, DEVICE, JSON
from featx.cli.output import digits, print_columns, print_csv, print_facts, print_result
from featx.errors import FeatxError
from featx.text import printable, size_text

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    from featx.features.folder import FolderEntry


_MOST_NAMED, _MOST_CLASSES = 10, 20


def _show_info(facts: dict[str, Any], file: str) -> None:
    """The facts; of a feature file its rows as a table, and the first few failed images; of a head what was tried."""
    if "rows" not in facts:
        tried = facts.get("search") or []
        print_facts({key: value for key, value in facts.items() if key != "search"})
        if tried:
            click.echo()
            lines = [[f"{t['candidate']:g}", digits(t["mean"]), digits(t["standard_error"])] for t in tried]
            print_columns(["tried", "mean loss", "standard error"], lines)
        return
    failures, rows, classes = facts["failures"], facts["rows"], facts["classes"]
    tables = ("failures", "rows", "splits", "classes")
    print_facts({**{k: v for k, v in facts.items() if k not in tables}, "bytes": size_text(facts["bytes"])})
    names = sorted({name for counts in rows.values() for name in counts}, key=lambda n: (n not in classes, n))
    lines = [[name, *(counts.get(name, 0) for counts in rows.values())] for name in names[:_MOST_CLASSES]]
    if len(names) > _MOST_CLASSES:
        others = names[_MOST_CLASSES:]
        lines.append([f"({len(others)} more)", *(sum(c.get(n, 0) for n in others) for c in rows.values())])
    lines.append(["all", *(sum(counts.values()) for counts in rows.values())])
    click.echo()
    print_columns(["rows", *rows, "all"], [[*line, sum(line[1:])] for line in lines])
    if failures:
        click.echo(f"\n{len(failures):,} failed:")
        for path, error in list(failures.items())[:_MOST_NAMED]:
            click.echo(f"  {printable(path)}: {printable(error)}")
        if len(failures) > _MOST_NAMED:
            click.echo(f"  and {len(failures) - _MOST_NAMED} more (featx info --failed {file} lists them)")


@click.command(short_help="Say what a file is.")
@click.argument("file")
@click.option("--failed", is_flag=True, help="Every image that failed, and why, as CSV.")
@JSON
def info(file: str, failed: bool, as_json: bool) -> None:
    """Say what FILE is: a feature file, a head or a promoted model.

    Example: featx info cache/digits--lenet5.h5
    """
    from featx.inspection.info import describe_file

    facts = describe_file(file)
    if failed:
        failures = facts.get("failures")
        if failures is None:
            raise FeatxError(f"{file} is a {facts['kind']}; --failed is for feature files")
        print_result(
            {"failures": failures} if as_json else None, lambda: print_csv(["path", "error"], failures.items())
        )
        return
    print_result(facts if as_json else None, lambda: _show_info(facts, file))


@click.command(short_help="Check every row of a feature file.")
@click.argument("file")
@click.option(
    "--recompute", type=click.IntRange(min=1), default=None, metavar="N", help="Also extract N random rows again."
)
@BACKBONE_AGAIN
@DEVICE
@JSON
def verify(
    file: str, recompute: int | None, backbone: str | None, weights: str | None, device: str, as_json: bool
) -> None:
    """Check every row of the feature file FILE against its checksum; exit 1 if anything is wrong.

    Also its structure and size, the digest of its tables, NaN and infinity, and that copies of an image have the same
    features.

    Example: featx verify cache/digits--lenet5.h5 --recompute 16
    """
    from featx.inspection.verify import verify_file

    found = verify_file(file, recompute=recompute or 0, backbone=backbone, weights=weights, device=device)

    def show() -> None:
        click.echo(
            f"{file}: {found['rows']:,} rows, {found['bad_rows']:,} bad" + (", all is well" if found["ok"] else "")
        )
        if recompute and found.get("largest_difference") is not None:
            click.echo(
                f"  {found['recomputed']} rows extracted again; the largest difference is "
                f"{found['largest_difference']:.2g} of the row's length (relative L2)"
            )
        if found.get("changed"):
            click.echo(f"  {found['changed']} drawn images are gone or have changed since, and were passed over")
        for problem in found["problems"]:
            click.echo(f"  {printable(problem)}")

    print_result(found if as_json else None, show)
    if not found["ok"]:
        raise click.exceptions.Exit(1)


def _show_entries(entries: Sequence[FolderEntry], folder: str) -> None:
    if not entries:
        click.echo(f"there is no feature file in {folder}")
        return
    names = [printable(str(entry.path.relative_to(folder))) for entry in entries]
    width = max(map(len, names))
    click.echo(f"{'file':<{width}}  {'size':>10}  {'age':>7}  {'state':<9}  {'images':>11}  data set, backbone")
    for name, e in zip(names, entries, strict=True):
        images = f"{e.images:,}" if e.done == e.images else f"{e.done:,}/{e.images:,}"
        about = printable(f"{e.root}, {e.backbone}" if e.root else e.removable or "not featx's")
        click.echo(
            f"{name:<{width}}  {size_text(e.bytes):>10}  {_age(e.modified):>7}  {e.state:<9}  {images:>11}  {about}"
        )
    click.echo(f"{_files(len(entries))}, {size_text(sum(e.bytes for e in entries))}")
    if unneeded := [e for e in entries if e.removable]:
        click.echo(
            f"{len(unneeded)} of no use, {size_text(sum(e.bytes for e in unneeded))} (featx cache rm removes them)"
        )


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _age(modified: float) -> str:
    """How long ago, as people say it."""
    seconds = max(0.0, time.time() - modified)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@click.group(invoke_without_command=True, short_help="List the feature files, and remove what nothing needs.")
@CACHE_FOLDER
@JSON
@click.pass_context
def cache(ctx: click.Context, cache: str, as_json: bool) -> None:
    """List the feature files of the cache folder, the newest first: size, age, state, images, data set and backbone.

    Example: featx cache
    """
    from featx.features.folder import list_folder

    if ctx.invoked_subcommand is None:
        entries = list_folder(Path(cache))
        print_result(
            {"files": [e.as_dict() for e in entries]} if as_json else None, lambda: _show_entries(entries, cache)
        )


@cache.command("rm", short_help="Remove feature files.")
@click.argument("files", nargs=-1)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--cache", help="Folder of feature files.  [default: cache]")
@JSON
@click.pass_context
def cache_rm(ctx: click.Context, files: tuple[str, ...], yes: bool, cache: str | None, as_json: bool) -> None:
    """Remove FILES, or what nothing needs; asks first.

    Nothing needs damaged files, what a run left that was killed before it began to compute, unfinished files whose rows the
    finished one has, and files of a data set that is gone if another file, of one that is there, has all their features.

    Example: featx cache rm
    """
    from featx.features.folder import describe_files, list_folder, remove

    assert ctx.parent
    folder = cache or str(ctx.parent.params["cache"])
    entries = describe_files(map(Path, files)) if files else [e for e in list_folder(Path(folder)) if e.removable]
    if entries and not yes:
        for entry in entries:
            why = f": {entry.removable}" if entry.removable else ""
            click.echo(f"{size_text(entry.bytes):>10}  {printable(f'{entry.path}{why}')}", err=True)
        click.confirm(f"Remove {_files(len(entries))}?", abort=True, err=True)
    freed = sum(remove(entry.path) for entry in entries)
    removed = {"removed": [str(entry.path) for entry in entries], "bytes": freed}
    text = (
        f"{_files(len(entries))} removed, {size_text(freed)} freed"
        if entries
        else f"there is nothing to remove in {folder}"
    )
    print_result(removed if as_json else None, lambda: click.echo(text))
