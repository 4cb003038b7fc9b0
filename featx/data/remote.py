"""Files behind URLs, by fsspec: object stores, web servers, and whatever else it has a file system for.

Credentials are fsspec's own: environment variables and the configuration files of each service. featx stores none.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, BinaryIO, cast

from featx.data.file_bytes import MISSING_FACTS, UNKNOWN
from featx.errors import DatasetError

_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "generation", "VersionId")
"""The keys under which file systems report what changes with the content."""


def file_system(location: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        DatasetError: fsspec, or the package for this kind of URL, is not installed; or there is no such kind.
    """
    try:
        import fsspec
    except ImportError as error:
        raise DatasetError(f"reading {location} needs fsspec: pip install 'featx[remote]'") from error
    try:
        found, path = fsspec.core.url_to_fs(location)
    except ImportError as error:
        raise DatasetError(f"{location} cannot be read: {error}") from error
    except ValueError as error:
        raise DatasetError(f"{location} is no URL that can be read: {error}") from error
    return found, str(path)


def facts_of_info(info: dict[str, Any]) -> tuple[int, int, int, int]:
    """The row of ``FileFacts`` of a file as fsspec describes it: its ETag, or another version, stands in for its times."""
    if info.get("type") != "file":
        return MISSING_FACTS
    size = info.get("size")
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    if not version:
        return -1 if size is None else int(size), 0, UNKNOWN, 0
    digest = hashlib.blake2b(version.encode(), digest_size=8).digest()
    return -1 if size is None else int(size), int.from_bytes(digest, "little") >> 1, 0, 0


class RemoteFile:
    """One file behind a URL; see ``featx.data.places.Place``."""

    def __init__(self, location: str) -> None:
        self.location = location

    @cached_property
    def _found(self) -> tuple[Any, str]:
        return file_system(self.location)

    def facts(self) -> tuple[int, int, int, int]:
        """As ``Place.facts``."""
        system, path = self._found
        try:
            return facts_of_info(system.info(path))
        except FileNotFoundError:
            return MISSING_FACTS

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """As ``Place.read``."""
        system, path = self._found
        return bytes(system.cat_file(path, start=offset, end=None if size is None else offset + size))

    def open(self) -> BinaryIO:
        """As ``Place.open``."""
        system, path = self._found
        return cast(BinaryIO, system.open(path, "rb"))


def remote_matches(pattern: str) -> list[str]:
    """The URLs that a pattern stands for, sorted."""
    system, path = file_system(pattern)
    return sorted(str(system.unstrip_protocol(found)) for found in system.glob(path))
