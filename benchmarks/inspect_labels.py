"""How well wrong labels are found, on real features with labels flipped from fixed seeds. Prints one JSON line with versions.

    featx extract ../shared/datasets/trashnet -b mobilenet_v1_075 --weights ../shared/weights/mobilenet_v1_075.safetensors
    OMP_NUM_THREADS=1 python benchmarks/inspect_labels.py cache/trashnet--*.h5 --share 0.05       # half a minute
    OMP_NUM_THREADS=1 python benchmarks/inspect_labels.py cache/hymenoptera--*.h5 --share 0.10

For each feature file, a share of the labels is replaced by another class, each alike. Data sets have wrong labels of their own,
which count as right here. ``auroc`` and ``average_precision`` are those of the score against the flips, the mean over the seeds
and, for ``featx``, of each:

``featx``: what ``featx inspect`` ranks by, the head out of fold averaged with the neighbours.
``head``: the head out of fold alone. ``datalab``: the label score of cleanlab's Datalab from these same probabilities; null if
cleanlab is not installed. ``neighbours``: the ten neighbours alone.

``expected`` is the number of wrong labels by confident learning, ``precision`` and ``recall`` those of ``is_label_issue``,
``suggestions`` the share of the flipped labels whose suggestion is the class before. ``seconds``: of the out-of-fold
predictions and the scores of one seed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.label_issues import LabelIssues, find_label_issues, with_votes
from featx.inspection.neighbours import Neighbours, nearest_neighbours
from featx.inspection.out_of_fold import OutOfFold, predict_out_of_fold

SEEDS = 10


def measure(files: Sequence[str | Path], share: float, *, seeds: int = SEEDS) -> dict[str, Any]:
    """Flip labels of the images of some feature files, and measure how well they are found: {file: figures}."""
    return {Path(file).stem: _measure(FeatureSet.load(file), share, seeds) for file in files}


def flipped(features: FeatureSet, share: float, seed: int) -> tuple[FeatureSet, np.ndarray]:
    """Replace a share of the labels by another class: the changed set, and (N,) bool which labels are wrong now."""
    rng, labels = np.random.default_rng(seed), features.labels.copy()
    labelled = np.flatnonzero(labels >= 0)
    rows = rng.choice(labelled, round(share * len(labelled)), replace=False)
    labels[rows] = (labels[rows] + rng.integers(1, len(features.classes), len(rows))) % len(features.classes)
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[rows] = True
    return dataclasses.replace(features, labels=labels), wrong


def _measure(features: FeatureSet, share: float, seeds: int) -> dict[str, Any]:
    neighbours = nearest_neighbours(features)
    runs = [_run(features, neighbours, share, seed) for seed in range(seeds)]
    found: dict[str, Any] = {"images": len(features), "flipped": share, "seeds": seeds}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found[name] = None if None in values else round(float(np.mean(values)), 4)
    found["auroc_featx_each"] = [round(run["auroc_featx"], 4) for run in runs]
    return found


def _run(features: FeatureSet, neighbours: Neighbours, share: float, seed: int) -> dict[str, float | None]:
    changed, wrong = flipped(features, share, seed)
    started = time.perf_counter()
    predicted = predict_out_of_fold(changed, Head("logreg"))
    issues = find_label_issues(predicted, len(features), neighbours)
    seconds = time.perf_counter() - started
    rows, y = predicted.rows, predicted.y
    wrong = wrong[rows]
    nothing = dataclasses.replace(predicted, outputs=np.full_like(predicted.outputs, 1 / len(predicted.classes)))
    own = np.arange(len(y)), y
    scores = {
        "featx": issues.scores[rows],
        "head": predicted.outputs[own],
        "datalab": _datalab(predicted),
        "neighbours": with_votes(nothing, len(features), neighbours)[own],
    }
    out: dict[str, float | None] = {}
    for name, score in scores.items():
        out[f"auroc_{name}"] = None if score is None else float(roc_auc_score(wrong, -score))
        out[f"average_precision_{name}"] = None if score is None else float(average_precision_score(wrong, -score))
    return out | _of_issues(issues, rows, wrong, features) | {"seconds": seconds}


def _of_issues(
    issues: LabelIssues, rows: np.ndarray, wrong: np.ndarray, features: FeatureSet
) -> dict[str, float | None]:
    found = issues.is_issue[rows]
    before = np.array(features.classes, dtype=object)[features.labels[rows]]
    return {
        "wrong": int(wrong.sum()),
        "expected": issues.expected,
        "precision": float(np.mean(wrong[found])) if found.any() else 0.0,
        "recall": float(np.mean(found[wrong])),
        "suggestions": float(np.mean((issues.suggested[rows] == before)[wrong])),
    }


def _datalab(predicted: OutOfFold) -> np.ndarray | None:
    """The label score of Datalab, from the probabilities of the head; None if cleanlab is not installed."""
    try:
        from cleanlab import Datalab
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        lab = Datalab(data={"label": predicted.y.tolist()}, label_name="label", verbosity=0)
        lab.find_issues(pred_probs=predicted.outputs, issue_types={"label": {}})
    return lab.get_issues("label")["label_score"].to_numpy()


def main() -> None:
    """Print the figures of some feature files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="feature files")
    parser.add_argument("--share", type=float, default=0.05, help="share of the labels that are flipped")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    found = measure(arguments.files, arguments.share, seeds=arguments.seeds)
    versions = {}
    for name in ("featx", "numpy", "scikit-learn", "cleanlab"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    print(json.dumps({"label_errors": found, "versions": versions}))


if __name__ == "__main__":
    main()
