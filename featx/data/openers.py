"""``open_store``: the images of any data set by its location, which a feature file stores."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

from featx.data.places import is_remote
from featx.data.sources import archive, array_sets, hugging_face, parquet, remote
from featx.data.sources.paths_store import PathsStore
from featx.data.store import FolderStore, Store
from featx.errors import DatasetError


class StoreOpener(Protocol):
    """What a module of ``featx.data.sources`` offers besides, if its images do not lie in a local folder."""

    def opens(self, location: str) -> bool:
        """Whether a location, as ``Store.location`` gives it, is one of this module's, judged by its look."""
        ...

    def open_store(self, location: str) -> Store:
        """Open the images of a location again.

        Raises:
            DatasetError: it is gone or cannot be read.
        """
        ...


OPENERS: Sequence[StoreOpener] = (hugging_face, parquet, array_sets, archive, remote)
"""The first module that opens a location does so; what none opens is a local folder."""


@functools.lru_cache(maxsize=64)
def open_store(location: str) -> Store:
    """Open the images of a data set again, by the location that a feature file stores.

    A store is opened once in a process; it notices by itself that its data have changed.

    Args:
        location: as ``ImageSet.root`` gives it.

    Raises:
        DatasetError: it is gone or cannot be read. A folder that is gone is opened all the same; its images are missing.
    """
    for kind in OPENERS:
        if kind.opens(location):
            return PathsStore(kind.open_store(location))
    return PathsStore(FolderStore(location))


def store_exists(location: str) -> bool:
    """Whether the images of a data set are still where a feature file found them; True where that needs a network."""
    if is_remote(location):
        return True
    try:
        return open_store(location).exists()
    except DatasetError:
        return False
