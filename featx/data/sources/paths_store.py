"""Images that a table names one by one: by URLs, by absolute paths, and by paths relative to a root of any kind."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from featx.data.file_bytes import FileBytes, FileFacts
from featx.data.places import is_remote, local_path
from featx.data.remote import Facts
from featx.data.sources.remote_images import facts_of_files, read_remote
from featx.data.store import FolderStore, Store
from featx.data.urls import is_http, legal, public


def stored_path(cell: str) -> str:
    """The path that an image set stores for the path or URL in a table's cell.

    What grants access is taken out of a URL, and kept in the memory of this process alone; ``file://`` and ``~`` are resolved;
    any other path only loses what means nothing in it, such as ``./``.

    Examples:
        >>> stored_path("./cats/1.jpg"), stored_path("https://ann:pass@server/my cat.jpg?X-Amz-Signature=12ab")
        ('cats/1.jpg', 'https://server/my%20cat.jpg')
    """
    if is_remote(cell):
        return public(legal(cell) if is_http(cell) else cell)
    if cell.startswith("~") or cell.lower().startswith("file://"):
        return local_path(cell).as_posix()
    return Path(cell).as_posix()


def store_of_paths(root: Store, paths: Iterable[str]) -> Store:
    """The store of paths that are relative to a root unless they are URLs or absolute: the root itself where that is enough.

    Args:
        root: where relative paths lie: what ``open_store`` or ``FolderStore`` returns.
        paths: as ``stored_path`` returns them.
    """
    if isinstance(root, PathsStore):
        return root
    if isinstance(root, FolderStore):  # joins absolute paths by itself
        return PathsStore(root) if any(map(is_remote, paths)) else root
    return PathsStore(root) if any(is_remote(path) or path.startswith("/") for path in paths) else root


def root_of(store: Store) -> Store:
    """The store that holds the relative paths of a store."""
    return store.root if isinstance(store, PathsStore) else store


class PathsStore:
    """Images by paths: a URL is read from its server, an absolute path from this machine, any other from the root.

    Args:
        root: where relative paths lie.

    Examples:
        >>> PathsStore(FolderStore("/photos")).name("https://server/a.jpg")
        'https://server/a.jpg'
        >>> PathsStore(FolderStore("/photos")).name("a.jpg")
        '/photos/a.jpg'
    """

    def __init__(self, root: Store) -> None:
        self.root = root
        self.location = root.location
        self.concurrency = root.concurrency
        self.asks_for_each = bool(getattr(root, "asks_for_each", False))
        self._local = FolderStore("/")
        self._known: dict[str, Facts] = {}

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``."""
        rows = np.empty((len(paths), 4), dtype=np.int64)
        remote = [row for row, path in enumerate(paths) if is_remote(path)]
        absolute = [row for row, path in enumerate(paths) if posixpath.isabs(path)]
        others = np.ones(len(paths), dtype=bool)
        others[[*remote, *absolute]] = False
        found = facts_of_files({paths[row]: paths[row] for row in remote})
        self._known = {**self._known, **found}
        for row in remote:
            rows[row] = found[paths[row]]
        for store, some in ((self._local, absolute), (self.root, np.flatnonzero(others).tolist())):
            facts = store.facts([paths[row] for row in some])
            rows[some] = np.stack([facts.sizes, facts.mtimes, facts.ctimes, facts.inodes], axis=1)
        return FileFacts.of_rows(rows)

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        if is_remote(path):
            return read_remote(path, self._known.get(path), admit)
        return self._of(path).read(path, admit)

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: the images of the root in its order, the others after them as they come."""
        elsewhere = np.array([is_remote(path) or posixpath.isabs(path) for path in paths], dtype=bool)
        inside = np.flatnonzero(~elsewhere)
        ordered = inside[self.root.order([paths[row] for row in inside.tolist()])]
        return np.concatenate([ordered, np.flatnonzero(elsewhere)])

    def name(self, path: str) -> str:
        """As ``Store.name``."""
        return path if is_remote(path) else self._of(path).name(path)

    def exists(self) -> bool:
        """As ``Store.exists``."""
        return self.root.exists()

    def _of(self, path: str) -> Store:
        return self._local if posixpath.isabs(path) else self.root
