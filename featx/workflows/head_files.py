"""The files of a head: its own, its pictures, its page, and its predictions for images without a label."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.arguments import path_of
from featx.data.columns import beside
from featx.data.image_set import UNLABELLED
from featx.features.feature_set import FeatureSet
from featx.features.image_store import image_places
from featx.heads.estimators.bilinear import COMPONENTS
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.prediction_table import EACH_IMAGE, PredictedBy, predict_each, write_predictions
from featx.io.outputs import CONFUSION, FEW_SHOT_CURVE, PAGE, Output, require_outputs, write_output
from featx.io.tables import table_kind
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.text import cell

HIDDEN_UNITS = 512
"""Width of the hidden layer of an mlp head, as ``heads.estimators.mlp.MlpEstimator`` has it; importing that imports torch."""


PREDICTION_COLUMNS = ("path", "label", "probability")
"""The columns of the table of predictions for images without a label; the further columns of the data set follow."""

PREDICTIONS = table_kind("table of predictions", PREDICTION_COLUMNS, more=("",))
"""That table, as an output."""


@dataclass(frozen=True)
class HeadFiles:
    """The files that a fit writes.

    Attributes:
        path: the head.
        named: whether the user named it.
        each_image: the table of predictions for each labelled image, or None.
    """

    path: Path
    named: bool = False
    each_image: Path | None = None

    @classmethod
    def of(cls, path: Path, *, named: bool, predictions: str | os.PathLike[str] | None) -> HeadFiles:
        """The files beside a head; ``predictions`` is the table that the user named, if any."""
        return cls(path, named, None if predictions is None else Path(path_of(predictions, "predictions")))

    @property
    def picture(self) -> Path:
        """The confusion matrix."""
        return self.path.with_suffix(".png")

    @property
    def page(self) -> Path:
        """The HTML page about the head."""
        return self.path.with_suffix(".html")

    @property
    def curve(self) -> Path:
        """The few-shot curve."""
        return self.path.with_name(f"{self.path.stem}--shots.png")

    @property
    def predictions(self) -> Path:
        """The table of predictions for images without a label."""
        return self.path.with_name(f"{self.path.stem}--unlabelled.csv")

    @classmethod
    def require_named(cls, out: str | os.PathLike[str] | None, inputs: Sequence[str | os.PathLike[str]]) -> None:
        """Refuse a head file that was named and could not be written, before anything is read; nothing is done without one.

        Raises:
            OutputError: as of ``require_writable``.
        """
        if out:
            cls(Path(out), named=True).require_writable(inputs=inputs)

    def require_writable(
        self,
        size: int = 0,
        *,
        inputs: Sequence[str | os.PathLike[str]] = (),
        features: FeatureSet | None = None,
    ) -> None:
        """Refuse, before the fit, files that could not be written, or that would take the place of others.

        Args:
            size: bytes of the head's file, roughly.
            inputs: the files that the fit reads.
            features: the features, once they are loaded; none of their images is overwritten.

        Raises:
            OutputError: a file cannot be written, is an input, or is there and not of its kind.
        """
        outputs = [
            Output(self.path, HEAD.kind, size, named=self.named),
            Output(self.picture, CONFUSION),
            Output(self.page, PAGE),
            Output(self.curve, FEW_SHOT_CURVE),
            Output(self.predictions, PREDICTIONS),
        ]
        outputs += [Output(self.each_image, EACH_IMAGE, named=True)] if self.each_image else []
        images = image_places(features)
        require_outputs(outputs, inputs, images=images)

    def write_predictions(self, features: FeatureSet, head: Head) -> Path | None:
        """Write what a fitted head predicts for the images without a label as CSV; None where there are none."""
        rows = np.flatnonzero(features.labels == UNLABELLED)
        if not len(rows):
            return None
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        further = beside(features.columns, PREDICTION_COLUMNS)
        writer.writerow([*PREDICTION_COLUMNS, *map(cell, further)])
        for row, outputs in zip(rows.tolist(), head.predict_rows(features, rows), strict=True):
            label, probability = _prediction_cells(head, outputs)
            about = [cell(cells[row]) for cells in further.values()]
            writer.writerow(
                [cell(features.paths[row]), label if head.task_ == "regression" else cell(label), probability, *about]
            )
        write_output(self.predictions, text.getvalue().encode("utf-8", "surrogateescape"), PREDICTIONS)
        return self.predictions

    def write_each_image(self, split: FeatureSet, head: Head) -> Path | None:
        """Write what is predicted for each labelled image of a set, in the splits of the head; None if it is not asked for."""
        if self.each_image is None:
            return None
        predicted = predict_each(head, split, split.rows("train"))
        by = PredictedBy(head.task_, head.names_, head.decide, head.seen)
        return write_predictions(self.each_image, split, predicted, by)

    def write_picture(self, report: Report | None, subject: str) -> Path | None:
        """Draw the confusion matrix of a classification; None for another task."""
        from featx.report import plots  # it imports matplotlib

        if not isinstance(report, ClassificationReport):
            return None
        plots.save_png(plots.confusion_figure(report, subject=subject), self.picture, CONFUSION, dpi=120)
        return self.picture

    def write_curve(self, shots: Sequence[tuple[int, CrossValidated]], subject: str) -> Path | None:
        """Draw accuracy against the number of images of each class; None without any."""
        from featx.report import plots  # it imports matplotlib

        if not shots:
            return None
        points = [(n, result.mean("accuracy"), result.deviation("accuracy")) for n, result in shots]
        plots.save_png(plots.shots_figure(points, subject=subject), self.curve, FEW_SHOT_CURVE)
        return self.curve


def head_size(features: FeatureSet, head: Head) -> int:
    """The bytes of a head's file before its fit, roughly: heads of neighbours and kernels store at most all training rows."""
    rows = int(np.count_nonzero((features.splits == "train") & (features.labels >= 0)))
    width, count = features.width, len(features.classes)
    stores_rows = head.kind == "knn" or head.kernel == "rbf"
    predictor = rows * features.views * (4 * width + 8 * count) if stores_rows else 8 * count * width
    if head.kind == "bilinear":
        predictor += 8 * COMPONENTS * (width + count * COMPONENTS)
    if head.kind == "mlp":
        predictor = HIDDEN_UNITS * (4 * width + 8 * count)
    return predictor + 16 * (width + rows)


def _prediction_cells(head: Head, outputs: np.ndarray) -> tuple[str, str]:
    """The label and the probability of one image, from its (C,) outputs."""
    if not np.isfinite(outputs).all():
        return "", ""
    predicted = head.decide(outputs)
    if isinstance(predicted, float):
        return f"{predicted:.6g}", ""
    if isinstance(predicted, list):
        probabilities = " ".join(f"{outputs[head.names_.index(name)]:.6f}" for name in predicted)
        return "|".join(predicted) or "|", probabilities
    return predicted or "", f"{outputs.max():.6f}"
