"""A part of an image as an image of its own: ``photo.jpg#xywh=10,20,300,200``. Standard library only.

The form is that of W3C Media Fragments (https://www.w3.org/TR/media-frags/#naming-space), in pixels of the upright image.
"""

from __future__ import annotations

import re

Box = tuple[int, int, int, int]
"""(x, y, width, height) in pixels of the upright image; x and y from its left and its top, at least 0; sizes at least 1."""

_FRAGMENT = re.compile(r"#xywh=(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})$")


def with_box(path: str, box: Box) -> str:
    """Name a part of an image.

    Examples:
        >>> with_box("street.jpg", (10, 20, 300, 200))
        'street.jpg#xywh=10,20,300,200'
    """
    return f"{path}{box_suffix(box)}"


def split_box(path: str) -> tuple[str, Box | None]:
    """Split the path of an image into the path of its file and the box; None where the whole image is meant.

    Examples:
        >>> split_box("street.jpg#xywh=10,20,300,200")
        ('street.jpg', (10, 20, 300, 200))
        >>> split_box("street.jpg")
        ('street.jpg', None)
    """
    match = _FRAGMENT.search(path)
    if match is None:
        return path, None
    x, y, width, height = map(int, match.groups())
    return path[: match.start()], (x, y, width, height)


def box_suffix(box: Box | None) -> str:
    """What ``with_box`` appends to a path; "" for a whole image."""
    return "" if box is None else "#xywh={},{},{},{}".format(*box)
