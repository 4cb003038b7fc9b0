"""Images in a remote folder: any URL that fsspec has a file system for, with the layouts of a local folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from featx.data.arrow_table import ARROW_ENDINGS
from featx.data.file_bytes import MISSING_FACTS, FileBytes, FileFacts
from featx.data.image_set import ImageSet
from featx.data.listing import Listing, images_of_listing
from featx.data.places import is_remote
from featx.data.remote import Facts, facts_of_info, list_files
from featx.data.scan_options import COMMON, NO_OPTIONS, ScanOptions
from featx.data.sources import archive, parquet, parquet_files
from featx.data.sources.archive_store import is_archive_name, pattern_of_folder
from featx.data.sources.remote_images import facts_of_files, read_remote
from featx.data.store import READ_AHEAD
from featx.data.urls import folder_location, is_http, joined
from featx.errors import DatasetError

EXPECTED = "the URL of a folder of images (s3://, gs://, az://, https://)"

OPTIONS: Collection[str] = tuple(dict.fromkeys((*archive.OPTIONS, *parquet.OPTIONS)))
"""The options of the source; see ``featx.data.scan.Source``."""

_WORTH_LISTING = 200
"""From this number of files on, one listing of the folder costs less than asking for each file."""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a URL."""
    return is_remote(data)


def opens(location: str) -> bool:
    """Whether a location is the URL of a folder."""
    return is_remote(location)


def open_store(location: str) -> RemoteStore:
    """The images of a remote folder; nothing is asked of the server before one of them is."""
    return RemoteStore(location)


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images of a remote folder; ``scan_images`` describes the layouts."""
    location = folder_location(os.fspath(data))
    listed = list_files(location)
    if not listed:
        how = "; a web server must list the folder on a page of links" if is_http(location) else ""
        raise DatasetError(f"there are no files below {location}{how}")
    listing = Listing(location)
    for path in listed:
        listing.add(path)
    if not listing.images and (archives := [path for path in listed if is_archive_name(path)]):
        options.require_only((*archive.OPTIONS, *COMMON), location, archive.EXPECTED)
        return archive.scan(pattern_of_folder(location, archives), options)
    if not listing.images:
        _refuse_arrow(location, listed)
        if pattern := parquet_files.pattern_of_folder(location, sorted(listed)):
            options.require_only((*parquet.OPTIONS, *COMMON), location, parquet.EXPECTED)
            return parquet.scan(pattern, options)
    options.require_only(COMMON, location, EXPECTED)
    store = RemoteStore(location, {path: facts_of_info(listed[path]) for path in listing.images})
    return images_of_listing(listing, store, listing.root.name, options)


def _refuse_arrow(location: str, names: Collection[str]) -> None:
    """Refuse a folder of Arrow files, which are mapped into memory from a disk."""
    if any(name.lower().endswith(ARROW_ENDINGS) for name in names):
        raise DatasetError(
            f"{location} holds Arrow files, as datasets saves them, which are read from a disk alone; copy the folder to this "
            "machine, or write the data set as Parquet (its method to_parquet), which is read from servers as well"
        )


class RemoteStore:
    """Images in a remote folder; paths are relative to it.

    Attributes:
        asks_for_each: whether facts cost a request for each image, because no listing states them.

    Args:
        location: the URL of the folder.
        listed: the rows of ``FileFacts`` of images that were just listed, by path; ``facts`` takes them once.

    Examples:
        >>> RemoteStore("https://server/photos").name("cat/my cat.jpg")
        'https://server/photos/cat/my%20cat.jpg'
    """

    concurrency = READ_AHEAD

    def __init__(self, location: str, listed: Mapping[str, Facts] | None = None) -> None:
        self.location = folder_location(location)
        self.asks_for_each = is_http(self.location)
        # A web server's pages state nothing about files.
        self._listed = None if is_http(self.location) else listed
        self._known: Mapping[str, Facts] = {}

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``; see ``featx.data.remote.facts_of_info``.

        Raises:
            DatasetError: the server refuses the listing.
            RemoteError: the server does not answer.
        """
        listed, self._listed = self._listed, None
        if listed is None and len(paths) >= _WORTH_LISTING and not is_http(self.location):
            listed = {path: facts_of_info(info) for path, info in list_files(self.location).items()}
            known = {path: listed.get(path, MISSING_FACTS) for path in paths}
        else:
            listed = listed or {}
            known = {path: listed[path] for path in paths if path in listed}
            known |= facts_of_files({path: joined(self.location, path) for path in paths if path not in listed})
        self._known = {**self._known, **known}
        return FileFacts.of_rows(np.array([known[path] for path in paths], dtype=np.int64).reshape(-1, 4))

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        return read_remote(joined(self.location, path), self._known.get(path), admit)

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: as they come."""
        return np.arange(len(paths))

    def name(self, path: str) -> str:
        """As ``Store.name``: the URL of the file."""
        return joined(self.location, path)

    def exists(self) -> bool:
        """As ``Store.exists``: nothing is asked of a server for that."""
        return True
