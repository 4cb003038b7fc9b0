"""Fit a head, evaluate it and save it: one head, or the best of all kinds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featx.advice.backbone_gains import BackboneGains
from featx.advice.layer_scores import best_layer, score_layers
from featx.arguments import counts_of, names_of
from featx.constants import CACHE, MODELS, ZERO_SHOT
from featx.errors import HeadError, system_errors
from featx.features.feature_set import FeatureSet, views_in
from featx.features.joint_files import JoinedFiles
from featx.heads.groups import GroupedLoader, notes_on_splits, read_column, with_groups, with_splits
from featx.heads.head import Head
from featx.heads.refits import Made, Replaced
from featx.heads.registry import auto_candidates, get_kind
from featx.heads.targets import require_train_classes
from featx.layer_spec import PENULTIMATE, LayerSpec
from featx.metrics.cross_validation import CrossValidated, stored
from featx.metrics.reports import Report
from featx.progress import shows_progress
from featx.report.subject import subject_of
from featx.reporter import SILENT, Reporter
from featx.text import counted
from featx.tracking.dispatch import Trackers
from featx.workflows.class_texts import ClassNames, class_texts
from featx.workflows.comparison import Compared, compare_kinds
from featx.workflows.fit_guarantees import fit_and_calibrate, require_apart
from featx.workflows.fit_notes import notes_on_fit
from featx.workflows.fit_options import AUTO, BEST, CV_FOLDS, CV_REPEATS, require_compatible, require_texts
from featx.workflows.fit_progress import FitProgress
from featx.workflows.fit_result import Fit
from featx.workflows.fit_sources import (
    Source,
    files_of_source,
    gains_of,
    make_head,
    require_one_source,
    set_task,
    source_of,
)
from featx.workflows.fit_together import fits_together
from featx.workflows.fit_tracked import log_fit, params_before
from featx.workflows.gains_page import gains_sections
from featx.workflows.head_comparison import HeadComparison, compare_with
from featx.workflows.head_files import HeadFiles, head_size
from featx.workflows.head_place import fit_options, head_place, made_of
from featx.workflows.resampling import Resampling
from featx.workflows.small_data import can_be_divided, cross_validates
from featx.workflows.unseen import EarlierHead, Unseen, unseen_rows


@system_errors()
@shows_progress("fit-head", "fits")
@fits_together
def fit_head(  # its options are those of featx fit-head, and most of its lines describe them
    features: Source | Sequence[Source] | None = None,
    model: str | Head | None = None,
    *,
    with_backbones: str | Sequence[str] = (),
    layer: str | Sequence[str] = PENULTIMATE,
    views: str | None = None,
    C: float | None = None,
    kernel: str = "linear",
    k: int | None = None,
    task: str = "auto",
    class_weight: str | Mapping[Any, float] | None = None,
    logit_adjustment: float = 0.0,
    calibrate: str | None = None,
    reject_below: float | None = None,
    target_precision: float | None = None,
    conformal: float | None = None,
    conformal_per_class: bool = False,
    calibrate_on: str | None = None,
    prompts: str | Sequence[str] = (),
    class_names: ClassNames | str | os.PathLike[str] | None = None,
    anchor: str | None = None,
    cv: int | str | None = None,
    repeat: int = 1,
    shots: int | Sequence[int] = (),
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
    report: bool = False,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    device: str = "cpu",
    cache: str | os.PathLike[str] = CACHE,
    models: str | os.PathLike[str] = MODELS,
    out: str | os.PathLike[str] | None = None,
    compare: Head | str | os.PathLike[str] | None = None,
    track: str | Sequence[str] = (),
    experiment: str | None = None,
    callbacks: Sequence[Any] = (),
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Fit:
    """Fit a head to the training rows of a feature file, evaluate it on the held-out rows, and save both.

    The held-out split is "test" where there is one, else "val". Nothing is chosen on it.

    In processes that torchrun started, logreg, ridge and linear are fitted by all of them, each with its part of the training
    rows; the first one alone writes, and all return its result.

    Args:
        features: a feature set or a feature file; by default the newest in ``cache``. Or several, of the same images through
            different backbones, whose features are put side by side (``FeatureSet.join``).
        model: kind of head, as ``Head`` takes it, by default "ridge" for a regression, else "logreg"; or "auto", which fits
            every kind that suits the data and selects the simplest whose cross-validated loss on the training rows is within
            one standard error of the lowest. A ``Head`` is fitted as it is, and none of its own arguments may be given here.
        with_backbones: names of backbones whose feature files of the same data set, in the folder of ``features`` or else in
            ``cache``, are put beside ``features``.
        layer: layer of the feature file; several are concatenated. Of several files each has it, and ``BACKBONE=LAYER`` is a
            layer of the file of that backbone alone. "best" is the layer of the lowest cross-validated loss, if
            that is two standard errors lower than the penultimate layer's, image by image; else the penultimate.
        views: views of each image that the head is fitted to (test-time augmentation): "plain", "flip" or "10crop"; by default
            all that the file has. The scores of an image are averaged over its views.
        C: as ``Head`` takes it.
        kernel: as ``Head`` takes it.
        k: as ``Head`` takes it.
        task: as ``Head`` takes it.
        class_weight: as ``Head`` takes it.
        logit_adjustment: as ``Head`` takes it.
        calibrate: as ``Head`` takes it.
        reject_below: as ``Head`` takes it.
        target_precision: as ``Head`` takes it.
        conformal: as ``Head`` takes it.
        conformal_per_class: as ``Head`` takes it.
        calibrate_on: a split whose labelled images choose the thresholds of ``conformal`` and ``target_precision``; by default
            out-of-fold predictions of the training images do, and those of "train" for ``model="zeroshot"``.
        prompts: templates such as "a photo of a {}" for ``model="zeroshot"``, which compares images with the text of each class
            and learns nothing from images, and for ``anchor``. The features must come from a model that has a text tower.
        class_names: the words for some classes in those texts, by class, or a JSON or CSV file with them; by default the class
            names with spaces in place of underscores.
        anchor: "zeroshot": the penalty of logreg is the distance from the zero-shot weights, instead of their size.
        cv: evaluate by this number of folds over all labelled rows too; in each fold the hyper-parameter is chosen anew. By
            default that happens, 4 times by 5 folds with a coarse search, where fewer than 200 images are held out and it
            takes seconds; 0 never does. Or
            the name of a column of the data set's table, each of whose values is a fold; images of -1 or without a value are
            in no fold, and heads are fitted to them (scikit-learn's ``PredefinedSplit``).
        repeat: number of times that ``cv`` and the draws of ``shots`` are repeated.
        shots: evaluate heads fitted to this number or these numbers of images of each class too, on the held-out split.
        group: a column of the data set's table; images of one group never straddle a split or a fold.
        table: the table with that column, where it is not the one that the features were extracted from.
        predictions: a .csv or .parquet file for what is predicted for each labelled image: training images out of fold, the
            others by the head.
        report: write an HTML page about the head too.
        images: a folder, or folders, besides that of the data set whose images the page may show.
        seed: seed of folds, draws and minibatches.
        device: as ``Head`` takes it.
        cache: folder of feature files.
        models: folder of heads.
        out: file of the head, instead of ``<models>/<features>--<kind>--<options>.safetensors``, where options are those that
            are not the defaults. The same options take the same name again.
        compare: an earlier head or its file. Both heads are judged on the held-out images that are new to both, as
            ``featx.workflows.unseen.unseen_rows`` selects them. The labels of ``features`` count for both.
        track: "mlflow", "wandb" or "tensorboard", or several: log parameters, the search, results, pictures and the head there.
        experiment: name of the experiment (MLflow) or project (Weights & Biases); by default what their variables name, else
            "featx".
        callbacks: objects with methods of ``featx.Tracker``, which are told the same.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress of ``model="auto"``, ``cv`` and ``shots``, in fits.

    Raises:
        SettingsError: options that exclude or need one another, or that several processes cannot fit; or a tool of ``track``
            is not installed.
        HeadError: no rows to fit to or to evaluate on, or options that do not suit the head; or no image is new to both heads.
        StaleCacheError: the earlier head was fitted to other features, whose file is gone.
        CacheMissError, CorruptFileError: the feature file is missing or damaged.
        OutputError: the head cannot be written.

    Example:

        fit = featx.fit_head("cache/photos--resnet50.h5", "auto", cv=5)
        print(fit.head.kind, fit.report.accuracy, fit.cross_validated.mean("accuracy"))
    """
    shots, prompts, auto = counts_of(shots, "shots"), names_of(prompts, "prompts"), model == AUTO
    require_compatible(model=model, C=C, k=k, kernel=kernel, cv=cv, repeat=repeat, shots=shots)
    require_texts(model=model, prompts=prompts, class_names=class_names, anchor=anchor)
    trackers = Trackers.of(track, callbacks, experiment=experiment, reporter=reporter)
    head = make_head(
        model, C=C, kernel=kernel, k=k, seed=seed, task=task, class_weight=class_weight,
        logit_adjustment=logit_adjustment, calibrate=calibrate, reject_below=reject_below, target_precision=target_precision,
        conformal=conformal, conformal_per_class=conformal_per_class, device=device,
    )  # fmt: skip
    source = source_of(features, with_backbones, layer=layer, views=views, cache=cache, reporter=reporter)
    read = [path for path in (*files_of_source(source), table, compare) if isinstance(path, str | os.PathLike)]
    HeadFiles.require_named(out, read)  # before layers are compared, which takes a while
    by_task = auto or (model is None and not anchor)
    data = _gather(source, head, layer=layer, views=views, group=group, table=table, auto=auto, by_task=by_task, cv=cv)
    _add_texts(head, data.features, anchor, prompts, class_names, reporter)
    page = names_of(images, "images") if report else None
    asked = _Asked(auto, cv, repeat, shots, page, table, models, out, predictions, calibrate_on)
    return _run(_with_earlier(data, compare, calibrate_on), head, asked, read, trackers, reporter)


@dataclass(frozen=True)
class _Asked:
    """What is wanted of a fit, as ``fit_head`` takes it.

    Attributes:
        auto: to fit every kind that suits the data, and to select one.
        cv, repeat, shots: evaluations.
        page: further folders of images for the HTML page; None: no page.
        table, models, out, predictions: files.
        calibrate_on: the split that chooses what is promised; None: the training images.
    """

    auto: bool
    cv: int | str | None
    repeat: int
    shots: Sequence[int]
    page: Sequence[str] | None
    table: str | os.PathLike[str] | None
    models: str | os.PathLike[str]
    out: str | os.PathLike[str] | None
    predictions: str | os.PathLike[str] | None
    calibrate_on: str | None


def _run(
    data: _Data,
    head: Head,
    asked: _Asked,
    read: Sequence[str | os.PathLike[str]],
    trackers: Trackers,
    reporter: Reporter,
) -> Fit:
    """Fit, evaluate and save, with the trackers told; ``read`` are the files that are read."""
    auto, cv, repeat, shots = asked.auto, asked.cv, asked.repeat, asked.shots
    require_apart(data.split, data.held_out, head, asked.calibrate_on)
    options = fit_options(data.features, head, auto=auto, table=asked.table, calibrate_on=asked.calibrate_on)
    place = head_place(data.features, head, options, models=asked.models, out=asked.out)
    files = HeadFiles.of(place.path, named=bool(asked.out), predictions=asked.predictions)
    files.require_writable(head_size(data.features, head), inputs=[*read, *_sources(data)], features=data.features)
    fits = FitProgress(reporter, _count_fits(data, head, auto=auto, cv=cv, repeat=repeat, shots=shots))
    with trackers.run("fit-head", files.path):
        trackers.log_params(params_before(data.split, options, held_out=data.held_out))
        out_of_fold = asked.page is not None or asked.predictions is not None
        fit_it = partial(_fit, data, auto=auto, cross_validate=out_of_fold, fits=fits)
        head, compared = fit_and_calibrate(fit_it, head, data.features, asked.calibrate_on)
        evaluated = _evaluate(data, head, cv=cv, repeat=repeat, shots=shots, fits=fits)
        made = made_of(options, data.split, evaluated.rows)
        replaced = place.replaced(made)
        fit = _save(data, head, evaluated, compared, files, made, replaced, page=asked.page, reporter=reporter)
        log_fit(trackers, fit)
    return dataclasses.replace(fit, notes=(*fit.notes, *trackers.notes), tracked=trackers.places)


def _add_texts(
    head: Head, features: FeatureSet, anchor: str | None, prompts: Sequence[str], class_names: Any, reporter: Reporter
) -> None:
    """Give a head that needs them the texts of its classes."""
    if head.texts is None and (anchor or head.kind == ZERO_SHOT):
        require_one_source(features)
        reporter.stage("embedding the texts of the classes")
        head.texts = class_texts(features, head.task_, prompts=prompts, class_names=class_names)


@dataclass(frozen=True, eq=False)
class _Data:
    """Rows to fit to and to evaluate on.

    Attributes:
        features: all rows.
        split: the same rows, in the splits that the head uses.
        held_out: the split to evaluate on; "" where there is none, and cross-validation alone or nothing evaluates the head.
        file: the feature file, or None.
        layers: the layers that were compared, if any.
        earlier: the head to compare with, and the held-out images that are new to both heads; or None.
        folds: (N,) object array of str, the cells of the column that names the folds of ``cv``, or None.
        joined: the files of several backbones that the features come from, with what should be known of them; or None.
    """

    features: FeatureSet
    split: FeatureSet
    held_out: str
    file: Path | None
    layers: tuple[Compared, ...]
    earlier: tuple[EarlierHead, Unseen] | None = None
    folds: np.ndarray | None = None
    joined: JoinedFiles | None = None

    @property
    def training_rows(self) -> int:
        """Number of training rows, views included."""
        return len(self.split.rows("train")) * self.split.views


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """The evaluation of a head.

    Attributes:
        report: on the held-out split, or None.
        rows: (n,) int64, the rows of that split, or None.
        outputs: (n, C) float64, what the head predicts for them, or None.
        cross_validated: result of ``cv``.
        shots: results of ``shots``.
        against: the comparison with an earlier head, or None.
        gains: what each of several backbones adds, or None.
    """

    report: Report | None
    rows: np.ndarray | None
    outputs: np.ndarray | None
    cross_validated: CrossValidated | None
    shots: tuple[tuple[int, CrossValidated], ...]
    against: HeadComparison | None
    gains: BackboneGains | None


def _gather(
    source: Source | JoinedFiles,
    head: Head,
    *,
    layer: str | Sequence[str],
    views: str | None,
    group: str | None,
    table: str | os.PathLike[str] | None,
    auto: bool,
    by_task: bool,
    cv: int | str | None,
) -> _Data:
    """Load the features, compare layers if asked to, and find the splits. Sets the head's task; ``by_task``, its kind too."""
    joined = source if isinstance(source, JoinedFiles) else None
    source = source.features if isinstance(source, JoinedFiles) else source
    file = source.source if isinstance(source, FeatureSet) else Path(source)
    layers: tuple[Compared, ...] = ()
    if isinstance(source, FeatureSet):
        features = with_groups(source, group, table)
        task = set_task(head, features, by_task=by_task)
    else:
        load = GroupedLoader(source, group, table)
        layer = ",".join(dict.fromkeys(names_of(layer, "layer")))
        first = PENULTIMATE if layer == BEST else layer
        views = views or views_in(source, first)
        features = load(str(LayerSpec.parse(first, views)))
        task = set_task(head, features, by_task=by_task)
        if layer == BEST:
            scores = score_layers(source, head, views=views, load=load)
            layers = tuple(Compared.of(score.head.layer, score.head) for score in scores)
            features = load(str(LayerSpec.parse(best_layer(scores).layer, views)))
    split = with_splits(features, task)
    folds = read_column(features, cv, option="--cv") if isinstance(cv, str) else None
    if auto or get_kind(head.kind).is_fitted:
        return _Data(features, split, _held_out(split, task, cv), file, layers, folds=folds, joined=joined)
    held_out = next((name for name in ("test", "val") if name in split.splits[split.labels >= 0]), "all")
    held_out = held_out if (split.labels >= 0).any() else ""
    return _Data(features, split, held_out, file, layers, folds=folds, joined=joined)


def _with_earlier(data: _Data, compare: Head | str | os.PathLike[str] | None, calibrate_on: str | None) -> _Data:
    """Load the head to compare with, and find the held-out images that are new to both heads.

    Raises:
        HeadError: there is no held-out split, or no such image.
    """
    if compare is None:
        return data
    if not data.held_out:
        raise HeadError("--compare judges both heads on a held-out split, and there is none; name one in the table")
    earlier = EarlierHead.load(compare, data.split)
    unseen = unseen_rows(data.split, earlier, held_out=data.held_out, calibrated_on=calibrate_on)
    return dataclasses.replace(data, earlier=(earlier, unseen))


def _sources(data: _Data) -> list[str]:
    """The files that the features come from: the feature file, and the table of the data set."""
    dataset = data.features.dataset
    table = dataset.get("table") if isinstance(dataset.get("table"), str) else None
    return [str(path) for path in (data.file, *(data.joined.files if data.joined else ()), table) if path]


def _held_out(split: FeatureSet, task: str, cv: int | str | None) -> str:
    """The split to evaluate on; "" where there is none, and cross-validation alone evaluates the head, or nothing can.

    Raises:
        HeadError: there is none, although cross-validation could evaluate the head; or a class has images to evaluate on and
            none to train on.
    """
    try:
        held_out = split.held_out()
    except HeadError as error:
        if cv or not can_be_divided(split, task):
            return ""
        uneven = "".join(f". Note: {note}" for note in notes_on_splits(split))
        raise HeadError(f"{error}; or evaluate by cross-validation: --cv 5{uneven}") from error
    require_train_classes(split, task)
    return held_out


def _count_fits(data: _Data, head: Head, *, auto: bool, cv: int | str | None, repeat: int, shots: Sequence[int]) -> int:
    """The number of heads that will be fitted."""
    kinds = len(auto_candidates(head.task_, data.training_rows)) if auto else 1
    turns = (cv or 0) * repeat if not isinstance(cv, str) else len(set(np.asarray(data.folds).tolist()) - {""})
    return kinds + turns + len(shots) * repeat


def _fit(
    data: _Data, head: Head, *, auto: bool, cross_validate: bool, fits: FitProgress
) -> tuple[Head, tuple[Compared, ...]]:
    """Fit one head, or the best of all kinds.

    Returns:
        The fitted head, and a line for each kind that was compared.
    """
    if auto or get_kind(head.kind).is_fitted:
        fits.reporter.stage(f"fitting {AUTO if auto else head.kind} to {counted(data.training_rows, 'training row')}")
    if auto:
        return compare_kinds(data.features, head, rows=data.training_rows, done=fits.advance)
    head.fit(data.features, cross_validate=cross_validate)
    fits.advance()
    return head, ()


def _evaluate(
    data: _Data, head: Head, *, cv: int | str | None, repeat: int, shots: Sequence[int], fits: FitProgress
) -> _Evaluated:
    """Evaluate a fitted head on the held-out split, by cross-validation, and on few images, as requested."""
    report, rows, outputs = head.judge(data.features, split=data.held_out) if data.held_out else (None, None, None)
    resampling = Resampling(data.features, data.split, head, fits.advance)
    cross_validated = resampling.judge_by(cv, repeat, data.folds)
    if cv is None and report is not None and cross_validates(data.split, head, held_out=report.n):
        fits.add(CV_FOLDS * CV_REPEATS)
        cross_validated = resampling.judge_all(CV_FOLDS, CV_REPEATS)
    return _Evaluated(
        report,
        rows,
        outputs,
        cross_validated=cross_validated,
        shots=tuple((n, resampling.few_shot(n, repeat, data.held_out)) for n in shots),
        against=compare_with(*data.earlier, head, data.split) if data.earlier else None,
        gains=gains_of(data.split, head, fits.reporter),
    )


def _notes(data: _Data, head: Head, evaluated: _Evaluated, compared: Sequence[Compared], made: Made) -> list[str]:
    """What the user should know."""
    chosen = [what for what, lines in (("kind of head", compared), ("layer", data.layers)) if lines]
    file = data.joined.files[0] if data.joined and data.joined.files else data.file
    return (list(data.joined.notes) if data.joined else []) + notes_on_fit(
        file, data.split, head, evaluated.report, chosen=chosen,
        used=("train", data.held_out, made.options.get("calibrate_on")),
        cross_validated=evaluated.cross_validated,
    )  # fmt: skip


def _save(
    data: _Data, head: Head, evaluated: _Evaluated, compared: tuple[Compared, ...], files: HeadFiles, made: Made,
    replaced: Replaced | None, *, page: Sequence[str | os.PathLike[str]] | None, reporter: Reporter,
) -> Fit:  # fmt: skip
    """Write the head, its predictions for images without a label, its pictures and, unless ``page`` is None, its page."""
    head.gains_ = evaluated.gains.as_dict() if evaluated.gains else None
    crossed = stored(evaluated.cross_validated) if evaluated.cross_validated else None
    head.save(files.path, report=evaluated.report, made=made.as_dict(), cross_validated=crossed)
    fit = Fit(
        head,
        evaluated.report,
        files.path,
        picture=None,
        features=data.file,
        notes=(
            *([replaced.sentence] if replaced else []),
            *_notes(data, head, evaluated, compared, made),
        ),
        compared=compared,
        layers=data.layers,
        cross_validated=evaluated.cross_validated,
        shots=evaluated.shots,
        unlabelled=files.write_predictions(data.features, head),
        predictions=files.write_each_image(data.split, head),
        against=evaluated.against,
        replaced=replaced,
        gains=evaluated.gains,
        files=data.joined.files if data.joined else (),
    )
    subject = subject_of(head)
    fit = dataclasses.replace(
        fit,
        picture=files.write_picture(evaluated.report, subject),
        shots_picture=files.write_curve(evaluated.shots, subject),
    )
    if page is None:
        return fit
    return dataclasses.replace(fit, card=_write_page(files.page, fit, data, evaluated, page, reporter))


def _write_page(
    path: Path,
    fit: Fit,
    data: _Data,
    evaluated: _Evaluated,
    images: Sequence[str | os.PathLike[str]],
    reporter: Reporter,
) -> Path:
    """Write the HTML page about a head, with thumbnails from the data set's folder and some others."""
    from featx.workflows.comparison_page import comparison_sections  # it imports matplotlib, as the other does
    from featx.workflows.head_page import write_head_page

    return write_head_page(
        path, fit.head, data.split, report=fit.report, rows=evaluated.rows, predictions=evaluated.outputs, notes=fit.notes,
        compared=[line.cells() for line in fit.compared], cross_validated=fit.cross_validated, shots=fit.shots,
        images=images, reporter=reporter,
        first=(
            *gains_sections(evaluated.gains),
            *(comparison_sections(fit.against, data.split, images) if fit.against else ()),
        ),
    )  # fmt: skip
