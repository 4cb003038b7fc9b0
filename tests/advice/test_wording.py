"""The words of an advice: the layer it names, and the reasons."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.advice.decision import Decision, Evidence, decide
from featx.advice.evidence import ClassifierConfidence, Measurements, RandomWeights
from featx.advice.layer_scores import HeldOutResult, LayerScore
from featx.advice.wording import layer_name, next_command, reasons
from featx.heads.head import Head

BLOCKS = ("conv1", "layer1.0", "layer1.1", "layer2.0")


@pytest.mark.parametrize(
    ("recommendation", "layer", "expected"),
    [
        ("head", "penultimate", "penultimate"),
        ("head-inner", "layer1,penultimate", "layer1,penultimate"),
        ("none", "", ""),
        ("tune-all", "", "conv1"),
        ("tune-part", "layer1", "layer2.0"),
        ("tune-part", "layer1.0:max", "layer1.1"),
        ("tune-part", "layer2:max", "layer2.0"),
    ],
)
def test_fine_tuning_is_named_by_its_first_block(recommendation: str, layer: str, expected: str) -> None:
    decision = Decision(recommendation, layer, expected_accuracy=0.9, expected_gain=0.0)
    assert layer_name(decision, BLOCKS) == expected
    assert layer_name(decision, ()) == layer, "the blocks of a network that is not there are unknown"


def result(accuracy: float) -> HeldOutResult:
    """100 images, of which so large a share is classified correctly."""
    correct = np.arange(100) < 100 * accuracy
    noise = np.random.default_rng(int(100 * accuracy)).normal(0, 0.02, 100)
    return HeldOutResult(np.where(correct, 0.1, 2.0) + noise, correct)


def measured(middle: float, penultimate: float, joint: float, *, images: int = 600, **more: Any) -> Measurements:
    """Measurements of a network with one layer before the penultimate; half of 100 images are of the commonest class."""
    single = {"middle": result(middle), "penultimate": result(penultimate)}
    majority = HeldOutResult(np.full(100, math.log(2)), np.arange(100) < 50)
    together = {"middle": result(joint), "penultimate": single["penultimate"]}
    transfer_gain = more.pop("transfer_gain", math.inf)
    evidence = Evidence(images, majority, single, together, {"middle": 0.75, "penultimate": 1.0}, transfer_gain)
    return Measurements(
        dataset="pets", backbone="lenet5", features=Path("cache/pets.h5"), evidence=evidence,
        layer_scores=tuple(LayerScore(layer, 1, Head(), held_out) for layer, held_out in single.items()),
        random_weights=None, curve=None, classifier=None, class_counts=np.array([200, 400]), blocks=BLOCKS,
    )  # fmt: skip


def sentences(measurements: Measurements) -> list[str]:
    return list(reasons(measurements, decide(measurements.evidence)))


def test_the_reasons_for_a_head_are_data_layers_and_fine_tuning() -> None:
    assert sentences(measured(0.7, 0.97, 0.97, images=150)) == [
        "150 training images of 2 classes, 200 to 400 per class, are little data",
        "no earlier layer alone beats the penultimate, so the images count as similar to those that the network was trained on",
        "adding earlier layers to the penultimate does not help",
        "fine-tuning is not expected to beat the best head by a point",
    ]


def test_the_reasons_for_fine_tuning_name_the_errors_that_it_removes() -> None:
    assert sentences(measured(0.6, 0.75, 0.75, images=1200))[0].endswith("are much data")
    assert sentences(measured(0.6, 0.75, 0.75, images=1200))[3] == (
        "a head on the penultimate is wrong on 25.0 % of the images; with 1200 training images, fine-tuning is expected to "
        "remove 30 % of these errors"
    )
    several = sentences(measured(0.7, 0.75, 0.9))
    assert several[2] == (
        "a head on middle and all later layers side by side reaches 0.9000 against 0.7500 on the penultimate, so the last "
        "layers lose some of what the classes need"
    )
    assert several[3] == "fine-tuning recovers that, and is expected to beat every head by a point or more"


@pytest.mark.parametrize(
    ("measurements", "reason"),
    [
        (measured(0.9, 0.7, 0.9), "middle alone beats the penultimate by log loss (accuracy 0.9000 against 0.7000), so"),
        (measured(0.6, 0.9, 0.9, transfer_gain=-math.inf), "the network's weights are random, so there are no training images"),
        (measured(0.6, 0.9, 0.9, transfer_gain=-0.1), "random weights do nearly as well, so the images are unlike those"),
        (measured(0.6, 0.9, 0.9, transfer_gain=0.02), "random weights do nearly as well, so the images are unlike those"),
    ],
)  # fmt: skip
def test_the_images_are_unlike_those_of_the_pretraining_for_a_reason(measurements: Measurements, reason: str) -> None:
    assert sentences(measurements)[1].startswith(reason)


def test_the_reason_for_no_advice_is_chance() -> None:
    assert sentences(measured(0.5, 0.52, 0.52)) == [
        "no head is better than guessing: of 100 images, the best head, on penultimate, classifies 0.5200 correctly, and "
        "always predicting the commonest class 0.5000",
        "check the labels: the page that the command writes shows which images are taken for which class",
    ]


def test_further_measurements_are_reasons_too() -> None:
    further = dataclasses.replace(
        measured(0.7, 0.97, 0.97, images=150),
        random_weights=RandomWeights(
            40, {"middle": 0.7, "penultimate": 0.9}, {"middle": 0.6, "penultimate": 0.5}, 0.3, 0.1
        ),
        classifier=ClassifierConfidence(1000, confidence=0.512, energy=-5.0, top1=0.703),
    )
    assert sentences(further)[-2:] == [
        "the same network with random weights reaches 0.6000 on its best layer, the pretrained one 0.9000, on 40 images",
        "the network's own classifier gives the most probable of its 1000 classes a mean probability of 0.51 on these images; "
        "its accuracy on ImageNet is 0.70",
    ]


@pytest.mark.parametrize(
    ("recommendation", "layer", "command"),
    [
        ("none", "", "featx fit-head cache/pets.h5 --models here --report"),
        ("head", "penultimate", "featx fit-head cache/pets.h5 --models here"),
        ("head-inner", "a,b", "featx fit-head cache/pets.h5 --models here --layer a --layer b"),
        ("tune-all", "", "featx fit-head cache/pets.h5 --models here && featx promote --finetune --models here"),
        (
            "tune-part",
            "layer1",
            "featx fit-head cache/pets.h5 --models here && featx promote --finetune --from layer2.0 --models here",
        ),
    ],
)
def test_the_command_follows_from_the_recommendation(recommendation: str, layer: str, command: str) -> None:
    decision = Decision(recommendation, layer, expected_accuracy=0.9, expected_gain=0.0)
    assert next_command(measured(0.7, 0.97, 0.97), decision, Path("here")) == command
