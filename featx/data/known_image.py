"""One image that a file of features names, read only where that is safe and the image is the one that was extracted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from featx.data.image_set import image_key
from featx.data.loader import read_file
from featx.errors import ImageError
from featx.system import why_unreadable

MISSING = "the image is missing or cannot be read"


def read_known_image(
    root: str | os.PathLike[str],
    path: str,
    key: bytes,
    *,
    also: Sequence[str | os.PathLike[str]] = (),
    admit: Callable[[int], None] = lambda _: None,
) -> bytes:
    """Read the bytes of an image by the path, and with the content, that a feature file stores.

    The feature file may come from a stranger, who can name any file of this machine as an image. So the image must lie in the
    folder of the data set, links followed, or in a folder that the user names; and its content must be the one that was
    extracted, which nobody can name who does not have it.

    Args:
        root: the folder of the data set.
        path: of the image, below the root.
        key: the 16 bytes of ``image_key`` of its content.
        also: further folders in which the image may lie: at the same path below one of them, where the data set has been
            moved, or where the path or a link leads.
        admit: as in ``read_file``.

    Raises:
        ImageError: the image is missing or cannot be read, lies elsewhere, or has changed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.png").write_bytes(b"pixels")
        ...     read_known_image(folder, "a.png", image_key(b"pixels"))
        b'pixels'
        >>> read_known_image("photos", "../secret.png", bytes(16))
        Traceback (most recent call last):
        featx.errors.ImageError: the image is missing or cannot be read
    """
    faults: list[ImageError] = []
    for folder in (root, *also):
        try:
            return _read(Path(folder) / path, key, (root, *also), admit)
        except ImageError as error:
            faults.append(error)
    raise next((fault for fault in faults if str(fault) != MISSING), faults[0])


def _read(file: Path, key: bytes, folders: Sequence[str | os.PathLike[str]], admit: Callable[[int], None]) -> bytes:
    if why_unreadable(file):
        raise ImageError(MISSING)
    if not any(_is_inside(file, folder) for folder in folders):
        raise ImageError(
            "the image lies outside the folder of the data set; --images FOLDER names another that is read"
        )
    try:
        data = read_file(file, admit).data
    except ImageError as error:
        raise ImageError(f"{MISSING}: it {error}") from error
    if image_key(data) != bytes(key):
        raise ImageError("the image has changed since its features were extracted")
    return data


def _is_inside(file: Path, folder: str | os.PathLike[str]) -> bool:
    """Whether a file lies in a folder, links followed."""
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(file)).parents
