"""Samples of WebDataset: the members of a tar that share a name up to its first dot. Standard library only.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from featx.data.formats import ARRAY_ENDING
from featx.data.listing import is_junk, why_left_out
from featx.data.sources.archive_index import ArchiveIndex

LABEL_ENDINGS = ("cls", "class", "label")
"""The endings of members that hold a label, in the order in which they are taken."""

JSON_LABELS = (
    *("label_name", "class_name", "classname", "category_name", "label_text"),
    *("label", "labels", "cls", "class", "class_label", "category", "target", "class_id", "label_id", "class_idx"),
)
"""The keys of JSON members that hold a label, in the order in which they are taken: names before numbers."""

_IMAGE_NAMES = ("image", "img", "input")
"""The beginnings of endings such as ``image.jpg`` that are taken before others, where a sample holds several images."""

_BESIDE = (*(f".{ending}" for ending in LABEL_ENDINGS), ".json", ".txt")

_SHARE = 0.5
"""The share of samples that must have a label, or JSON or text beside the image, if an archive is to be read as samples."""

_FEW = 4
"""Images of one sample above which a name up to its first dot does not mean a sample."""


class Sample(NamedTuple):
    """One sample.

    Attributes:
        key: the path of its members up to the first dot of the name.
        images: the paths of its images by their endings.
        others: the paths of its other members by their endings.
    """

    key: str
    images: dict[str, str]
    others: dict[str, str]


@dataclass
class Samples:
    """The samples of one archive.

    Attributes:
        samples: those with an image, in the order in which they are stored.
        without_image: how many have none.
        objects: the JSON objects of samples by their keys.
    """

    samples: list[Sample]
    without_image: int = 0
    objects: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def split_name(path: str) -> tuple[str, str]:
    """The key of a sample and the ending of a member, in lower case: its name is split at the first dot.

    Examples:
        >>> split_name("train.v2/0001.left.JPG")
        ('train.v2/0001', 'left.jpg')
    """
    folder, slash, name = path.rpartition("/")
    stem, _, ending = name.partition(".")
    return folder + slash + stem, ending.lower()


def may_be_samples(index: ArchiveIndex) -> bool:
    """Whether an archive has a member that only samples have, and images with annotations; it is cheap to ask."""
    return any(path.lower().endswith(_BESIDE) for path in index.members)


def samples_of(index: ArchiveIndex) -> Samples:
    """Group the members of an archive to samples. Hidden members and those in hidden folders are left out.

    The texts of JSON members are taken out of ``index``, since their values are larger than everything else.
    """
    found: dict[str, Sample] = {}
    for path in index.members:
        if any(map(is_junk, path.split("/"))):
            continue
        key, ending = split_name(path)
        sample = found.setdefault(key, Sample(key, {}, {}))
        (sample.others if why_left_out(path.rpartition("/")[2]) else sample.images)[ending] = path
    for sample in found.values():  # an array beside an image holds its features or its mask
        arrays = [ending for ending in sample.images if ending.endswith(ARRAY_ENDING[1:])]
        if len(arrays) < len(sample.images):
            sample.others.update({ending: sample.images.pop(ending) for ending in arrays})
    with_image = [sample for sample in found.values() if sample.images]
    objects: dict[str, Mapping[str, Any]] = {}
    for sample in with_image:
        value = _parsed(index.texts.pop(sample.others.get("json", ""), b""))
        if isinstance(value, dict):
            objects[sample.key] = {sys.intern(key): inner for key, inner in value.items()}
    beside = sum(1 for sample in found.values() if not sample.images and _tells(sample))
    return Samples(with_image, beside, objects)


def are_samples(archives: Sequence[Samples]) -> bool:
    """Whether archives hold samples, and not folders of images, by their content.

    They do if at least half of the images have a label beside them, of the same name up to the first dot, or a JSON object with
    a label; or, where all images lie in one folder, any JSON or text.
    """
    samples = [sample for each in archives for sample in each.samples]
    if not samples or sum(len(sample.images) for sample in samples) > _FEW * len(samples):
        return False
    enough = _SHARE * len(samples)
    if sum(1 for sample in samples if label_ending(sample.others)) >= enough:
        return True
    objects = [value for each in archives for value in each.objects.values()]
    if sum(1 for value in objects if json_label([value])) >= enough:
        return True
    folders = {sample.key.rpartition("/")[0] for sample in samples}
    return len(folders) == 1 and sum(1 for sample in samples if {"json", "txt"} & sample.others.keys()) >= enough


def label_ending(others: Mapping[str, str]) -> str:
    """The ending of the member that holds the label: ``cls``, or one such as ``target.cls``; "" if there is none."""
    return _label_ending(frozenset(others))


@functools.lru_cache(maxsize=1024)
def _label_ending(endings: frozenset[str]) -> str:
    for label in LABEL_ENDINGS:
        for known in (label, f"{label}.txt"):
            if known in endings:
                return known
            if found := min((ending for ending in endings if ending.endswith(f".{known}")), default=""):
                return found
    return ""


def json_label(objects: Sequence[Mapping[str, Any]]) -> str:
    """The key that holds the labels of JSON objects: the first of ``JSON_LABELS`` that half have, else any; "" for none."""
    counts = Counter(key for value in objects for key in JSON_LABELS if key in value)
    common = (key for key in JSON_LABELS if counts[key] >= _SHARE * len(objects) and counts[key])
    return next(common, next((key for key in JSON_LABELS if counts[key]), ""))


def image_endings(samples: Sequence[Sample]) -> list[str]:
    """The endings of images, in the order in which they are taken where a sample holds several."""
    counts = Counter(ending for sample in samples for ending in sample.images)

    def rank(ending: str) -> tuple[bool, int, int, str]:
        first = ending.split(".")[0]
        place = _IMAGE_NAMES.index(first) if first in _IMAGE_NAMES else len(_IMAGE_NAMES)
        return "." in ending, place if "." in ending else 0, -counts[ending], ending

    return sorted(counts, key=rank)


def names_of_list(path: str, data: bytes) -> list[str]:
    """The names of the classes in a list, in the order of their numbers; [] if it is none.

    Args:
        path: of a text file with a name in each line, or of a JSON file: a list of names, an object of names and numbers, or
            the ``dataset_info.json`` of Hugging Face.
        data: its bytes.
    """
    if path.lower().endswith(".json"):
        return _names_in(_parsed(data))
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return []
    while lines and not lines[-1].strip():
        lines.pop()
    return _distinct([line.strip() for line in lines])


def _names_in(value: Any) -> list[str]:
    if isinstance(value, list):
        return _distinct(value) if all(isinstance(name, str) for name in value) else []
    if not isinstance(value, dict):
        return []
    for inner in _class_labels(value, 4):
        return _distinct(inner)
    if value and all(isinstance(number, int) for number in value.values()):
        by_number = {number: str(name) for name, number in value.items()}
    elif value and all(key.isdecimal() and isinstance(name, str) for key, name in value.items()):
        by_number = {int(key): name for key, name in value.items()}
    else:
        return []
    return _distinct([by_number[n] for n in range(len(by_number))]) if set(by_number) == set(range(len(value))) else []


def _class_labels(value: Any, depth: int) -> Iterator[list[str]]:
    """The names of every ``ClassLabel`` in the description of a data set."""
    if not isinstance(value, dict) or not depth:
        return
    names = value.get("names")
    if value.get("_type") == "ClassLabel" and isinstance(names, list) and all(isinstance(n, str) for n in names):
        yield names
        return
    for inner in value.values():
        yield from _class_labels(inner, depth - 1)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with their number where several classes share one; [] if one is empty."""
    counts = Counter(names)
    if "" in counts:
        return []
    return [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)]


def _parsed(data: bytes) -> Any:
    """The value of a JSON text; None if it is none."""
    if not data:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _tells(sample: Sample) -> bool:
    """Whether a sample without an image has members that only samples have."""
    return bool(label_ending(sample.others)) or "json" in sample.others
