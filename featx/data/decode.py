"""Decode bytes to RGB pixels, with every rule about bad images.

The rules:

- The content of a file decides its format, not its name: JPEG, PNG, GIF, BMP, PPM, TIFF, WebP, AVIF, JPEG 2000; with their
  plug-ins HEIF, JPEG XL and DICOM; arrays of NumPy (NPY). Of several frames the first counts; of the images of a HEIF the
  primary one, without its gain map.
- EXIF orientation is applied; a damaged EXIF block is ignored. HEIF and JPEG XL have an orientation of their own, which their
  decoders apply instead. Colour profiles are never applied.
- Grey, CMYK, YCCK and LAB become RGB. Of 16-bit colour, and of AVIF and HEIF of more than 8 bits, the high byte counts. Grey of
  12 or more bits and float grey (0 to 1) are scaled, never clipped; values out of range are an error.
  ``Transform.value_range`` sets another range.
- Transparency is composited over white, or over another background if one is named.
- A network of one channel gets grey: the luma of ITU-R BT.601, as Pillow's mode L has it, of the composited image before it is
  resized. A network of neither 1 nor 3 channels gets as many bands of the file, each without the meaning of a colour.
- DICOM: see ``dicom.dicom_values``: rescaled grey through the window of the file, or through the value range.
- Bands of a TIFF that are neither colours nor declared to be alpha are an error, unless ``Transform.bands`` names the bands
  to read.
- An image that cannot be decoded whole is an ``ImageError`` with the reason: truncated, a wrong checksum, a rare kind that
  Pillow does not read, or more pixels than allowed. The header tells the size, before a pixel is decoded. If the cause lies
  in the machine (too little memory, a missing plug-in), the error is a ``MachineError``.
- Large images wait for one another, so that all threads together stay within ``memory.BUDGET``.
- libtiff and Pillow write nothing to stderr; see ``_silence``.
- Resizing and cropping give the same bytes as torchvision's presets on a (3, H, W) uint8 tensor of the image, with torch's
  antialiased filters. "nearest" takes the pixel under the centre (nearest-exact in torchvision, nearest in Pillow).
- Before that, the longer side is cut about its centre to at most N times the shorter one, N = max(8, ceil(crop / resize) +
  1), so that a very long image needs little memory. An image that is squashed or padded needs no such cut.
- A JPEG is decoded at 1/2, 1/4 or 1/8 of its size only if ``Transform.decoding`` requests it.

Missing or garbled JPEG data in the middle of a scan cannot be detected: libjpeg fills it in as it can.

Each rule has a file in ``tests/images``; those of plug-ins, tests beside the module that calls them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageColor, ImageFile

from featx.data import turbo
from featx.data.arrays import array_file, array_values, colour_bands, require_image
from featx.data.boxes import Box
from featx.data.deep import deep_colour, deep_grey, heif_values, undeclared_components
from featx.data.dicom import dicom_values
from featx.data.formats import format_of
from featx.data.memory import BUDGET, Lease
from featx.data.pillow import (
    EXIF_ORIENTATION,
    TOO_LITTLE_MEMORY,
    TURNS,
    Turn,
    check_size,
    finish,
    image_error,
    known_format,
    open_image,
    turn_of,
)
from featx.data.plugins import opener
from featx.data.samples import (
    FULL_16_BITS,
    Values,
    ValueType,
    integers,
    lend,
    paint_bands,
    paint_image,
    paint_values,
    values_of_8_bit,
)
from featx.data.tiff import MOST_BYTES, ORIENTATION, TiffLayout, tiff_values
from featx.data.transform import WHITE, Transform, channels, cut_views, is_colour
from featx.errors import DatasetError, ImageError, MachineError
from featx.layer_spec import PLAIN, View

Result = TypeVar("Result")

DECODER_VERSION = 3
"""Part of every identity. Raise it whenever a change here may change a pixel."""

MAX_PIXELS = 178_956_970
"""Images of more pixels (width x height) are refused as decompression bombs: twice the level at which Pillow warns."""


def parse_colour(text: str) -> tuple[int, int, int]:
    """Parse a CSS colour name or #rrggbb to (R, G, B), each 0 to 255.

    Raises:
        ValueError: there is no such colour, or it is transparent.

    Examples:
        >>> parse_colour("navy")
        (0, 0, 128)
    """
    colour: tuple[int, ...] = ()
    with contextlib.suppress(ValueError):
        colour = ImageColor.getrgb(text)
    if not is_colour(colour):
        raise ValueError(f"{text!r} is not an opaque colour; expected a CSS colour name such as black, or #rrggbb")
    red, green, blue = colour[:3]
    return red, green, blue


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Decode an image.

    If an image is within ``max_pixels`` but above ``PIL.Image.MAX_IMAGE_PIXELS``, that limit, which applies to the whole
    process, is raised to the image's size. It is never lowered again, so that threads do not disturb one another.

    Args:
        data: the bytes of an image file.
        max_pixels: an image of more pixels (width x height) is refused, judged by its header.
        background: (R, G, B), each 0 to 255, behind transparent pixels.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        ImageError: the bytes are not a whole image of a known format, or the image is too large.
    """
    return with_pixels(
        data,
        Transform(background=background),
        lambda pixels: np.ascontiguousarray(channels(pixels)[..., :3]),
        max_pixels=max_pixels,
    )


def read_pixels(data: bytes, transform: Transform, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode, resize and crop an image.

    Args:
        data: the bytes of an image file.
        transform: ``Backbone`` applies its mean and std later, on its device.
        max_pixels: as ``decode``.

    Returns:
        ``transform.shape`` uint8: (3, H, W), RGB, unless the network takes other channels.

    Raises:
        ImageError: as ``decode``.
    """
    pixels: np.ndarray = read_views(data, transform, (PLAIN,), max_pixels=max_pixels)[0]
    return pixels


def read_views(
    data: bytes,
    transform: Transform,
    views: Sequence[View],
    *,
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> np.ndarray:
    """As ``read_pixels`` for V views, decoding and resizing once: (V, C, H, W) uint8. A box is cut out first."""
    least = transform.least_decoded
    return with_pixels(
        data, transform, lambda pixels: cut_views(pixels, transform, views), max_pixels=max_pixels, least=least, box=box
    )


def thumbnail(data: bytes, side: int, transform: Transform | None = None, *, box: Box | None = None) -> bytes:
    """Make a small copy of an image for people to look at.

    Args:
        data: the bytes of an image file.
        side: the length of the longer side in pixels. Smaller images are enlarged without smoothing.
        transform: its value range, bands and background apply.
        box: the part of the image to show; None for all of it.

    Returns:
        A JPEG file: RGB, upright, transparency over white, without the original's metadata.

    Raises:
        ImageError: as ``decode``.
    """

    def shrink(pixels: np.ndarray) -> Image.Image:
        height, width = pixels.shape
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)
        return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)

    small = with_pixels(data, (transform or Transform()).shown, shrink, max_pixels=MAX_PIXELS, least=side, box=box)
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=85)
    return file.getvalue()


def file_of(image: Any) -> Callable[[], bytes] | None:
    """Turn an image in memory into an image file without loss, so that it is decoded by the same rules as any file.

    Args:
        image: an image of Pillow; or an array, (H, W) or (H, W, C), which counts as an ``.npy`` file with it.

    Returns:
        A function that returns the bytes of the file, or raises ImageError; None if the argument is no image and no array.

    Raises:
        DatasetError: the array has another shape or dtype.
    """
    if isinstance(image, Image.Image):
        return lambda: _as_file(image)
    if not hasattr(image, "__array__"):
        return None
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        found = f"an array of shape {array.shape} and dtype {array.dtype}"
        raise DatasetError(f"{found} has its channels first; expected (H, W, 3): use array.transpose(1, 2, 0)")
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    is_photo = array.dtype == np.uint8 and (grey or (array.ndim == 3 and array.shape[2] in (3, 4)))
    if array.size and (is_photo or (grey and array.dtype == np.uint16)):
        return lambda: _as_file(Image.fromarray(array.squeeze(axis=2) if grey and array.ndim == 3 else array))
    try:
        require_image(array.shape, array.dtype)
    except ImageError as error:
        raise DatasetError(str(error)) from None
    return lambda: array_file(array)


def _as_file(image: Image.Image) -> bytes:
    """The bytes of a PNG file, or of a TIFF file where PNG cannot hold the values."""
    file = io.BytesIO()
    try:
        image.load()
        orientation = image.getexif().get(EXIF_ORIENTATION)
        if image.mode.startswith("I;16"):
            image = Image.fromarray(np.asarray(image).astype(np.uint16))
        if image.mode in ("I", "F"):
            image.save(file, "TIFF")
            return file.getvalue()
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
        exif = Image.Exif()
        if orientation is not None:
            exif[EXIF_ORIENTATION] = orientation
        image.save(file, "PNG", compress_level=1, exif=exif)
    except Exception as error:  # as in with_pixels: a lazily opened file may be damaged, and plug-ins raise anything
        raise ImageError(f"cannot be decoded: {error or type(error).__name__}") from error
    return file.getvalue()


def is_plain_jpeg(data: bytes, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a file is an upright RGB JPEG of an allowed size, judged by its header."""
    if format_of(data) != "JPEG":
        return False
    try:
        image = Image.OPEN["JPEG"][0](io.BytesIO(data), "")
        check_size(image.size, max_pixels)
    except Exception:  # decoding the file will report what is wrong
        return False
    return image.mode == "RGB" and bool(image.tile) and turn_of(image) is None


def full_size(data: bytes) -> tuple[int, int] | None:
    """The width and height of an upright JPEG by its header; None for other files, which are never decoded at a fraction."""
    if format_of(data) != "JPEG":
        return None
    image = Image.OPEN["JPEG"][0](io.BytesIO(data), "")
    turn = turn_of(image)
    width, height = image.size if turn is None else turn(np.broadcast_to(0, image.size[::-1])).shape[::-1]
    return width, height


def with_pixels(
    data: bytes,
    transform: Transform,
    work: Callable[[np.ndarray], Result],
    *,
    max_pixels: int,
    least: int = 0,
    box: Box | None = None,
) -> Result:
    """Decode an upright image, and return what ``work`` makes of it. Until then the budget of memory counts its pixels.

    Args:
        data: the bytes of an image file.
        transform: its background, value range and bands apply.
        work: takes the pixels, (H, W) uint32, C-contiguous, which nobody keeps. The bytes of each pixel in memory are R, G, B,
            and a fourth one without meaning. For a transform of one channel they are (H, W) uint8, grey; for one that reads
            bands, (H, W) of a void type with a byte for each.
        max_pixels: as in ``decode``.
        least: as in ``_shrink``; 0 decodes at full size, as a box does.
        box: the part of the upright image that ``work`` gets; None for all of it. What lies outside the image is cut off.

    Raises:
        ImageError: as ``decode``.
        MachineError: also where ``work`` runs out of memory.
    """
    kind = known_format(data)
    with BUDGET.lease() as lease:
        try:
            pixels = _upright(data, kind, transform, max_pixels, 0 if box else least, lease)
            if transform.channels == 1:
                pixels = grey_pixels(pixels)
            return work(pixels if box is None else _cut(pixels, box))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):  # RuntimeError is torch's
                raise MachineError(TOO_LITTLE_MEMORY) from error
            raise


def peek(data: bytes, transform: Transform, *, max_pixels: int) -> tuple[ValueType, float]:
    """The type of an image's samples, and the greatest value of a colour, before they become 8-bit levels.

    Args:
        data: the bytes of an image file.
        transform: its bands apply.
        max_pixels: as in ``decode``.

    Raises:
        ImageError: as ``decode``.
    """
    kind = known_format(data)
    with BUDGET.lease() as lease:
        try:
            if kind in ("DICOM", "NPY"):
                values, painted = _samples(data, kind, transform, max_pixels, lease)
                if painted is not transform:
                    return values.type, values.type.high
                return values.type, values.extremes(every=transform.reads_bands)[1]
            image = _open(data, kind, transform, max_pixels, lease)
            if isinstance(image, TiffLayout):
                found: Values | None = _tiff_bands(data, image, transform, max_pixels, lease)
            else:
                finish(image, data, kind)
                found = _values(image, data, kind, transform, always=True)
            assert found
            values = found
            return values.type, values.extremes(every=transform.reads_bands)[1]
        except ImageError:
            raise
        except Exception as error:  # as in ``with_pixels``
            raise image_error(error, kind, lease.held) from error


def _upright(data: bytes, kind: str, transform: Transform, max_pixels: int, least: int, lease: Lease) -> np.ndarray:
    try:
        pixels, turn = _decode(data, kind, transform, max_pixels, least, lease)
        return pixels if turn is None else np.ascontiguousarray(turn(pixels))
    except ImageError:
        raise
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, KeyError, ...
        raise image_error(error, kind, lease.held) from error


def grey_pixels(pixels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 grey of (H, W) uint32 pixels, as ``with_pixels`` has them."""
    height, width = pixels.shape
    return np.array(Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1).convert("L"))


def _cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The part of (H, W) pixels in a box, C-contiguous.

    Raises:
        ImageError: the box lies outside the image.
    """
    x, y, width, height = box
    part = pixels[y : y + height, x : x + width]
    if not part.size:
        rows, columns = pixels.shape
        raise ImageError(
            f"the box {x},{y},{width},{height} lies outside the image, which has {columns} x {rows} pixels"
        )
    return np.ascontiguousarray(part)


def _decode(
    data: bytes, kind: str, transform: Transform, max_pixels: int, least: int, lease: Lease
) -> tuple[np.ndarray, Turn | None]:
    """Decode to pixels as in ``with_pixels``, not yet turned; and the function that turns them upright."""
    if kind in ("DICOM", "NPY"):
        samples, transform = _samples(data, kind, transform, max_pixels, lease)
        return (paint_bands if transform.reads_bands else paint_values)(samples, transform), None
    image = _open(data, kind, transform, max_pixels, lease, least)
    if isinstance(image, TiffLayout):
        values = _tiff_bands(data, image, transform, max_pixels, lease)
        paint = paint_bands if transform.reads_bands else paint_values
        return paint(values, transform), TURNS.get(image.tags.get(ORIENTATION))
    if kind == "JPEG" and not (transform.changes_8_bit_images or transform.reads_bands):
        pixels = _load_jpeg(image, data, fraction=bool(least))
        return paint_image(image, transform) if pixels is None else pixels, turn_of(image)
    finish(image, data, kind)
    found = _values(image, data, kind, transform, always=transform.reads_bands)
    if found and transform.reads_bands:
        return paint_bands(found, transform), turn_of(image)
    return paint_image(image, transform) if found is None else paint_values(found, transform), turn_of(image)


def _values(image: Image.Image, data: bytes, kind: str, transform: Transform, *, always: bool = False) -> Values | None:
    """The values of a loaded image in the selected bands, if they are not 8-bit levels of their own; else None.

    Args:
        image: loaded and mended.
        data: the file.
        kind: its format.
        transform: its value range and bands apply.
        always: return the values of 8-bit levels too.
    """
    given, bands = transform.value_range, transform.bands
    if kind == "JPEG2000" and bands is None and not transform.reads_bands and undeclared_components(image, data):
        raise ImageError(
            f"{len(image.mode)} components, none of them declared to be opacity (no channel definition); --bands selects some, "
            f"such as {'1' if image.mode == 'LA' else '1,2,3'}"
        )

    def reopen(file: bytes) -> Any:
        return opener(kind)(io.BytesIO(file), "")

    deep = always or given not in (None, FULL_16_BITS)
    found = heif_values(image, data) if kind == "HEIF" and deep else None
    found = found or deep_grey(image, data, kind, native=always or given is not None)
    if found is None and deep:
        found = deep_colour(image, data, kind, given, reopen)
    if found is None and (always or transform.changes_8_bit_images):
        found = values_of_8_bit(image)
    return found.select(bands) if found and bands else found


def _open(
    data: bytes, kind: str, transform: Transform, max_pixels: int, lease: Lease, least: int = 0
) -> ImageFile.ImageFile | TiffLayout:
    """Open an image by Pillow; or lay out a TIFF that featx reads band by band, since Pillow does not, or not all.

    Raises:
        ImageError: a TIFF has bands that are neither colours nor declared to be alpha, and the transform names no bands.
    """
    if kind != "TIFF":
        return open_image(data, kind, max_pixels, lease, least)
    image: ImageFile.ImageFile | None = None
    try:
        image = open_image(data, kind, max_pixels, lease)
        layout = TiffLayout.of(getattr(image, "tag_v2", {}))
    except ImageError:
        raise
    except Exception:  # Pillow's plug-in may raise anything at a layout that it does not read
        layout = TiffLayout.read(data)
        if not (layout.undeclared or layout.is_unusual):
            raise
    if layout.undeclared and not (transform.bands or transform.reads_bands):
        raise layout.band_error()
    deep = transform.reads_bands or transform.value_range not in (None, FULL_16_BITS)
    if layout.has_deep_planes and not (layout.colour_bands or transform.bands or transform.reads_bands):
        raise ImageError("a TIFF of planes of 16-bit inks or of premultiplied colour, which is not read")
    is_own = layout.undeclared or layout.has_deep_planes or (deep and layout.is_deep_colour)
    return layout if image is None or is_own else image


def _samples(data: bytes, kind: str, transform: Transform, max_pixels: int, lease: Lease) -> tuple[Values, Transform]:
    """The samples of a DICOM or NPY file, and the transform by which they become levels.

    Raises:
        ImageError: as ``decode``.
    """

    def take(size: tuple[int, int], need: int) -> None:
        check_size(size, max_pixels)
        lease.take(need)

    if kind == "DICOM":
        values, is_windowed = dicom_values(data, transform, take)
        if is_windowed:
            transform = replace(transform, value_range=None)
    else:
        values = array_values(data)
        take(values.size, 12 * values.size[0] * values.size[1])
        if not (transform.bands or transform.reads_bands):
            values = values.select(colour_bands(values))
    return (values.select(transform.bands) if transform.bands else values), transform


def _tiff_bands(data: bytes, layout: TiffLayout, transform: Transform, max_pixels: int, lease: Lease) -> Values:
    check_size(layout.size, max_pixels)
    layout.require_readable(max_pixels)
    check_size((layout.bytes, 1), MOST_BYTES * max_pixels)  # Pillow's own limit applies to samples here
    lease.take(2 * layout.bytes + 8 * layout.size[0] * layout.size[1])
    values = tiff_values(data, layout, transform.bands or (() if transform.reads_bands else layout.colour_bands))
    if layout.is_deep_colour and not transform.reads_bands and transform.value_range in (None, FULL_16_BITS):
        return replace(values, type=integers(8), rows=lambda *strip: values.rows(*strip) >> 8)  # as Pillow reads them
    return values


def _load_jpeg(image: ImageFile.ImageFile, data: bytes, *, fraction: bool) -> np.ndarray | None:
    """Load an opened JPEG. Pillow decodes into memory of featx's own, which halves the time of a large photograph.

    Images are loaded in the ordinary way if Pillow does not support that (before version 11), if they are grey or CMYK, and
    if there is no scan to decode, which Pillow refuses. If simplejpeg has decoded the image, Pillow is not needed.

    Returns:
        The pixels as in ``with_pixels``; None if the image was loaded in the ordinary way.
    """
    if image.mode != "RGB" or not image.tile:
        image.load()
        return None
    quick = None if fraction else turbo.LIBRARY.decode(data, image.size)
    if quick is not None and turbo.LIBRARY.is_proved:
        return quick
    pixels, lent = lend(image.size)
    image.im, image.decodermaxblock = lent, len(data)  # and read the file at once, not in pieces
    image.load()
    if image.im is not lent:
        return None
    if quick is not None:
        turbo.LIBRARY.prove(quick, pixels)
    return pixels
