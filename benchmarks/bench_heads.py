"""How fast heads are fitted, against scikit-learn in the same run. Prints one JSON line with versions.

    python benchmarks/bench_heads.py                   # all shapes; about an hour on two cores, most of it scikit-learn's
    python benchmarks/bench_heads.py --shapes 244x768x2 --hymenoptera cache/hymenoptera--mobilenet_v1_075.h5
    python benchmarks/bench_heads.py --cv --shapes 244x768x2 2000x512x10   # against LogisticRegressionCV at its defaults
    python benchmarks/bench_heads.py --memory 1000000  # heads on so many rows of 2,048 float16 in a file, and their peak memory

Features come from a fixed seed: rectified, their mean far from zero, of falling variance, classes that overlap. They are
standardised before any clock starts. Every measurement is a process of its own; featx and scikit-learn take turns, and of each
the median counts.

``one_fit``: one C to a relative gap of the objective of 1e-6, computed in float64 against the least objective that either
found. scikit-learn's ``LogisticRegression`` (lbfgs, float32) gets the largest tolerance that reaches it, or the smallest tried.

``path``: 45 values of C, 5 folds, the refit and the held-out losses. scikit-learn's side is extrapolated: for five values of C
the first fold is fitted at the largest tolerance that reaches a gap of 1e-4 (or the smallest tried), and the mean time is
multiplied by 45 x 5 + 1. ``LogisticRegressionCV`` starts each C from the last: so the five are also fitted one after the other
from each other's solutions, and the faster of the two ways counts.

``cv``: the same path and the refit by ``LogisticRegressionCV`` at its default tolerance (1e-4) and number of iterations, as
most people run it, in turns with featx; ``sklearn_not_converged`` is the share of its fits that ended at the 100 iterations.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_bytes

C_SHOWN = (1e-4, 1e-2, 1e-1, 1.0, 1e2)
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def features(n: int, d: int, k: int, *, seed: int = 0, overlap: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float32 features as a network's last layer gives them, and (n,) labels of k classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % k)
    inner = min(128, d)
    centres = rng.normal(size=(k, inner)) * overlap * 3 / np.sqrt(inner)
    hidden = rng.normal(size=(n, inner)) * np.arange(1, inner + 1) ** -0.5 * 3 + centres[y]
    X = hidden @ (rng.normal(size=(inner, d)) / np.sqrt(inner)) + 0.3 * rng.normal(size=(n, d)) + 0.5
    return np.maximum(X, 0).astype(np.float32), y


def make(folder: str, n: int, d: int, k: int) -> dict[str, Any]:
    """Write standardised features and labels, so that no measured process has to make them."""
    X, y = features(n, d, k)
    X -= X.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = X.std(axis=0, dtype=np.float64).astype(np.float32)
    X /= np.where(deviation > 0, deviation, 1)
    np.save(Path(folder) / "Z.npy", X)
    np.save(Path(folder) / "y.npy", y)
    return {}


def load(folder: str, *, fold: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The same, or the first fold's training rows of them."""
    Z, y = np.load(Path(folder) / "Z.npy"), np.load(Path(folder) / "y.npy")
    if fold:
        rows = training(Z, y, 5).folds[0][0]
        return Z[rows], y[rows]
    return Z, y


def objective(Z: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, C: float) -> float:
    """scikit-learn's, of all rows, in float64. Two classes have one row of weights."""
    total = 0.0
    for at in range(0, len(Z), 4096):
        L = Z[at : at + 4096].astype(np.float64) @ weight.T + bias
        labels = y[at : at + 4096]
        if L.shape[1] == 1:
            L = np.concatenate([np.zeros_like(L), L], axis=1)
        top = L.max(axis=1)
        total += float((top + np.log(np.exp(L - top[:, None]).sum(axis=1)) - L[np.arange(len(L)), labels]).sum())
    return 0.5 * float((weight**2).sum()) + C * total


def training(Z: np.ndarray, y: np.ndarray, folds: int) -> Any:
    """What featx fits to; with 5 folds or none."""
    from sklearn.model_selection import StratifiedKFold

    from featx.heads.training_data import Rows, TrainingData

    parts = StratifiedKFold(5, shuffle=True, random_state=0).split(np.zeros(len(y)), y) if folds else ()
    return TrainingData(Rows(Z), y, int(y.max()) + 1, "classification", np.ones(len(y)), tuple(parts))


# What a process does


def own_fit(folder: str, C: float) -> dict[str, Any]:
    """One C."""
    from featx.heads.estimators.linear import LinearPathEstimator

    Z, y = load(folder)
    started = time.perf_counter()
    model = LinearPathEstimator()
    predictor = model.fit(training(Z, y, 0), C)
    seconds = time.perf_counter() - started
    weight, bias = predictor.weight, predictor.bias
    if len(weight) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return {
        "seconds": seconds,
        "objective": objective(Z, y, weight, bias, C),
        "iterations": int(model.solution_.iterations[0]),
    }


def own_path(folder: str) -> dict[str, Any]:
    """The whole path and the refit."""
    from featx.heads.estimators.linear import LinearPathEstimator
    from featx.heads.search import search

    Z, y = load(folder)
    before = peak_bytes()
    started = time.perf_counter()
    rows = training(Z, y, 5)
    model = LinearPathEstimator()
    found = search(model, rows, gives_logits=True, extends=False)
    middle = time.perf_counter()
    model.fit(rows, found.chosen)
    ended = time.perf_counter()
    peak = peak_bytes()
    return {
        "seconds": ended - started, "search_seconds": middle - started, "C": found.chosen,
        "log_loss": found.best.loss if found.best else None, "peak_mb": peak / 2**20, "before_mb": before / 2**20,
    }  # fmt: skip


def sklearn_fit(folder: str, C: float, tol: float, fold: bool) -> dict[str, Any]:
    """One C, on all rows or on the first fold's."""
    from sklearn.linear_model import LogisticRegression

    Z, y = load(folder, fold=fold)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=C, tol=tol, max_iter=20_000).fit(Z, y)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds, "iterations": int(model.n_iter_[0]),
        "objective": objective(Z, y, model.coef_.astype(np.float64), model.intercept_.astype(np.float64), C),
    }  # fmt: skip


def sklearn_path(folder: str, tols: list[float]) -> dict[str, Any]:
    """The five C one after the other on the first fold, each started from the last."""
    from sklearn.linear_model import LogisticRegression

    Z, y = load(folder, fold=True)
    model = LogisticRegression(max_iter=20_000, warm_start=True)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for C, tol in zip(C_SHOWN, tols, strict=True):
            model.set_params(C=C, tol=tol).fit(Z, y)
    return {"seconds": time.perf_counter() - started}


def sklearn_cv(folder: str) -> dict[str, Any]:
    """The whole path and the refit by ``LogisticRegressionCV``."""
    from sklearn.linear_model import LogisticRegressionCV

    from featx.heads.estimators.linear import C_PATH

    Z, y = load(folder)
    folds = training(Z, y, 5).folds
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(
            Cs=list(C_PATH), cv=list(folds), scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False
        )
        model.fit(Z, y)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds, "C": float(np.ravel(model.C_)[0]), "log_loss": float(-np.mean(model.scores_, axis=0).max()),
        "not_converged": float(np.mean(np.asarray(model.n_iter_) >= 100)),
    }  # fmt: skip


def least_on_fold(folder: str) -> dict[str, Any]:
    """The least objective of the five C on the first fold's training rows."""
    from featx.heads.estimators.linear import LinearPathEstimator

    Z, y = load(folder, fold=True)
    found = []
    for C in C_SHOWN:
        predictor = LinearPathEstimator().fit(training(Z, y, 0), C)
        weight, bias = predictor.weight, predictor.bias
        if len(weight) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        found.append(objective(Z, y, weight, bias, C))
    return {"objectives": found}


def hymenoptera(file: str) -> dict[str, Any]:
    """The whole of ``Head.fit`` on a feature file, again and again in one process."""
    from featx.features.feature_set import FeatureSet
    from featx.heads.head import Head

    loaded = FeatureSet.load(file)
    head = Head("logreg").fit(loaded)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        Head("logreg").fit(loaded)
        seconds.append(time.perf_counter() - started)
    return {"rows": head.n_train_, "width": len(head.mean_), "C": head.C_, "seconds": statistics.median(seconds)}


def memory(rows: int, kind: str, folder: str) -> dict[str, Any]:
    """A head on features that lie in a file, float16, and the peak memory of the process that fits it."""
    from featx.features.feature_set import FeatureSet
    from featx.heads.head import Head

    width, count = 2048, 10
    X = np.memmap(Path(folder) / "features", dtype=np.float16, mode="r", shape=(rows, width))
    y = np.load(Path(folder) / "labels.npy")
    keys = np.zeros((rows, 16), dtype=np.uint8)
    keys[:, :8] = np.arange(1, rows + 1, dtype=np.uint64)[:, None].view(np.uint8).reshape(rows, 8)
    splits = np.where(np.arange(rows) % 100 == 0, "test", "train").astype(object)
    paths = np.arange(rows).astype(str).astype(object)
    loaded = FeatureSet(X, y, splits, tuple(map(str, range(count))), paths, keys)
    before = peak_bytes()
    started = time.perf_counter()
    head = Head(kind).fit(loaded)
    seconds = time.perf_counter() - started
    report = head.evaluate(loaded)
    peak = peak_bytes()
    return {
        "rows": rows, "width": width, "kind": kind, "seconds": seconds, "accuracy": report.headline[1], "C": head.C_,
        "peak_mb": peak / 2**20, "before_mb": before / 2**20, "notes": head.notes_, "convergence": head.convergence_,
    }  # fmt: skip


def fill(rows: int, folder: str) -> None:
    """Features of so many rows, written block by block."""
    X = np.memmap(Path(folder) / "features", dtype=np.float16, mode="w+", shape=(rows, 2048))
    some, labels = features(20_000, 2048, 10)
    y = np.empty(rows, dtype=np.int64)
    rng = np.random.default_rng(1)
    for at in range(0, rows, len(some)):
        n = min(len(some), rows - at)
        X[at : at + n] = some[:n] + 0.5 * rng.normal(size=(n, 2048)).astype(np.float32)
        y[at : at + n] = labels[:n]
    X.flush()
    np.save(Path(folder) / "labels.npy", y)


# The comparison


def child(name: str, *arguments: Any) -> dict[str, Any]:
    """Run one of the functions above in a process of its own."""
    command = [sys.executable, __file__, "--child", name, json.dumps(arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"}
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def one_fit(folder: str, C: float, rounds: int) -> dict[str, Any]:
    """Both to a relative gap of 1e-6, in turns."""
    own = [child("own_fit", folder, C)]
    tried = []
    for tol in TOLERANCES[2:]:
        tried.append((tol, child("sklearn_fit", folder, C, tol, False)))
        least = min(own[0]["objective"], *(t["objective"] for _, t in tried))
        if tried[-1][1]["objective"] / least - 1 <= 1e-6:
            break
    tol, theirs = tried[-1][0], [tried[-1][1]]
    for _ in range(rounds - 1):
        own.append(child("own_fit", folder, C))
        theirs.append(child("sklearn_fit", folder, C, tol, False))
    least = min(r["objective"] for r in (*own, *theirs))
    ours, sklearn = statistics.median([r["seconds"] for r in own]), statistics.median([r["seconds"] for r in theirs])
    return {
        "C": C, "featx_seconds": ours, "sklearn_seconds": sklearn, "ratio": sklearn / ours, "sklearn_tol": tol,
        "featx_gap": max(r["objective"] for r in own) / least - 1, "sklearn_gap": theirs[0]["objective"] / least - 1,
        "featx_iterations": own[0]["iterations"], "sklearn_iterations": theirs[0]["iterations"],
    }  # fmt: skip


def whole_path(folder: str, rounds: int) -> dict[str, Any]:
    """The path of featx against what five of scikit-learn's fits say of its own."""
    least = child("least_on_fold", folder)["objectives"]
    own, fits, tols = [child("own_path", folder)], [], []
    for C, best in zip(C_SHOWN, least, strict=True):
        for tol in TOLERANCES:
            fit = child("sklearn_fit", folder, C, tol, True)
            if fit["objective"] / best - 1 <= 1e-4:
                break
        fits.append({"C": C, "tol": tol, "seconds": fit["seconds"], "gap": fit["objective"] / best - 1})
        tols.append(tol)
        if len(own) < rounds:
            own.append(child("own_path", folder))
    warm = child("sklearn_path", folder, tols)["seconds"]
    cold = sum(fit["seconds"] for fit in fits)
    theirs = min(warm, cold) / len(C_SHOWN) * (45 * 5 + 1)
    ours = statistics.median([r["seconds"] for r in own])
    return {
        "featx_seconds": ours, "sklearn_seconds_extrapolated": theirs, "ratio": theirs / ours, "sklearn_fits": fits,
        "sklearn_warm_seconds": warm, "sklearn_cold_seconds": cold, "C": own[0]["C"], "log_loss": own[0]["log_loss"],
        "peak_mb": max(r["peak_mb"] for r in own), "float32_mb": (Path(folder) / "Z.npy").stat().st_size / 2**20,
        "before_mb": own[0]["before_mb"],
    }  # fmt: skip


def against_cv(folder: str, rounds: int) -> dict[str, Any]:
    """The path of featx against ``LogisticRegressionCV`` at its defaults, in turns."""
    own, theirs = [], []
    for _ in range(rounds):
        own.append(child("own_path", folder))
        theirs.append(child("sklearn_cv", folder))
    ours, sklearn = statistics.median([r["seconds"] for r in own]), statistics.median([r["seconds"] for r in theirs])
    return {
        "featx_seconds": ours, "sklearn_seconds": sklearn, "ratio": sklearn / ours, "featx_C": own[0]["C"],
        "sklearn_C": theirs[0]["C"], "featx_log_loss": own[0]["log_loss"], "sklearn_log_loss": theirs[0]["log_loss"],
        "sklearn_not_converged": theirs[0]["not_converged"],
    }  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["20000x2048x10", "5000x2048x102", "50000x512x100", "244x768x2"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cv", action="store_true", help="against LogisticRegressionCV at its defaults")
    parser.add_argument("--hymenoptera", help="a feature file of it")
    parser.add_argument("--memory", type=int, default=0, metavar="ROWS", help="instead of the shapes")
    parser.add_argument("--kinds", nargs="*", default=["logreg", "ridge"], help="of --memory")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(globals()[options.child[0]](*json.loads(options.child[1]))))
        return
    result: dict[str, Any] = {"versions": {name: version(name) for name in ("numpy", "scipy", "scikit-learn")}}
    for name in options.shapes if not options.memory else ():
        with tempfile.TemporaryDirectory(dir=".") as folder:
            child("make", folder, *map(int, name.split("x")))
            if options.cv:
                result[name] = {"cv": against_cv(folder, options.rounds)}
                continue
            result[name] = {"path": whole_path(folder, options.rounds)}
            if name == "20000x2048x10":
                result[name]["one_fit"] = one_fit(folder, 0.1, options.rounds)
    if options.hymenoptera:
        result["hymenoptera"] = child("hymenoptera", options.hymenoptera)
    if options.memory:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            child("fill", options.memory, folder)
            result["memory"] = [child("memory", options.memory, kind, folder) for kind in options.kinds]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
