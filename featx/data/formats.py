"""The formats of images: how a file of each begins, and the endings of their names. Standard library only."""

from __future__ import annotations

import re

SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "PPM": re.compile(rb"P[1-6f]\s"),
    "TIFF": re.compile(rb"II[*+]\0|II\0[*]|MM\0[*+]|MM[*]\0"),
    "WEBP": re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL),
    "AVIF": re.compile(rb"....ftyp(?:avi[fs]|mif1|msf1)", re.DOTALL),
    "JPEG2000": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
}
"""The first bytes of each format; the names are those of Pillow's plug-ins."""

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".png", ".apng", ".gif", ".webp"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".tif", ".tiff"),
    *(".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""The endings by which a folder's images are found, in lower case. A table may name any file: its content decides."""


def format_of(data: bytes) -> str | None:
    """The format of a file by its first bytes, one of ``SIGNATURES``; None if it is none of them.

    Examples:
        >>> format_of(b"GIF89a and so on")
        'GIF'
        >>> format_of(b"Please find the photo attached.") is None
        True
    """
    return next((name for name, signature in SIGNATURES.items() if signature.match(data)), None)
