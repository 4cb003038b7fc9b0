"""Feature sets of the same images through several backbones, joined by the content of the images. numpy only.

Feature files stay one for each backbone. What is joined here looks like the features of one backbone: its columns are those
of each, one after the other, and its description lists the parts.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import JOINT
from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.extract_command import backbone_words, cache_words, data_words
from featx.features.side_by_side import SideBySide
from featx.identity import joint_identity
from featx.layer_spec import PENULTIMATE, LayerSpec
from featx.text import counted, form, listed, printable

MOST_JOINED = 1 << 30
"""The most bytes of features that are joined in memory; larger ones stay in their files and are joined as they are read."""


def is_joint(backbone: Mapping[str, Any]) -> bool:
    """Whether a stored description of a backbone is that of several side by side.

    Examples:
        >>> is_joint({"name": "a+b", "source": "joint", "parts": []}), is_joint({"name": "a", "parts": {}})
        (True, False)
    """
    return backbone.get("source") == JOINT and isinstance(backbone.get("parts"), list)


def blocks_of(backbone: Mapping[str, Any], width: int) -> list[slice]:
    """The columns of each part of a stored backbone.

    Args:
        backbone: the description of a backbone in a feature file or head.
        width: of its features.

    Returns:
        One slice for each part; of a backbone that is not joint, one for all columns.

    Examples:
        >>> blocks_of({"source": "joint", "parts": [{"width": 2}, {"width": 3}]}, 5)
        [slice(0, 2, None), slice(2, 5, None)]
    """
    if not is_joint(backbone):
        return [slice(0, width)]
    ends = np.cumsum([0, *(int(part["width"]) for part in backbone["parts"])]).tolist()
    return [slice(first, last) for first, last in pairwise(ends)]


def part_names(backbone: Mapping[str, Any]) -> list[str]:
    """What to call each part of a joint backbone: the name of its network, and its layer where two have one name.

    Examples:
        >>> part = {"backbone": {"name": "resnet50"}, "layer": "penultimate@flip"}
        >>> part_names({"parts": [part, {**part, "layer": "layer3"}]}), part_names({"parts": [part]})
        (['resnet50', 'resnet50 layer3'], ['resnet50'])
    """
    plain = [str(part["backbone"].get("name", "") or f"part {number}") for number, part in _numbered(backbone)]
    layers = [LayerSpec.parse(part["layer"]).layer for _, part in _numbered(backbone)]
    named = [
        name if plain.count(name) == 1 or layer == PENULTIMATE else f"{name} {layer}"
        for name, layer in zip(plain, layers, strict=True)
    ]
    return [name if named.count(name) == 1 else f"{name} ({number + 1})" for number, name in enumerate(named)]


def _numbered(backbone: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    return list(enumerate(backbone["parts"], start=1))


def joint_fields(sets: Sequence[Any], *, labelled: bool = True) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields of the feature set that joins several, by name, and what the user should know about them.

    Args:
        sets: feature sets, each with the same views.
        labelled: whether the labels matter. If not, an image with two labels has none.

    Returns:
        The fields of a ``FeatureSet``: a row for each image that all sets hold, in the order of the first set, with its
        labels, splits, paths, classes and data set; and notes, one sentence each.

    Raises:
        HeadError: fewer than two sets, sets of other views, no image that all hold, or an image with two labels.
    """
    if len(sets) < 2:
        raise HeadError(
            f"{counted(len(sets), 'feature set was', 'feature sets were')} given to be joined; expected at least two"
        )
    views = _common_views(sets)
    rows = [np.arange(len(sets[0])), *(_matching(sets[0], other) for other in sets[1:])]
    common = np.logical_and.reduce([found >= 0 for found in rows])
    if not common.any():
        raise HeadError(
            f"no image is in all of {_names(sets)}: the content of their images differs; extract the features of one data set "
            "through each backbone, with featx extract DATA --backbone NAME"
        )
    rows = [found[common] for found in rows]
    first = sets[0]
    labels = first.labels[rows[0]]
    for other, differ, shown in _two_labels(sets, rows):
        if labelled:
            raise HeadError(_contradiction(first, other, shown))
        labels[differ] = UNLABELLED
    notes = (*_notes_on_missing(sets, rows), *_notes_on_splits(sets, rows), *_notes_on_data_sets(sets))
    columns = {
        name: cells[mine]
        for each, mine in zip(sets[::-1], rows[::-1], strict=True)
        for name, cells in each.columns.items()
    }
    parts = [part for each in sets for part in _parts_of(each)]
    fields = {
        "features": _side_by_side([each.features for each in sets], rows),
        "labels": labels,
        **{name: getattr(first, name)[rows[0]] for name in ("splits", "keys")},
        "classes": first.classes,
        "paths": _take(first.paths, rows[0]),
        "layer": str(LayerSpec.parse(PENULTIMATE, views)),
        "identity": _identity(parts),
        "backbone": _joint_backbone(parts),
        "dataset": dict(first.dataset),
        "groups": None if first.groups is None else first.groups[rows[0]],
        "group": first.group,
        "columns": columns,
    }
    return fields, notes


def _parts_of(each: Any) -> list[dict[str, Any]]:
    """What is stored of one set; of a set that is joint itself, its parts."""
    if is_joint(each.backbone):
        return list(each.backbone["parts"])
    return [
        {
            "backbone": dict(each.backbone), "layer": each.layer, "identity": each.identity, "width": each.width,
            "file": str(each.source or ""),
        }
    ]  # fmt: skip


def _name(part: Mapping[str, Any]) -> str:
    return str(part["backbone"].get("name", "") or "arrays")


def _take(paths: Any, rows: np.ndarray) -> Any:
    return paths[rows] if isinstance(paths, np.ndarray) else paths.take(rows)


def _common_views(sets: Sequence[Any]) -> str:
    """The name of the views of all sets.

    Raises:
        HeadError: they differ.
    """
    named = {(each.views, LayerSpec.parse(each.layer).views) for each in sets}
    if len(named) > 1:
        found = ", ".join(f"{place_of(each)} in {counted(each.views, 'view')} ({each.layer})" for each in sets)
        raise HeadError(f"features of the same views can be joined; found {found}. Load each in views that all have")
    spec = LayerSpec.parse(sets[0].layer)
    return spec.views_name or spec.views[0].name


def place_of(each: Any) -> str:
    """A feature set in words: the name of its file, or else of its backbone."""
    if each.source is not None:
        return printable(str(each.source.name))
    return printable(str(each.backbone.get("name") or each.dataset.get("name") or "a feature set"))


def _names(sets: Sequence[Any]) -> str:
    return listed([place_of(each) for each in sets], most=len(sets))


def _matching(first: Any, other: Any) -> np.ndarray:
    """For each row of the first set the row of the other with the same image: (N,) int64, -1 where there is none.

    Of copies of an image in the other set, the one at the same path is taken, or else the first: their features are equal.
    """
    ours, theirs = (np.ascontiguousarray(each.keys).view("V16").ravel() for each in (first, other))
    known = first.keys.any(axis=1)
    if len(ours) == len(theirs) and (first.keys == other.keys).all() and bool((first.paths == other.paths).all()):
        return np.where(known, np.arange(len(ours)), -1)
    _, image = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    mine, its = image[: len(ours)], image[len(ours) :]
    row_of = np.full(int(image.max()) + 1, -1)
    row_of[its[::-1]] = np.arange(len(its))[::-1]
    found = np.where(known, row_of[mine], -1)
    copied = np.bincount(its, minlength=len(row_of)) > 1
    if copied[mine].any():
        places = {(its[row], other.paths[row]): row for row in np.flatnonzero(copied[its]).tolist()}
        for row in np.flatnonzero(copied[mine] & known).tolist():
            found[row] = places.get((mine[row], first.paths[row]), found[row])
    return found


def _side_by_side(features: Sequence[Any], rows: Sequence[np.ndarray]) -> Any:
    """Join some rows of several feature matrices: an array, or ``SideBySide`` of what is too large to be copied."""
    joined = SideBySide(list(zip(features, rows, strict=True)))
    return np.asarray(joined) if joined.nbytes <= MOST_JOINED else joined


def _label_names(each: Any, rows: np.ndarray) -> np.ndarray:
    """(n,) names of the labels; "" for none."""
    names = np.array([*each.classes, ""], dtype=object)
    found: np.ndarray = names[each.labels[rows]]
    return found


def _two_labels(sets: Sequence[Any], rows: Sequence[np.ndarray]) -> Iterator[tuple[Any, np.ndarray, list[str]]]:
    """Each set that contradicts the first one in labels: the set, (n,) bool, and the images with both labels, in words.

    A set that has no label for an image does not contradict the other.
    """
    first = _label_names(sets[0], rows[0])
    for other, theirs in zip(sets[1:], rows[1:], strict=True):
        second = _label_names(other, theirs)
        differ = (first != second) & (second != "") & (first != "")
        if differ.any():
            yield (
                other,
                differ,
                [
                    f"{printable(str(sets[0].paths[rows[0][at]]))} ({printable(first[at])} and {printable(second[at])})"
                    for at in np.flatnonzero(differ).tolist()
                ],
            )


def _contradiction(first: Any, other: Any, shown: Sequence[str]) -> str:
    """The message for two sets that give images different labels."""
    found = (
        f"{place_of(first)} and {place_of(other)} give {counted(len(shown), 'image')} different labels: "
        f"{listed(shown, most=3)}"
    )
    if first.source is None or other.source is None:
        return f"{found}; give each image the same label in both"
    return (
        f"{found}. These commands bring the labels of both up to date, without a forward pass for images that have not "
        f"changed: {_extraction(first)} and {_extraction(other)}"
    )


def _extraction(each: Any) -> str:
    """The command that extracted a feature set."""
    spec = LayerSpec.parse(each.layer)
    words = backbone_words(each.backbone, spec.layers, spec.views_name)
    return shlex.join(["featx", "extract", *data_words(each.dataset), *words, *cache_words(each.source)])


def _notes_on_missing(sets: Sequence[Any], rows: Sequence[np.ndarray]) -> list[str]:
    """Say how many images are left out because not all sets hold them."""
    left = [(place_of(each), len(each) - len(np.unique(mine))) for each, mine in zip(sets, rows, strict=True)]
    if not any(count for _, count in left):
        return []
    counts = listed([f"{count:,} of {name}" for name, count in left if count], most=len(left))
    return [
        f"{counted(len(rows[0]), 'image')} that all files hold {form(len(rows[0]), 'is', 'are')} used; left out: {counts}"
    ]


def _notes_on_splits(sets: Sequence[Any], rows: Sequence[np.ndarray]) -> list[str]:
    """Say where sets put images into other splits, or know labels that the first does not."""
    notes = []
    splits, labels = sets[0].splits[rows[0]].astype(str), sets[0].labels[rows[0]]
    for other, theirs in zip(sets[1:], rows[1:], strict=True):
        moved = int(np.count_nonzero(splits != other.splits[theirs].astype(str)))
        if moved:
            notes.append(
                f"{place_of(other)} has {counted(moved, 'image')} in other splits than {place_of(sets[0])}, whose splits count"
            )
        unknown = int(np.count_nonzero((labels < 0) & (other.labels[theirs] >= 0)))
        if unknown:
            notes.append(
                f"{place_of(sets[0])} has no label for {counted(unknown, 'image')} that {place_of(other)} labels; its labels "
                "count"
            )
    return notes


def _notes_on_data_sets(sets: Sequence[Any]) -> list[str]:
    """Say where files were extracted from different data sets."""
    roots = {str(Path(str(each.dataset.get("root", "")))) for each in sets}
    if len(roots) == 1:
        return []
    return [f"the files are of different data sets ({listed(sorted(roots), most=3)}); their common images are used"]


def subset_fields(joined: Any, numbers: Sequence[int]) -> dict[str, Any]:
    """The fields that differ in a joint set of some of its parts alone, by name.

    Args:
        joined: a joint feature set.
        numbers: of the parts, from 0.

    Returns:
        ``features``, ``backbone``, ``layer``, ``identity`` and ``source``; of one part, those of its own.
    """
    parts = [joined.backbone["parts"][number] for number in numbers]
    blocks = [blocks_of(joined.backbone, joined.width)[number] for number in numbers]
    if isinstance(joined.features, SideBySide) and joined.features.count == len(joined.backbone["parts"]):
        features: Any = joined.features.some(numbers)
    else:
        features = np.concatenate([joined.features[..., block] for block in blocks], axis=-1)
    if len(parts) == 1:
        part = parts[0]
        layer, backbone = part["layer"], dict(part["backbone"])
    else:
        layer, backbone = joined.layer, _joint_backbone(parts)
    return {
        "features": features,
        "backbone": backbone,
        "layer": layer,
        "identity": _identity(parts),
        "source": None,
    }


def _joint_backbone(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"name": "+".join(_name(part) for part in parts), "source": JOINT, "parts": list(parts)}


def _identity(parts: Sequence[Mapping[str, Any]]) -> str:
    identities = [part["identity"] for part in parts]
    return joint_identity(identities) if all(identities) else ""
