"""Heads and promoted models at work on images: predictions and honest evaluations, for both alike."""

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
from featx.extraction.extraction import extract
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
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL
from featx.promotion.promotion import backbone_of
from featx.reporter import SILENT, Reporter
from featx.system import cores


@dataclass(frozen=True, eq=False)
class HeadOnBackbone:
    """A head with the backbone that its features came from, side by side; classifies pixels as a promoted model does.

    Attributes:
        head: fitted.
        backbone: of the head's identity; another is a StaleCacheError.
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
        """(C,) names."""
        return self.head.classes_

    @property
    def transform(self) -> Transform:
        """From an image's pixels to the network's input."""
        return self.backbone.transform

    @property
    def views(self) -> tuple[View, ...]:
        """In which each image is seen."""
        return LayerSpec.parse(self.head.layer_).views

    @property
    def device(self) -> Any:
        """Where the network is."""
        return self.backbone.device

    def predict_values(self, pixels: np.ndarray) -> np.ndarray:
        """(B, V, 3, H, W) uint8, each image in ``views``, to (B, C) float64: probabilities, or the numbers of a regression."""
        return self.head.predict_values(self.backbone.encode_at(pixels, self.head.layer_))


Model = HeadOnBackbone | PromotedModel


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        path: as it was given, or found in a given folder.
        top: (class or label, probability), the most probable first; empty where the image failed, and for numbers.
        error: why it failed, else "".
        value: the class; the labels; the number; None where the most probable class is not probable enough.
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""
    value: Any = None

    def rows(self) -> list[tuple[str, float | None, str]]:
        """(what is said, its probability, why nothing is said), as a table has them."""
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
        """As ``featx predict --json`` prints it."""
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
    """Read a head (and make its backbone again) or a promoted model.

    Args:
        path: what ``fit-head`` or ``promote`` wrote.
        backbone: instead of the stored name; needed for a file of code, since a stored path is never run.
        weights: instead of a head's stored weights, where the file has moved.
        device: as ``load_backbone``.

    Raises:
        ModelNotFoundError, CorruptFileError: no such file, or not a sound one.
        BackboneError, StaleCacheError: the backbone cannot be made, or is another than the head's.
    """
    if model_file.read_metadata(Path(path), HEAD, MODEL)["format"] == MODEL.format:
        return PromotedModel.load(path, backbone=backbone, device=device)
    return _on_backbone(Head.load(path), backbone=backbone, weights=weights, device=device)


def predict(
    model: Head | Model | str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]],
    *,
    top: int = 1,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> list[Prediction]:
    """Classify image files; a bad one gets a row that says why, and does not stop the rest.

    Args:
        model: a head, a model, or a file of either.
        images: files, and folders whose images are taken in order of their paths.
        top: how many classes to give for each.
        workers: threads that read and decode.
        reporter: gets the progress, in images.

    Raises:
        DatasetError: a folder without images.
        StaleCacheError: a head whose backbone, as it is here, gives other features.
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    if isinstance(model, Head):
        model = _on_backbone(model)
    files = [file for path in map(Path, images) for file in _images_of(path)]
    describe = _describer(model, min(top, len(model.classes)))
    return [
        Prediction(str(file), error=error) if p is None else describe(str(file), p)
        for file, (p, error) in zip(files, _classify(model, files, workers, reporter), strict=True)
    ]


def evaluate(
    model: Head | Model | str | os.PathLike[str],
    data: FeatureSet | ImageSet | str | os.PathLike[str],
    *,
    split: str | None = None,
    cache: str | os.PathLike[str] = CACHE,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Report:
    """Judge a head or a promoted model on labelled images.

    Which images: the split that is asked for; else "test", or "val" where there is no test. A data set that names no splits
    is judged whole, unless the model was trained on some of it: then on the 20 % that featx holds out by content.

    Args:
        model: a head, a model, or a file of either.
        data: a feature set (for a head), an image set, or what ``scan_images`` takes.
        split: "train", "val", "test" or "all".
        cache: the folder where a head's features of the data are looked up and kept.
        workers: threads that read and decode.
        reporter: gets the progress, in images.

    Raises:
        HeadError: no images to judge by, or classes that the model does not know.
        StaleCacheError: features of another identity than the head's.
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    if isinstance(data, FeatureSet):
        if isinstance(model, PromotedModel):
            raise HeadError("a promoted model is judged on images, not on features; give it the folder or table")
        head = model.head if isinstance(model, HeadOnBackbone) else model
        head.require_identity(data)
        data = match_groups(data, head.group_)
        return head.evaluate(data, split=split or _default_split(data, head.train_keys_))
    images = data if isinstance(data, ImageSet) else scan_images(data)
    if isinstance(model, PromotedModel):
        return _evaluate_promoted(model, images, split, workers, reporter)
    if isinstance(model, Head):
        model = _on_backbone(model)
    extraction = extract(images, model.backbone, cache=cache, workers=workers, reporter=reporter)
    report = evaluate(model, extraction.load(model.head.layer_), split=split)
    return report.with_notes(_failures(extraction.failures))


def _evaluate_promoted(
    model: PromotedModel, images: ImageSet, split: str | None, workers: int | None, reporter: Reporter
) -> ClassificationReport:
    rows = _keyed(images)
    split = split or _default_split(rows, model.train_keys)
    rows = rows.split(split)
    labels = known_labels(rows.labels, rows.classes, model.classes, where=f"the split {split!r}")
    files = [images.root / str(path) for path in rows.paths]
    judged = list(_classify(model, files, workers, reporter))
    good = [row for row, (p, _) in enumerate(judged) if p is not None]
    if not good:
        raise DatasetError(f"none of the {len(files)} images of split {split!r} in {images.root} could be decoded")
    failed = [(str(rows.paths[row]), error) for row, (_, error) in enumerate(judged) if error]
    probabilities = np.stack([p for p, _ in judged if p is not None])
    notes = [*trained_on(rows.keys[good], model.train_keys, split=split), *_failures(failed)]
    return ClassificationReport.from_predictions(
        labels[good], probabilities, model.classes, split=split, reject_below=model.reject_below, notes=notes
    )


def _describer(model: Model, top: int) -> Callable[[str, np.ndarray], Prediction]:
    """From a path and (C,) outputs to a prediction."""
    judge = model.head if isinstance(model, HeadOnBackbone) else model

    def describe(path: str, p: np.ndarray) -> Prediction:
        what = judge.decide(p)
        if isinstance(what, float):
            return Prediction(path, value=what)
        count = max(top, len(what)) if isinstance(what, list) else top
        best = np.argsort(-p, kind="stable")[:count]
        return Prediction(path, tuple((model.classes[i], float(p[i])) for i in best), value=what)

    return describe


def _images_of(path: Path) -> list[Path]:
    is_folder = os.path.isdir(path)  # noqa: PTH112 - in a folder that may not be searched, Path.is_dir raises
    return list_images(path) if is_folder else [path]


def _classify(
    model: Model, files: Sequence[Path], workers: int | None, reporter: Reporter
) -> Iterator[tuple[np.ndarray | None, str]]:
    """For each file, in order: (C,) probabilities, or None and why it failed."""
    reader = read_images(enumerate(files), views_reader(model.transform, model.views), workers=workers or cores())
    done = 0
    for batch in batched(reader, max(1, default_batch_size(model.device.type) // len(model.views))):
        pixels = [image.pixels for image in batch if image.pixels is not None]
        found = iter(model.predict_values(np.stack(pixels)) if pixels else ())
        for image in batch:
            p = None if image.pixels is None else next(found)
            finite = p is None or bool(np.isfinite(p).all())
            yield (p, image.error) if finite else (None, "the model's scores of it are NaN or infinite")
        done += len(batch)
        reporter.progress(done, len(files))


def _keyed(images: ImageSet) -> FeatureSet:
    """An image set with keys and splits, and no features; files that cannot be read are left for the reader to report."""
    keys = np.zeros((len(images), 16), dtype=np.uint8)
    for row in range(len(images)):
        try:
            keys[row] = np.frombuffer(image_key(read_file(images.absolute(row)).data), dtype=np.uint8)
        except ImageError:
            continue
    hashed = "" in images.splits
    splits = hash_splits(keys, images.labels).astype(object) if hashed else images.splits
    nothing = np.empty((len(images), 0), dtype=np.float32)
    dataset = {"name": images.name, "root": str(images.root), "splits": "hash" if hashed else "given"}
    return FeatureSet(nothing, images.labels, splits, images.classes, images.paths, keys, dataset=dataset)


def _default_split(rows: FeatureSet, train_keys: np.ndarray) -> str:
    if rows.dataset.get("splits") == "given":
        return rows.held_out()
    labelled = rows.keys[rows.labels != UNLABELLED]
    return rows.held_out() if trained_on(labelled, train_keys, split="all") else "all"


def _on_backbone(
    head: Head, *, backbone: str | None = None, weights: str | None = None, device: str = "auto"
) -> HeadOnBackbone:
    return HeadOnBackbone(head, backbone_of(head, name=backbone, weights=weights, device=device))


def _failures(failed: Sequence[tuple[str, str]]) -> list[str]:
    if not failed:
        return []
    return [f"{len(failed)} images could not be decoded and were not judged, the first {failed[0][0]}: {failed[0][1]}"]
