"""The measurements of ``advise``: heads on all layers of a backbone, cross-validated on the training images of a data set."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from featx.advice.decision import RANDOM_WEIGHTS, Evidence
from featx.advice.layer_scores import SIGNIFICANT, HeldOutResult, LayerScore, best_layer, score_layer
from featx.advice.learning_curve import LearningCurve, measure_learning_curve
from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.blocks import block_names, blocks_up_to
from featx.backbones.catalog import published_top1
from featx.backbones.classifier import classifier_logits
from featx.constants import UNTRAINED
from featx.data.image_set import ImageSet
from featx.errors import AdviceError, FeatxError
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.features.file_set import Features
from featx.features.image_store import image_store
from featx.heads.groups import GroupedLoader, row_groups, splits_for
from featx.heads.head import Head
from featx.heads.targets import task_of
from featx.layer_spec import PENULTIMATE, LayerNode, by_depth, largest_views, plain_layers
from featx.metrics.grouped import count_groups, mean_and_error, number_groups
from featx.reporter import SILENT, Reporter

MAX_IMAGES = 2000
"""Largest number of training images that heads are compared on; of more, a random sample is used."""

MAX_RANDOM_WEIGHTS_IMAGES = 400
"""Largest number of training images that the same network with random weights is run on."""


@dataclass(frozen=True)
class ClassifierConfidence:
    """How confident the classifier that the backbone was pretrained with is on the training images.

    Attributes:
        classes: number of its classes K.
        confidence: mean probability of the most probable class.
        energy: mean of -log sum exp of the logits (Liu et al., 2020); the lower, the more similar the images are to those of
            the pretraining.
        top1: published accuracy of the classifier on ImageNet's validation set, which is about the confidence that a
            calibrated classifier has there; None if none is published.
    """

    classes: int
    confidence: float
    energy: float
    top1: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as ``featx advise --json`` prints them."""
        return asdict(self)


@dataclass(frozen=True)
class RandomWeights:
    """Heads on features of the same network with random weights, compared with the pretrained ones on the same images.

    Attributes:
        images: number of images.
        pretrained: {layer: cross-validated accuracy} of the pretrained network.
        untrained: the same for random weights.
        gain: accuracy of the best pretrained layer minus that of the best layer with random weights.
        standard_error: the standard error of the gain, paired by image, by groups.
    """

    images: int
    pretrained: dict[str, float]
    untrained: dict[str, float]
    gain: float
    standard_error: float

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as ``featx advise --json`` prints it."""
        return {
            "images": self.images,
            "pretrained": self.pretrained,
            "untrained": self.untrained,
            "gain": self.gain,
            "error": self.standard_error,
        }


@dataclass(frozen=True, eq=False)
class Measurements:
    """Everything that was measured of one data set through one backbone.

    Attributes:
        dataset: the data set's name.
        backbone: the backbone's name.
        features: the feature file.
        evidence: the results that the decision depends on.
        layer_scores: a head on each layer, from the input on.
        random_weights: the same network with random weights; None if it could not be compared.
        curve: the learning curve of the head on the best single layer; None if there are too few images.
        classifier: the confidence of the pretrained classifier; None if there is none.
        class_counts: (C,) int64, training images of each class that has any.
        blocks: names of the network's blocks in order; empty if the network is not available.
        group: the column of the table that names groups of images, or None.
        table: the table with that column, where it is not the data set's own.
        notes: what else the user should know, one sentence each.
    """

    dataset: str
    backbone: str
    features: Path
    evidence: Evidence
    layer_scores: tuple[LayerScore, ...]
    random_weights: RandomWeights | None
    curve: LearningCurve | None
    classifier: ClassifierConfidence | None
    class_counts: np.ndarray
    blocks: tuple[str, ...] = ()
    group: str | None = None
    table: str | os.PathLike[str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of training images."""
        return self.evidence.images

    @property
    def held_out_images(self) -> int:
        """Number of training images that were held out once, and so evaluated every head."""
        return len(self.evidence.majority.losses)

    @property
    def held_out_groups(self) -> int:
        """Number of groups that these images belong to, such as patients or copies of one image."""
        return count_groups(self.evidence.majority.groups, self.held_out_images)

    @property
    def accuracies(self) -> dict[str, float]:
        """{layer: cross-validated accuracy of a head on it}, from the input on."""
        return {score.layer: score.held_out.accuracy for score in self.layer_scores}

    @property
    def joint_accuracies(self) -> dict[str, float]:
        """{layer: cross-validated accuracy of a head on it and all later layers side by side}."""
        return {layer: result.accuracy for layer, result in self.evidence.joint.items()}


@dataclass(frozen=True, eq=False)
class LayerData:
    """The layers of a feature file and the training rows that heads are compared on.

    Attributes:
        layers: {layer: its features}, from the input on, the penultimate last.
        train_rows: (n,) int64, all labelled training rows.
        rows: (m,) int64, those that heads are compared on.
        head: the unfitted head that is fitted to each layer.
    """

    layers: dict[str, FeatureSet]
    train_rows: np.ndarray
    rows: np.ndarray
    head: Head

    @property
    def penultimate(self) -> FeatureSet:
        """The features of the penultimate layer."""
        return self.layers[PENULTIMATE]

    @property
    def has_random_weights(self) -> bool:
        """Whether the backbone itself has random weights."""
        return bool(self.penultimate.backbone["weights"] == "random")

    def images(self, rows: np.ndarray) -> ImageSet:
        """Return the images of some rows, all in the split "train"."""
        features = self.penultimate
        return ImageSet(
            name=features.dataset["name"],
            store=image_store(features.dataset, features.paths[rows], features.source),
            paths=features.paths[rows],
            labels=features.labels[rows],
            splits=np.full(len(rows), "train", dtype=object),
            classes=features.classes,
        )


def gather(
    file: Features,
    network: Backbone | None,
    *,
    seed: int = 0,
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Measurements:
    """Measure what heads on the layers of a feature file are worth.

    Args:
        file: a feature file with the penultimate layer.
        network: its backbone; without it neither random weights nor the pretrained classifier are measured.
        seed: of folds, samples and draws.
        group: a column of the data set's table; images of one group never straddle a split or a fold.
        table: the table with that column, where it is not the data set's own.
        workers: see ``extract``.
        reporter: receives the progress of extraction with random weights.

    Raises:
        AdviceError: the labels are not classes, there are too few images, or the penultimate layer is missing.
        HeadError, DatasetError: the groups cannot be read, see ``with_groups``.
    """
    data, notes = load_layers(file, seed=seed, group=group, table=table)
    scores = [score_layer(features, data.head, rows=data.rows, coarse=True) for features in data.layers.values()]
    if len(scores[-1].held_out.losses) < 2:
        raise AdviceError(
            "no class has two distinct training images, so no head can be cross-validated; "
            f"{data.penultimate.describe_splits()}"
        )
    random_weights = None
    if network is not None and not data.has_random_weights:
        try:
            sample, random_file = _extract_with_random_weights(data, network, file.path.parent, workers, reporter)
        except FeatxError as error:
            notes.append(f"random weights were not compared: {error}")
        else:
            random_weights = _compare_with_random_weights(data, sample, random_file)
    names = tuple(block_names(network.network, network.classifier)) if network else ()
    best = best_layer(scores)
    labels = data.penultimate.labels[data.train_rows]
    return Measurements(
        dataset=file.dataset["name"],
        backbone=str(file.backbone["name"]),
        features=file.path,
        evidence=_evidence(data, scores, names, random_weights),
        layer_scores=tuple(scores),
        random_weights=random_weights,
        curve=measure_learning_curve(data.layers[best.layer], best.head, data.rows, images=len(data.train_rows)),
        classifier=_classifier_confidence(data, network) if network else None,
        class_counts=np.unique(labels, return_counts=True)[1],
        blocks=names,
        group=group,
        table=table,
        notes=tuple(notes),
    )


def load_layers(
    file: Features, *, seed: int, group: str | None = None, table: str | os.PathLike[str] | None = None
) -> tuple[LayerData, list[str]]:
    """Load all layers of a feature file and choose the rows to compare heads on.

    Layers whose features are those of the penultimate are left out.

    Returns:
        The data, and notes for the user.

    Raises:
        AdviceError: the labels are not classes, or the penultimate layer is missing.
    """
    if PENULTIMATE not in file.layers:
        raise AdviceError(f"{file.path} has no layer {PENULTIMATE}; run featx extract again to add it")
    notes = []
    load = GroupedLoader(file.path, group, table)
    layers = {layer: load(layer) for layer in sorted(plain_layers(file.layers), key=by_depth)}
    penultimate = layers[PENULTIMATE]
    if (views := largest_views(file.layers, [PENULTIMATE])) != "plain":
        notes.append(f"the file has several views of each image ({views}); only the plain view was used")
    task, doubts = task_of(penultimate, ask=False)
    notes += doubts
    if task != "classification":
        raise AdviceError(
            f"the labels of {file.path} are for {task}, but advise compares heads for classification; "
            "give it images with one class each"
        )
    splits = splits_for(penultimate, task)
    train_rows = dataclasses.replace(penultimate, splits=splits).rows("train")
    rows = train_rows[np.sort(np.random.default_rng(seed).permutation(len(train_rows))[:MAX_IMAGES])]
    if len(rows) < len(train_rows):
        notes.append(f"heads were compared on a random sample of {len(rows)} of {len(train_rows)} training images")
    same = penultimate.features[rows]
    layers = {
        layer: features
        for layer, features in layers.items()
        if layer == PENULTIMATE or not np.array_equal(features.features[rows], same)
    }
    return LayerData(layers, train_rows, rows, Head("logreg", seed=seed, task=task)), notes


def blocks_before(layer: str, names: Sequence[str]) -> int:
    """Count the blocks of a network up to and including a layer, in whatever way the layer is pooled.

    Args:
        layer: the layer's name in the feature file.
        names: names of the network's blocks in order.
    """
    return len(names) if layer == PENULTIMATE else blocks_up_to(LayerNode.parse(layer).node, names)


def _evidence(
    data: LayerData, scores: Sequence[LayerScore], names: Sequence[str], random_weights: RandomWeights | None
) -> Evidence:
    layers = list(data.layers)
    joint = {layer: _joint_result(data, layers[at:]) for at, layer in enumerate(layers[:-1])}
    return Evidence(
        images=len(data.train_rows),
        majority=_majority_result(data, scores[-1].head),
        single={score.layer: score.held_out for score in scores},
        joint={**joint, PENULTIMATE: scores[-1].held_out},
        frozen_share={layer: blocks_before(layer, names) / len(names) if names else 0.0 for layer in layers},
        transfer_gain=_transfer_gain(data, random_weights),
    )


def _joint_result(data: LayerData, layers: Sequence[str]) -> HeldOutResult:
    """Score a head on several layers side by side, concatenated in memory for the compared rows alone."""
    features = np.concatenate([data.layers[layer].features[data.rows] for layer in layers], axis=1)
    joint = dataclasses.replace(data.penultimate.without_features(data.rows), features=features)
    return score_layer(joint, data.head, rows=np.arange(len(data.rows)), coarse=True).held_out


def _majority_result(data: LayerData, head: Head) -> HeldOutResult:
    """Score the constant prediction of the classes' shares, on the rows that a fitted head was evaluated on."""
    assert head.out_of_fold_ is not None
    labels = data.penultimate.labels[data.rows]
    share = np.bincount(labels) / len(labels)
    held_out = labels[head.out_of_fold_[0]]
    groups = number_groups(row_groups(data.penultimate, data.rows[head.out_of_fold_[0]]))
    return HeldOutResult(-np.log(share[held_out]), held_out == share.argmax(), groups)


def _transfer_gain(data: LayerData, random_weights: RandomWeights | None) -> float:
    """Return the upper end of the interval for the gain of pretraining; infinite if it was not measured."""
    if data.has_random_weights:
        return RANDOM_WEIGHTS
    return random_weights.gain + SIGNIFICANT * random_weights.standard_error if random_weights else math.inf


def _classifier_confidence(data: LayerData, network: Backbone) -> ClassifierConfidence | None:
    """Run the pretrained classifier on the cached penultimate features; None if it is not linear."""
    logits = classifier_logits(network.network, network.classifier, data.penultimate.features[data.rows])
    if logits is None:
        return None
    normaliser = logsumexp(logits, axis=1)
    return ClassifierConfidence(
        classes=logits.shape[1],
        confidence=float(np.exp(logits.max(axis=1) - normaliser).mean()),
        energy=float(-normaliser.mean()),
        top1=published_top1(network.name, network.weights),
    )


def _extract_with_random_weights(
    data: LayerData, network: Backbone, folder: Path, workers: int | None, reporter: Reporter
) -> tuple[np.ndarray, Path]:
    """Extract a sample of the compared images with random weights.

    Returns:
        (s,) int64 rows of the sample, and the feature file.

    Raises:
        FeatxError: the network cannot be built with random weights, or the images are gone.
    """
    sample = np.random.default_rng(data.head.seed).permutation(data.rows)[:MAX_RANDOM_WEIGHTS_IMAGES]
    untrained = load_backbone(
        network.name,
        weights="random",
        layers=[layer for layer in data.layers if layer != PENULTIMATE],
        transform=network.transform,
        device=str(network.device),
    )
    sample = np.sort(sample)
    images = data.images(sample)
    return sample, extract(images, untrained, cache=folder / UNTRAINED, workers=workers, reporter=reporter).file


def _same_images(features: FeatureSet, rows: np.ndarray, other: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Find the images, of some rows, that another feature set has with the same content: an image may have changed since.

    Returns:
        (s,) int64 rows of ``features``, and the (s,) int64 rows of ``other`` with the same paths and keys.
    """
    place = {str(path): row for row, path in enumerate(other.paths)}
    pairs = [(row, place[path]) for row in rows.tolist() if (path := str(features.paths[row])) in place]
    same = [(row, at) for row, at in pairs if features.keys[row].tobytes() == other.keys[at].tobytes()]
    found = np.array(same, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _compare_with_random_weights(data: LayerData, sample: np.ndarray, file: Path) -> RandomWeights | None:
    """Compare heads on a sample of the images, with pretrained and with random weights; None if nothing can be held out."""
    untrained, pretrained = dict[str, HeldOutResult](), dict[str, HeldOutResult]()
    for layer, features in data.layers.items():
        random_features = FeatureSet.load(file, layer)
        rows, same = _same_images(features, sample, random_features)
        if not len(rows):
            return None  # every image has changed since
        if features.groups is not None:
            groups = np.full(len(random_features), "", dtype=object)
            groups[same] = features.groups[rows]
            random_features = dataclasses.replace(random_features, groups=groups, group=features.group)
        untrained[layer] = score_layer(random_features, data.head, rows=same, coarse=True).held_out
        pretrained[layer] = score_layer(features, data.head, rows=rows, coarse=True).held_out
    best, best_untrained = (
        max(results.values(), key=lambda result: result.accuracy) for results in (pretrained, untrained)
    )
    gain, error = mean_and_error(best.correct.astype(float) - best_untrained.correct, best.groups)
    if math.isnan(gain):
        return None
    return RandomWeights(
        images=len(best.correct),
        pretrained={layer: result.accuracy for layer, result in pretrained.items()},
        untrained={layer: result.accuracy for layer, result in untrained.items()},
        gain=gain,
        standard_error=error,
    )
