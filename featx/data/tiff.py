"""TIFFs of any number of bands and any numeric type: the samples as they are in the file.

Pillow reads the TIFFs of photographs. For all others, a TIFF of grey bytes is made of the same strips or tiles, which Pillow
and libtiff decompress; types, byte order, bands and predictors are applied here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from featx.data.samples import FLOAT, Values, ValueType, integers, rows_of
from featx.errors import ImageError
from featx.text import counted

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT, EXTRA_SAMPLES = 258, 262, 339, 338
TILE_WIDTH, TILE_LENGTH, ORIENTATION = 322, 323, 274
_WIDTH, _LENGTH, _COMPRESSION, _FILL_ORDER, _SAMPLES, _PLANAR, _PREDICTOR = 256, 257, 259, 266, 277, 284, 317
_STRIPS, _ROWS, _STRIP_SIZES, _TILES, _TILE_SIZES = 273, 278, 279, 324, 325

_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3, 32845: 3}
"""Samples of colour for each photometric interpretation: RGB, CMYK, YCbCr, three kinds of LAB, LogLuv; others have one."""

_ALPHA = (1, 2, 999)
"""Kinds of extra samples that are alpha: premultiplied, plain, and as Corel Draw 10 writes it."""

_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions of bytes: none, LZW, deflate, PackBits, LZMA, Zstandard. JPEG and its kind compress pixels."""

MOST_BYTES = 16
"""Bytes of samples for each pixel that is allowed."""


@dataclass(frozen=True)
class TiffLayout:
    """How the samples of a TIFF's first image are laid out.

    Attributes:
        size: (width, height).
        samples: the number of bands.
        bits: bits of each sample; 0 if they differ.
        format: 1 for unsigned integers, 2 for signed ones, 3 for floats; 0 if they differ.
        photometric: 0 where 0 is white, 1 where it is black, 2 for RGB, and others.
        extra: the kind of each declared extra sample.
        tags: all tags.
        order: "<" or ">".
    """

    size: tuple[int, int]
    samples: int
    bits: int
    format: int
    photometric: int
    extra: tuple[int, ...]
    tags: Any
    order: str

    @classmethod
    def read(cls, data: bytes) -> TiffLayout:
        """Read the tags of the first image."""
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16] if data[2:4] in (b"+\0", b"\0+") else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return cls.of(tags)

    @classmethod
    def of(cls, tags: Any) -> TiffLayout:
        """The layout that tags describe."""
        bits = tags.get(BITS_PER_SAMPLE, (1,))
        formats = tags.get(SAMPLE_FORMAT, (1,))
        compression, photometric = tags.get(_COMPRESSION, 1), tags.get(PHOTOMETRIC, 0)
        return cls(
            size=(int(tags[_WIDTH]), int(tags[_LENGTH])),
            samples=int(tags.get(_SAMPLES, 3 if compression == 7 and photometric in (2, 6) else 1)),
            bits=int(bits[0]) if len(set(bits)) == 1 else 0,
            format=int(formats[0]) if len(set(formats)) == 1 else 0,
            photometric=int(photometric),
            extra=tuple(tags.get(EXTRA_SAMPLES, ())),
            tags=tags,
            order=">" if tags.prefix == b"MM" else "<",
        )

    @property
    def undeclared(self) -> int:
        """The number of bands that are neither colours nor declared to be alpha."""
        beside = self.samples - _COLOURS.get(self.photometric, 1)
        return beside if beside > 0 and not (beside == 1 and self.extra and self.extra[0] in _ALPHA) else 0

    @property
    def is_unusual(self) -> bool:
        """Whether featx reads the image, of grey or RGB with or without plain alpha, and Pillow does not: floats of 64 bits."""
        order = self.tags.prefix
        formats, bits = (self.format,), (self.bits,) * self.samples
        key = (order, self.photometric, formats, int(self.tags.get(_FILL_ORDER, 1)), bits, self.extra)
        return bool(self.colour_bands) and not self._fault() and key not in TiffImagePlugin.OPEN_INFO

    @property
    def is_deep_colour(self) -> bool:
        """Whether the image is of RGB of 16 bits, with or without plain alpha."""
        return self.bits == 16 and self.photometric == 2 and self.extra in ((), (2,))

    @property
    def has_deep_planes(self) -> bool:
        """Whether bands of 16 bits are stored one after another and uncompressed, which Pillow takes for 8 bits."""
        is_plain = int(self.tags.get(_COMPRESSION, 1)) == 1
        return self.bits == 16 and self.samples > 1 and is_plain and int(self.tags.get(_PLANAR, 1)) == 2

    @property
    def colour_bands(self) -> tuple[int, ...]:
        """The bands of grey or RGB and of plain alpha; none for other kinds of colour."""
        colours = {0: 1, 1: 1, 2: 3}.get(self.photometric, 0)
        has_alpha = self.samples == colours + 1 and self.extra[:1] in ((2,), (999,))
        return tuple(range(1, self.samples + 1)) if colours and self.samples - has_alpha == colours else ()

    def band_error(self) -> ImageError:
        """Why an image with undeclared bands is not read, and what helps."""
        kinds = {0: "unspecified", 1: "premultiplied alpha", 2: "alpha"}
        declared = ", ".join(kinds.get(kind, str(kind)) for kind in dict.fromkeys(self.extra[:3])) or "none"
        example = "1,2,3" if self.samples > 2 else "1"
        return ImageError(
            f"{self.samples} bands, {self.undeclared} of them neither colour nor declared alpha (ExtraSamples: {declared}); "
            f"--bands selects some, such as {example}"
        )

    @property
    def type(self) -> ValueType:
        """The type of the samples."""
        return FLOAT if self.format == 3 else integers(self.bits, signed=self.format == 2)

    @property
    def bytes(self) -> int:
        """The size of all samples."""
        return self.size[0] * self.size[1] * self.samples * self.bits // 8

    def require_readable(self, max_pixels: int) -> None:
        """Check that ``tiff_values`` reads this layout.

        Raises:
            ImageError: it does not.
        """
        if fault := self._fault():
            raise ImageError(f"a TIFF of {counted(self.samples, 'band')} {fault}")
        if self.bytes > MOST_BYTES * max_pixels:
            raise ImageError(
                f"{self.size[0]} x {self.size[1]} pixels of {counted(self.samples, 'band')} have {self.bytes:,} bytes; at most "
                f"{MOST_BYTES * max_pixels:,} are read (--max-pixels)"
            )

    def _fault(self) -> str:
        """Why the samples cannot be read as they are, after "a TIFF of N bands"; "" if they can."""
        compression = int(self.tags.get(_COMPRESSION, 1))
        if self.bits not in ((16, 32, 64) if self.format == 3 else (8, 16, 32, 64)) or self.format not in (1, 2, 3):
            bits = self.bits or "different numbers of"
            return f"of {bits} bits each; expected integers of 8, 16, 32 or 64 bits, or floats of 16, 32 or 64"
        if compression not in _LOSSLESS:
            name = TiffImagePlugin.COMPRESSION_INFO.get(compression, compression)
            return f"compressed as {name}; expected LZW, deflate or no compression"
        return ""


def tiff_values(data: bytes, layout: TiffLayout, bands: Sequence[int] = ()) -> Values:
    """Read the samples of a TIFF that ``require_readable`` accepts.

    Args:
        data: the file.
        layout: of its first image.
        bands: numbers from 1 of the bands to read; none means all, in their order.

    Raises:
        ImageError: there is no such band.
    """
    if bands and max(bands) > layout.samples:
        raise ImageError(f"there is no band {max(bands)} (--bands); the image has {layout.samples}")
    chosen = [band - 1 for band in bands] or list(range(layout.samples))
    if layout.tags.get(_PLANAR, 1) == 2 and layout.samples > 1:
        planes = {band: _Plane(data, layout, band) for band in set(chosen)}
        parts = [planes[band] for band in chosen]

        def rows(top: int, bottom: int) -> np.ndarray:
            return np.concatenate([plane.rows(top, bottom) for plane in parts], axis=-1)

        return Values(layout.size, layout.type, len(chosen), rows, layout.photometric == 0)
    plane = _Plane(data, layout, None)
    return Values(
        layout.size, layout.type, len(chosen), lambda t, b: plane.rows(t, b)[..., chosen], layout.photometric == 0
    )


class _Plane:
    """The samples of one band that is stored by itself, or of all bands that are stored together.

    Args:
        data: the file.
        layout: its layout.
        band: from 0; None if all bands are stored together.
    """

    def __init__(self, data: bytes, layout: TiffLayout, band: int | None) -> None:
        self._layout, self._samples = layout, 1 if band is not None else layout.samples
        tags, self._size = layout.tags, layout.bits // 8
        self._predictor = int(tags.get(_PREDICTOR, 1)) if tags.get(_COMPRESSION, 1) != 1 else 1
        across = int(tags[TILE_WIDTH]) if TILE_WIDTH in tags else layout.size[0]
        self._tiles, self._across = -(-layout.size[0] // across), across
        file = _of_bytes(data, layout, self._tiles * across, self._samples * self._size, band)
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(file), "")
        image.load()
        self._bytes = rows_of(image)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """(h, W, S) samples of these rows."""
        raw = np.ascontiguousarray(self._bytes(top, bottom)).reshape(bottom - top, self._tiles, -1)
        kind = {1: "u", 2: "i", 3: "f"}[self._layout.format]
        wanted = np.dtype(f"{self._layout.order}{kind}{self._size}")
        if self._predictor == 3:
            values = self._planes_of_bytes(raw).view(f">f{self._size}")
        elif self._predictor == 2:
            whole = np.dtype(f"{self._layout.order}u{self._size}")
            steps = raw.view(whole).reshape(*raw.shape[:2], self._across, self._samples)
            values = np.cumsum(steps, axis=2, dtype=whole.newbyteorder("=")).astype(whole).view(wanted)
        else:
            values = raw.view(wanted)
        return values.reshape(bottom - top, -1, self._samples)[:, : self._layout.size[0]]

    def _planes_of_bytes(self, raw: np.ndarray) -> np.ndarray:
        """Undo TIFF's predictor for floats: differences of bytes, of which the highest of all samples come first."""
        shape = raw.shape[:2]
        sums = np.cumsum(raw.reshape(*shape, -1, self._samples), axis=2, dtype=np.uint8)
        planes = sums.reshape(*shape, self._size, -1)
        return np.ascontiguousarray(planes.swapaxes(2, 3)).reshape(*shape, -1)


def _of_bytes(data: bytes, layout: TiffLayout, width: int, pixel: int, band: int | None) -> bytes:
    """The file with tags of its own: grey of 8 bits and ``width * pixel`` columns, of the same strips or tiles."""
    tags = layout.tags
    entries: dict[int, Sequence[int]] = {
        _WIDTH: [width * pixel],
        _LENGTH: [layout.size[1]],
        BITS_PER_SAMPLE: [8],
        _COMPRESSION: [int(tags.get(_COMPRESSION, 1))],
        PHOTOMETRIC: [1],
        _FILL_ORDER: [int(tags.get(_FILL_ORDER, 1))],
        _SAMPLES: [1],
    }
    if TILE_WIDTH in tags:
        entries |= {TILE_WIDTH: [int(tags[TILE_WIDTH]) * pixel], TILE_LENGTH: [int(tags[TILE_LENGTH])]}
    else:
        entries |= {_ROWS: [min(int(tags.get(_ROWS, layout.size[1])), layout.size[1])]}
    for tag in (_TILES, _TILE_SIZES) if TILE_WIDTH in tags else (_STRIPS, _STRIP_SIZES):
        if tag in tags:
            places = tags[tag] if isinstance(tags[tag], tuple) else (tags[tag],)
            share = len(places) // layout.samples
            entries[tag] = places if band is None else places[band * share : (band + 1) * share]
    return _with_tags(data, layout.order, entries)


def _with_tags(data: bytes, order: str, entries: dict[int, Sequence[int]]) -> bytes:
    """A TIFF of the same bytes with these tags only, appended at its end."""
    start = len(data) + len(data) % 2
    after = start + 2 + 12 * len(entries) + 4
    table, beyond = struct.pack(order + "H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        table += struct.pack(order + "HHI", tag, 4, len(values))
        table += packed if len(values) == 1 else struct.pack(order + "I", after + len(beyond))
        beyond += packed if len(values) != 1 else b""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "I", start)
    return b"".join([head, memoryview(data)[8:], bytes(len(data) % 2), table, bytes(4), beyond])
