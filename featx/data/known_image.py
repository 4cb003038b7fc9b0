"""One image that a file of features names, read only where that is safe and the image is the one that was extracted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from featx.data.boxes import split_box
from featx.data.file_bytes import FileBytes
from featx.data.openers import open_store
from featx.data.places import is_remote
from featx.data.sources.paths_store import root_of
from featx.data.store import FolderStore, ImageFile
from featx.data.urls import folder_location
from featx.errors import DatasetError, FeatxError, ImageError, RemoteError
from featx.system import why_unreadable

MISSING = "the image is missing or cannot be read"


def read_known_image(
    root: str | os.PathLike[str],
    path: str,
    key: bytes,
    *,
    also: Sequence[str | os.PathLike[str]] = (),
    own: bool = False,
    admit: Callable[[int], None] = lambda _: None,
) -> FileBytes:
    """Read an image by the path, and with the content, that a feature file stores.

    The feature file may come from a stranger, who can name any file of this machine as an image. So the image must lie in the
    folder of the data set, links followed, or in a folder that the user names; and its content must be the one that was
    extracted, which nobody can name who does not have it. An image on another machine is asked for only if the user names the
    URL, or if this user's featx has read it there before: a stranger's file must not make this machine send requests.

    Args:
        root: where the images of the data set are, as ``ImageSet.root``.
        path: of the image, below the root.
        key: the 16 bytes of ``image_key`` of its content.
        also: further places in which the image may lie, folders, archives or URLs: at the same path below one of them, where
            the data set has been moved, or where the path or a link leads.
        own: whether this user's featx has read the images of the feature file, as ``featx.features.file_marks.is_own`` tells.
        admit: as in ``read_file``.

    Raises:
        ImageError: the image is missing or cannot be read, lies elsewhere, or has changed.

    Examples:
        >>> import tempfile
        >>> from featx.data.file_bytes import image_key
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.png").write_bytes(b"pixels")
        ...     read_known_image(folder, "a.png", image_key(b"pixels")).data
        b'pixels'
        >>> read_known_image("photos", "../secret.png", bytes(16))
        Traceback (most recent call last):
        featx.errors.ImageError: the image is missing or cannot be read
    """
    faults: list[ImageError] = []
    named = [os.fspath(location) for location in also]
    for location in (os.fspath(root), *named):
        try:
            _require_asked_for(location, path, named, own=own)
            return _read(location, path, key, (root, *also), admit)
        except ImageError as error:
            faults.append(error)
    raise next((fault for fault in faults if str(fault) != MISSING), faults[0])


def known_sizes(
    root: str | os.PathLike[str],
    paths: Sequence[str],
    *,
    also: Sequence[str | os.PathLike[str]] = (),
    own: bool = False,
) -> np.ndarray:
    """The bytes of images, looked for in the same places as ``read_known_image`` does; no image is read.

    Args:
        root: as in ``read_known_image``.
        paths: of N images, below the root.
        also: as there.
        own: as there.

    Returns:
        (N,) int64; -1 where there is no such file, or where it must not be looked for.
    """
    found = np.full(len(paths), -1, dtype=np.int64)
    named = [os.fspath(location) for location in also]
    for location in (os.fspath(root), *named):
        rows = [
            row for row in np.flatnonzero(found < 0).tolist() if _is_asked_for(location, paths[row], named, own=own)
        ]
        if rows:
            with contextlib.suppress(FeatxError):
                found[rows] = open_store(location).facts([split_box(paths[row])[0] for row in rows]).sizes
    return found


def _is_asked_for(location: str, path: str, named: Sequence[str], *, own: bool) -> bool:
    with contextlib.suppress(ImageError):
        _require_asked_for(location, path, named, own=own)
        return True
    return False


def _require_asked_for(location: str, path: str, named: Sequence[str], *, own: bool) -> None:
    """Refuse an image of another machine that the user has not named and has never read."""
    file_path = split_box(path)[0]
    if own:
        return
    if is_remote(file_path):
        _require_named(file_path, named)
    elif is_remote(location) and not Path(file_path).is_absolute() and location not in named:
        raise ImageError(f"the image lies on another machine; --images {location} reads it from there")


def _read(
    location: str,
    path: str,
    key: bytes,
    folders: Sequence[str | os.PathLike[str]],
    admit: Callable[[int], None],
) -> FileBytes:
    file_path = split_box(path)[0]
    try:
        file = ImageFile(open_store(location), path)
    except DatasetError as error:
        raise ImageError(f"{MISSING}: {error}") from error
    if not is_remote(file_path) and (Path(file_path).is_absolute() or isinstance(root_of(file.store), FolderStore)):
        _require_inside(Path("/" if is_remote(location) else location, file_path), folders)
    try:
        found = file.read(admit)
    except RemoteError as error:
        raise ImageError(str(error)) from error
    except ImageError as error:
        raise ImageError(f"{MISSING}: it {error}") from error
    if found.key != bytes(key):
        raise ImageError("the image has changed since its features were extracted")
    return found


def _require_named(url: str, named: Sequence[str]) -> None:
    """Refuse the URL of an image that lies below no URL that the user names."""
    if not any(is_remote(each) and f"{url}/".startswith(f"{folder_location(each)}/") for each in named):
        raise ImageError(f"the image lies on another machine; --images {url.rpartition('/')[0]} reads it from there")


def _require_inside(file: Path, folders: Sequence[str | os.PathLike[str]]) -> None:
    if why_unreadable(file):
        raise ImageError(MISSING)
    if not any(_is_inside(file, folder) for folder in folders if not is_remote(folder)):
        raise ImageError(
            "the image lies outside the folder of the data set; --images FOLDER names another that is read"
        )


def _is_inside(file: Path, folder: str | os.PathLike[str]) -> bool:
    """Whether a file lies in a folder, links followed."""
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(file)).parents
