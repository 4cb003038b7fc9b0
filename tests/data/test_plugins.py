"""HEIF and JPEG XL, by the plug-ins of Pillow that are optional dependencies."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pictures import difference, noise, over_white, smooth
from PIL import Image

from featx.data import plugins
from featx.data.decode import decode, peek, read_pixels
from featx.data.formats import format_of
from featx.data.pillow import reader_name
from featx.data.plugins import jxl_size
from featx.data.transform import Transform
from featx.errors import ImageError, MachineError

TURNED = bytes.fromhex(
    "ff0a032d10130800010014014b28b17131930a0f5785590a0a4a0e0a8818775a004cc48bf136a4f084b4e35c080006100208"
    "a09da50180adcbff0bdd7e6a23ffffffe7b12d3f7bc089cdf544a912023702"
)
"""A lossless JPEG XL of ``TURNED_PIXELS`` whose codestream names orientation 6."""

Y, X = np.mgrid[:16, :24]
TURNED_PIXELS = np.rot90(np.stack([X * 10, Y * 15, (X + Y) * 5], axis=-1).astype(np.uint8), -1)


@pytest.fixture
def heif() -> Callable[..., bytes]:
    """A function from an image to the bytes of a HEIF file."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pip install 'featx[heif]'")

    def file(pixels: np.ndarray, **options: Any) -> bytes:
        stream = io.BytesIO()
        mode = {(2, "u"): "L", (3, "u"): "RGB"}[pixels.ndim, pixels.dtype.kind]
        mode = "RGBA" if pixels.ndim == 3 and pixels.shape[2] == 4 else mode
        mode += ";16" if pixels.dtype == np.uint16 else ""
        image = pillow_heif.from_bytes(mode, pixels.shape[1::-1], pixels.tobytes())
        image.save(stream, quality=-1, chroma=444, **options)
        return stream.getvalue()

    return file


@pytest.fixture
def jxl() -> Callable[..., bytes]:
    """A function from an image to the bytes of a JPEG XL file."""
    pytest.importorskip("pillow_jxl", reason="needs pip install 'featx[jxl]'")

    def file(pixels: np.ndarray | Image.Image, **options: Any) -> bytes:
        stream = io.BytesIO()
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(stream, "JXL", **{"lossless": True} | options)
        return stream.getvalue()

    return file


def test_a_heif_is_read_upright_and_transparent_parts_are_white(heif: Callable[..., bytes]) -> None:
    pixels = smooth(48, 32)
    assert difference(decode(heif(pixels)), pixels).max() <= 3
    grey = pixels[..., 0]
    assert difference(decode(heif(grey)), np.repeat(grey[..., None], 3, axis=-1)).max() <= 3
    alpha = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    assert difference(decode(heif(np.dstack([pixels, alpha]))), over_white(pixels, alpha)).max() <= 4


def test_of_a_heif_of_more_bits_the_high_ones_count(heif: Callable[..., bytes]) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64, 1), 3, axis=-1)
    assert difference(decode(heif(ramp)), ramp / 257).max() <= 3
    kind, most = peek(heif(ramp), Transform(), max_pixels=10_000)
    assert (kind.name, most) == ("10-bit", 1023)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_value_range_reads_all_bits_of_a_heif(
    heif: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, bits: int, channels: int
) -> None:
    import pillow_heif

    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    dark = np.linspace(0, 200, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    stored = dark << (16 - bits)
    pixels = stored if channels == 1 else np.dstack([stored] * 3 + [np.full_like(stored, 65535)] * (channels == 4))
    data = heif(pixels)
    small = Transform(resize=64, crop=64, value_range=(0.0, 255.0))
    assert difference(read_pixels(data, small)[1], dark).max() <= 2
    assert read_pixels(data, Transform(resize=64, crop=64))[1].max() <= 255 * 201 // 2**bits
    with pytest.raises(ImageError, match=r"expected 0 to 99 \(--value-range 8 would fit\)"):
        read_pixels(data, Transform(value_range=(0.0, 99.0)))
    whole = read_pixels(data, Transform(resize=64, crop=64, value_range=(0.0, float(2**14 - 1))))
    assert difference(whole[1], 255 * dark / (2**bits - 1)).max() <= 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_of_a_heif_is_applied_once(heif: Callable[..., bytes], orientation: int) -> None:
    heif(smooth(8, 8))  # the plug-in is there
    import pillow_heif

    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    pixels = smooth(48, 32)
    image = pillow_heif.from_pillow(Image.fromarray(pixels))
    image.save(stream, quality=-1, chroma=444, exif=exif.tobytes())
    turns = {1: 0, 3: 2, 6: -1, 8: 1}
    assert difference(decode(stream.getvalue()), np.rot90(pixels, turns[orientation])).max() <= 3


@pytest.mark.parametrize("container", [False, True])
def test_a_jpeg_xl_without_loss_is_read_as_it_was_written(jxl: Callable[..., bytes], container: bool) -> None:
    pixels = noise(50, 30)
    data = jxl(pixels, use_container=container)
    np.testing.assert_array_equal(decode(data), pixels)
    assert jxl_size(data) == (50, 30)
    alpha = np.tile(np.linspace(0, 255, 50).astype(np.uint8), (30, 1))
    assert difference(decode(jxl(np.dstack([pixels, alpha]))), over_white(pixels, alpha)).max() <= 1
    np.testing.assert_array_equal(decode(jxl(pixels[..., 0]))[..., 2], pixels[..., 0])


@pytest.mark.parametrize("size", [(8, 8), (256, 256), (257, 3), (1, 999), (640, 480), (513, 512), (2000, 1000)])
def test_the_header_of_a_jpeg_xl_tells_its_size(jxl: Callable[..., bytes], size: tuple[int, int]) -> None:
    assert jxl_size(jxl(Image.new("L", size))) == size


def test_the_orientation_of_a_jpeg_xl_is_that_of_its_codestream(jxl: Callable[..., bytes]) -> None:
    np.testing.assert_array_equal(decode(TURNED), TURNED_PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise(24, 16)
    np.testing.assert_array_equal(decode(jxl(pixels, exif=exif.tobytes())), pixels)


def test_a_jpeg_within_a_jpeg_xl_is_read_as_that_jpeg(jxl: Callable[..., bytes], tmp_path: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth(48, 32)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        data = jxl(image, lossless_jpeg=True)
    np.testing.assert_array_equal(decode(data), decode((tmp_path / "a.jpg").read_bytes()))


def test_an_image_of_too_many_pixels_is_refused_by_its_header(
    heif: Callable[..., bytes], jxl: Callable[..., bytes]
) -> None:
    for data in (heif(smooth(48, 32)), jxl(noise(48, 32))):
        with pytest.raises(ImageError, match=r"^48 x 32 pixels; at most 1,000 are read \(--max-pixels\)$"):
            decode(data, max_pixels=1000)
    huge = b"\xff\x0a" + (0b0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33).to_bytes(8, "little") + bytes(40)
    with pytest.raises(ImageError, match=r"^1073741824 x 1073741824 pixels; at most"):
        decode(huge)


@pytest.mark.parametrize("kind", ["heif", "jxl"])
def test_damage_gives_an_image_or_an_image_error(kind: str, request: pytest.FixtureRequest) -> None:
    file = request.getfixturevalue(kind)
    originals, rng = [file(smooth(48, 32)), file(smooth(48, 32)[..., 0])], random.Random(0)
    kinds = set()
    for _ in range(300):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(rng.choice((len(data), 64)))] = rng.randrange(256)
        end = rng.choice((len(data), len(data), rng.randrange(len(data))))
        try:
            decode(bytes(data[:end]))
        except ImageError as error:
            kinds.add(type(error))
    assert kinds == {ImageError}, "the fault is the file's, not the machine's"


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIF"),
        (b"\0\0\0\x1cftypmsf1\0\0\0\0miafhevc", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\xff\x0a\x00", "JXL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    ],
)
def test_the_first_bytes_tell_the_format(beginning: bytes, kind: str) -> None:
    assert format_of(beginning) == kind


@pytest.mark.parametrize(("data", "kind"), [(b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF"), (b"\xff\x0a" + bytes(9), "JXL")])
def test_a_file_whose_plug_in_is_missing_names_it_and_is_tried_again_later(
    data: bytes, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins._MODULES, kind, ("no_such_package", "Opener"))
    with pytest.raises(MachineError, match=rf"{kind} needs pip install 'featx\[{kind.lower()}\]'$"):
        decode(data)


def test_the_name_of_the_reader_changes_with_the_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reader_name()
    monkeypatch.setattr(plugins, "_version", lambda package: "9.9" if package == "pillow-heif" else "")
    assert reader_name().endswith(", pillow-heif 9.9")
    assert reader_name() != before
