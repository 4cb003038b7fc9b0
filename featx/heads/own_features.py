"""Feature files that hold what a head takes: the one that it was fitted to, or one for each of several backbones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from featx.errors import CacheMissError, CorruptFileError, HeadError, StaleCacheError, UnreadableFileError
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.folder import files_of
from featx.features.joint_sets import is_joint, joint_fields, part_names
from featx.features.remote_folder import local_file
from featx.heads.arguments import require_fitted
from featx.heads.head import Head
from featx.identity import differences, joint_identity
from featx.layer_spec import LayerSpec
from featx.system import exists
from featx.text import printable

Named = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A feature file, or several."""


def paths_in(named: Named | None) -> list[Path]:
    """The paths of an argument that is a file or several; a URL is fetched unless the same file is here."""
    given = [] if named is None else [named] if isinstance(named, str | os.PathLike) else list(named)
    return [local_file(each) if isinstance(each, str) and each else Path(each) for each in given]


def fitted_files(head: Head) -> list[Path]:
    """The files that a head was fitted to, as far as it names them: one, or one for each backbone."""
    if not is_joint(head.backbone_):
        return [head.source_] if head.source_ else []
    return [Path(part["file"]) for part in head.backbone_["parts"] if part["file"]]


def code_and_weights(backbone: Mapping[str, Any]) -> list[str]:
    """The files of code and weights that a stored backbone names, or each of several side by side."""
    each = [part["backbone"] for part in backbone["parts"]] if is_joint(backbone) else [backbone]
    named = [(str(one.get("name", "")).rpartition(":")[0], one.get("weights")) for one in each]
    return [str(path) for pair in named for path in pair if path]


def files_for(head: Head, named: Named | None = None) -> list[Path]:
    """The feature files that hold what a head takes: one, or one for each of several backbones, in the order of the columns.

    Of several backbones, a file that was not named is looked for among the files of the same data set: in the folders of those
    that were named, and then where it was when the head was fitted. If none was named, it is looked for there alone.

    Args:
        head: fitted.
        named: files; by default those that the head was fitted to.

    Raises:
        CacheMissError: a file is gone or none holds the features of a backbone.
        StaleCacheError: a named file holds none of the features that the head takes.
        HeadError: two named files hold the same features, or a head of one backbone got several files.
    """
    require_fitted(head, "evaluate")
    given = paths_in(named)
    if not is_joint(head.backbone_):
        if len(given) > 1:
            raise HeadError(f"{len(given)} feature files were given; this head is on one backbone, and takes one")
        return given or fitted_files(head)
    return _files_of_parts(head.backbone_, given)


def features_for(head: Head, named: Named | None = None) -> FeatureSet:
    """Load what a head takes from feature files, found as ``files_for`` finds them.

    Raises:
        CacheMissError, CorruptFileError: a file or layer is missing or damaged.
        StaleCacheError, HeadError: as of ``files_for``; or the features are others than those of the head.
    """
    files = files_for(head, named)
    if not files:
        raise HeadError("the head was fitted to features that are in no file; name the file that has them")
    features = features_in(head, files)
    head.require_identity(features)
    return features


def features_in(head: Head, files: Sequence[Path], *, labelled: bool = True) -> FeatureSet:
    """Load the layers of a head from the files that ``files_for`` gives.

    Args:
        head: fitted.
        files: one, or one for each backbone.
        labelled: as of ``joint_fields``.
    """
    if not is_joint(head.backbone_):
        return FeatureSet.load(files[0], head.layer_)
    layers = [part["layer"] for part in head.backbone_["parts"]]
    sets = [FeatureSet.load(file, layer) for file, layer in zip(files, layers, strict=True)]
    return FeatureSet(**joint_fields(sets, labelled=labelled)[0])


def in_groups(head: Head, files: Iterable[str | os.PathLike[str]]) -> Iterator[list[str | os.PathLike[str]]]:
    """Divide feature files into those that hold one data set together: one each, or of several backbones all of a data set."""
    if not is_joint(head.backbone_):
        yield from ([file] for file in files)
        return
    groups: dict[Any, list[str | os.PathLike[str]]] = {}
    for file in files:
        (path,) = paths_in(file)
        groups.setdefault(_data_of(path), []).append(file)
    yield from groups.values()


def _files_of_parts(backbone: Mapping[str, Any], given: Sequence[Path]) -> list[Path]:
    parts, names = backbone["parts"], part_names(backbone)
    found: list[Path | None] = [None] * len(parts)
    for path in given:
        held = [number for number, part in enumerate(parts) if _holds(path, part)]
        if not held:
            raise StaleCacheError(_other_features(path, parts, names))
        for number in held:
            if found[number] is not None and found[number] != path:
                raise HeadError(
                    f"{found[number]} and {path} both hold the features of {names[number]}; give the files of one data set"
                )
            found[number] = path
    for number, part in enumerate(parts):
        if found[number] is None:
            fitted = [Path(part["file"])] * bool(part["file"])
            places = [*_of_same_data(given, fitted)] if given else fitted
            found[number] = next((path for path in places if _holds(path, part, quietly=True)), None)
        if found[number] is None:
            raise CacheMissError(_nowhere(part, names[number], given))
    return [path for path in found if path is not None]


def _of_same_data(given: Sequence[Path], more: Sequence[Path]) -> Iterator[Path]:
    """The files of the data sets of some files, in the folders of these, and then those among some more files."""
    named = [(path.parent, _data_of(path)) for path in given]
    for folder, (name, root) in named:
        yield from files_of(folder, name=name, root=root)
    for path in more:
        with suppress(CacheMissError, CorruptFileError, UnreadableFileError):
            if _data_of(path) in [data for _, data in named]:
                yield path


def _data_of(path: Path) -> tuple[str, str]:
    """The name and the root of the data set of a feature file."""
    dataset = open_features(path).dataset
    return str(dataset.get("name", "")), str(dataset.get("root", ""))


def _holds(path: Path, part: Mapping[str, Any], *, quietly: bool = False) -> bool:
    """Whether a file has the features of a part, by their identity."""
    faults = (CacheMissError, CorruptFileError, UnreadableFileError) if quietly else ()
    with suppress(*faults):
        identities = open_features(path).identities
        names = [name for view in LayerSpec.parse(part["layer"]).stored for name in view]
        return identities.keys() >= set(names) and joint_identity([identities[n] for n in names]) == part["identity"]
    return False


def _other_features(path: Path, parts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Why a file holds none of the parts."""
    file = open_features(path)
    name = str(file.backbone.get("name", ""))
    same = next((part for part in parts if part["backbone"].get("name") == name), None)
    why = f"they are of {printable(name)}"
    if same is not None:
        layers = [each for view in LayerSpec.parse(same["layer"]).stored for each in view if each not in file.layers]
        different = differences(same["backbone"].get("parts", {}), file.backbone.get("parts", {}))
        why = "; ".join([f"it has no layer {', '.join(layers)}"] * bool(layers) + different) or "another identity"
    return (
        f"this head was fitted to other features than those of {path} ({why}); it takes those of "
        f"{' and '.join(map(printable, names))}"
    )


def _nowhere(part: Mapping[str, Any], name: str, given: Sequence[Path]) -> str:
    """The message for a part whose features are in no file."""
    remedy = f"run featx extract with --backbone {printable(name)}, or name the file that has them"
    if given:
        places = f"a file of the same data set in {', '.join(dict.fromkeys(str(path.parent) for path in given))}"
        looked = (
            f"neither {part['file']}, to which it was fitted, nor {places} has"
            if part["file"]
            else f"no{places[1:]} has"
        )
        return (
            f"this head takes the features of several backbones, and {looked} those of {printable(name)}, layer "
            f"{part['layer']}; {remedy}"
        )
    if not part["file"]:
        return f"the head was fitted to features of {printable(name)} that are in no file; {remedy}"
    gone = "is gone" if not exists(Path(part["file"])) else "holds other features now"
    return f"the head was fitted to the features of {printable(name)} in {part['file']}, which {gone}; {remedy}"
