"""Which training images a prediction rests on: the nearest ones, and those without which it would differ most."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from featx.constants import CACHE
from featx.data.image_set import ImageSet
from featx.data.inputs import ImageInput, image_inputs
from featx.errors import HeadError, SettingsError, system_errors
from featx.extraction.lookup import Network, iter_values
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.influence import LeaveOneOut, has_influence
from featx.heads.own_features import Named
from featx.inference import (
    NOT_FINITE,
    HeadOnBackbone,
    Model,
    Prediction,
    as_model,
    known_features,
    prediction_maker,
)
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.retrieval.cosine_index import CosineIndex
from featx.retrieval.training_images import TrainingImages, training_images

NEIGHBOUR, SUPPORTING, OPPOSING = "neighbour", "supporting", "opposing"
"""What a training image is to a prediction."""


@dataclass(frozen=True)
class TrainingImage:
    """A training image, as part of an explanation.

    Attributes:
        path: relative to the data set's root.
        label: its label in the data set.
        value: the cosine of a neighbour, or the influence of an image.
    """

    path: str
    label: str
    value: float


@dataclass(frozen=True)
class Influence:
    """The training images with the largest influence on one part of a prediction.

    The influence of an image is what the score would lose without it: the log-odds log(p / (1 - p)) of the class or label, or
    the number of a regression.

    Attributes:
        label: the class or label whose score it is; "value" for a regression.
        probability: of the class or label; None for a regression.
        supporting: images with a positive influence, the largest first.
        opposing: images with a negative influence, the largest first.
    """

    label: str
    probability: float | None
    supporting: tuple[TrainingImage, ...]
    opposing: tuple[TrainingImage, ...]


@dataclass(frozen=True)
class Explanation:
    """A prediction, with the training images that it rests on.

    Attributes:
        prediction: of one image.
        neighbours: the training images nearest to it, by the cosine of the standardised features that the head sees.
        influences: one for the most probable class, for each predicted label (or the most probable one where none is
            predicted), or for the number; none for heads without influences, or if the image failed.

    Examples:
        >>> part = Influence("ant", 0.9, (TrainingImage("a.jpg", "ant", 0.2),), ())
        >>> explanation = Explanation(Prediction("x.jpg", (("ant", 0.9),), value="ant"), (), (part,))
        >>> explanation.rows()
        [('ant', 0.9, 'supporting', 1, TrainingImage(path='a.jpg', label='ant', value=0.2))]
    """

    prediction: Prediction
    neighbours: tuple[TrainingImage, ...] = ()
    influences: tuple[Influence, ...] = ()

    def rows(self) -> list[tuple[str, float | None, str, int, TrainingImage]]:
        """Return the explanation as rows of a table: (label, probability or None, kind, rank, training image).

        The label of a regression is the predicted number in all rows.
        """
        label, probability, _ = [*self.prediction.rows(), ("", None, "")][0]
        rows = [(label, probability, NEIGHBOUR, rank, image) for rank, image in enumerate(self.neighbours, start=1)]
        for part in self.influences:
            name = label if part.probability is None else part.label
            for kind, images in ((SUPPORTING, part.supporting), (OPPOSING, part.opposing)):
                rows += [(name, part.probability, kind, rank, image) for rank, image in enumerate(images, start=1)]
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as ``featx predict --explain --json`` prints it, with the key "explanation"."""
        facts = self.prediction.as_dict()
        if self.prediction.error:
            return facts

        def listed(images: Iterable[TrainingImage], name: str) -> list[dict[str, Any]]:
            return [{"path": image.path, "label": image.label, name: image.value} for image in images]

        influences = [
            {
                "label": part.label,
                "supporting": listed(part.supporting, "influence"),
                "opposing": listed(part.opposing, "influence"),
            }
            for part in self.influences
        ]
        return {**facts, "explanation": {"neighbours": listed(self.neighbours, "similarity"), "influences": influences}}


@system_errors()
@shows_progress("explain", "images")
def explain(
    model: Head | Model | str | os.PathLike[str],
    images: Any,
    *,
    count: int = 5,
    features: FeatureSet | Named | None = None,
    cache: str | os.PathLike[str] | None = CACHE,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> list[Explanation]:
    """Predict images, and find the training images that each prediction rests on.

    The influence of a training image is how much lower the score of the prediction would be if the head had been fitted without
    it, with the same hyper-parameter and calibration: in closed form for ridge heads, by one Newton step for logreg and linear
    svm heads. Other heads have neighbours only; those of a knn head are the images that vote.

    Args:
        model: a head, a head on its backbone, or a file of a head.
        images: as ``predict`` takes them.
        count: the number of neighbours, and of images with the largest influence in either direction.
        features: the feature set or file that has the training images; by default the file that the head was fitted to.
        cache: as for ``predict``.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr.
        reporter: receives the progress, in images.

    Returns:
        One explanation for each image, in order.

    Raises:
        HeadError: a promoted model, training images that are gone, or labels that have changed since the fit.
        StaleCacheError: features of another identity.
        DatasetError: as ``predict``.

    Example:

        for found in featx.explain("models/photos--resnet50--logreg.safetensors", ["new.jpg"]):
            print(found.prediction.value, found.neighbours[0].path, found.influences[0].supporting[0].path)
    """
    return list(
        iter_explanations(
            model, images, count=count, features=features, cache=cache, workers=workers, reporter=reporter
        )
    )


def iter_explanations(
    model: Head | Model | str | os.PathLike[str],
    images: Any,
    *,
    count: int = 5,
    features: FeatureSet | Named | None = None,
    cache: str | os.PathLike[str] | None = CACHE,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Explanation]:
    """Explain predictions as ``explain`` does, and yield each as soon as it is made.

    Yields:
        One explanation for each image, in order.

    Example:

        for found in featx.iter_explanations("models/photos--resnet50--logreg.safetensors", frames):
            print(found.as_dict())
    """
    loaded = as_model(model)
    if not isinstance(loaded, HeadOnBackbone):
        raise HeadError(
            "a promoted model is not explained by training images, since its network may have been fine-tuned; name the head"
        )
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise SettingsError(f"count is {count!r}; expected a whole number above 0")
    several = isinstance(images, str | os.PathLike | list | tuple | ImageSet)
    inputs: Iterable[ImageInput] = list(image_inputs(images)) if several else image_inputs(images)
    head = loaded.head
    reporter.stage("reading the features of the training images")
    explainer = _Explainer(head, training_images(head, features), count)
    if explainer.index.note:
        reporter.note(explainer.index.note)
    network = Network(
        loaded.transform,
        loaded.views,
        loaded.device.type,
        lambda pixels: _beside_outputs(head, loaded.features(pixels)),
        compute_rest=lambda pixels, known: _beside_outputs(head, loaded.features(pixels, known)),
        from_features=lambda features: _beside_outputs(head, features),
    )
    to_prediction, known = prediction_maker(loaded, 1), known_features(loaded, cache)
    for image in iter_values(network, inputs, known=known, workers=workers, reporter=reporter):
        if image.values is None:
            yield Explanation(Prediction(image.name, error=image.error))
            continue
        own, outputs = np.split(image.values, [len(loaded.views) * len(head.mean_)])
        if not np.isfinite(outputs).all():
            yield Explanation(Prediction(image.name, error=NOT_FINITE))
        else:
            of_views = own.reshape(-1, len(head.mean_)) if len(loaded.views) > 1 else own
            yield explainer.explain(to_prediction(image.name, outputs), of_views, outputs)


def _beside_outputs(head: Head, features: np.ndarray) -> np.ndarray:
    """Put the outputs of each image beside its features: (B, D) or (B, V, D) to (B, V * D + C) float64.

    They are those of the whole batch, since those of one image alone may differ from them, and so from ``predict``, in the last
    bit.
    """
    return np.column_stack([features.reshape(len(features), -1), head.predict_values(features)])


class _Explainer:
    """Explains the predictions of a head.

    Args:
        head: fitted.
        images: its training images.
        count: of the images of each kind.
    """

    def __init__(self, head: Head, images: TrainingImages, count: int) -> None:
        self._head, self._images, self._count = head, images, count
        self.index = CosineIndex(images.plain)
        self._leave_one_out = LeaveOneOut(head, images.data) if has_influence(head) else None

    def explain(self, prediction: Prediction, features: np.ndarray, outputs: np.ndarray) -> Explanation:
        """Explain a prediction from the (D,) or (V, D) features of an image and its (C,) outputs."""
        Z = (features.reshape(-1, features.shape[-1]).astype(np.float64) - self._head.mean_) / self._head.scale_
        found, cosines = self.index.search(Z[:1], min(self._count, len(self.index)))
        neighbours = self._listed(found[0], cosines[0])
        return Explanation(
            prediction, neighbours, tuple(self._influences(prediction, features, Z.mean(axis=0), outputs))
        )

    def _influences(
        self, prediction: Prediction, features: np.ndarray, z: np.ndarray, outputs: np.ndarray
    ) -> Iterator[Influence]:
        if not self._leave_one_out:
            return
        head = self._head
        logits = head.decision_function(features[None])[0]
        for label in _explained(prediction, outputs, head.names_):
            along = log_odds_gradient(logits, label, head.task_) / head.temperature_
            values = self._leave_one_out.changes(z, along)
            order = np.argsort(-values, kind="stable")
            first, last = order[: self._count], order[::-1][: self._count]
            yield Influence(
                head.names_[label],
                None if head.task_ == "regression" else float(outputs[label]),
                self._listed(first[values[first] > 0], values[first[values[first] > 0]]),
                self._listed(last[values[last] < 0], values[last[values[last] < 0]]),
            )

    def _listed(self, rows: np.ndarray, values: np.ndarray) -> tuple[TrainingImage, ...]:
        paths, labels = self._images.paths, self._images.labels
        pairs = zip(rows.tolist(), values.tolist(), strict=True)
        return tuple(TrainingImage(str(paths[row]), labels[row], float(value)) for row, value in pairs)


def _explained(prediction: Prediction, outputs: np.ndarray, classes: Sequence[str]) -> list[int]:
    """The classes or labels whose scores are explained: those that are predicted, or the most probable one."""
    if isinstance(prediction.value, list) and prediction.value:
        return [classes.index(label) for label in prediction.value]
    return [int(outputs.argmax())]


def log_odds_gradient(logits: np.ndarray, label: int, task: str) -> np.ndarray:
    """The derivative by the (C,) logits of the log-odds of one class against the others; a label and a number stand alone."""
    along = np.zeros(len(logits))
    if task == "classification":
        others = np.arange(len(logits)) != label
        along[others] = -softmax(logits[others])
    along[label] = 1.0
    return along
