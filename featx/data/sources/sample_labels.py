"""Labels, splits and columns of the samples of WebDataset, and what a note says about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featx.data.cells import cell_text, label_text
from featx.data.scan_options import ScanOptions
from featx.data.sources.webdataset import (
    JSON_LABELS,
    Sample,
    Samples,
    image_endings,
    json_label,
    label_ending,
)
from featx.data.split_names import splits_of_cells
from featx.errors import DatasetError
from featx.text import counted, form, listed, shortened

_MOST_COLUMNS = 100
"""Keys of JSON members that become columns; of more, those that most samples have."""

_PICKLED = ("pyd", "pickle", "pkl", "pth", "pt")

_RESERVED = ("path", "label", "split")
"""Names that columns of an exported table have already."""


@dataclass
class LabelledSamples:
    """What the samples of one or more archives state about their images.

    Attributes:
        paths: N paths of images, with the archive before them where there are several.
        archives: N beginnings of these paths, which name the archive; "" for a single one.
        labels: N labels; None for unlabelled.
        splits: N cells of the key that holds splits, or all "".
        columns: the cells of further keys.
        notes: sentences for the user, without the name of the data set.
    """

    paths: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _One:
    """One sample, the archive that it lies in, and its JSON object."""

    prefix: str
    sample: Sample
    values: Mapping[str, Any]


def read_samples(
    archives: Mapping[str, Samples],
    options: ScanOptions,
    text: Callable[[str], bytes],
    class_names: Callable[[], tuple[str, list[str]]],
) -> LabelledSamples:
    """Read the labels of samples.

    Args:
        archives: the samples of each archive, by what stands before the paths of its members.
        options: the user's; ``label_column`` is a key of the JSON members, or the ending of members that hold the labels;
            ``split_column`` is such a key; ``image_column`` is the ending of the images.
        text: reads the member at a path.
        class_names: looks for a list of class names; returns the name of the list, and the names by their numbers.

    Raises:
        DatasetError: there is no such key or ending, a label is none, or no sample has an image.
    """
    found = LabelledSamples()
    ones = [
        _One(prefix, sample, each.objects.get(sample.key, {}))
        for prefix, each in archives.items()
        for sample in each.samples
    ]
    ones, used = _with_images(ones, options, found)
    labels, label_key, where = _labels(ones, options, text)
    labels, names_from = _named(labels, ones, label_key, class_names)
    found.labels = [label or None for label in labels]
    split_key = options.split_column or ""
    found.splits = _splits(ones, split_key)
    found.columns = dict(_columns(ones, {label_key, names_from, split_key}))
    how = f"labels from {where}" if where else "no labels"
    how += f", class names from {names_from}" if names_from else ""
    found.notes = [f"is read as samples of WebDataset: images {', '.join(f'.{e}' for e in used)}; {how}", *found.notes]
    found.notes += _left_out(ones, archives, where, found.labels.count(None))
    return found


def _with_images(ones: Sequence[_One], options: ScanOptions, found: LabelledSamples) -> tuple[list[_One], list[str]]:
    """The samples with an image, whose paths are taken up, and the endings of the images."""
    ranked = image_endings([one.sample for one in ones])
    if (wanted := (options.image_column or "").lower().lstrip(".")) and wanted not in ranked:
        raise DatasetError(
            f"--image-column is {options.image_column!r}, but no sample has an image .{wanted}; found "
            f"{listed([f'.{ending}' for ending in ranked])}"
        )
    ranked = [wanted] if wanted else ranked
    kept, used, several = [], Counter[str](), Counter[str]()
    for one in ones:
        endings = [ending for ending in ranked if ending in one.sample.images]
        if endings:
            kept.append(one)
            used[endings[0]] += 1
            found.paths.append(one.prefix + one.sample.images[endings[0]])
            found.archives.append(one.prefix)
            several.update(one.sample.images.keys() - {endings[0]})
    if several:
        shown = ", ".join(f"{count:,} .{ending}" for ending, count in several.most_common(5))
        found.notes.append(
            f"has samples of several images; {shown} are left out (--image-column {several.most_common(1)[0][0]} reads those)"
        )
    return kept, [ending for ending, _ in used.most_common()]


# Labels


def _labels(ones: Sequence[_One], options: ScanOptions, text: Callable[[str], bytes]) -> tuple[list[str], str, str]:
    """The labels of samples, the key of JSON objects that holds them, and where they stand, in words; "" for nowhere."""
    asked = options.label_column
    ending = (asked or "").lower().lstrip(".")
    if asked is None:
        counts = Counter(label_ending(one.sample.others) for one in ones)
        counts.pop("", None)
        if counts:
            return [_member_label(one, label_ending(one.sample.others), text) for one in ones], "", _shown(counts)
    elif any(ending in one.sample.others for one in ones) and ending != "json":
        return [_member_label(one, ending, text) for one in ones], "", f".{ending}"
    key = asked if asked is not None else json_label([one.values for one in ones if one.values])
    if asked is not None and not any(asked in one.values for one in ones):
        keys = Counter(key for one in ones for key in one.values)
        endings = Counter(ending for one in ones for ending in one.sample.others)
        raise DatasetError(
            f"--label-column is {asked!r}, but no sample has such a member or such a key in .json; found "
            f"{listed([f'.{each}' for each in endings]) or 'no other members'}, and the keys {listed(list(keys)) or 'none'}"
        )
    if not key:
        return [""] * len(ones), "", ""
    return [_json_label(one, key) for one in ones], key, f"{key} in .json"


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f".{ending}" for ending in sorted(counts))


def _member_label(one: _One, ending: str, text: Callable[[str], bytes]) -> str:
    """The text of the member with the label; "" if there is none."""
    path = one.sample.others.get(ending)
    if path is None:
        return ""
    try:
        return label_text(text(one.prefix + path))
    except ValueError as error:
        raise DatasetError(f"{one.prefix}{path} is no label: it {error}") from error


def _json_label(one: _One, key: str) -> str:
    try:
        return label_text(one.values.get(key))
    except ValueError as error:
        raise DatasetError(
            f"{one.prefix}{one.sample.others['json']}: the label in {key!r} {error}; --label-column names another key"
        ) from error


def _named(
    labels: list[str], ones: Sequence[_One], label_key: str, class_names: Callable[[], tuple[str, list[str]]]
) -> tuple[list[str], str]:
    """Labels that are the numbers of classes become names, where a list or the JSON objects tell them; and what told them."""
    numbers = {label for label in labels if label}
    if not numbers or not all(label.isascii() and label.isdecimal() and len(label) < 10 for label in numbers):
        return labels, ""
    where, names = class_names()
    if max(map(int, numbers)) < len(names):
        return [names[int(label)] if label else "" for label in labels], where
    for key in JSON_LABELS:
        if key == label_key:
            continue
        by_number: dict[str, set[str]] = {}
        for label, one in zip(labels, ones, strict=True):
            if label and isinstance(name := one.values.get(key), str) and name.strip():
                by_number.setdefault(label, set()).add(name.strip())
        distinct = {name for found in by_number.values() for name in found}
        if (
            set(by_number) == numbers
            and all(len(found) == 1 for found in by_number.values())
            and len(distinct) == len(numbers)
        ):
            return [next(iter(by_number[label])) if label else "" for label in labels], key
    return labels, ""


# Splits and columns


def _splits(ones: Sequence[_One], key: str) -> list[str]:
    if not key:
        return [""] * len(ones)
    cells = [_cell(one.values.get(key)) for one in ones]
    missing = cells.count("")
    if missing:
        keys = Counter(key for one in ones for key in one.values)
        raise DatasetError(
            f"--split-column is {key!r}, but {counted(missing, 'sample')} of {len(ones):,} {form(missing, 'has', 'have')} no "
            f"such key in .json; found {listed(list(keys)) or 'none'}"
        )
    known = splits_of_cells(sorted(set(cells)))
    return [known[cell] for cell in cells]


def _columns(ones: Sequence[_One], used: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The further keys of JSON objects whose values are text or numbers, as columns."""
    counts: Counter[str] = Counter()
    for one in ones:
        counts.update(key for key, value in one.values.items() if not isinstance(value, dict | list))
    for key, _ in counts.most_common(_MOST_COLUMNS):
        if key and key not in used and "\0" not in key:
            cells = [_cell(one.values.get(key)) for one in ones]
            if any(cells):
                yield f"json_{key}" if key in _RESERVED else key, cells


def _cell(value: Any) -> str:
    if isinstance(value, dict | list):
        return ""
    try:
        return cell_text(value)
    except ValueError:
        return ""


# What is left out


def _left_out(ones: Sequence[_One], archives: Mapping[str, Samples], where: str, unlabelled: int) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for one in ones:
        counts.update(one.sample.others.keys())
    used = set(where.replace(",", "").split()) | {".json"}
    parts = []
    for ending, count in sorted(counts.items()):
        if f".{ending}" in used:
            continue
        last = ending.rpartition(".")[2]
        why = " (captions are no labels; --label-column txt reads them as such)" if ending == "txt" else ""
        why = " (pickled, never opened)" if last in _PICKLED else why
        parts.append(f"{count:,} .{shortened(ending, 40).strip(chr(39))}{why}")
    if parts:
        yield f"has further members, which are left out: {listed(parts)}"
    if without := sum(each.without_image for each in archives.values()):
        yield f"has {counted(without, 'sample')} without an image, which {form(without, 'is', 'are')} left out"
    if where and unlabelled:
        yield f"has {counted(unlabelled, 'sample')} without a label"
