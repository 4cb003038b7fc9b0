"""Finished feature files on a server, so that no other machine waits for the same forward pass.

A run writes its file into a folder of this machine, ``remote`` in featx's own folder, as any other. What is finished is copied
to the server, whole; unfinished files never are. A run begins by fetching the files of its data set and backbone that it does
not have. The names tell data sets and features apart, so two machines write the same name only for the same features of the
same images; the later copy stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featx.data.image_set import ImageSet
from featx.data.places import is_remote
from featx.data.remote import Facts, RemoteFile
from featx.data.transfers import fetch, has_bucket, names_in, newest_in, put, takes_files
from featx.data.urls import folder_location, public
from featx.errors import (
    CacheMissError,
    CorruptFileError,
    FeatxError,
    OutputError,
    UnknownVersionError,
    UnreadableFileError,
)
from featx.features.feature_file import DONE, FeatureFile
from featx.features.folder import newest, newest_of, tagged_name
from featx.features.header import FeatureFileHeader
from featx.io.atomic import keep
from featx.reporter import SILENT, Reporter
from featx.system import home
from featx.text import brief, counted, form, native

_FOLDER = "remote"
_SYNCED = ".json"
_TAG = 8 + len("--")


class RemoteFolder:
    """A folder of feature files on a server, and the folder of this machine that holds those in use.

    Args:
        location: its URL.

    Attributes:
        location: the URL, without what grants access.
        folder: the folder of this machine.
        notes: sentences for the user.

    Raises:
        OutputError: the server takes no files, or there is no place for the folder of this machine.
    """

    def __init__(self, location: str) -> None:
        self.location = folder_location(location)
        if not takes_files(self.location):
            raise OutputError(
                f"{self.location} is on a web server, which takes no files; expected s3://, gs://, az:// or a folder. The "
                "URL of a feature file there can be named where a feature file can"
            )
        name = hashlib.sha256(self.location.encode()).hexdigest()[:16]
        self.folder = home() / _FOLDER / name
        self.notes: list[str] = []
        self._later: set[str] = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {self.folder}: {error.strerror}") from error

    def fetch_alike(
        self, dataset: str, root: str, backbone: str, identities: Mapping[str, str], reporter: Reporter = SILENT
    ) -> Path:
        """Fetch the files of a data set of this name through a backbone of this name, as far as they are not here.

        Returns:
            The path of the file to write.

        Raises:
            OutputError: the server cannot be asked.
            RemoteError: it does not answer.
        """
        target = self.folder / tagged_name(dataset, root, backbone, identities)
        beginning = target.name[: -_TAG - len(".h5")]
        there = self.require_there()
        if target.name not in there:
            self._record_path(target.name).unlink(missing_ok=True)
        for name, facts in sorted(there.items()):
            if (
                name.startswith(beginning)
                and name.endswith(".h5")
                and len(name) in (len(target.name), len(beginning) + 3)
            ):
                self._fetch_if_changed(name, facts, reporter)
        return target

    def require_there(self) -> dict[str, Facts]:
        """Ask the server, before long work, for the files of the folder; a folder that will be made has none.

        Raises:
            OutputError: there is no such bucket, or it cannot be asked.
            RemoteError: the server does not answer.
        """
        there = self._names()
        if not there and not has_bucket(self.location):
            raise OutputError(
                f"there is no bucket for {self.location}; --cache names a folder in a bucket that is there"
            )
        return there

    def fetch_of(self, dataset: str, reporter: Reporter = SILENT) -> None:
        """Fetch the files of data sets of this name, whatever their backbone, as far as they are not here.

        Raises:
            OutputError, RemoteError: as ``fetch_alike``.
        """
        for name, facts in sorted(self._names().items()):
            if name.startswith(f"{native(dataset)}--") and name.endswith(".h5"):
                self._fetch_if_changed(name, facts, reporter)

    def fetch_newest(self, reporter: Reporter = SILENT) -> Path:
        """Fetch the file that was written last, if it is not here.

        Raises:
            CacheMissError: there is none.
            OutputError, RemoteError: as ``fetch_alike``.
        """
        try:
            name = newest_in(self.location, ".h5")
        except OSError as error:
            raise self._unlisted(error) from error
        if not name:
            raise CacheMissError(
                f"there is no feature file in {self.location}; featx extract --cache {self.location} makes one"
            )
        self._fetch_if_changed(name, self._names()[name], reporter)
        if not (self.folder / name).exists():
            raise CorruptFileError(self.notes[-1])
        return self.folder / name

    def copy_back(self, path: Path, reporter: Reporter = SILENT) -> None:
        """Copy a finished file of the folder to the server, unless the same is there. A failure is a note."""
        digest = FeatureFileHeader(path).digest
        if self._synced(path.name)[1] == digest:
            return
        if path.name in self._later:
            return
        target = f"{self.location}/{path.name}"
        reporter.stage(f"copying {path.name} to {self.location}")
        try:
            facts = put(path, target)
        except (OSError, FeatxError) as error:
            why = getattr(error, "strerror", None) or brief(error)
            self.notes.append(
                f"Warning: the features could not be copied to {target}: {why}. They are in {path}, and the same command "
                "tries again"
            )
            return
        self._record(path.name, facts, digest)
        self.notes.append(f"the features were copied to {target}")

    def _names(self) -> dict[str, Facts]:
        try:
            return names_in(self.location)
        except OSError as error:
            raise self._unlisted(error) from error

    def _unlisted(self, error: OSError) -> OSError:
        if isinstance(error, FeatxError):
            return error
        return OutputError(f"cannot list {self.location}: {error.strerror or brief(error)}")

    def _fetch_if_changed(self, name: str, facts: Facts, reporter: Reporter) -> None:
        """Fetch one file, unless it is here. One that was finished here and has not been copied yet is not replaced."""
        path = self.folder / name
        before, digest = self._synced(name)
        own = _digest(path)
        if own and tuple(before) == facts and facts[2] == 0:
            return
        if own and own != digest:  # the copy is kept beside it, so that its features are found
            path = path.with_name(f"{path.stem}--other.h5")
        reporter.stage(f"fetching {name} from {self.location}")
        location = f"{self.location}/{name}"
        try:
            facts = fetch(location, path, lambda done, total: reporter.progress(done, total, "bytes"))
            file = FeatureFile(path)
        except UnknownVersionError as error:
            path.unlink(missing_ok=True)
            self._later.add(name)
            self.notes.append(
                f"{location} is of a later version of featx, so it is neither used nor replaced: {brief(error)}"
            )
        except (CorruptFileError, UnreadableFileError) as error:
            path.unlink(missing_ok=True)
            self.notes.append(f"{location} is no sound feature file, so it is not used: {brief(error)}")
        except FeatxError:
            raise
        except OSError as error:
            self.notes.append(f"{location} could not be fetched: {error.strerror or brief(error)}")
        else:
            if self._is_sound(file, location) and path.name == name:
                self._record(name, facts, file.digest)

    def _is_sound(self, file: FeatureFile, location: str) -> bool:
        """Whether the rows of a file that was fetched match their checksums, for its digest does not cover the features.

        If not, the file gets another name, so that its sound rows are used and the others computed again.
        """
        done = np.flatnonzero(file.status == DONE)
        wrong = int(np.count_nonzero(~file.checksums_match_in_all(list(file.layers), done)))
        if wrong:
            file.path.rename(file.path.with_name(f"{file.path.stem}--other.h5"))
            self.notes.append(
                f"{location}: {wrong:,} of {counted(len(done), 'row')} {form(wrong, 'is', 'are')} damaged and not used"
            )
        return not wrong

    def _synced(self, name: str) -> tuple[Facts, str]:
        """What is known of the server's copy of a file: its facts, and the digest that it has."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stored = json.loads(self._record_path(name).read_text(encoding="utf-8"))
            size, version, ctime, inode = map(int, stored["facts"])
            return (size, version, ctime, inode), str(stored["digest"])
        return (-1, -1, -1, -1), ""

    def _record(self, name: str, facts: Facts, digest: str) -> None:
        text = json.dumps({"facts": list(facts), "digest": digest, "location": f"{self.location}/{name}"})
        keep(str(self._record_path(name).relative_to(home())), text.encode())

    def _record_path(self, name: str) -> Path:
        return self.folder / f".{name}{_SYNCED}"


def _digest(path: Path) -> str:
    """The digest of a finished file; "" if there is none."""
    with contextlib.suppress(FeatxError):
        header = FeatureFileHeader(path)
        return header.digest if header.complete else ""
    return ""


def folder_here(cache: str | os.PathLike[str]) -> Path:
    """The folder of this machine that stands for a folder of feature files: itself, or that of the copies of a URL."""
    return RemoteFolder(os.fspath(cache)).folder if is_remote(cache) else Path(cache)


def newest_file(cache: str | os.PathLike[str], reporter: Reporter = SILENT) -> Path:
    """The feature file of a folder that was written or used last; that of a URL is fetched if it is not here.

    Args:
        cache: the folder, or its URL.
        reporter: gets a note with the file's name.

    Raises:
        CacheMissError: the folder has no feature file.
        OutputError, RemoteError: the server cannot be asked.
    """
    if not is_remote(cache):
        return newest(Path(cache), reporter)
    folder = RemoteFolder(os.fspath(cache))
    path = folder.fetch_newest(reporter)
    reporter.note(f"taking {path.name}, the newest file of {folder.location}")
    return path


def newest_file_of(cache: str | os.PathLike[str], images: ImageSet, reporter: Reporter = SILENT) -> Path | None:
    """The feature file of a data set that was written or used last, whatever its backbone; None if the folder has none.

    Args:
        cache: the folder, or its URL, from which the files of data sets of this name are fetched.
        images: the data set.
        reporter: gets a note with the file's name and those of the others, if there are others.

    Raises:
        OutputError, RemoteError: the server cannot be asked.
    """
    if not is_remote(cache):
        return newest_of(Path(cache), images, reporter)
    folder = RemoteFolder(os.fspath(cache))
    folder.fetch_of(images.name, reporter)
    for note in folder.notes:
        reporter.note(note)
    return newest_of(folder.folder, images, reporter)


def local_file(location: str, reporter: Reporter = SILENT) -> Path:
    """The copy of a feature file on this machine, which is fetched if it is not here or has changed.

    Args:
        location: its URL; a local path stays as it is.
        reporter: gets the progress, in bytes.

    Raises:
        CacheMissError: there is no such file.
        UnreadableFileError: it cannot be fetched.
        CorruptFileError: it is no sound feature file.
        RemoteError: the server does not answer.
    """
    if not is_remote(location):
        return Path(location)
    shown = public(location)
    name = shown.split("?", 1)[0].rpartition("/")[2] or "features.h5"
    folder = home() / _FOLDER / hashlib.sha256(shown.encode()).hexdigest()[:16]
    record, path = folder / f".{name}{_SYNCED}", folder / name
    reporter.stage(f"fetching {shown}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = RemoteFile(location).facts()
        if facts[0] < 0:
            raise CacheMissError(f"there is no feature file {shown}")
        with contextlib.suppress(OSError, ValueError):
            if path.exists() and facts[2] == 0 and json.loads(record.read_text(encoding="utf-8")) == list(facts):
                return path
        facts = fetch(location, path, lambda done, total: reporter.progress(done, total, "bytes"))
    except FeatxError:
        raise
    except OSError as error:
        raise UnreadableFileError(f"{shown} cannot be fetched: {error.strerror or brief(error)}") from error
    FeatureFile(path)
    keep(str(record.relative_to(home())), json.dumps(list(facts)).encode())
    return path
