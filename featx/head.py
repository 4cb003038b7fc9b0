"""A light classifier on cached features: fitted in seconds, honest about what it is worth."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from featx import modelfile, scorers
from featx.cache import differences
from featx.decode import Transform
from featx.errors import CorruptCacheError, HeadError, OutputError, StaleCacheError, listed, printable
from featx.features import FeatureSet
from featx.images import PRETRAIN
from featx.report import Report
from featx.settings import KERNELS, KINDS, MODELS

_WITH_C = ("logreg", "svm", "ridge")

C_GRID = tuple(10.0**power for power in range(-5, 3))
"""Values of C that are compared; the grid grows while the best stands at an end."""
C_LIMITS = (1e-8, 1e6)
K_GRID = (1, 3, 5, 10, 20)
"""Numbers of neighbours that are compared."""
FOLDS = 5

_AS_GOOD = 1e-3  # nats of log loss that make no difference

_MOST_DEVIATIONS = 1e15  # its square is still a float32, in which neighbours are compared

_MOST_CLASSES_WITH_CONFUSION = 1000  # above it, a head's file keeps the report without its C x C table

_MOST_IN_FLOAT64 = 50_000_000
_MOST_ON_ONE_THREAD = 1_000_000  # below it, threads wait for each other longer than they work

_WHY_LEFT_OUT = {
    PRETRAIN: ": the backbone was made with them",
    "val": ": they are kept to choose by in promote --finetune",
}


class Head:
    """A classifier on the features of one layer.

    Features are standardised with the mean and deviation of the training rows. C (or k) is chosen on the training rows
    alone, by the log loss of stratified cross-validation, unless it is given. Scores of heads that are no probability
    model (svm, ridge, centroid, knn) are divided by a temperature (Guo et al., 2017) fitted to the same held-out folds.

    Args:
        kind: "logreg", "linear", "svm", "ridge", "knn" or "centroid".
        C: inverse strength of the penalty, as in scikit-learn, for logreg, svm and ridge (alpha = 1 / (2 C)).
        kernel: "linear" or "rbf", for svm.
        k: number of neighbours, for knn.
        seed: of the folds, and of linear's batches.

    Attributes:
        classes_: (C,) names, those that have training rows.
        layer_: of the backbone.
        identity_: of the features it was fitted on.
        backbone_: how to make the backbone again.
        dataset_: the data set's name and root.
        source_: the feature file, or None.
        C_: the C in use, or None.
        k_: the k in use, or None.
        n_train_: rows it was fitted on.
        train_keys_: (n_train, 16) uint8, their content hashes.
        search_: {candidate: cross-validated log loss}.
        temperature_: what scores are divided by.
        notes_: what the user should know, one sentence each.
        seconds_: what the fit took.
    """

    def __init__(
        self,
        kind: str = "logreg",
        *,
        C: float | None = None,
        kernel: str = "linear",
        k: int | None = None,
        seed: int = 0,
    ) -> None:
        self.kind = kind
        self.C = C
        self.kernel = kernel
        self.k = k
        self.seed = seed

    def fit(self, features: FeatureSet, *, split: str = "train") -> Head:
        """Fit to the labelled rows of one split.

        Raises:
            HeadError: parameters that do not go together, too few classes, or features that are not finite.
        """
        self._check_parameters()
        solver = self._solver()
        started = time.perf_counter()
        rows = features.split(split)
        present = np.unique(rows.labels)
        if len(present) < 2:
            raise HeadError(
                f"the split {split!r} has one class only, {features.classes[present[0]]!r}; a head needs at least two"
            )
        y = np.searchsorted(present, rows.labels)
        X = np.asarray(rows.features, dtype=np.float64 if rows.features.size <= _MOST_IN_FLOAT64 else np.float32)
        _require_finite(X, split)
        self.classes_ = tuple(features.classes[label] for label in present)
        self.layer_, self.identity_ = features.layer, features.identity
        self.backbone_, self.dataset_ = dict(features.backbone), dict(features.dataset)
        self.source_ = features.source
        self.n_train_, self.train_keys_ = len(y), np.ascontiguousarray(rows.keys)
        self.notes_: list[str] = []
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        deviation = X.std(axis=0, dtype=np.float64)
        self.scale_ = np.where(deviation > 0, deviation, 1.0)
        threads = 1 if X.size <= _MOST_ON_ONE_THREAD else None
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(threads):
            warnings.simplefilter("always")
            self._fit(self._standardise(X), y, *solver)
        self.notes_ += sorted({str(w.message) for w in caught if issubclass(w.category, UserWarning)})
        self.seconds_ = time.perf_counter() - started
        return self

    def logits(self, X: np.ndarray) -> np.ndarray:
        """(N, D) features to (N, C) float64 logits, whose softmax are the probabilities.

        Rows that are NaN, infinite, or further from the training rows than any image can be, get NaN.
        """
        if X.ndim != 2 or X.shape[1] != len(self.mean_):
            raise HeadError(f"features of shape {X.shape}; this head takes (N, {len(self.mean_)})")
        logits = np.full((len(X), len(self.classes_)), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            Z = self._standardise(X)
            rows = (np.abs(Z) < _MOST_DEVIATIONS).all(axis=1)
            if rows.any():
                logits[rows] = self.scorer_.scores(Z[rows]) / self.temperature_
        return logits

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """(N, D) features to (N, C) float64; rows sum to 1."""
        return softmax(self.logits(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(N, D) features to (N,) class names."""
        names: np.ndarray = np.array(self.classes_, dtype=object)[self.logits(X).argmax(axis=1)]
        return names

    @property
    def is_linear(self) -> bool:
        """Whether the head is W x + b, and so can be moved onto its backbone."""
        return self._form == "linear"

    def as_linear(self) -> tuple[np.ndarray, np.ndarray]:
        """W (C, D) and b (C,), float64, with standardisation and temperature folded in: logits = X W' + b.

        Raises:
            HeadError: a head with a kernel or neighbours is not linear.
        """
        if not self.is_linear:
            name = f"{self.kind} --kernel rbf" if self.kind == "svm" else self.kind
            raise HeadError(
                f"a {name} head is not linear, so no layer of a network can take its place; "
                "featx fit-head --model logreg makes one that can"
            )
        weight = self.scorer_.weight / self.scale_ / self.temperature_
        return weight, self.scorer_.bias / self.temperature_ - weight @ self.mean_

    def evaluate(self, features: FeatureSet, *, split: str | None = None) -> Report:
        """Judge the head on rows it was not fitted to.

        Args:
            features: of the same identity as those of the fit.
            split: "test" where there is one, else "val", unless named; "all" is every labelled row.

        Raises:
            StaleCacheError: the features are of another identity.
            HeadError: no such rows, a class the head does not know, or features that are not finite.
        """
        self.require_identity(features)
        split = split or features.held_out()
        rows = features.split(split)
        labels = known_labels(rows.labels, rows.classes, self.classes_, where=f"the split {split!r}")
        notes = trained_on(rows.keys, self.train_keys_, split=split)
        _require_finite(rows.features, split)
        probabilities = self.probabilities(rows.features)
        if not np.isfinite(probabilities).all():
            raise HeadError(f"the head's scores of images of the split {split!r} are NaN or infinite; fit a head again")
        return Report.of(labels, probabilities, self.classes_, split=split, notes=notes)

    def require_identity(self, features: FeatureSet) -> None:
        """Raises StaleCacheError unless the features are of the identity that the head was fitted to."""
        self.require_same(
            features.identity,
            features.backbone.get("parts", {}),
            layers=(features.layer,),
            where=str(features.source or "this feature set"),
        )

    def require_same(
        self, identity: str | None, parts: Mapping[str, Any], *, layers: Sequence[str], where: str
    ) -> None:
        """Raises StaleCacheError, naming the parts that differ, unless an identity is that of the head's features.

        Args:
            identity: of the head's layer, there.
            parts: what that identity is made of, as ``Backbone.describe``.
            layers: those that are there.
            where: a feature file or backbone, in words.
        """
        if identity == self.identity_:
            return
        found = differences(self.backbone_.get("parts", {}), parts)
        if self.layer_ not in layers:
            found.insert(0, f"layer: {self.layer_} against {', '.join(layers)}")
        found = found or [f"identity: {self.identity_ or 'none'} against {identity or 'none'}"]
        raise StaleCacheError(
            f"this head was fitted to other features than those of {where} ({'; '.join(found)}); "
            "fit a head to them with featx fit-head"
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters in use; None where the kind has none such."""
        return {
            "C": self.C_,
            "k": self.k_,
            "kernel": self.kernel if self.kind == "svm" else None,
            "seed": self.seed,
        }

    def save(self, path: str | os.PathLike[str], *, report: Report | None = None) -> Path:
        """Write the head as one .safetensors file: arrays, and JSON in its metadata.

        Raises:
            OutputError: the file cannot be written.
            HeadError: what was set by hand is nothing that could be read again.
        """
        arrays = {
            "mean": self.mean_,
            "scale": self.scale_,
            "train_keys": self.train_keys_,
            **{f"scorer.{f.name}": getattr(self.scorer_, f.name) for f in fields(self.scorer_)},
        }
        metadata = {
            "kind": self.kind,
            "form": self._form,
            "parameters": self.parameters,
            "temperature": self.temperature_,
            "classes": self.classes_,
            "layer": self.layer_,
            "identity": self.identity_,
            "backbone": self.backbone_,
            "dataset": self.dataset_,
            "source": str(self.source_) if self.source_ else None,
            "n_train": self.n_train_,
            "search": {str(candidate): loss for candidate, loss in self.search_.items()},
            "seconds": self.seconds_,
            "notes": self.notes_,
            "report": stored_report(report) if report else None,
        }
        modelfile.save_model(Path(path), arrays, metadata, format=modelfile.HEAD)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Head:
        """Read a head. Whatever the file holds, nothing of it is run.

        Raises:
            CacheMissError: no such file.
            CorruptCacheError: not a head, or a damaged one; what is wrong is said.
        """
        arrays, meta = modelfile.load_model(Path(path), format=modelfile.HEAD)
        parameters = meta["parameters"]
        kernel = parameters["kernel"] or "linear"
        head = cls(meta["kind"], C=parameters["C"], kernel=kernel, k=parameters["k"], seed=parameters["seed"])
        try:
            head._check_parameters()
            if meta["form"] != head._form:
                raise ValueError(f"a {meta['form']} scorer does not make a {meta['kind']} head")
            if meta["backbone"]:
                Transform.from_dict(meta["backbone"]["parts"]["transform"])
        except (TypeError, ValueError) as error:  # HeadError is a ValueError
            raise CorruptCacheError(f"{path} is no sound head: {printable(str(error))}") from error
        scorer = scorers.SCORERS[meta["form"]]
        head.scorer_ = scorer(**{f.name: arrays[f"scorer.{f.name}"] for f in fields(scorer)})
        head.C_, head.k_ = parameters["C"], parameters["k"]
        head.mean_, head.scale_, head.train_keys_ = arrays["mean"], arrays["scale"], arrays["train_keys"]
        head.temperature_, head.classes_ = float(meta["temperature"]), tuple(meta["classes"])
        head.layer_, head.identity_ = meta["layer"], meta["identity"]
        head.backbone_, head.dataset_ = meta["backbone"], meta["dataset"]
        head.source_ = Path(meta["source"]) if meta["source"] else None
        head.n_train_, head.seconds_, head.notes_ = meta["n_train"], meta["seconds"], meta["notes"]
        head.search_ = {float(candidate): loss for candidate, loss in meta["search"].items()}
        return head

    @property
    def _form(self) -> str:
        if self.kind == "knn":
            return "neighbour"
        return "kernel" if self.kind == "svm" and self.kernel == "rbf" else "linear"

    def _check_parameters(self) -> None:
        if self.kind not in KINDS:
            raise HeadError(f"there is no head {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.C is not None and self.kind not in _WITH_C:
            raise HeadError(f"-C is for {', '.join(_WITH_C)}; {self.kind} has none")
        if self.C is not None and not 0 < self.C < float("inf"):
            raise HeadError(f"C is {self.C}; expected a positive number")
        if self.k is not None and (self.kind != "knn" or self.k < 1):
            raise HeadError(f"k is {self.k} for {self.kind}; it is a number of neighbours, at least 1, for knn")
        if self.kernel not in KERNELS or (self.kernel != "linear" and self.kind != "svm"):
            raise HeadError(f"kernel is {self.kernel!r} for {self.kind}; it is {' or '.join(KERNELS)}, for svm")

    def _standardise(self, X: np.ndarray) -> np.ndarray:
        """(N, D), in float64 unless the features are kept in float32 because they are many."""
        dtype = np.float32 if X.dtype == np.float32 and X.size > _MOST_IN_FLOAT64 else np.float64
        Z: np.ndarray = (X.astype(dtype) - self.mean_.astype(dtype)) / self.scale_.astype(dtype)
        return Z

    def _fit(
        self, Z: np.ndarray, y: np.ndarray, fit: Callable[..., Any], candidates: Sequence[float], grows: bool
    ) -> None:
        count = len(self.classes_)
        calibrated = self.kind in ("logreg", "linear")
        rotated = scorers.row_space(Z) if self.kind in _WITH_C and self.is_linear else None
        Z, basis = rotated or (Z, None)
        chosen, held_out = self._search(fit, Z, y, candidates, grows, calibrated)
        self.C_ = chosen if self.kind in _WITH_C else None
        self.scorer_ = fit(Z, y, count, chosen)
        self.k_ = int(self.scorer_.k) if self.kind == "knn" else None  # no more than there are rows
        if basis is not None:
            self.scorer_ = scorers.LinearScorer(self.scorer_.weight @ basis, self.scorer_.bias)
        self.temperature_ = 1.0 if calibrated or held_out is None else fit_temperature(*held_out)

    def _solver(self) -> tuple[Callable[..., Any], Sequence[float], bool]:
        """The fit of (Z, y, count, candidate), the candidates for C or k, and whether their grid may grow."""
        if self.kind in _WITH_C:
            fits = {
                "logreg": scorers.fit_logreg,
                "ridge": scorers.fit_ridge,
                "svm": scorers.fit_rbf if self.kernel == "rbf" else scorers.fit_svm,
            }
            return fits[self.kind], (self.C,) if self.C is not None else C_GRID, self.C is None
        if self.kind == "knn":
            return scorers.fit_knn, (self.k,) if self.k is not None else K_GRID, False
        if self.kind == "centroid":
            return lambda Z, y, count, _: scorers.fit_centroid(Z, y, count), (0,), False
        from featx.linear import fit_linear

        seed = self.seed
        return lambda Z, y, count, _: scorers.LinearScorer(*fit_linear(Z, y, count, seed=seed)), (0,), False

    def _search(
        self,
        fit: Callable[..., Any],
        Z: np.ndarray,
        y: np.ndarray,
        candidates: Sequence[float],
        grows: bool,
        calibrated: bool,
    ) -> tuple[float, tuple[np.ndarray, np.ndarray] | None]:
        """The candidate of least cross-validated log loss, and its (scores, labels) on the held-out folds."""
        self.search_: dict[float, float] = {}
        if calibrated and len(candidates) == 1:
            return candidates[0], None
        folds = _folds(y, self.seed)
        if not folds:
            middle = candidates[len(candidates) // 2]
            self.notes_.append("a class has one training image only, so nothing could be cross-validated")
            return middle, None
        held_out: dict[float, np.ndarray] = {}
        for candidate in _growing(candidates, self.search_, grows):
            scores = np.empty((len(y), len(self.classes_)))
            for train, test in folds:
                scores[test] = fit(Z[train], y[train], len(self.classes_), candidate).scores(Z[test])
            held_out[candidate] = scores
            temperature = 1.0 if calibrated else fit_temperature(scores, y)
            self.search_[candidate] = log_loss(scores / temperature, y)
        best = _simplest(self.search_)
        return best, (held_out[best], y)


def _require_finite(X: np.ndarray, split: str) -> None:
    bad = np.count_nonzero(~np.isfinite(X).all(axis=1))
    if bad:
        raise HeadError(
            f"{bad} rows of features of the split {split!r} are NaN or infinite; "
            "delete the feature file and run featx extract again"
        )


def _simplest(losses: Mapping[float, float]) -> float:
    """The smallest candidate whose loss is as good as the least: on a plateau, the more regularised head."""
    least = min(losses.values())
    return min(candidate for candidate, loss in losses.items() if loss <= least + _AS_GOOD)


def _growing(candidates: Sequence[float], losses: Mapping[float, float], grows: bool) -> Any:
    """The candidates, then powers of ten beyond an end for as long as each step beyond it pays."""
    yield from candidates
    while grows:
        ordered = sorted(losses)
        low, high = ordered[0], ordered[-1]
        if losses[low] < losses[ordered[1]] - _AS_GOOD and low / 10 >= C_LIMITS[0] and low == _simplest(losses):
            yield float(f"{low / 10:g}")
        elif losses[high] < losses[ordered[-2]] - _AS_GOOD and high * 10 <= C_LIMITS[1] and high == _simplest(losses):
            yield float(f"{high * 10:g}")
        else:
            return


def _folds(y: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds, as many as the smallest class allows up to FOLDS; none where it has one row."""
    folds = min(FOLDS, int(np.bincount(y).min()))
    if folds < 2:
        return []
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(y)), y))


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits to (N, C) probabilities; a row with NaN or infinity becomes NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def log_loss(logits: np.ndarray, y: np.ndarray) -> float:
    """Mean of -ln softmax(logits)[y], in nats."""
    top = logits.max(axis=1)
    return float((top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(y)), y]).mean())


def fit_temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """The T that gives softmax(scores / T) the least log loss (Guo et al., 2017) to smoothed labels.

    Smoothed as Platt (1999) does: each label gives 1 / (N + C) to every other class. Where every score is right, plain
    labels would ask for endless certainty.
    """
    count = scores.shape[1]
    share = 1.0 / (len(y) + count)
    spread = float(np.abs(scores - scores.mean(axis=1, keepdims=True)).mean()) or 1.0

    def loss(t: float) -> float:
        logits = scores / (spread * np.exp(t))
        others = logits.sum(axis=1) - count * logits[np.arange(len(y)), y]  # minus the true logit, once per class
        smoothed: float = log_loss(logits, y) - share * others.mean()
        return smoothed

    fit = minimize_scalar(loss, bounds=(-6.0, 6.0), method="bounded")
    return spread * float(np.exp(fit.x))


def known_labels(labels: np.ndarray, classes: Sequence[str], known: Sequence[str], *, where: str) -> np.ndarray:
    """Labels of a data set's classes as indices into a head's classes, matched by name.

    Raises:
        HeadError: images of a class that the head does not know.
    """
    index = {name: i for i, name in enumerate(known)}
    mapped: np.ndarray = np.array([index.get(name, -1) for name in classes] or [-1], dtype=np.int64)[labels]
    if (mapped < 0).any():
        strange = sorted({printable(classes[label]) for label in labels[mapped < 0]})
        raise HeadError(
            f"{np.count_nonzero(mapped < 0)} images of {where} are of classes that the head does not know "
            f"({listed(strange, most=8)}); it knows {listed([printable(name) for name in known], most=8)}"
        )
    return mapped


def stored_report(report: Report) -> dict[str, Any]:
    """A report as a file keeps it: whole, but for the (C, C) confusion of very many classes, which no header could hold."""
    facts = report.as_dict()
    if len(report.classes) > _MOST_CLASSES_WITH_CONFUSION:
        del facts["confusion"]
    return facts


def trained_on(keys: np.ndarray, train_keys: np.ndarray, *, split: str) -> list[str]:
    """A note where images that judge a model were also trained on, by their content hashes, (N, 16) and (n, 16) uint8."""
    train = set(map(bytes, train_keys))
    copies = sum(bytes(key) in train for key in keys)
    if not copies:
        return []
    return [
        f"{copies} of {len(keys)} images of split {split} were trained on, byte for byte: they flatter the accuracy"
    ]


@dataclass(frozen=True, eq=False)
class Fit:
    """A head, what it is worth, where it and its picture were saved, and the feature file it came from."""

    head: Head
    report: Report
    path: Path
    picture: Path
    features: Path | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As ``featx fit-head --json`` prints it."""
        head, report = self.head, self.report.as_dict()
        return {
            "head": str(self.path),
            "model": head.kind,
            "layer": head.layer_,
            **head.parameters,
            "n_train": head.n_train_,
            "n_test": report.pop("n"),
            "test_split": report.pop("split"),
            **{key: value for key, value in report.items() if key != "notes"},
            "search": {f"{c:g}": loss for c, loss in head.search_.items()},
            "picture": str(self.picture),
            "features": str(self.features) if self.features else None,
            "seconds": round(head.seconds_, 4),
            "notes": list(self.notes),
        }


def fit_head(
    features: FeatureSet | str | os.PathLike[str],
    head: Head,
    *,
    layer: str = "penultimate",
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
) -> Fit:
    """Fit a head to the training rows of a feature file, judge it on the held-out ones, and save both.

    Args:
        features: a feature set or a feature file.
        head: unfitted.
        layer: of the feature file.
        out: the head's file, instead of ``<models>/<features>--<kind>.safetensors``.
        models: the folder for heads.

    Raises:
        HeadError: nothing to fit to or to judge by.
        CacheMissError, CorruptCacheError: the feature file is not there or not sound.
        OutputError: the head cannot be written.
    """
    file = features.source if isinstance(features, FeatureSet) else Path(features)
    features = features if isinstance(features, FeatureSet) else FeatureSet.load(features, layer)
    path = Path(out) if out else Path(models) / f"{_stem(features, head)}.safetensors"
    picture = path.with_suffix(".png")
    if picture == path:
        raise OutputError(f"{path} is where the head's picture goes; name a file that ends in .safetensors with -o")
    modelfile.require_writable(path, _most_bytes(features, head))
    modelfile.require_writable(picture)
    held_out = features.held_out()
    head.fit(features)
    report = head.evaluate(features, split=held_out)
    notes = [*head.notes_, *report.notes, *_left_out(features, held_out)]
    head.save(path, report=report)
    report.save_png(picture)
    return Fit(head, report, path, picture, file, tuple(notes))


def _most_bytes(features: FeatureSet, head: Head) -> int:
    """Of the head's file, roughly: its arrays are known before the fit, but for how many rows a kernel keeps."""
    rows = int(np.count_nonzero((features.splits == "train") & (features.labels >= 0)))
    width, count = int(features.features.shape[1]), len(features.classes)
    scorer = 8 * count * width if head.is_linear else rows * (4 * width + 8 * count)
    return scorer + 16 * (width + rows)


def _stem(features: FeatureSet, head: Head) -> str:
    parts = [features.source.stem if features.source else Path(features.dataset.get("name", "features")).name]
    parts += [features.layer] if features.layer != "penultimate" else []
    parts += [f"{head.kind}-rbf" if head.kernel == "rbf" else head.kind]
    return "--".join(parts)


def _left_out(features: FeatureSet, held_out: str) -> list[str]:
    """A note on labelled images that took no part."""
    names, counts = np.unique(features.splits[features.labels >= 0].astype(str), return_counts=True)
    return [
        f"{count} images of split {name} were not used{_WHY_LEFT_OUT.get(name, '')}"
        for name, count in zip(names, counts, strict=True)
        if name not in ("train", held_out)
    ]
