"""Images to predict, however they are given: files, folders, tables, patterns, bytes, arrays, and images of Pillow."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.data.decode import file_of
from featx.data.image_set import ImageSet
from featx.data.loader import Readable
from featx.data.scan import is_data_set, list_images, located
from featx.data.store import ImageFile
from featx.errors import DatasetError, FeatxError, ImageError
from featx.io.file_kinds import IMAGE, PICTURE, misplaced
from featx.text import described

_OWN_ENDINGS = (".h5", ".safetensors", ".checkpoint", ".html", ".toml", ".onnx", ".xml", ".pt2")
"""The endings of files that featx writes or reads, and that are not taken for damaged images."""

_ON_DISK = "an image file, a folder, a table, an archive, or a pattern such as 'new/*.jpg'"
_EXPECTED = (
    "an image file, a folder, a table, an archive, a pattern such as 'new/*.jpg', an image of Pillow, an array (H, W) or "
    "(H, W, C), the bytes of an image file, or an iterable of these"
)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """One image to predict.

    Attributes:
        name: its path, as it was given or as found in a given folder or table; of an image in memory, "image 3" counted from 0,
            or the file that Pillow opened.
        source: the image, its path, or a function that returns the bytes of an image file.
    """

    name: str
    source: Readable


def image_inputs(images: Any) -> Iterator[ImageInput]:
    """Yield the images of whatever ``featx.predict`` takes, in order.

    An iterable is consumed step by step, so that it may be longer than memory.

    Args:
        images: one image or several, as ``featx.predict`` describes.

    Raises:
        DatasetError: something that is no image, a folder without images, a pattern that matches nothing, or a table that
            cannot be read.
    """
    if isinstance(images, ImageSet):
        yield from (ImageInput(images.file(row).name, images.file(row)) for row in range(len(images)))
        return
    number = 0
    for item in items_of(images):
        if isinstance(item, str | os.PathLike):
            found = _found(item)
            yield from found
            number += len(found)
        else:
            yield image_in_memory(item, number)
            number += 1


def items_of(images: Any) -> Iterable[Any]:
    """The items of an iterable; the thing itself if it is one image, one file or one folder.

    Raises:
        DatasetError: it is neither.
    """
    if not _is_several(images):
        return [images]
    return images  # type: ignore[no-any-return]


def _is_several(images: Any) -> bool:
    """Whether a value is an iterable of images and not one image.

    Raises:
        DatasetError: it is neither.
    """
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | ImageFile) or hasattr(images, "read"):
        return False
    if (
        axes := getattr(images, "ndim", None)
    ) is not None:  # an array: one image, a batch of images, or a column of paths
        return axes not in (0, 2, 3)
    if file_of(images) is not None:
        return False
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise DatasetError(f"the images are {described(images)}; expected {_EXPECTED}")
    return True


def _on_disk(path: Path) -> ImageInput:
    return ImageInput(str(path), path)


def image_in_memory(item: Any, number: int) -> ImageInput:
    """An image in memory, which gets the name "image 3" after its number unless it has one.

    Raises:
        DatasetError: it is none, which is a fault of the call and not of an image.
    """
    name = f"image {number}"
    if isinstance(item, ImageFile):
        return ImageInput(item.name, item)
    if isinstance(item, bytes | bytearray | memoryview):
        return ImageInput(name, lambda: bytes(item))
    if hasattr(item, "read"):
        return ImageInput(str(getattr(item, "name", name)), _reader(item))
    encode = file_of(item)
    if encode is None:
        raise DatasetError(f"{name} is {described(item)}; expected {_EXPECTED}")
    return ImageInput(str(getattr(item, "filename", "") or name), encode)


def _reader(file: Any) -> Callable[[], bytes]:
    """A function that returns the bytes of a file object."""
    data = file.read()
    if not isinstance(data, bytes):
        raise DatasetError(f"{described(file)} is a text file; open images with the mode 'rb'")
    return lambda: data


def _found(item: str | os.PathLike[str]) -> list[ImageInput]:
    """The images that a path stands for; where the system cannot tell what is there, one that fails with its reason."""
    try:
        return _images_at(item)
    except FeatxError:
        raise
    except OSError as error:
        fault = ImageError(f"cannot be read: {error.strerror or error}")

    def fail() -> bytes:
        raise fault

    return [ImageInput(os.fspath(item), fail)]


def _images_at(item: str | os.PathLike[str]) -> list[ImageInput]:
    """The images of a data set or of a pattern; else the file itself, which need not exist."""
    item = located(item)
    path, text = Path(item), os.fspath(item)
    if not text:
        raise DatasetError(f"the images are an empty path; expected {_ON_DISK}")
    if is_data_set(item):
        return [ImageInput(file.name, file) for file in list_images(item)]
    if os.path.lexists(path):
        if path.suffix.lower() in _OWN_ENDINGS and (found := misplaced(path, _ON_DISK, fits=[IMAGE, PICTURE])):
            raise DatasetError(found)
        return [_on_disk(path)]
    if not glob.has_magic(text):
        return [_on_disk(path)]
    matches = sorted(glob.glob(text, recursive=True), key=os.fsencode)  # noqa: PTH207 - of strings, absolute or not
    if not matches:
        raise DatasetError(f"no file matches {text}")
    return [inner for match in matches for inner in _images_at(match)]
