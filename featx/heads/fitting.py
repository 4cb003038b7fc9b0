"""How a head is fitted: the data, the choice of the hyper-parameter, the fit itself and what follows it.

The steps are ``prepare``, ``search`` (on all rows or a share), the estimator's ``fit``, and ``fit_postprocess``. Notes are
stored in the head's file, so their words are part of its bytes.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from featx.constants import FOREIGN
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import blocks_of, is_joint
from featx.heads.block_factors import SCALED_KINDS, choose_factors, with_factors
from featx.heads.conformal import name_of_sets, notes_on_sets
from featx.heads.estimators.zeroshot import ZeroShotEstimator
from featx.heads.evaluation import make_report, require_finite
from featx.heads.folds import make_folds
from featx.heads.groups import notes_on_splits, row_groups, with_splits
from featx.heads.parameters import check_adjustment, check_for_task
from featx.heads.postprocess import Postprocess, class_weights, fit_postprocess, logit_adjustment, with_promises
from featx.heads.predictors import Predictor
from featx.heads.ranks import alone, ranks_for
from featx.heads.registry import PARAMETERS, EstimatorOptions, HeadKind, get_kind
from featx.heads.search import Search, draw_share, most_searched, search, search_share
from featx.heads.seen import NO_KEYS
from featx.heads.targets import Targets, constant_of, labels_alone, targets_of, task_of
from featx.heads.texts import ClassTexts, require_width
from featx.heads.training_data import (
    Estimator,
    Folds,
    Rows,
    TrainingData,
    different_images,
    flatten_views,
    statistics,
    steadied,
)
from featx.layer_spec import LayerSpec
from featx.metrics.reports import Report
from featx.text import size_text

SEARCH_FOLDS = 5
"""The folds of the cross-validation that hyper-parameters are chosen by."""

PROMISE_FOLDS, MOST_PROMISED = 20, 20_000
"""The folds that choose what a head promises, and the most images for them; of more, the folds of the search choose it."""

MOST_IN_FOLDS = 2_000_000
"""The most images in a file that are divided into folds and groups as a whole; of more, only those that C is chosen on are."""

_MAX_SINGLE_THREAD = 1_000_000  # elements; below it, threads wait for each other longer than they work


def fit_to(
    features: FeatureSet,
    params: Mapping[str, Any],
    *,
    split: str = "train",
    rows: np.ndarray | None = None,
    cross_validate: bool = False,
    coarse: bool = False,
) -> dict[str, Any]:
    """Fit a head to the labelled rows of one split.

    Args:
        features: of one layer.
        params: the arguments of ``Head``.
        split: "train", or another; "all" is every labelled row.
        rows: (n,) int64, labelled rows to fit to instead.
        cross_validate: hold rows out even where there is nothing to choose and nothing to calibrate.
        coarse: search and fit less exactly, where the kind can.

    Returns:
        The fitted attributes of ``Head`` by name, but for ``seconds_``.

    Raises:
        HeadError: as ``Head.fit``.
    """
    task, notes = task_of(features, params["task"])
    check_for_task(params, task)
    check_adjustment(params)
    if not get_kind(params["kind"]).is_fitted:
        return _zero_shot(features, params, task, notes)
    where = f"the split {split!r}" if rows is None else "this set"
    if rows is None:
        features = with_splits(features, task)
        notes = (*notes, *notes_on_splits(features))
        rows = features.rows(split)
    targets = targets_of(labels_alone(features, rows), task, where=where)
    training = prepare(features, rows, targets, task, params, where=where)
    with warnings.catch_warnings(record=True) as caught, useful_threads(training):
        warnings.simplefilter("always")
        training, factors = _scaled_blocks(training, features, params)
        fit = _fit(training, targets.names, params, cross_validate, coarse)
    messages = sorted({str(w.message) for w in caught if issubclass(w.category, UserWarning)})
    return {
        "task_": task,
        "classes_": targets.names,
        "predictor_": fit.predictor,
        "postprocess_": fit.postprocess,
        "mean_": training.rows.mean,
        "scale_": training.rows.scale,
        "factors_": factors,
        "gains_": None,
        **{f"{name}_": fit.parameter.get(name) for name in PARAMETERS},
        "search_": fit.search.tried,
        "held_out_": fit.held_out,
        "out_of_fold_": fit.out_of_fold if cross_validate else None,
        "convergence_": fit.convergence,
        "layer_": features.layer,
        "identity_": features.identity,
        "backbone_": dict(features.backbone),
        "dataset_": dict(features.dataset),
        "source_": features.source,
        "group_": features.group,
        "n_train_": len(rows),
        "n_features_in_": features.width,
        "train_keys_": np.ascontiguousarray(features.keys[rows]),
        "validation_keys_": NO_KEYS,
        "constant_": constant_of(targets, task),
        "notes_": [*notes, *_notes_on_memory(training), *fit.notes, *messages],
    }


def _zero_shot(features: FeatureSet, params: Mapping[str, Any], task: str, notes: Sequence[str]) -> dict[str, Any]:
    """The fitted attributes of a head that is made of the texts of its classes: no image is used.

    Raises:
        HeadError: there are no texts, or of another width than the features; or the task is multilabel, and the model's logits
            are compared between texts alone.
    """
    texts: ClassTexts | None = params["texts"]
    predictor = ZeroShotEstimator(texts).predictor()
    assert texts is not None
    require_width(texts, features.width, features.layer)
    if task == "multilabel" and not texts.sigmoid:
        raise HeadError(
            "the model was trained to tell texts apart (softmax), so its scores do not say whether a label applies; a model "
            "such as SigLIP, which has a sigmoid for each label, makes a zeroshot head of several labels"
        )
    count = len(texts.names)
    thresholds = np.full(count, 0.5) if task == "multilabel" else None
    return {
        "task_": task,
        "classes_": texts.names,
        "predictor_": _in_c_order(predictor),
        "postprocess_": Postprocess(task, 1.0, np.zeros(count), None, thresholds, params["reject_below"]),
        "mean_": np.zeros(features.width),
        "scale_": np.ones(features.width),
        "factors_": (),
        "gains_": None,
        **dict.fromkeys([f"{name}_" for name in PARAMETERS]),
        "search_": (),
        "held_out_": None,
        "out_of_fold_": None,
        "convergence_": None,
        "layer_": features.layer,
        "identity_": features.identity,
        "backbone_": dict(features.backbone),
        "dataset_": dict(features.dataset),
        "source_": features.source,
        "group_": features.group,
        "n_train_": 0,
        "n_features_in_": features.width,
        "train_keys_": NO_KEYS,
        "validation_keys_": NO_KEYS,
        "constant_": None,
        "notes_": list(notes),
    }


def search_folds(targets: Targets, task: str, groups: np.ndarray, seed: int) -> Folds:
    """The folds that choose the hyper-parameter of a head: stratified by class or rarest label, if there are such."""
    return make_folds(None if task == "regression" else targets.y, groups, folds=SEARCH_FOLDS, seed=seed)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The result of a fit.

    Attributes:
        predictor: fitted to all rows.
        postprocess: fitted to the rows that were held out.
        search: the candidates, and the one that was chosen.
        parameter: the hyper-parameter in use, by its name; empty for a kind that has none.
        held_out: a report on the held-out rows; None where none were held out.
        out_of_fold: (m,) int64 of the training images that were held out, and their (m, C) outputs; or None.
        convergence: "gap" and "iterations" of an iterative solver, or None.
        notes: for the user, one sentence each.
    """

    predictor: Predictor
    postprocess: Postprocess
    search: Search
    parameter: dict[str, float]
    held_out: Report | None
    out_of_fold: tuple[np.ndarray, np.ndarray] | None
    convergence: dict[str, float] | None
    notes: tuple[str, ...]


def prepare(
    features: FeatureSet, rows: np.ndarray, targets: Targets, task: str, params: Mapping[str, Any], *, where: str
) -> TrainingData:
    """Gather what a head is fitted to: standardised rows, targets, weights and folds.

    Args:
        features: of one layer.
        rows: (n,) int64, the images to fit to.
        targets: of these images.
        task: one of ``TASKS``.
        params: the arguments of ``Head``.
        where: which rows these are, in words, for messages.

    Raises:
        HeadError: features are not finite, or too large.
    """
    X, index = flatten_views(features.features, rows)
    keys = features.keys[rows]
    unit = params.get("texts") is not None  # cosines of embeddings and texts are not standardised
    ranks = None if unit else ranks_for(features)
    mean, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    if not unit:
        mean, scale = statistics(X, index) if ranks is None else ranks.column_sums(index).statistics()
        scale = steadied(scale, different_images(keys), _blocks_of_one_unit(features))
    if unit:
        require_finite(X, index, where)
        require_width(params["texts"], X.shape[1], features.layer)
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        require_finite(X, index, where)
        raise HeadError(
            f"features of {where} are so large that their standard deviation overflows; run featx extract again"
        )
    count, seed = len(targets.names), params["seed"]
    of_class, weight = params["class_weight"], np.ones(len(targets.y))
    if of_class:
        weight = class_weights(of_class, targets.y, targets.names)[targets.y]
    training = TrainingData(
        Rows(X, index, mean=mean, scale=scale, unit=unit),
        targets.y,
        count,
        task,
        weight,
        seed=seed,
        views=features.views,
        keys=keys,
    )
    if training.rows.fits or len(training) <= MOST_IN_FOLDS:
        return dataclasses.replace(_with_folds(training, features, rows, targets), ranks=ranks)
    drawn = draw_share(targets.y, task, most=most_searched(training), seed=seed)
    some = Targets(targets.names, targets.y[drawn])
    return dataclasses.replace(
        training, share=(_with_folds(training.take(drawn), features, rows[drawn], some), drawn), ranks=ranks
    )


def _blocks_of_one_unit(features: FeatureSet) -> list[slice]:
    """The columns whose variances may be compared: those of one layer of a network; none of arrays and of several layers."""
    spec = LayerSpec.parse(features.layer) if LayerSpec.is_valid(features.layer) else None
    if not features.backbone or FOREIGN in features.backbone.get("parts", {}) or spec is None or len(spec.layers) > 1:
        return []
    return blocks_of(features.backbone, features.width)


def _with_folds(training: TrainingData, features: FeatureSet, rows: np.ndarray, targets: Targets) -> TrainingData:
    """Training data with groups and folds, from the (n,) rows of a feature set that they are."""
    groups = row_groups(features, rows)
    return dataclasses.replace(
        training,
        folds=search_folds(targets, training.task, groups, training.seed),
        grouped=len(np.unique(groups)) < len(groups),
        groups=groups,
    )


def _notes_on_memory(training: TrainingData) -> list[str]:
    """Say that rows are read from their file, and by how many processes."""
    rows = training.rows
    together = f", by {training.ranks.count} processes" if training.ranks is not None else ""
    if rows.fits:
        return []
    return [
        f"the {len(rows)} training rows take {size_text(rows.memory_bytes)}, so they were read block by block{together}"
    ]


def useful_threads(training: TrainingData) -> threadpool_limits:
    """A context in which matrix products on the training data have only as many threads as speed them up."""
    return threadpool_limits(1 if len(training.rows) * training.rows.width <= _MAX_SINGLE_THREAD else None)


def _scaled_blocks(
    training: TrainingData, features: FeatureSet, params: Mapping[str, Any]
) -> tuple[TrainingData, tuple[float, ...]]:
    """Choose the relative scales of the backbones of joint features; of one backbone, nothing is chosen.

    Returns:
        The data with these scales, and the factor of each backbone; () of one.
    """
    if not is_joint(features.backbone):
        return training, ()
    blocks = blocks_of(features.backbone, features.width)
    if params["kind"] not in SCALED_KINDS or params.get("texts") is not None:
        return training, (1.0,) * len(blocks)
    kind = get_kind(params["kind"], kernel=params["kernel"])
    options = EstimatorOptions(training.task, params["kernel"], device_name(params["device"]), True, None)
    given = params[kind.parameter] if kind.parameter in ("C", "k") else None
    candidates = None if given is None else (float(given),)
    factors = choose_factors(training, blocks, kind.estimator(options), kind, candidates)
    return with_factors(training, blocks, factors), factors


def _fit(
    training: TrainingData, classes: tuple[str, ...], params: Mapping[str, Any], cross_validate: bool, coarse: bool
) -> _Fit:
    """Choose the hyper-parameter, fit, and calibrate on the rows that were held out."""
    kind = get_kind(params["kind"], kernel=params["kernel"])
    calibrate = params["calibrate"] or ("none" if _is_calibrated(kind, training.task) else "temperature")
    needs_held_out = (
        cross_validate
        or calibrate != "none"
        or params["target_precision"] is not None
        or params["conformal"] is not None
        or training.task == "multilabel"
    )
    texts = None if params.get("texts") is None else params["texts"].of_classes(classes)
    options = EstimatorOptions(training.task, params["kernel"], device_name(params["device"]), coarse, texts)
    estimator = kind.estimator(options)
    chosen, notes = _choose(estimator, kind, training, params, needs_held_out)
    predictor = _in_c_order(estimator.fit(training.views_as_images, chosen.chosen))
    used = _parameter_in_use(kind, chosen, predictor)
    if params["k"] is not None and used["k"] < params["k"]:
        notes.append(
            f"k is {used['k']} instead of {params['k']}: the head has no more training rows to find neighbours among"
        )
    convergence = _convergence(estimator)  # before further fits of folds
    if not (training if training.share is None else training.share[0]).folds:
        free = used if params.get(kind.parameter) is None else {}
        notes += _notes_without_folds(training.task, free, calibrates=needs_held_out)
    postprocess = _postprocess(training, chosen, params, calibrate)
    if params["target_precision"] is not None or params["conformal"] is not None:
        postprocess = _promised(postprocess, estimator, kind, training, chosen, params)
    if postprocess.conformal is not None:
        notes += notes_on_sets(postprocess.conformal, classes)
    outputs = postprocess.apply(chosen.scores) if len(chosen.rows) else None
    return _Fit(
        predictor,
        postprocess,
        chosen,
        used,
        None if outputs is None else _report(training, chosen, postprocess, outputs, classes, params, kind.parameter),
        None if outputs is None else (chosen.rows, outputs),
        convergence,
        tuple(notes),
    )


def _in_c_order(predictor: Predictor) -> Predictor:
    """Give the arrays of a predictor the memory order that a file has: the last digits of a product depend on it."""
    arrays = {f.name: np.asarray(getattr(predictor, f.name), order="C") for f in dataclasses.fields(predictor)}  # type: ignore[arg-type]
    return dataclasses.replace(predictor, **arrays)  # type: ignore[type-var]


def _is_calibrated(kind: HeadKind, task: str) -> bool:
    """Whether a kind of head needs no calibration: it is a probability model, or predicts numbers without any choice."""
    return kind.gives_logits or (task == "regression" and not kind.parameter)


def _choose(
    estimator: Estimator, kind: HeadKind, training: TrainingData, params: Mapping[str, Any], needs_held_out: bool
) -> tuple[Search, list[str]]:
    """Choose the hyper-parameter on held-out rows, whose scores also serve calibration; and notes."""
    given = params[kind.parameter] if kind.parameter in ("C", "k") else None
    candidates = estimator.candidates if given is None else (float(given),)
    notes = []
    if len(candidates) == 1 and not needs_held_out:
        training = dataclasses.replace(training, folds=(), share=None)
    some, drawn = search_share(alone(training))
    extends = kind.parameter == "C" and given is None
    chosen = search(estimator, some, candidates=candidates, gives_logits=kind.gives_logits, extends=extends)
    if len(some) < len(training):
        notes.append(
            f"{kind.parameter or 'calibration'} was chosen on {len(some)} of {len(training)} rows, drawn by the seed"
        )
    return dataclasses.replace(chosen, rows=drawn[chosen.rows]), notes


def _notes_without_folds(task: str, used: Mapping[str, float], *, calibrates: bool) -> list[str]:
    """Say what was not chosen, because no training image can be held out: a hyper-parameter, and the calibration."""
    lacking = [f"{name} is {value:g}, the middle of its grid, without a search" for name, value in used.items()]
    lacking += ["the scores are not calibrated"] if calibrates else []
    of = " of a class" if task == "classification" else ""
    differ = f"no two training images{of} differ (copies and images of one group count once)"
    return [f"{differ}, so {' and '.join(lacking)}"] if lacking else []


def _postprocess(training: TrainingData, chosen: Search, params: Mapping[str, Any], calibrate: str) -> Postprocess:
    offset = None
    if training.task == "classification" and params["logit_adjustment"]:
        prior = np.bincount(training.y, minlength=training.count)
        offset = logit_adjustment(prior, params["logit_adjustment"])
    return fit_postprocess(
        chosen.scores,
        training.y[chosen.rows],
        training.task,
        calibrate=calibrate,
        weight=training.weight[chosen.rows],
        offset=offset,
        reject_below=params["reject_below"],
    )


def _promised(
    postprocess: Postprocess,
    estimator: Estimator,
    kind: HeadKind,
    training: TrainingData,
    chosen: Search,
    params: Mapping[str, Any],
) -> Postprocess:
    """Choose the thresholds of what the head promises on rows that fits to nearly all others score.

    The fits of the search lack a fifth of the rows. Where rows are few for the number of classes, the head itself, fitted to
    all, is more confident than they are, and would keep less than they promise.
    """
    some, drawn = search_share(alone(training))
    if len(some) == len(training) <= MOST_PROMISED and some.groups is not None:
        strata = None if training.task == "regression" else training.y
        finer = make_folds(strata, some.groups, folds=PROMISE_FOLDS, seed=training.seed)
        if len(finer) > len(some.folds):
            some = dataclasses.replace(some, folds=finer)
            found = search(estimator, some, candidates=(chosen.chosen,), gives_logits=kind.gives_logits, extends=False)
            chosen = dataclasses.replace(found, rows=drawn[found.rows])
            training = dataclasses.replace(training, folds=finer)
    return with_promises(
        postprocess,
        chosen.scores,
        training.y[chosen.rows],
        weight=training.weight[chosen.rows],
        target_precision=params["target_precision"],
        conformal=params["conformal"],
        per_class=params["conformal_per_class"],
        groups=training.groups_of(chosen.rows),
        folds=training.folds_of(chosen.rows),
    )


def _report(
    training: TrainingData,
    chosen: Search,
    postprocess: Postprocess,
    outputs: np.ndarray,
    classes: tuple[str, ...],
    params: Mapping[str, Any],
    parameter: str,
) -> Report:
    """The report on the rows that were held out."""
    fitted = [
        name
        for name, value in (("isotonic curves", postprocess.isotonic), ("thresholds", postprocess.thresholds))
        if value is not None
    ]
    notes = [f"{' and '.join(fitted)} were fitted to these same rows, which flatters them"] if fitted else []
    if len(chosen.tried) > 1:
        notes.append(f"{parameter} was chosen on these same rows, which flatters them a little")
    if params["target_precision"] is not None:
        notes.append("the rejection threshold was chosen on these same rows, which flatters what is accepted")
    if postprocess.conformal is not None:
        notes.append(f"the {name_of_sets(training.task)} were chosen on these same rows, so that they cover as wished")
    y, groups = training.y[chosen.rows], training.groups_of(chosen.rows)
    return make_report(
        postprocess, classes, y, outputs, split="train, cross-validated", groups=groups, notes=notes,
        constant=constant_of(Targets(classes, training.y), training.task),
    )  # fmt: skip


def _parameter_in_use(kind: HeadKind, chosen: Search, predictor: Any) -> dict[str, float]:
    if not kind.parameter:
        return {}
    # There are never more neighbours than rows, so the predictor may have fewer than were chosen.
    return {kind.parameter: int(predictor.k) if kind.parameter == "k" else chosen.chosen}


def _convergence(estimator: Estimator) -> dict[str, float] | None:
    solution = getattr(estimator, "solution_", None)
    return solution and {"gap": float(solution.gap[0]), "iterations": int(solution.iterations[0])}


def device_name(name: str) -> str:
    """The device of torch that an argument ``device`` means."""
    if name == "cpu":
        return "cpu"
    from featx.devices import pick_device  # imports torch

    return str(pick_device(name))
