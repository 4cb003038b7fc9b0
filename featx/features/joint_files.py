"""Several feature files of one data set, joined: which files, which layer of each, and which views."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.arguments import names_of
from featx.errors import CacheMissError, CorruptFileError, SettingsError, UnreadableFileError
from featx.features.feature_set import FeatureSet, views_in
from featx.features.file_set import open_features
from featx.features.folder import files_of
from featx.features.joint_sets import joint_fields, place_of
from featx.features.remote_folder import folder_here
from featx.layer_spec import PENULTIMATE, VIEWS, LayerSpec
from featx.text import listed, native, printable

AT = "="
"""What stands between a backbone and the layer of its file in ``BACKBONE=LAYER``."""


@dataclass(frozen=True, eq=False)
class JoinedFiles:
    """Feature sets joined, with what the user should know.

    Attributes:
        features: the joined set.
        files: the feature files that it comes from.
        notes: one sentence each.
    """

    features: FeatureSet
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def join_files(
    sources: Sequence[FeatureSet | str | os.PathLike[str]],
    *,
    layer: str | Sequence[str] = PENULTIMATE,
    views: str | None = None,
) -> JoinedFiles:
    """Load several feature files and join them.

    Args:
        sources: files, or feature sets, which are taken as they are.
        layer: layers of each file; ``BACKBONE=LAYER`` names one of the file of that backbone alone.
        views: of all; by default the largest set that all have.

    Raises:
        SettingsError: a layer of a backbone that none of the files is of.
        CacheMissError, CorruptFileError: a file is missing or damaged, or has no such layer.
        HeadError: they cannot be joined, as ``FeatureSet.join`` says.
    """
    files = [None if isinstance(each, FeatureSet) else Path(each) for each in sources]
    names = [_backbone_name(each) for each in sources]
    layers = _layers_of(names, names_of(layer, "layer"))
    stored = [views_in(file, its) for file, its in zip(files, layers, strict=True) if file is not None]
    given = [LayerSpec.parse(each.layer).views_name for each in sources if isinstance(each, FeatureSet)]
    common = views or min([*stored, *given], key=lambda name: len(VIEWS.get(name, ())))
    sets = [
        each if isinstance(each, FeatureSet) else FeatureSet.load(each, str(LayerSpec.parse(its, common)))
        for each, its in zip(sources, layers, strict=True)
    ]
    fields, notes = joint_fields(sets)
    return JoinedFiles(FeatureSet(**fields), tuple(file for file in files if file is not None), notes)


def _backbone_name(source: FeatureSet | str | os.PathLike[str]) -> str:
    backbone = source.backbone if isinstance(source, FeatureSet) else open_features(source).backbone
    return str(backbone.get("name", ""))


def _layers_of(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The layers of each file, with commas between them.

    Examples:
        >>> _layers_of(["resnet50", "vit_b_16"], ["layer3", "vit_b_16=penultimate"])
        ['layer3', 'penultimate']
    """
    general = [each for each in wanted if AT not in each]
    own: dict[str, list[str]] = {}
    for each in wanted:
        name, at, layer = each.rpartition(AT)
        if at:
            own.setdefault(name, []).append(layer)
    if unknown := sorted(own.keys() - set(names)):
        raise SettingsError(
            f"--layer {unknown[0]}{AT}{own[unknown[0]][0]}: none of the files is of the backbone {unknown[0]!r}; they are of "
            f"{', '.join(names)}"
        )
    return [",".join(dict.fromkeys(own.get(name) or general or [PENULTIMATE])) for name in names]


def files_beside(first: Any, backbones: Sequence[str], cache: str | os.PathLike[str]) -> list[Path]:
    """Find the feature files of other backbones for the data set of a file.

    Args:
        first: the feature file, or the feature set.
        backbones: their names.
        cache: the folder of feature files, or its URL.

    Returns:
        One file for each name.

    Raises:
        CacheMissError: there is none, or several, of a backbone; the message lists what there is.
    """
    one = first if isinstance(first, FeatureSet) else open_features(first)
    dataset, place = one.dataset, place_of(first) if isinstance(first, FeatureSet) else str(first)
    folder = folder_here(cache)
    own = {Path(first).resolve()} if not isinstance(first, FeatureSet) else {first.source} if first.source else set()
    known = _by_backbone(folder, dataset, own) if folder else {}
    found = []
    for name in dict.fromkeys(backbones):
        paths = known.get(name, [])
        if len(paths) == 1:
            found.append(paths[0])
            continue
        named = printable(str(dataset.get("name", "")))
        if paths:
            raise CacheMissError(
                f"--with {name}: {cache} has {len(paths)} feature files of {named} through it: "
                f"{listed([str(path) for path in paths], most=5)}; name the one to use beside {place}"
            )
        there = listed([printable(each) for each in sorted(known)], most=20) or "none"
        extract = shlex.join(["featx", "extract", native(str(dataset.get("root") or "DATA")), "--backbone", name])
        folder_option = [] if str(cache) == "cache" else ["--cache", str(cache)]
        raise CacheMissError(
            f"--with {name}: {cache} has no other feature file of {named} through it; there are files through: {there}. "
            f"{shlex.join([*shlex.split(extract), *folder_option])} makes one"
        )
    return found


def _by_backbone(folder: Path, dataset: dict[str, Any], without: set[Path]) -> dict[str, list[Path]]:
    """The finished files of a data set by the name of their backbone, without some."""
    found: dict[str, list[Path]] = {}
    for path in files_of(folder, name=str(dataset.get("name")), root=str(dataset.get("root"))):
        if path.resolve() not in without:
            with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
                found.setdefault(str(open_features(path).backbone["name"]), []).append(path)
    return found


def load_parts(backbone: Mapping[str, Any]) -> FeatureSet:
    """Load and join the features that a joint backbone describes, from the files that it names.

    Args:
        backbone: as ``FeatureSet.join`` made it, and a head stores it.

    Raises:
        CacheMissError, CorruptFileError: a file is gone or damaged.
        HeadError: they cannot be joined any more.
    """
    files = [str(part["file"]) for part in backbone["parts"]]
    if not all(files):
        raise CacheMissError("the features of some of these backbones were in memory, and no file has them")
    return FeatureSet.join(
        [FeatureSet.load(file, part["layer"]) for file, part in zip(files, backbone["parts"], strict=True)]
    )
