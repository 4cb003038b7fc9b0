"""The folder of feature files: their names, which of them share features, and which of them nothing needs."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import FROZEN, UNTRAINED
from featx.data.image_set import ImageSet
from featx.data.openers import store_exists
from featx.errors import CacheMissError, CorruptFileError, OutputError, UnknownVersionError, UnreadableFileError
from featx.features import hdf5
from featx.features.feature_file import DONE, FeatureFile
from featx.features.header import FORMAT, VERSIONS, FeatureFileHeader, partial_path
from featx.features.lock import folder_error, write_lock
from featx.features.open_file import is_denied, read_errors
from featx.io.file_kinds import FOLDER, misplaced
from featx.io.outputs import Output, OutputKind, require_replaceable, require_separate
from featx.reporter import SILENT, Reporter, note_choice
from featx.system import exists
from featx.text import native, portable

_ENDINGS = (".h5", ".h5.partial", ".h5.new")


@dataclass(frozen=True)
class FolderEntry:
    """One file of a folder of feature files.

    Attributes:
        path: the path of the file.
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


def feature_file_path(
    folder: Path, *, dataset: str, root: str, backbone: str, identities: Mapping[str, str]
) -> tuple[Path, str]:
    """The path of the file that holds, or will hold, features of a data set.

    It is ``<dataset>--<backbone>.h5``, or the same with a short hash if that name is taken by other features, by another data
    set of the same name, or by a file that cannot be read.

    Args:
        folder: the folder of feature files.
        dataset: the name of the data set.
        root: its folder.
        backbone: the name of the backbone.
        identities: the identity of each layer by its name.

    Returns:
        The path, and a note for the user if a file with the plain name cannot be used; otherwise "".

    Raises:
        UnreadableFileError: a file of such a name cannot be read now, other than for want of permission.
    """
    note = ""
    plain = folder / native(f"{dataset}--{portable(_file_stem(backbone))}.h5")
    candidates = [plain, folder / tagged_name(dataset, root, backbone, identities)]
    for path in candidates:
        for form in (path, partial_path(path)):
            try:
                header = FeatureFileHeader(form)
            except CacheMissError:
                continue
            except UnreadableFileError as error:
                if not is_denied(error):  # it may hold just these features, so nothing is done until it can be read
                    raise
                note = f"{error}. The file is left as it is"
                continue
            except UnknownVersionError as error:
                note = f"{error}. The file is left as it is"
                continue
            except CorruptFileError as error:
                note = f"{error}. The file is left as it is; featx cache rm removes it"
                continue
            if header.holds(identities) and header.dataset["root"] == root:
                return path, ""
    taken = os.path.lexists(plain) or os.path.lexists(partial_path(plain))
    return (candidates[1], note) if taken else (plain, "")


def tagged_name(dataset: str, root: str, backbone: str, identities: Mapping[str, str]) -> str:
    """The name of a feature file that no other data set and no other features have; the arguments are as above."""
    tag = hashlib.sha256(json.dumps([root, sorted(identities.items())]).encode()).hexdigest()[:8]
    return native(f"{dataset}--{portable(_file_stem(backbone))}--{tag}.h5")


def files_sharing(
    folder: Path,
    identities: Iterable[Mapping[str, str]],
    *,
    without: Sequence[Path] = (),
    note: Callable[[str], object] = str,
) -> list[FeatureFile]:
    """The feature files of a folder, complete or not, that share features with an extraction; the newest first.

    They are released, so that their number is not limited by that of open files.

    Args:
        folder: the folder of feature files.
        identities: groups of identities by layer; a file is returned if it holds all of any one group.
        without: files to leave out.
        note: called with a sentence for each file that cannot be read.
    """
    files, groups = [], list(identities)
    for path in sorted(_files(folder), key=_modified, reverse=True):
        if path in without or path.name.endswith(".new"):
            continue
        try:
            if any(map(FeatureFileHeader(path).holds, groups)):
                file = FeatureFile(path, allow_partial=True)
                file.release()
                files.append(file)
        except UnreadableFileError as error:
            note(f"{error}. Its features are not reused")
        except (CacheMissError, CorruptFileError):
            continue
    return files


def knows_of(folder: Path, root: str, identities: Mapping[str, str]) -> bool:
    """Whether a file of a folder, complete or not, is of a data set, or has features of an extraction of any.

    Args:
        folder: the folder of feature files.
        root: of the data set, as the feature file stores it.
        identities: the identity of each layer by its name.
    """
    wanted = set(identities.values())
    for path in _files(folder):
        try:
            header = FeatureFileHeader(path)
        except (CacheMissError, CorruptFileError, UnreadableFileError):
            continue
        if header.dataset["root"] == root or wanted & {layer.identity for layer in header.layers.values()}:
            return True
    return False


def newest(folder: Path, reporter: Reporter = SILENT) -> Path:
    """The feature file of a folder that was written or used last.

    Args:
        folder: the folder of feature files.
        reporter: gets a note with the file's name and those of the others, if there are others.

    Raises:
        CacheMissError: the folder has no feature file.
    """
    if wrong := misplaced(folder, "a folder of feature files", fits=[FOLDER]):
        raise CacheMissError(wrong)
    files = sorted((path for path in _files(folder) if path.suffix == ".h5"), key=_modified, reverse=True)
    if not files:
        raise CacheMissError(f"there is no feature file in {folder}; run featx extract first, or name a file")
    note_choice(files, "feature files", reporter)
    return files[0]


def newest_of(folder: Path, images: ImageSet, reporter: Reporter = SILENT) -> Path | None:
    """The feature file of a data set that was written or used last, whatever its backbone; None if the folder has none.

    Args:
        folder: the folder of feature files.
        images: the data set; its root and its table decide.
        reporter: gets a note with the file's name and those of the others, if there are others.
    """
    table = portable(str(images.table)) if images.table else None
    files = []
    for path in sorted((path for path in _files(folder) if path.suffix == ".h5"), key=_modified, reverse=True):
        with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
            header = FeatureFileHeader(path)
            if header.root == images.root and header.dataset.get("table") == table:
                files.append(path)
    note_choice(files, "feature files of this data set", reporter)
    return files[0] if files else None


def require_writable(folder: Path, file: Path | None = None) -> None:
    """Check, before anything slow, that a feature file can be written.

    A folder without write permission passes if it contains feature files, because an unchanged file is only read.

    Args:
        folder: the folder of feature files; it is created if it does not exist.
        file: the path of the feature file if one was named; its folder is checked instead.

    Raises:
        OutputError: the folder cannot be written.
    """
    if file and file.is_dir():
        raise OutputError(f"{file} is a folder; name a file to write with -o")
    folder = file.parent if file else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        with contextlib.suppress(OSError):
            if _files(folder):
                return
        raise folder_error(folder, error) from error


def require_named(file: Path, *inputs: str | os.PathLike[str] | None) -> None:
    """Check, before anything slow, that a named file may become a feature file: it is none yet, or a feature file of featx.

    Args:
        file: the path that was named.
        inputs: the table, the weights and the code that the extraction reads; None and what is no file are ignored.

    Raises:
        OutputError: the file is an input, has the ending of another format, or holds something else.
    """
    kind = OutputKind("feature file", ".h5", _is_ours)
    require_separate([Output(file, kind, named=True)], [path for path in inputs if path])
    require_replaceable(file, kind)


def list_folder(folder: Path) -> list[FolderEntry]:
    """List the feature files of a folder and of its subfolders for frozen parts and untrained networks, the newest first.

    Raises:
        CacheMissError: there is no such folder.
        UnreadableFileError: it cannot be listed.
    """
    if not exists(folder):
        raise CacheMissError(f"there is no folder {folder}; featx extract makes one")
    files = [path for place in (folder, folder / FROZEN, folder / UNTRAINED) for path in _files(place)]
    return [_entry(path) for path in sorted(files, key=_modified, reverse=True)]


def describe_files(paths: Iterable[Path]) -> list[FolderEntry]:
    """Describe named files.

    Raises:
        CacheMissError: one of the files does not exist.
        UnreadableFileError: one of them cannot be read, so that it is not known what it holds.
        CorruptFileError: one of them is not a feature file, or has a version that this featx does not know.
    """
    entries = []
    for path in paths:
        if not path.name.endswith(_ENDINGS):
            endings = f"a feature file, which ends in {', '.join(_ENDINGS)}"
            raise CorruptFileError(misplaced(path, endings) or f"{path} is not {endings}")
        if _is_something_else(path):
            raise CacheMissError(f"there is no feature file {path}")
        entry = _entry(path)
        if entry.state == "foreign":
            raise CorruptFileError(f"{path} is not a feature file of featx; remove it by hand if you do not want it")
        if entry.state == "unreadable":
            raise UnreadableFileError(f"{entry.fault}. It may be intact, so it is not removed")
        if entry.state == "unknown":
            raise UnknownVersionError(f"{entry.fault}. It may be intact, so it is not removed")
        entries.append(entry)
    return entries


def remove(entry: FolderEntry) -> int | None:
    """Remove a feature file, unless a process is writing it or it is no longer as it was described.

    Args:
        entry: the description on which the removal was decided.

    Returns:
        The number of bytes that were freed; None if the file has changed since it was described, and was kept.

    Raises:
        CacheLockedError: a process is writing the file.
        OutputError: the file cannot be removed.
    """
    path = entry.path
    with write_lock(_final(path)):
        now = _entry(path, thorough=True) if os.path.lexists(path) else None
        if now and (now.state, now.modified, bool(now.removable)) != (
            entry.state,
            entry.modified,
            bool(entry.removable),
        ):
            return None
        try:
            size = _on_disk(path)
            path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}") from error
    return size


def set_aside(path: Path, word: str) -> Path:
    """Rename an unfinished file that no run can continue, without replacing anything, and return its new path.

    Args:
        path: the file, ``<name>.h5.partial``.
        word: what the new name, ``<name>--<word>.h5.partial``, tells.

    Raises:
        OutputError: it cannot be renamed.
    """
    final = _final(path)
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    places = (partial_path(final.with_name(f"{final.stem}--{word}{number}{final.suffix}")) for number in numbers)
    aside = next(place for place in places if not os.path.lexists(place))
    try:
        path.rename(aside)
    except OSError as error:
        raise OutputError(f"cannot rename {path} to {aside.name}: {error.strerror}") from error
    return aside


def _entry(path: Path, *, thorough: bool = False) -> FolderEntry:
    """Describe one file, and whether anything needs it.

    Args:
        path: the file.
        thorough: call a file superseded only if the features that another one has instead match their checksums.
    """
    size, modified = _on_disk(path), _modified(path)
    try:
        if path.name.endswith(".new") and (_is_ours(path) or not any(_beginning(path))):
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


def _unusable(path: Path, size: int, modified: float, error: Exception) -> FolderEntry:
    """Describe a file that is no feature file of this version: damaged, of a later version, or something else."""
    try:
        if not _is_ours(path):
            return FolderEntry(path, "foreign", size, modified, fault=str(error))
        if not _is_of_this_version(path):
            return FolderEntry(path, "unknown", size, modified, fault=f"{error}; it may be of a later version of featx")
    except UnreadableFileError as problem:
        return FolderEntry(path, "unreadable", size, modified, fault=str(problem))
    return FolderEntry(path, "damaged", size, modified, removable=str(error), fault=str(error))


def _is_ours(path: Path) -> bool:
    """Whether featx wrote a file, even if it is damaged: the names of its attributes stand at its beginning."""
    beginning = _beginning(path)
    return FORMAT.encode() in beginning or hdf5.TEXT_CRC.encode() in beginning


def _is_of_this_version(path: Path) -> bool:
    """Whether the version stands at the beginning of a file, even if it is damaged, as this featx writes it."""
    beginning = _beginning(path)
    return FORMAT.encode() not in beginning or any(
        hdf5.packed_attribute("version", version) in beginning for version in VERSIONS
    )


def _beginning(path: Path) -> bytes:
    with read_errors(path), contextlib.suppress(FileNotFoundError, IsADirectoryError), path.open("rb") as file:
        return file.read(1 << 16)
    return b""


def _superseded(file: FeatureFile, thorough: bool) -> str:
    """Why a file is no longer needed: another one has all its features, and no extraction will use this one; "" otherwise."""
    final = _final(file.path)
    if final != file.path:  # an unfinished file is only of use for its finished file
        return f"{final.name} has all its features" if _has_all(final, file, thorough) else ""
    if store_exists(file.root):
        return ""
    for other in _files(file.path.parent):
        if other.suffix == ".h5" and other != file.path and _has_all(other, file, thorough, with_data_set=True):
            return f"its data set is gone, and {other.name} has all its features"
    return ""


def _has_all(path: Path, file: FeatureFile, thorough: bool, *, with_data_set: bool = False) -> bool:
    """Whether a file has the features of all images of another.

    Args:
        path: the file.
        file: the other file.
        thorough: read the features, and require that they match their checksums.
        with_data_set: also require that the file's own data set still exists.
    """
    try:
        whole = FeatureFile(path)
        if not whole.holds(file.identities) or (with_data_set and not store_exists(whole.root)):
            return False
        rows = np.flatnonzero(whole.status == DONE)
        if thorough:
            rows = rows[whole.checksums_match_in_all(list(file.layers), rows)]
    except (CacheMissError, CorruptFileError, UnreadableFileError):
        return False
    done = set(map(bytes, whole.keys[rows]))
    return all(bytes(key) in done for key in file.keys[file.status == DONE])


def _final(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".new").removesuffix(".partial"))


def _files(folder: Path) -> list[Path]:
    """The feature files in a folder, judged by their names only.

    Raises:
        UnreadableFileError: the folder cannot be listed.
    """
    try:
        with read_errors(folder):
            names = sorted(name for name in os.listdir(folder) if name.endswith(_ENDINGS))  # noqa: PTH208
    except UnreadableFileError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return []
        raise
    return [path for path in map(folder.joinpath, names) if not _is_something_else(path)]


def _is_something_else(path: Path) -> bool:
    """Whether a path is known to be no regular file; one that the system cannot tell about may be one."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # the file has just been renamed
        return 0.0


def _on_disk(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _file_stem(name: str) -> str:
    """A backbone's name within a file name: ``timm-vit_tiny`` for ``timm/vit_tiny``, ``own-make`` for ``nets/own.py:make``."""
    if ".py:" in name:
        file, _, factory = name.rpartition(":")
        name = f"{Path(file).stem}-{factory}"
    return name.replace("/", "-")
