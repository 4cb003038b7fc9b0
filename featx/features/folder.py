"""The folder of feature files: their names, which of them share features, and which of them nothing needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.constants import FROZEN, UNTRAINED
from featx.errors import CacheMissError, CorruptFileError, OutputError
from featx.features.feature_file import DONE, FeatureFile
from featx.features.hdf5 import TEXT_CRC
from featx.features.header import FORMAT, FeatureFileHeader, partial_path
from featx.features.lock import folder_error, write_lock
from featx.io.outputs import Output, OutputKind, require_replaceable, require_separate
from featx.reporter import SILENT, Reporter, note_choice

_ENDINGS = (".h5", ".h5.partial", ".h5.new")


@dataclass(frozen=True)
class FolderEntry:
    """One file of a folder of feature files.

    Attributes:
        path: the path of the file.
        state: "complete", "partial" (left by an interrupted run), "leftover" (left by a run that was killed before it
            computed anything), "damaged", or "foreign" (not a feature file).
        bytes: the space that it takes on the disk.
        modified: when it was last written or used, in seconds since 1970.
        dataset: the name of the data set; "" if the file cannot be read.
        root: the folder of the data set.
        backbone: the name of the backbone.
        images: the number of rows.
        done: the number of rows that have features.
        removable: why nothing needs the file; "" if something may.
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
        The path, and a note for the user if a damaged file has the plain name; otherwise "".
    """
    note = ""
    plain = folder / f"{dataset}--{_file_stem(backbone)}.h5"
    tag = hashlib.sha256(json.dumps([root, sorted(identities.items())]).encode()).hexdigest()[:8]
    candidates = [plain, plain.with_name(f"{plain.stem}--{tag}.h5")]
    for path in candidates:
        for form in (path, partial_path(path)):
            try:
                header = FeatureFileHeader(form)
            except CacheMissError:
                continue
            except CorruptFileError as error:
                note = f"{error}. The file is left as it is; featx cache rm removes it"
                continue
            if header.holds(identities) and header.dataset["root"] == root:
                return path, ""
    taken = os.path.lexists(plain) or os.path.lexists(partial_path(plain))
    return (candidates[1], note) if taken else (plain, "")


def files_sharing(
    folder: Path, identities: Iterable[Mapping[str, str]], *, without: Sequence[Path] = ()
) -> list[FeatureFile]:
    """The feature files of a folder, complete or not, that share features with an extraction; the newest first.

    Args:
        folder: the folder of feature files.
        identities: groups of identities by layer; a file is returned if it holds all of any one group.
        without: files to leave out.
    """
    files, groups = [], list(identities)
    for path in sorted(_files(folder), key=_modified, reverse=True):
        if path in without or path.name.endswith(".new"):
            continue
        with contextlib.suppress(CacheMissError, CorruptFileError):
            if any(map(FeatureFileHeader(path).holds, groups)):
                files.append(FeatureFile(path, allow_partial=True))
    return files


def newest(folder: Path, reporter: Reporter = SILENT) -> Path:
    """The feature file of a folder that was written or used last.

    Args:
        folder: the folder of feature files.
        reporter: gets a note with the file's name and those of the others, if there are others.

    Raises:
        CacheMissError: the folder has no feature file.
    """
    files = sorted((path for path in _files(folder) if path.suffix == ".h5"), key=_modified, reverse=True)
    if not files:
        raise CacheMissError(f"there is no feature file in {folder}; run featx extract first, or name a file")
    note_choice(files, "feature file", reporter)
    return files[0]


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
        if not (folder.is_dir() and _files(folder)):
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
    """
    if not folder.is_dir():
        raise CacheMissError(f"there is no folder {folder}; featx extract makes one")
    files = [path for place in (folder, folder / FROZEN, folder / UNTRAINED) for path in _files(place)]
    return [_entry(path) for path in sorted(files, key=_modified, reverse=True)]


def describe_files(paths: Iterable[Path]) -> list[FolderEntry]:
    """Describe named files.

    Raises:
        CacheMissError: one of the files does not exist.
        CorruptFileError: one of them is not a feature file.
    """
    entries = []
    for path in paths:
        if not path.name.endswith(_ENDINGS):
            raise CorruptFileError(f"{path} is not a feature file; those end in {', '.join(_ENDINGS)}")
        if not path.is_file():
            raise CacheMissError(f"there is no feature file {path}")
        entry = _entry(path)
        if entry.state == "foreign":
            raise CorruptFileError(f"{path} is not a feature file of featx; remove it by hand if you do not want it")
        entries.append(entry)
    return entries


def remove(path: Path) -> int:
    """Remove a feature file, unless a process is writing it.

    Returns:
        The number of bytes that were freed.

    Raises:
        CacheLockedError: a process is writing the file.
        OutputError: the file cannot be removed.
    """
    with write_lock(_final(path)):
        try:
            size = _on_disk(path)
            path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}") from error
    return size


def _entry(path: Path) -> FolderEntry:
    """Describe one file, and whether anything needs it."""
    size, modified = _on_disk(path), _modified(path)
    if path.name.endswith(".new") and (_is_ours(path) or not any(_beginning(path))):
        return FolderEntry(path, "leftover", size, modified, removable="a run was killed before it began to compute")
    try:
        file = FeatureFile(path, allow_partial=True)
    except (CacheMissError, CorruptFileError) as error:
        ours = _is_ours(path)
        return FolderEntry(path, "damaged" if ours else "foreign", size, modified, removable=str(error) if ours else "")
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
        removable=_superseded(file),
    )


def _is_ours(path: Path) -> bool:
    """Whether featx wrote a file, even if it is damaged: the names of its attributes stand at its beginning."""
    beginning = _beginning(path)
    return FORMAT.encode() in beginning or TEXT_CRC.encode() in beginning


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def _superseded(file: FeatureFile) -> str:
    """Why a file is no longer needed: another one has all its features, and no extraction will use this one; "" otherwise."""
    final = _final(file.path)
    if final != file.path:  # an unfinished file is only of use for its finished file
        return f"{final.name} has all its features" if _has_all(final, file) else ""
    if Path(file.dataset["root"]).is_dir():
        return ""
    for other in _files(file.path.parent):
        if other.suffix == ".h5" and other != file.path and _has_all(other, file, with_data_set=True):
            return f"its data set is gone, and {other.name} has all its features"
    return ""


def _has_all(path: Path, file: FeatureFile, *, with_data_set: bool = False) -> bool:
    """Whether a file has the features of all images of another.

    Args:
        path: the file.
        file: the other file.
        with_data_set: also require that the file's own data set still exists.
    """
    try:
        whole = FeatureFile(path)
    except (CacheMissError, CorruptFileError):
        return False
    if not whole.holds(file.identities) or (with_data_set and not Path(whole.dataset["root"]).is_dir()):
        return False
    done = set(map(bytes, whole.keys[whole.status == DONE]))
    return all(bytes(key) in done for key in file.keys[file.status == DONE])


def _final(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".new").removesuffix(".partial"))


def _files(folder: Path) -> list[Path]:
    """The feature files in a folder, judged by their names only."""
    return [path for path in folder.glob("*.h5*") if path.name.endswith(_ENDINGS) and path.is_file()]


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
