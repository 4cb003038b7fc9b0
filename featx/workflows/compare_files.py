"""Two heads or promoted models that were fitted before, judged on the images that neither has seen."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from featx.arguments import names_of, path_of
from featx.constants import CACHE
from featx.errors import CacheMissError, FeatxError, HeadError, system_errors
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.folder import files_of
from featx.features.joint_files import load_parts
from featx.features.joint_sets import is_joint
from featx.features.remote_folder import folder_here
from featx.heads.groups import match_groups, with_splits
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.seen import are_copies
from featx.io.model_file import read_metadata
from featx.progress import shows_progress
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL
from featx.promotion.on_images import PromotedOnImages
from featx.reporter import SILENT, Reporter
from featx.text import counted
from featx.workflows.head_comparison import HeadComparison, compare_with
from featx.workflows.unseen import EarlierHead, unseen_rows

Judged = Head | PromotedOnImages
"""What can be compared."""


@system_errors()
@shows_progress("heads", "images")
def compare_heads(
    first: Head | PromotedModel | str | os.PathLike[str],
    second: Head | PromotedModel | str | os.PathLike[str],
    *,
    features: FeatureSet | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    split: str | None = None,
    table: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    backbone: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> HeadComparison:
    """Compare two heads or promoted models on the held-out images that both can be judged by, image by image.

    Left out are images that either was fitted to, and near-duplicates of such, as ``fit_head(compare=...)`` leaves them out.
    Heads predict from the feature files that they were fitted to; those of two backbones are joined by the content of the
    images. A promoted model predicts from the images themselves, through its network. The labels that count are those of the
    second head's features; of two promoted models, those of a feature file of the data set.

    Args:
        first: a head, a promoted model, or a file of either.
        second: the other one.
        features: the feature files of the heads, where they are not where the heads name them; or a feature set to compare on.
        split: "test", "val" or "all"; by default "test" where there is one, else "val".
        table: the table with the groups that the second was fitted with, where it is not the data set's own.
        cache: folder of feature files.
        backbone: ``file.py:factory`` of a promoted model whose network comes from such a file.
        device: that runs the network of a promoted model.
        workers: threads that read and decode its images.
        progress: show the progress on stderr.
        reporter: receives the stages.

    Raises:
        CacheMissError: features of a head are gone.
        HeadError: the two are of different tasks, or no image can judge both.
        DatasetError, StaleCacheError: a promoted model needs images that cannot be read or have changed.

    Example:

        found = featx.compare_heads("models/photos--a--logreg.safetensors", "models/photos--b--logreg.safetensors")
        print(found.sentence, found.paired.p_value)
    """
    names = [_name(each, at) for each, at in ((first, "first"), (second, "second"))]
    reporter.stage("loading both heads")
    one, other = (_load(each, backbone, device, workers) for each in (first, second))
    given = features if isinstance(features, FeatureSet) else None
    files = [] if isinstance(features, FeatureSet) else [Path(each) for each in names_of(features, "features")]
    whole = _features(one, other, names, files, cache) if given is None else given
    whole = with_splits(match_groups(whole, other.group_, table), other.task_)
    held_out = split or _held_out(whole, other)
    earlier = _placed(one, names[0], whole, [*files, *_in(cache, one)])
    unseen = unseen_rows(whole, earlier, held_out=held_out, seen=other.seen)
    if any(isinstance(each, PromotedOnImages) for each in (one, other)):
        reporter.stage(f"predicting {counted(len(unseen.rows), 'image')}")
    compared = compare_with(earlier, unseen, other, whole)
    short = [Path(name).stem if name.endswith(".safetensors") else name for name in names]
    called = (names[0], names[1]) if short[0] == short[1] else (short[0], short[1])
    judged = whole.keys[unseen.rows]
    further = tuple(_chosen_on(each, name, judged) for each, name in zip((one, other), called, strict=True))
    return dataclasses.replace(compared, called=called, short=called, further=tuple(filter(None, further)))


def _chosen_on(model: Judged, name: str, judged: np.ndarray) -> str:
    """A sentence if thresholds or the epoch of a model were chosen on some of the images that judge, (n, 16) keys; else ""."""
    count = int(are_copies(judged, model.seen.validation).sum())
    if not count:
        return ""
    of_these = f"{count:,} of these {counted(len(judged), 'image')}"
    return f"thresholds or the epoch of {name} were chosen on {of_these}, which flatters it"


def _name(model: object, ordinal: str) -> str:
    """What a head or model is called: its file, or its kind with a word that tells the two apart."""
    if isinstance(model, Head):
        return f"{ordinal} head ({model.kind})"
    if isinstance(model, PromotedModel):
        return f"{ordinal} model"
    return path_of(model, f"the {ordinal} head")


def _load(
    model: Head | PromotedModel | str | os.PathLike[str], backbone: str | None, device: str, workers: int | None
) -> Judged:
    if isinstance(model, Head):
        return model
    if isinstance(model, PromotedModel):
        return PromotedOnImages(model, workers)
    path = Path(model)
    if read_metadata(path, HEAD, MODEL)["format"] == HEAD.format:
        return Head.load(path)
    return PromotedOnImages(PromotedModel.load(path, backbone=backbone, device=device), workers)


def _in(cache: str | os.PathLike[str], model: Judged) -> Iterator[Path]:
    """The file of the folder of feature files that has the name of the one that a head was fitted to."""
    if isinstance(model, Head) and model.source_ is not None and (folder := folder_here(cache)):
        yield folder / model.source_.name


def _features(
    one: Judged, other: Judged, names: Sequence[str], files: Sequence[Path], cache: str | os.PathLike[str]
) -> FeatureSet:
    """The features of the images to compare on: those of the second head, else of the first, else of the data set.

    Raises:
        CacheMissError: they are gone.
    """
    for model, name in ((other, names[1]), (one, names[0])):
        if isinstance(model, PromotedOnImages):
            continue
        if is_joint(model.backbone_):
            with contextlib.suppress(FeatxError):
                joined = load_parts(model.backbone_)
                if joined.identity == model.identity_:
                    return joined
        paths = [*files, *([model.source_] if model.source_ else []), *_in(cache, model)]
        for path in dict.fromkeys(paths):
            with contextlib.suppress(FeatxError):
                found = FeatureSet.load(path, model.layer_)
                if found.identity == model.identity_:
                    return found
        parts = [part["file"] for part in model.backbone_["parts"]] if is_joint(model.backbone_) else []
        looked = ", ".join(str(path) for path in dict.fromkeys([*parts, *paths])) or "no file is named"
        raise CacheMissError(
            f"the features that {name} was fitted to are gone or have changed (looked for them in: {looked}); name their file "
            "with --features, or run featx extract again"
        )
    assert isinstance(other, PromotedOnImages)
    dataset = other.model.metadata["dataset"]
    folder = folder_here(cache)
    known = files_of(folder, name=str(dataset.get("name")), root=str(dataset.get("root"))) if folder else []
    for path in [*files, *known]:
        return FeatureSet.load(path, next(iter(open_features(path).layers)))
    raise CacheMissError(
        f"{cache} has no feature file of the data set {dataset.get('name')}, which tells which images the models were not "
        "trained on; name one with --features, or run featx extract again"
    )


def _held_out(features: FeatureSet, model: Judged) -> str:
    """The split to compare on.

    Raises:
        HeadError: there is none.
    """
    if len(model.seen.train):
        try:
            return features.held_out()
        except HeadError as error:
            raise HeadError(f"{error}; or name a split with --split, such as all") from error
    return next((name for name in ("test", "val") if name in features.splits[features.labels >= 0]), "all")


def _placed(model: Judged, name: str, features: FeatureSet, more: Sequence[Path]) -> EarlierHead:
    """The first of the two, with what it predicts from."""
    if isinstance(model, PromotedOnImages):
        return EarlierHead(model, name, features, np.arange(len(features)))
    try:
        return dataclasses.replace(EarlierHead.load(model, features, more=more), name=name)
    except FeatxError as error:
        raise type(error)(f"{name}: {error}; or name the feature file that it was fitted to with --features") from error
