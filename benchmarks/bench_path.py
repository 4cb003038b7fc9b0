"""What choosing a hyper-parameter and fitting cost, against the library that people would use: one JSON line with versions.

    python benchmarks/bench_path.py                                          # made features; about two minutes
    python benchmarks/bench_path.py --shapes 5000x768x2 --kinds logreg --rounds 3
    python benchmarks/bench_path.py --shapes --features cache/trashnet--mobilenet_v1_075.h5 --kinds logreg svm svm-rbf mlp
    python benchmarks/bench_path.py --shapes 1087x84x600 --kinds logreg svm --no-library     # many classes, featx alone
    python benchmarks/bench_path.py --agreement --no-library --shapes --features cache/*.h5  # C against that of the whole path

Both sides get the same standardised features and folds, and one thread. They take turns, each in a process of its own, and the
median of their CPU seconds counts: the search over five folds and the refit, without imports.

The other side is, for ``logreg``, ``LogisticRegressionCV`` over the same 45 values of C, at its default tolerance; for ``svm``
``LinearSVC`` at its default tolerance, at the values of C that featx tried, which are far cheaper for it than all 45; for
``svm-rbf`` ``SVC`` at the same six values; for ``mlp`` ``MLPClassifier`` with as many hidden units and two penalties.
``library_gap`` is how far the objective of the library's refit lies above that of featx at the same C, relative to it, in
float64.

``--agreement`` also searches the whole path, every value exactly. It tells how many steps of the grid the chosen C lies from
that of the whole path, and by how much its loss there is higher.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_heads import load, make, objective, training

KINDS = ("logreg", "svm", "svm-rbf", "mlp")


def cpu() -> float:
    """The CPU seconds of this process and its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def make_from(file: str, folder: str) -> None:
    """Write the standardised training rows of a feature file, as ``bench_heads.make`` does."""
    from featx.features.feature_set import FeatureSet

    features = FeatureSet.load(file)
    rows = features.rows("train")
    X = np.asarray(features.features)[rows].astype(np.float64)
    deviation = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    np.save(Path(folder) / "Z.npy", Z.astype(np.float32))
    np.save(Path(folder) / "y.npy", np.unique(features.labels[rows], return_inverse=True)[1])


def estimator(kind: str) -> Any:
    """What featx fits."""
    if kind == "mlp":
        from featx.heads.estimators.mlp import MlpEstimator

        return MlpEstimator()
    if kind == "svm-rbf":
        from featx.heads.estimators.svm import KernelSvmEstimator

        return KernelSvmEstimator()
    from featx.heads.estimators.linear import LinearPathEstimator

    return LinearPathEstimator(hinge=kind == "svm")


def folded(folder: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """Features, labels and training data in featx's folds, which allow for classes of one row."""
    import dataclasses

    from featx.heads.folds import make_folds

    Z, y = load(folder)
    return Z, y, dataclasses.replace(training(Z, y, 0), folds=make_folds(y, np.arange(len(y)), folds=5, seed=0))


def own(folder: str, kind: str, whole: bool = False) -> dict[str, Any]:
    """featx: the search and the refit."""
    from featx.heads.search import search

    Z, y, rows = folded(folder)
    model = estimator(kind)
    if whole:
        model.first_looks = (0, 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = cpu()
        found = search(model, rows, gives_logits=kind == "logreg", extends=kind != "mlp")
        predictor = model.fit(rows, found.chosen)
        seconds = cpu() - before
    tried = {t.candidate: t.loss for t in found.tried}
    told = {"seconds": seconds, "chosen": found.chosen, "loss": tried[found.chosen], "tried": tried}
    if kind in ("logreg", "svm"):
        told["objective"] = objective_of(Z, y, predictor.weight, predictor.bias, found.chosen, kind)
    return {**told, "warnings": [str(w.message) for w in caught]}


def objective_of(Z: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, C: float, kind: str) -> float:
    """scikit-learn's objective of logreg or svm, in float64."""
    if len(weight) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    if kind == "logreg":
        return objective(Z, y, weight, bias, C)
    sign = np.where(y[:, None] == (np.arange(len(weight)) if len(weight) > 1 else 1), 1, -1)
    slack = np.maximum(0, 1 - sign * (Z.astype(np.float64) @ weight.T + bias))
    return float(0.5 * (weight**2).sum() + 0.5 * (bias**2).sum() + C * (slack**2).sum())


def theirs(folder: str, kind: str, candidates: list[float]) -> dict[str, Any]:
    """The library: the search and the refit."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC, LinearSVC

    from featx.heads.estimators.linear import C_PATH

    Z, y, rows = folded(folder)
    folds = list(rows.folds)
    grids: dict[str, Any] = {
        "svm": lambda: GridSearchCV(LinearSVC(), {"C": candidates}, cv=folds),
        "svm-rbf": lambda: GridSearchCV(SVC(), {"C": candidates}, cv=folds),
        "mlp": lambda: GridSearchCV(MLPClassifier((512,), random_state=0), {"alpha": [1.0, 10.0]}, cv=folds),
        "logreg": lambda: LogisticRegressionCV(
            Cs=list(C_PATH), cv=folds, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = grids[kind]()
        before = cpu()
        model.fit(Z, y)
        seconds = cpu() - before
    if kind == "mlp":
        return {"seconds": seconds, "chosen": model.best_params_["alpha"]}
    chosen = float(np.ravel(model.C_)[0]) if kind == "logreg" else model.best_params_["C"]
    told = {"seconds": seconds, "chosen": chosen}
    if kind in ("logreg", "svm"):
        refit = model if kind == "logreg" else model.best_estimator_
        weight, bias = refit.coef_, refit.intercept_
        least = estimator(kind).fit(training(Z, y, 0), chosen)
        reached = objective_of(Z, y, weight.astype(np.float64), bias.astype(np.float64), chosen, kind)
        told["gap"] = reached / objective_of(Z, y, least.weight, least.bias, chosen, kind) - 1
    return told


def child(name: str, *arguments: Any) -> dict[str, Any]:
    """Run one of the functions above in a process of its own, with one thread."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, __file__, "--child", name, json.dumps(arguments)],
        capture_output=True, text=True, check=True, env={**os.environ, **threads},
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(folder: str, kind: str, *, rounds: int, library: bool, agreement: bool) -> dict[str, Any]:
    """One kind on one set of features."""
    ours, others = [], []
    for _ in range(rounds):
        ours.append(child("own", folder, kind))
        if library:
            others.append(child("theirs", folder, kind, [float(c) for c in ours[0]["tried"]]))
    seconds = statistics.median([r["seconds"] for r in ours])
    told = {
        "featx_seconds": seconds, "featx_chosen": ours[0]["chosen"], "featx_loss": ours[0]["loss"],
        "featx_tried": len(ours[0]["tried"]), "warnings": ours[0]["warnings"],
    }  # fmt: skip
    if others:
        other = statistics.median([r["seconds"] for r in others])
        told |= {
            "library_seconds": other, "ratio": other / seconds, "library_chosen": others[0]["chosen"],
            "library_gap": others[0].get("gap"),
        }  # fmt: skip
    if agreement:
        whole = child("own", folder, kind, True)
        order = sorted(whole["tried"], key=float)
        losses = {float(c): loss for c, loss in whole["tried"].items()}
        places = [order.index(repr(r["chosen"])) for r in (ours[0], whole)]
        told |= {
            "whole_seconds": whole["seconds"], "whole_chosen": whole["chosen"], "steps_apart": places[0] - places[1],
            "loss_above": losses[ours[0]["chosen"]] - whole["loss"],
        }  # fmt: skip
    return told


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["5000x768x2", "5000x768x20"], help="rows x width x classes")
    parser.add_argument("--features", nargs="*", default=[], help="feature files")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["logreg"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--no-library", action="store_true")
    parser.add_argument("--agreement", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, arguments = options.child
        print(json.dumps({"own": own, "theirs": theirs}[name](*json.loads(arguments))))
        return
    results: dict[str, Any] = {}
    for source in (*options.shapes, *options.features):
        with tempfile.TemporaryDirectory() as folder:
            if source in options.shapes:
                make(folder, *map(int, source.split("x")))
            else:
                make_from(source, folder)
            results[Path(source).stem] = {
                kind: measure(
                    folder, kind, rounds=options.rounds, library=not options.no_library, agreement=options.agreement
                )
                for kind in options.kinds
            }
    print(json.dumps({
        "results": results, "numpy": version("numpy"), "scikit-learn": version("scikit-learn"), "cores": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
