"""Value ranges: which values are black and white, in every kind of file that has more than 8 bits."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from images.make import CASES, FOLDER, GREY, PICTURE, png, tiff
from pictures import file_of

from featx.data import samples
from featx.data.augment import read_augmented
from featx.data.decode import MAX_PIXELS, decode, peek, thumbnail, with_pixels
from featx.data.samples import FLOAT, fitting_range, integers
from featx.data.transform import Transform, channels, parse_value_range
from featx.errors import ImageError

TWELVE = GREY.astype(np.uint16) * 16  # 0 to 3904
COLOUR = PICTURE.astype(np.uint16) * 16


def levels(data: bytes, **fields: Any) -> np.ndarray:
    """(H, W, 3) pixels of a file under a transform."""
    return with_pixels(
        data, Transform(**fields), lambda pixels: channels(pixels)[..., :3].copy(), max_pixels=MAX_PIXELS
    )


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(H, W, 3) expected levels of (H, W) or (H, W, 3) values."""
    found = np.rint((values.astype(np.float64) - low) * 255 / (high - low))
    return found if found.ndim == 3 else np.repeat(found[..., None], 3, axis=-1)


# What is given


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", (0, 255)),
        (10, (0, 1023)),
        ("12", (0, 4095)),
        ("14", (0, 16383)),
        ("16", (0, 65535)),
        ("0-255", (0, 255)),
        ("-1024-3071", (-1024, 3071)),
        ("-200--100", (-200, -100)),
        ("1e-3-1", (0.001, 1)),
        (" 0.5 - 1.5 ", (0.5, 1.5)),
        ((0, 1), (0, 1)),
        ([np.float32(-1), np.int64(1)], (-1, 1)),
    ],
)
def test_a_value_range_is_a_number_of_bits_or_two_bounds(text: Any, expected: tuple[float, float]) -> None:
    assert parse_value_range(text) == expected


@pytest.mark.parametrize(
    "text", ["13", "0", 7, "", "10-10", "5-1", "a-b", "1-2-3", "nan-1", "0-1e999", (1,), (0, 1, 2), None, 0.5]
)
def test_anything_else_is_no_value_range(text: Any) -> None:
    with pytest.raises(
        ValueError, match=r"is not a value range; expected 8, 10, 12, 14 or 16 bits, or LOW-HIGH such as"
    ):
        parse_value_range(text)


@pytest.mark.parametrize("wrong", [(1, 0), (0, float("nan")), [0, 1], (0, 1, 2), (True, 2)])
def test_a_transform_has_a_range_of_two_ascending_bounds(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^value_range is .*; expected \(LOW, HIGH\), LOW below HIGH$"):
        Transform(value_range=wrong)


def test_a_range_is_stored_only_where_one_is_given() -> None:
    assert "value_range" not in Transform().as_dict()
    given = Transform(value_range=(0, 4095)).as_dict()
    assert given["value_range"] == [0.0, 4095.0]
    assert given == Transform(value_range=(0.0, 4095.0)).as_dict()
    assert str(given) == str(Transform(value_range=(0.0, 4095.0)).as_dict())  # as JSON, too
    assert Transform.from_dict(given) == Transform(value_range=(0, 4095))


# Files of all kinds


def chunky(values: np.ndarray, dtype: str) -> bytes:
    return np.ascontiguousarray(values.astype(dtype)).tobytes()


def big_endian(values: np.ndarray) -> np.ndarray:
    return values.astype(">u2").reshape(len(values), -1).view(np.uint8)


FILES = {
    "png-grey": (png(big_endian(TWELVE), 24, 16, 0), TWELVE),
    "png-rgb": (png(big_endian(COLOUR), 24, 16, 2), COLOUR),
    "pgm": (b"P5 24 16 65535\n" + chunky(TWELVE, ">u2"), TWELVE),
    "pgm-of-14-bits": (b"P5 24 16 16383\n" + chunky(TWELVE, ">u2"), TWELVE),
    "ppm": (b"P6\n# a comment\n24 16\n65535\n" + chunky(COLOUR, ">u2"), COLOUR),
    "ppm-of-14-bits": (b"P6 24 16 16383\n" + chunky(COLOUR, ">u2"), COLOUR),
    "plain-ppm": (b"P3 24 16 65535\n" + b" ".join(b"%d" % v for v in COLOUR.ravel()) + b"\n", COLOUR),
    "jp2": (file_of(TWELVE, "JPEG2000"), TWELVE),
    "tiff-little": (tiff(chunky(TWELVE, "<u2"), 1, 16), TWELVE),
    "tiff-big": (tiff(chunky(TWELVE, ">u2"), 1, 16, order=">"), TWELVE),
    "tiff-signed": (tiff(chunky(TWELVE, "<i2"), 1, 16, sample_format=2), TWELVE),
    "tiff-32": (tiff(chunky(TWELVE, "<u4"), 1, 32), TWELVE),
    "tiff-32-signed": (tiff(chunky(TWELVE, "<i4"), 1, 32, sample_format=2), TWELVE),
    "tiff-64": (tiff(chunky(TWELVE, "<u8"), 1, 64), TWELVE),
    "tiff-float": (tiff(chunky(TWELVE, "<f4"), 1, 32, sample_format=3), TWELVE),
    "tiff-double": (tiff(chunky(TWELVE, ">f8"), 1, 64, sample_format=3, order=">"), TWELVE),
    "tiff-rgb": (tiff(chunky(COLOUR, "<u2"), 2, 16, 3), COLOUR),
    "tiff-rgb-big": (tiff(chunky(COLOUR, ">u2"), 2, 16, 3, order=">"), COLOUR),
    "tiff-rgb-planar": (tiff(chunky(np.moveaxis(COLOUR, -1, 0), "<u2"), 2, 16, 3, planar=2), COLOUR),
    "tiff-rgb-float": (tiff(chunky(COLOUR, "<f4"), 2, 32, 3, sample_format=[3] * 3), COLOUR),
    "tiff-rgb-deflate": (tiff(zlib.compress(chunky(COLOUR, "<u2")), 2, 16, 3, compression=8), COLOUR),
}


@pytest.mark.parametrize("name", FILES)
def test_values_are_scaled_by_the_range_whatever_the_file(name: str) -> None:
    data, values = FILES[name]
    np.testing.assert_array_equal(levels(data, value_range=(0, 4095)), scaled(values, 0, 4095))
    np.testing.assert_array_equal(levels(data, value_range=(-50.0, 9000.0)), scaled(values, -50, 9000))


@pytest.mark.parametrize("name", FILES)
def test_a_value_beyond_the_range_is_an_error_that_names_one_that_fits(name: str) -> None:
    data, values = FILES[name]
    grey = "grey " if values.ndim == 2 else ""
    message = rf"^{grey}values from 0 to {values.max()}; expected 0 to 1023 \(--value-range .* would fit\)$"
    with pytest.raises(ImageError, match=message):
        levels(data, value_range=(0, 1023))


def test_alpha_keeps_its_own_range() -> None:
    alpha = np.where(np.arange(24) < 12, 65535, 0) + np.zeros((16, 1), int)
    white = (np.arange(24) >= 12)[None, :, None]
    for data, values in (
        (png(big_endian(np.dstack([TWELVE, alpha])), 24, 16, 4), TWELVE),
        (png(big_endian(np.dstack([COLOUR, alpha])), 24, 16, 6), COLOUR),
        (tiff(chunky(np.dstack([COLOUR, alpha]), "<u2"), 2, 16, 4, extra=[2]), COLOUR),
    ):
        expected = np.where(white, 255, scaled(values, 0, 4095))
        np.testing.assert_array_equal(levels(data, value_range=(0, 4095)), expected)


def test_a_transparent_value_stays_transparent() -> None:
    def transparent(*value: int) -> bytes:
        data = struct.pack(f">{len(value)}H", *value)
        return struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))

    grey = png(big_endian(TWELVE), 24, 16, 0, transparent(int(TWELVE[5, 7])))
    expected = np.where((TWELVE[5, 7] == TWELVE)[..., None], 255, scaled(TWELVE, 0, 4095))
    np.testing.assert_array_equal(levels(grey, value_range=(0, 4095)), expected)
    rgb = png(big_endian(COLOUR), 24, 16, 2, transparent(*map(int, COLOUR[5, 7])))
    found = levels(rgb, value_range=(0, 4095))
    assert (found[5, 7] == 255).all()
    np.testing.assert_array_equal(found[0], scaled(COLOUR, 0, 4095)[0])


def test_a_tiff_whose_zero_is_white_is_inverted_after_it_is_scaled() -> None:
    data = tiff(chunky(TWELVE, "<u2"), 0, 16)
    np.testing.assert_array_equal(levels(data, value_range=(0, 4095)), 255 - scaled(TWELVE, 0, 4095))


def test_signed_values_and_floats_take_a_range_that_begins_below_zero() -> None:
    hounsfield = GREY.astype(np.int16) * 16 - 1024
    for data in (
        tiff(chunky(hounsfield, "<i2"), 1, 16, sample_format=2),
        tiff(chunky(hounsfield, "<i4"), 1, 32, sample_format=2),
        tiff(chunky(hounsfield, "<f4"), 1, 32, sample_format=3),
    ):
        np.testing.assert_array_equal(levels(data, value_range=(-1024, 3071)), scaled(hounsfield, -1024, 3071))
        with pytest.raises(
            ImageError, match=r"^grey values from -1024 to 2880; .*\(--value-range -1024-(4095|4096) would fit\)$"
        ):
            decode(data)
    phase = np.linspace(-np.pi, np.pi, 16 * 24, dtype="<f4").reshape(16, 24)
    data = tiff(phase.tobytes(), 1, 32, sample_format=3)
    np.testing.assert_array_equal(levels(data, value_range=(-3.2, 3.2)), scaled(phase, -3.2, 3.2))
    small = (GREY.astype(int) // 2 - 100).astype("i1")
    signed = tiff(small.tobytes(), 1, 8, sample_format=2)
    np.testing.assert_array_equal(levels(signed, value_range=(-128, 127)), scaled(small, -128, 127))


@pytest.mark.parametrize(
    "name", ["baseline.jpg", "rgb.png", "grey-alpha.png", "grey-12.tif", "lossy.webp", "lossy.avif", "grey-16.jp2"]
)
@pytest.mark.parametrize("given", [(0, 65535), (-1024, 70000)])
def test_files_of_fewer_bits_than_the_range_keep_their_own(name: str, given: tuple[float, float]) -> None:
    data = (FOLDER / name).read_bytes()
    np.testing.assert_array_equal(levels(data, value_range=given), decode(data))


def test_8_bit_files_take_a_range_that_they_can_reach() -> None:
    low = (GREY // 16).astype(np.uint8)  # 0 to 15
    np.testing.assert_array_equal(levels(file_of(low), value_range=(0, 15)), scaled(low, 0, 15))
    np.testing.assert_array_equal(levels(file_of(PICTURE), value_range=(0, 4095)), PICTURE)
    with pytest.raises(ImageError, match=r"^values from 0 to 255; expected 0 to 100 "):
        levels(file_of(PICTURE), value_range=(0, 100))
    dark = file_of(PICTURE // 4, "JPEG", quality=98, subsampling=0)
    np.testing.assert_array_equal(levels(dark, value_range=(0, 127)), scaled(decode(dark), 0, 127))


def test_colour_whose_low_bits_are_lost_is_refused_and_not_guessed() -> None:
    inks = tiff(chunky(np.dstack([COLOUR, TWELVE]), "<u2"), 5, 16, 4)
    with pytest.raises(ImageError, match=r"16-bit inks .*--value-range"):
        levels(inks, value_range=(0, 4095))
    assert decode(inks).shape == (16, 24, 3)


def test_a_range_applies_wherever_pixels_are_read() -> None:
    data = FILES["png-grey"][0]
    ranged, plain = Transform(crop=12, value_range=(0, 4095)), Transform(crop=12)
    cut = [read_augmented(data, each, np.random.default_rng(0), scale=0.5) for each in (plain, ranged)]
    assert cut[0].max() < 20 < cut[1].max()
    assert decode(thumbnail(data, 24, ranged)).max() > 5 * decode(thumbnail(data, 24)).max()


# Large images, a strip at a time


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not isinstance(case.expected, str)])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_strips_give_the_pixels_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (FOLDER / name).read_bytes()
    whole = decode(data)
    monkeypatch.setattr(samples, "STRIP", 24 * 5)
    np.testing.assert_array_equal(decode(data), whole)


@pytest.mark.parametrize("name", FILES)
def test_strips_of_deep_images_give_the_pixels_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = levels(FILES[name][0], value_range=(0, 4095))
    monkeypatch.setattr(samples, "STRIP", 24 * 5)
    np.testing.assert_array_equal(levels(FILES[name][0], value_range=(0, 4095)), whole)


# What the values are


@pytest.mark.parametrize(
    ("name", "bits"),
    [("png-grey", 16), ("png-rgb", 16), ("ppm-of-14-bits", 14), ("jp2", 16), ("tiff-32-signed", 32), ("tiff-rgb", 16)],
)
def test_peeking_tells_the_type_and_the_greatest_value(name: str, bits: int) -> None:
    data, values = FILES[name]
    found, greatest = peek(data, Transform(), max_pixels=MAX_PIXELS)
    assert (found.name.split()[-1], greatest) == (f"{bits}-bit", values.max())


def test_peeking_into_8_bits_and_floats() -> None:
    assert peek(file_of(PICTURE), Transform(), max_pixels=MAX_PIXELS) == (integers(8), 255)
    assert peek(FILES["tiff-float"][0], Transform(), max_pixels=MAX_PIXELS) == (FLOAT, TWELVE.max())


@pytest.mark.parametrize(
    "type_", [integers(8), integers(16), integers(16, signed=True), integers(32, signed=True), FLOAT]
)
def test_a_range_that_is_said_to_fit_does_fit(type_: samples.ValueType) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        low = 0.0 if not type_.signed or rng.random() < 0.5 else -float(rng.uniform(0.001, 3) ** 9)
        high = float(min(rng.uniform(0.1, 3.4) ** 9, type_.largest))
        if type_ is not FLOAT:
            low, high = np.ceil(max(low, -type_.largest)), np.floor(high)
        black, white = parse_value_range(fitting_range(type_, low, high))
        assert black <= low < high + 1e-12
        assert high <= white
