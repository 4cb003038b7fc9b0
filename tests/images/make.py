"""The images of this folder: how each was made, and what must come of it.

``CASES`` holds one entry for each file. Expected pixels are worked out here with numpy, from the numbers that went into the
file, never by decoding. To write the files again: ``python tests/images/make.py`` (Pillow, in whatever version, compresses
some of them, so that their bytes may differ from the ones kept; their pixels may not).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent


class Case(NamedTuple):
    """One file.

    Attributes:
        data: makes its bytes.
        expected: (H, W, 3) RGB pixels, or a regular expression that the ImageError must match.
        tolerance: largest difference of a level that is allowed.
    """

    data: Callable[[], bytes]
    expected: np.ndarray | str
    tolerance: float = 0


CASES: dict[str, Case] = {}


def case(name: str, expected: np.ndarray | str, tolerance: float = 0) -> Callable[[Callable[[], bytes]], None]:
    """Keep the decorated function as the maker of a file."""

    def keep(data: Callable[[], bytes]) -> None:
        CASES[name] = Case(data, expected, tolerance)

    return keep


# The picture that most files show: 24 x 16, soft, and like none of its mirror images

Y, X = np.mgrid[:16, :24]
PICTURE = np.stack([10 * X, 15 * Y, 255 - 5 * (X + Y)], axis=-1).astype(np.uint8)
GREY = (8 * X + 4 * Y).astype(np.uint8)  # 0 to 244
DEEP = (X.astype(np.uint16) * 16 + Y) * 170  # 0 to 65110, in steps that 8 bits cannot tell apart
ALPHA = np.where(X < 8, 0, np.where(X < 16, 128, 255)).astype(np.uint8)
INDICES = ((X + Y) % 3).astype(np.uint8)
PALETTE = np.array([[250, 20, 30], [40, 200, 60], [70, 80, 220]], np.uint8)
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def grey(levels: np.ndarray) -> np.ndarray:
    """(H, W) to three equal channels."""
    return np.repeat(levels[..., None], 3, axis=-1)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) and (H, W) of 0 to 255, composited by hand."""
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """A file that Pillow writes."""
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(pixels: np.ndarray | Image.Image = PICTURE, **options: Any) -> bytes:
    """A JPEG that keeps soft pixels to within a few levels."""
    return saved(pixels, "JPEG", **{"quality": 98, "subsampling": 0, **options})


def turned(orientation: int) -> Image.Exif:
    """An EXIF block that says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# JPEG


CASES["baseline.jpg"] = Case(jpeg, PICTURE, 6)
CASES["progressive.jpg"] = Case(lambda: jpeg(progressive=True), PICTURE, 6)
CASES["grey.jpg"] = Case(lambda: jpeg(GREY), grey(GREY), 1)
for number, turn in UPRIGHT.items():
    CASES[f"orientation-{number}.jpg"] = Case(lambda number=number: jpeg(exif=turned(number)), turn(PICTURE), 6)
CASES["exif-nonsense.jpg"] = Case(lambda: jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense"), PICTURE, 6)
CASES["profile-nonsense.jpg"] = Case(lambda: jpeg(icc_profile=b"no profile at all"), PICTURE, 6)
CASES["garbage-after-the-end.jpg"] = Case(lambda: jpeg() + bytes(range(256)), PICTURE, 6)
CASES["truncated-in-the-scan.jpg"] = Case(lambda: jpeg()[:-120], r"^cannot be decoded: image file is truncated")
CASES["truncated-in-the-header.jpg"] = Case(lambda: jpeg()[:100], r"^cannot be decoded: .*(?i:truncated)")


@case("cmyk.jpg", PICTURE, 2)
def _() -> bytes:
    ink = np.concatenate([255 - PICTURE, np.zeros((16, 24, 1), np.uint8)], axis=-1)  # without black
    return jpeg(Image.frombytes("CMYK", (24, 16), ink.tobytes()))


@case("ycck.jpg", PICTURE, 4)
def _() -> bytes:
    # An Adobe file holds inks inverted; as YCCK, the luma and chroma of the inverted inks' inverse. What is stored must
    # therefore be YCbCr of the picture's negative, and Pillow inverts once more what it is told to store.
    red, green, blue = (255.0 - PICTURE[..., c] for c in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    stored = np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128, np.full_like(luma, 255)], -1)
    ink = 255 - np.clip(np.rint(stored), 0, 255).astype(np.uint8)
    data = bytearray(jpeg(Image.frombytes("CMYK", (24, 16), ink.tobytes())))
    at = data.index(b"\xff\xee\0\x0eAdobe")
    assert data[at + 15] == 0  # CMYK as it is
    data[at + 15] = 2  # YCCK
    return bytes(data)


@case("two-pictures.mpo", PICTURE, 6)
def _() -> bytes:
    first, second = Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)
    return saved(first, "MPO", save_all=True, append_images=[second], quality=98, subsampling=0)


def with_size(width: int, height: int, precision: int = 8) -> bytes:
    """A JPEG whose header says another size or precision than its data have."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0\0\x11\x08")
    data[at + 4 : at + 9] = struct.pack(">BHH", precision, height, width)
    return bytes(data)


CASES["header-of-65535-squared.jpg"] = Case(
    lambda: with_size(65535, 65535), r"^65535 x 65535 pixels; at most 178,956,970 are read \(--max-pixels\)$"
)
CASES["header-of-65535-by-9.jpg"] = Case(
    lambda: with_size(65535, 9)[: jpeg().index(b"\xff\xda")], r"^cannot be decoded: .*truncated"
)
CASES["header-of-12-bits.jpg"] = Case(
    lambda: with_size(24, 16, precision=12),
    r"^cannot be decoded: a JPEG file .* rare kind \(cannot handle 12-bit layers\)",
)


LEVELS = np.array([160, 136, 216])
"""Of the three blocks of arithmetic.jpg."""

ESTIMATES = {0: (0x5A1D, 1, 1, 1), 1: (0x2586, 14, 2, 0), 2: (0x1114, 16, 3, 0), 3: (0x080B, 18, 4, 0)}
ESTIMATES |= {14: (0x5A7F, 15, 15, 1), 15: (0x3F25, 36, 16, 0), 16: (0x2CF2, 38, 17, 0)}
"""As much as is needed here of ITU-T T.81, table D.3: Qe, next state after the less and the more probable symbol, switch."""


@case("arithmetic.jpg", np.repeat(LEVELS, 8)[None, :, None] + np.zeros((8, 24, 3)))
def _() -> bytes:
    # ITU-T T.81, annexes D and F: three flat blocks, whose quantised DC coefficient is (level - 128) / 8
    low, width, shifts = 0, 0x10000, 0
    states: dict[object, list[int]] = {}

    def encode(context: object, bit: int) -> None:
        nonlocal low, width, shifts
        state = states.setdefault(context, [0, 0])  # index, more probable symbol
        share, after_less, after_more, switch = ESTIMATES[state[0]]
        width -= share
        less = bit != state[1]
        if less != (width < share):  # the upper part is the less probable symbol's, unless it is the larger
            low, width = low + width, share
        elif not less and width >= 0x8000:
            return
        state[0] = after_less if less else after_more
        state[1] ^= switch if less else 0
        while width < 0x8000:
            low, width, shifts = low << 1, width << 1, shifts + 1

    conditioning = "zero"
    for difference in np.diff((LEVELS - 128) // 8, prepend=0).tolist():
        magnitude = abs(difference) - 1
        sign = "negative" if difference < 0 else "positive"
        encode((conditioning, "not zero"), 1)
        encode((conditioning, "sign"), int(difference < 0))
        encode((conditioning, sign), 1)  # magnitude is 1 or more
        for step in range(1, magnitude.bit_length()):
            encode(("more than", step), 1)
        encode(("more than", magnitude.bit_length()), 0)
        for bit in reversed(range(magnitude.bit_length() - 1)):
            encode(("bits", magnitude.bit_length()), magnitude >> bit & 1)
        conditioning = f"large {sign}"
        encode("end of block", 1)
    total = -(-(16 + shifts) // 8) * 8
    data = (((low + 0x7FFF) & ~0x7FFF) << (total - 16 - shifts)).to_bytes(total // 8, "big").rstrip(b"\0")
    tables = b"\xff\xdb\0\x43\0" + bytes([64] * 64)
    frame = b"\xff\xc9\0\x0b\x08" + struct.pack(">HHB", 8, 24, 1) + b"\x01\x11\0"
    scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    return b"\xff\xd8" + tables + frame + scan + data.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


# PNG


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def header(width: int, height: int, depth: int, colours: int, *, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced))


def png(rows: np.ndarray, width: int, depth: int, colours: int, *chunks: bytes) -> bytes:
    """A PNG of (H, bytes in a row) packed rows, unfiltered; ``colours`` is its colour type, ``chunks`` come before the data.

    0 is grey, 2 RGB, 3 a palette, 4 grey with alpha, 6 RGBA.
    """
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 9)
    parts = [header(width, len(rows), depth, colours), *chunks, chunk(b"IDAT", lines), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep(*channels: np.ndarray) -> np.ndarray:
    """(H, 2 W C) uint8: rows of 16-bit samples, the high byte first."""
    return np.stack(channels, axis=-1).astype(">u2").reshape(16, -1).view(np.uint8)


DEEP_RGB = (DEEP, DEEP[::-1], DEEP[:, ::-1])
HIGH_BYTES = np.stack([c >> 8 for c in DEEP_RGB], axis=-1)
FOUR_LEVELS = ((X + Y) % 4).astype(np.uint8)
FOUR_LEVELS_PACKED = (FOUR_LEVELS.reshape(16, 6, 4) << np.array([6, 4, 2, 0], np.uint8)).sum(axis=-1).astype(np.uint8)
BITS = (X * Y) % 2 == 0


def seen_through(pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """White where transparent."""
    return np.where(where[..., None], 255, pixels)


CASES["grey-16.png"] = Case(lambda: png(deep(DEEP), 24, 16, 0), grey(np.rint(DEEP / 257)))
CASES["grey-16-one-value-transparent.png"] = Case(
    lambda: png(deep(DEEP), 24, 16, 0, chunk(b"tRNS", struct.pack(">H", DEEP[5, 7]))),
    seen_through(grey(np.rint(DEEP / 257)), DEEP[5, 7] == DEEP),
)
CASES["grey-alpha-16.png"] = Case(
    lambda: png(deep(DEEP, ALPHA.astype(np.uint16) * 257), 24, 16, 4), over_white(grey(DEEP >> 8), ALPHA), 1
)
CASES["rgb-16.png"] = Case(lambda: png(deep(*DEEP_RGB), 24, 16, 2), HIGH_BYTES)
CASES["rgb-16-one-colour-transparent.png"] = Case(
    lambda: png(deep(*DEEP_RGB), 24, 16, 2, chunk(b"tRNS", struct.pack(">3H", *(c[5, 7] for c in DEEP_RGB)))),
    seen_through(HIGH_BYTES, (HIGH_BYTES[5, 7] == HIGH_BYTES).all(axis=-1)),
)
CASES["rgba-16.png"] = Case(
    lambda: png(deep(*DEEP_RGB, ALPHA.astype(np.uint16) * 257), 24, 16, 6), over_white(HIGH_BYTES, ALPHA), 1
)
CASES["bits.png"] = Case(lambda: png(np.packbits(BITS, axis=1), 24, 1, 0), grey(BITS * 255))
CASES["bits-white-transparent.png"] = Case(
    lambda: png(np.packbits(BITS, axis=1), 24, 1, 0, chunk(b"tRNS", b"\0\1")), grey(BITS * 255)
)
CASES["bits-black-transparent.png"] = Case(
    lambda: png(np.packbits(BITS, axis=1), 24, 1, 0, chunk(b"tRNS", b"\0\0")), np.full((16, 24, 3), 255)
)
CASES["grey-2-one-level-transparent.png"] = Case(
    lambda: png(FOUR_LEVELS_PACKED, 24, 2, 0, chunk(b"tRNS", b"\0\1")),
    seen_through(grey(FOUR_LEVELS * 85), FOUR_LEVELS == 1),
)
CASES["grey-alpha.png"] = Case(
    lambda: png(np.stack([GREY, ALPHA], axis=-1).reshape(16, -1), 24, 8, 4), over_white(grey(GREY), ALPHA), 1
)
CASES["palette-one-entry-transparent.png"] = Case(
    lambda: png(INDICES, 24, 8, 3, chunk(b"PLTE", PALETTE.tobytes()), chunk(b"tRNS", b"\xff\0\xff")),
    seen_through(PALETTE[INDICES], INDICES == 1),
)
CASES["palette-of-degrees.png"] = Case(
    lambda: png(INDICES, 24, 8, 3, chunk(b"PLTE", PALETTE.tobytes()), chunk(b"tRNS", b"\x40\x80\xff")),
    over_white(PALETTE[INDICES], np.array([64, 128, 255])[INDICES]),
    1,
)
CASES["rgb.png"] = Case(lambda: png(PICTURE.reshape(16, -1), 24, 8, 2), PICTURE)
CASES["text-named-transparency.png"] = Case(
    lambda: png(PICTURE.reshape(16, -1), 24, 8, 2, chunk(b"tEXt", b"transparency\0none")), PICTURE
)
CASES["exif-orientation-6.png"] = Case(
    lambda: png(PICTURE.reshape(16, -1), 24, 8, 2, chunk(b"eXIf", turned(6).tobytes()[6:])), UPRIGHT[6](PICTURE)
)
CASES["profile-absurd.png"] = Case(
    lambda: png(PICTURE.reshape(16, -1), 24, 8, 2, chunk(b"iCCP", b"absurd\0\0" + zlib.compress(b"\xff" * 999))),
    PICTURE,
)
CASES["bomb-in-a-text.png"] = Case(
    lambda: png(PICTURE.reshape(16, -1), 24, 8, 2, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000), 9))),
    r"^cannot be decoded: .*(?i:decompressed data too large)",
)
CASES["bomb-in-a-profile.png"] = Case(
    lambda: png(PICTURE.reshape(16, -1), 24, 8, 2, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000), 9))),
    r"^cannot be decoded: .*(?i:decompressed data too large)",
)
CASES["1-by-20000.png"] = Case(
    lambda: png(np.full((20_000, 3), [1, 2, 3], np.uint8), 1, 8, 2), np.full((20_000, 1, 3), [1, 2, 3])
)
CASES["20000-by-1.png"] = Case(
    lambda: png(np.tile(np.array([1, 2, 3], np.uint8), (1, 20_000)), 20_000, 8, 2),
    np.full((1, 20_000, 3), [1, 2, 3]),
)
CASES["header-of-30000-squared.png"] = Case(
    lambda: b"\x89PNG\r\n\x1a\n" + header(30_000, 30_000, 8, 2) + chunk(b"IDAT", zlib.compress(bytes(999))),
    r"^30000 x 30000 pixels; at most 178,956,970 are read \(--max-pixels\)$",
)
CASES["header-of-4294967295-by-1.png"] = Case(
    lambda: b"\x89PNG\r\n\x1a\n" + header(2**32 - 1, 1, 8, 2) + chunk(b"IDAT", zlib.compress(bytes(999))),
    r"^4294967295 x 1 pixels; at most ",
)
CASES["header-of-0-by-0.png"] = Case(
    lambda: b"\x89PNG\r\n\x1a\n" + header(0, 0, 8, 2) + chunk(b"IDAT", zlib.compress(b"")),
    r"^cannot be decoded: a PNG file",
)
CASES["truncated.png"] = Case(lambda: png(PICTURE.reshape(16, -1), 24, 8, 2)[:-60], r"^cannot be decoded: .*truncated")


def flipped(data: bytes, at: int) -> bytes:
    """One bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


CASES["wrong-checksum-in-the-header.png"] = Case(
    lambda: flipped(png(PICTURE.reshape(16, -1), 24, 8, 2), 29), r"^cannot be decoded: a PNG file .*IHDR"
)
CASES["wrong-checksum-of-the-pixels.png"] = Case(
    lambda: flipped(png(PICTURE.reshape(16, -1), 24, 8, 2), -13), r"^cannot be decoded: .*wrong checksum in IDAT"
)


@case("interlaced.png", PICTURE)
def _() -> bytes:
    # Adam7: seven smaller pictures, each unfiltered; (first row, first column, step down, step right)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b"".join(
        b"\0" + row.tobytes() for top, left, down, right in passes for row in PICTURE[top::down, left::right]
    )
    parts = [header(24, 16, 8, 2, interlaced=True), chunk(b"IDAT", zlib.compress(lines, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animated(kind: str, **options: Any) -> bytes:
    """Three frames, of which the first is PICTURE or, in a GIF, plain red."""
    first = Image.fromarray(PICTURE) if kind != "GIF" else Image.new("RGB", (24, 16), "red")
    rest = [Image.new("RGB", (24, 16), colour) for colour in ("lime", "blue")]
    return saved(first, kind, save_all=True, append_images=rest, duration=100, **options)


CASES["animated.png"] = Case(lambda: animated("PNG"), PICTURE)
CASES["animated.gif"] = Case(lambda: animated("GIF"), np.full((16, 24, 3), [255, 0, 0]))
CASES["animated.webp"] = Case(lambda: animated("WEBP", lossless=True), PICTURE)


# GIF and WebP


def indexed() -> Image.Image:
    image = Image.fromarray(INDICES, "P") if INDICES.ndim > 2 else Image.frombytes("P", (24, 16), INDICES.tobytes())
    image.putpalette(PALETTE.tobytes())
    return image


CASES["transparent.gif"] = Case(
    lambda: saved(indexed(), "GIF", transparency=1), seen_through(PALETTE[INDICES], INDICES == 1)
)
CASES["truncated.gif"] = Case(lambda: saved(indexed(), "GIF")[:-30], r"^cannot be decoded: .*truncated")
CASES["truncated-in-the-header.gif"] = Case(
    lambda: saved(indexed(), "GIF")[:12], r"^cannot be decoded: a GIF file that is truncated, damaged or of a rare kind"
)
CASES["no-frames.gif"] = Case(
    lambda: b"GIF89a" + struct.pack("<HHBBB", 24, 16, 0, 0, 0) + b";",
    r"^cannot be decoded: a GIF file .*no more images",
)
CASES["frame-of-65535-squared.gif"] = Case(
    lambda: (
        b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b"!\xf9\x04\x08\0\0\0\0"  # to be disposed of, for which Pillow fills a canvas as it opens the file
        + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x02\0;"
    ),
    r"^65535 x 65535 pixels; at most 178,956,970 are read \(--max-pixels\)$",
)
CASES["lossy.webp"] = Case(lambda: saved(PICTURE, "WEBP", quality=95), PICTURE, 24)
CASES["exif-orientation-8.webp"] = Case(
    lambda: saved(PICTURE, "WEBP", lossless=True, exif=turned(8)), UPRIGHT[8](PICTURE)
)
CASES["transparent.webp"] = Case(
    lambda: saved(np.dstack([PICTURE, ALPHA]), "WEBP", lossless=True, exact=True), over_white(PICTURE, ALPHA), 1
)
CASES["truncated.webp"] = Case(
    lambda: saved(PICTURE, "WEBP", lossless=True)[:-20], r"^cannot be decoded: a WEBP file that is truncated"
)
CASES["canvas-of-16777216-squared.webp"] = Case(
    lambda: b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff" * 6,
    r"^16777216 x 16777216 pixels; at most ",
)


# AVIF and JPEG 2000


CASES["lossy.avif"] = Case(lambda: saved(PICTURE, "AVIF", quality=95, subsampling="4:4:4"), PICTURE, 6)
CASES["transparent.avif"] = Case(
    lambda: saved(np.dstack([PICTURE, ALPHA]), "AVIF", quality=100, subsampling="4:4:4"), over_white(PICTURE, ALPHA), 6
)
CASES["orientation-6.avif"] = Case(
    lambda: saved(PICTURE, "AVIF", quality=95, subsampling="4:4:4", exif=turned(6)), UPRIGHT[6](PICTURE), 6
)
CASES["truncated.avif"] = Case(lambda: saved(PICTURE, "AVIF")[:-40], r"^cannot be decoded: .*(?i:truncated)")
CASES["lossless.jp2"] = Case(lambda: saved(PICTURE, "JPEG2000"), PICTURE)
CASES["lossless.j2k"] = Case(lambda: saved(PICTURE, "JPEG2000", no_jp2=True), PICTURE)
CASES["grey-16.jp2"] = Case(lambda: saved(DEEP.astype(np.uint16), "JPEG2000"), grey(np.rint(DEEP / 257)))
CASES["transparent.jp2"] = Case(lambda: saved(np.dstack([PICTURE, ALPHA]), "JPEG2000"), over_white(PICTURE, ALPHA), 1)
CASES["four-components.j2k"] = Case(
    lambda: saved(np.dstack([PICTURE, ALPHA]), "JPEG2000", no_jp2=True),
    r"^4 components, none of them declared to be opacity \(no channel definition\); --bands selects some, such as 1,2,3$",
)
CASES["truncated.jp2"] = Case(
    lambda: saved(PICTURE, "JPEG2000")[:-40], r"^cannot be decoded: a JPEG2000 file that is trunc"
)


# BMP and PPM


def bmp(height: int, width: int = 24) -> bytes:
    """A BMP of 24 bits that holds PICTURE from its first row on."""
    rows = PICTURE[..., ::-1].tobytes()
    return (
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 54 + len(rows), 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + rows
    )


CASES["bottom-up.bmp"] = Case(lambda: bmp(16), PICTURE[::-1])
CASES["top-down.bmp"] = Case(lambda: bmp(-16), PICTURE)
CASES["header-of-2147483647-squared.bmp"] = Case(
    lambda: bmp(2**31 - 1, 2**31 - 1), r"^2147483647 x 2147483647 pixels; at"
)
CASES["truncated.bmp"] = Case(lambda: bmp(16)[:-400], r"^cannot be decoded: .*truncated")
CASES["grey-16.pgm"] = Case(lambda: b"P5 24 16 65535\n" + DEEP.astype(">u2").tobytes(), grey(np.rint(DEEP / 257)))
CASES["plain-with-a-comment.ppm"] = Case(
    lambda: b"P3\n# by hand\n24 16\n255\n" + b" ".join(b"%d" % level for level in PICTURE.reshape(-1)) + b"\n", PICTURE
)
CASES["truncated.ppm"] = Case(
    lambda: b"P6 24 16 255\n" + PICTURE.tobytes()[:-100], r"^cannot be decoded: .*(truncated|not enough image data)"
)


# TIFF


def tiff(
    pixels: bytes, photometric: int, bits: int, samples: int = 1, *, order: str = "<", **more: int | list[int]
) -> bytes:
    """A TIFF of 24 x 16, in one uncompressed strip unless ``more`` says otherwise.

    Its pixels are at the end. ``photometric``: 0 where 0 is white, 1 where it is black, 2 for RGB, 3 for a palette, 8 for LAB.
    """
    names = {
        "orientation": 274,
        "planar": 284,
        "predictor": 317,
        "width": 256,
        "length": 257,
        "compression": 259,
        "extra": 338,
        "sample_format": 339,
        "palette": 320,
    }
    names |= {"tile_width": 322, "tile_length": 323, "tile_offsets": 324, "tile_sizes": 325}
    tags: dict[int, int | list[int]] = {256: 24, 257: 16, 258: [bits] * samples, 259: 1, 262: photometric, 277: samples}
    if "tile_width" not in more:
        tags |= {273: 0, 278: 16, 279: len(pixels)}
    if more.get("planar") == 2:  # a strip for each band
        tags |= {273: [0] * samples, 279: [len(pixels) // samples] * samples}
    tags |= {names[name]: value for name, value in more.items()}
    place = 8 + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    sizes = {tag: 2 * len(value) for tag, value in tags.items() if isinstance(value, list) and len(value) > 2}
    start_of_pixels = place + sum(sizes.values())
    for tag in (273, 324):
        if isinstance(tags.get(tag), list):
            tags[tag] = [start_of_pixels + band * len(pixels) // samples for band in range(samples)]
        elif tag in tags:
            tags[tag] = start_of_pixels
    for tag, value in sorted(tags.items()):
        if isinstance(value, int):
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
            continue
        packed = struct.pack(f"{order}{len(value)}H", *value)
        entries += struct.pack(order + "HHI", tag, 3, len(value))
        entries += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", place + len(beyond))
        beyond += packed if len(packed) > 4 else b""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = mark + struct.pack(order + "IH", 8, len(tags))
    return start + entries + struct.pack(order + "I", 0) + beyond + pixels


PREMULTIPLIED = np.rint(PICTURE * (ALPHA[..., None] / 255)).astype(np.uint8)
FRACTIONS = np.linspace(0, 1, 16 * 24, dtype="<f4").reshape(16, 24)
TWELVE = (DEEP >> 4).reshape(16, 12, 2).astype(np.uint32)
TWELVE_PACKED = (TWELVE[..., 0] << 12 | TWELVE[..., 1])[..., None] >> np.array([16, 8, 0]) & 0xFF
BANDS = np.stack([X * 5 + Y + 9 * band for band in range(13)], axis=-1).astype(np.uint8)  # 0 to 238
LAB = np.stack([255 - 4 * (X + Y), X - 8, Y - 8], axis=-1)  # lightness of 0 to 255, then signed a and b
ENTRIES = [int(level) * 257 for channel in PALETTE.T for level in np.pad(channel, (0, 253))]


def rgb_of_lab(lab: np.ndarray) -> np.ndarray:
    """(H, W, 3) CIE L*a*b* under D50 (L of 0 to 255) to sRGB levels, by the definitions."""
    height = (lab[..., 0] / 2.55 + 16) / 116
    roots = np.stack([height + lab[..., 1] / 500, height, height - lab[..., 2] / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 108 / 841) * [0.9642, 1.0, 0.8249]
    matrix = np.array([[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]])  # D50 to sRGB
    linear = np.clip(xyz @ matrix.T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


CASES["grey-16-little.tif"] = Case(lambda: tiff(DEEP.astype("<u2").tobytes(), 1, 16), grey(np.rint(DEEP / 257)))
CASES["grey-16-big.tif"] = Case(lambda: tiff(DEEP.astype(">u2").tobytes(), 1, 16, order=">"), grey(np.rint(DEEP / 257)))
CASES["grey-16-zero-is-white.tif"] = Case(
    lambda: tiff(DEEP.astype("<u2").tobytes(), 0, 16), grey(255 - np.rint(DEEP / 257))
)
CASES["grey-12.tif"] = Case(
    lambda: tiff(TWELVE_PACKED.astype(np.uint8).tobytes(), 1, 12), grey(np.rint((DEEP >> 4) * (255 / 4095)))
)
CASES["grey-32-signed.tif"] = Case(
    lambda: tiff(DEEP.astype("<i4").tobytes(), 1, 32, sample_format=2), grey(np.rint(DEEP / 257))
)
CASES["grey-32-negative.tif"] = Case(
    lambda: tiff((-DEEP.astype("<i4")).tobytes(), 1, 32, sample_format=2),
    r"^grey values from -65110 to 0; expected 0 to",
)
CASES["float.tif"] = Case(
    lambda: tiff(FRACTIONS.tobytes(), 1, 32, sample_format=3), grey(np.rint(FRACTIONS.astype(float) * 255))
)
CASES["float-of-0-to-300.tif"] = Case(
    lambda: tiff((FRACTIONS * 300).tobytes(), 1, 32, sample_format=3),
    r"^grey values from 0 to 300; expected 0 to 1 \(--value-range 0-511 would fit\)$",
)
CASES["rgb-16.tif"] = Case(lambda: tiff(np.stack(DEEP_RGB, axis=-1).astype("<u2").tobytes(), 2, 16, 3), HIGH_BYTES)
CASES["rgb-float.tif"] = Case(
    lambda: tiff((PICTURE / 255).astype("<f4").tobytes(), 2, 32, 3, sample_format=[3, 3, 3]),
    PICTURE,
)
CASES["rgbx.tif"] = Case(
    lambda: tiff(np.dstack([PICTURE, ALPHA]).tobytes(), 2, 8, 4, extra=[0]),
    r"^4 bands, 1 of them neither colour nor declared alpha \(ExtraSamples: unspecified\); --bands selects some, such as 1,2",
)
CASES["rgb-and-infrared-undeclared.tif"] = Case(
    lambda: tiff(np.dstack([PICTURE, ALPHA]).tobytes(), 2, 8, 4),
    r"^4 bands, 1 of them .* \(ExtraSamples: none\); --bands selects some, such as 1,2,3$",
)
CASES["grey-and-infrared.tif"] = Case(
    lambda: tiff(np.dstack([GREY, ALPHA]).tobytes(), 1, 8, 2, extra=[0]),
    r"^2 bands, 1 of them .* \(ExtraSamples: unspecified\); --bands selects some, such as 1$",
)
CASES["rgb-alpha-and-infrared.tif"] = Case(
    lambda: tiff(np.dstack([PICTURE, ALPHA, GREY]).tobytes(), 2, 8, 5, extra=[2, 0]),
    r"^5 bands, 2 of them .* \(ExtraSamples: alpha, unspecified\); --bands selects some, such as 1,2,3$",
)
CASES["13-bands.tif"] = Case(  # as Sentinel-2's are stored, band by band
    lambda: tiff(np.moveaxis(BANDS, -1, 0).tobytes(), 1, 8, 13, planar=2, extra=[0] * 12),
    r"^13 bands, 12 of them .* \(ExtraSamples: unspecified\); --bands selects some, such as 1,2,3$",
)
CASES["rgba.tif"] = Case(
    lambda: tiff(np.dstack([PICTURE, ALPHA]).tobytes(), 2, 8, 4, extra=[2]), over_white(PICTURE, ALPHA), 1
)
CASES["grey-8-signed.tif"] = Case(
    lambda: tiff((GREY // 2).astype("i1").tobytes(), 1, 8, sample_format=2), grey(GREY // 2)
)
CASES["grey-8-negative.tif"] = Case(  # Pillow reads -100 as 156
    lambda: tiff((GREY.astype(int) // 2 - 100).astype("i1").tobytes(), 1, 8, sample_format=2),
    r"^grey values from -100 to 22; expected 0 to 255 \(--value-range -128-31 would fit\)$",
)
CASES["grey-32-unsigned.tif"] = Case(
    lambda: tiff((DEEP.astype("<u4") << 16).tobytes(), 1, 32),
    r"^grey values from 0 to 4.26705e\+09; expected 0 to 65535 \(--value-range 0-4294967295 would fit\)$",
)
CASES["float-64.tif"] = Case(
    lambda: tiff(FRACTIONS.astype("<f8").tobytes(), 1, 64, sample_format=3),
    grey(np.rint(FRACTIONS.astype(float) * 255)),
)
CASES["rgba-premultiplied.tif"] = Case(
    lambda: tiff(np.dstack([PREMULTIPLIED, ALPHA]).tobytes(), 2, 8, 4, extra=[1]),
    PREMULTIPLIED + (255.0 - ALPHA[..., None]),
    2,
)
CASES["lab.tif"] = Case(lambda: tiff(LAB.astype(np.uint8).tobytes(), 8, 8, 3), rgb_of_lab(LAB), 3)
CASES["palette-with-alpha.tif"] = Case(
    lambda: tiff(np.stack([INDICES, ALPHA], axis=-1).tobytes(), 3, 8, 2, extra=[2], palette=ENTRIES),
    over_white(PALETTE[INDICES], ALPHA),
    1,
)
CASES["orientation-5.tif"] = Case(lambda: saved(PICTURE, "TIFF", exif=turned(5)), UPRIGHT[5](PICTURE))
CASES["deflate.tif"] = Case(lambda: tiff(zlib.compress(PICTURE.tobytes(), 9), 2, 8, 3, compression=8), PICTURE)
CASES["deflate-damaged.tif"] = Case(  # libtiff has much to say about it
    lambda: tiff(flipped(zlib.compress(PICTURE.tobytes(), 9), 40), 2, 8, 3, compression=8),
    r"^cannot be decoded: a TIFF file that is truncated, damaged",
)
CASES["truncated-pixels.tif"] = Case(lambda: tiff(PICTURE.tobytes(), 2, 8, 3)[:-99], r"^cannot be decoded: .*truncated")
CASES["truncated-tags.tif"] = Case(lambda: tiff(PICTURE.tobytes(), 2, 8, 3)[:40], r"^cannot be decoded: .*truncated")
CASES["tile-of-60000-squared.tif"] = Case(
    lambda: tiff(b"", 1, 8, compression=8, tile_width=60_000, tile_length=60_000, tile_offsets=0, tile_sizes=9),
    r"^60000 x 60000 pixels; at most ",
)
CASES["99-samples-a-pixel.tif"] = Case(  # about which Pillow would log an error
    lambda: tiff(PICTURE.tobytes(), 2, 8, 99),
    r"^99 bands, 96 of them neither colour nor declared alpha \(ExtraSamples: none\); ",
)


# No images

CASES["empty.jpg"] = Case(lambda: b"", r"^the file is empty$")
CASES["text.jpg"] = Case(lambda: b"Please find the photo attached.\n", r"^not an image of a known format .*b'Please f'")
CASES["page.png"] = Case(lambda: b"<!DOCTYPE html><title>404</title>\n", r"^not an image of a known format")


def write(folder: Path, cases: Mapping[str, Case]) -> None:
    for name, (data, _, _) in cases.items():
        (folder / name).write_bytes(data())


if __name__ == "__main__":
    write(FOLDER, CASES)
