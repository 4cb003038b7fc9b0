"""Images in one archive or in several, by the name that stands for all of them."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import numpy as np

from featx.data.file_bytes import MISSING_FACTS, FileBytes, FileFacts
from featx.data.listing import Listing
from featx.data.places import expand, is_remote, local_path, place
from featx.data.sources.archive_file import ArchiveFile
from featx.data.sources.archive_index import ArchiveIndex, Member
from featx.data.store import READ_AHEAD
from featx.errors import DatasetError, ImageError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
"""The endings of archives. The content decides what they are."""

_BRACES = re.compile(r"\{[^{}]*\}")
_LAST_BRACES = re.compile(r"\{([^{}]*)\}$")
_VARIES = re.compile(r"\[[*?\[]\]|[*?\[]|\{[^{}]*\}")
_ESCAPED = re.compile(r"\[([*?\[])\]")


class ArchiveStore:
    """Images in archives; see ``featx.data.store.Store``.

    The paths in one archive are those of its members. The paths in several begin with the path of the archive below the folder
    that they have in common: ``train/shard-000.tar/000012.jpg``.

    Args:
        location: an absolute path, a pattern of absolute paths, or a URL or pattern of URLs.
        archives: the archives by the beginnings of the paths; "" for a single one.
    """

    def __init__(self, location: str, archives: Mapping[str, ArchiveFile]) -> None:
        self.location = location
        self.archives = archives
        self.concurrency = READ_AHEAD if is_remote(location) else 0

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``: each image has its own size, and the times and the inode number of its archive."""
        rows = np.full((len(paths), 4), MISSING_FACTS, dtype=np.int64)
        known = {}
        for row, (name, path) in enumerate(map(self._split, paths)):
            if name not in known:
                known[name] = self._index_of(name)
            facts, members = known[name]
            if found := members.get(path):
                rows[row] = found.size, *facts[1:]
        return FileFacts.of_rows(rows)

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        name, inner = self._split(path)
        if name is None:
            raise ImageError(f"is in none of the archives {self.location}")
        return self.archives[name].read(inner, admit)

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: one archive after another, each in the order in which its members are stored."""
        offsets, places = np.full(len(paths), -1, dtype=np.int64), list[str | None]()
        by_archive: dict[str, list[str]] = {}
        known = {}
        for row, (name, path) in enumerate(map(self._split, paths)):
            places.append(name)
            if name is None:
                continue
            if name not in known:
                known[name] = self._index_of(name)
            by_archive.setdefault(name, []).append(path)
            if found := known[name][1].get(path):
                offsets[row] = found.offset
        for name, inner in by_archive.items():
            self.archives[name].expect(inner)
        numbers = {name: number for number, name in enumerate(sorted(by_archive, key=os.fsencode))}
        ranks = np.array([-1 if name is None else numbers[name] for name in places], dtype=np.int64)
        order: np.ndarray = np.lexsort((offsets, ranks))
        return order

    def name(self, path: str) -> str:
        """As ``Store.name``: the path of the archive, and that of the image in it."""
        name, inner = self._split(path)
        where = self.location if name is None else self.archives[name].file.location
        return f"{where}/{path if name is None else inner}"

    def exists(self) -> bool:
        """As ``Store.exists``."""
        if isinstance(self.archives, _Below):
            return self.archives.exists()
        return any(archive.facts()[0] >= 0 for archive in self.archives.values())

    def paths(self) -> list[str]:
        """The paths of all images, without hidden ones; none of an archive that cannot be read."""
        listing = Listing(self.location)
        for name in self.archives:
            for path in self._index_of(name)[1]:
                listing.add(path, f"{name}/{path}" if name else path)
        return listing.stored

    def _split(self, path: str) -> tuple[str | None, str]:
        """The name of the archive and the path in it; None if there is no such archive."""
        if "" in self.archives:
            return "", path
        at = path.find("/")
        while at >= 0:
            if path[:at] in self.archives:
                return path[:at], path[at + 1 :]
            at = path.find("/", at + 1)
        return None, path

    def _index_of(self, name: str | None) -> tuple[tuple[int, ...], Mapping[str, Member]]:
        try:
            facts, index = self.archives[name].index() if name is not None else (MISSING_FACTS, ArchiveIndex(""))
        except ConnectionError:
            raise
        except (DatasetError, OSError):
            return MISSING_FACTS, {}
        return facts, index.members


class _Below(Mapping[str, ArchiveFile]):
    """The archives of a local pattern by their paths below its folder, each looked for where an image names it.

    A feature file of a stranger may hold any pattern, such as one that stands for all archives of a disk. So it is spelled out
    only to list them.

    Args:
        pattern: as ``ArchiveStore.location``.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern, self._folder = pattern, common_folder(pattern)
        self._found = set[object]()

    def __contains__(self, name: object) -> bool:
        """Whether there is an archive at this path."""
        if name in self._found:
            return True
        if not isinstance(name, str) or not is_archive_name(name) or ".." in name.split("/") or "\0" in name:
            return False
        if is_there := os.path.isfile(f"{self._folder}/{name}"):  # noqa: PTH113 - of str
            self._found.add(name)
        return is_there

    def __getitem__(self, name: str) -> ArchiveFile:
        return _archive(f"{self._folder}/{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(open_archives(self._pattern).archives)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def exists(self) -> bool:
        """Whether the archives are there; if they may lie in any of several folders, whether the folder of all is."""
        if "/" in self._pattern[len(glob.escape(self._folder)) + 1 :]:
            return os.path.isdir(self._folder or "/")  # noqa: PTH112 - of str
        return any(map(os.path.isfile, expand(self._pattern)))


def is_archive_name(text: str) -> bool:
    """Whether a path, a pattern or a URL has the ending of an archive.

    Examples:
        >>> is_archive_name("shards/{000..150}.tar"), is_archive_name("https://a.org/pets.zip?v=2"), is_archive_name("a.jpg")
        (True, True, False)
    """
    if is_remote(text) and text.lower().startswith(("http://", "https://")):
        text = urlsplit(text).path
    if text.endswith("}") and (braces := _LAST_BRACES.search(text)):
        return all(is_archive_name(text[: braces.start()] + part) for part in braces[1].split(","))
    return text.lower().endswith(ENDINGS)


def without_ending(name: str) -> str:
    """A name without the ending of an archive.

    Examples:
        >>> without_ending("train/shard-000.tar.gz")
        'train/shard-000'
        >>> without_ending("shards/{train.tar,val.zip}")
        'shards/'
    """
    if name.endswith("}") and (braces := _LAST_BRACES.search(name)):
        return name[: braces.start()]
    ending = max((ending for ending in ENDINGS if name.lower().endswith(ending)), key=len, default="")
    return name[: len(name) - len(ending)]


def pattern_of_folder(folder: str, names: Sequence[str]) -> str:
    """The location of all archives below a folder.

    Args:
        folder: its absolute path.
        names: of the archives that are there, whose endings count.

    Examples:
        >>> pattern_of_folder("/data/shards", ["train-0.tar", "val-0.tar"])
        '/data/shards/**/*.tar'
    """
    endings = sorted({name[len(without_ending(name)) :] for name in names})
    ending = "{" + ",".join(endings) + "}" if len(endings) > 1 else endings[0]
    return f"{glob.escape(folder)}/**/*{ending}"


def is_pattern(text: str) -> bool:
    """Whether a name stands for several archives: it has braces or a pattern, and no file has it as its name."""
    if is_remote(text):
        return "*" in text or bool(_BRACES.search(text))  # a question mark is a part of many URLs
    return (glob.has_magic(text) or bool(_BRACES.search(text))) and not os.path.lexists(text)


def absolute(text: str) -> str:
    """The location of archives as a store has it: ``~``, ``file://`` and relative paths are resolved, URLs stay."""
    return text if is_remote(text) else os.path.abspath(local_path(text))  # noqa: PTH100 - of str


def common_folder(pattern: str) -> str:
    """The part of a pattern before the first name that varies, without the slash.

    Examples:
        >>> common_folder("/data/shards/{train,val}/*.tar"), common_folder("/data/photos[[]1]/{a/1,b/2}.tar")
        ('/data/shards', '/data/photos[1]')
    """
    first = next((match.start() for match in _VARIES.finditer(pattern) if not _ESCAPED.fullmatch(match[0])), 0)
    return _ESCAPED.sub(r"\1", pattern[:first].rpartition("/")[0])


def _without_scheme(path: str) -> str:
    """A path or URL from the first name on; fsspec writes some URLs with more slashes than people do."""
    return path.partition("://")[2].lstrip("/") if is_remote(path) else path


def _is_folder(path: str) -> bool:
    return not is_remote(path) and os.path.isdir(path)  # noqa: PTH112 - of str


@functools.lru_cache(maxsize=4096)
def _archive(location: str) -> ArchiveFile:
    return ArchiveFile(place(location))


def reopen_archives(location: str) -> ArchiveStore:
    """As ``open_archives``, for images whose paths are known: several archives of this machine are not looked for."""
    if is_remote(location) or not is_pattern(location):
        return open_archives(location)
    return ArchiveStore(location, _Below(location))


def open_archives(location: str) -> ArchiveStore:
    """Open the archives that a location stands for.

    Args:
        location: as ``absolute`` returns it.

    Raises:
        DatasetError: there is none.
    """
    if not is_pattern(location):
        return ArchiveStore(location, {"": _archive(location)})
    folder = _without_scheme(common_folder(location))
    found = [path for path in expand(location) if is_archive_name(path) and not _is_folder(path)]
    if not found:
        raise DatasetError(f"no archive matches {location}")
    return ArchiveStore(location, {_without_scheme(path)[len(folder) :].lstrip("/"): _archive(path) for path in found})
