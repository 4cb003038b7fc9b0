"""Images in a folder: its files are listed here; ``featx.data.layout`` reads splits and classes from its folders."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from featx.data.image_set import ImageSet
from featx.data.listing import Listing, images_of_listing, is_junk
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.store import FolderStore, ImageFile
from featx.errors import DatasetError

EXPECTED = "a folder of images"

OPTIONS: Collection[str] = ()
"""The options of the source; see ``featx.data.scan.Source``."""


def list_images(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> list[ImageFile]:  # noqa: ARG001 - of every source
    """List the image files below a folder, sorted and without hidden ones.

    Raises:
        DatasetError: the folder cannot be read or holds no images.
    """
    listing, store = _walk(Path(data)), FolderStore(data)
    listing.leave_out_arrays()
    listing.require_images(listing.images)
    return [ImageFile(store, path) for path in sorted(listing.images, key=os.fsencode)]


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a folder; the bare word digits names the built-in scans."""
    return str(data) != "digits" and Path(data).is_dir()


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images of a folder; ``scan_images`` describes the layouts."""
    folder = Path(data).resolve()
    return images_of_listing(_walk(folder), FolderStore(folder), folder.name, options)


def _walk(folder: Path) -> Listing:
    """What lies in a folder and below it, links followed."""
    listing = Listing(folder)
    root = os.path.realpath(folder)
    seen = {root}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        below = Path(here).relative_to(folder).as_posix()
        prefix = "" if below == "." else below + "/"
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(here, name))  # noqa: PTH118 - os.walk deals in str
            if not listing.add_folder(prefix + name):
                listing.skipped["in hidden folders"] += sum(len(inner) for _, _, inner in os.walk(Path(here, name)))
            elif real in seen or (os.path.islink(os.path.join(here, name)) and _is_inside(real, root)):  # noqa: PTH114, PTH118
                listing.skipped["links to a folder that is listed anyway"] += 1
            else:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        for name in files:
            listing.add(prefix + name)
    listing.add_by_content(lambda path: _begin(folder / path))
    return listing


def _begin(file: Path) -> bytes:
    """The first bytes of a regular file, as many as tell its format."""
    try:
        if not file.is_file():  # to read from a pipe would wait
            return b""
        with file.open("rb") as stream:
            return stream.read(256)
    except OSError:
        return b""


def _is_inside(folder: str, root: str) -> bool:
    """Whether a linked folder is listed anyway, because it lies below the root and is not hidden."""
    try:
        parts = Path(folder).relative_to(root).parts
    except ValueError:
        return False
    return not any(map(is_junk, parts))


def _raise_unreadable(error: OSError) -> None:
    raise DatasetError(f"cannot read the folder {error.filename}: {error.strerror}") from error
