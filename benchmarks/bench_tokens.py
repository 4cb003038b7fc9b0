"""What coarse grids of a map, and heads that see more than a weighted sum, are worth, and what they cost. Prints JSON lines.

    featx extract ../shared/datasets/trashnet --backbone mobilenet_v1_075 --pooling grid7 --dtype float16 \
        --weights ../shared/weights/mobilenet_v1_075.safetensors
    python benchmarks/bench_tokens.py cache/trashnet--mobilenet_v1_075.h5 --splits 5
    python benchmarks/bench_tokens.py cache/trashnet--mobilenet_v1_075.h5 --splits 10 --shots 1,2,4,8,16

Each file holds the whole last map of each image, 7 x 7 places (``penultimate:grid7``), from which the poolings are computed.
All labelled images are split at random, stratified, 70 % for training, ``--splits`` times; with ``--shots``, heads get only so
many training images of each class. One line is printed for each way: ``accuracy`` and ``log_loss``, means over the splits;
``gain`` over the first way, logistic regression on the mean of the map, in points, with ``standard_error`` over the images (the
mean of each image over the splits it is tested in is one number), ``better`` and ``worse``, the splits in which it is more and
less accurate, and ``log_loss_gain``; ``cpu_seconds`` of a fit; and ``bytes`` of float16 features an image.

The ways are a kind of head and what it is fitted to. ``vote`` is the mean of the probabilities of logreg, svm --kernel rbf and
bilinear. ``attentive`` pools the places by learned queries, as attentive probing does (8 queries, each for its share of the
channels, trained by L-BFGS together with a linear layer). ``frofa`` fits logreg to each feature and 8 copies of it of another
brightness (Bär et al., 2024), each copy as a view. ``plain deviations``: features are standardised by the deviations of the
training images, however few they are; otherwise these are steadied (``featx.heads.training_data.steadied``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featx.backbones.feature_extractor import pool
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.layer_spec import LayerNode

SIDE = 7
QUERIES, PENALTY, QUERY_PENALTY = 8, 1e-2, 1e-3
COPIES, BRIGHTNESS = 8, 0.5

Way = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From (n,) training rows, (m,) test rows and a seed to (m, C) probabilities."""


def poolings(maps: np.ndarray) -> dict[str, np.ndarray]:
    """(N, 49, D) maps to vectors, by the name of the pooling."""
    whole = torch.from_numpy(maps).unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 2)
    names = ("avg", "max", "gem", "grid2", "grid3", "tokens:16")
    found = {name: pool(LayerNode("map", name), whole, (224, 224)).numpy() for name in names}
    return {**found, "avg and std": np.concatenate([found["avg"], maps.std(axis=1)], axis=1)}


def ways(features: FeatureSet, maps: np.ndarray, few: bool) -> dict[str, tuple[Way, int]]:
    """What is compared, by name, with the numbers of an image that it takes; the first is what others are compared with."""
    pooled, y, width = poolings(maps), features.labels, maps.shape[2]

    def head(pooling: str, kind: str, *, steadied: bool = True, **options: Any) -> tuple[Way, int]:
        X = pooled[pooling]
        backbone = features.backbone if steadied else {}
        data = dataclasses.replace(features, features=X, layer="penultimate", backbone=backbone)
        return lambda train, test, seed: fitted(data, train, kind, seed, **options).predict_values(X[test]), X.shape[1]

    def brightened(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        views = brightness_copies(pooled["avg"], seed)
        data = dataclasses.replace(features, features=views, layer="penultimate", backbone={})
        return fitted(data, train, "logreg", seed).predict_values(pooled["avg"][test])

    found = {"logreg, avg": head("avg", "logreg"), "bilinear, avg": head("avg", "bilinear")}
    voters = [found["logreg, avg"], head("avg", "svm", kernel="rbf"), found["bilinear, avg"]]
    found["svm-rbf, avg"] = voters[1]
    found["vote, avg"] = lambda *of: np.mean([way(*of) for way, _ in voters], axis=0), width
    if few:
        plain = {"logreg, avg, plain deviations": head("avg", "logreg", steadied=False)}
        return {**plain, **found, "frofa, avg, plain deviations": (brightened, width)}
    for pooling in ("grid2", "grid3", "tokens:16", "max", "gem", "avg and std"):
        found[f"logreg, {pooling}"] = head(pooling, "logreg")
    found["bilinear, grid2"] = head("grid2", "bilinear")
    tokens = pooled["tokens:16"].reshape(len(y), 16, -1)
    found["attentive, tokens:16"] = lambda *of: attentive(tokens, y, *of), 16 * width
    return found


def fitted(data: FeatureSet, train: np.ndarray, kind: str, seed: int, **options: Any) -> Head:
    """A head of some training rows. Every split has all classes, so that probabilities are in the order of the labels."""
    return Head(kind, seed=seed, **options).fit(data, rows=train)


def brightness_copies(X: np.ndarray, seed: int) -> np.ndarray:
    """(N, D) to (N, 9, D) float32: each feature, and copies of it whose brightness is shifted."""
    rng = np.random.default_rng(seed)
    low, high = X.min(axis=1, keepdims=True), X.max(axis=1, keepdims=True)
    unit = (X - low) / np.maximum(high - low, 1e-9)
    copies = [np.clip(unit + rng.uniform(-BRIGHTNESS, BRIGHTNESS, (len(X), 1)), 0, 1) for _ in range(COPIES)]
    return np.stack([X, *(copy * (high - low) + low for copy in copies)], axis=1).astype(np.float32)


def attentive(tokens: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Pool (N, T, D) tokens by learned queries, and classify the result."""
    count, width = int(y.max()) + 1, tokens.shape[2]
    rows = tokens[train].reshape(-1, width)
    mean, deviation = rows.mean(axis=0), tokens[train].mean(axis=1).std(axis=0) + 1e-6
    values = torch.from_numpy((tokens - mean) / deviation).float()
    keys = torch.from_numpy((tokens - mean) / (rows.std(axis=0) + 1e-6)).float() / width**0.5
    queries = torch.randn(QUERIES, width, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    weight, bias = torch.zeros(count, width, requires_grad=True), torch.zeros(count, requires_grad=True)
    targets = torch.from_numpy(y[train])

    def logits(some: np.ndarray) -> torch.Tensor:
        shares = torch.softmax(keys[some] @ queries.T, dim=1)
        parts = values[some].unflatten(2, (QUERIES, -1))
        return torch.einsum("ntq,ntqd->nqd", shares, parts).flatten(1) @ weight.T + bias

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        penalties = PENALTY * weight.square().sum() + QUERY_PENALTY * queries.square().sum()
        loss = torch.nn.functional.cross_entropy(logits(train), targets) + penalties / 2
        loss.backward()
        return loss

    optimiser = torch.optim.LBFGS([queries, weight, bias], max_iter=60, line_search_fn="strong_wolfe")
    optimiser.step(closure)
    with torch.no_grad():
        return torch.softmax(logits(test), dim=1).numpy()


def split(y: np.ndarray, seed: int, shots: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows, stratified: 70 % of each class, of which ``shots`` are trained on unless 0, and the others."""
    rng, train, test = np.random.default_rng(seed), [], []
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        cut = round(0.7 * len(rows))
        train.append(rows[: min(shots or cut, cut)])
        test.append(rows[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def judged(way: Way, y: np.ndarray, splits: int, shots: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(splits, N) whether each image is right, NaN where it is not tested; (splits,) log losses; CPU seconds of a fit."""
    right, losses, began = np.full((splits, len(y)), np.nan), np.zeros(splits), time.process_time()
    for seed in range(splits):
        train, test = split(y, seed, shots)
        p = way(train, test, seed)
        right[seed, test] = p.argmax(axis=1) == y[test]
        losses[seed] = -np.log(np.clip(p[np.arange(len(test)), y[test]], 1e-12, 1)).mean()
    return right, losses, (time.process_time() - began) / splits


def measure(file: Path, splits: int, shots: int = 0, only: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """One line for each way, or for those that are named, among them the one that others are compared with."""
    features = FeatureSet.load(file, f"penultimate:grid{SIDE}")
    features = features.take(np.flatnonzero(features.labels >= 0))
    y, maps = features.labels, np.asarray(features.features, dtype=np.float32).reshape(len(features), SIDE * SIDE, -1)
    plain = None
    for name, (way, width) in ways(features, maps, bool(shots)).items():
        if only and plain and name not in only:
            continue
        right, losses, seconds = judged(way, y, splits, shots)
        plain = plain or (right, losses)
        tested = ~np.isnan(right).all(axis=0)
        gain = np.nanmean(right[:, tested], axis=0) - np.nanmean(plain[0][:, tested], axis=0)
        by_split = np.nanmean(right, axis=1) - np.nanmean(plain[0], axis=1)
        yield {
                "file": file.name, "shots": shots, "way": name,
                "accuracy": round(float(np.nanmean(right)), 4), "log_loss": round(float(losses.mean()), 4),
                "gain": round(100 * float(by_split.mean()), 2),
                "standard_error": round(100 * float(gain.std(ddof=1)) / len(gain) ** 0.5, 2),
                "better": int((by_split > 0).sum()), "worse": int((by_split < 0).sum()),
                "log_loss_gain": round(float((plain[1] - losses).mean()), 4),
                "cpu_seconds": round(seconds, 2), "bytes": 2 * width,
        }  # fmt: skip


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--shots", type=lambda text: [int(part) for part in text.split(",")], default=[0])
    parser.add_argument("--way", action="append", default=[], help="measure this way only; may be repeated")
    options = parser.parse_args()
    versions = {name: version(name) for name in ("featx", "torch", "numpy")}
    for file in options.files:
        for shots in options.shots:
            for line in measure(file, options.splits, shots, options.way):
                print(json.dumps({"benchmark": "tokens", **line, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
