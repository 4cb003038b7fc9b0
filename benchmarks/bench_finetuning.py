r"""What fine-tuning gives over the head that it starts at, by settings. Prints one JSON line per setting, with versions.

    python benchmarks/bench_finetuning.py ../shared/datasets/trashnet --weights ../shared/weights/mobilenet_v1_075.safetensors \
        --settings '{}' --settings '{"last": 3}' --settings '{"start": "random"}'

All images are dealt into five folds (``--folds`` says how many of them judge, one after the other): the head is fitted to the
others but for a fifth of them, which chooses epoch and interpolation, and the network is trained from there. ``head`` and
``tuned`` are accuracies over all images that judged, each by a head and a network that never saw it; McNemar's exact test
compares them image by image. ``"start": "random"`` trains from a head of random weights instead (as ``torch.nn.Linear`` draws
them) with the same budget; the comparison is with the fitted head all the same. ``"teacher"`` is the file of a head or model
that teaches, ``"search": 12`` tries settings first. Further settings are those of ``featx.promotion.config.FineTuning``. Each
setting is also compared with the first one, by McNemar's test of the same images, and has its gain in points a minute.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import featx
from featx.data.splits import hash_group_splits, join_groups
from featx.features.feature_set import FeatureSet
from featx.heads.folds import make_folds
from featx.heads.head import Head
from featx.heads.predictors import LinearPredictor
from featx.metrics.paired import PairedTest
from featx.promotion.config import FineTuning
from featx.promotion.promotion import promote


def split(features: FeatureSet, rest: np.ndarray, judge: np.ndarray) -> FeatureSet:
    """The features with a fold as test, a fifth of the others as val."""
    splits = np.full(len(features.labels), "", dtype=object)
    splits[judge] = "test"
    chooses = hash_group_splits(features.keys[rest], None, features.labels[rest]) == "test"
    splits[rest] = np.where(chooses, "val", "train")
    return dataclasses.replace(features, splits=splits)


def random_head(head: Head, seed: int) -> Head:
    """A head like another, with weights as ``torch.nn.Linear`` draws them and no standardisation."""
    classes, width = head.predictor_.weight.shape
    rng, limit = np.random.default_rng(seed), width**-0.5
    other = copy.copy(head)
    other.mean_, other.scale_ = np.zeros_like(head.mean_), np.ones_like(head.scale_)
    other.postprocess_ = dataclasses.replace(head.postprocess_, temperature=1.0, offset=np.zeros(classes))
    other.predictor_ = LinearPredictor(
        rng.uniform(-limit, limit, (classes, width)), rng.uniform(-limit, limit, classes)
    )
    return other


def measure(features: FeatureSet, given: dict[str, Any], folds: int, out: Path) -> tuple[dict[str, Any], np.ndarray]:
    """One setting over some folds, and which of the images that judged its networks get right."""
    given = dict(given)
    start, teacher = given.pop("start", "head"), given.pop("teacher", None)
    pairs, losses, seconds, trained, alphas, rights = [], [], [], [], [], []
    every = np.flatnonzero(np.isin(features.splits, ["train", "val", "test"]) & (features.labels >= 0))
    dealt = make_folds(features.labels[every], join_groups(features.keys[every], None), folds=5, seed=1)
    for fold, (rest, judge) in enumerate(dealt[:folds]):
        own = split(features, every[rest], every[judge])
        head = Head("logreg").fit(own)
        begin = random_head(head, fold) if start == "random" else head
        result = promote(
            begin,
            finetune=True,
            settings=FineTuning(**{"repeats": 0, **given}),
            features=own,
            teacher=teacher,
            out=out / "model.safetensors",
        )
        assert result.run
        rows = every[judge]
        truth = np.array([head.classes_.index(own.classes[label]) for label in own.labels[rows]])
        said = head.decision_function(np.asarray(own.features[rows])).argmax(axis=1)
        tuned = {*result.run.paired.second_only}
        begun = begin.decision_function(np.asarray(own.features[rows])).argmax(axis=1) == truth
        missed = {*result.run.paired.first_only}
        right = np.array(
            [path in tuned or (was and path not in missed) for path, was in zip(own.paths[rows], begun, strict=True)]
        )
        rights.append(right)
        pairs.append(PairedTest.from_predictions(own.paths[rows], truth, said, np.where(right, truth, -1)))
        losses.append((head.evaluate(own).log_loss, result.run.report.log_loss))  # type: ignore[union-attr]
        seconds.append(result.seconds)
        trained.append(result.run.seconds)
        alphas.append(result.run.history.alpha)
    together = PairedTest.pooled(pairs)
    return {
        "start": start, "teacher": teacher, **given, "n": together.n, "head": together.first_accuracy,
        "tuned": together.first_accuracy + together.gained / together.n, "p": together.p_value,
        "per_fold": [pair.gained for pair in pairs], "alphas": alphas,
        "head_log_loss": float(np.mean(losses, axis=0)[0]), "tuned_log_loss": float(np.mean(losses, axis=0)[1]),
        "seconds": [round(s) for s in seconds],
        "gain_per_minute": 100 * together.gained / together.n / max(1e-9, float(np.mean(trained)) / 60),
    }, np.concatenate(rights)  # fmt: skip


def compared(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """McNemar's test of which images two settings get right."""
    truth = np.zeros(len(first), dtype=int)
    names = np.array([str(number) for number in range(len(first))], dtype=object)
    return PairedTest.from_predictions(names, truth, np.where(first, 0, -1), np.where(second, 0, -1))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--backbone", default="mobilenet_v1_075")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--settings", action="append", required=True, help="JSON; may be repeated")
    parser.add_argument("--folds", type=int, default=3)
    options = parser.parse_args()
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        backbone = featx.load_backbone(options.backbone, weights=options.weights)
        features = featx.extract(options.data, backbone, cache=Path(folder) / "cache").load()
        first: np.ndarray | None = None
        for text in options.settings:
            found, right = measure(features, json.loads(text), options.folds, Path(folder))
            first = right if first is None else first
            found["against_the_first_setting"] = {
                "gained": int(right.sum() - first.sum()), "p": compared(first, right).p_value
            }  # fmt: skip
            print(json.dumps({"data": Path(options.data).name, **found, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
