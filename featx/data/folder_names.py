"""Names of folders that are no classes (masks, numbered parts), or that name the class as Hive does (``label=cat``)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote

from featx.data.split_names import exact_splits, splits_of_cells
from featx.text import listed

PLAIN_NAMES = {"images", "image", "imgs", "img", "jpegimages", "jpeg", "jpegs", "jpg", "png", "pictures", "pics"}
"""Names of folders that hold the images of a data set, and are no class if they stand alone."""

_MASK_WORDS = {
    *("mask", "masks", "annotation", "annotations", "label", "labels", "trimap", "trimaps", "gt", "groundtruth"),
    *("segmentation", "segmentations", "segmentationclass", "segmentationobject", "depth", "depths"),
}
_PART_WORDS = {*PLAIN_NAMES, "part", "parts", "batch", "chunk", "shard", "photos", "photo"}
_NUMBERED = re.compile(r"(.*?)[-_. ]*(\d+)$")
_LETTERS = re.compile(r"[^\W\d_]+")
_LABEL_KEYS = {"label", "labels", "class", "classname", "category", "target", "species", "y"}
_SPLIT_KEYS = {"split", "set", "subset", "partition"}
_NULL = "__HIVE_DEFAULT_PARTITION__"


def hive_places(folders: Collection[str]) -> tuple[dict[str, tuple[str, str | None]], str]:
    """The split and the class of folders whose names are ``key=value``, one of which is the class.

    Args:
        folders: the paths of folders with images.

    Returns:
        By the path of each folder its split, "" for none, and its class, None for the value that Hive writes for null; and the
        key of the classes. Nothing if not every folder names a class.

    Examples:
        >>> hive_places(["split=train/label=ant", "split=test/label=fire%20ant"])[0]["split=test/label=fire%20ant"]
        ('test', 'fire ant')
    """
    found: dict[str, tuple[str, str | None]] = {}
    keys = set[str]()
    for path in folders:
        pairs = [part.split("=", 1) for part in path.split("/") if "=" in part]
        labels = [(key, value) for key, value in pairs if _plain(key) in _LABEL_KEYS]
        splits = [value for key, value in pairs if _plain(key) in _SPLIT_KEYS]
        if len(labels) != 1 or not labels[0][1] or len(splits) > 1:
            return {}, ""
        keys.add(labels[0][0])
        value = labels[0][1]
        found[path] = (splits[0] if splits else "", None if value == _NULL else unquote(value))
    names = {split for split, _ in found.values()}
    if len(keys) != 1 or (len(names) > 1 and "" in names):
        return {}, ""
    read_as = splits_of_cells(names)
    return {path: (read_as[split], label) for path, (split, label) in found.items()}, keys.pop()


def without_masks(folders: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """Leave out folders such as ``masks`` that lie beside a folder such as ``images``.

    Args:
        folders: the number of images right in each folder, by its path.

    Returns:
        The other folders; and a note, "" if none is left out.

    Examples:
        >>> without_masks({"images": 4, "masks": 4})[0]
        {'images': 4}
    """
    inside: dict[str, set[str]] = {}
    for path in folders:
        parts = path.split("/")
        for depth in range(len(parts)):
            inside.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    masks = {f"{around}/{name}" if around else name for around, names in inside.items() for name in _masks_among(names)}
    top = next((around for around, names in inside.items() if len(names) > 1 or around in folders), "")
    masks |= {f"{top}/{name}" if top else name for name in _masks_beside_splits(inside.get(top, set()))}
    kept = {path: count for path, count in folders.items() if not _lies_in(path, masks)}
    if len(kept) == len(folders) or not kept:
        return dict(folders), ""
    shown = listed(sorted(masks), most=3)
    lie, them = ("lies", "it holds") if len(masks) == 1 else ("lie", "they hold")
    return (
        kept,
        f"{shown} {lie} beside folders of images and {'is' if lie == 'lies' else 'are'} left out: by the name {them} masks",
    )


def _masks_among(names: Collection[str]) -> list[str]:
    """The folders of masks among some, where all others are those of images."""
    others = [name for name in names if name.lower() not in PLAIN_NAMES]
    return others if len(others) < len(names) and all(map(_is_mask, others)) else []


def _masks_beside_splits(names: Collection[str]) -> list[str]:
    """The folders of masks among some, where all others are train and another split."""
    masks = [name for name in names if _is_mask(name)]
    splits = exact_splits(name for name in names if name not in masks).values()
    return masks if "train" in splits and len(set(splits)) > 1 and all(splits) else []


def without_parts(folders: Mapping[str, int]) -> tuple[dict[str, str], str]:
    """Read folders such as ``images_001, images_002`` as one, since they are numbered parts and no classes.

    Args:
        folders: the number of images right in each folder, by its path.

    Returns:
        The path of each folder without those that are parts; and a note, "" if there are none.

    Examples:
        >>> without_parts({"images_001/images": 4, "images_002/images": 4})[0]
        {'images_001/images': 'images', 'images_002/images': 'images'}
    """
    names: dict[str, set[str]] = {}
    for path in folders:
        around, _, _ = path.partition("/")
        names.setdefault("", set()).add(around)
    tops = sorted(names.get("", ()))
    if not _are_parts(tops):
        return {path: path for path in folders}, ""
    meant = {path: path.partition("/")[2] for path in folders}
    return meant, f"{listed(tops, most=3)} are read as parts of one folder, since they are numbered, and not as classes"


def _are_parts(names: Sequence[str]) -> bool:
    """Whether folders have one name with a word for images or parts, and numbers one after another."""
    matches = [match for name in names if (match := _NUMBERED.fullmatch(name))]
    if len(names) < 2 or len(matches) < len(names) or len({match[1] for match in matches}) > 1:
        return False
    numbers = sorted(int(match[2]) for match in matches)
    words = {word.lower() for word in _LETTERS.findall(matches[0][1])}
    return bool(words & _PART_WORDS) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _is_mask(name: str) -> bool:
    words = [word.lower() for word in _LETTERS.findall(name)]
    return bool(words) and all(word in _MASK_WORDS or word == "ground" or word == "truth" for word in words)


def _lies_in(path: str, folders: Collection[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[: depth + 1]) in folders for depth in range(len(parts)))


def _plain(key: str) -> str:
    return re.sub(r"[\s_.-]+", "", key.casefold())
