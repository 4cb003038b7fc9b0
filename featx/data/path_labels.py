"""Classes in the names of files, and groups in the names of folders: what ``ScanOptions`` reads from the paths of images."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from featx.data.boxes import split_box
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.errors import SettingsError
from featx.text import counted, form, listed, portable, printable

GROUP_COLUMN = "group"
"""The column that ``group_level`` makes."""


def with_path_labels(images: ImageSet, options: ScanOptions) -> ImageSet:
    """Take the classes of images from the names of their files, and their groups from folders, as the options ask.

    Raises:
        SettingsError: the pattern is no regular expression with the group ``label``, it matches no name, there is no such
            level of folders, or the images have a column ``group`` already.
    """
    if options.label_pattern is not None:
        images = _labelled(images, compiled(options.label_pattern))
    if options.group_level is not None:
        images = _grouped(images, options.group_level)
    return images if images.options != NO_OPTIONS else dataclasses.replace(images, options=options)


def compiled(pattern: str) -> re.Pattern[str]:
    r"""The regular expression of a pattern of labels.

    Raises:
        SettingsError: it is none, or has no group ``label``.

    Examples:
        >>> compiled(r"(?P<label>[a-z]+)_").search("cat_1.jpg")["label"]
        'cat'
    """
    try:
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SettingsError(f"--label-pattern {pattern[:200]!r} is not a regular expression: {error}") from error
    if "label" not in found.groupindex:
        raise SettingsError(
            f"--label-pattern {pattern[:200]!r} has no group named label; expected (?P<label>...) around the class, such as "
            r"'(?P<label>[a-z]+)_\d+'"
        )
    return found


def label_in_name(path: str, pattern: re.Pattern[str]) -> str:
    r"""The class in the name of an image's file, or in its path if the pattern has a slash; "" if there is none.

    Examples:
        >>> label_in_name("train/cat.12.jpg", compiled(r"(?P<label>\w+?)\.\d+"))
        'cat'
        >>> label_in_name("sketch/dog/12.jpg", compiled("/(?P<label>[^/]+)/[^/]*$"))
        'dog'
    """
    whole = split_box(path)[0]
    match = pattern.search(whole if _is_of_paths(pattern) else whole.rpartition("/")[2])
    return portable((match["label"] or "").strip()) if match else ""


def _is_of_paths(pattern: re.Pattern[str]) -> bool:
    """Whether a pattern has a slash, other than in a set such as ``[^/]``, and so is searched in the whole path."""
    return "/" in re.sub(r"\[\^?\]?[^\]]*\]", "", pattern.pattern)


def _labelled(images: ImageSet, pattern: re.Pattern[str]) -> ImageSet:
    names = [label_in_name(path, pattern) for path in images.paths.tolist()]
    classes, missing = (
        tuple(sorted(set(names) - {""})),
        [path for path, name in zip(images.paths, names, strict=True) if not name],
    )
    shown = listed([printable(path) for path in missing], most=3)
    if not classes:
        raise SettingsError(
            f"--label-pattern {pattern.pattern[:200]!r} finds a class in none of {counted(len(names), 'file name')} ({shown}); "
            "it is searched in the name of the file, without its folders, unless it has a slash"
        )
    index = {name: label for label, name in enumerate(classes)}
    where = "paths" if _is_of_paths(pattern) else "the names of files"
    note = f"{images.name}: --label-pattern finds {counted(len(classes), 'class', 'classes')} in {where}"
    if missing:
        are = form(len(missing), "is", "are")
        note += f", and none in {len(missing):,} of {len(names):,}, which {are} unlabelled ({shown})"
    labels = np.array([index.get(name, UNLABELLED) for name in names], dtype=np.int64)
    return dataclasses.replace(images, labels=labels, classes=classes, notes=(*images.notes, note))


def _grouped(images: ImageSet, level: int) -> ImageSet:
    if level == 0:
        raise SettingsError(
            "--group-level is 0; expected 1 for the first folder, or -1 for the one that holds the image"
        )
    if GROUP_COLUMN in images.columns:
        raise SettingsError(
            f"the table has a column {GROUP_COLUMN!r}, which --group-level would replace; name it with --group, or leave out "
            "--group-level"
        )
    folders = [split_box(path)[0].split("/")[:-1] for path in images.paths.tolist()]
    place = level - 1 if level > 0 else level
    names = [portable(parts[place]) if -len(parts) <= place < len(parts) else "" for parts in folders]
    if not any(names):
        deepest = max(map(len, folders), default=0)
        raise SettingsError(
            f"--group-level is {level}, but no image lies so deep: there are at most {counted(deepest, 'folder')} around an "
            f"image, such as {printable(str(images.paths[0]))}"
        )
    notes = images.notes
    if without := names.count(""):
        lie = "lies" if without == 1 else "lie"
        notes = (
            *notes,
            f"{images.name}: {counted(without, 'image')} {lie} less deep than --group-level {level}, in no group",
        )
    columns = {**images.columns, GROUP_COLUMN: np.array(names, dtype=object)}
    return dataclasses.replace(images, columns=columns, notes=notes)
