"""``Head``: a light classifier or regression on cached features, fitted in seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from featx.arguments import path_of
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads import evaluation, fitting, head_file
from featx.heads.arguments import checked_rows, require_fitted
from featx.heads.conformal_head import ConformalHead
from featx.heads.parameters import check_parameters
from featx.heads.registry import default_kind, get_kind
from featx.heads.texts import ClassTexts
from featx.metrics.reports import Report


class Head(ConformalHead):
    """A classifier, a multi-label classifier or a regression on the features of one layer.

    Features are standardised with the mean and deviation of the training rows. The hyper-parameter (C, k or weight decay) is
    chosen on the training rows alone, by the loss of stratified cross-validation, unless it is given; images of one group
    (``FeatureSet.groups``) never straddle a fold. The scores of all heads but logreg and bilinear are divided by a
    temperature (Guo et al., 2017) that is fitted to the same held-out rows.

    Where features hold several views of each image (test-time augmentation, TTA), the head is fitted to each view as a row,
    and an image's scores are the mean over its views.

    Args:
        kind: "logreg", "linear", "svm", "ridge", "knn", "centroid", "bilinear", "mlp", "zeroshot", or a kind added by
            ``register_head``; by default "ridge" for ``task="regression"``, else "logreg".
        C: inverse strength of the penalty, as in scikit-learn, for logreg, svm, bilinear and ridge (alpha = 1 / (2 C)).
        kernel: "linear" or "rbf", for svm.
        k: number of neighbours, for knn.
        seed: of the folds, and of minibatches.
        task: "classification", "multilabel" (labels such as ``cat|dog``), "regression", or "auto": from the labels.
        class_weight: "balanced": each class has the same weight, however many images it has. Or the weight of each class by
            its name, such as ``{"cat": 2}``; others have the weight 1.
        logit_adjustment: this times the log of each class's share of the training rows is subtracted from its logit
            (Menon et al., 2021); 1 treats all classes as equally likely. Not together with ``class_weight``.
        calibrate: "temperature", "isotonic" (Zadrozny and Elkan, 2002) or "none", fitted to held-out rows; None: a
            temperature (of several labels with an offset) for all kinds but logreg and bilinear.
        reject_below: no class is predicted if the highest probability is lower.
        target_precision: choose ``reject_below`` so that this share of the predictions is right, on held-out rows.
        conformal: calibrate prediction sets (of a regression, intervals) on held-out rows: the share of them that may miss
            the truth, such as 0.1. ``predict_set`` gives them.
        conformal_per_class: let the sets miss at most this share of each class.
        device: of torch, or "auto": where logreg, svm, linear, bilinear and mlp compute their products.
        texts: the classes as vectors of text (``featx.heads.texts``), which ``fit_head`` makes: all that a "zeroshot" head
            needs; logreg with ``texts`` is regularised towards them.

    Attributes:
        task_: "classification", "multilabel" or "regression".
        classes_: (C,) names, those with training rows; of a regression "value". After ``fit(X, y)`` an array of y's type.
        names_: (C,) the same as text, whatever it was fitted to.
        predictor_: scores standardised features.
        postprocess_: turns scores into probabilities and decisions.
        temperature_, offset_, isotonic_, thresholds_, reject_below_, conformal_: the parts of ``postprocess_``.
        mean_, scale_: (D,) float64, which standardise the features.
        gains_: what each of several backbones adds, as ``fit_head`` found it and the file stores it; else None.
        factors_: of features of several backbones, the relative scale of each, which is part of ``scale_``; else ().
        C_, k_, weight_decay_: the hyper-parameter in use, or None.
        search_: the candidates, their cross-validated losses and standard errors.
        held_out_: a report on held-out training rows; None if none were held out, or the head was loaded.
        out_of_fold_: with ``cross_validate``, the out-of-fold predictions: (m,) int64, which of the training rows, and their
            (m, C) outputs; else None.
        convergence_: of an iterative solver, the relative gap of the objective and the iterations; else None.
        layer_: the layers and views of the backbone, as ``LayerSpec`` parses them.
        identity_: of the features it was fitted to.
        backbone_: how to load the backbone again.
        dataset_: the data set's name and root.
        source_: the feature file, or None.
        group_: the column that the groups of the images came from, or None.
        n_train_: the number of training images.
        train_keys_: (n_train, 16) uint8, their content hashes.
        validation_keys_: (m, 16) uint8, the content hashes of other images that chose thresholds (``conformalize``).
        constant_: the best answer without an image, which is the baseline of reports: the commonest class of the training
            images, a tuple of their commonest set of labels, or the mean number; None where it is not known.
        notes_: for the user, one sentence each.
        seconds_: the duration of the fit.

    Raises:
        HeadError: an argument is unknown or out of range, or two exclude each other.

    Examples:
        >>> import numpy as np
        >>> from featx import FeatureSet, Head
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(60) % 2
        >>> features = FeatureSet(
        ...     features=(rng.normal(size=(60, 4)) + 5 * labels[:, None]).astype(np.float32),
        ...     labels=labels,
        ...     splits=np.where(np.arange(60) < 40, "train", "test").astype(object),
        ...     classes=("ant", "bee"),
        ...     paths=np.arange(60).astype(str).astype(object),
        ...     keys=rng.integers(0, 256, (60, 16), dtype=np.uint8),
        ... )
        >>> head = Head("ridge", C=0.1).fit(features)
        >>> head.predict(features.features[40:44]).tolist()
        ['ant', 'bee', 'ant', 'bee']
        >>> head.evaluate(features).accuracy
        1.0
        >>> head
        Head(C=0.1, kind='ridge')
    """

    def __init__(
        self,
        kind: str | None = None,
        *,
        C: float | None = None,
        kernel: str = "linear",
        k: int | None = None,
        seed: int = 0,
        task: str = "auto",
        class_weight: str | Mapping[Any, float] | None = None,
        logit_adjustment: float = 0.0,
        calibrate: str | None = None,
        reject_below: float | None = None,
        target_precision: float | None = None,
        conformal: float | None = None,
        conformal_per_class: bool = False,
        device: str = "cpu",
        texts: ClassTexts | None = None,
    ) -> None:
        self.kind = default_kind(task) if kind is None else kind
        self.C = C
        self.kernel = kernel
        self.k = k
        self.seed = seed
        self.task = task
        self.class_weight = class_weight
        self.logit_adjustment = logit_adjustment
        self.calibrate = calibrate
        self.reject_below = reject_below
        self.target_precision = target_precision
        self.conformal = conformal
        self.conformal_per_class = conformal_per_class
        self.device = device
        self.texts = texts
        check_parameters(self.get_params())

    def set_params(self, **params: Any) -> Self:
        """Change some arguments of the constructor; all are checked before any is changed.

        Raises:
            HeadError: an unknown name, or values that the constructor refuses.
        """
        unknown = sorted(params.keys() - self.get_params().keys())
        if unknown:
            raise HeadError(f"a head has no parameter {', '.join(unknown)}; it has {', '.join(self.get_params())}")
        check_parameters({**self.get_params(), **params})
        super().set_params(**params)
        return self

    def fit(
        self,
        features: FeatureSet | Any,
        y: Any = None,
        *,
        split: str = "train",
        rows: np.ndarray | None = None,
        cross_validate: bool = False,
        coarse: bool = False,
    ) -> Self:
        """Fit to the labelled rows of one split of a feature set, or to all rows of arrays, as a scikit-learn estimator.

        Args:
            features: of one layer, with labels. Their ``groups``, if any, keep images together in splits and folds. Or X,
                (N, D) numbers; predictions then are of the type of ``y``: ``featx.heads.array_estimator`` has the details.
            y: the (N,) labels of X, as ``FeatureSet.from_arrays`` takes them; none with a feature set.
            split: "train", or another; "all" is every labelled row.
            rows: (n,) int64, labelled rows to fit to instead.
            cross_validate: hold rows out even where there is nothing to choose and nothing to calibrate.
            coarse: for logreg and svm, compare values of C that are further apart, and search and fit less exactly.

        Raises:
            HeadError: neither a ``FeatureSet`` nor arrays, parameters that do not suit the task, too few classes, or features
                that are not finite.
        """
        started = time.perf_counter()
        task = self.task
        if not isinstance(features, FeatureSet) and y is not None:
            features, task = self._take_arrays(features, y)
            rows = np.arange(len(features)) if rows is None else rows
        else:
            self._forget_arrays()
        rows = checked_rows(features, rows, "fit", None if self._arrays else y)
        fitted = fitting.fit_to(
            features,
            {**self.get_params(), "task": task},
            split=split,
            rows=rows,
            cross_validate=cross_validate,
            coarse=coarse,
        )
        self.__dict__.update(fitted)
        if not get_kind(self.kind).is_fitted and (self.conformal, self.target_precision) != (None, None):
            self.conformalize(features, split=split, rows=rows)
        self.seconds_ = time.perf_counter() - started
        return self

    def evaluate(self, features: FeatureSet, *, split: str | None = None, rows: np.ndarray | None = None) -> Report:
        """Judge the head on rows that it was not fitted to.

        Args:
            features: of the same identity as those of the fit, and with groups if those had groups.
            split: by default "test" if there is one, else "val"; "all" is every labelled row.
            rows: (n,) int64, labelled rows to judge on instead.

        Raises:
            StaleCacheError: the features are of another identity.
            HeadError: no such rows, a class that the head was not fitted to, missing groups, or features that are not finite.
        """
        return self.judge(features, split=split, rows=rows)[0]

    def judge(
        self, features: FeatureSet, *, split: str | None = None, rows: np.ndarray | None = None
    ) -> tuple[Report, np.ndarray, np.ndarray]:
        """Evaluate, and also return the (n,) int64 rows that were judged and their (n, C) outputs."""
        require_fitted(self, "evaluate")
        rows = checked_rows(features, rows, "evaluate")
        self.require_identity(features)
        return evaluation.judge(self, features, split=split, rows=rows)

    @property
    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters in use; None where the kind has none such."""
        return head_file.parameters_in_use(self.get_params(), vars(self))

    def save(
        self, path: str | os.PathLike[str], *, report: Report | None = None, made: Mapping[str, Any] | None = None,
        cross_validated: Mapping[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        """Write the head as one .safetensors file: arrays, and JSON in its metadata.

        Args:
            path: of the file.
            report: on the held-out split, to be stored with the head.
            made: how it was made, as ``featx.heads.refits.Made`` has it, to be stored too.
            cross_validated: of ``featx.metrics.cross_validation.stored``, to be stored too.

        Returns:
            The path.

        Raises:
            OutputError: the file cannot be written, or there is a file at the path that is not a head.
            HeadError: the head is not fitted, or an attribute was set to something that could not be read again.
        """
        require_fitted(self, "save")
        head_file.write_head(
            Path(path), self.get_params(), vars(self), report=report, made=made, cross_validated=cross_validated
        )
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Head:
        """Read a head. Whatever the file holds, nothing of it is run.

        Raises:
            ModelNotFoundError: the file does not exist, or cannot be opened.
            CorruptFileError: not a head, or a damaged one; the message names the fault.
        """
        params, fitted = head_file.read_head(Path(path_of(path, "path")))
        head = cls(**params)
        head.__dict__.update(fitted)
        return head
