"""``featx info``, ``verify`` and ``cache``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.arguments import path_of
from featx.cli.info_page import show_info
from featx.cli.needs import ALWAYS, CHECKED, with_option, without_option
from featx.cli.option_groups import Command, Group, option
from featx.cli.options import COUNT, DEVICE, JSON, SOURCE_BACKBONE, cache_folder, needing
from featx.cli.output import print_csv, print_notes, print_result
from featx.cli.remote_files import with_local_files
from featx.constants import CACHE, MODELS
from featx.errors import CacheMissError, FeatxError, ModelNotFoundError
from featx.text import counted, form, printable, size_text

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.features.entries import FolderEntry
    from featx.features.shards import MergedShards

_MOST_MISSING = 10
"""The most shards with missing images that are listed."""


@click.command(
    "info", cls=Command, short_help="Describe a file.",
    examples=("featx info cache/digits--lenet5.h5", "featx info models/digits--lenet5--logreg.safetensors"),
)  # fmt: skip
@click.argument("file", required=False)
@option(
    "--failed",
    is_flag=True,
    section="Output",
    needs=CHECKED,
    help="Print every image that failed and the reason, as CSV.",
)
@JSON
def info(file: str | None, failed: bool, as_json: bool) -> None:
    """Describe FILE: a feature file, a head or a promoted model; by default the newest in the folders cache and models.

    The page leaves out what is not set, and the results of each value that was tried; --json prints all that the file states.
    """
    from featx.inspection.info import describe_file

    given = None if file is None else path_of(file, "FILE")
    file = str(_newest() if given is None else with_local_files("info", {"file": given})["file"])
    facts = describe_file(file)
    if failed:
        failures = facts.get("failures")
        if failures is None:
            raise FeatxError(f"{file} is a {facts['kind']}; --failed is for feature files")
        print_result(
            {"failures": failures} if as_json else None, lambda: print_csv(["path", "error"], failures.items())
        )
        return
    print_result(facts if as_json else None, lambda: show_info(facts, file))


def _newest() -> Path:
    """The newest file in the folders of features and of models.

    Raises:
        CacheMissError: there is none.
    """
    from featx.features.folder import newest
    from featx.heads.head_file import HEAD
    from featx.io import model_file
    from featx.promotion.model_file import MODEL

    found = []
    with contextlib.suppress(ModelNotFoundError):
        found.append(model_file.newest(Path(MODELS), HEAD, MODEL))
    with contextlib.suppress(CacheMissError):
        found.append(newest(Path(CACHE)))
    if not found:
        raise CacheMissError(f"there is no file in {CACHE} or {MODELS}; run featx extract first, or name a file")
    return max(found, key=lambda path: path.stat().st_mtime)


@click.command(
    "verify", cls=Command, short_help="Check every row of a feature file.",
    examples=("featx verify cache/digits--lenet5.h5 --recompute 16",),
)  # fmt: skip
@click.argument("file")
@option(
    "--recompute", type=COUNT, section="Compute", needs=ALWAYS, metavar="N",
    help="Extract N random rows again too, and compare them.",
)  # fmt: skip
@needing(with_option("recompute", "--recompute"), SOURCE_BACKBONE)
@needing(with_option("recompute", "--recompute"), DEVICE)
@JSON
def verify(
    file: str, recompute: int | None, backbone: str | None, weights: str | None, device: str, as_json: bool
) -> None:
    """Check every row of the feature file FILE against its checksum; exit with status 1 if anything is wrong.

    The structure and size of the file, the digest of its tables, NaN and infinity are checked too, and that copies of an image
    have the same features.
    """
    from featx.inspection.verify import verify_file

    file = with_local_files("verify", {"file": file})["file"]
    checked = verify_file(file, recompute=recompute or 0, backbone=backbone, weights=weights, device=device)
    print_result(checked if as_json else None, lambda: _show_verified(checked, file))
    if not checked["ok"]:
        raise click.exceptions.Exit(1)


def _show_verified(checked: dict[str, Any], file: str) -> None:
    """Print what the check of a feature file gave."""
    well = ", all is well" if checked["ok"] else ""
    click.echo(f"{file}: {counted(checked['rows'], 'row')}, {checked['bad_rows']:,} bad{well}")
    if checked.get("largest_difference") is not None:
        click.echo(
            f"  {counted(checked['recomputed'], 'row')} extracted again; the largest difference is "
            f"{checked['largest_difference']:.2g} of the row's length (relative L2)"
        )
    if checked.get("changed"):
        gone = (
            "drawn image is missing or has changed since, and was",
            "drawn images are missing or have changed since, and were",
        )
        click.echo(f"  {counted(checked['changed'], *gone)} skipped")
    for problem in checked["problems"]:
        click.echo(f"  {printable(problem)}")


def _show_entries(entries: Sequence[FolderEntry], folder: str) -> None:
    """Print one line for each feature file of a folder."""
    if not entries:
        click.echo(f"there is no feature file in {folder}")
        return
    names = [printable(str(entry.path.relative_to(folder))) for entry in entries]
    width = max(map(len, names))
    click.echo(f"{'file':<{width}}  {'size':>10}  {'age':>7}  {'state':<10}  {'images':>11}  data set, backbone")
    for name, e in zip(names, entries, strict=True):
        images = f"{e.images:,}" if e.done == e.images else f"{e.done:,}/{e.images:,}"
        fault = "not featx's" if e.state == "foreign" else e.fault or e.removable
        about = printable(f"{e.root}, {e.backbone}" if e.root else fault)
        click.echo(
            f"{name:<{width}}  {size_text(e.bytes):>10}  {_age(e.modified):>7}  {e.state:<10}  {images:>11}  {about}"
        )
    click.echo(f"{_files(len(entries))}, {size_text(sum(e.bytes for e in entries))}")
    if removable := [e for e in entries if e.removable]:
        size = size_text(sum(e.bytes for e in removable))
        click.echo(f"{len(removable)} not needed, {size} (featx cache rm removes {form(len(removable), 'it', 'them')})")


def _files(count: int) -> str:
    """A number of files, in words."""
    return counted(count, "file")


def _age(modified: float) -> str:
    """The time since a file was modified, in its largest unit."""
    seconds = max(0.0, time.time() - modified)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@click.group(
    "cache", cls=Group, invoke_without_command=True, subcommand_metavar="[COMMAND] [ARGS]...",
    examples=("featx cache", "featx cache merge", "featx cache rm"),
    short_help="List the feature files, merge shards, and remove what nothing needs.",
)  # fmt: skip
@cache_folder("Input")
@JSON
@click.pass_context
def cache(ctx: click.Context, cache: str, as_json: bool) -> None:
    """List the feature files of the cache folder, the newest first: size, age, state, images, data set and backbone."""
    from featx.features.entries import list_folder

    if as_json and ctx.invoked_subcommand:
        raise click.UsageError(f"--json has no effect before {ctx.invoked_subcommand}; give it after", ctx)
    with_local_files("cache", {"cache": cache})
    if ctx.invoked_subcommand is None:
        entries = list_folder(Path(cache))
        print_result(
            {"files": [e.as_dict() for e in entries]} if as_json else None, lambda: _show_entries(entries, cache)
        )


@cache.command(
    "rm", cls=Command, short_help="Remove feature files.",
    examples=("featx cache rm", "featx cache rm cache/digits--lenet5.h5 --yes"),
)  # fmt: skip
@click.argument("files", nargs=-1)
@option("-y", "--yes", is_flag=True, section="Input", needs=ALWAYS, help="Remove without asking.")
@option(
    "--cache",
    show_default="that of featx cache",
    section="Input",
    needs=without_option("files", "FILES"),
    metavar="FOLDER",
    help="Folder of feature files.",
)
@JSON
@click.pass_context
def cache_rm(ctx: click.Context, files: tuple[str, ...], yes: bool, cache: str | None, as_json: bool) -> None:
    """Remove FILES, or by default the files that nothing needs, after asking.

    These are damaged files, what is left of a run that was killed before it began to compute, unfinished files whose rows the
    finished file has, and files of a data set that is gone, if a file of an existing data set has all their features. A file
    that cannot be read now, or is of a later version of featx, is never removed. Each file is checked again before it goes.
    """
    from featx.features.entries import describe_files, list_folder, remove

    assert ctx.parent
    folder = with_local_files("cache rm", {"cache": cache or str(ctx.parent.params["cache"])})["cache"]
    entries = describe_files(map(Path, files)) if files else [e for e in list_folder(Path(folder)) if e.removable]
    if entries and not yes:
        for entry in entries:
            why = f": {entry.removable}" if entry.removable else ""
            click.echo(f"{size_text(entry.bytes):>10}  {printable(f'{entry.path}{why}')}", err=True)
        click.confirm(f"Remove {_files(len(entries))}?", abort=True, err=True)
    freed = {entry.path: remove(entry) for entry in entries}
    kept = [path for path, size in freed.items() if size is None]
    total = sum(size or 0 for size in freed.values())
    text = (
        f"{_files(len(entries) - len(kept))} removed, {size_text(total)} freed"
        if entries
        else f"there is nothing to remove in {folder}"
    )
    facts = {
        "removed": [str(path) for path in freed if path not in kept],
        "bytes": total,
        "kept": [str(path) for path in kept],
    }
    print_result(facts if as_json else None, lambda: click.echo(text))
    print_notes(*(f"{path} was used or changed meanwhile and is kept" for path in kept))


@cache.command(
    "merge", cls=Command, short_help="Merge the shards that several machines have written.",
    examples=("featx cache merge", "featx cache merge cache/photos--resnet50--1e21e4f2.shards --strict"),
)  # fmt: skip
@click.argument("folders", nargs=-1)
@option(
    "--strict", is_flag=True, section="Output", needs=ALWAYS,
    help="Write nothing as long as an image is missing, and exit with status 1.",
)  # fmt: skip
@option(
    "--split-rows", type=COUNT, show_default="as the shards were extracted", section="Output", needs=ALWAYS, metavar="N",
    help="Make a set of feature files of at most N images each.",
)  # fmt: skip
@option("--keep", is_flag=True, section="Output", needs=ALWAYS, help="Keep shards whose rows are all in the file.")
@option(
    "--wait", is_flag=True, section="Advanced", needs=ALWAYS, help="Wait while another process writes the same file."
)
@option(
    "--cache",
    show_default="that of featx cache",
    section="Input",
    needs=without_option("folders", "FOLDERS"),
    metavar="FOLDER",
    help="Folder of feature files.",
)
@JSON
@click.pass_context
def cache_merge(
    ctx: click.Context, /, folders: tuple[str, ...], cache: str | None, as_json: bool, **options: Any
) -> None:
    """Merge the shards in FOLDERS, or in all folders that end in .shards in the cache folder, into feature files.

    featx extract DATA --shard K/N writes shards. The merged file is the one that featx extract DATA writes on one machine, byte
    for byte; of shards that were extracted with --split-rows, it is the set of files. No image is opened and no network is
    needed. Merging may be repeated at any time, while shards are being written too: then the file has the images that are
    done, and the next merge replaces it. Shards are removed once the file has all their rows. Folders that cannot be
    merged are named, and the exit status is 1; the others are merged all the same.
    """
    from featx.features.shards import merge_shards, shard_folders

    assert ctx.parent
    place = Path(with_local_files("cache merge", {"cache": cache or str(ctx.parent.params["cache"])})["cache"])
    found = [each for folder in folders for each in _folders_of_shards(folder)] or shard_folders(place)
    merged, failed = [], []
    for folder in found:
        try:
            result = merge_shards(folder, progress=not as_json, **options)
        except FeatxError as error:  # the others are merged nevertheless
            if folders or folder.is_dir():
                failed.append((folder, str(error)))
            else:
                print_notes(f"another process has merged {folder} meanwhile")
            continue
        merged.append(result)
        if not as_json:
            _show_merged(result)
        print_notes(*result.notes)
    if as_json:
        errors = [{"folder": str(folder), "error": error} for folder, error in failed]
        print_result({"merged": [result.as_dict() for result in merged], "errors": errors}, lambda: None)
    elif not found:
        click.echo(f"there are no shards in {place}")
    for _, sentence in failed:
        click.echo(f"Error: {printable(sentence)}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _folders_of_shards(folder: str) -> list[Path]:
    """The folder of shards that was named, or those in the folder of feature files that was named instead."""
    from featx.features.folder import SHARDS
    from featx.features.shards import shard_folders

    path = Path(folder)
    return (shard_folders(path) if path.is_dir() and path.suffix != SHARDS else []) or [path]


def _show_merged(result: MergedShards) -> None:
    """Print what one merge did."""
    click.echo(
        printable(
            f"{result.dataset} through {result.backbone}: {result.merged:,} of {counted(result.images, 'image')} in "
            f"{counted(result.of, 'shard')}, {result.failed:,} failed, in {result.seconds:.1f} s"
        )
    )
    for sentence in result.missing[:_MOST_MISSING]:
        click.echo(f"  missing: {sentence}")
    if (more := len(result.missing) - _MOST_MISSING) > 0:
        click.echo(f"  and {more} more")
    if result.missing:
        click.echo(
            "featx extract with the same --shard goes on with a shard; without it, it computes all that is missing"
        )
    if result.file:
        click.echo(printable(f"features: {result.file}"))
    if result.removed:
        click.echo(
            f"{counted(result.removed, 'shard')} removed, since the file has {form(result.removed, 'its', 'their')} rows"
        )
