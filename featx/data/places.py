"""Files by their locations: local paths and URLs behind one interface, and names that stand for several files."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from featx.data.file_bytes import MISSING_FACTS, facts_of
from featx.data.urls import is_http, is_url, signed_alike
from featx.errors import DatasetError

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")

MOST_FILES = 1_000_000
"""The most files that a name with braces may stand for."""


_LONGEST = 2000
"""The most characters of a name with braces; a feature file has no place for much more."""


class Place(Protocol):
    """One file, local or remote. Its methods may be called from several threads.

    Attributes:
        location: an absolute local path, or a URL.
    """

    location: str

    def facts(self) -> tuple[int, int, int, int]:
        """Size, modification time, change time and inode number, as a row of ``FileFacts``; ``MISSING_FACTS`` for no file."""
        ...

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Read a range of bytes; fewer than ``size`` only at the end of the file. None reads to the end.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def open(self) -> BinaryIO:
        """Open the file for reading; the caller closes it. It can seek.

        Raises:
            OSError: it cannot be opened.
        """
        ...


class LocalFile:
    """A file of this machine.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"one two"), file.flush()
        ...     LocalFile(file.name).read(4, 3)
        b'two'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location = os.path.abspath(path)  # noqa: PTH100 - of str

    def facts(self) -> tuple[int, int, int, int]:
        """As ``Place.facts``."""
        try:
            return facts_of(os.stat(self.location))  # noqa: PTH116 - Path is slow
        except (OSError, ValueError):
            return MISSING_FACTS

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """As ``Place.read``."""
        with self.open() as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)

    def open(self) -> BinaryIO:
        """As ``Place.open``; what is not a regular file is refused, since reading a pipe would block."""
        handle = os.open(self.location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(f"{self.location} is not a regular file")
        return os.fdopen(handle, "rb")


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL of another machine or of memory; ``file://`` is local.

    Examples:
        >>> is_remote("s3://bucket/photos"), is_remote("photos/cats"), is_remote("file:///photos")
        (True, False, False)
    """
    text = os.fspath(location)
    return is_url(text) and not text.lower().startswith("file://")


def local_path(location: str | os.PathLike[str]) -> Path:
    """The local path that a user's text stands for: ``~`` and ``file://`` are resolved.

    Raises:
        DatasetError: a ``file://`` URL names another machine.

    Examples:
        >>> local_path("file:///photos/a%20b.jpg").as_posix()
        '/photos/a b.jpg'
    """
    text = os.fspath(location)
    if text.lower().startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise DatasetError(f"{text} names the machine {parts.netloc}; expected file:/// and a path of this machine")
        return Path(unquote(parts.path))
    return Path(os.path.expanduser(text))  # noqa: PTH111 - which leaves ~name as it is where there is no such user


def place(location: str | os.PathLike[str]) -> Place:
    """The file at a location.

    Raises:
        DatasetError: it is a URL, and what reads URLs is not installed.
    """
    if is_remote(location):
        from featx.data.remote import RemoteFile

        return RemoteFile(os.fspath(location))
    return LocalFile(local_path(location))


def size_of(file: Place) -> int:
    """The size of a file in bytes; -1 if there is none. One whose server does not tell it is fetched.

    Raises:
        OSError: it cannot be read.
    """
    size = file.facts()[0]
    if size == 0:
        with file.open() as opened:
            size = opened.seek(0, os.SEEK_END)
    return size


def expand(location: str) -> list[str]:
    """The locations that a name stands for: ``{000..150}`` and ``{a,b}``, and the patterns ``*``, ``?`` and ``[...]``.

    A range keeps the width of its first number. A pattern stands for the files that are there; braces for all files that they
    spell, whether they are there or not. A name without either stands for itself.

    Raises:
        DatasetError: the braces spell more than ``MOST_FILES`` names, or their range runs downwards.

    Examples:
        >>> expand("shard-{008..010}.tar")
        ['shard-008.tar', 'shard-009.tar', 'shard-010.tar']
        >>> expand("{train,val}.tar")
        ['train.tar', 'val.tar']
    """
    found = [name for spelled in _spelled(location) for name in _matching(spelled)]
    return signed_alike(dict.fromkeys(found), location) if is_remote(location) else list(dict.fromkeys(found))


def pattern_of(locations: Sequence[str]) -> str:
    """One name that ``expand`` turns into several locations, such as a shell has turned into them.

    Returns:
        A pattern, or a name with braces; "" where there is none that can be stored.

    Examples:
        >>> pattern_of(["data/train-0.tar", "data/test-0.tar"])
        'data/t{est,rain}-0.tar'
        >>> pattern_of(["data/train-08.tar", "data/train-09.tar", "data/train-10.tar"])
        'data/train-{08..10}.tar'
    """
    names = sorted(set(locations), key=os.fsencode)
    if run := _run_of(names):
        return run
    begin = _shared_beginning(names)
    end = _shared_beginning([name[len(begin) :][::-1] for name in names])[::-1]
    pattern = f"{glob.escape(begin)}*{glob.escape(end)}"
    if set("{}") & set("".join(names)):
        return ""
    if len(names) > 1 and set(expand(pattern)) == set(names):
        return pattern
    parts = [name[len(begin) : len(name) - len(end)] for name in names]
    braces = f"{glob.escape(begin)}{{{','.join(parts)}}}{glob.escape(end)}"
    return braces if len(braces) <= _LONGEST and expand(braces) == names else ""


def _run_of(names: Sequence[str]) -> str:
    """The name with a range of numbers for names that are numbered one after another; "" for others."""
    begin = _shared_beginning(names).rstrip("0123456789")
    end = _shared_beginning([name[len(begin) :][::-1] for name in names])[::-1].lstrip("0123456789")
    numbers = [name[len(begin) : len(name) - len(end)] for name in names]
    if len(names) < 2 or set("{}*?[") & set(begin + end) or not all(map(str.isdecimal, numbers)):
        return ""
    run = f"{begin}{{{min(numbers, key=int)}..{max(numbers, key=int)}}}{end}"
    return (
        run
        if int(max(numbers, key=int)) - int(min(numbers, key=int)) < len(names) and sorted(expand(run)) == sorted(names)
        else ""
    )


def _shared_beginning(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    shared = next(
        (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return first[:shared]


def _spelled(text: str) -> list[str]:
    match = _BRACES.search(text)
    if match is None:
        return [text]
    first, last, names = match.groups()
    if names is None:
        low, high = int(first), int(last)
        if low > high or high - low >= MOST_FILES:
            raise DatasetError(
                f"{text[:200]} has the range {match[0]}; expected it to run upwards over at most {MOST_FILES:,} numbers"
            )
        parts = [str(number).zfill(len(first)) for number in range(low, high + 1)]
    else:
        parts = names.split(",")
    ends = _spelled(text[match.end() :])
    if len(parts) * len(ends) > MOST_FILES:
        raise DatasetError(f"{text[:200]} stands for more than {MOST_FILES:,} files")
    return [text[: match.start()] + part + end for part in parts for end in ends]


def _matching(text: str) -> list[str]:
    if is_http(text) and not glob.has_magic(text.partition("?")[0]):  # the query of a URL is no pattern
        return [text]
    if not glob.has_magic(text) or os.path.lexists(text):
        return [text]
    if is_remote(text):
        from featx.data.remote import remote_matches

        return remote_matches(text)
    return sorted(glob.glob(os.fspath(local_path(text)), recursive=True), key=os.fsencode)  # noqa: PTH207 - of str
