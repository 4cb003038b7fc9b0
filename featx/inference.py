"""Inference with heads and promoted models: predictions for images, and evaluation on labelled ones."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import path_of
from featx.backbones.joint import JointBackbone
from featx.constants import CACHE
from featx.data.image_set import ImageSet
from featx.data.inputs import ImageInput, image_inputs
from featx.data.scan import scan_images
from featx.data.splits import hash_splits_of_readable
from featx.data.store import ImageFile
from featx.errors import DatasetError, HeadError, ImageError, SettingsError, system_errors
from featx.extraction.lookup import KnownFeatures, Network, iter_values
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import is_joint, joint_fields
from featx.features.label_changes import label_changes
from featx.heads.asked_groups import AskedGroups, default_split, group_rows, judge_head
from featx.heads.conformal import Conformal
from featx.heads.evaluation import notes_on_baseline, with_sets
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.on_features import values_of_features
from featx.heads.own_features import Named, features_in, files_for, in_groups, paths_in
from featx.heads.prediction import INTERVAL_COLUMNS, SET_COLUMN
from featx.heads.prediction import Prediction as Prediction
from featx.heads.prediction_table import (
    BY_HEAD,
    BY_MODEL,
    EACH_IMAGE,
    PredictedBy,
    Predictions,
    splits_in_use,
    write_predictions,
)
from featx.heads.targets import known_labels
from featx.io import model_file
from featx.io.file_kinds import is_feature_file
from featx.io.outputs import Output, require_outputs
from featx.metrics.classification import ClassificationReport
from featx.metrics.reports import Report
from featx.progress import shows_progress
from featx.promotion.assemble import backbone_of
from featx.promotion.head_on_backbone import HeadOnBackbone as HeadOnBackbone
from featx.promotion.head_on_backbone import known_features as known_features
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL
from featx.reporter import SILENT, Reporter
from featx.text import counted, portable

NOT_FINITE = "the model's scores for it are NaN or infinite"
"""Why an image has no prediction whose scores are no numbers."""

Model = HeadOnBackbone | PromotedModel
"""What predicts from pixels."""


@system_errors()
def load_model(
    path: str | os.PathLike[str], *, backbone: str | None = None, weights: str | None = None, device: str = "auto"
) -> Model:
    """Load a promoted model, or a head together with its backbone.

    Args:
        path: a file that ``fit-head`` or ``promote`` wrote.
        backbone: a replacement for the stored name of the backbone; needed if that is a Python file, since a stored path is
            never run.
        weights: a replacement for the stored weights of a head's backbone, if their file has moved.
        device: see ``load_backbone``.

    Raises:
        ModelNotFoundError, CorruptFileError: the file is missing or damaged.
        BackboneError, StaleCacheError: the backbone is not available, or gives other features than those of the head.

    Example:

        model = featx.load_model("models/digits--lenet5--logreg.safetensors", device="cpu")
        print(model.classes)
    """
    if model_file.read_metadata(Path(path_of(path, "the model")), HEAD, MODEL)["format"] == MODEL.format:
        return PromotedModel.load(path, backbone=backbone, device=device)
    return _with_backbone(Head.load(path), backbone=backbone, weights=weights, device=device)


def load_scorer(model: Head | Model | str | os.PathLike[str]) -> Head | PromotedModel:
    """A head without its backbone, which scores features; or a promoted model.

    Args:
        model: a head, a model, or a file of either.
    """
    if isinstance(model, HeadOnBackbone):
        return model.head
    if isinstance(model, Head | PromotedModel):
        return model
    path = Path(path_of(model, "the model"))
    is_promoted = model_file.read_metadata(path, HEAD, MODEL)["format"] == MODEL.format
    return PromotedModel.load(path) if is_promoted else Head.load(path)


@system_errors()
@shows_progress("predict", "images")
def predict(
    model: Head | Model | str | os.PathLike[str],
    images: Any,
    *,
    top: int = 1,
    cache: str | os.PathLike[str] | None = CACHE,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> list[Prediction]:
    """Predict images. One that cannot be read or decoded gets a prediction with an error, and the others go on.

    Args:
        model: a head, a model, or a file of either.
        images: one image or an iterable of images. An image is a path, an image of Pillow, an array (H, W) or (H, W, C), which
            is read as an ``.npy`` file with it, or the bytes of an image file. A path may also be a folder, whose images are
            taken in the order of their paths; a table with the column path; a pattern such as ``new/*.jpg``; or "digits", the
            built-in scans. An ``ImageSet`` stands for all its images. With a head, a feature set, the path of a feature file or
            a list of such paths stands for its rows: no image is read, and no network runs.
        top: number of classes to return for each image.
        cache: the folder of feature files. A head takes the features of images that are in one of them, or in the file that it
            was fitted to, found by the hash of the content, instead of computing them. None: nothing is looked up.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress, in images.

    Returns:
        One prediction for each image, in order. The path of an image in memory is "image 0", "image 1", ..., its place in
        the iterable.

    Raises:
        DatasetError: something that is no image, a folder without images, or a table that cannot be read.
        StaleCacheError: the head's backbone, as installed here, gives other features.

    Example:

        for prediction in featx.predict("model.safetensors", ["new.jpg", "folder/"], top=3):
            print(prediction.path, prediction.value, prediction.top, prediction.error)
    """
    return list(iter_predictions(model, images, top=top, cache=cache, workers=workers, reporter=reporter))


def iter_predictions(
    model: Head | Model | str | os.PathLike[str],
    images: Any,
    *,
    top: int = 1,
    cache: str | os.PathLike[str] | None = CACHE,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Prediction]:
    """Predict images as ``predict`` does, and yield each prediction as soon as it is made.

    The images may come from a generator of any length: only a few batches are read ahead.

    Yields:
        One prediction for each image, in order.

    Example:

        for prediction in featx.iter_predictions("model.safetensors", (frame for frame in camera)):
            print(prediction.value)
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise SettingsError(f"top is {top!r}; expected a whole number above 0")
    if isinstance(images, FeatureSet) or are_feature_files(images):
        yield from _predictions_of_features(model, images, top, reporter)
        return
    model = as_model(model)
    if isinstance(images, str | os.PathLike | list | tuple | ImageSet):  # they can be counted before any is predicted
        inputs: Iterable[ImageInput] = list(image_inputs(images))
    else:
        inputs = image_inputs(images)
    to_prediction = prediction_maker(model, min(top, len(model.classes)))
    for name, values, error in _predict_inputs(model, inputs, known_features(model, cache), workers, reporter):
        yield Prediction(name, error=error) if values is None else to_prediction(name, values)


def _predictions_of_features(
    model: Head | Model | str | os.PathLike[str], features: Any, top: int, reporter: Reporter
) -> Iterator[Prediction]:
    scorer = load_scorer(model)
    if isinstance(scorer, PromotedModel):
        raise HeadError("a promoted model predicts images, not features; give it the images")
    to_prediction = prediction_maker(scorer, min(top, len(scorer.names_)))
    files = features if isinstance(features, list | tuple) else [features]
    groups = [features] if isinstance(features, FeatureSet) else in_groups(scorer, files)
    found = itertools.chain.from_iterable(values_of_features(scorer, group, reporter) for group in groups)
    for name, values, error in found:
        fault = error or ("" if values is None or np.isfinite(values).all() else NOT_FINITE)
        yield Prediction(name, error=fault) if fault or values is None else to_prediction(name, values)


@system_errors()
@shows_progress("evaluate", "images")
def evaluate(
    model: Head | Model | str | os.PathLike[str],
    data: FeatureSet | ImageSet | Named,
    *,
    split: str | None = None,
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Report:
    """Evaluate a head or a promoted model on labelled images.

    By default on the split "test", or "val" if there is no test. A data set without splits is evaluated whole, unless the
    model was trained on some of its images: then only the 20 % that featx holds out by content are.

    Args:
        model: a head, a model, or a file of either.
        data: a feature set or feature file (for a head), an image set, or what ``scan_images`` takes. For a head on several
            backbones the feature file of each, in a list, or some of them: the others are looked for beside these.
        split: "train", "val", "test" or "all".
        group: the column of the data set's table that names groups; by default the one that the model was fitted with, if any.
            Intervals are by groups. For a model that was fitted without groups, the splits stay those of its fit.
        table: the table with that column, where it is not the one that the data set is.
        predictions: a .csv or .parquet file for the prediction, its probability and the probability of the label of each image.
        cache: the folder of feature files, for a head.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress, in images.

    Returns:
        The report for the model's task.

    Raises:
        HeadError: there are no images to evaluate on, their classes are unknown to the model, or the table lacks the groups.
        SettingsError: an argument has a wrong type, or a table is given and neither ``group`` nor the model names a column.
        StaleCacheError: the features are not those that the head was fitted to.
        OutputError: the predictions cannot be written.

    Example:

        report = featx.evaluate("models/digits--lenet5--logreg.safetensors", "digits")
        print(report.accuracy, report.interval)
    """
    several = isinstance(data, list | tuple)
    file = _checked_output(predictions, [model, *(data if several else [data]), table])  # type: ignore[misc]
    on_features = isinstance(data, FeatureSet) or are_feature_files(data)
    model, groups = load_scorer(model) if on_features else _loaded(model), AskedGroups(group, table)
    if isinstance(data, FeatureSet):
        if isinstance(model, PromotedModel):
            raise HeadError(
                "a promoted model is evaluated on images, not on features; give it the folder or table of images"
            )
        head = model.head if isinstance(model, HeadOnBackbone) else model
        head.require_identity(data)
        report, rows, outputs = judge_head(head, data, split, groups)
        if file:
            predicted = Predictions.of_one(rows, outputs, BY_HEAD)
            by = PredictedBy(head.task_, head.names_, head.decide, head.seen)
            write_predictions(file, splits_in_use(head, data), predicted, by)
        return report
    if on_features:
        assert not isinstance(data, ImageSet)
        if isinstance(model, PromotedModel):
            return evaluate(model, FeatureSet.load(paths_in(data)[0]))  # which has its own error
        scorer = model.head if isinstance(model, HeadOnBackbone) else model
        if not is_joint(getattr(scorer, "backbone_", {})):
            data = path_of(data, "data")
        files = files_for(scorer, data)
        report = evaluate(model, features_in(scorer, files), split=split, group=group, table=table, predictions=file)
        return report.with_notes([note for each in files for note in label_changes(each)])
    images = data if isinstance(data, ImageSet) else scan_images(path_of(data, "data"))
    if isinstance(model, PromotedModel):
        return _evaluate_promoted(model, images, split, groups, file, workers, reporter)
    if isinstance(model, Head):
        model = _with_backbone(model)
    groups.require_column(model.head.group_)  # before the images pass through the network
    features, notes = _extracted(images, model, cache, workers, reporter)
    report = evaluate(model, features, split=split, group=group, table=table, predictions=file)
    return report.with_notes(notes)


def are_feature_files(data: Any) -> bool:
    """Whether data are a feature file, or a list of nothing but feature files."""
    if isinstance(data, list | tuple):
        return bool(data) and all(map(are_feature_files, data))
    return isinstance(data, str | os.PathLike) and is_feature_file(data)


def _extracted(
    images: ImageSet, model: HeadOnBackbone, cache: str | os.PathLike[str], workers: int | None, reporter: Reporter
) -> tuple[FeatureSet, list[str]]:
    """The features of images that a head takes, extracted into the cache, and notes; of several backbones one file each."""
    if not isinstance(model.backbone, JointBackbone):
        extraction = extract(images, model.backbone, cache=cache, workers=workers, reporter=reporter)
        return extraction.load(model.head.layer_), [*extraction.notes, *_failure_notes(extraction.failures)]
    sets: list[FeatureSet] = []
    notes: list[str] = []
    failures: dict[str, str] = {}
    for part in model.backbone.parts:
        extraction = extract(images, part.backbone, cache=cache, workers=workers, reporter=reporter)
        sets.append(extraction.load(part.spec(model.backbone.views)))
        notes += extraction.notes
        failures = {**dict(extraction.failures), **failures}
    fields, remarks = joint_fields(sets)
    return FeatureSet(**fields), [*dict.fromkeys([*notes, *remarks]), *_failure_notes([*failures.items()])]


def _checked_output(path: str | os.PathLike[str] | None, inputs: Sequence[Any]) -> Path | None:
    """The file for the predictions, which can be written and is none of the inputs; None if none is asked for."""
    if path is None:
        return None
    file = Path(path_of(path, "predictions"))
    read = [each for each in inputs if isinstance(each, str | os.PathLike)]
    require_outputs([Output(file, EACH_IMAGE, named=True)], read)
    return file


def _evaluate_promoted(
    model: PromotedModel,
    images: ImageSet,
    split: str | None,
    groups: AskedGroups,
    predictions: Path | None,
    workers: int | None,
    reporter: Reporter,
) -> ClassificationReport:
    fitted_with = model.metadata["head"]["parameters"].get("group")
    groups.require_column(fitted_with)  # before the images are read
    rows, moved, remarks = group_rows(with_keys(images), groups, fitted_with, model.seen)
    split = split or default_split(rows, model.seen)
    remarks += [moved[split]] if split in moved else []
    rows = rows.split(split)
    labels = known_labels(rows.labels, rows.classes, model.classes, where=f"the split {split!r}")
    inputs = [ImageInput(str(path), ImageFile(images.store, str(path))) for path in rows.paths]
    outputs = list(_predict_inputs(model, inputs, None, workers, reporter))
    decoded = [row for row, (_, values, _) in enumerate(outputs) if values is not None]
    if not decoded:
        raise DatasetError(f"no image of split {split!r} in {images.root} could be decoded")
    failures = [(name, error) for name, _, error in outputs if error]
    probabilities = np.stack([values for _, values, _ in outputs if values is not None])
    notes = [*model.seen.notes(rows.keys[decoded], split=split), *_failure_notes(failures), *remarks]
    notes = [*images.notes, *notes]
    if predictions:
        by = PredictedBy("classification", model.classes, model.decide, model.seen)
        predicted = Predictions.of_one(np.array(decoded), probabilities, BY_MODEL)
        write_predictions(predictions, rows, predicted, by)
    kept = row_groups(rows, np.array(decoded))
    report = ClassificationReport.from_predictions(
        labels[decoded], probabilities, model.classes, split=split, reject_below=model.reject_below or None, groups=kept,
        commonest=model.commonest, notes=notes,
    )  # fmt: skip
    report = report.with_notes(notes_on_baseline(report))
    return with_sets(report, model.conformal_, labels[decoded], probabilities, kept)


def prediction_maker(model: Head | Model, top: int) -> Callable[[str, np.ndarray], Prediction]:
    """Return a function that turns a path and the (C,) outputs for it into a prediction with ``top`` classes."""
    scorer = model.head if isinstance(model, HeadOnBackbone) else model
    classes, conformal = model.names_ if isinstance(model, Head) else model.classes, conformal_of(model)

    def to_prediction(path: str, outputs: np.ndarray) -> Prediction:
        value = scorer.decide(outputs)
        if isinstance(value, float):
            ends = None if conformal is None else conformal.intervals(outputs[None])[0].tolist()
            return Prediction(path, value=value, interval=None if ends is None else (ends[0], ends[1]))
        count = max(top, len(value)) if isinstance(value, list) else top
        order = np.argsort(-outputs, kind="stable")[:count]
        members = None if conformal is None else tuple(classes[i] for i in conformal.members(outputs))
        return Prediction(path, tuple((classes[i], float(outputs[i])) for i in order), value=value, set=members)

    return to_prediction


def conformal_of(model: Head | Model) -> Conformal | None:
    """What the prediction sets of a head or model follow from, or None."""
    return model.head.conformal_ if isinstance(model, HeadOnBackbone) else model.conformal_


def columns_of_sets(model: Head | Model) -> tuple[str, ...]:
    """The names of the columns that tables of predictions have for prediction sets or intervals."""
    if conformal_of(model) is None:
        return ()
    head = model.head if isinstance(model, HeadOnBackbone) else model
    return INTERVAL_COLUMNS if isinstance(head, Head) and head.task_ == "regression" else (SET_COLUMN,)


def _predict_inputs(
    model: Model, inputs: Iterable[ImageInput], known: KnownFeatures | None, workers: int | None, reporter: Reporter
) -> Iterator[tuple[str, np.ndarray | None, str]]:
    """Yield for each image, in order, its name, its (C,) float64 outputs and "", or None and why it failed."""
    network = Network(model.transform, model.views, model.device.type, model.predict_values)
    if isinstance(model, HeadOnBackbone):
        head, features = model.head, model.features
        network = dataclasses.replace(
            network,
            compute_rest=lambda pixels, known: head.predict_values(features(pixels, known)),
            from_features=head.predict_values,
        )
    for image in iter_values(network, inputs, known=known, workers=workers, reporter=reporter):
        if image.values is not None and not np.isfinite(image.values).all():
            yield image.name, None, NOT_FINITE
        else:
            yield image.name, image.values, image.error


def with_keys(images: ImageSet) -> FeatureSet:
    """Return an image set with content keys and splits, as a feature set without features.

    Files that cannot be read get a key of zeros and, where splits are made here, the split "test"; the reader reports them
    later.
    """
    keys = np.zeros((len(images), 16), dtype=np.uint8)
    for row in range(len(images)):
        try:
            keys[row] = np.frombuffer(images.file(row).read().key, dtype=np.uint8)
        except ImageError:
            continue
    hashed = "" in images.splits
    splits = hash_splits_of_readable(keys, images.labels) if hashed else images.splits
    splits = np.where(splits == "", "test", splits) if hashed else splits  # an unreadable file takes no other's place
    no_features = np.empty((len(images), 0), dtype=np.float32)
    dataset: dict[str, Any] = {
        "name": images.name,
        "root": portable(images.root),
        "splits": "hash" if hashed else "given",
    }
    dataset |= {"table": portable(str(images.table))} if images.table else {}
    dataset |= {"options": images.options.as_dict()} if images.options.as_dict() else {}
    return FeatureSet(
        no_features, images.labels, splits, images.classes, images.paths, keys, dataset=dataset, columns=images.columns
    )


def _loaded(model: Any) -> Head | Model:
    """The model of an argument that is a head, a model, or a file of either."""
    return (
        model if isinstance(model, Head | HeadOnBackbone | PromotedModel) else load_model(path_of(model, "the model"))
    )


def as_model(model: Any) -> Model:
    """The model of an argument that is a head, a model, or a file of either; a head gets its backbone."""
    loaded = _loaded(model)
    return _with_backbone(loaded) if isinstance(loaded, Head) else loaded


def _with_backbone(
    head: Head, *, backbone: str | None = None, weights: str | None = None, device: str = "auto"
) -> HeadOnBackbone:
    return HeadOnBackbone(head, backbone_of(head, name=backbone, weights=weights, device=device))


def _failure_notes(failures: Sequence[tuple[str, str]]) -> list[str]:
    if not failures:
        return []
    path, error = failures[0]
    failed = counted(len(failures), "image could not be decoded and was", "images could not be decoded and were")
    return [f"{failed} not evaluated, {'the first ' if len(failures) > 1 else ''}{path}: {error}"]
