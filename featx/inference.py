"""Inference with heads and promoted models: predictions for images, and evaluation on labelled ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones.backbone import Backbone
from featx.constants import CACHE
from featx.data.image_set import UNLABELLED, ImageSet, image_key
from featx.data.loader import batched, default_batch_size, read_file, read_images, views_reader
from featx.data.scan import scan_images
from featx.data.sources.folder import list_images
from featx.data.splits import hash_splits
from featx.data.transform import Transform
from featx.errors import DatasetError, HeadError, ImageError
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.heads.evaluation import trained_on
from featx.heads.groups import match_groups
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.targets import known_labels
from featx.io import model_file
from featx.layer_spec import LayerSpec, View
from featx.metrics.classification import ClassificationReport
from featx.metrics.reports import Report
from featx.progress import shows_progress
from featx.promotion.assemble import backbone_of
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL
from featx.reporter import SILENT, Reporter
from featx.system import cores


@dataclass(frozen=True, eq=False)
class HeadOnBackbone:
    """A head together with the backbone that its features came from; it predicts from pixels, like a promoted model.

    Attributes:
        head: a fitted head.
        backbone: the backbone, in the views (test-time augmentation) of the head's features.

    Raises:
        StaleCacheError: the backbone gives other features than those that the head was fitted to.

    Example:

        model = HeadOnBackbone(featx.Head.load("head.safetensors"), featx.load_backbone("lenet5"))
        model.predict_values(np.zeros((1, 1, 3, 32, 32), dtype=np.uint8))  # (1, C) float64 probabilities
    """

    head: Head
    backbone: Backbone

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", self.backbone.with_views(LayerSpec.parse(self.head.layer_).views))
        self.head.require_same(
            self.backbone.identity_of(self.head.layer_),
            self.backbone.describe(),
            layers=tuple(self.backbone.layers),
            where=self.backbone.name,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes or labels."""
        return self.head.classes_

    @property
    def transform(self) -> Transform:
        """The transform from an image's pixels to the network's input."""
        return self.backbone.transform

    @property
    def views(self) -> tuple[View, ...]:
        """The V views (test-time augmentation) that the head averages its scores over."""
        return LayerSpec.parse(self.head.layer_).views

    @property
    def device(self) -> Any:
        """The torch device of the network."""
        return self.backbone.device

    def predict_values(self, pixels: np.ndarray) -> np.ndarray:
        """Predict from pixels.

        Args:
            pixels: (B, V, 3, H, W) uint8, each image in all ``views``.

        Returns:
            (B, C) float64: probabilities of classes or labels, or the values of a regression.
        """
        return self.head.predict_values(self.backbone.encode_at(pixels, self.head.layer_))


Model = HeadOnBackbone | PromotedModel
"""What predicts from pixels."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: the image's path, as it was given, or as found in a given folder.
        top: (class or label, probability), the most probable first; empty for failed images and for regression.
        error: why the image failed, otherwise "".
        value: the predicted class; for multilabel the list of predicted labels; for regression the number. None if the image
            failed, or if the probability of the most probable class is too low (the head rejects).

    Examples:
        >>> prediction = Prediction("a.jpg", (("ant", 0.9), ("bee", 0.1)), value="ant")
        >>> prediction.rows()
        [('ant', 0.9, ''), ('bee', 0.1, '')]
        >>> Prediction("b.jpg", (("ant", 0.55), ("bee", 0.45))).as_dict()["rejected"]
        True
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""
    value: Any = None

    def rows(self) -> list[tuple[str, float | None, str]]:
        """Return the prediction as rows of a table: (label or number, probability or None, why there is no label or "").

        A classification has a row for each class in ``top``, a multilabel prediction one for each predicted label, and a failed
        image none.
        """
        if self.error:
            return []
        if isinstance(self.value, float):
            return [(f"{self.value:.6g}", None, "")]
        if isinstance(self.value, list):
            return [(label, p, "") for label, p in self.top if label in self.value] or [("", None, "")]
        if self.value is None:
            label, p = self.top[0]
            return [("", p, f"rejected: the most probable class, {label}, is not probable enough")]
        return [(label, p, "") for label, p in self.top]

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as ``featx predict --json`` prints it."""
        if self.error:
            return {"path": self.path, "error": self.error}
        if isinstance(self.value, float):
            return {"path": self.path, "value": self.value}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        if isinstance(self.value, list):
            return {"path": self.path, "labels": self.value, "top": top}
        rejected = {} if self.value is not None else {"rejected": True}
        return {"path": self.path, **top[0], "label": self.value, **rejected, "top": top}


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
    if model_file.read_metadata(Path(path), HEAD, MODEL)["format"] == MODEL.format:
        return PromotedModel.load(path, backbone=backbone, device=device)
    return _with_backbone(Head.load(path), backbone=backbone, weights=weights, device=device)


@shows_progress("predict", "images")
def predict(
    model: Head | Model | str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]],
    *,
    top: int = 1,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> list[Prediction]:
    """Predict image files. An image that cannot be read or decoded gets a prediction with an error, and the others go on.

    Args:
        model: a head, a model, or a file of either.
        images: files, and folders whose images are taken in order of their paths.
        top: number of classes to return for each image.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress, in images.

    Returns:
        One prediction for each image, in order.

    Raises:
        DatasetError: a folder contains no images.
        StaleCacheError: the head's backbone, as installed here, gives other features.

    Example:

        for prediction in featx.predict("model.safetensors", ["new.jpg", "folder/"], top=3):
            print(prediction.path, prediction.value, prediction.top, prediction.error)
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    if isinstance(model, Head):
        model = _with_backbone(model)
    files = [file for path in map(Path, images) for file in _image_files(path)]
    to_prediction = _to_prediction(model, min(top, len(model.classes)))
    outputs = _predict_files(model, files, workers, reporter)
    return [
        Prediction(str(file), error=error) if values is None else to_prediction(str(file), values)
        for file, (values, error) in zip(files, outputs, strict=True)
    ]


@shows_progress("evaluate", "images")
def evaluate(
    model: Head | Model | str | os.PathLike[str],
    data: FeatureSet | ImageSet | str | os.PathLike[str],
    *,
    split: str | None = None,
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
        data: a feature set (for a head), an image set, or what ``scan_images`` takes.
        split: "train", "val", "test" or "all".
        cache: the folder of feature files, for a head.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress, in images.

    Returns:
        The report for the model's task.

    Raises:
        HeadError: there are no images to evaluate on, or their classes are unknown to the model.
        StaleCacheError: the features are not those that the head was fitted to.

    Example:

        report = featx.evaluate("models/digits--lenet5--logreg.safetensors", "digits")
        print(report.accuracy, report.interval)
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    if isinstance(data, FeatureSet):
        if isinstance(model, PromotedModel):
            raise HeadError(
                "a promoted model is evaluated on images, not on features; give it the folder or table of images"
            )
        head = model.head if isinstance(model, HeadOnBackbone) else model
        head.require_identity(data)
        data = match_groups(data, head.group_)
        return head.evaluate(data, split=split or _default_split(data, head.train_keys_))
    images = data if isinstance(data, ImageSet) else scan_images(data)
    if isinstance(model, PromotedModel):
        return _evaluate_promoted(model, images, split, workers, reporter)
    if isinstance(model, Head):
        model = _with_backbone(model)
    extraction = extract(images, model.backbone, cache=cache, workers=workers, reporter=reporter)
    report = evaluate(model, extraction.load(model.head.layer_), split=split)
    return report.with_notes(_failure_notes(extraction.failures))


def _evaluate_promoted(
    model: PromotedModel, images: ImageSet, split: str | None, workers: int | None, reporter: Reporter
) -> ClassificationReport:
    rows = _with_keys(images)
    split = split or _default_split(rows, model.train_keys)
    rows = rows.split(split)
    labels = known_labels(rows.labels, rows.classes, model.classes, where=f"the split {split!r}")
    files = [images.root / str(path) for path in rows.paths]
    outputs = list(_predict_files(model, files, workers, reporter))
    decoded = [row for row, (values, _) in enumerate(outputs) if values is not None]
    if not decoded:
        raise DatasetError(f"none of the {len(files)} images of split {split!r} in {images.root} could be decoded")
    failures = [(str(rows.paths[row]), error) for row, (_, error) in enumerate(outputs) if error]
    probabilities = np.stack([values for values, _ in outputs if values is not None])
    notes = [*trained_on(rows.keys[decoded], model.train_keys, split=split), *_failure_notes(failures)]
    return ClassificationReport.from_predictions(
        labels[decoded], probabilities, model.classes, split=split, reject_below=model.reject_below, notes=notes
    )


def _to_prediction(model: Model, top: int) -> Callable[[str, np.ndarray], Prediction]:
    """Return a function that turns a path and the (C,) outputs for it into a prediction."""
    decide = model.head.decide if isinstance(model, HeadOnBackbone) else model.decide

    def to_prediction(path: str, outputs: np.ndarray) -> Prediction:
        value = decide(outputs)
        if isinstance(value, float):
            return Prediction(path, value=value)
        count = max(top, len(value)) if isinstance(value, list) else top
        order = np.argsort(-outputs, kind="stable")[:count]
        return Prediction(path, tuple((model.classes[i], float(outputs[i])) for i in order), value=value)

    return to_prediction


def _image_files(path: Path) -> list[Path]:
    """Return the images of a folder, or the file itself."""
    is_folder = os.path.isdir(path)  # noqa: PTH112 - in a folder that may not be searched, Path.is_dir raises
    return list_images(path) if is_folder else [path]


def _predict_files(
    model: Model, files: Sequence[Path], workers: int | None, reporter: Reporter
) -> Iterator[tuple[np.ndarray | None, str]]:
    """Yield for each file, in order, its (C,) float64 outputs and "", or None and why it failed."""
    reader = read_images(enumerate(files), views_reader(model.transform, model.views), workers=workers or cores())
    done = 0
    for batch in batched(reader, max(1, default_batch_size(model.device.type) // len(model.views))):
        pixels = [image.pixels for image in batch if image.pixels is not None]
        outputs = iter(model.predict_values(np.stack(pixels)) if pixels else ())
        for image in batch:
            values = None if image.pixels is None else next(outputs)
            if values is not None and not np.isfinite(values).all():
                yield None, "the model's scores for it are NaN or infinite"
            else:
                yield values, image.error
        done += len(batch)
        reporter.progress(done, len(files))


def _with_keys(images: ImageSet) -> FeatureSet:
    """Return an image set with content keys and splits, as a feature set without features.

    Files that cannot be read get a key of zeros; the reader reports them later.
    """
    keys = np.zeros((len(images), 16), dtype=np.uint8)
    for row in range(len(images)):
        try:
            keys[row] = np.frombuffer(image_key(read_file(images.absolute(row)).data), dtype=np.uint8)
        except ImageError:
            continue
    hashed = "" in images.splits
    splits = hash_splits(keys, images.labels).astype(object) if hashed else images.splits
    no_features = np.empty((len(images), 0), dtype=np.float32)
    dataset = {"name": images.name, "root": str(images.root), "splits": "hash" if hashed else "given"}
    return FeatureSet(no_features, images.labels, splits, images.classes, images.paths, keys, dataset=dataset)


def _default_split(rows: FeatureSet, train_keys: np.ndarray) -> str:
    """Choose the split to evaluate on: see ``evaluate``."""
    if rows.dataset.get("splits") == "given":
        return rows.held_out()
    labelled = rows.keys[rows.labels != UNLABELLED]
    return rows.held_out() if trained_on(labelled, train_keys, split="all") else "all"


def _with_backbone(
    head: Head, *, backbone: str | None = None, weights: str | None = None, device: str = "auto"
) -> HeadOnBackbone:
    return HeadOnBackbone(head, backbone_of(head, name=backbone, weights=weights, device=device))


def _failure_notes(failures: Sequence[tuple[str, str]]) -> list[str]:
    if not failures:
        return []
    path, error = failures[0]
    return [f"{len(failures)} images could not be decoded and were not evaluated, the first {path}: {error}"]
