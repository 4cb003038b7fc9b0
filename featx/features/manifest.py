"""The manifest of a set: a folder of feature files that hold one data set together, each a range of its sorted paths.

docs/cache-format.md specifies it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import (
    CacheMissError,
    CorruptFileError,
    OutputError,
    SettingsError,
    UnknownVersionError,
    UnreadableFileError,
)
from featx.features.lock import require_locks
from featx.features.open_file import read_errors
from featx.features.structured_file import sync_folder
from featx.identity import brief_value
from featx.io.atomic import output_error, replacing
from featx.io.file_kinds import FEATURE_SET_FORMAT, MANIFEST
from featx.io.strict_json import strict_json

SETS = ".set"
"""The ending of the folder of a set."""

_VERSION = 1
_MOST_BYTES = 64 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[0-9]+(-[0-9]+)?\.h5")


@dataclass(frozen=True)
class ListedFile:
    """One file of a set, as its manifest lists it.

    Attributes:
        name: within the folder.
        rows: the number of its images.
        digest: of the file, which covers all but the features, and the checksums of these.
        first: the path of its first image, with surrogate escapes where it is not UTF-8.
    """

    name: str
    rows: int
    digest: str
    first: str


@dataclass(frozen=True)
class Manifest:
    """What a set consists of.

    Attributes:
        identity: of the features, SHA-256 in hex; that of each file.
        dataset: the name of the data set, and its root.
        backbone: the name of the backbone.
        split_rows: the most rows of a file.
        files: in the order of the paths.
        missing: images that the data set has besides; those of shards that were not there when they were merged.
    """

    identity: str
    dataset: str
    root: str
    backbone: str
    split_rows: int
    files: tuple[ListedFile, ...]
    missing: int = 0

    @property
    def rows(self) -> int:
        """The number of images."""
        return sum(file.rows for file in self.files)

    def write(self, folder: Path) -> None:
        """Put the manifest in the place of an earlier one, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        described = {
            "format": FEATURE_SET_FORMAT,
            "version": _VERSION,
            "identity": self.identity,
            "dataset": self.dataset,
            "root": self.root,
            "backbone": self.backbone,
            "split_rows": self.split_rows,
            "rows": self.rows,
            **({"missing": self.missing} if self.missing else {}),
            "files": [vars(file) for file in self.files],
        }
        data = (json.dumps(described, indent=1, ensure_ascii=True) + "\n").encode()
        path = folder / MANIFEST
        require_locks()
        try:
            with replacing(path) as file:
                file.write(data)
            sync_folder(folder)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise output_error(path, len(data), error) from error

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the manifest of a set.

        Args:
            path: of its folder, or of the manifest.

        Raises:
            CacheMissError: there is none.
            UnreadableFileError: the system cannot read it.
            UnknownVersionError: it is of a later version of featx.
            CorruptFileError: it is damaged, or something else.
        """
        path = manifest_path(path)
        try:
            with read_errors(path), path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except UnreadableFileError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise CacheMissError(f"there is no set of feature files: {path} is missing") from error
            raise
        except FileNotFoundError as error:
            raise CacheMissError(f"there is no set of feature files: {path} is missing") from error
        try:
            if len(data) > _MOST_BYTES:
                raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MB")
            found = strict_json(data.decode("ascii"))
        except ValueError as error:
            raise CorruptFileError(f"{path} is damaged: {error}; the same featx extract makes it again") from error
        if not isinstance(found, dict) or found.get("format") != FEATURE_SET_FORMAT:
            raise CorruptFileError(f"{path} is not the manifest of a set of feature files")
        if found.get("version") != _VERSION:
            shown = brief_value(repr(found.get("version")))
            raise UnknownVersionError(f"{path} is of version {shown}; expected {_VERSION}. A newer featx may read it")
        return cls._checked(path, found)

    @classmethod
    def _checked(cls, path: Path, found: dict[str, Any]) -> Manifest:
        try:
            identity, dataset, root, backbone = (_text(found, n) for n in ("identity", "dataset", "root", "backbone"))
            listed = found.get("files")
            if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed) or not listed:
                raise ValueError("files is no list of files")
            files = tuple(
                ListedFile(_text(e, "name"), _number(e, "rows"), _text(e, "digest"), _text(e, "first")) for e in listed
            )
            for file in files:
                if not _NAME.fullmatch(file.name) or not _DIGEST.fullmatch(file.digest):
                    raise ValueError(f"the file {file.name!r} has no valid name or digest")
            if len({file.name for file in files}) < len(files):
                raise ValueError("a file is listed twice")
            missing = _number(found, "missing") if "missing" in found else 0
            manifest = cls(identity, dataset, root, backbone, _number(found, "split_rows"), files, missing)
            if manifest.rows != _number(found, "rows"):
                raise ValueError("the rows of its files do not add up")
        except ValueError as error:
            shown = brief_value(str(error))
            raise CorruptFileError(f"{path} is damaged: {shown}; the same featx extract makes it again") from error
        return manifest


def require_split_rows(split_rows: object) -> int:
    """The most images of a file of a set, as it was given.

    Raises:
        SettingsError: it is no whole number above 0.
    """
    if type(split_rows) is not int or split_rows < 1:
        raise SettingsError(f"split_rows is {split_rows!r}; expected the most images of a file, a whole number above 0")
    return split_rows


def manifest_path(path: Path) -> Path:
    """The path of the manifest of a set that is named by its folder or its manifest."""
    return path if path.name == MANIFEST and not path.is_dir() else path / MANIFEST


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _number(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is no number above 0")
    return value
