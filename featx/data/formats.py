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
    "HEIF": re.compile(
        rb"....ftyp(?:hei[cmsx]|hev[cmsx]|(?:mif1|msf1|mif2|MiHE|MiHB|MiPr)....(?:....){0,30}?hei[cmsx])", re.DOTALL
    ),
    "AVIF": re.compile(rb"....ftyp(?:avi[fs]|mif1|msf1)", re.DOTALL),
    "JPEG2000": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
    "JXL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    "DICOM": re.compile(
        rb".{128}DICM|\x02\0\0\0UL\x04\0|\x08\0[\0\x05\x08\x12\x13\x16\x18]\0(?:[A-Z]{2}|.[\0-\x02]\0\0)", re.DOTALL
    ),
    "NPY": re.compile(rb"\x93NUMPY"),
}
"""The first bytes of each format; the names are those of Pillow's plug-ins, except for DICOM and NPY.

HEIF files may name their kind of coding after their kind of file; DICOM files may lack their preamble.
"""

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".png", ".apng", ".gif", ".webp"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".tif", ".tiff"),
    *(".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".heic", ".heif", ".hif", ".jxl", ".dcm", ".dicom"),
    ".npy",
)
"""The endings by which a folder's images are found, in lower case. A table may name any file: its content decides."""

ARRAY_ENDING = ".npy"
"""The ending of files that are images only where a folder has no others: beside images they hold features or masks."""


def format_of(data: bytes) -> str | None:
    """The format of a file by its first bytes, one of ``SIGNATURES``; None if it is none of them.

    Examples:
        >>> format_of(b"GIF89a and so on")
        'GIF'
        >>> format_of(b"Please find the photo attached.") is None
        True
    """
    return next((name for name, signature in SIGNATURES.items() if signature.match(data)), None)
