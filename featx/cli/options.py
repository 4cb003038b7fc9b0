"""Options and types that several commands share."""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Callable, Collection
from typing import Any

import click
from click.shell_completion import CompletionItem

from featx.cli.needs import ALWAYS, CHECKED, Condition, Needs, with_option
from featx.cli.option_groups import option
from featx.constants import CACHE, FITS, MODELS, POOLINGS, TASKS, TRACKERS
from featx.data.scan_options import ScanOptions
from featx.errors import BackboneError
from featx.layer_spec import PENULTIMATE, require_pooling
from featx.progress import NORMAL, QUIET, VERBOSE

Decorator = Callable[[Any], Any]


def options(*decorators: Decorator) -> Decorator:
    """Combine decorators into one; the first is the outermost."""
    return lambda command: functools.reduce(lambda decorated, each: each(decorated), reversed(decorators), command)


def needing(needs: Condition, decorator: Decorator) -> Decorator:
    """The same options, which in this command need something else to have an effect."""

    def decorate(command: Any) -> Any:
        before = len(getattr(command, "__click_params__", ()))
        decorated = decorator(command)
        for param in decorated.__click_params__[before:]:
            param.needs = needs
        return decorated

    return decorate


class BatchSize(click.ParamType):  # type: ignore[type-arg]
    """A whole number above 0, or "auto"."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Convert the text of the command line."""
        if value == "auto":
            return "auto"
        try:
            return int(click.IntRange(min=1).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither a whole number above 0 nor auto", param, ctx)


class PoolingName(click.ParamType):  # type: ignore[type-arg]
    """The name of a pooling, as ``layer_spec.LayerNode`` has them."""

    name = "pooling"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text of the command line."""
        try:
            return require_pooling(value)
        except BackboneError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - of click
        """Complete the names that are fixed, and an example of those that hold a number."""
        return [CompletionItem(name) for name in (*POOLINGS, "grid2", "tokens:16") if name.startswith(incomplete)]


class Checked(click.ParamType):  # type: ignore[type-arg]
    """A text that a function of ``featx.data.transform`` can parse; it is checked, and left as it is.

    Args:
        name: what the text is, in words.
        parser: the name of the function, which raises ValueError. Its module is imported when a value is given.
    """

    def __init__(self, name: str, parser: str) -> None:
        self.name, self.parser = name, parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text of the command line."""
        from featx.data import transform

        try:
            getattr(transform, self.parser)(value)
            return str(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


VALUE_RANGE_TYPE, BANDS_TYPE = Checked("value range", "parse_value_range"), Checked("bands", "parse_bands")
SIZE_TYPE = Checked("size", "parse_size")


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers above 0, separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Convert the text of the command line."""
        if isinstance(value, tuple):
            return value
        number = click.IntRange(min=1)
        return tuple(number.convert(part.strip(), param, ctx) for part in value.split(","))


class Names(click.ParamType):  # type: ignore[type-arg]
    """Names, separated by commas; one with a comma in it stands between double quotes, as in CSV."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Convert the text of the command line."""
        if isinstance(value, tuple):
            return value
        try:
            names = tuple(name.strip() for name in next(csv.reader([value], strict=True, skipinitialspace=True), []))
        except csv.Error:
            names = ()
        if not names or not all(names):
            self.fail(f"{value!r} are not names with commas between them", param, ctx)
        return names


class FoldsType(click.ParamType):  # type: ignore[type-arg]
    """A whole number above 1, 0 or none, or the name of a column."""

    name = "folds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Convert the text of the command line."""
        if value in ("none", "0", 0):
            return 0
        try:
            number = int(value)
        except ValueError:
            return str(value)
        return int(click.IntRange(min=2).convert(number, param, ctx))


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration such as 90, 90s, 5min or 1h; it becomes seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the text of the command line."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|min|h|)\s*", str(value))
        seconds = float(match[1]) * {"": 1, "s": 1, "min": 60, "h": 3600}[match[2]] if match else math.inf
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no duration such as 90s, 5min or 1h", param, ctx)
        return seconds


DURATION = Duration()
"""A duration, in seconds."""

POSITIVE = click.FloatRange(min=0, min_open=True)
"""A number above 0."""

SHARE = click.FloatRange(0, 1, min_open=True)
"""A number above 0, at most 1."""

SHARE_BELOW_1 = click.FloatRange(0, 1, max_open=True)
"""A number from 0 on, below 1."""

COUNT = click.IntRange(min=1)
"""A whole number above 0."""

VERBOSITY = options(
    option(
        "-q", "--quiet", is_flag=True, section="Advanced", needs=ALWAYS,
        help="Print no stages and no progress, only the result and the notes on it.",
    ),
    option(
        "-v", "--verbose", is_flag=True, section="Advanced", needs=ALWAYS,
        help="Print each stage with the time at which it begins, and where an error comes from.",
    ),
)  # fmt: skip
"""How much a job prints on stderr while it runs; ``verbosity`` reads both."""


def verbosity(ctx: click.Context) -> int:
    """How much to print, from ``--quiet`` and ``--verbose``, which this removes from the parameters of a command.

    Raises:
        click.UsageError: both are given.
    """
    quiet, verbose = ctx.params.pop("quiet"), ctx.params.pop("verbose")
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude one another", ctx)
    ctx.meta[TRACEBACKS] = verbose
    return QUIET if quiet else VERBOSE if verbose else NORMAL


TRACEBACKS = "featx.tracebacks"
"""The key of the context's ``meta`` under which ``--verbose`` asks for the traceback of an error."""

RESUMABLE = "featx.resumable"
"""The key under which a command states that it keeps what it has done, where that depends on its options."""

JSON = option(
    "--json", "as_json", is_flag=True, section="Output", needs=ALWAYS, help="Print one JSON object instead of text."
)

DEVICE = option(
    "--device", default="auto", show_default=True, section="Compute", needs=ALWAYS, metavar="NAME",
    help="Device that runs the network: auto, cpu, cuda, cuda:1 or mps.",
)  # fmt: skip

WORKERS = option(
    "-j", "--workers", type=COUNT, show_default="one per core", section="Compute", needs=ALWAYS, metavar="N",
    help="Number of threads that read and decode images.",
)  # fmt: skip

PIXEL_VALUES = options(
    option(
        "--value-range", type=VALUE_RANGE_TYPE, show_default="the full range of each file's type", section="Input",
        needs=ALWAYS, metavar="BITS|LOW-HIGH",
        help="Values that are black and white: 8, 10, 12, 14 or 16 bits, or LOW-HIGH such as 0-255 for floats. Larger values "
        "fail. Files of fewer bits keep their own range.",
    ),
    option(
        "--bands", type=BANDS_TYPE, show_default="the declared colours", section="Input", needs=ALWAYS, metavar="N,N,N",
        help="Bands to read of images with more than colours and alpha, as red, green and blue; one band is grey.",
    ),
)  # fmt: skip
"""How sample values become pixels, for commands that read a data set through a backbone."""

FIT = option(
    "--fit", type=click.Choice(FITS), show_default="as the weights require", section="Input", needs=ALWAYS, metavar="NAME",
    help="How an image of another shape fits: crop covers the input and cuts off the rest, pad shows the whole image with the "
    "network's mean colour around it (letterbox), squash changes its shape.",
)  # fmt: skip
"""How images fit the networks, for commands that read a data set through a backbone."""

MODELS_FOLDER = option(
    "--models", default=MODELS, show_default=True, section="Output", needs=ALWAYS, metavar="FOLDER",
    help="Folder of heads and models.",
)  # fmt: skip

GROUPS = options(
    option(
        "--group", section="Evaluation", needs=ALWAYS, metavar="COLUMN",
        help="Column of the table that names groups, such as patients: images of one group never straddle a split or a fold, "
        "and intervals and tests are by groups.",
    ),
    option(
        "--table", section="Evaluation", needs=with_option("group", "--group"), metavar="FILE",
        help="Table with the column of --group, where it is not the data set's own table.",
    ),
)  # fmt: skip
"""The groups of the images."""

_NAMED = Needs(
    "without --track mlflow or wandb",
    lambda options: any(name in options["track"] for name in ("mlflow", "wandb")),
)

TRACKING = options(
    option(
        "--track", type=click.Choice(TRACKERS), multiple=True, section="Advanced", needs=ALWAYS, metavar="TOOL",
        help=f"Log parameters, epochs, results, pictures and the model file to {TRACKERS[0]}, {TRACKERS[1]} (offline unless "
        f"WANDB_MODE is set) or {TRACKERS[2]}. May be repeated.",
    ),
    option(
        "--experiment", section="Advanced", needs=_NAMED, metavar="NAME",
        show_default="MLFLOW_EXPERIMENT_NAME or WANDB_PROJECT, else featx",
        help="Experiment or project of --track.",
    ),
)  # fmt: skip
"""The tools that a run is tracked by."""

HEAD_TABLE = option(
    "--table", section="Advanced", needs=CHECKED, metavar="FILE",
    help="Table with the column of the groups, where it is not the data set's own table.",
)  # fmt: skip
"""The table of the groups that a head was fitted with."""

MODELS_SOURCE = option(
    "--models", default=MODELS, show_default=True, section="Advanced", needs=ALWAYS, metavar="FOLDER",
    help="Folder of heads and models, whose newest is taken where none is named.",
)  # fmt: skip

SOURCE_BACKBONE = options(
    option(
        "--backbone", "-b", section="Advanced", needs=ALWAYS, metavar="NAME",
        help="Backbone to use, where the stored name is a Python file (file.py:factory). Of several backbones, PART=NAME.",
    ),
    option(
        "--weights", section="Advanced", needs=ALWAYS, metavar="FILE",
        help="Weights of the backbone, where their file has moved. Of several backbones, PART=FILE.",
    ),
)  # fmt: skip
"""What makes the backbone of a stored file again, where its name and its weights do not suffice."""


def contact_sheet(needs: Condition) -> Decorator:
    """The options of a contact sheet."""
    return options(
        option(
            "--sheet", section="Output", needs=needs, metavar="FILE",
            help="Write an offline HTML page with thumbnails too.",
        ),
        option(
            "--images", multiple=True, section="Output", needs=with_option("sheet", "--sheet"), metavar="FOLDER",
            help="Folder besides that of the data set whose images the page of --sheet may show. May be repeated.",
        ),
    )  # fmt: skip


LAYERS = option(
    "--layer", multiple=True, default=(PENULTIMATE,), show_default=True, section="Input", needs=ALWAYS, metavar="NAME",
    help="Layer of the feature file. May be repeated: several layers are concatenated.",
)  # fmt: skip
"""The layers of a feature file."""


def task_option(section: str) -> Decorator:
    """The option ``--task`` of commands that fit a head."""
    return option(
        "--task", type=click.Choice(("auto", *TASKS)), default="auto", show_default=True, section=section, needs=ALWAYS,
        metavar="NAME",
        help=f"Task: {', '.join(TASKS)}; or auto: multilabel where a label contains | (cat|dog), else classification.",
    )  # fmt: skip


def cache_folder(section: str, *, or_url: str = "") -> Decorator:
    """The option ``--cache``, which some commands write to and others read from.

    Args:
        section: of the help.
        or_url: what the URL of a folder does, in a command that takes one.
    """
    return option(
        "--cache",
        default=CACHE,
        show_default=True,
        section=section,
        needs=ALWAYS,
        metavar="FOLDER",
        help=f"Folder of feature files{f', or its URL, {or_url}' if or_url else ''}.",
    )


_DATA = {
    "path_column": option(
        "--path-column", section="Data", needs=CHECKED, metavar="NAME", show_default="path, file, image or the like",
        help="Column of a table with the paths of the images.",
    ),
    "label_column": option(
        "--label-column", section="Data", needs=CHECKED, metavar="NAME", show_default="label, class or the like",
        help="Column with their labels.",
    ),
    "split_column": option(
        "--split-column", section="Data", needs=CHECKED, metavar="NAME", show_default="split, set or subset, if there is one",
        help="Column with their splits.",
    ),
    "label_columns": option(
        "--label-columns", type=Names(), default=(), section="Data", needs=CHECKED, metavar="NAME,NAME…",
        help="Columns of 0 and 1, one for each label, instead of a column of labels.",
    ),
    "label_separator": option(
        "--label-separator", section="Data", needs=CHECKED, metavar="TEXT",
        help="What stands between the labels of an image in one cell; | always does.",
    ),
    "box_columns": option(
        "--box-columns", type=Names(), default=(), section="Data", needs=CHECKED, metavar="NAME,NAME,NAME,NAME",
        show_default="x,y,w,h and the like, where there are such columns",
        help="Columns with the part of each image that is meant, in pixels: left, top and size, or left, top, right, bottom; "
        "or one column of lists of four numbers; or none.",
    ),
    "image_column": option(
        "--image-column", section="Data", needs=CHECKED, metavar="NAME",
        help="Column of a Parquet file or a Hugging Face data set with the images.",
    ),
    "root": option(
        "--root", section="Data", needs=CHECKED, metavar="FOLDER|URL", show_default="the folder of the table",
        help="What the paths of a table are relative to: a folder, an archive or a URL.",
    ),
    "separator": option(
        "--separator", section="Data", needs=CHECKED, metavar="CHARACTER", show_default="found in the header",
        help="Character between the cells of a text table: , or ; or | or tab.",
    ),
    "label_pattern": option(
        "--label-pattern", section="Data", needs=CHECKED, metavar="REGEX",
        help="Regular expression with a group named label, searched in the name of each image's file: "
        "'(?P<label>[a-z]+)_\\d+' finds cat in cat_12.jpg.",
    ),
    "group_level": option(
        "--group-level", type=int, section="Data", needs=CHECKED, metavar="N",
        help="Folder whose name is the group of an image, for --group group: 1 is the first below DATA, -1 the one that holds "
        "the image.",
    ),
}  # fmt: skip


IMAGE_OPTIONS = ("path_column", "box_columns", "image_column", "root", "separator")
"""The options of data that matter where images alone are read, and neither labels nor splits."""


def data_options(*, only: Collection[str] = tuple(_DATA)) -> Decorator:
    """The options that describe the data set of a command, which its function gets as one ``scan: ScanOptions``.

    Args:
        only: the fields of ``ScanOptions`` that the command has.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def described(*args: Any, **given: Any) -> Any:
            fields = {name: given.pop(name) for name in only}
            return command(*args, scan=ScanOptions.of(None, fields), **given)

        return options(*(_DATA[name] for name in only))(described)

    return decorate


def scanned(data: str | None, scan: ScanOptions) -> Any:
    """The images of a data set, or DATA as they are where the options say nothing about them.

    Args:
        data: a data set; or a feature file, or None for the newest one, which have no such options.
        scan: what the command line gives.

    Raises:
        click.UsageError: an option is given for a feature file.
        DatasetError: as ``scan_images``.
    """
    if scan == ScanOptions():
        return data
    from featx.data.scan import scan_images
    from featx.io.file_kinds import is_feature_file

    if data is None or is_feature_file(data):
        refuse_data_options(scan, "with a feature file, whose data set was read already")
    return scan_images(str(data), scan)


def refuse_data_options(scan: ScanOptions, why: str) -> None:
    """Refuse options of data where there is no data set to scan.

    Args:
        scan: what the command line gives.
        why: the end of the message "--root has no effect …".

    Raises:
        click.UsageError: one of them is given.
    """
    for name in scan.as_dict():
        raise click.UsageError(
            f"--{name.replace('_', '-')} has no effect {why}", click.get_current_context(silent=True)
        )
