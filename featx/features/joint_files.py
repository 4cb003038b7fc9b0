"""Several feature files of one data set, joined: which files, which layer of each, and which views."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.arguments import names_of
from featx.constants import CACHE
from featx.errors import CacheMissError, CorruptFileError, SettingsError, UnreadableFileError
from featx.features.extract_command import data_words
from featx.features.feature_set import FeatureSet, views_in
from featx.features.file_set import open_features
from featx.features.folder import files_of
from featx.features.joint_sets import joint_fields, place_of
from featx.features.remote_folder import folder_here
from featx.layer_spec import PENULTIMATE, VIEWS, LayerSpec
from featx.text import listed, printable

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
    """Find the feature files of other backbones for the data set of a file: in its folder, or else in that of the cache.

    Args:
        first: the feature file, or the feature set.
        backbones: their names.
        cache: the folder of feature files, or its URL.

    Returns:
        One file for each name.

    Raises:
        CacheMissError: there is none, or several, of a backbone; the message lists what there is, and where it was looked for.
    """
    one = first if isinstance(first, FeatureSet) else open_features(first)
    file = first.source if isinstance(first, FeatureSet) else Path(first)
    folders = {each.resolve(): each for each in (*([file.parent] if file else []), folder_here(cache))}
    known = [_by_backbone(folder, one.dataset, {file.resolve()} if file else set()) for folder in folders.values()]
    return [_file_of(name, first, one, known, cache) for name in dict.fromkeys(backbones)]


def _file_of(
    name: str, first: Any, one: Any, known: Sequence[Mapping[str, list[Path]]], cache: str | os.PathLike[str]
) -> Path:
    """The file of a backbone, in the first of some folders that has one; ``known`` has the files of each by backbone."""
    paths = next((found[name] for found in known if name in found), [])
    if len(paths) == 1:
        return paths[0]
    named, place = (
        printable(str(one.dataset.get("name", ""))),
        place_of(first) if isinstance(first, FeatureSet) else first,
    )
    if paths:
        raise CacheMissError(
            f"--with {name}: {paths[0].parent} has {len(paths)} feature files of {named} through it: "
            f"{listed([str(path) for path in paths], most=5)}; name the one to use beside {place}"
        )
    there = listed([printable(each) for each in sorted({*itertools.chain(*known)})], most=20) or "none"
    beside = f"the folder of {place} or in " if known[1:] else ""
    alike = [
        each for each in dict.fromkeys(itertools.chain(*known)) if each.rpartition("/")[2] == name.rpartition("/")[2]
    ]
    words = ["featx", "extract", *data_words(one.dataset), "--backbone", name]
    words += ["--cache", str(cache)] if str(cache) != CACHE else []
    next_step = f"; did you mean --with {printable(alike[0])}?" if alike else f". {shlex.join(words)} makes one"
    raise CacheMissError(
        f"--with {name}: there is no other feature file of {named} through it in {beside}{cache}; there are files through: "
        f"{there}{next_step}"
    )


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
