"""``featx predict``."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import click

from featx.cli.choice import model_and_data
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, refuse
from featx.cli.option_groups import option
from featx.cli.options import COUNT, DEVICE, MODELS_SOURCE, SOURCE_BACKBONE, WORKERS, cache_folder, needing
from featx.reporter import Reporter, stage_of_import
from featx.text import cell

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.inference import Prediction


class _Predictions:
    """Predictions that are made while they are iterated over, once, and counted."""

    def __init__(self, made: Iterable[Prediction]) -> None:
        self._made = made
        self.images = self.failed = 0
        self.last_error = ""

    def __iter__(self) -> Iterator[Prediction]:
        for prediction in self._made:
            self.images += 1
            if prediction.error:
                self.failed += 1
                self.last_error = f"{prediction.path}: {prediction.error}"
            yield prediction

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx predict --json`` prints."""
        predictions = [prediction.as_dict() for prediction in self]
        return {"predictions": predictions, "images": self.images, "failed": self.failed}

    @property
    def notes(self) -> tuple[str, ...]:
        """How many images failed, if some did."""
        if not self.failed or self.failed == self.images:
            return ()
        return (f"{self.failed:,} of {self.images:,} images failed; the column error has the reasons",)

    @property
    def fault(self) -> str:
        """Why there are no predictions, if there are none."""
        if not self.images:
            return "no images were given"
        if self.failed < self.images:
            return ""
        if self.images > 1:
            return f"all {self.images:,} images failed, the last one because: {self.last_error}"
        return f"the image failed: {self.last_error}"


def _print_rows(predictions: Iterable[Prediction]) -> None:
    """Print one row of CSV for each class of each image, as soon as it is predicted."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    for number, prediction in enumerate(predictions):
        if not number:
            table.writerow(["path", "rank", "label", "probability", "error"])
        if prediction.error:
            table.writerow([cell(prediction.path), "", "", "", cell(prediction.error)])
        for rank, (label, probability, why) in enumerate(prediction.rows(), start=1):
            shown = f"{probability:.6f}" if probability is not None else ""
            table.writerow([cell(prediction.path), rank, cell(label), shown, cell(why)])
        sys.stdout.flush()


def _show_nothing(_: _Predictions) -> None:
    """All rows are printed already."""


def _named(images: Iterable[str]) -> Iterator[str]:
    """The images of the command line; a dash stands for the paths on standard input."""
    for image in images:
        if image == "-":
            yield from _listed_on_stdin()
        else:
            yield image


def _listed_on_stdin() -> Iterator[str]:
    """The paths on standard input, one on each line, or ended by null characters as ``find -print0`` prints them."""
    for line in sys.stdin.buffer:
        for path in line.rstrip(b"\r\n").split(b"\0"):
            if path:
                yield os.fsdecode(path)


@click.command(
    "predict", cls=JobCommand, stream=_print_rows, show=_show_nothing, progress=("predict", "images"),
    fault=attrgetter("fault"),
    short_help="Classify images.",
    examples=(
        "featx predict models/photos--resnet50--logreg.safetensors new.jpg more/ --top 3",
        "featx predict models/photos--resnet50--logreg.safetensors new.csv > predictions.csv",
        "find more -name '*.jpg' | featx predict models/photos--resnet50--logreg.safetensors -",
    ),
)  # fmt: skip
@click.argument("words", nargs=-1, metavar="[MODEL] IMAGES...")
@option(
    "--top", type=COUNT, default=1, show_default=True, section="Output", needs=ALWAYS, metavar="N",
    help="Number of classes to print for each image.",
)  # fmt: skip
@needing(CHECKED, cache_folder("Advanced"))
@needing(CHECKED, MODELS_SOURCE)
@SOURCE_BACKBONE
@DEVICE
@WORKERS
def predict(
    reporter: Reporter, words: tuple[str, ...], top: int, cache: str, models: str, backbone: str | None,
    weights: str | None, device: str, workers: int | None,
) -> _Predictions:  # fmt: skip
    """Classify IMAGES with MODEL, a head or a promoted model; by default the newest in the models folder.

    IMAGES are image files, folders, tables with the column path, quoted patterns such as 'new/*.jpg', or - for a list of paths
    on standard input. A head takes the features of images that are in a feature file of the cache folder from there.

    The output is CSV, a row at a time as images are predicted: path, rank, label, probability, error. An image that cannot be
    decoded gets a row with the reason, and so does one whose prediction a head rejects; if every image fails, the exit status
    is 1. A multi-label head gives one row for each predicted label. An apostrophe before a cell that begins with = + - or @
    keeps a spreadsheet from running it as a formula, and unprintable characters are escaped; --json prints every name
    unchanged.
    """
    model, images = model_and_data(words, models, reporter, missing="IMAGES...")
    stage_of_import(reporter)
    from featx.inference import HeadOnBackbone, iter_predictions, load_model

    if model in words:
        refuse(models="with MODEL, which is a file of any folder")
    reporter.stage(f"loading {model}")
    loaded = load_model(model, backbone=backbone, weights=weights, device=device)
    if isinstance(loaded, HeadOnBackbone) and loaded.head.task_ == "regression":
        refuse(top="on a regression, which predicts one number")
    if not isinstance(loaded, HeadOnBackbone):
        refuse(
            cache="with a promoted model, which uses no features",
            weights="with a promoted model, which holds its weights",
        )
    inputs = _named(images) if "-" in images else images
    return _Predictions(iter_predictions(loaded, inputs, top=top, cache=cache, workers=workers, reporter=reporter))
