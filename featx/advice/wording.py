"""The words of an advice: what to do, the layer to name, the command to run next, and the reasons."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from featx.advice.decision import RANDOM_WEIGHTS, Decision, Evidence
from featx.advice.evidence import Measurements, RandomWeights, blocks_before
from featx.constants import MODELS
from featx.layer_spec import PENULTIMATE, LayerSpec


def layer_name(decision: Decision, blocks: tuple[str, ...]) -> str:
    """Name the layer of the recommended head, or the first block that is fine-tuned.

    Args:
        decision: what is recommended.
        blocks: names of the network's blocks in order; if they are unknown, the layer of the decision is returned.
    """
    if not decision.recommendation.startswith("tune") or not blocks:
        return decision.layer
    if decision.recommendation == "tune-all":
        return blocks[0]
    return blocks[min(blocks_before(decision.layer, blocks), len(blocks) - 1)]


def what_to_do(recommendation: str, layer: str) -> str:
    """Say what a recommendation asks for.

    Args:
        recommendation: one of ``RECOMMENDATIONS``.
        layer: the layer of the head, several separated by commas; or the first block that is fine-tuned.

    Examples:
        >>> what_to_do("head-inner", "layer2,layer3,penultimate")
        'fit a head on layer2, layer3 and penultimate side by side'
        >>> what_to_do("tune-part", "layer4")
        'fit a head on the penultimate layer, then fine-tune the network from layer4 on'
    """
    *others, last = layer.split(",")
    layers = f"{', '.join(others)} and {last} side by side" if others else last
    return {
        "none": "use none of these features yet, and check the labels first",
        "head": "fit a head on the penultimate layer",
        "head-inner": f"fit a head on {layers}",
        "tune-part": f"fit a head on the penultimate layer, then fine-tune the network from {layer} on",
        "tune-all": "fit a head on the penultimate layer, then fine-tune the whole network",
    }[recommendation]


def next_fit(
    features: Sequence[str], models: Path, group: str | None = None, table: str | os.PathLike[str] | None = None
) -> str:
    """Write the command that fits a head to one feature file, or to several side by side, as a line for the shell."""
    return shlex.join(["featx", "fit-head", *features, *groups_option(group, table), *_models_option(models)])


def groups_option(group: str | None, table: str | os.PathLike[str] | None) -> list[str]:
    """The options of ``fit-head`` that name the groups of the images."""
    if group is None:
        return []
    return ["--group", group, *(["--table", str(table)] if table else [])]


def _models_option(models: Path) -> list[str]:
    return [] if str(models) == MODELS else ["--models", str(models)]


def next_command(measurements: Measurements, decision: Decision, models: Path) -> str:
    """Write the command to run next, as a line for the shell.

    Args:
        measurements: name the feature file.
        decision: what is recommended.
        models: the folder for heads and models; named in the command if it is not the default.
    """
    options = [*groups_option(measurements.group, measurements.table), *_models_option(models)]
    fit_head = ["featx", "fit-head", str(measurements.features), *options]
    if decision.recommendation == "none":
        return shlex.join([*fit_head, "--report"])
    if decision.recommendation == "head":
        return shlex.join(fit_head)
    if decision.recommendation == "head-inner":
        layers = LayerSpec.parse(decision.layer).layers
        return shlex.join([*fit_head, *(word for layer in layers for word in ("--layer", layer))])
    part = decision.recommendation == "tune-part"
    start = ["--from", layer_name(decision, measurements.blocks)] if part else []
    return (
        f"{shlex.join(fit_head)} && {shlex.join(['featx', 'promote', '--finetune', *start, *_models_option(models)])}"
    )


def reasons(measurements: Measurements, decision: Decision) -> Iterator[str]:
    """Yield the reasons for a decision, each a sentence without capital and full stop."""
    if decision.recommendation == "none":
        yield from _why_none(measurements)
        return
    yield from _about_the_data(measurements)
    yield from _about_finetuning(measurements.evidence, decision)
    yield from _further_measurements(measurements)


def _why_none(measurements: Measurements) -> Iterator[str]:
    accuracies = measurements.accuracies
    best = max(accuracies, key=lambda layer: accuracies[layer])
    yield (
        f"no head is better than guessing: of {measurements.held_out_images} images, the best head, on {best}, classifies "
        f"{accuracies[best]:.4f} correctly, and always predicting the commonest class "
        f"{measurements.evidence.majority.accuracy:.4f}"
    )
    yield "check the labels: the page that the command writes shows which images are taken for which class"


def _about_the_data(measurements: Measurements) -> Iterator[str]:
    counts, evidence = measurements.class_counts, measurements.evidence
    yield (
        f"{measurements.images} training images of {len(counts)} classes, {counts.min()} to {counts.max()} per class, are "
        f"{'much' if evidence.much_data else 'little'} data"
    )
    if evidence.peaks_early:
        peak, penultimate = (evidence.accuracy(layer) for layer in (evidence.peak, PENULTIMATE))
        yield (
            f"{evidence.peak} alone beats the {PENULTIMATE} by log loss (accuracy {peak:.4f} against {penultimate:.4f}), so "
            "the images are unlike those that the network was trained on"
        )
    elif evidence.transfer_gain == RANDOM_WEIGHTS:
        yield "the network's weights are random, so there are no training images for these to be similar to"
    elif evidence.unlike_pretraining:
        yield "random weights do nearly as well, so the images are unlike those that the network was trained on"
    else:
        yield (
            f"no earlier layer alone beats the {PENULTIMATE}, so the images count as similar to those that the network was "
            "trained on"
        )


def _about_finetuning(evidence: Evidence, decision: Decision) -> Iterator[str]:
    accuracy, first = evidence.accuracy(PENULTIMATE), evidence.lossless_layer
    if first == PENULTIMATE:
        yield f"adding earlier layers to the {PENULTIMATE} does not help"
    else:
        yield (
            f"a head on {first} and all later layers side by side reaches {evidence.joint[first].accuracy:.4f} against "
            f"{accuracy:.4f} on the {PENULTIMATE}, so the last layers lose some of what the classes need"
        )
    if not decision.recommendation.startswith("tune"):
        yield "fine-tuning is not expected to beat the best head by a point"
    elif decision.layer:
        yield "fine-tuning recovers that, and is expected to beat every head by a point or more"
    else:
        yield (
            f"a head on the {PENULTIMATE} is wrong on {100 * (1 - accuracy):.1f} % of the images; with {evidence.images} "
            f"training images, fine-tuning is expected to remove {100 * evidence.finetuning_share:.0f} % of these errors"
        )


def _further_measurements(measurements: Measurements) -> Iterator[str]:
    if measurements.curve:
        gain, low, high = (100 * value for value in measurements.curve.doubling_gain)
        yield f"twice as many images would add {gain:.1f} points to the head's accuracy ({low:.1f} to {high:.1f})"
    if measurements.random_weights:
        yield _random_weights_sentence(measurements.random_weights)
    if classifier := measurements.classifier:
        published = f"; its accuracy on ImageNet is {classifier.top1:.2f}" if classifier.top1 is not None else ""
        yield (
            f"the network's own classifier gives the most probable of its {classifier.classes} classes a mean probability of "
            f"{classifier.confidence:.2f} on these images{published}"
        )


def _random_weights_sentence(random_weights: RandomWeights) -> str:
    return (
        f"the same network with random weights reaches {max(random_weights.untrained.values()):.4f} on its best layer, the "
        f"pretrained one {max(random_weights.pretrained.values()):.4f}, on {random_weights.images} images"
    )
