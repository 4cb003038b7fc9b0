"""The folder of feature files: which file is whose, who may write one, which share features, what nothing needs."""

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
from featx.features.feature_file import DONE, FORMAT, FeatureFile, Header, partial_of
from featx.features.hdf5 import TEXT_CRC
from featx.features.lock import folder_error, write_lock

_ENDINGS = (".h5", ".h5.partial", ".h5.new")


@dataclass(frozen=True)
class Entry:
    """One file of the folder.

    Attributes:
        path: the file.
        state: "complete", "partial" (an interrupted run left it), "leftover" (of a run that never got as far as that),
            "damaged", or "foreign" (no feature file).
        bytes: what it takes on the disk.
        modified: when it was last written, or asked for; seconds since 1970.
        dataset: its name; "" where the file cannot be read.
        root: the data set's folder.
        backbone: its name.
        images: rows in it.
        done: rows that have features.
        removable: why nothing needs it; "" where something may.
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
        """As ``featx cache --json`` prints it."""
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


def feature_file(
    folder: Path, *, dataset: str, root: str, backbone: str, identities: Mapping[str, str]
) -> tuple[Path, str]:
    """The file that holds, or is to hold, these features of this data set; and a note if a damaged file has its name.

    ``<dataset>--<backbone>.h5``, or the same with a short hash where that name is taken by other features, another data set
    of the same name, or a file that cannot be read.
    """
    note = ""
    plain = folder / f"{dataset}--{_file_stem(backbone)}.h5"
    tag = hashlib.sha256(json.dumps([root, sorted(identities.items())]).encode()).hexdigest()[:8]
    candidates = [plain, plain.with_name(f"{plain.stem}--{tag}.h5")]
    for path in candidates:
        for form in (path, partial_of(path)):
            try:
                header = Header(form)
            except CacheMissError:
                continue
            except CorruptFileError as error:
                note = f"{error}. It is left as it is; featx cache rm removes it"
                continue
            if header.holds(identities) and header.dataset["root"] == root:
                return path, ""
    taken = os.path.lexists(plain) or os.path.lexists(partial_of(plain))
    return (candidates[1], note) if taken else (plain, "")


def sharing(
    folder: Path, identities: Iterable[Mapping[str, str]], *, without: Sequence[Path] = ()
) -> list[FeatureFile]:
    """The feature files of a folder, finished or not, that hold features of any of these identities; the newest first.

    Args:
        folder: where to look.
        identities: of layers that are wanted together.
        without: files that are known already.
    """
    found, wanted = [], list(identities)
    for path in sorted(_files(folder), key=_modified, reverse=True):
        if path in without or path.name.endswith(".new"):
            continue
        with contextlib.suppress(CacheMissError, CorruptFileError):
            if any(map(Header(path).holds, wanted)):
                found.append(FeatureFile(path, allow_partial=True))
    return found


def newest(folder: Path) -> Path:
    """The feature file in a folder that was written last, or asked for last.

    Raises:
        CacheMissError: there is none.
    """
    files = [path for path in _files(folder) if path.suffix == ".h5"]
    if not files:
        raise CacheMissError(f"there is no feature file in {folder}; run featx extract first, or name a file")
    return max(files, key=_modified)


def require_place(folder: Path, file: Path | None = None) -> None:
    """See early, before anything slow, that a feature file can be made.

    A folder that cannot be written passes if there are feature files in it: what is unchanged is only confirmed.

    Args:
        folder: where to; it is made if need be.
        file: its name, where one was given.

    Raises:
        OutputError: it cannot.
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


def list_folder(folder: Path) -> list[Entry]:
    """Every feature file of a folder, and of what frozen parts and untrained networks gave, the newest first.

    Raises:
        CacheMissError: no such folder.
    """
    if not folder.is_dir():
        raise CacheMissError(f"there is no folder {folder}; featx extract makes one")
    files = [path for place in (folder, folder / FROZEN, folder / UNTRAINED) for path in _files(place)]
    return [_entry(path) for path in sorted(files, key=_modified, reverse=True)]


def describe_files(paths: Iterable[Path]) -> list[Entry]:
    """What named files are.

    Raises:
        CacheMissError: one of them is not there.
        CorruptFileError: one of them is no feature file.
    """
    entries = []
    for path in paths:
        if not path.name.endswith(_ENDINGS):
            raise CorruptFileError(f"{path} is no feature file; those end in {', '.join(_ENDINGS)}")
        if not path.is_file():
            raise CacheMissError(f"there is no feature file {path}")
        entry = _entry(path)
        if entry.state == "foreign":
            raise CorruptFileError(f"{path} is not a feature file of featx; remove it by hand if you do not want it")
        entries.append(entry)
    return entries


def remove(path: Path) -> int:
    """Remove a feature file that nobody is writing.

    Returns:
        The bytes that are free again.

    Raises:
        CacheLockedError: a process is writing it.
        OutputError: it cannot be removed.
    """
    with write_lock(_final(path)):
        try:
            size = _on_disk(path)
            path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}") from error
    return size


def _entry(path: Path) -> Entry:
    """What one file is, and whether anything needs it."""
    size, modified = _on_disk(path), _modified(path)
    if path.name.endswith(".new") and (_is_ours(path) or not any(_beginning(path))):
        return Entry(path, "leftover", size, modified, removable="a run was killed before it began to compute")
    try:
        cache = FeatureFile(path, allow_partial=True)
    except (CacheMissError, CorruptFileError) as error:
        ours = _is_ours(path)
        return Entry(path, "damaged" if ours else "foreign", size, modified, removable=str(error) if ours else "")
    return Entry(
        path,
        "complete" if cache.complete else "partial",
        size,
        modified,
        dataset=cache.dataset["name"],
        root=cache.dataset["root"],
        backbone=cache.backbone["name"],
        images=len(cache),
        done=int((cache.status == DONE).sum()),
        removable=_superseded(cache),
    )


def _is_ours(path: Path) -> bool:
    """Whether a file was written by featx, whatever has become of it: the names of its attributes are at its beginning."""
    beginning = _beginning(path)
    return FORMAT.encode() in beginning or TEXT_CRC.encode() in beginning


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def _superseded(cache: FeatureFile) -> str:
    """Why a file is of no more use: another has all its features, and nobody will ask for this one again."""
    final = _final(cache.path)
    if final != cache.path:  # what is unfinished is of use to its finished file alone
        return f"{final.name} has all that it has" if _has_all(final, cache) else ""
    if Path(cache.dataset["root"]).is_dir():
        return ""
    for other in _files(cache.path.parent):
        if other.suffix == ".h5" and other != cache.path and _has_all(other, cache, of_what_is_there=True):
            return f"its data set is gone, and {other.name} has all its features"
    return ""


def _has_all(path: Path, cache: FeatureFile, *, of_what_is_there: bool = False) -> bool:
    """Whether a file has the features of all images of another; if asked, a file whose own data set is still there."""
    try:
        whole = FeatureFile(path)
    except (CacheMissError, CorruptFileError):
        return False
    if not whole.holds(cache.identities) or (of_what_is_there and not Path(whole.dataset["root"]).is_dir()):
        return False
    done = set(map(bytes, whole.keys[whole.status == DONE]))
    return all(bytes(key) in done for key in cache.keys[cache.status == DONE])


def _final(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".new").removesuffix(".partial"))


def _files(folder: Path) -> list[Path]:
    """Feature files in a folder, by their names alone."""
    return [path for path in folder.glob("*.h5*") if path.name.endswith(_ENDINGS) and path.is_file()]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just been renamed
        return 0.0


def _on_disk(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _file_stem(name: str) -> str:
    """A backbone's name in a file name: ``timm/vit_tiny`` as ``timm-vit_tiny``, ``nets/own.py:make`` as ``own-make``."""
    if ".py:" in name:
        file, _, factory = name.rpartition(":")
        name = f"{Path(file).stem}-{factory}"
    return name.replace("/", "-")
