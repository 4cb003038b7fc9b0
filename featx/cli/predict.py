"""``featx predict``."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.choice import model_and_data
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, refuse, with_option, without_option
from featx.cli.option_groups import option
from featx.cli.options import (
    COUNT,
    DEVICE,
    IMAGE_OPTIONS,
    MODELS_SOURCE,
    RESUMABLE,
    SOURCE_BACKBONE,
    WORKERS,
    cache_folder,
    contact_sheet,
    data_options,
    needing,
    refuse_data_options,
)
from featx.cli.streamed import Streamed, all_failed, given_images, given_parts, show_nothing
from featx.data.cells import BETWEEN_LABELS
from featx.reporter import Reporter, stage_of_import
from featx.text import cell

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.data.scan_options import ScanOptions
    from featx.heads.prediction import Prediction
    from featx.inference import Model
    from featx.streaming.writing import WrittenPredictions


class _Predictions(Streamed[Any]):
    """Predictions, printed as a row of CSV for each class of each image.

    Args:
        further: names of the columns of prediction sets or intervals, if the model has them.
        options: as ``Streamed`` takes them.
    """

    def __init__(self, made: Iterable[Any], *, further: Sequence[str] = (), **options: Any) -> None:
        super().__init__(made, **options)
        self._further = further

    def print_rows(self) -> None:
        """Print the rows of each image as soon as it is predicted."""
        table = csv.writer(sys.stdout, lineterminator="\n")
        for number, prediction in enumerate(self):
            if not number:
                table.writerow(["path", "rank", "label", "probability", *self._further, "error"])
            if prediction.error:
                nothing = [""] * (3 + len(self._further))
                table.writerow([cell(prediction.path), *nothing, cell(prediction.error)])
            for rank, (label, probability, why) in enumerate(prediction.rows(), start=1):
                sets = _set_cells(prediction) if self._further else ()
                table.writerow([cell(prediction.path), rank, cell(label), _shown(probability), *sets, cell(why)])
            sys.stdout.flush()


def _set_cells(prediction: Prediction) -> list[str]:
    """The cells of the prediction set, or of the ends of the interval."""
    if prediction.interval is not None:
        return [f"{end:.6g}" for end in prediction.interval]
    return [cell(BETWEEN_LABELS.join(prediction.set or ()))]


class _Explanations(Streamed[Any]):
    """Explanations, printed as a row of CSV for each training image of each image."""

    def print_rows(self) -> None:
        """Print the rows of each image as soon as it is explained."""
        table = csv.writer(sys.stdout, lineterminator="\n")
        for number, explanation in enumerate(self):
            path, error = cell(explanation.prediction.path), explanation.prediction.error
            if not number:
                table.writerow(
                    ["path", "label", "probability", "kind", "rank", "image", "image_label", "value", "error"]
                )
            if error:
                table.writerow([path, *[""] * 7, cell(error)])
            for label, probability, kind, rank, image in explanation.rows():
                about = [cell(label), _shown(probability), kind, rank]
                table.writerow([path, *about, cell(image.path), cell(image.label), f"{image.value:.6g}", ""])
            sys.stdout.flush()


class _Table:
    """Predictions that are in a file.

    Args:
        written: the file, and what is in it.
    """

    def __init__(self, written: WrittenPredictions) -> None:
        self.written = written

    def print_rows(self) -> None:
        """Print what was done."""
        click.echo(str(self.written))

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return self.written.as_dict()

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes, and how many images failed, if some did."""
        done = self.written
        some = f"{done.failed:,} of {done.images:,} images failed; the column error has the reasons"
        return (*done.notes, *([some] if 0 < done.failed < done.images else []))

    @property
    def fault(self) -> str:
        """Why there are no predictions, if there are none."""
        done = self.written
        return all_failed(done.images, done.last_error) if done.failed == done.images else ""


def _shown(probability: float | None) -> str:
    return f"{probability:.6f}" if probability is not None else ""


def _explanations(
    model: Model, images: Iterable[str], count: int, features: str | None, sheet: Callable[[list[Any]], Path] | None,
    reporter: Reporter, **options: Any,
) -> _Explanations:  # fmt: skip
    """The explanations of a head's predictions, with a note where the head has neighbours only."""
    from featx.heads.influence import has_influence
    from featx.inference import HeadOnBackbone
    from featx.retrieval.explanation import iter_explanations

    made = iter_explanations(model, images, count=count, features=features, reporter=reporter, **options)
    remarks = []
    if isinstance(model, HeadOnBackbone) and not has_influence(model.head):
        kind = model.head.kind if model.head.kernel == "linear" else f"{model.head.kind} --kernel {model.head.kernel}"
        remarks = [
            f"influences are of heads of the kinds ridge, logreg and linear svm; this head, {kind}, has neighbours only"
        ]
    return _Explanations(
        made,
        key="predictions",
        failure=lambda each: (each.prediction.path, each.prediction.error),
        remarks=remarks,
        sheet=sheet,
    )


def _sheet(
    path: str, model: Model, features: str | None, images: Sequence[str], *, inputs: Sequence[str]
) -> Callable[[list[Any]], Path] | None:
    """A function that writes the contact sheet of explanations, once it is known that it can be written."""
    from featx.heads.own_features import fitted_files
    from featx.inference import HeadOnBackbone
    from featx.io.outputs import SHEET, Output, require_outputs
    from featx.retrieval.sheet import write_explanation_sheet

    own = [str(each) for each in fitted_files(model.head)] if isinstance(model, HeadOnBackbone) else []
    file = features or (own[0] if own else "")
    if not file:
        return None  # the explanation has its own error
    require_outputs([Output(Path(path), SHEET, named=True)], [file, *inputs])
    return lambda explanations: write_explanation_sheet(path, explanations, file, images=images)


@click.command(
    "predict", cls=JobCommand, stream=methodcaller("print_rows"), show=show_nothing, progress=("predict", "images"),
    fault=attrgetter("fault"),
    short_help="Classify images.",
    examples=(
        "featx predict models/photos--resnet50--logreg.safetensors new.jpg more/ --top 3",
        "featx predict models/photos--resnet50--logreg.safetensors new.csv -o predictions.parquet",
        "featx predict models/photos--resnet50--logreg.safetensors new.jpg --explain 5 --sheet why.html",
        "find more -name '*.jpg' | featx predict models/photos--resnet50--logreg.safetensors -",
    ),
)  # fmt: skip
@click.argument("words", nargs=-1, metavar="[MODEL] IMAGES...")
@data_options(only=IMAGE_OPTIONS)
@option(
    "-o", "--out", section="Output", metavar="FILE",
    needs=without_option("explain", "--explain, which prints training images"), show_default="CSV on standard output",
    help="Table to write, a row for each image: .csv, .jsonl or .parquet. An interrupted run goes on where it stopped.",
)  # fmt: skip
@option(
    "--top", type=COUNT, default=1, show_default=True, section="Output", metavar="N",
    needs=without_option("explain", "--explain, which prints training images"),
    help="Number of classes for each image.",
)  # fmt: skip
@option(
    "--probabilities", is_flag=True, section="Output", needs=with_option("out", "-o"),
    help="Write the probability of each class or label, too, in a column p_CLASS.",
)  # fmt: skip
@option(
    "--restart", is_flag=True, section="Output", needs=with_option("out", "-o"),
    help="Start anew, whatever an interrupted run has left of the table.",
)  # fmt: skip
@option(
    "--explain", type=COUNT, section="Output", needs=ALWAYS, metavar="N",
    help="Print the training images that each prediction rests on instead: the N nearest ones, and the N with the largest "
    "influence for and against it.",
)  # fmt: skip
@option(
    "--features", section="Advanced", needs=with_option("explain", "--explain"), metavar="FILE",
    show_default="the file that the head was fitted to", help="Feature file that has the training images.",
)  # fmt: skip
@contact_sheet(with_option("explain", "--explain"))
@needing(CHECKED, cache_folder("Advanced", or_url="of which the copies on this machine are used"))
@needing(CHECKED, MODELS_SOURCE)
@SOURCE_BACKBONE
@DEVICE
@WORKERS
def predict(
    reporter: Reporter, words: tuple[str, ...], out: str | None, top: int, probabilities: bool, restart: bool,
    explain: int | None, features: str | None, sheet: str | None, images: tuple[str, ...], cache: str, models: str,
    backbone: str | None, weights: str | None, device: str, workers: int | None, scan: ScanOptions,
) -> _Predictions | _Explanations | _Table:  # fmt: skip
    """Classify IMAGES with MODEL, a head or a promoted model; by default the newest in the models folder.

    IMAGES are image files, folders, tables with the column path, archives, shards, Parquet files, hf:// names, URLs, quoted
    patterns such as 'new/*.jpg', or - for a list of paths on standard input; for a head, feature files too, whose rows are
    predicted without images. A head takes the features of images that are in a feature file of the cache folder from there.

    The output is CSV, a row at a time as images are predicted: path, rank, label, probability, error. An image that cannot be
    decoded gets a row with the reason, and so does one whose prediction a head rejects; if every image fails, the exit status
    is 1. A multi-label head gives one row for each predicted label. A head of --conformal adds the column set, the classes of
    the prediction set with | between them, or for numbers lower and upper. An apostrophe before a cell that begins with = + -
    or @ keeps a spreadsheet from running it as a formula, and unprintable characters are escaped; --json prints every name
    unchanged.

    With -o FILE a table is written instead, with one row for each image and the further columns of the data: path, prediction,
    probability, error, key. A run that is interrupted, even killed, goes on where it stopped.

    With --explain the rows are training images: path, label, probability, kind (neighbour, supporting or opposing), rank,
    image, image_label, value, error. The value of a neighbour is its cosine; that of another image is what the log-odds of the
    label, or the number of a regression, would lose if the head had been fitted without it.
    """
    model, named = model_and_data(words, models, reporter, missing="IMAGES...")
    if model in words:
        refuse(models="with MODEL, which is a file of any folder")
    if out:
        _require_table(out, [model, *named])
    stage_of_import(reporter)
    reporter.stage(f"loading {model}")
    loaded = _loaded(model, named, scan, backbone=backbone, weights=weights, device=device)
    reading: dict[str, Any] = {"cache": cache, "workers": workers}
    if out:
        from featx.streaming.writing import write_predictions

        click.get_current_context().meta[RESUMABLE] = True
        return _Table(
            write_predictions(
                loaded, given_parts(named), out, top=top, probabilities=probabilities, options=scan, restart=restart,
                model_file=model, reporter=reporter, **reading,
            )
        )  # fmt: skip
    if explain:
        inputs = given_images(named, scan)
        page = _sheet(sheet, loaded, features, images, inputs=[model, *named]) if sheet else None
        return _explanations(loaded, inputs, explain, features, page, reporter, **reading)
    from featx.inference import columns_of_sets

    made = _predicted(loaded, named, scan, top=top, reporter=reporter, **reading)
    return _Predictions(
        made, key="predictions", failure=lambda each: (each.path, each.error), further=columns_of_sets(loaded)
    )


def _require_table(out: str, inputs: Sequence[str]) -> None:
    """Check that the table can be written, before anything is loaded that takes a while."""
    from featx.io.outputs import Output, require_outputs
    from featx.streaming.layout import PREDICTIONS

    require_outputs([Output(Path(out), PREDICTIONS, named=True)], inputs)


def _loaded(model: str, data: Sequence[str], scan: ScanOptions, *, backbone: str | None, **options: Any) -> Any:
    """The model; a head without its backbone if all data are feature files. Options without an effect are refused."""
    from featx.heads.head import Head
    from featx.inference import HeadOnBackbone, load_model, load_scorer
    from featx.io.file_kinds import is_feature_file

    if all(map(is_feature_file, data)):
        why = "with a feature file, which needs no image and no network"
        refuse(**dict.fromkeys(("explain", "cache", "backbone", "weights", "device", "workers"), why))
        refuse_data_options(scan, "with a feature file, whose data set was read already")
        loaded: Any = load_scorer(model)
    else:
        loaded = load_model(model, backbone=backbone, **options)
    head = loaded.head if isinstance(loaded, HeadOnBackbone) else loaded
    if not isinstance(head, Head):
        refuse(
            cache="with a promoted model, which uses no features",
            weights="with a promoted model, which holds its weights",
        )
    elif head.task_ == "regression":
        refuse(
            top="on a regression, which predicts one number", probabilities="on a regression, which predicts one number"
        )
    elif head.task_ == "multilabel" and click.get_current_context().params.get("out"):
        refuse(
            top="on a multi-label head with -o, which writes all predicted labels; --probabilities writes each one's"
        )
    return loaded


def _predicted(model: Any, data: Sequence[str], scan: ScanOptions, **options: Any) -> Iterator[Any]:
    """The predictions of images and of the rows of feature files, in the order in which they are given."""
    from featx.inference import iter_predictions
    from featx.io.file_kinds import is_feature_file

    for are_features, some in itertools.groupby(data, is_feature_file):
        if are_features:
            refuse_data_options(scan, "with a feature file, whose data set was read already")
            yield from iter_predictions(model, list(some), **options)
        else:
            yield from iter_predictions(model, given_images(list(some), scan), **options)
