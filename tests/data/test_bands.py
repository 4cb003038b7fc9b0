"""Images with more bands than colours and alpha, and TIFFs that Pillow does not read."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from images.make import ALPHA, BANDS, GREY, PICTURE, tiff
from pictures import file_of

from featx.data.decode import MAX_PIXELS, decode, with_pixels
from featx.data.transform import Transform, channels, parse_bands
from featx.errors import ImageError


def levels(data: bytes, max_pixels: int = MAX_PIXELS, **fields: Any) -> np.ndarray:
    """(H, W, 3) pixels of a file under a transform."""
    return with_pixels(
        data, Transform(**fields), lambda pixels: channels(pixels)[..., :3].copy(), max_pixels=max_pixels
    )


def grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("text", "expected"), [("4,3,2", (4, 3, 2)), (" 1 ", (1,)), (5, (5,)), ([1, 2, 3, 4], (1, 2, 3, 4))]
)
def test_bands_are_numbers_from_1_on(text: Any, expected: tuple[int, ...]) -> None:
    assert parse_bands(text) == expected


@pytest.mark.parametrize("text", ["", "0", "1,1,2", "-1", "1.5", "a", "1,,2", None, [1, "x"], "70000"])
def test_anything_else_names_no_bands(text: Any) -> None:
    with pytest.raises(ValueError, match="names no bands; expected different numbers from 1 on, such as 4,3,2"):
        parse_bands(text)


def test_bands_are_stored_only_where_they_are_given() -> None:
    assert "bands" not in Transform().as_dict()
    given = Transform(bands=(4, 3, 2))
    assert given.as_dict()["bands"] == [4, 3, 2]
    assert Transform.from_dict(given.as_dict()) == given
    with pytest.raises(ValueError, match=r"^bands is"):
        Transform(bands=(0,))
    with pytest.raises(ValueError, match=r"for a network of 3 channels; expected one to four bands"):
        Transform(bands=(1, 2, 3, 4, 5))


# What ExtraSamples declares


@pytest.mark.parametrize("kind", [None, 0, 3, 77])
@pytest.mark.parametrize("photometric", [1, 2])
def test_a_band_that_is_not_declared_alpha_is_not_composited(photometric: int, kind: int | None) -> None:
    colours = PICTURE if photometric == 2 else GREY[..., None]
    extra = {} if kind is None else {"extra": [kind]}
    data = tiff(np.dstack([colours, ALPHA]).tobytes(), photometric, 8, colours.shape[-1] + 1, **extra)
    with pytest.raises(
        ImageError, match=r"^\d bands, 1 of them neither colour nor declared alpha .*--bands selects some"
    ):
        decode(data)
    bands = tuple(range(1, colours.shape[-1] + 1))
    np.testing.assert_array_equal(levels(data, bands=bands), PICTURE if photometric == 2 else grey(GREY))


@pytest.mark.parametrize("kind", [1, 2, 999])
def test_a_band_that_is_declared_alpha_is_composited_as_before(kind: int) -> None:
    data = tiff(np.dstack([PICTURE // 2, ALPHA]).tobytes(), 2, 8, 4, extra=[kind])
    assert (decode(data)[:, :8] >= 250).all() or kind == 1
    np.testing.assert_array_equal(levels(data, bands=(1, 2, 3))[:, 16:], PICTURE[:, 16:] // 2)


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
@pytest.mark.parametrize("planar", [1, 2])
def test_any_bands_of_13_become_an_image(planar: int, dtype: str) -> None:
    values = BANDS.astype(dtype) if dtype == "u1" else BANDS.astype(np.uint16) * 257
    stored = values if planar == 1 else np.moveaxis(values, -1, 0)
    data = tiff(stored.astype(dtype).tobytes(), 1, 8 * np.dtype(dtype).itemsize, 13, planar=planar, extra=[0] * 12)
    with pytest.raises(ImageError, match=r"^13 bands, 12 of them .*--bands selects some, such as 1,2,3$"):
        decode(data)
    np.testing.assert_array_equal(levels(data, bands=(4, 3, 2)), BANDS[..., [3, 2, 1]])
    np.testing.assert_array_equal(levels(data, bands=(13,)), grey(BANDS[..., 12]))
    over = levels(data, bands=(1, 2, 3, 4), background=(0, 0, 0))
    np.testing.assert_allclose(over, BANDS[..., :3] * (BANDS[..., 3:4] / 255), atol=1)
    with pytest.raises(ImageError, match=r"^there is no band 14 \(--bands\); the image has 13$"):
        levels(data, bands=(1, 14, 2))


def test_bands_and_a_value_range_go_together() -> None:
    data = tiff((BANDS.astype("<u2") * 16).tobytes(), 1, 16, 13, extra=[0] * 12)
    expected = np.rint(BANDS[..., [7, 3, 2]].astype(float) * 16 * (255 / 4095))
    np.testing.assert_array_equal(levels(data, bands=(8, 4, 3), value_range=(0, 4095)), expected)
    reflectance = tiff((BANDS / 500).astype("<f4").tobytes(), 1, 32, 13, extra=[0] * 12, sample_format=[3] * 13)
    np.testing.assert_allclose(
        levels(reflectance, bands=(8, 4, 3), value_range=(0, 0.5)), BANDS[..., [7, 3, 2]] * 1.02, atol=1
    )


def test_a_turned_multi_band_image_is_upright() -> None:
    data = tiff(BANDS.tobytes(), 1, 8, 13, extra=[0] * 12, orientation=6)
    np.testing.assert_array_equal(levels(data, bands=(1, 2, 3)), BANDS[::-1, :, :3].swapaxes(0, 1))


def test_bands_of_ordinary_images_are_their_channels() -> None:
    np.testing.assert_array_equal(levels(file_of(PICTURE), bands=(3, 2, 1)), PICTURE[..., ::-1])
    np.testing.assert_array_equal(levels(file_of(PICTURE), bands=(2,)), grey(PICTURE[..., 1]))
    np.testing.assert_array_equal(levels(file_of(np.dstack([PICTURE, ALPHA])), bands=(1, 2, 3)), PICTURE)
    four = file_of(np.dstack([PICTURE, ALPHA]), "JPEG2000", no_jp2=True)
    np.testing.assert_array_equal(levels(four, bands=(4,)), grey(ALPHA))
    for data in (file_of(GREY), file_of(GREY, "JPEG", quality=95)):
        with pytest.raises(ImageError, match=r"^there is no band 3 \(--bands\); the image has 1$"):
            levels(data, bands=(1, 2, 3))


# Compression and predictors: Pillow's libtiff takes a TIFF of bytes, featx does the rest


def differences(values: np.ndarray) -> np.ndarray:
    """TIFF's predictor 2 for (H, W, S)."""
    return np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1]))


def float_differences(values: np.ndarray) -> np.ndarray:
    """TIFF's predictor 3 for (H, W, S) floats: the bytes of each row by significance, then differences over S bytes."""
    height, _, bands = values.shape
    size = values.dtype.itemsize
    by_sample = values.astype(f">f{size}").reshape(height, -1).view(np.uint8).reshape(height, -1, size)
    planes = by_sample.swapaxes(1, 2).reshape(height, -1)
    return np.concatenate([planes[:, :bands], planes[:, bands:] - planes[:, :-bands]], axis=1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_predictor_of_integers_is_undone(bits: int, order: str) -> None:
    values = BANDS.astype(f"u{bits // 8}") * (257 if bits > 8 else 1)
    data = zlib.compress(differences(values).astype(f"{order}u{bits // 8}").tobytes())
    file = tiff(data, 1, bits, 13, order=order, extra=[0] * 12, compression=8, predictor=2)
    np.testing.assert_array_equal(levels(file, bands=(13, 1, 7)), BANDS[..., [12, 0, 6]])


@pytest.mark.parametrize(("order", "size"), [("<", 4), (">", 4), ("<", 8)])
def test_a_predictor_of_floats_is_undone(order: str, size: int) -> None:
    values = (BANDS / 255).astype(f"f{size}")
    data = zlib.compress(float_differences(values).tobytes())
    file = tiff(data, 1, 8 * size, 13, order=order, extra=[0] * 12, compression=8, predictor=3, sample_format=[3] * 13)
    np.testing.assert_array_equal(levels(file, bands=(13, 1, 7)), BANDS[..., [12, 0, 6]])


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_tiles_that_reach_beyond_the_image_are_cut(kind: str) -> None:
    padded = np.pad(BANDS, ((0, 0), (0, 8), (0, 0)), constant_values=99)  # two tiles of 16 x 16
    values = (padded / 255).astype("<f4") if kind == "f4" else padded.astype("<u2") * 257
    encode = float_differences if kind == "f4" else differences
    tiles = [zlib.compress(encode(values[:, at : at + 16]).tobytes()) for at in (0, 16)]
    tags: dict[int, list[int]] = {256: [24], 257: [16], 258: [values.itemsize * 8] * 13, 259: [8], 262: [1], 277: [13]}
    tags |= {322: [16], 323: [16], 317: [3 if kind == "f4" else 2], 338: [0] * 12, 339: [3 if kind == "f4" else 1] * 13}
    tags |= {324: [8, 8 + len(tiles[0])], 325: [len(tile) for tile in tiles]}
    body = b"".join(tiles)
    start, entries, beyond = 8 + len(body), b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = struct.pack("<I", start + 2 + 12 * len(tags) + 4 + len(beyond))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + (packed if len(numbers) == 1 else place)
        beyond += b"" if len(numbers) == 1 else packed
    file = b"II*\0" + struct.pack("<I", start) + body + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond
    np.testing.assert_array_equal(levels(file, bands=(13, 1, 7)), BANDS[..., [12, 0, 6]])


def test_what_cannot_be_read_band_by_band_says_why() -> None:
    twelve = tiff(bytes(16 * 24 * 6), 1, 12, 4, extra=[0] * 3)
    with pytest.raises(
        ImageError, match=r"^a TIFF of 4 bands of 12 bits each; expected integers of 8, 16, 32 or 64 bits"
    ):
        levels(twelve, bands=(1, 2, 3))
    inside = tiff(file_of(PICTURE, "JPEG"), 1, 8, 4, extra=[0] * 3, compression=7)
    with pytest.raises(
        ImageError, match=r"^a TIFF of 4 bands compressed as jpeg; expected LZW, deflate or no compression$"
    ):
        levels(inside, bands=(1, 2, 3))
    many = tiff(b"", 1, 8, 4, extra=[0] * 3, width=9000, length=9000)
    with pytest.raises(ImageError, match=r"^9000 x 9000 pixels; at most 178,956 are read \(--max-pixels\)$"):
        levels(many, max_pixels=178_956, bands=(1,))
    wide = tiff(b"", 1, 64, 4, extra=[0] * 3)
    with pytest.raises(ImageError, match=r"^24 x 16 pixels of 4 bands have 12,288 bytes; at most 6,400 are read"):
        levels(wide, max_pixels=400, bands=(1,))


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_of_16_bits_is_the_same_in_planes_and_upright_with_and_without_a_range(
    planar: int, alpha: bool, order: str
) -> None:
    """Pillow takes uncompressed planes of 16 bits for 8 bits."""

    def file(values: np.ndarray, **more: Any) -> bytes:
        bands = np.dstack([values, np.full(values.shape[:2], 65535)]) if alpha else values
        stored = bands.transpose(2, 0, 1) if planar == 2 else bands
        kind = {"extra": [2]} if alpha else {}
        data = stored.astype(f"{order}u2").tobytes()
        return tiff(data, 2, 16, bands.shape[2], order=order, planar=planar, **kind, **more)

    full, dark = PICTURE.astype(np.uint16) * 256 + 200, PICTURE.astype(np.uint16) * 16
    for orientation, turn in ((1, np.s_[:]), (2, np.s_[:, ::-1]), (3, np.s_[::-1, ::-1]), (4, np.s_[::-1])):
        np.testing.assert_array_equal(decode(file(full[turn], orientation=orientation)), PICTURE)
        swapped = levels(file(full[turn], orientation=orientation), bands=(3, 2, 1))
        np.testing.assert_array_equal(swapped, PICTURE[..., ::-1])
        ranged = levels(file(dark[turn], orientation=orientation), value_range=(0.0, 4080.0))
        np.testing.assert_array_equal(ranged, PICTURE)


def test_planes_of_16_bit_inks_are_an_error_that_bands_avoid() -> None:
    inks = np.zeros((4, 16, 24), "<u2")
    with pytest.raises(ImageError, match="planes of 16-bit inks or of premultiplied colour, which is not read"):
        decode(tiff(inks.tobytes(), 5, 16, 4, planar=2))
    assert levels(tiff(inks.tobytes(), 5, 16, 4, planar=2), bands=(1,)).max() == 0
