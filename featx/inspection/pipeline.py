"""``inspect``: find duplicates, leaks, wrong labels, outliers and odd images in cached features."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from featx.arguments import backbone_name, names_of, path_of
from featx.constants import CACHE, MAPS, MODELS
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.scan import scan_images
from featx.data.splits import join_groups
from featx.errors import HeadError, SettingsError, system_errors
from featx.features.feature_file import FAILED
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.label_changes import label_changes
from featx.features.remote_folder import newest_file, newest_file_of
from featx.heads.groups import with_groups, with_splits
from featx.heads.head import Head
from featx.heads.targets import task_of
from featx.inspection.duplicates import Duplicates, find_duplicates
from featx.inspection.files import is_page, require_writable, save_inspection
from featx.inspection.label_issues import LabelIssues, find_label_issues
from featx.inspection.leaks import find_leaks
from featx.inspection.neighbours import Neighbours, nearest_neighbours
from featx.inspection.out_of_fold import MOST_SEARCHED, WHY_LEFT_OUT, OutOfFold, fit_quickly, predict_out_of_fold
from featx.inspection.outliers import find_outliers
from featx.inspection.pixels import PixelIssues, inspect_pixels
from featx.inspection.result import Inspection, JudgedHead
from featx.inspection.verify import image_path
from featx.io.file_kinds import is_feature_file
from featx.layer_spec import PENULTIMATE
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter, stage_of_import
from featx.text import counted, listed, printable

_MOST_NAMED = 3
"""Images without features that a note names."""

_LEAST = 2
"""The fewest images that can be compared."""


@system_errors()
@shows_progress("inspect", "images")
def inspect(
    data: FeatureSet | ImageSet | str | os.PathLike[str] | None = None,
    *,
    layer: str | Sequence[str] = PENULTIMATE,
    model: str | None = None,
    task: str = "auto",
    threshold: float | None = None,
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    pixels: bool = True,
    thumbnails: bool = False,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    backbone: str | None = None,
    weights: str = "default",
    device: str = "auto",
    value_range: str | int | tuple[float, float] | None = None,
    bands: str | Sequence[int] | None = None,
    fit: str | None = None,
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    page: bool = False,
    map: str = MAPS[0],  # noqa: A002 - the option of the command has this name
    seed: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    models: str | os.PathLike[str] = MODELS,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Inspection:
    """Find duplicates, leaks, labels that are probably wrong, outliers and odd images.

    Everything but the odd images comes from cached features and content hashes, and takes seconds. Findings are ranked; nothing
    is changed or deleted.

    Args:
        data: a feature set or a feature file, by default the newest in ``cache``; or a data set as ``scan_images`` takes it.
            Of a data set, the newest of its feature files in ``cache`` is taken, unless ``backbone`` is given; where there is
            none, the features are extracted first.
        layer: layer of the feature file; several are concatenated.
        model: kind of the head that judges the labels, as ``Head`` takes it; by default "ridge" for a regression, else
            "logreg".
        task: as ``Head`` takes it.
        threshold: distance below which two images are near-duplicates, as ``Duplicates.distances``: about 1 for two random
            images; by default relative to the set.
        group: a column of the data set's table; images of one group never straddle a fold.
        table: the table with that column, where it is not the one that the features were extracted from.
        pixels: read the images too, to find blank, dark, bright or blurred ones and odd sizes. What was measured once is kept
            by content, so a second inspection reads no image.
        thumbnails: make a small JPEG of each image in the same pass, as a page needs them.
        images: a folder, or folders, besides that of the data set in which the images may lie.
        backbone: name of the backbone of a data set; as ``featx.extract`` takes it.
        weights: weights of that backbone.
        device: device that runs that backbone.
        value_range: how that backbone reads images; see ``load_backbone``.
        bands: as ``value_range``.
        fit: as ``value_range``.
        out: a file, or files, to write: the page (``.html``), or a table of all images (``.csv`` or ``.parquet``).
        page: write the page ``<models>/<features>--inspection.html`` too.
        map: how the page places the images on its map: "pca", or "tsne", which needs the extra ``map``.
        seed: seed of the folds and the map.
        cache: folder of feature files.
        models: folder of heads and pages.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress.

    Raises:
        SettingsError: an argument is of no use with ``data``, or a threshold is not above 0.
        HeadError: fewer than two images, a group or table that does not fit, or an unknown kind of head.
        CacheMissError, CorruptFileError: the feature file is missing or damaged.
        DatasetError: the data set cannot be read.
        OutputError: a file cannot be written.

    Example:

        inspection = featx.inspect("cache/photos--resnet50.h5")
        print(inspection.counts)
        for row in inspection.labels.ranked[:10]:
            print(inspection.features.paths[row], inspection.labels.given[row], inspection.labels.suggested[row])
    """
    started = time.perf_counter()
    outputs = [Path(path) for path in names_of(out, "out")]
    _check(model, task, seed, threshold, map)
    require_writable(outputs)
    network = {"weights": weights, "device": device, "value_range": value_range, "bands": bands, "fit": fit}
    features, file, notes = _load(data, layer, backbone, network, cache=cache, workers=workers, reporter=reporter)
    outputs += [Path(models) / f"{_stem(features, file)}--inspection.html"] if page else []
    require_writable(outputs, features, [str(path) for path in (features.source, table) if path])
    features = with_groups(features, group, table)
    task, task_notes = task_of(features, task)
    inspection = _find(
        with_splits(features, task), Head(model, task=task, seed=seed), threshold=threshold, reporter=reporter
    )
    if pixels:
        thumbnails = thumbnails or any(is_page(path) for path in outputs)
        found = _read_pixels(inspection.features, images, thumbnails, workers, reporter)
        inspection = dataclasses.replace(inspection, pixels=found, notes=(*inspection.notes, *found.notes))
    failures = _failures(file)
    notes = (*notes, *_note_on(failures))
    inspection = dataclasses.replace(
        inspection,
        file=file,
        failures=failures,
        notes=tuple(dict.fromkeys([*notes, *task_notes, *inspection.notes])),
        seconds=time.perf_counter() - started,
    )
    files = [save_inspection(inspection, path, map=map, seed=seed, reporter=reporter) for path in outputs]
    return dataclasses.replace(inspection, files=tuple(files))


def _check(model: str | None, task: str, seed: int, threshold: float | None, map_name: str) -> None:
    """Refuse, before anything slow, values that are not possible."""
    Head(model, task=task, seed=seed)
    if threshold is not None and not threshold > 0:
        raise SettingsError(f"threshold is {threshold}; expected a distance above 0, such as 0.5")
    if map_name not in MAPS:
        raise SettingsError(f"there is no map {map_name!r}; expected one of {', '.join(MAPS)}")


def _find(features: FeatureSet, head: Head, *, threshold: float | None, reporter: Reporter) -> Inspection:
    """Find everything that features show; ``head`` is unfitted, and its task is that of the features."""
    if len(features) < _LEAST:
        raise HeadError(f"there is {len(features)} image; an inspection compares images, so it needs at least two")
    reporter.stage(f"comparing {len(features):,} images")
    neighbours = nearest_neighbours(features, reporter=reporter)
    duplicates = find_duplicates(features, neighbours, threshold=threshold, reporter=reporter)
    judged, judged_notes = _judge_head(features, head, reporter)
    if judged is not None:  # its C or k serves both, and was chosen on training images alone
        head.set_params(**{name: value for name, value in judged.head.chosen.items() if name in ("C", "k")})
    out_of_fold, labels, label_notes = _judge_labels(features, neighbours, duplicates, head, reporter)
    return Inspection(
        features=features,
        neighbours=neighbours,
        duplicates=duplicates,
        leaks=find_leaks(features, duplicates, head=judged.head if judged else None, task=head.task),
        outliers=find_outliers(neighbours, duplicates),
        out_of_fold=out_of_fold,
        labels=labels,
        pixels=None,
        judged=judged,
        notes=(*duplicates.notes, *label_notes, *judged_notes),
    )


def _stem(features: FeatureSet, file: Path | None) -> str:
    """The beginning of the names of files about the features."""
    return file.stem if file else Path(features.dataset.get("name", "")).name or "features"


def _load(
    data: FeatureSet | ImageSet | str | os.PathLike[str] | None,
    layer: str | Sequence[str],
    backbone: str | None,
    network: Mapping[str, Any],
    *,
    cache: str | os.PathLike[str],
    workers: int | None,
    reporter: Reporter,
) -> tuple[FeatureSet, Path | None, tuple[str, ...]]:
    """The features of the data, their file, and what the user should know about them."""
    if backbone is None and any(network[name] is not None for name in ("value_range", "bands", "fit")):
        raise SettingsError(
            "value_range, bands and fit are for a data set through a backbone; name it by backbone (-b)"
        )
    layer = ",".join(dict.fromkeys(names_of(layer, "layer")))
    file: Path | None = None
    if data is None:
        file = newest_file(cache, reporter)
    elif isinstance(data, str | os.PathLike) and is_feature_file(path_of(data, "data")):
        file = Path(data)
    if file is not None or isinstance(data, FeatureSet):
        if backbone is not None:
            raise SettingsError(
                "backbone is for a data set whose features are extracted first; these features have one"
            )
        if isinstance(data, FeatureSet):
            return data, data.source, ()
    else:
        images = data if isinstance(data, ImageSet) else scan_images(path_of(data, "data"))
        file = None if backbone else newest_file_of(cache, images, reporter)
        if file is None:
            name = backbone_name(data, backbone)
            return _extract(images, name, layer, network=network, cache=cache, workers=workers, reporter=reporter)
    assert file is not None
    reporter.stage(f"reading {file}")
    return FeatureSet.load(file, layer), file, label_changes(file)


def _failures(file: Path | None) -> tuple[tuple[str, str], ...]:
    """The path of each image that has no features, and why."""
    if file is None:
        return ()
    cache = open_features(file)
    return tuple((image_path(cache, row), cache.error(row)) for row in np.flatnonzero(cache.status == FAILED).tolist())


def _note_on(failures: Sequence[tuple[str, str]]) -> list[str]:
    """A note on images without features, of which nothing else is told."""
    if not failures:
        return []
    first = listed([f"{printable(path)} ({why})" for path, why in failures], most=_MOST_NAMED)
    return [f"{counted(len(failures), 'image')} could not be read when the features were extracted: {first}"]


def _extract(
    images: ImageSet,
    backbone: str,
    layer: str,
    *,
    network: Mapping[str, Any],
    cache: str | os.PathLike[str],
    workers: int | None,
    reporter: Reporter,
) -> tuple[FeatureSet, Path | None, tuple[str, ...]]:
    """Extract the features of a data set, and return what ``_load`` does."""
    stage_of_import(reporter)
    from featx.backbones.backbone import load_backbone  # they import torch, which cached features do not need
    from featx.extraction.pipeline import extract

    reporter.stage(f"extracting the features of {counted(len(images), 'image')}")
    extraction = extract(images, load_backbone(backbone, **network), cache=cache, workers=workers, reporter=reporter)
    return extraction.load(layer), extraction.file, extraction.notes


def _judge_labels(
    features: FeatureSet, neighbours: Neighbours, duplicates: Duplicates, head: Head, reporter: Reporter
) -> tuple[OutOfFold | None, LabelIssues | None, list[str]]:
    """Predict each labelled image out of fold and judge its label; a note where there is nothing to learn."""
    if not (features.labels != UNLABELLED).any():
        return None, None, ["no image has a label, so no label is judged"]
    reporter.stage("judging the labels by cross-validation")
    together = join_groups(
        features.keys,
        features.groups,
        np.where(duplicates.group_of < 0, "", duplicates.group_of.astype(str)),
    )
    grouped = dataclasses.replace(features, groups=together.astype(str).astype(object))
    try:
        out_of_fold = predict_out_of_fold(
            grouped, head.clone() if hasattr(head, "task_") else Head(**head.get_params())
        )
    except HeadError as error:
        return None, None, [f"no label is judged: {error}"]
    left_out = out_of_fold.left_out
    notes = [f"{counted(left_out, 'label')} could not be judged: {WHY_LEFT_OUT}"] if left_out else []
    if out_of_fold.skill <= 0:
        notes.append(
            "the labels are predicted out of fold no better than without looking at the images, so suggested labels mean little"
        )
    return out_of_fold, find_label_issues(out_of_fold, len(features), neighbours), notes


def _judge_head(features: FeatureSet, head: Head, reporter: Reporter) -> tuple[JudgedHead | None, list[str]]:
    """Fit a head to the training images and judge it on the held-out ones; a note where that is not possible."""
    reporter.stage("fitting a head to the training images")
    try:
        rows = features.rows("train")
        fitted: Head = clone(head)
        if len(rows) * features.views > MOST_SEARCHED:
            fit_quickly(fitted, features, rows)
        else:  # as fit-head does
            fitted.fit(features)
        report, rows, outputs = fitted.judge(features)
    except HeadError as error:
        return None, [f"no head is judged: {error}"]
    return JudgedHead(fitted, report, rows, outputs), []


def _read_pixels(
    features: FeatureSet,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    thumbnails: bool,
    workers: int | None,
    reporter: Reporter,
) -> PixelIssues:
    """Read the images, or what was measured of them before."""
    reporter.stage(f"looking at the pixels of {len(features):,} images")
    folders = names_of(images, "images")
    return inspect_pixels(features, thumbnails=thumbnails, images=folders, workers=workers, reporter=reporter)
