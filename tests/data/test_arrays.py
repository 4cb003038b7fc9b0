"""Images in ``.npy`` files."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import noise

from featx.data.decode import decode, peek, read_pixels, with_pixels
from featx.data.scan import scan_images
from featx.data.transform import Transform, channels
from featx.errors import ImageError


def npy(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def header(text: str, payload: bytes = b"") -> bytes:
    """A file of version 1.0 with this header."""
    line = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + payload


def levels(data: bytes, **fields: Any) -> np.ndarray:
    return with_pixels(data, Transform(**fields), lambda pixels: channels(pixels)[..., :3].copy(), max_pixels=10**6)


def repeated(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=-1)


def test_an_array_of_levels_is_read_as_it_is() -> None:
    pixels = noise(30, 20)
    np.testing.assert_array_equal(decode(npy(pixels)), pixels)
    np.testing.assert_array_equal(decode(npy(np.asfortranarray(pixels))), pixels)
    np.testing.assert_array_equal(decode(npy(pixels[..., 0])), repeated(pixels[..., 0]))
    np.testing.assert_array_equal(decode(npy(pixels[..., :1])), repeated(pixels[..., 0]))
    opaque = np.dstack([pixels, np.full((20, 30), 255, np.uint8)])
    np.testing.assert_array_equal(decode(npy(opaque)), pixels)
    np.testing.assert_array_equal(decode(npy(pixels[..., 0] > 99)), repeated(255 * (pixels[..., 0] > 99)))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4", ">f4", "<f8", "<f2"])
def test_values_of_any_type_and_byte_order_are_scaled_by_their_range(dtype: str) -> None:
    plane = noise(30, 20)[..., 0]
    scaled = plane / 255 if dtype[1] == "f" else plane.astype(np.int64) * 257
    np.testing.assert_array_equal(decode(npy(scaled.astype(dtype))), repeated(plane))
    np.testing.assert_array_equal(levels(npy(plane.astype(dtype)), value_range=(0.0, 255.0)), repeated(plane))


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("bounds", [(0.0, 0.4), (-0.4, 0.0), (0.1, 0.7), (-1e9, 1e9)])
def test_a_bound_that_floats_round_is_still_within_the_range(dtype: str, bounds: tuple[float, float]) -> None:
    """The float32 that is nearest to 0.4 is above 0.4."""
    low, high = bounds
    if dtype == "<f2" and high > 1:
        pytest.skip("float16 has no such numbers")
    ramp = np.linspace(low, high, 24).astype(dtype).reshape(4, 6)
    found = levels(npy(ramp), value_range=bounds)[..., 0]
    assert found[0, 0] == 0
    assert found[-1, -1] == 255
    assert np.abs(found.ravel() - np.linspace(0, 255, 24)).max() <= 1
    two = Transform(crop=4, resize=4, crop_width=6, channels=2, mean=(0.5, 0.5), std=(0.5, 0.5), value_range=bounds)
    np.testing.assert_array_equal(read_pixels(npy(np.dstack([ramp, ramp])), two), [found, found])
    beyond = npy(np.full((4, 6), high + 0.02 * (high - low), dtype))
    with pytest.raises(ImageError, match=r"expected .* would fit\)$"):
        levels(beyond, value_range=bounds)


def test_a_value_beyond_the_range_is_an_error_that_names_one_that_fits() -> None:
    with pytest.raises(
        ImageError, match=r"^grey values from 0 to 189; expected 0 to 1 \(--value-range 0-255 would fit\)$"
    ):
        decode(npy(np.linspace(0, 189, 600, dtype=np.float32).reshape(20, 30)))
    with pytest.raises(ImageError, match=r"^grey values that are NaN, as files mark missing data; expected 0 to 1"):
        decode(npy(np.full((4, 4), np.nan)))
    with pytest.raises(
        ImageError, match=r"^values that are infinite; expected 0 to 1, so write a number in their place$"
    ):
        decode(npy(np.full((4, 4, 3), np.inf)))
    assert peek(npy(np.full((8, 8), 300, np.uint16)), Transform(), max_pixels=100)[1] == 300


def test_bands_of_an_array_are_chosen_by_their_numbers() -> None:
    bands = np.random.default_rng(0).integers(0, 256, (20, 30, 13), dtype=np.uint8)
    with pytest.raises(ImageError, match=r"^13 bands; expected 1 or 3\. --bands selects some, such as 1,2,3$"):
        decode(npy(bands))
    np.testing.assert_array_equal(levels(npy(bands), bands=(4, 3, 2)), bands[..., [3, 2, 1]])
    with pytest.raises(ImageError, match="there is no band 14"):
        levels(npy(bands), bands=(14,))
    whole = Transform(resize=20, crop=20, crop_width=30, channels=13, mean=(0.0,) * 13, std=(1.0,) * 13)
    np.testing.assert_array_equal(read_pixels(npy(bands), whole), bands.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(512, np.float32), r"an array of shape \(512,\) and dtype float32 is no image; expected \(H, W\) or"),
        (np.zeros((2, 3, 4, 5)), r"is no image; expected \(H, W\) or \(H, W, C\)"),
        (np.zeros((0, 5)), r"is no image; expected \(H, W\)"),
        (np.zeros((3, 20, 30), np.uint8), r"has its channels first; expected \(H, W, C\): save array\.transpose\(1, 2, 0\)"),
        (np.zeros((13, 64, 64), np.uint16), r"has its channels first"),
        (np.zeros((20, 30, 2), np.uint8), r"^2 bands; expected 1 or 3\. --bands selects some, such as 1$"),
        (np.zeros((40, 40, 2000), np.uint8), r"has 2,000 bands; at most 1,024 are read"),
        (np.zeros((4, 4), np.complex64), r"dtype complex64 is no image; expected integers or floats"),
        (np.zeros((4, 4), "S3"), r"is no image; expected integers or floats"),
        (np.zeros((4, 4), [("a", "u1")]), r"is no image; expected integers or floats"),
    ],
)  # fmt: skip
def test_an_array_that_is_no_image_is_an_error_that_says_why(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(npy(array))


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    trap = np.empty((2, 2), object)
    trap[:] = Trap()
    with pytest.raises(ImageError, match="holds Python objects, which featx never unpickles"):
        decode(npy(trap, allow_pickle=True))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(noise(30, 20))[:200], r"truncated \(72 of 1,800 bytes of samples\)"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999)}"), r"truncated|pixels; at most"),
        (
            header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 5)}", bytes(50)),
            "header is damaged|is no image",
        ),
        (
            header("{'descr': '|u1', 'fortran_order': False, 'shape': (2, True)}", bytes(50)),
            "header is damaged|no image",
        ),
        (header("{'descr': 'u1', 'fortran_order': 0, 'shape': (2, 2)}", bytes(4)), "header is damaged"),
        (header("__import__('os').getcwd()"), "header is damaged"),
        (header("(" * 3000), "header is damaged"),
        (header("{" + " " * 5000 + "}"), "header is damaged"),
        (b"\x93NUMPY", "header is damaged"),
        (b"\x93NUMPY\x09\x00\x01\x00 ", "header is damaged"),
    ],
)
def test_a_damaged_header_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_an_array_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match=r"^30 x 20 pixels; at most 500 are read \(--max-pixels\)$"):
        decode(npy(noise(30, 20)), max_pixels=500)


def test_damage_gives_an_image_or_an_image_error() -> None:
    rng, seen = random.Random(0), set()
    originals = [npy(noise(9, 7)), npy(noise(9, 7).astype(">u2")), npy(np.asfortranarray(noise(9, 7)))]
    for _ in range(1500):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(rng.choice((len(data), 128)))] = rng.choice((rng.randrange(256), 48 + rng.randrange(10)))
        try:
            seen.add(decode(bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])).shape)
        except ImageError as error:
            seen.add(type(error).__name__)
    assert {"ImageError", (7, 9, 3)} <= seen
    assert "MachineError" not in seen


def test_arrays_beside_images_are_left_out_and_arrays_alone_are_the_images(tmp_path: Path) -> None:
    for name in ("cat/1.npy", "cat/2.npy", "dog/3.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(npy(noise(9, 7)))
    assert len(scan_images(tmp_path)) == 3
    (tmp_path / "dog" / "3.png").touch()
    images = scan_images(tmp_path)
    assert [str(path) for path in images.paths] == ["dog/3.png"]
    assert [note for note in images.notes if "3 arrays beside images" in note]
