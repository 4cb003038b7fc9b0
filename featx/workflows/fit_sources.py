"""What a head is fitted to: one feature file or set, or several backbones side by side; and what these add."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featx.advice.backbone_gains import BackboneGains, backbone_gains
from featx.arguments import names_of, path_of
from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.features.joint_files import JoinedFiles, files_beside, join_files
from featx.features.joint_sets import is_joint, part_names
from featx.features.remote_folder import local_file, newest_file
from featx.heads.head import Head
from featx.heads.registry import default_kind, get_kind
from featx.heads.targets import task_of
from featx.layer_spec import PENULTIMATE
from featx.reporter import Reporter
from featx.text import described
from featx.workflows.fit_options import AUTO, BEST

Source = FeatureSet | str | os.PathLike[str]
"""A feature set, or the path or URL of a feature file."""


def source_of(
    features: Source | Sequence[Source] | None,
    beside: str | Sequence[str] = (),
    *,
    layer: str | Sequence[str] = PENULTIMATE,
    views: str | None = None,
    cache: str | os.PathLike[str],
    reporter: Reporter,
) -> Source | JoinedFiles:
    """The features that a fit was asked for; several files are loaded and joined.

    Args:
        features: one or several, as ``fit_head`` takes them; None or nothing: the newest file in ``cache``.
        beside: names of further backbones, whose files lie beside the first one or in ``cache``.
        layer: of the files, as ``join_files`` takes it.
        views: of the files.
        cache: the folder of feature files, or its URL.
        reporter: gets a note with the name of the newest file.

    Raises:
        SettingsError: an argument is neither a feature set nor a path, or a file is named twice.
        CacheMissError: there is no such file.
        HeadError: they cannot be joined.
    """
    given = [features] if isinstance(features, FeatureSet | str | os.PathLike) else features
    if given is not None and not isinstance(given, Sequence):
        raise SettingsError(
            f"features is {described(given)}; expected a feature set, the path of a feature file, or a list of them"
        )
    sources: list[Source] = [_named(each) for each in given or []] or [newest_file(cache, reporter)]
    names = names_of(beside, "with_backbones")
    sources += files_beside(sources[0], names, cache) if names else []
    if len(sources) == 1:
        reporter.stage("reading features" if isinstance(sources[0], FeatureSet) else f"reading {sources[0]}")
        return sources[0]
    if BEST in names_of(layer, "layer"):
        raise SettingsError(f"--layer {BEST} compares the layers of one feature file; name the layers of several")
    paths = [Path(each).resolve() for each in sources if not isinstance(each, FeatureSet)]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise SettingsError(
            f"{twice} is named twice; --layer may be repeated, and several layers of one file are put side by side"
        )
    reporter.stage(f"reading {len(sources)} feature files")
    return join_files(sources, layer=layer, views=views)


def _named(features: object) -> Source:
    """A feature set, or the checked path of a feature file, which is fetched if it is a URL."""
    return features if isinstance(features, FeatureSet) else local_file(path_of(features, "features"))


def files_of_source(source: Source | JoinedFiles) -> list[str | os.PathLike[str]]:
    """The feature files that are read."""
    if isinstance(source, JoinedFiles):
        return list(source.files)
    return [] if isinstance(source, FeatureSet) else [source]


def require_one_source(features: FeatureSet) -> None:
    """Refuse texts of classes where several backbones lie side by side: texts are embedded by one of them.

    Raises:
        SettingsError: the features are those of several backbones.
    """
    if is_joint(features.backbone):
        raise SettingsError(
            "zeroshot compares images with texts that one model embeds, so it takes the features of one backbone, not of "
            "several side by side"
        )


def gains_of(features: FeatureSet, head: Head, reporter: Reporter) -> BackboneGains | None:
    """What each of several backbones adds to a head; None for one backbone.

    Args:
        features: in the splits that the head uses.
        head: fitted to them.
        reporter: receives a stage.
    """
    if not is_joint(features.backbone) or not (features.labels[features.splits == "train"] >= 0).any():
        return None
    names = part_names(features.backbone)
    reporter.stage(f"comparing {len(names)} backbones, alone and together")
    return backbone_gains(features, head, head.task_, names, head.factors_)


def make_head(model: str | Head | None, **options: Any) -> Head:
    """An unfitted head, from the options of ``fit_head``; a ``Head`` is taken as it is.

    Raises:
        SettingsError: a ``Head`` and options that belong to it.
    """
    if not isinstance(model, Head):
        return Head(None if model == AUTO else model, **options)
    defaults = inspect.signature(Head).parameters
    given = [name for name, value in options.items() if value != defaults[name].default]
    if given:
        raise SettingsError(f"{', '.join(given)}: expected as arguments of the Head that is given, not of fit_head")
    return model


def set_task(head: Head, features: FeatureSet, *, by_task: bool) -> str:
    """Set the task of a head by the data and, with ``by_task``, the kind that suits it; returns the task.

    Raises:
        HeadError, SettingsError: the kind or the calibration does not suit the task.
    """
    task, _ = task_of(features, head.task)
    head.kind = default_kind(task) if by_task else head.kind
    get_kind(head.kind, task=task, kernel=head.kernel)  # raises where the kind does not suit the task
    if task == "regression" and head.calibrate:
        raise SettingsError("calibrate has no effect on a regression, which has no probabilities; leave it out")
    head.task_ = task
    return task
