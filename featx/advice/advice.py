"""What a backbone is worth on a data set, measured on cached features in seconds, and what to do next.

One pass over the images keeps every stage of the network; heads on them, alone and side by side, are cross-validated.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from featx.advice.decision import Choice, Evidence, decide, redrawn
from featx.advice.layer_scores import BETTER, HeldOutResult, LayerScore, best
from featx.advice.learning_curve import LearningCurve, learning_curve
from featx.backbones.backbone import Backbone, load_backbone, restore_backbone
from featx.backbones.blocks import blocks, blocks_up_to
from featx.backbones.registry import published_top1
from featx.constants import CACHE, MODELS, UNTRAINED
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.scan import scan_images
from featx.errors import BackboneError, FeatxError, HeadError, StaleCacheError
from featx.extraction.extraction import extract
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.heads.groups import with_splits
from featx.heads.head import Head
from featx.heads.targets import task_of
from featx.io.atomic import require_writable, write_whole
from featx.layer_spec import PENULTIMATE, LayerNode, LayerSpec, by_depth, largest_views, plain_layers
from featx.reporter import SILENT, Reporter

MOST = 2000
"""Training images that heads are compared on; of more, so many are drawn."""

BASELINE = 400
"""Training images that the same network with random weights sees."""


@dataclass(frozen=True)
class Seen:
    """How the pretrained classifier, the one that the backbone came with, sees the training images.

    Attributes:
        classes: K that it knows.
        confidence: mean probability of the most probable one.
        energy: mean of -log sum exp of the logits (Liu et al., 2020): the lower, the more the images look like its own.
        top1: its published accuracy on ImageNet's validation set, which is about the confidence of a calibrated classifier
            there; None where nobody published one.
    """

    classes: int
    confidence: float
    energy: float
    top1: float | None


@dataclass(frozen=True)
class Baseline:
    """Heads on the features of the same network with random weights, beside those on its own, on the same images.

    Attributes:
        images: how many.
        pretrained: {layer: cross-validated accuracy}.
        untrained: the same with random weights.
        gain: how much more accurate the best layer of the first is than the best of the second.
        error: the standard error of that, image by image.
    """

    images: int
    pretrained: dict[str, float]
    untrained: dict[str, float]
    gain: float
    error: float


@dataclass(frozen=True, eq=False)
class Advice:
    """What was measured, and what follows.

    Attributes:
        data: the data set's name.
        backbone: its name.
        cell: of the table: "little" or "much" data, "similar" or "unlike" what the backbone was trained on, as
            "little-similar"; "chance" where no head learns anything.
        choice: what to do.
        confidence: share of redraws of the images (Efron's bootstrap) that ask for the same.
        gain_interval: 95 %, by the same redraws.
        command: to give next.
        reasons: in sentences.
        layers: a head on each layer, from the input on.
        together: {layer: accuracy of a head on it and all later ones, side by side}.
        layer: of the head (of several, their names with commas between them); or the first block that is trained; "" for none.
        guess: accuracy of naming the commonest class.
        baseline: the same network with random weights; None where it could not be had.
        curve: of the head on the layer that is best by itself; None where there are too few images.
        seen: by the pretrained classifier; None where there is none.
        images: training images, of which ``judged`` were looked at.
        judged: see there.
        classes: how many.
        smallest, largest: images of a class.
        features: the feature file.
        picture: of the curves.
        notes: what else the user should know.
    """

    data: str
    backbone: str
    cell: str
    choice: Choice
    layer: str
    guess: float
    confidence: float
    gain_interval: tuple[float, float]
    command: str
    reasons: tuple[str, ...]
    layers: tuple[LayerScore, ...]
    together: dict[str, float]
    baseline: Baseline | None
    curve: LearningCurve | None
    seen: Seen | None
    images: int
    judged: int
    classes: int
    smallest: int
    largest: int
    features: Path
    picture: Path
    notes: tuple[str, ...] = ()

    @property
    def depths(self) -> dict[str, float]:
        """{layer: cross-validated accuracy}."""
        return {depth.layer: depth.outcome.accuracy for depth in self.layers}

    def as_dict(self) -> dict[str, Any]:
        """As ``featx advise --json`` prints it."""
        return {
            "cell": self.cell,
            "recommendation": self.choice.recommendation,
            "layer": self.layer or None,
            "expected_gain": self.choice.gain,
            "gain_interval": list(self.gain_interval),
            "confidence": self.confidence,
            "command": self.command,
            "reasons": list(self.reasons),
            "depths": self.depths,
            "log_loss": {depth.layer: depth.outcome.loss for depth in self.layers},
            "together": self.together,
            "baseline": dataclasses.asdict(self.baseline) if self.baseline else None,
            "learning_curve": self.curve.as_dict() if self.curve else None,
            "seen": dataclasses.asdict(self.seen) if self.seen else None,
            "images": self.images,
            "judged": self.judged,
            "classes": self.classes,
            "commonest_class": self.guess,
            "smallest_class": self.smallest,
            "largest_class": self.largest,
            "features": str(self.features),
            "picture": str(self.picture),
            "notes": list(self.notes),
        }


def advise(
    data: ImageSet | str | os.PathLike[str],
    backbone: str | None = None,
    *,
    weights: str = "default",
    device: str = "auto",
    seed: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
    reporter: Reporter = SILENT,
) -> Advice:
    """Measure what a backbone's features are worth on a data set, and say what to do next.

    The training images alone are looked at, by cross-validation: those of val and test judge what comes of the advice.

    Args:
        data: a data set, or what ``scan_images`` takes, whose images go through every stage of the backbone once; or a feature
            file, whose layers are taken as they are.
        backbone: of a data set; by default ``resnet50``. Of a feature file: instead of the stored name, where that is a file
            of code.
        weights: as ``load_backbone``; of a feature file, instead of the stored ones, where their file has moved.
        device: as ``load_backbone``.
        seed: of folds and draws.
        cache: the folder of feature files.
        workers: as ``extract``.
        out: the picture's file, instead of ``<models>/<features>--advice.png``.
        models: the folder for it, and for what the command makes.
        reporter: as ``extract``.

    Raises:
        HeadError: labels that are no classes, too few images, or no penultimate layer in the file.
        DatasetError, BackboneError, CacheMissError, CorruptFileError: as ``extract`` and ``FeatureSet.load``.
        OutputError: the picture cannot be written.
    """
    from featx.report.plots import advice_figure, as_png

    notes: list[str] = []
    if not isinstance(data, ImageSet) and Path(data).suffix == ".h5":
        cached = FeatureFile(data)
        network, why = _restored(cached, backbone, weights, device)
        notes += [f"{why}; so neither its classifier nor random weights are looked at"] if why else []
    else:
        images = data if isinstance(data, ImageSet) else scan_images(data)
        if (images.labels == UNLABELLED).all():
            raise HeadError(
                f"{images.root} has no labels, and what is compared are heads; make a folder of each class, or a table"
            )
        network = load_backbone(backbone or "resnet50", weights=weights, stages=True, device=device)
        extraction = extract(images, network, cache=cache, workers=workers, reporter=reporter)
        notes += extraction.remarks
        cached = FeatureFile(extraction.file)
    picture = Path(out) if out else Path(models) / f"{cached.path.stem}--advice.png"
    require_writable(picture)
    study = _Study(cached, network, seed, notes)
    baseline = study.baseline(cached.path.parent, workers, reporter)
    evidence = study.evidence(baseline)
    choice = decide(evidence)
    confidence, interval = redrawn(evidence, seed=seed)
    curve = study.curve()
    labels = np.bincount(study.own.labels[study.every])
    labels = labels[labels > 0]
    advice = Advice(
        data=cached.dataset["name"],
        backbone=str(cached.backbone["name"]),
        cell=_cell(evidence),
        choice=choice,
        layer=study.named(choice),
        confidence=confidence,
        gain_interval=interval,
        command=_command(study, choice, Path(models)),
        reasons=(),
        layers=tuple(study.single),
        together={layer: outcome.accuracy for layer, outcome in evidence.together.items()},
        baseline=baseline,
        curve=curve,
        seen=study.seen(),
        images=len(study.every),
        judged=len(evidence.guess.losses),
        classes=len(labels),
        smallest=int(labels.min()),
        largest=int(labels.max()),
        guess=evidence.guess.accuracy,
        features=cached.path,
        picture=picture,
        notes=tuple(study.notes),
    )
    advice = dataclasses.replace(advice, reasons=tuple(_reasons(advice, evidence)))
    points, law = (curve.points, curve.drawn()) if curve else ((), np.empty((0, 4)))
    untrained = baseline.untrained if baseline else {}
    figure = advice_figure(advice.depths, advice.together, untrained, advice.guess, points, law, advice.images)
    write_whole(picture, as_png(figure))
    return advice


def _restored(cached: FeatureFile, backbone: str | None, weights: str, device: str) -> tuple[Backbone | None, str]:
    """The backbone of a feature file; or why it cannot be had."""
    identities = {name: cached.layers[name].identity for name in plain_layers(cached.layers)}
    try:
        moved = None if weights == "default" else weights
        return restore_backbone(cached.backbone, layers=identities, name=backbone, weights=moved, device=device), ""
    except (BackboneError, StaleCacheError) as error:
        return None, str(error)


class _Study:
    """One data set through one backbone: what is measured, in the order in which it is."""

    def __init__(self, cached: FeatureFile, network: Backbone | None, seed: int, notes: list[str]) -> None:
        self.cached, self.network, self.notes = cached, network, notes
        if PENULTIMATE not in cached.layers:
            raise HeadError(f"{cached.path} has no layer {PENULTIMATE}; run featx extract again")
        layers = sorted(plain_layers(cached.layers), key=by_depth)
        self.sets = {layer: FeatureSet.load(cached.path, layer) for layer in layers}
        self.own = self.sets[PENULTIMATE]
        if (views := largest_views(cached.layers, [PENULTIMATE])) != "plain":
            self.notes.append(f"the file has several views of each image ({views}); the plain one alone was looked at")
        self.asked = Head("logreg", seed=seed)
        self.task, _ = task_of(self.own)
        if self.task != "classification":
            raise HeadError(f"advice is for classes; the labels of {cached.path} ask for {self.task}")
        self.every = with_splits(self.own, self.task).rows("train")
        drawn = np.random.default_rng(seed).permutation(len(self.every))[:MOST]
        self.rows = self.every[np.sort(drawn)]
        if len(self.rows) < len(self.every):
            self.notes.append(
                f"{len(self.rows)} of {len(self.every)} training images, drawn by the seed, were looked at"
            )
        self.single = self._depths()
        if len(self.single[-1].outcome.losses) < 2:
            raise HeadError(f"no class has two training images that could be told apart; {self.own.where()}")
        self.names = [depth.layer for depth in self.single]
        self.blocks = blocks(network.network, network.classifier) if network else []

    def _depths(self) -> list[LayerScore]:
        """A head on each layer, from the input on; a layer that gives the penultimate itself is passed over."""
        own = self.own.features[self.rows]
        return [
            LayerScore.of(features, self.asked, self.rows, coarse=True)
            for layer, features in self.sets.items()
            if layer == PENULTIMATE or not np.array_equal(features.features[self.rows], own)
        ]

    def _side_by_side(self, layers: Sequence[str]) -> HeldOutResult:
        """Of a head on several layers; of the rows that are looked at alone, since they are put together in memory."""
        features = np.concatenate([self.sets[layer].features[self.rows] for layer in layers], axis=1)
        several = dataclasses.replace(self.own.facts(self.rows), features=features)
        return LayerScore.of(several, self.asked, np.arange(len(self.rows)), coarse=True).outcome

    def evidence(self, baseline: Baseline | None) -> Evidence:
        """All that the choice goes by."""
        together = {PENULTIMATE: self.single[-1].outcome}
        for at in reversed(range(len(self.names) - 1)):
            together = {self.names[at]: self._side_by_side(self.names[at:]), **together}
        return Evidence(
            images=len(self.every),
            guess=self._guess(),
            depths={depth.layer: depth.outcome for depth in self.single},
            together=together,
            frozen={name: self._passed(name) / len(self.blocks) if self.blocks else 0.0 for name in self.names},
            transferred=self._transferred(baseline),
        )

    def _transferred(self, baseline: Baseline | None) -> float:
        """How much more accurate heads are than on random weights, at most; infinite where that is unknown."""
        if self.untrained:
            return 0.0
        return baseline.gain + BETTER * baseline.error if baseline else math.inf

    @property
    def untrained(self) -> bool:
        """Whether the network's own weights are random."""
        return bool(self.cached.backbone["weights"] == "random")

    def _passed(self, layer: str) -> int:
        """How many of the network's blocks there are up to a layer, pooled in any way."""
        return len(self.blocks) if layer == PENULTIMATE else blocks_up_to(LayerNode.parse(layer).node, self.blocks)

    def named(self, choice: Choice) -> str:
        """The layer of a head that is recommended, or the block from which on to train."""
        if not choice.recommendation.startswith("tune") or not self.blocks:
            return choice.layer
        return self.blocks[self._passed(choice.layer) if choice.recommendation == "tune-part" else 0]

    def _guess(self) -> HeldOutResult:
        """By the classes' shares of the training rows."""
        assert self.single[-1].head.out_of_fold_
        labels = self.own.labels[self.rows]
        share = np.bincount(labels) / len(labels)
        judged = labels[self.single[-1].head.out_of_fold_[0]]
        return HeldOutResult(-np.log(share[judged]), judged == share.argmax())

    def curve(self) -> LearningCurve | None:
        """Of the head on the layer that is best by itself."""
        chosen = best(self.single)
        return learning_curve(self.sets[chosen.layer], chosen.head, self.rows, images=len(self.every))

    def seen(self) -> Seen | None:
        """By the classifier that the network came with, from the penultimate features: no image is read again."""
        if self.network is None or (logits := self.network.classified(self.own.features[self.rows])) is None:
            return None
        normal = logsumexp(logits, axis=1)
        confidence = np.exp(logits.max(axis=1) - normal)
        return Seen(
            logits.shape[1],
            float(confidence.mean()),
            float(-normal.mean()),
            published_top1(self.network.name, self.network.weights),
        )

    def baseline(self, folder: Path, workers: int | None, reporter: Reporter) -> Baseline | None:
        """The same network with random weights, on some of the images."""
        if self.network is None or self.untrained:
            return None
        drawn = np.sort(np.random.default_rng(self.asked.seed).permutation(self.rows)[:BASELINE])
        try:
            other = load_backbone(
                self.network.name, weights="random", layers=[name for name in self.names if name != PENULTIMATE],
                transform=self.network.transform, device=str(self.network.device),
            )  # fmt: skip
            some = self._images(drawn)
            file = extract(some, other, cache=folder / UNTRAINED, workers=workers, reporter=reporter).file
        except FeatxError as error:
            self.notes.append(f"there is no comparison with random weights: {error}")
            return None
        theirs, ours = dict[str, HeldOutResult](), dict[str, HeldOutResult]()
        for layer in self.names:
            untrained = FeatureSet.load(file, layer)
            pretrained = self.sets[layer]
            known = drawn[np.isin(pretrained.paths[drawn], untrained.paths)]
            theirs[layer] = LayerScore.of(untrained, self.asked, np.arange(len(untrained)), coarse=True).outcome
            ours[layer] = LayerScore.of(pretrained, self.asked, known, coarse=True).outcome
        first, second = (max(found.values(), key=lambda outcome: outcome.accuracy).right for found in (ours, theirs))
        if len(first) < 2:
            return None
        ahead = first.astype(float) - second
        return Baseline(
            len(ahead),
            {layer: outcome.accuracy for layer, outcome in ours.items()},
            {layer: outcome.accuracy for layer, outcome in theirs.items()},
            float(ahead.mean()),
            float(ahead.std(ddof=1) / math.sqrt(len(ahead))),
        )

    def _images(self, rows: np.ndarray) -> ImageSet:
        """Some images of the feature file."""
        own = self.own
        return ImageSet(
            name=own.dataset["name"],
            root=Path(own.dataset["root"]),
            paths=own.paths[rows],
            labels=own.labels[rows],
            splits=np.full(len(rows), "train", dtype=object),
            classes=own.classes,
        )


def _cell(evidence: Evidence) -> str:
    """Of the table."""
    if not evidence.learned:
        return "chance"
    return f"{'much' if evidence.much else 'little'}-{'unlike' if evidence.unlike else 'similar'}"


def _command(study: _Study, choice: Choice, models: Path) -> str:
    """What to do next, as a line for the shell."""
    elsewhere = [] if str(models) == MODELS else ["--models", str(models)]
    head = ["featx", "fit-head", str(study.cached.path), *elsewhere]
    if choice.recommendation == "none":
        return shlex.join([*head, "--report"])
    if choice.recommendation == "head":
        return shlex.join(head)
    if choice.recommendation == "head-inner":
        return shlex.join(
            [*head, *(part for layer in LayerSpec.parse(choice.layer).layers for part in ("--layer", layer))]
        )
    start = ["--from", study.named(choice)] if choice.recommendation == "tune-part" else []
    return f"{shlex.join(head)} && {shlex.join(['featx', 'promote', '--finetune', *start, *elsewhere])}"


def _reasons(advice: Advice, evidence: Evidence) -> Iterator[str]:
    """Why, each as a sentence without its full stop."""
    if advice.choice.recommendation == "none":
        best_of = max(advice.depths, key=lambda layer: advice.depths[layer])
        yield (
            f"no head is better than guessing: the best, on {best_of}, is right in {advice.depths[best_of]:.4f} of "
            f"{advice.judged} images, and always naming the commonest class in {advice.guess:.4f}"
        )
        yield "look at the labels: the page that the command makes shows which images are taken for which class"
        return
    yield from _of_the_cell(advice, evidence)
    yield from _of_the_choice(advice.choice, evidence)
    yield from _beside(advice)


def _of_the_cell(advice: Advice, evidence: Evidence) -> Iterator[str]:
    size = f"{advice.images} training images of {advice.classes} classes, {advice.smallest} to {advice.largest} of each"
    yield f"{size}: {'much' if evidence.much else 'little'} data"
    own, peak = evidence.accuracy(PENULTIMATE), evidence.peak
    unlike = "so the images are unlike those that the network was trained on"
    if evidence.earlier:
        found = f"{evidence.accuracy(peak):.4f} on {peak} against {own:.4f} on {PENULTIMATE}"
        yield f"the curve peaks before the last layer: {found}, {unlike}"
    elif evidence.transferred <= 0:
        yield "the network's weights are random: there is nothing that its images could be like"
    elif evidence.unlike:
        yield f"random weights do nearly as well, {unlike}"
    else:
        yield f"no earlier layer alone beats the {PENULTIMATE}: the images count as like those of the training"


def _of_the_choice(choice: Choice, evidence: Evidence) -> Iterator[str]:
    own, lost_after = evidence.accuracy(PENULTIMATE), evidence.lost_after
    if lost_after == PENULTIMATE:
        yield f"earlier layers beside the {PENULTIMATE} add nothing"
    else:
        several = evidence.together[lost_after].accuracy
        yield (
            f"a head on {lost_after} and all later layers side by side has {several:.4f} against {own:.4f}: the last "
            "layers lose some of what the classes need"
        )
    if not choice.recommendation.startswith("tune"):
        yield "tuning is not expected to be ahead of the best head by a point"
    elif choice.layer:
        yield "tuning wins that back, and is expected to be ahead of every head by a point or more"
    else:
        yield (
            f"a head on the {PENULTIMATE} is wrong in {100 * (1 - own):.1f} % of the images; with {evidence.images} images to "
            f"train on, tuning is expected to take away {100 * evidence.tuned:.0f} % of that"
        )


def _beside(advice: Advice) -> Iterator[str]:
    """What else was measured."""
    if advice.curve:
        gain, low, high = advice.curve.twice
        yield f"twice as many images would add {100 * gain:.1f} points to the head ({100 * low:.1f} to {100 * high:.1f})"
    if advice.baseline:
        own, other = (max(found.values()) for found in (advice.baseline.pretrained, advice.baseline.untrained))
        yield (
            f"the same network with random weights has {other:.4f} at its best layer, the pretrained one {own:.4f}, on "
            f"{advice.baseline.images} images"
        )
    if advice.seen:
        known = f"; it is right in {advice.seen.top1:.2f} of ImageNet's" if advice.seen.top1 is not None else ""
        yield (
            f"the network's own classifier gives its first of {advice.seen.classes} classes a mean probability of "
            f"{advice.seen.confidence:.2f} here{known}"
        )
