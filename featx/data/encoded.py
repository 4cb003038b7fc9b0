"""Images written as text: in base64, with or without ``data:image/png;base64,`` before it."""

from __future__ import annotations

import base64
import binascii
import re

from featx.data.formats import format_of

_BASE64 = re.compile(r"\s*(?:data:[\w.+/-]*(?:;[\w=.-]+)*;base64,\s*)?([A-Za-z0-9+/_-]{64})")
_SURE = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "HEIF", "AVIF", "JPEG2000")
"""Formats with a beginning so long that no path looks like it: ``/wo`` is that of JPEG XL."""

_PREFIX = re.compile(rb"\s*data:[^,]{0,200},")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def is_image_text(text: object) -> bool:
    r"""Whether text is an image in base64, by its beginning.

    Examples:
        >>> png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
        >>> is_image_text(png), is_image_text("data:image/png;base64," + png), is_image_text("/work/" + 70 * "x")
        (True, True, False)
    """
    match = _BASE64.match(text) if isinstance(text, str) else None
    if match is None:
        return False
    begin = base64.b64decode(match[1].encode().translate(_URL_SAFE))
    form = format_of(begin)
    if form == "JPEG" and begin[3] < 0xC0:  # no marker of JPEG, but a path such as /9j/cats
        return False
    return form in _SURE or (form is not None and match[0].lstrip().startswith("data:"))


def image_of_text(text: str | bytes) -> bytes:
    """The bytes of an image in base64; text that is none, unchanged, so that it fails as no image."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    inner = _PREFIX.sub(b"", data, count=1) if _PREFIX.match(data) else data
    inner = b"".join(inner.split()).translate(_URL_SAFE)
    try:
        found = base64.b64decode(inner + b"=" * (-len(inner) % 4), validate=True)
    except binascii.Error:
        return data
    return found if format_of(found[:512]) else data
