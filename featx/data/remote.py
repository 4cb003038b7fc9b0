"""Files behind URLs: those of web servers, and by fsspec those of object stores and whatever else it has a file system for.

Credentials are fsspec's own: environment variables and the configuration files of each service. featx stores none.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

from featx.data import web
from featx.data.file_bytes import MISSING_FACTS, UNKNOWN
from featx.data.listing_page import entries, is_page
from featx.data.retries import fault_of, persistently
from featx.data.urls import is_http, joined, legal, private, public
from featx.data.web import WebFiles
from featx.errors import DatasetError
from featx.text import brief, did_you_mean, size_text

Facts = tuple[int, int, int, int]
Result = TypeVar("Result")

_VERSIONS = (
    *(
        "ETag",
        "etag",
        "e_tag",
        "md5Hash",
        "content_md5",
        "Content-MD5",
        "checksum",
        "crc32c",
        "generation",
        "VersionId",
    ),
    *("version_id", "Digest", "sha", "sha256", "blob_id", "xet_hash"),
)
"""The keys under which file systems report what changes with the content. Times are not among them: they can be set back, and
many servers give them in whole seconds."""

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "adl": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "hf": "huggingface_hub",
    "oci": "ocifs",
    "oss": "ossfs",
    "dropbox": "dropboxdrivefs",
    "gdrive": "gdrivefs",
    "webdav": "webdav4",
    "box": "boxfs",
}
"""The package that fsspec needs for each kind of URL."""

_CONNECTIONS = 128
"""The most connections to one bucket of S3."""

_PAGES_AT_ONCE = 16
"""Pages of folders to read from a web server at once."""

_FIRST_BLOCK, _LARGEST_BLOCK = 1 << 16, 1 << 23
"""Bytes that a file opened for reading fetches at once: the least, and the most where it is read on and on."""

_BEGINNING = 1 << 10
"""Bytes that show whether a file is a web page."""

_NAMES_OF_PAGES = re.compile(r"(/|\.[sx]?html?)$|^$", re.IGNORECASE)
"""The ends of the paths of web pages."""

_WEB_FILES = WebFiles()


def file_system(location: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        DatasetError: fsspec, or the package for this kind of URL, is not installed; or there is no such kind.
    """
    shown = public(location)
    if is_http(location) and "::" not in location:
        return _WEB_FILES, private(location)
    try:
        import fsspec
    except ImportError as error:
        raise DatasetError(f"reading {shown} needs fsspec: pip install 'featx[remote]'") from error
    scheme = location.split("://", 1)[0].lower()
    try:
        found, path = fsspec.core.url_to_fs(private(location), **_options(scheme))
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        how = f"needs {package}: pip install {package}" if package else f"needs another package: {brief(error)}"
        raise DatasetError(f"reading {shown} {how}") from error
    except ValueError as error:
        meant = did_you_mean(scheme, fsspec.available_protocols())
        raise DatasetError(
            f"{shown}: no URLs that begin with {scheme}:// are known{meant or '; expected s3://, gs://, az:// or https://'}"
        ) from error
    except Exception as error:
        raise DatasetError(f"{shown} cannot be opened: {fault_of(error).cause}") from error
    return found, str(path)


def _options(scheme: str) -> dict[str, Any]:
    """What featx asks of a file system beside its defaults: s3fs keeps 10 connections to a bucket, too few to read ahead."""
    if scheme not in ("s3", "s3a"):
        return {}
    from fsspec.config import conf

    given = conf.get(scheme, {}).get("config_kwargs", {})
    return {"config_kwargs": {"max_pool_connections": _CONNECTIONS, **given}}


def facts_of_info(info: dict[str, Any]) -> tuple[int, int, int, int]:
    """The row of ``FileFacts`` of a file as fsspec describes it: its ETag, or another version, stands in for its times."""
    if info.get("type") != "file":
        return MISSING_FACTS
    size = int(info.get("size") or 0)  # 0 also where a server does not tell
    version = next((f"{key.lower()} {info[key]}" for key in _VERSIONS if info.get(key)), "")
    if not version and isinstance(settings := info.get("content_settings"), dict) and settings.get("content_md5"):
        version = f"content_md5 {bytes(settings['content_md5']).hex()}"
    if not version:
        return size, 0, UNKNOWN, 0
    digest = hashlib.blake2b(version.encode(errors="surrogateescape"), digest_size=8).digest()
    return size, int.from_bytes(digest, "little") >> 1, 0, 0


class RemoteFile:
    """One file behind a URL; see ``featx.data.places.Place``. Requests that fail for a moment are sent again.

    Args:
        location: the URL; a user, a password, signatures and tokens in it are used, but not kept in ``location``.

    Examples:
        >>> import fsspec
        >>> fsspec.filesystem("memory").pipe_file("/example/a.txt", b"one two")
        >>> RemoteFile("memory://example/a.txt").read(4, 3)
        b'two'
    """

    def __init__(self, location: str) -> None:
        self.location = public(legal(location) if is_http(location) else location)
        if is_http(location):
            try:
                urlsplit(self.location)
            except ValueError as error:
                raise OSError(errno.EINVAL, f"the URL is malformed: {brief(error)}", self.location) from error
        self._system: tuple[Any, str] | None = None
        self._info: dict[str, Any] | None = None
        self._sends_parts = True

    @property
    def _found(self) -> tuple[Any, str]:
        if self._system is None:
            self._system = file_system(self.location)
        return self._system

    def _ask(self, request: Callable[[Any, str], Result]) -> Result:
        """Send a request; an error of whatever kind becomes an OSError with the URL and the cause."""
        system, path = self._found
        try:
            return persistently(lambda: request(system, path), self.location)
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.location) from error
        except ConnectionError:  # RemoteError names the server
            raise
        except OSError as error:
            raise OSError(error.errno or errno.EIO, str(error), self.location) from error

    def info(self) -> dict[str, Any]:
        """What the file system states about the file, asked for now.

        Raises:
            OSError: there is no such file, or it cannot be told.
        """
        found: dict[str, Any] = self._ask(lambda system, path: system.info(path))
        if "html" in str(found.get("mimetype")).lower():
            self._require_file(self._ask(lambda system, path: _part(system, path, 0, _BEGINNING)))
        self._info = found
        return found

    def _require_file(self, data: bytes) -> bytes:
        """The content of the file, of which the beginning is looked at.

        Raises:
            OSError: it is a page that a web server sends in the place of a file, with a status as if all were well.
        """
        if is_http(self.location) and is_page(data) and not _NAMES_OF_PAGES.search(urlsplit(self.location).path):
            raise OSError(
                errno.EACCES,
                "the server sent a web page in the place of this file, as servers do that want a login",
                self.location,
            )
        return data

    @property
    def size(self) -> int:
        """Bytes, asked for once; -1 where the server does not tell."""
        info = self._info or self.info()
        return -1 if info.get("size") is None else int(info["size"])

    def facts(self) -> tuple[int, int, int, int]:
        """As ``Place.facts``.

        Raises:
            OSError: it cannot be told whether there is a file.
        """
        try:
            return facts_of_info(self.info())
        except FileNotFoundError:
            return MISSING_FACTS

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """As ``Place.read``; parts that a server does not send alone are cut out of the whole."""
        if offset == 0 and size is None:
            return self._require_file(self._ask(lambda system, path: bytes(system.cat_file(path))))
        if size is not None and size <= 0:
            return b""
        total = self.size
        end = total if size is None else offset + size if total < 0 else min(offset + size, total)
        if 0 <= total <= offset:
            return b""
        if total < 0 or not self._sends_parts:
            return self._whole()[offset : None if size is None else end]
        data = self._ask(lambda system, path: _part(system, path, offset, end))
        if len(data) == end - offset:
            return data
        if len(data) > end - offset:  # the server has sent the whole file
            self._sends_parts = False
            return self._keep(data)[offset:end]
        raise OSError(
            errno.EIO,
            f"the server sent {len(data):,} of {end - offset:,} bytes; it has changed meanwhile",
            self.location,
        )

    def read_all(self, admit: Callable[[int], None] = lambda _: None) -> tuple[bytes, Facts | None]:
        """Read the whole file by one request.

        Args:
            admit: called with its size in bytes before it is read into memory, or, of a small file, after; it may wait.

        Returns:
            The bytes, and the row of ``FileFacts`` that came with them; None where none does.

        Raises:
            OSError: it cannot be read.
        """
        if not is_http(self.location):
            admit(max(0, self.size))
            return self.read(), None
        refused: list[Exception] = []

        def admit_or_end(size: int) -> None:
            try:
                admit(size)
            except Exception as error:  # not a fault of the server
                refused.append(error)
                raise

        def request(system: WebFiles, url: str) -> tuple[bytes, Facts]:
            try:
                data, info = system.fetch(url, admit_or_end)
            except Exception:
                if refused:
                    return b"", MISSING_FACTS
                raise
            return data, facts_of_info(info)

        found = self._ask(request)
        if refused:
            raise refused[0]
        return self._require_file(found[0]), found[1]

    def _whole(self) -> bytes:
        """The bytes of a file whose server sends no parts; the last one stays in memory."""
        with _whole_lock:
            for info, data in _whole_file:
                if info is self._info:
                    return data
            if self.size > web.LARGEST_WHOLE:
                raise OSError(
                    errno.EOPNOTSUPP,
                    f"the server sends files only whole, and this one has {size_text(self.size)}; copy it to this machine",
                    self.location,
                )
            return self._keep(self._ask(lambda system, path: bytes(system.cat_file(path))))

    def _keep(self, data: bytes) -> bytes:
        if self._info is not None:
            _whole_file[:] = [(self._info, data)]
        return data

    def open(self) -> BinaryIO:
        """As ``Place.open``: it can seek, and reads ahead the further, the longer it is read on without seeking."""
        if self.size < 0:
            return io.BytesIO(self.read())
        return cast(BinaryIO, io.BufferedReader(_Parts(self), _FIRST_BLOCK))


_whole_lock = threading.RLock()
_whole_file: list[tuple[dict[str, Any], bytes]] = []
"""The last file that was fetched whole because its server sends no parts, by what was known of it."""


def _part(system: Any, path: str, start: int, end: int) -> bytes:
    return bytes(system.cat_file(path, start=start, end=end))


class _Parts(io.RawIOBase):
    """A remote file that is read in parts."""

    def __init__(self, file: RemoteFile) -> None:
        self._file, self._size = file, file.size
        self._at = 0
        self._block, self._begin, self._length = b"", 0, _FIRST_BLOCK

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; nothing is read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seeking to {start + offset}, before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read on from the position."""
        view = memoryview(buffer).cast("B")
        inside = self._at - self._begin
        if not 0 <= inside < len(self._block):
            is_next = bool(self._block) and 0 <= inside - len(self._block) <= self._length
            self._length = min(self._length * 2, _LARGEST_BLOCK) if is_next else _FIRST_BLOCK
            wanted = max(self._length, len(view))
            self._block, self._begin, inside = self._file.read(self._at, wanted), self._at, 0
        part = self._block[inside : inside + len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)


def remote_matches(pattern: str) -> list[str]:
    """The URLs that a pattern stands for, sorted.

    Raises:
        DatasetError: the server cannot be asked.
    """
    system, path = file_system(pattern)
    if isinstance(system, WebFiles):
        return sorted(_linked_matches(pattern))
    with dataset_errors(pattern):
        found = persistently(lambda: system.glob(path), pattern)
    return sorted(public(str(system.unstrip_protocol(each))) for each in found)


@contextlib.contextmanager
def dataset_errors(location: str) -> Iterator[None]:
    """Turn the error of a request for a data set into a DatasetError that names the URL and the cause."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"there is nothing at {public(location)}") from error
    except ConnectionError:
        raise
    except OSError as error:
        raise DatasetError(f"cannot read {public(location)}: {error.strerror or brief(error)}") from error


def list_files(location: str) -> dict[str, dict[str, Any]]:
    """All files below a folder, with what its file system states about them, by their paths below it as people write them.

    Object stores answer by one listing; the pages of a web server are read folder by folder, and state nothing about files.

    Raises:
        DatasetError: there is no such folder, or it cannot be listed.
        RemoteError: the server does not answer.
    """
    if is_http(location):
        return {path: {"type": "file"} for path in _linked_files(location)}
    system, path = file_system(location)

    def find() -> dict[str, dict[str, Any]]:
        system.invalidate_cache()
        found: dict[str, dict[str, Any]] = system.find(path, detail=True)
        return found

    with dataset_errors(location):
        found = persistently(find, location)
    root = path.rstrip("/") + "/"
    return {
        name[len(root) :]: info
        for name, info in found.items()
        # Object stores have empty objects whose names end in a slash, to show folders.
        if name.startswith(root) and not name.endswith("/") and info["type"] == "file"
    }


def _linked_files(location: str) -> Iterator[str]:
    """The files below a folder of a web server, by the links of its pages, which are read many at a time."""
    seen: dict[str, tuple[list[str], list[str]]] = {}
    with ThreadPoolExecutor(_PAGES_AT_ONCE) as pool:
        level = [""]
        while level:
            urls = [joined(location, f"{folder}/" if folder else "") for folder in level]
            seen |= dict(zip(level, pool.map(_page_entries, urls), strict=True))
            level = [
                f"{folder}/{name}".lstrip("/")
                for folder in level
                if not _loops(folder, seen)
                for name in seen[folder][1]
            ]
    for folder, (files, _) in seen.items():
        yield from (f"{folder}/{name}".lstrip("/") for name in files)


def _page_entries(url: str) -> tuple[list[str], list[str]]:
    """The files and the folders that a page of a web server lists."""
    with dataset_errors(url):
        page = RemoteFile(url).read()
    return entries(page.decode(errors="replace"), url)


def _linked_matches(pattern: str) -> list[str]:
    """The URLs of files of a web server that a pattern with ``*``, ``[...]`` and ``**`` stands for, by its pages."""
    bare, mark, query = public(pattern).partition("?")
    scheme, rest = bare.split("://", 1)
    host, *parts = rest.split("/")
    folders = [f"{scheme}://{host}"]
    for part in parts[:-1]:
        if part == "**":
            folders += [joined(folder, below) for folder in folders for below in _folders_below(folder)]
        elif glob.has_magic(part):
            pages = {folder: _page_entries(f"{folder}/")[1] for folder in folders}
            folders = [
                joined(folder, name) for folder in folders for name in fnmatch.filter(pages[folder], unquote(part))
            ]
        else:
            folders = [f"{folder}/{part}" for folder in folders]
    last = "*" if parts[-1] == "**" else unquote(parts[-1])
    names = {folder: fnmatch.filter(_page_entries(f"{folder}/")[0], last) for folder in folders}
    return [joined(folder, name) + mark + query for folder in names for name in names[folder]]


def _folders_below(location: str) -> list[str]:
    """The paths of all folders below one of a web server that have files in or below them."""
    parents = (PurePosixPath(path).parents for path in _linked_files(location))
    return sorted({str(folder) for folders in parents for folder in folders} - {"."})


def _loops(folder: str, seen: Mapping[str, tuple[list[str], list[str]]]) -> bool:
    """Whether a folder lists just what the three around it list, as where a link leads to the folder that it is in."""
    around = folder
    for _ in range(3):
        if not around:
            return False
        around = around.rpartition("/")[0]
        if seen[around] != seen[folder]:
            return False
    return True
