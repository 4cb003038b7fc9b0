"""How well the influence of training images agrees with heads that are fitted again without each of them.

    OMP_NUM_THREADS=1 python benchmarks/inspect_attribution.py cache/hymenoptera--*.h5

For each feature file and each kind of head: the Spearman rank correlation, over the training images, between the predicted and
the true change of the log-odds of the predicted class, for images of the held-out split drawn by a seed. The true change is
that of ``Head.fit`` with the same C on all other training images, with features that are standardised anew. About half a
minute for each file of 245 training images. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy
from scipy.special import logsumexp
from scipy.stats import spearmanr

import featx
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.influence import LeaveOneOut
from featx.retrieval.explanation import log_odds_gradient
from featx.retrieval.training_images import training_images

KINDS = ("ridge", "logreg", "svm")


def log_odds(logits: np.ndarray, label: int) -> np.ndarray:
    """(...,) of (..., C) logits."""
    others = np.delete(logits, label, axis=-1)
    return np.asarray(logits[..., label] - logsumexp(others, axis=-1))


def compare(features: FeatureSet, kind: str, *, images: int, seed: int, most: int) -> dict[str, Any]:
    """The rank correlation for each of some held-out images, with and without the correction of the standardisation.

    Args:
        features: with splits.
        kind: of head.
        images: the number of held-out images.
        seed: by which they are drawn, and the training images that are left out.
        most: the number of training images that are left out, one at a time.
    """
    rng = np.random.default_rng(seed)
    head = Head(kind).fit(features)
    train, held_out = features.rows("train"), features.rows(features.held_out())
    judged = np.sort(rng.choice(held_out, min(images, len(held_out)), replace=False))
    left_out = np.sort(rng.choice(len(train), min(most, len(train)), replace=False))
    X, logits = features.features[judged], head.decision_function(features.features[judged])
    labels = logits.argmax(axis=1)
    started = time.perf_counter()
    predicted, fixed = (predict(head, features, X, logits, labels, restandardise=anew) for anew in (True, False))
    seconds = time.perf_counter() - started
    true = np.empty((len(judged), len(left_out)))
    for column, image in enumerate(left_out):
        without = Head(kind, C=head.C_, calibrate="none").fit(features, rows=np.delete(train, image))
        again = without.decision_function(X) / head.temperature_
        true[:, column] = [log_odds(logits[i], c) - log_odds(again[i], c) for i, c in enumerate(labels)]
    return {
        "kind": kind,
        "C": head.C_,
        "left_out": len(left_out),
        "correlations": correlations(predicted[:, left_out], true),
        "correlations_without_correction": correlations(fixed[:, left_out], true),
        "relative_error": float(np.linalg.norm(predicted[:, left_out] - true) / np.linalg.norm(true)),
        "seconds": round(seconds, 2),
    }


def predict(
    head: Head, features: FeatureSet, X: np.ndarray, logits: np.ndarray, labels: np.ndarray, *, restandardise: bool
) -> np.ndarray:
    """(images, training images) the predicted changes."""
    loo = LeaveOneOut(head, training_images(head, features).data, restandardise=restandardise)
    Z = (X.astype(np.float64) - head.mean_) / head.scale_
    along = [
        log_odds_gradient(row, label, head.task_) / head.temperature_ for row, label in zip(logits, labels, strict=True)
    ]
    return np.stack([loo.changes(z, direction) for z, direction in zip(Z, along, strict=True)])


def correlations(found: np.ndarray, true: np.ndarray) -> list[float]:
    """The rank correlation for each image."""
    return [round(float(spearmanr(a, b)[0]), 4) for a, b in zip(found, true, strict=True)]


def measure(files: Iterable[str], *, images: int = 8, seed: int = 0, most: int = 10_000) -> dict[str, Any]:
    """Compare all kinds of heads on all feature files."""
    results = {}
    for file in files:
        features = FeatureSet.load(file)
        results[features.source.stem if features.source else file] = [
            compare(features, kind, images=images, seed=seed, most=most) for kind in KINDS
        ]
    least = min(min(result["correlations"]) for each in results.values() for result in each)
    return {"attribution": results, "least_correlation": least, "images": images, "seed": seed}


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="feature files with the splits train and val or test")
    parser.add_argument("--images", type=int, default=8, help="held-out images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=10_000, help="training images that are left out")
    given = parser.parse_args()
    versions = {"featx": featx.__version__, "numpy": np.__version__, "scipy": scipy.__version__}
    facts = measure(given.files, images=given.images, seed=given.seed, most=given.most)
    print(json.dumps({**facts, "versions": {**versions, "python": platform.python_version()}}))


if __name__ == "__main__":
    main()
