"""``featx search``."""

from __future__ import annotations

import csv
import sys
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.choice import features_and_queries
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, refuse
from featx.cli.option_groups import option
from featx.cli.options import (
    COUNT,
    DEVICE,
    IMAGE_OPTIONS,
    SOURCE_BACKBONE,
    WORKERS,
    cache_folder,
    contact_sheet,
    data_options,
    needing,
)
from featx.cli.streamed import Streamed, given_images, show_nothing
from featx.reporter import Reporter
from featx.text import cell

if TYPE_CHECKING:
    from featx.data.scan_options import ScanOptions


class _Results(Streamed[Any]):
    """The results of a search, printed as a row of CSV for each hit of each query."""

    def print_rows(self) -> None:
        """Print the rows of each query as soon as it is searched."""
        table = csv.writer(sys.stdout, lineterminator="\n")
        for number, result in enumerate(self):
            if not number:
                table.writerow(["query", "rank", "path", "label", "split", "similarity", "error"])
            query = cell(result.query)
            if result.error:
                table.writerow([query, *[""] * 5, cell(result.error)])
            for rank, hit in enumerate(result.hits, start=1):
                found = [cell(hit.path), cell(hit.label), cell(hit.split), f"{hit.similarity:.6f}"]
                table.writerow([query, rank, *found, ""])
            sys.stdout.flush()


@click.command(
    "search", cls=JobCommand, stream=methodcaller("print_rows"), show=show_nothing, progress=("search", "images"),
    fault=attrgetter("fault"),
    short_help="Find the images that are most like others.",
    examples=(
        "featx search cache/photos--resnet50.h5 new.jpg --top 20",
        "featx search cache/photos--resnet50.h5 cat/0001.jpg --split train > similar.csv",
        "featx search --row 0 --row 17 --sheet similar.html",
        "featx search --text 'a dog on grass' --top 5",
    ),
)  # fmt: skip
@click.argument("words", nargs=-1, metavar="[FEATURES] QUERIES...")
@data_options(only=IMAGE_OPTIONS)
@option(
    "--row", "rows", type=click.IntRange(min=0), multiple=True, section="Input", needs=ALWAYS, metavar="N",
    help="Row of FEATURES, from 0, to take as a query. May be repeated.",
)  # fmt: skip
@option(
    "--text", multiple=True, section="Input", needs=ALWAYS, metavar="TEXT",
    help="Sentence to take as a query, where FEATURES come from a model of images and text. May be repeated.",
)  # fmt: skip
@option(
    "--layer", show_default="penultimate, or the first of the file", section="Input", needs=ALWAYS, metavar="NAME",
    help="Layer of the feature file.",
)  # fmt: skip
@option(
    "--top", type=COUNT, default=20, show_default=True, section="Output", needs=ALWAYS, metavar="N",
    help="Number of images to find for each query.",
)  # fmt: skip
@option("--split", section="Output", needs=ALWAYS, metavar="NAME", help="Find images of this split only.")
@option(
    "--label", section="Output", needs=ALWAYS, metavar="NAME",
    help="Find images of this class only, or with this one of several labels.",
)  # fmt: skip
@option(
    "--include-self", is_flag=True, section="Output", needs=ALWAYS,
    help="Let an image of the data set be found by itself. A copy at another path is always found.",
)  # fmt: skip
@contact_sheet(ALWAYS)
@needing(CHECKED, cache_folder("Advanced", or_url="whose newest file is fetched"))
@SOURCE_BACKBONE
@DEVICE
@WORKERS
def search(
    reporter: Reporter, words: tuple[str, ...], rows: tuple[int, ...], text: tuple[str, ...], cache: str, sheet: str | None,
    images: tuple[str, ...], scan: ScanOptions, **options: Any
) -> _Results:  # fmt: skip
    """Find the images of FEATURES that are most like QUERIES, by the cosine of their features.

    FEATURES is a feature file; by default the newest in the cache folder. QUERIES are image files, folders, tables with the
    column path, quoted patterns such as 'new/*.jpg', paths of the data set as FEATURES has them, or - for a list of paths on
    standard input. A query whose content is in FEATURES needs no forward pass; others pass through its backbone.

    --text finds images by a sentence, where FEATURES come from a model of images and text such as CLIP: the cosines of text and
    images are lower than those of images, and only their order counts.

    The output is CSV, the most similar image first: query, rank, path, label, split, similarity, error. An image that cannot be
    decoded gets a row with the reason; if every query fails, the exit status is 1. An apostrophe before a cell that begins with
    = + - or @ keeps a spreadsheet from running it as a formula, and unprintable characters are escaped; --json prints every
    name unchanged.
    """
    file, named = features_and_queries(words, cache, reporter, rows=bool(rows or text), missing="QUERIES...")
    if file in words:
        refuse(cache="with FEATURES, which is a file of any folder")
    from featx.io.outputs import SHEET, Output, require_outputs
    from featx.retrieval.sheet import write_search_sheet
    from featx.retrieval.similar import iter_search

    if sheet:
        require_outputs([Output(Path(sheet), SHEET, named=True)], [file, *named])
    queries = given_images(named, scan)
    made = iter_search(file, queries, rows=rows, text=text, reporter=reporter, **options)
    return _Results(
        made,
        key="results",
        failure=lambda each: (each.query, each.error),
        sheet=(lambda results: write_search_sheet(sheet, results, file, images=images)) if sheet else None,
    )
