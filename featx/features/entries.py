"""What the files in a folder of feature files are, and which of them nothing needs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import FROZEN, UNTRAINED
from featx.data.openers import store_exists
from featx.errors import CacheMissError, CorruptFileError, OutputError, UnknownVersionError, UnreadableFileError
from featx.features.feature_file import DONE, FeatureFile, are_among
from featx.features.file_set import FeatureFileSet, folder_of, is_set, open_features
from featx.features.folder import (
    ENDINGS,
    SHARDS,
    files_and_shards,
    files_in,
    final_path,
    first_bytes,
    is_of_this_version,
    is_ours,
    is_something_else,
    sets_in,
    when_modified,
)
from featx.features.lock import write_lock
from featx.features.manifest import SETS, ListedFile, Manifest
from featx.io.file_kinds import MANIFEST, misplaced
from featx.system import exists


@dataclass(frozen=True)
class FolderEntry:
    """One file of a folder of feature files, or one set of files.

    Attributes:
        path: the path of the file, or of the folder of the set.
        state: "complete", "partial" (left by an interrupted run), "leftover" (left by a run that was killed before it
            computed anything), "damaged", "unreadable" (the system cannot read it now), "unknown" (of a later version of
            featx), or "foreign" (not a feature file).
        bytes: the space that it takes on the disk.
        modified: when it was last written or used, in seconds since 1970.
        dataset: the name of the data set; "" if the file cannot be read.
        root: the folder of the data set.
        backbone: the name of the backbone.
        images: the number of rows.
        done: the number of rows that have features.
        removable: why nothing needs the file; "" if something may.
        fault: why the file cannot be used; "" if it can.
    """

    path: Path
    state: str
    bytes: int
    modified: float
    dataset: str = ""
    root: str = ""
    backbone: str = ""
    images: int = 0
    done: int = 0
    removable: str = ""
    fault: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The entry as ``featx cache --json`` prints it."""
        return {
            "file": str(self.path),
            "state": self.state,
            "bytes": self.bytes,
            "modified": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.modified)),
            "dataset": self.dataset,
            "root": self.root,
            "backbone": self.backbone,
            "images": self.images,
            "done": self.done,
            "removable": self.removable,
            "fault": self.fault,
        }


def list_folder(folder: Path) -> list[FolderEntry]:
    """List the feature files of a folder and of its subfolders for frozen parts and untrained networks, the newest first.

    A set is one entry; files in its folder that do not belong to it are entries of their own.

    Raises:
        CacheMissError: there is no such folder.
        UnreadableFileError: it cannot be listed.
    """
    if not exists(folder):
        raise CacheMissError(f"there is no folder {folder}; featx extract makes one")
    files = [path for place in (folder, folder / FROZEN, folder / UNTRAINED) for path in files_and_shards(place)]
    sets = sets_in(folder)
    listed = {path / file.name for path in sets for file in _manifest_files(path)}
    files = [*sets, *(path for path in files if path not in listed)]
    return [_entry(path) for path in sorted(files, key=when_modified, reverse=True)]


def describe_files(paths: Iterable[Path]) -> list[FolderEntry]:
    """Describe named files.

    Raises:
        CacheMissError: one of the files does not exist.
        UnreadableFileError: one of them cannot be read, so that it is not known what it holds.
        CorruptFileError: one of them is not a feature file, or has a version that this featx does not know.
    """
    entries = []
    for path in paths:
        if is_set(path):
            entries.append(_usable(_entry(folder_of(path))))
            continue
        if not path.name.endswith(ENDINGS):
            endings = f"a feature file, which ends in {', '.join(ENDINGS)}"
            raise CorruptFileError(misplaced(path, endings) or f"{path} is not {endings}")
        if is_something_else(path):
            raise CacheMissError(f"there is no feature file {path}")
        if path.name in {file.name for file in _manifest_files(path.parent)}:
            raise CorruptFileError(
                f"{path} is a part of the set {path.parent}, which cannot be read without it; name that"
            )
        entries.append(_usable(_entry(path)))
    return entries


def _usable(entry: FolderEntry) -> FolderEntry:
    """The entry of a file that may be removed.

    Raises:
        UnreadableFileError, UnknownVersionError, CorruptFileError: as of ``describe_files``.
    """
    if entry.state == "foreign":
        raise CorruptFileError(f"{entry.path} is not a feature file of featx; remove it by hand if you do not want it")
    if entry.state == "unreadable":
        raise UnreadableFileError(f"{entry.fault}. It may be intact, so it is not removed")
    if entry.state == "unknown":
        raise UnknownVersionError(f"{entry.fault}. It may be intact, so it is not removed")
    return entry


def remove(entry: FolderEntry) -> int | None:
    """Remove a feature file or a set, unless a process is writing it or it is no longer as it was described.

    Args:
        entry: the description on which the removal was decided.

    Returns:
        The number of bytes that were freed; None if the file has changed since it was described, and was kept.

    Raises:
        CacheLockedError: a process is writing the file.
        OutputError: the file cannot be removed.
    """
    path = entry.path
    with write_lock(path / MANIFEST if path.suffix == SETS else final_path(path)):
        now = _entry(path, thorough=True) if os.path.lexists(path) else None
        if now and (now.state, now.modified, bool(now.removable)) != (
            entry.state,
            entry.modified,
            bool(entry.removable),
        ):
            return None
        try:
            size = _on_disk(path)
            if path.suffix == SETS:
                _remove_set(path)
            else:
                path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}") from error
    place = path if path.suffix == SETS else path.parent
    if place.suffix in (SHARDS, SETS):
        with contextlib.suppress(OSError):  # it may have others
            place.rmdir()
    return size


def _remove_set(folder: Path) -> None:
    """Remove the manifest of a set, and then the files that it lists."""
    files = _manifest_files(folder)
    (folder / MANIFEST).unlink()
    for file in files:
        (folder / file.name).unlink(missing_ok=True)


def _manifest_files(folder: Path) -> tuple[ListedFile, ...]:
    """The files that the manifest of a set lists; none if it cannot be read."""
    with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
        return Manifest.read(folder).files
    return ()


def _entry(path: Path, *, thorough: bool = False) -> FolderEntry:
    """Describe one file, and whether anything needs it.

    Args:
        path: the file.
        thorough: call a file superseded only if the features that another one has instead match their checksums.
    """
    size, modified = _on_disk(path), when_modified(path)
    if path.suffix == SETS:
        return _set_entry(path, size, modified)
    try:
        if path.name.endswith(".new") and (is_ours(path) or not any(first_bytes(path))):
            why = "a run was killed before it began to compute"
            return FolderEntry(path, "leftover", size, modified, removable=why)
        file = FeatureFile(path, allow_partial=True)
        superseded = _superseded(file, thorough)
    except UnreadableFileError as error:
        return FolderEntry(path, "unreadable", size, modified, fault=str(error))
    except UnknownVersionError as error:
        return FolderEntry(path, "unknown", size, modified, fault=str(error))
    except (CacheMissError, CorruptFileError) as error:
        return _unusable(path, size, modified, error)
    return FolderEntry(
        path,
        "complete" if file.complete else "partial",
        size,
        modified,
        dataset=file.dataset["name"],
        root=file.dataset["root"],
        backbone=file.backbone["name"],
        images=len(file),
        done=int((file.status == DONE).sum()),
        removable=superseded,
    )


def _set_entry(folder: Path, size: int, modified: float) -> FolderEntry:
    """Describe a set. One that is not whole is damaged, but its files may have features that nothing else has."""
    try:
        files = FeatureFileSet(folder)
    except UnreadableFileError as error:
        return FolderEntry(folder, "unreadable", size, modified, fault=str(error))
    except UnknownVersionError as error:
        return FolderEntry(folder, "unknown", size, modified, fault=str(error))
    except (CacheMissError, CorruptFileError) as error:
        return FolderEntry(folder, "damaged", size, modified, fault=str(error))
    done = int((files.status == DONE).sum())
    name, root = files.dataset["name"], files.dataset["root"]
    return FolderEntry(folder, "complete", size, modified, name, root, files.backbone["name"], len(files), done)


def _unusable(path: Path, size: int, modified: float, error: Exception) -> FolderEntry:
    """Describe a file that is no feature file of this version: damaged, of a later version, or something else."""
    try:
        if not is_ours(path):
            return FolderEntry(path, "foreign", size, modified, fault=str(error))
        if not is_of_this_version(path):
            return FolderEntry(path, "unknown", size, modified, fault=f"{error}; it may be of a later version of featx")
    except UnreadableFileError as problem:
        return FolderEntry(path, "unreadable", size, modified, fault=str(problem))
    return FolderEntry(path, "damaged", size, modified, removable=str(error), fault=str(error))


def _superseded(file: FeatureFile, thorough: bool) -> str:
    """Why a file is no longer needed: another one has all its features, and no extraction will use this one; "" otherwise."""
    final = final_path(file.path)
    if final != file.path:  # an unfinished file is only of use for its finished file
        return f"{final.name} has all its features" if _has_all(final, file, thorough) else ""
    if shard := file.dataset.get("shard"):
        place = file.path.parent.parent
        wholes = [*(path for path in files_in(place) if path.suffix == ".h5"), *sets_in(place)]
        whole = next((path for path in wholes if _has_all(path, file, thorough, least=shard["images"])), None)
        return f"{whole.name} has all its features" if whole else ""
    if store_exists(file.root):
        return ""
    for other in files_in(file.path.parent):
        if other.suffix == ".h5" and other != file.path and _has_all(other, file, thorough, with_data_set=True):
            return f"its data set is gone, and {other.name} has all its features"
    return ""


def _has_all(path: Path, file: FeatureFile, thorough: bool, *, with_data_set: bool = False, least: int = 0) -> bool:
    """Whether a file has the features of all images of another.

    Args:
        path: the file.
        file: the other file.
        thorough: read the features, and require that they match their checksums.
        with_data_set: also require that the file's own data set still exists.
        least: the least number of images that it must have.
    """
    try:
        whole = open_features(path)
        if len(whole) < least or not whole.holds(file.identities) or (with_data_set and not store_exists(whole.root)):
            return False
        rows = np.flatnonzero(whole.status == DONE)
        if thorough:
            rows = rows[whole.checksums_match_in_all(list(file.layers), rows)]
    except (CacheMissError, CorruptFileError, UnreadableFileError):
        return False
    return are_among(file.keys[file.status == DONE], whole.keys[rows])


def _on_disk(path: Path) -> int:
    """The bytes that a file takes on the disk; of a set, those of its manifest and the files that it lists."""
    if path.suffix == SETS:
        return sum(_on_disk(path / name) for name in (MANIFEST, *(file.name for file in _manifest_files(path))))
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
