"""Whole files from and to servers: fetched in parts, each of which can be asked for again, and put whole or not at all."""

from __future__ import annotations

import errno
import posixpath
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featx.data.remote import Facts, RemoteFile, facts_of_info, file_system
from featx.data.retries import persistently
from featx.data.urls import is_http, public
from featx.errors import RemoteError
from featx.io.atomic import replacing, reserve

_PART = 1 << 24
"""Bytes that are fetched by one request."""

_APPEAR_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci"}
"""Object stores, in which a file appears when all of it has been sent."""


def fetch(location: str, path: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Facts:
    """Copy a remote file to this machine, whole or not at all.

    Args:
        location: its URL.
        path: the file to write, in a folder that exists.
        progress: called with the bytes that are there, and with those of the whole file.

    Returns:
        The row of ``FileFacts`` of the remote file, asked for before it was read.

    Raises:
        OSError: it cannot be read, has changed meanwhile, or cannot be written here.
        RemoteError: the server does not answer.
    """
    file = RemoteFile(location)
    facts = facts_of_info(file.info())
    with replacing(path) as copy:
        if file.size < 0:
            copy.write(file.read())
        else:
            reserve(copy.fileno(), file.size)
            for start in range(0, file.size, _PART):
                progress(start, file.size)
                copy.write(file.read(start, _PART))
        if facts_of_info(file.info()) != facts:
            raise OSError(errno.EAGAIN, "it has changed while it was read", file.location)
    return facts


def put(path: Path, location: str) -> Facts:
    """Copy a file of this machine to a server. What is there before stays until all of the new file is there.

    Args:
        path: the file.
        location: the URL that it gets.

    Returns:
        The row of ``FileFacts`` of the remote file.

    Raises:
        OSError: the server does not take it.
        RemoteError: the server does not answer.
    """
    system, target = file_system(location)
    kind = location.split("://", 1)[0].lower()
    folder, name = posixpath.split(target)

    def send() -> None:
        if kind in _APPEAR_WHOLE:
            system.put_file(str(path), target)
            return
        system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name[:32]}.{secrets.token_hex(4)}.featx-temporary"
        try:
            system.put_file(str(path), temporary)
            _rename(system, temporary, target)
        except BaseException:
            if system.exists(temporary):
                system.rm_file(temporary)
            raise

    persistently(send, location)
    found = RemoteFile(location).facts()
    if found[0] < 0:
        raise OSError(errno.EIO, "the server does not have it, although it took it", public(location))
    if found[0] != path.stat().st_size:
        raise OSError(errno.EIO, f"{found[0]:,} bytes have arrived of {path.stat().st_size:,}", public(location))
    return found


def _rename(system: Any, temporary: str, target: str) -> None:
    """Give a remote file its name, in the place of another."""
    try:
        _move(system, temporary, target)
    except FileExistsError:  # some servers rename nothing to a name that is taken
        system.rm_file(target)
        _move(system, temporary, target)


def _move(system: Any, source: str, target: str) -> None:
    """Move a remote file; ``mv`` of file systems without a way of their own takes ``?``, ``*`` and ``[`` for patterns."""
    own = next(kind for kind in type(system).__mro__ if "mv" in vars(kind))
    if own.__module__ != "fsspec.spec":
        system.mv(source, target)
        return
    system.cp_file(source, target)
    system.rm_file(source)


def takes_files(location: str) -> bool:
    """Whether files can be put at a URL: not on a web server."""
    return not is_http(location)


def has_bucket(location: str) -> bool:
    """Whether there is the bucket of a URL; true where nothing tells, as on servers without buckets or without a permission.

    Raises:
        RemoteError: the server does not answer.
    """
    if location.split("://", 1)[0].lower() not in _APPEAR_WHOLE:
        return True
    system, path = file_system(location)
    try:
        persistently(lambda: system.info(path.split("/", 1)[0]), location)
    except FileNotFoundError:
        return False
    except OSError as error:
        if isinstance(error, RemoteError):
            raise
    return True


def names_in(location: str) -> dict[str, Facts]:
    """The files right in a remote folder, by their names, with the rows of their ``FileFacts``; none if there is no folder.

    Raises:
        OSError: it cannot be listed.
        RemoteError: the server does not answer.
    """
    system, path = file_system(location)

    def listing() -> list[dict[str, Any]]:
        system.invalidate_cache()
        found: list[dict[str, Any]] = system.ls(path, detail=True)
        return found

    try:
        found = persistently(listing, location)
    except FileNotFoundError:
        return {}
    return {
        info["name"].rstrip("/").rpartition("/")[2]: facts_of_info(info) for info in found if info["type"] == "file"
    }


def newest_in(location: str, ending: str) -> str:
    """The name of the file of some ending in a remote folder that was written last, or comes last in order; "" for none.

    Raises:
        OSError: it cannot be listed.
        RemoteError: the server does not answer.
    """
    system, path = file_system(location)
    try:
        found = persistently(lambda: system.ls(path, detail=True, refresh=True), location)
    except FileNotFoundError:
        return ""
    files = [info for info in found if info["type"] == "file" and info["name"].endswith(ending)]
    newest = max(files, key=lambda info: (_written(info), info["name"]), default=None)
    return newest["name"].rpartition("/")[2] if newest else ""


def _written(info: dict[str, Any]) -> str:
    """When a file was written, as text that sorts; "" where its file system does not tell."""
    keys = ("LastModified", "last_modified", "updated", "mtime", "modified", "timeModified", "created")
    found = next((info[key] for key in keys if info.get(key)), "")
    return (
        found.isoformat()
        if hasattr(found, "isoformat")
        else f"{found:020.6f}"
        if isinstance(found, float)
        else str(found)
    )
