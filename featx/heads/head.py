"""A light classifier on cached features: fitted in seconds, honest about what it is worth."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from featx.constants import CALIBRATIONS
from featx.data.splits import join_groups
from featx.data.transform import Transform
from featx.errors import CorruptFileError, HeadError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads import predictors
from featx.heads.folds import make_folds
from featx.heads.groups import read_column, splits_for
from featx.heads.postprocess import (
    Isotonic,
    balanced_weights,
    fit_isotonic,
    fit_temperature,
    label_thresholds,
    logit_adjustment,
    threshold_for_precision,
)
from featx.heads.registry import Kind, form_of, kind_of, model_for
from featx.heads.search import Search, Tried, search
from featx.heads.targets import Targets, targets_of, task_of
from featx.heads.training_data import Model, Rows, TrainingData, by_rows, over_views, statistics
from featx.identity import differences
from featx.io import model_file
from featx.layer_spec import LayerSpec
from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.text import printable

FOLDS = 5
"""Of the cross-validation that hyper-parameters are chosen by."""

MOST_SEARCHED = 1 << 28
"""Bytes of float32 features that hyper-parameters are chosen on; of larger data, a stratified share of the rows."""

_MOST_DEVIATIONS = 1e15  # its square is still a float32, in which neighbours are compared
_MOST_CLASSES_WITH_CONFUSION = 1000  # above it, a head's file keeps the report without its C x C table
_CHOSEN = ("C", "k", "weight_decay")  # what a search may choose
_MOST_ON_ONE_THREAD = 1_000_000  # elements; below it, threads wait for each other longer than they work


class Head:
    """A classifier (or regression) on the features of one layer.

    Of images that are seen in several views each view is a row to fit to, and the scores of an image are the mean of theirs.

    Features are standardised with the mean and deviation of the training rows. The hyper-parameter (C, k or weight decay) is
    chosen on the training rows alone, by the loss of stratified cross-validation, unless it is given; images that belong
    together never straddle a fold. Scores of heads that are no probability model (svm, ridge, centroid, knn) are divided by a
    temperature (Guo et al., 2017) fitted to the same held-out rows.

    Args:
        kind: "logreg", "linear", "svm", "ridge", "knn", "centroid" or "mlp".
        C: inverse strength of the penalty, as in scikit-learn, for logreg, svm and ridge (alpha = 1 / (2 C)).
        kernel: "linear" or "rbf", for svm.
        k: number of neighbours, for knn.
        seed: of the folds, and of minibatches.
        task: "classification", "multilabel" (labels such as ``cat|dog``), "regression", or "auto": read from the labels.
        group: a further column of the data set's table; images of one group never straddle a split or a fold.
        table: the table, where it is not the one that the features were extracted by.
        class_weight: "balanced": each class counts alike, however many images it has.
        logit_adjustment: times the log of each class's share of the training rows, which is taken from the logits
            (Menon et al., 2021); 1 judges all classes as equally likely.
        calibrate: "temperature", "isotonic" (Zadrozny and Elkan, 2002) or "none", fitted to held-out rows; None: a temperature
            for heads that are no probability model.
        reject_below: predictions of a lower probability are not made.
        precision: instead: the share of the predictions that are made which is to be right, on held-out rows.
        device: of torch, or "auto": where logreg, svm, linear and mlp take their products.

    Attributes:
        task_: what it does.
        classes_: (C,) names, those that have training rows; of a regression "value".
        layer_: of the backbone; or layers, and how they are seen, as ``views.py`` names them.
        identity_: of the features it was fitted on.
        backbone_: how to make the backbone again.
        dataset_: the data set's name and root.
        source_: the feature file, or None.
        C_, k_, weight_decay_: the one in use, or None.
        n_train_: images it was fitted on.
        train_keys_: (n_train, 16) uint8, their content hashes.
        search_: what was tried: candidates, their cross-validated losses and standard errors.
        temperature_: what scores are divided by.
        offset_: (C,) float64, what is then taken from them.
        isotonic_: the curves that probabilities go through, or None.
        thresholds_: (C,) probabilities from which on a label is said; None but for multilabel.
        reject_below_: the probability below which nothing is said, or None.
        held_out_: what the head got on held-out training rows, as a report; None where nothing was held out.
        out_of_fold_: with ``cross_validate``, what that was made of: (m,) int64 of the training rows, and their (m, C) outputs
            by fits that left them out; else None.
        convergence_: of logreg and svm: the relative gap of the objective, and iterations.
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
        task: str = "auto",
        group: str | None = None,
        table: str | None = None,
        class_weight: str | None = None,
        logit_adjustment: float = 0.0,
        calibrate: str | None = None,
        reject_below: float | None = None,
        precision: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.kind = kind
        self.C = C
        self.kernel = kernel
        self.k = k
        self.seed = seed
        self.task = task
        self.group = group
        self.table = table
        self.class_weight = class_weight
        self.logit_adjustment = logit_adjustment
        self.calibrate = calibrate
        self.reject_below = reject_below
        self.precision = precision
        self.device = device

    def fit(
        self,
        features: FeatureSet,
        *,
        split: str = "train",
        rows: np.ndarray | None = None,
        cross_validate: bool = False,
        coarse: bool = False,
    ) -> Head:
        """Fit to the labelled rows of one split.

        Args:
            features: of one layer.
            split: "train", or another; "all" is every labelled row.
            rows: (n,) int64, labelled rows to fit to instead.
            cross_validate: even where there is nothing to choose and nothing to calibrate.
            coarse: of logreg and svm: compare fewer values of C, and search and fit less exactly, in a third of the time.

        Raises:
            HeadError: parameters that do not go together, too few classes, or features that are not finite.
        """
        kind = self._check_parameters()
        started = time.perf_counter()
        self.task_, notes = task_of(features, self.task)
        kind = self._check_parameters(self.task_)
        self.notes_: list[str] = list(notes)
        if rows is None:
            features = self.with_splits(features)
            rows = features.rows(split)
        facts, where = features.without_features(rows), f"the split {split!r}"
        targets = targets_of(facts, self.task_, where=where)
        self.classes_ = targets.names
        self.layer_, self.identity_ = features.layer, features.identity
        self.backbone_, self.dataset_ = dict(features.backbone), dict(features.dataset)
        self.source_ = features.source
        self.n_train_, self.train_keys_ = len(rows), np.ascontiguousarray(facts.keys)
        X, index = by_rows(features.features, rows)
        self.mean_, self.scale_ = statistics(X, index)
        if not (np.isfinite(self.mean_).all() and np.isfinite(self.scale_).all()):
            _require_finite(X, index, where)
            raise HeadError(f"features of {where} are so large that they have no deviation; run featx extract again")
        training = self._training(
            Rows(X, index, mean=self.mean_, scale=self.scale_), targets, self.groups(features, rows), features.views
        )
        threads = 1 if len(index) * training.rows.width <= _MOST_ON_ONE_THREAD else None
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(threads):
            warnings.simplefilter("always")
            out_of_fold = self._fit(kind, training, cross_validate, coarse)
        self.out_of_fold_ = out_of_fold if cross_validate else None
        self.notes_ += sorted({str(w.message) for w in caught if issubclass(w.category, UserWarning)})
        self.seconds_ = time.perf_counter() - started
        return self

    def with_splits(self, features: FeatureSet) -> FeatureSet:
        """The features with the splits that the head goes by: none tears a group apart.

        Raises:
            HeadError: the data set's own splits do.
        """
        column = read_column(features, self.group, table=self.table) if self.group else None
        return dataclasses.replace(features, splits=splits_for(features, self.task_, column))

    def groups(self, features: FeatureSet, rows: np.ndarray) -> np.ndarray:
        """(n,) int64, which of some rows belong together: copies of an image, and those of one ``group``."""
        column = read_column(features, self.group, table=self.table)[rows] if self.group else None
        return join_groups(features.keys[rows], column)

    def predict_values(self, X: np.ndarray) -> np.ndarray:
        """(N, D) features, or (N, V, D) of V views, to (N, C) float64: what ``predict`` and the reports go by.

        Probabilities of classes, which sum to 1, or of labels, each for itself; the numbers of a regression. They are made of
        an image's scores, the mean over its views. Rows that are NaN, infinite, or further from the training rows than any
        image can be, get NaN.
        """
        return self._outputs(self._scores(X))

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Features, as ``outputs``, to (N, C) float64 logits; of rows that make no sense NaN.

        Their softmax (of labels: sigmoid) are the probabilities before isotonic calibration.
        """
        return self._logits(self._scores(X))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Features, as ``outputs``, to (N, C) float64; rows of classes sum to 1.

        Raises:
            HeadError: a regression has none.
        """
        if self.task_ == "regression":
            raise HeadError("a regression head predicts numbers, not probabilities; predict gives them")
        return self.predict_values(X)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Features, as ``outputs``, to (N,) class names, to lists of label names, or to numbers.

        A class whose probability is below ``reject_below_`` is None.
        """
        out = self.predict_values(X)
        if self.task_ == "regression":
            return out[:, 0]
        said = np.empty(len(out), dtype=object)
        for row, p in enumerate(out):
            said[row] = self.decide(p)
        return said

    def decide(self, p: np.ndarray) -> Any:
        """What (C,) outputs of one image say: a class name or None, a list of label names, or a number."""
        if self.task_ == "regression":
            return float(p[0])
        if self.thresholds_ is not None:
            return [self.classes_[i] for i in np.argsort(-p, kind="stable") if p[i] >= self.thresholds_[i]]
        return most_probable(p, self.classes_, self.reject_below_)

    @property
    def is_linear(self) -> bool:
        """Whether the head is W x + b, and so can be moved onto its backbone."""
        return self._form == "linear" and self.isotonic_ is None and self.task_ == "classification"

    def as_linear(self) -> tuple[np.ndarray, np.ndarray]:
        """W (C, D) and b (C,), float64, with standardisation, temperature and offset folded in: logits = X W' + b.

        Raises:
            HeadError: a head with a kernel, neighbours, a hidden layer or isotonic calibration is not linear.
        """
        if not self.is_linear:
            if self.task_ != "classification":
                raise HeadError(f"a head of {self.task_} cannot be promoted; promotion is for heads of classification")
            name = f"{self.kind} --kernel rbf" if self.kind == "svm" and self.kernel == "rbf" else self.kind
            curved = " with isotonic calibration" if self.isotonic_ is not None else ""
            raise HeadError(
                f"a {name} head{curved} is not linear, so no layer of a network can take its place; "
                f"featx fit-head --model logreg{' --calibrate temperature' if curved else ''} makes one that can"
            )
        weight = self.predictor_.weight / self.scale_ / self.temperature_
        return weight, self.predictor_.bias / self.temperature_ - self.offset_ - weight @ self.mean_

    def evaluate(self, features: FeatureSet, *, split: str | None = None, rows: np.ndarray | None = None) -> Report:
        """Judge the head on rows it was not fitted to.

        Args:
            features: of the same identity as those of the fit.
            split: "test" where there is one, else "val", unless named; "all" is every labelled row.
            rows: (n,) int64, labelled rows to judge on instead.

        Raises:
            StaleCacheError: the features are of another identity.
            HeadError: no such rows, a class the head does not know, or features that are not finite.
        """
        report, _, _ = self.judge(features, split=split, rows=rows)
        return report

    def judge(
        self, features: FeatureSet, *, split: str | None = None, rows: np.ndarray | None = None
    ) -> tuple[Report, np.ndarray, np.ndarray]:
        """As ``evaluate``, with the (n,) rows that were judged and their (n, C) outputs."""
        self.require_identity(features)
        if rows is None:
            features = self.with_splits(features)
            split = split or features.held_out()
            rows = features.rows(split)
        split = split or "these rows"
        facts, where = features.without_features(rows), f"the split {split!r}"
        targets = targets_of(facts, self.task_, self.classes_, where=where)
        notes = trained_on(facts.keys, self.train_keys_, split=split)
        out = self.predict_rows(features, rows)
        if not np.isfinite(out).all():
            _require_finite(*by_rows(features.features, rows), where)
            raise HeadError(f"the head's scores of images of {where} are NaN or infinite; fit a head again")
        return self._report(targets.y, out, split=split, notes=notes), rows, out

    def predict_rows(self, features: FeatureSet, rows: np.ndarray) -> np.ndarray:
        """As ``outputs``, (n, C) of some rows of a feature set, (n,) int64; features are read block by block."""
        blocks = Rows(*by_rows(features.features, rows)).blocks(np.float64)
        nothing = np.empty((0, len(self.classes_)))
        scores = np.concatenate([nothing, *(self._scores(block) for _, block in blocks)])
        return self._outputs(over_views(scores, features.views))

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

    def clone(self) -> Head:
        """A head like this one, its hyper-parameter as chosen, that is not fitted yet."""
        asked = {name: self.parameters[name] for name in _ASKED}
        asked["kernel"] = self.kernel
        return Head(
            self.kind, task=self.task_, table=self.table, reject_below=self.reject_below_, device=self.device, **asked
        )

    @property
    def layer(self) -> str:
        """Which layer, or layers with commas between them, however they are seen."""
        return LayerSpec.parse(self.layer_).layer

    @property
    def views(self) -> str:
        """The set of views in which images are seen."""
        return LayerSpec.parse(self.layer_).views_name

    @property
    def chosen(self) -> dict[str, float]:
        """The hyper-parameter that was chosen or given, by its name; empty where the kind has none."""
        return {name: self.parameters[name] for name in _CHOSEN if self.parameters[name] is not None}

    @property
    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters in use; None where the kind has none such."""
        return {
            "C": self.C_,
            "k": self.k_,
            "weight_decay": self.weight_decay_,
            "kernel": self.kernel if self.kind == "svm" else None,
            "class_weight": self.class_weight,
            "logit_adjustment": self.logit_adjustment,
            "calibrate": self.calibrate,
            "group": self.group,
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
            "offset": self.offset_,
            "train_keys": self.train_keys_,
            **{f"scorer.{f.name}": getattr(self.predictor_, f.name) for f in fields(self.predictor_)},
        }
        if self.thresholds_ is not None:
            arrays["thresholds"] = self.thresholds_
        if self.isotonic_ is not None:
            arrays |= {f"isotonic.{f.name}": getattr(self.isotonic_, f.name) for f in fields(self.isotonic_)}
        metadata = {
            "kind": self.kind,
            "form": self._form,
            "task": self.task_,
            "parameters": self.parameters,
            "temperature": self.temperature_,
            "reject_below": self.reject_below_,
            "classes": self.classes_,
            "layer": self.layer_,
            "identity": self.identity_,
            "backbone": self.backbone_,
            "dataset": self.dataset_,
            "source": str(self.source_) if self.source_ else None,
            "n_train": self.n_train_,
            "search": [tried.as_dict() for tried in self.search_],
            "convergence": self.convergence_,
            "seconds": self.seconds_,
            "notes": self.notes_,
            "held_out": stored_report(self.held_out_) if self.held_out_ else None,
            "report": stored_report(report) if report else None,
        }
        model_file.save_model(Path(path), arrays, metadata, format=model_file.HEAD)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Head:
        """Read a head. Whatever the file holds, nothing of it is run.

        Raises:
            CacheMissError: no such file.
            CorruptFileError: not a head, or a damaged one; what is wrong is said.
        """
        arrays, meta = model_file.load_model(Path(path), format=model_file.HEAD)
        asked = {name: meta["parameters"][name] for name in _ASKED}
        asked["kernel"] = asked["kernel"] or "linear"
        head = cls(meta["kind"], task=meta["task"], **asked)
        head.task_, head.classes_ = meta["task"], tuple(meta["classes"])
        try:
            head._check_parameters(meta["task"])
            if meta["form"] != head._form:
                raise ValueError(f"a {meta['form']} scorer does not make a {meta['kind']} head of {meta['task']}")
            _require_task(meta["task"], meta["classes"], "thresholds" in arrays)
            if meta["backbone"]:
                Transform.from_dict(meta["backbone"]["parts"]["transform"])
        except (TypeError, ValueError) as error:  # HeadError is a ValueError
            raise CorruptFileError(f"{path} is no sound head: {printable(str(error))}") from error
        predictor = predictors.PREDICTORS[meta["form"]]
        head.predictor_ = predictor(**{f.name: arrays[f"scorer.{f.name}"] for f in fields(predictor)})
        head.C_, head.k_, head.weight_decay_ = (meta["parameters"][name] for name in _CHOSEN)
        head.mean_, head.scale_, head.train_keys_ = arrays["mean"], arrays["scale"], arrays["train_keys"]
        head.temperature_, head.offset_ = float(meta["temperature"]), arrays["offset"]
        head.thresholds_, head.reject_below_ = arrays.get("thresholds"), meta["reject_below"]
        curves = {f.name: arrays.get(f"isotonic.{f.name}") for f in fields(Isotonic)}
        head.isotonic_ = None if curves["x"] is None else Isotonic(**curves)  # type: ignore[arg-type]
        head.layer_, head.identity_ = meta["layer"], meta["identity"]
        head.backbone_, head.dataset_ = meta["backbone"], meta["dataset"]
        head.source_ = Path(meta["source"]) if meta["source"] else None
        head.n_train_, head.seconds_, head.notes_ = meta["n_train"], meta["seconds"], meta["notes"]
        head.search_ = tuple(map(Tried.from_dict, meta["search"]))
        head.convergence_, head.held_out_, head.out_of_fold_ = meta["convergence"], None, None
        return head

    @property
    def _form(self) -> str:
        return form_of(self.kind, task=self.task_, kernel=self.kernel)

    def _check_parameters(self, task: str | None = None) -> Kind:
        kind = kind_of(self.kind, task=task, kernel=self.kernel)
        if self.C is not None and kind.parameter != "C":
            raise HeadError(f"-C is for logreg, svm, ridge; {self.kind} has none")
        if self.C is not None and not 0 < self.C < float("inf"):
            raise HeadError(f"C is {self.C}; expected a positive number")
        if self.k is not None and (self.kind != "knn" or self.k < 1):
            raise HeadError(f"k is {self.k} for {self.kind}; it is a number of neighbours, at least 1, for knn")
        for name, known in (("class_weight", ("balanced",)), ("calibrate", CALIBRATIONS)):
            if getattr(self, name) not in (None, *known):
                raise HeadError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        self._check_decisions(task)
        return kind

    def _check_decisions(self, task: str | None) -> None:
        if not 0 <= self.logit_adjustment < float("inf"):
            raise HeadError(f"logit_adjustment is {self.logit_adjustment}; expected a number from 0 on, usually 1")
        for name in ("reject_below", "precision"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise HeadError(f"{name} is {share}; expected a share above 0, at most 1")
        if self.reject_below is not None and self.precision is not None:
            raise HeadError(
                "reject_below and precision are two ways to say when nothing is predicted; expected one of them"
            )
        asked = [name for name in _OF_CLASSES if getattr(self, name)]
        if task not in (None, "classification") and asked:
            raise HeadError(
                f"{', '.join(asked)} {'is' if len(asked) == 1 else 'are'} for classification, not for {task}"
            )

    def _training(self, rows: Rows, targets: Targets, groups: np.ndarray, views: int) -> TrainingData:
        y, count = targets.y, len(targets.names)
        weight = np.ones(len(y))
        if self.class_weight:
            weight = balanced_weights(y, count)[y]
        grouped = len(np.unique(groups)) < len(groups)
        training = TrainingData(rows, y, count, self.task_, weight, seed=self.seed, grouped=grouped, views=views)
        return dataclasses.replace(training, folds=self._folds(training, groups))

    def _folds(self, training: TrainingData, groups: np.ndarray) -> Any:
        strata = None if self.task_ == "regression" else training.y
        return make_folds(strata, groups, folds=FOLDS, seed=self.seed)

    def _fit(
        self, kind: Kind, training: TrainingData, cross_validate: bool, coarse: bool
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Search, fit and calibrate; what the rows that were held out got, if any were."""
        model, found = self._search(kind, training, cross_validate, coarse)
        self.C_ = found.chosen if kind.parameter == "C" else None
        self.weight_decay_ = found.chosen if kind.parameter == "weight_decay" else None
        self.search_ = found.tried
        predictor: Any = model.fit(training.by_rows, found.chosen)
        self.predictor_ = predictor
        self.k_ = int(predictor.k) if kind.parameter == "k" else None  # no more than there are rows
        solution = getattr(model, "solution_", None)
        self.convergence_ = solution and {"gap": float(solution.gap[0]), "iterations": int(solution.iterations[0])}
        out = self._calibrate(kind, training, found)
        return None if out is None else (found.rows, out)

    def _device(self) -> str:
        if self.device == "cpu":
            return "cpu"
        from featx.devices import pick_device

        return str(pick_device(self.device))

    def _search(self, kind: Kind, training: TrainingData, cross_validate: bool, coarse: bool) -> tuple[Model, Search]:
        """The model, and its hyper-parameter, chosen on held-out rows; the same rows tell how sure its scores are."""
        model = model_for(self.kind, task=self.task_, kernel=self.kernel, device=self._device(), coarse=coarse)
        given = self.C if kind.parameter == "C" else self.k if kind.parameter == "k" else None
        if given is not None:
            model = _only(model, float(given))
        if not training.folds:
            self.notes_.append(
                "no class has two training images that could be told apart, so nothing could be cross-validated"
            )
        calibrate = self.calibrate or ("none" if kind.calibrated else "temperature")
        needed = calibrate != "none" or self.precision is not None or self.task_ == "multilabel"
        if len(model.candidates) == 1 and not (needed or cross_validate):
            training = dataclasses.replace(training, folds=())
        some, drawn = self._share(training)
        found = search(model, some, calibrated=kind.calibrated, grows=kind.parameter == "C" and given is None)
        if some is not training:
            self.notes_.append(
                f"{kind.parameter or 'calibration'} was chosen on {len(some)} of {len(training)} rows, drawn by the seed"
            )
        return model, dataclasses.replace(found, rows=drawn[found.rows])

    def _share(self, training: TrainingData) -> tuple[TrainingData, np.ndarray]:
        """As many rows as a search may take, all or whole folds' shares of them; and (n,) int64, which of the rows they are."""
        most = max(1000, MOST_SEARCHED // (4 * training.rows.width * training.views))
        if len(training) <= most or not training.folds:
            return training, np.arange(len(training))
        rng = np.random.default_rng(self.seed)
        share = most / len(training)
        drawn = np.sort(
            np.concatenate([rng.permutation(test)[: max(1, int(share * len(test)))] for _, test in training.folds])
        )
        fold_of = training.fold_of[drawn]
        folds = tuple(
            (np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(len(training.folds))
        )
        return dataclasses.replace(training.take(drawn), folds=folds), drawn

    def _calibrate(self, kind: Kind, training: TrainingData, found: Search) -> np.ndarray | None:
        """Temperature, offset, curves and thresholds, all from held-out rows; their outputs."""
        y, weight = training.y[found.rows], training.weight[found.rows]
        self.temperature_, self.offset_ = 1.0, np.zeros(training.count)
        self.isotonic_ = self.thresholds_ = self.held_out_ = None
        self.reject_below_ = self.reject_below
        how = self.calibrate or ("none" if kind.calibrated else "temperature")
        if self.task_ == "classification" and self.logit_adjustment:
            self.offset_ = logit_adjustment(np.bincount(training.y, minlength=training.count), self.logit_adjustment)
        if not len(found.rows):
            if self.precision is not None:
                raise HeadError("nothing could be held out to choose a probability by; name it with --reject-below")
            self.thresholds_ = np.full(training.count, 0.5) if self.task_ == "multilabel" else None
            return None
        if self.task_ != "regression" and how != "none":
            self.temperature_ = fit_temperature(found.scores, y, self.task_, weight=weight)
        if self.task_ != "regression" and how == "isotonic":
            self.isotonic_ = fit_isotonic(self._outputs(found.scores), y, weight=weight)
        out = self._outputs(found.scores)
        if self.task_ == "multilabel":
            self.thresholds_ = label_thresholds(out, y)
        if self.precision is not None:
            self.reject_below_ = threshold_for_precision(out, y, self.precision).threshold
        curves, cuts = self.isotonic_ is not None, self.thresholds_ is not None
        fitted = ["isotonic curves"] * curves + ["thresholds"] * cuts
        notes = [f"{' and '.join(fitted)} were fitted to these same rows, which flatters them"] if fitted else []
        self.held_out_ = self._report(y, out, split="train, cross-validated", notes=notes)
        return out

    def _report(self, y: np.ndarray, out: np.ndarray, *, split: str, notes: Sequence[str] = ()) -> Report:
        if self.task_ == "regression":
            return RegressionReport.from_predictions(y, out, split=split, notes=notes)
        if self.thresholds_ is not None:
            return MultiLabelReport.from_predictions(
                y, out, self.classes_, thresholds=self.thresholds_, split=split, notes=notes
            )
        return ClassificationReport.from_predictions(
            y, out, self.classes_, split=split, reject_below=self.reject_below_ or None, notes=notes
        )

    def _scores(self, X: np.ndarray) -> np.ndarray:
        """(N, C), the mean over the views where there are several; NaN where a row makes no sense."""
        if X.ndim not in (2, 3) or X.shape[-1] != len(self.mean_):
            raise HeadError(f"features of shape {X.shape}; this head takes (N, {len(self.mean_)}), or views of that")
        views = 1 if X.ndim == 2 else X.shape[1]
        X = X.reshape(-1, X.shape[-1])
        scores = np.full((len(X), len(self.classes_)), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            Z = (X.astype(np.float64) - self.mean_) / self.scale_
            rows = (np.abs(Z) < _MOST_DEVIATIONS).all(axis=1)
            if rows.any():
                scores[rows] = self.predictor_.decision_function(Z[rows])
        return over_views(scores, views)

    def _logits(self, scores: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            logits: np.ndarray = scores / self.temperature_ - self.offset_
        return logits

    def _outputs(self, scores: np.ndarray) -> np.ndarray:
        if self.task_ == "regression":
            return scores
        several = self.task_ == "multilabel"
        p = sigmoid(self._logits(scores)) if several else softmax(self._logits(scores))
        if self.isotonic_ is None:
            return p
        good = np.isfinite(p).all(axis=1)
        p[good] = self.isotonic_.apply(p[good], normalise=not several)
        return p


_OF_CLASSES = ("class_weight", "logit_adjustment", "reject_below", "precision")
_ASKED = ("C", "k", "kernel", "class_weight", "logit_adjustment", "calibrate", "group", "seed")  # kept in a head's file


def _require_task(task: str, classes: Sequence[str], thresholds: bool) -> None:
    """Raises ValueError where a file's parts do not make a head of its task."""
    if not {"classification": len(classes) > 1, "multilabel": True, "regression": len(classes) == 1}[task]:
        raise ValueError(f"{len(classes)} classes do not make a head of {task}")
    if thresholds != (task == "multilabel"):
        raise ValueError(f"a head of {task} {'with' if thresholds else 'without'} thresholds")


def _only(model: Model, candidate: float) -> Model:
    """The model with one candidate: what was asked for."""
    model.candidates = (candidate,)  # type: ignore[misc]
    return model


def _require_finite(features: np.ndarray, rows: np.ndarray, where: str) -> None:
    blocks = Rows(features, rows).blocks(np.float64)
    bad = sum(np.count_nonzero(~np.isfinite(block).all(axis=1)) for _, block in blocks)
    if bad:
        raise HeadError(
            f"{bad} rows of features of {where} are NaN or infinite; delete the feature file and run featx extract again"
        )


def most_probable(p: np.ndarray, classes: Sequence[str], reject_below: float | None) -> str | None:
    """The class of (C,) probabilities; None where its probability is not as large as it must be."""
    best = int(p.argmax())
    return None if reject_below is not None and not p[best] >= reject_below else classes[best]


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits to (N, C) probabilities; a row with NaN or infinity becomes NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits to (N, C) probabilities, each for itself."""
    with np.errstate(over="ignore"):
        probabilities: np.ndarray = 1.0 / (1.0 + np.exp(-logits))
    return probabilities


def stored_report(report: Report) -> dict[str, Any]:
    """A report as a file keeps it: whole, but for the (C, C) confusion of very many classes, which no header could hold."""
    facts = report.as_dict()
    if isinstance(report, ClassificationReport) and len(report.classes) > _MOST_CLASSES_WITH_CONFUSION:
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
