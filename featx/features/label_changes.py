"""What has changed in a data set since its features were extracted: edited labels, moved or new images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from featx.constants import FOREIGN
from featx.data.boxes import split_box
from featx.data.image_set import UNLABELLED
from featx.data.listing import is_junk, why_left_out
from featx.data.openers import open_store, store_exists
from featx.data.places import expand, is_remote
from featx.data.scan import scan_images
from featx.data.scan_options import ScanOptions
from featx.data.sources.joined_tables import is_table_pattern
from featx.data.sources.paths_store import root_of
from featx.data.sources.table import TABLE_ENDINGS, read_labels
from featx.data.split_names import splits_of_cells
from featx.data.store import FolderStore
from featx.errors import DatasetError, FeatxError
from featx.features.file_set import Features, open_features
from featx.system import why_unreadable
from featx.text import brief, native, printable


def label_changes(path: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """Compare the labels in a feature file with those of its data set as it is now.

    A table is read again. Of a folder, those folders are listed that have changed since the file was written or last found up
    to date. An archive or a file of rows is listed again if it has changed. No image is opened. A data set that is gone, that
    cannot be read, or that lies on another machine, is not compared.

    Args:
        path: the feature file; or None, for features that come from none.

    Returns:
        A note, or nothing if there is no difference.

    Example:

        for note in label_changes("cache/photos--resnet50.h5"):
            print(note)
    """
    try:
        file = open_features(path) if path is not None else None
    except FeatxError:
        return ()
    if file is None or FOREIGN in file.backbone["parts"]:  # the labels of imported features come from elsewhere
        return ()
    table = file.dataset.get("table")
    if isinstance(table, str):
        found, name = _table_changes(file, Path(native(table))), Path(table).name
    elif _is_folder(file):
        found, name = _folder_changes(file), os.path.basename(file.root)  # noqa: PTH119 - of str
    else:
        found, name = _listed_changes(file), file.dataset["name"]
    if not found:
        return ()
    return (
        f"{printable(name)} has changed since its features were extracted: {printable(', '.join(found))}. The labels in the "
        "feature file are used; the same featx extract takes the changes over, without a forward pass for images that it knows",
    )


def _table_changes(file: Features, table: Path) -> list[str]:
    # A feature file may come from a stranger, so the file that it names is opened only if it can be a table.
    if is_table_pattern(str(table)):
        if any(map(why_unreadable, expand(str(table)))):
            return []
    elif why_unreadable(table) or table.suffix.lower() not in TABLE_ENDINGS:
        return []
    options = ScanOptions.of_dataset(file.dataset)
    try:
        now = read_labels(table, options, file.paths)
    except DatasetError as error:
        return [f"it cannot be read any more ({brief(error)})"]
    return _differences(file, now, labels_count=options.label_pattern is None)


def _differences(file: Features, now: Mapping[str, tuple[str, str]], *, labels_count: bool = True) -> list[str]:
    """How the label and the split of each image, by its path, differ from those in a feature file."""
    names = [*file.classes, ""]  # the label -1 of an image without a label is the last
    known = splits_of_cells({split for _, split in now.values()})
    given = file.dataset["splits"] == "given" or any(known)
    labels, splits, stored = list[str](), list[str](), set[str]()
    for path, label, split in zip(file.paths, file.images.labels.tolist(), file.splits, strict=True):
        stored.add(path)
        if path not in now:
            continue
        label_now, split_now = now[path]
        if labels_count and label_now != names[label if label != UNLABELLED else -1]:
            labels.append(path)
        if given and known[split_now] != split:
            splits.append(path)
    return [
        *_counted(labels, "has another label", "have other labels"),
        *_counted(splits, "is in another split", "are in other splits"),
        *_counted(now.keys() - stored, "is new", "are new"),
        *_counted(stored - now.keys(), "is no longer listed", "are no longer listed"),
    ]


def _is_folder(file: Features) -> bool:
    """Whether the images of a feature file are files in a local folder."""
    try:
        return isinstance(root_of(open_store(file.root)), FolderStore)
    except DatasetError:
        return False


def _listed_changes(file: Features) -> list[str]:
    """What has changed in local data that are neither a folder nor a table, if their facts tell that something has."""
    if is_remote(file.root) or not store_exists(file.root):
        return []
    try:
        facts = open_store(file.root).facts([split_box(path)[0] for path in file.paths])
        if np.array_equal(facts.mtimes, file.images.mtimes):
            return []
        images = scan_images(file.root, ScanOptions.of_dataset(file.dataset))
    except DatasetError as error:
        return [f"it cannot be read any more ({brief(error)})"]
    names = [*images.classes, ""]
    rows = zip(images.paths.tolist(), images.labels.tolist(), images.splits.tolist(), strict=True)
    return _differences(file, {path: (names[label], split) for path, label, split in rows})


def _folder_changes(file: Features) -> list[str]:
    root = Path(file.root)
    stored: dict[str, set[str]] = defaultdict(set)
    for path in file.paths:
        folder, _, name = path.rpartition("/")
        stored[folder].add(name)
    if any(".." in folder.split("/") or folder.startswith("/") for folder in stored) or not root.is_dir():
        return []
    around = {folder.rpartition("/")[0] for folder in stored if folder}
    written = file.path.stat().st_mtime_ns
    changed = [folder for folder in sorted(stored.keys() | around) if _is_newer(root / folder, written)]
    now: dict[str, set[str]] = {folder: stored[folder] for folder in stored}
    for folder in changed:
        images, folders = _list(root / folder)
        if folder in stored:
            now[folder] = images
        for new in folders if folder in around else ():
            path = f"{folder}/{new}" if folder else new
            if path not in stored and path not in around:
                now[path] = _list(root / path)[0]
    before, after = ({(name, folder) for folder, names in each.items() for name in names} for each in (stored, now))
    gone, added = before - after, after - before
    arrived = {name for name, _ in added}
    moved = {name for name, _ in gone if name in arrived}
    return [
        *_counted(
            [_join(f, n) for n, f in gone if n in moved], "was moved to another folder", "were moved to other folders"
        ),
        *_counted([_join(f, n) for n, f in added if n not in moved], "is new", "are new"),
        *_counted([_join(f, n) for n, f in gone if n not in moved], "is gone", "are gone"),
    ]


def _is_newer(folder: Path, written: int) -> bool:
    try:
        return folder.stat().st_mtime_ns > written
    except (OSError, ValueError):
        return True


def _list(folder: Path) -> tuple[set[str], set[str]]:
    """The names of the images and of the folders right in a folder; nothing if it cannot be read."""
    images, folders = set(), set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders |= {entry.name} if not is_junk(entry.name) else set()
                elif not why_left_out(entry.name):
                    images.add(entry.name)
    except (OSError, ValueError):
        return set(), set()
    return images, folders


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _counted(paths: Collection[str], one: str, many: str) -> Iterable[str]:
    if paths:
        yield f"{len(paths)} {f'image {one}' if len(paths) == 1 else f'images {many}'} (such as {min(paths)})"
