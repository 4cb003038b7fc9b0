"""The rules about bad images, on real bytes, and the pixels that a network gets."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images.make import ALPHA, CASES, FOLDER, GREY, UPRIGHT, Case, tiff
from pictures import file_of, noise, over_white, smooth
from PIL import Image, ImageFile, ImageOps, JpegImagePlugin, TiffImagePlugin

from featx.backbones.backbone import load_backbone
from featx.data.augment import read_augmented
from featx.data.decode import MAX_PIXELS, decode, parse_colour, read_pixels, thumbnail
from featx.data.transform import DECODINGS, Transform
from featx.data.turbo import Turbo
from featx.errors import BackboneError, ImageError

# Each rule on a file


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_file_gives_the_pixels_that_went_into_it_or_an_error_that_says_why(name: str) -> None:
    _, expected, tolerance = CASES[name]
    data = (FOLDER / name).read_bytes()
    if isinstance(expected, str):
        with pytest.raises(ImageError, match=expected):
            decode(data)
        return
    decoded = decode(data)
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(float) - expected).max() <= tolerance


def test_every_file_is_a_case_and_every_case_a_small_file() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert files.keys() == CASES.keys()
    assert max(files.values()) < 6000


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=list(CASES))
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_file_can_be_made_again(name: str, case: Case) -> None:
    again, kept = case.data(), (FOLDER / name).read_bytes()
    if isinstance(case.expected, str):
        with pytest.raises(ImageError, match=case.expected):
            decode(again)
    else:
        np.testing.assert_allclose(decode(again), decode(kept), atol=case.tolerance)


def test_damage_of_any_kind_gives_an_image_or_an_image_error_and_nothing_on_stderr(tmp_path: Path) -> None:
    script = [sys.executable, str(FOLDER / "fuzz.py"), "4000", "0"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_libtiff_and_pillow_have_to_say_does_not_reach_the_terminal() -> None:
    code = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from featx.data.decode import decode
from featx.errors import ImageError

def attempt(path):
    try:
        decode(path.read_bytes())
    except ImageError:
        return str(path)

with ThreadPoolExecutor(4) as pool:
    print(len(list(filter(None, pool.map(attempt, sorted(Path({str(FOLDER)!r}).glob("*.*")) * 5)))) // 5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert int(done.stdout) == sum(isinstance(case.expected, str) for case in CASES.values()) + 2  # and two scripts


@pytest.mark.parametrize(("asked", "said"), [([], False), (["-W", "always"], True)])
def test_pillows_warnings_are_given_to_whoever_asks_for_them(asked: list[str], said: bool) -> None:
    code = f"import featx.data.decode as d; d.decode(open({str(FOLDER / 'exif-nonsense.jpg')!r}, 'rb').read())"
    done = subprocess.run([sys.executable, *asked, "-c", code], capture_output=True, text=True, check=True)
    assert ("Corrupt EXIF data" in done.stderr) is said


# Formats and modes


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_a_lossless_rgb_file_decodes_to_the_very_pixels_it_was_made_of(kind: str, options: dict[str, Any]) -> None:
    pixels = noise(40, 24)
    decoded = decode(file_of(pixels, kind, **options))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_a_jpeg_decodes_to_nearly_the_pixels_it_was_made_of() -> None:
    pixels = smooth(48, 32)
    decoded = decode(file_of(pixels, "JPEG", quality=95, subsampling=0))
    assert decoded.shape == (32, 48, 3)
    assert np.abs(decoded.astype(int) - pixels).mean() < 2


def test_a_grey_image_has_three_equal_channels() -> None:
    grey = noise(40, 24, channels=1)
    np.testing.assert_array_equal(decode(file_of(grey)), np.stack([grey] * 3, axis=-1))


def test_a_black_and_white_image_is_0_and_255() -> None:
    bits = noise(40, 24, channels=1) > 127
    np.testing.assert_array_equal(decode(file_of(Image.fromarray(bits)))[..., 1], bits * 255)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    cmyk = Image.fromarray(smooth(48, 32)).convert("CMYK")
    data = file_of(cmyk, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(decode(data).astype(int) - smooth(48, 32)).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_rgba_is_composited_over_white(kind: str) -> None:
    rgba = noise(40, 24, channels=4)
    rgba[:, :8, 3], rgba[:, 8:16, 3] = 0, 255
    decoded = decode(file_of(rgba, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    np.testing.assert_allclose(decoded, over_white(rgba[..., :3], rgba[..., 3]), atol=1)
    assert (decoded[:, :8] == 255).all()
    np.testing.assert_array_equal(decoded[:, 8:16], rgba[:, 8:16, :3])


def test_grey_with_alpha_is_composited_over_white() -> None:
    grey, alpha = noise(40, 24, channels=1, seed=1), noise(40, 24, channels=1, seed=2)
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    expected = over_white(np.stack([grey] * 3, axis=-1), alpha)
    np.testing.assert_allclose(decode(file_of(image)), expected, atol=1)


def test_grey_that_was_multiplied_by_its_alpha_is_composited_over_white() -> None:
    if (b"II", 1, (1,), 1, (8, 8), (1,)) not in TiffImagePlugin.OPEN_INFO:
        pytest.skip("this Pillow does not read premultiplied grey")
    multiplied = np.rint(GREY * (ALPHA / 255)).astype(np.uint8)
    decoded = decode(tiff(np.stack([multiplied, ALPHA], axis=-1).tobytes(), 1, 8, 2, extra=[1]))
    np.testing.assert_allclose(decoded[..., 1], multiplied + (255.0 - ALPHA), atol=2)


def test_the_transparent_entry_of_a_palette_is_white() -> None:
    indices = noise(40, 24, channels=1) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255]], np.uint8)
    np.testing.assert_array_equal(decode(file_of(image, "PNG", transparency=1)), colours[indices])
    np.testing.assert_array_equal(decode(file_of(image, "GIF", transparency=1)), colours[indices])


def test_a_palette_with_a_degree_of_transparency_for_each_entry_is_composited_over_white() -> None:
    indices = noise(40, 24, channels=1) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    decoded = decode(file_of(image, "PNG", transparency=bytes([255, 0, 51])))
    colours = np.array([[255, 0, 0], [255, 255, 255], [204, 204, 255]], np.uint8)
    np.testing.assert_allclose(decoded, colours[indices], atol=1)


def test_a_palette_without_transparency_gives_its_colours() -> None:
    indices = noise(40, 24, channels=1) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
    np.testing.assert_array_equal(decode(file_of(image)), colours[indices])


def test_a_colour_that_a_png_declares_transparent_is_white() -> None:
    pixels = noise(40, 24)
    pixels[3:9] = 7, 8, 9
    decoded = decode(file_of(pixels, "PNG", transparency=(7, 8, 9)))
    expected = pixels.copy()
    expected[3:9] = 255
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    deep = np.arange(40 * 24, dtype=np.uint16).reshape(24, 40) * 68
    decoded = decode(file_of(deep, kind))
    np.testing.assert_allclose(decoded[..., 0], deep / 257, atol=0.51)
    assert decoded.max() < 255
    assert len(np.unique(decoded)) > 200


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_16_bit_tiffs_of_either_byte_order_are_scaled(dtype: str) -> None:
    deep = (np.arange(40 * 24).reshape(24, 40) * 68).astype(dtype)
    data = file_of(Image.frombytes("I;16B" if dtype == ">u2" else "I;16", (40, 24), deep.tobytes()), "TIFF")
    np.testing.assert_allclose(decode(data)[..., 2], deep.astype(float) / 257, atol=0.51)


def test_a_float_tiff_of_0_to_1_is_scaled_to_255() -> None:
    values = np.linspace(0, 1, 40 * 24, dtype=np.float32).reshape(24, 40)
    np.testing.assert_array_equal(decode(file_of(values, "TIFF"))[..., 0], np.rint(values * 255))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 300.0]], np.float32), "grey values from 0 to 300; expected 0 to 1"),
        (
            np.array([[0, np.nan]], np.float32),
            "grey values that are NaN, as files mark missing data; expected 0 to 1, so write",
        ),
        (np.array([[-5, 70]], np.int32), "grey values from -5 to 70; expected 0 to 65535"),
        (np.array([[0, 70_000]], np.int32), "grey values from 0 to 70000; expected 0 to 65535"),
    ],
)
def test_grey_values_out_of_range_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(file_of(values, "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(smooth(48, 32), kind, exif=exif)
    stored = decode(file_of(smooth(48, 32), kind))
    np.testing.assert_array_equal(decode(data), UPRIGHT[orientation](stored))
    np.testing.assert_array_equal(decode(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_an_exif_block_that_means_nothing_leaves_the_image_as_it_is() -> None:
    pixels = noise(40, 24)
    np.testing.assert_array_equal(decode(file_of(pixels, "PNG", exif=b"Exif\0\0nonsense")), pixels)
    exif = Image.Exif()
    exif[0x0112] = 9
    np.testing.assert_array_equal(decode(file_of(pixels, "PNG", exif=exif)), pixels)


def test_transparency_survives_being_turned_upright() -> None:
    rgba = noise(40, 24, channels=4)
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(file_of(rgba, "PNG", exif=exif))
    np.testing.assert_allclose(decoded, over_white(rgba[..., :3], rgba[..., 3])[::-1].swapaxes(0, 1), atol=1)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_the_image(kind: str) -> None:
    frames = [Image.new("RGB", (40, 24), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(decode(data), np.broadcast_to([255, 0, 0], (24, 40, 3)))


@pytest.mark.parametrize(("name", "colour"), [("black", (0, 0, 0)), ("#102030", (16, 32, 48)), ("Red", (255, 0, 0))])
def test_a_background_is_a_css_name_or_six_hexadecimal_digits(name: str, colour: tuple[int, int, int]) -> None:
    assert parse_colour(name) == colour


@pytest.mark.parametrize("name", ["", "nocolour", "#12345", "#10203040", "rgba(1,2,3,4)", "transparent", "x" * 200])
def test_what_is_no_opaque_colour_is_refused_as_a_background(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"not an opaque colour; expected a CSS colour name such as black, or #rrggbb$"
    ):
        parse_colour(name)


@pytest.mark.parametrize(
    "name",
    [
        "rgba-16.png",
        "grey-alpha.png",
        "grey-alpha-16.png",
        "grey-16-one-value-transparent.png",
        "grey-2-one-level-transparent.png",
        "rgb-16-one-colour-transparent.png",
        "bits-black-transparent.png",
        "palette-one-entry-transparent.png",
        "palette-of-degrees.png",
        "transparent.gif",
        "transparent.webp",
        "palette-with-alpha.tif",
        "rgba-premultiplied.tif",
    ],
)
def test_a_background_shows_where_and_as_far_as_an_image_is_transparent(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    over_white, over_blue = decode(data).astype(float), decode(data, background=(10, 20, 200)).astype(float)
    share = (over_white - over_blue) / (255 - np.array([10.0, 20.0, 200.0]))  # of the background in each pixel
    assert share.max() > 0.7
    assert share.min() > -0.04
    np.testing.assert_allclose(share[..., 0], share[..., 1], atol=0.02)
    np.testing.assert_allclose(share[..., 0], share[..., 2], atol=0.05)
    for read in (read_pixels, lambda data, t: read_augmented(data, t, np.random.default_rng(0), scale=1.0, flip=False)):
        assert (read(data, Transform(background=(0, 0, 0))) < read(data, Transform())).any()


def test_white_that_a_png_of_single_bits_declares_transparent_is_the_background() -> None:
    decoded = decode((FOLDER / "bits-white-transparent.png").read_bytes(), background=(0, 0, 9))
    bits = np.asarray(CASES["bits-white-transparent.png"].expected)[..., :1] == 255
    np.testing.assert_array_equal(decoded, np.where(bits, [0, 0, 9], 0))


def test_an_opaque_image_has_no_background() -> None:
    pixels = noise(40, 24)
    for kind in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(decode(file_of(pixels, kind), background=(0, 0, 0)), pixels)


# What cannot be decoded


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
def test_a_truncated_file_is_an_error_however_much_of_it_is_there(kind: str, share: float) -> None:
    data = file_of(noise(64, 64), kind)
    with pytest.raises(ImageError, match=r"^cannot be decoded: .*(?i:truncated)"):
        decode(data[: int(len(data) * share)])


def test_a_truncated_jpeg_says_so() -> None:
    data = file_of(noise(64, 64), "JPEG")
    with pytest.raises(ImageError, match="cannot be decoded: image file is truncated"):
        decode(data[: len(data) // 2])


def test_a_png_with_a_flipped_bit_is_an_error() -> None:
    data = bytearray(file_of(noise(64, 64)))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="cannot be decoded: "):
        decode(bytes(data))


def test_no_flipped_bit_of_a_pngs_pixels_goes_unseen() -> None:
    pixels = smooth(32, 24)
    data = file_of(pixels)
    rng = np.random.default_rng(0)
    for at in rng.integers(data.index(b"IDAT") + 4, len(data) - 16, 300):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(ImageError, match=r"^cannot be decoded: "):
            decode(bytes(damaged))


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"^the file is empty$"):
        decode(b"")


def test_text_is_an_error_that_shows_how_it_begins() -> None:
    with pytest.raises(ImageError, match="not an image of a known format \\(it begins with b'<!DOCTYP'\\)"):
        decode(b"<!DOCTYPE html><title>404</title>")


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF", "SGI"])
def test_a_format_that_featx_does_not_read_is_refused_even_where_pillow_could(kind: str) -> None:
    with pytest.raises(ImageError, match="not an image of a known format"):
        decode(file_of(noise(32, 32), kind))


SAVED = [
    ("JPEG", {}),
    ("PNG", {}),
    ("GIF", {}),
    ("GIF", {"disposal": 2}),
    ("BMP", {}),
    ("PPM", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
]


@pytest.mark.parametrize(("kind", "options"), SAVED)
@pytest.mark.parametrize("pillows", [10**9, 100])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    kind: str, options: dict[str, Any], pillows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = file_of(np.zeros((30, 40, 3), np.uint8), kind, **options)
    plugin = type(Image.open(io.BytesIO(data)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    monkeypatch.setattr(plugin, "load", lambda self: pytest.fail("decoded all the same"))
    for read in (
        lambda: decode(data, max_pixels=1199),
        lambda: read_pixels(data, Transform(), max_pixels=1199),
        lambda: read_augmented(data, Transform(), np.random.default_rng(0), scale=0.5, max_pixels=1199),
    ):
        with pytest.raises(ImageError, match=r"^40 x 30 pixels; at most 1,199 are read \(--max-pixels\)$"):
            read()
    assert pillows == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(("kind", "options"), SAVED)
@pytest.mark.parametrize("pillows", [599, 600, 1199])
@pytest.mark.filterwarnings("error")
def test_an_image_that_is_allowed_is_read_whatever_pillows_own_limit_is(
    kind: str, options: dict[str, Any], pillows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = file_of(np.zeros((30, 40, 3), np.uint8), kind, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    assert decode(data, max_pixels=1200).shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 1200


def test_pillows_own_limit_stays_as_it_is_where_no_image_is_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (1200, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        decode(file_of(np.zeros((30, 40, 3), np.uint8)), max_pixels=10**12)
        assert limit == Image.MAX_IMAGE_PIXELS


def test_threads_that_read_images_of_all_sizes_by_limits_of_all_kinds_do_not_disturb_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    kinds = ("GIF", "TIFF", "WEBP", "PNG")
    files = {side: file_of(np.zeros((side, side, 3), np.uint8), kinds[side % 4]) for side in range(4, 84)}

    def outcome(side: int, most: int) -> bool:
        try:
            return decode(files[side], max_pixels=most**2).shape == (side, side, 3)
        except ImageError as error:
            return not str(error).startswith(f"{side} x {side} pixels; at most {most**2:,} are read")

    sides, limits = np.random.default_rng(0).integers(4, 84, (2, 2000)).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(outcome, sides, limits))
    assert found == [side <= most for side, most in zip(sides, limits, strict=True)]


def test_the_limit_without_any_other_is_twice_the_one_pillow_warns_at() -> None:
    assert MAX_PIXELS == 2 * 89_478_485
    header = bytearray(file_of(np.zeros((1, 1), np.uint8), "BMP"))
    header[18:26] = (20_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageError, match=r"^20000 x 20000 pixels; at most 178,956,970 are read \(--max-pixels\)$"):
        decode(bytes(header))


# JPEGs at a part of their size


@pytest.mark.parametrize(
    ("size", "resize", "crop", "factor"),
    [
        ((640, 480), 60, 56, 8),
        ((640, 480), 61, 56, 4),
        ((480, 640), 120, 56, 4),
        ((641, 481), 122, 56, 2),
        ((640, 480), 241, 224, 1),
        ((100, 75), 256, 224, 1),
        ((640, 480), 0, 60, 8),
        ((640, 480), 0, 100, 4),
        ((640, 480), 0, 241, 1),
        ((5, 700), 1, 1, 4),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_scaled_jpeg_is_decoded_at_the_smallest_scale_that_leaves_enough(
    mode: str, size: tuple[int, int], resize: int, crop: int, factor: int
) -> None:
    data = file_of(Image.fromarray(smooth(*size)).convert(mode), "JPEG")
    image = Image.open(io.BytesIO(data))
    if factor > 1:
        image.draft(mode, tuple(length // factor for length in size))
    assert image.size == tuple(-(-length // factor) for length in size)
    scaled = Transform(resize=resize, crop=crop, decoding="scaled")
    expected = read_pixels(file_of(image.convert("RGB")), dataclasses.replace(scaled, decoding="exact"))
    np.testing.assert_array_equal(read_pixels(data, scaled), expected)


def test_scaling_changes_no_other_format_nothing_small_no_random_cut_and_no_limit() -> None:
    exact, scaled, on_a_gpu = (Transform(resize=30, crop=28, decoding=name) for name in DECODINGS)
    for kind in ("PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM"):
        data = file_of(smooth(640, 480), kind)
        np.testing.assert_array_equal(read_pixels(data, scaled), read_pixels(data, exact))
    large, small = file_of(smooth(640, 480), "JPEG"), file_of(smooth(58, 70), "JPEG")
    assert (read_pixels(large, scaled) != read_pixels(large, exact)).any()
    np.testing.assert_array_equal(read_pixels(large, on_a_gpu), read_pixels(large, exact))
    np.testing.assert_array_equal(read_pixels(small, scaled), read_pixels(small, exact))
    cuts = [read_augmented(large, t, np.random.default_rng(0), scale=0.5) for t in (exact, scaled)]
    np.testing.assert_array_equal(*cuts)
    with pytest.raises(ImageError, match=r"^640 x 480 pixels; at most 307,199 are read"):
        read_pixels(large, scaled, max_pixels=640 * 480 - 1)


def test_a_truncated_jpeg_is_an_error_at_any_scale() -> None:
    data = file_of(noise(640, 480), "JPEG")
    with pytest.raises(ImageError, match="cannot be decoded: image file is truncated"):
        read_pixels(data[: len(data) // 2], Transform(resize=30, crop=28, decoding="scaled"))


# JPEGs into memory of ours


def test_a_jpeg_has_the_pixels_and_the_faults_that_it_has_in_pillow_by_itself(tmp_path: Path) -> None:
    script = [sys.executable, str(FOLDER / "fuzz.py"), "3000", "0", "--jpeg"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_jpeg_is_read_by_a_pillow_that_takes_no_memory_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(smooth(48, 32), "JPEG")
    expected = decode(data)
    prepare = JpegImagePlugin.JpegImageFile.load_prepare

    def load_prepare(self: Any) -> None:  # as before Pillow 11: what is of another mode is made anew
        self.im = Image.core.new(self.mode, self.size)
        prepare(self)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load_prepare", load_prepare)
    np.testing.assert_array_equal(decode(data), expected)


def test_what_was_decoded_belongs_to_the_caller_alone() -> None:
    data = file_of(smooth(48, 32), "JPEG")
    for read in (decode, lambda data: read_pixels(data, Transform(resize=32, crop=32))):
        first = read(data)
        kept = first.copy()
        first[...] = 0
        np.testing.assert_array_equal(read(data), kept)


def test_a_backbone_takes_a_background_which_is_part_of_its_identity() -> None:
    plain = load_backbone("lenet5", device="cpu")
    black = load_backbone("lenet5", device="cpu", background="black")
    assert plain.transform.background == (255, 255, 255)
    assert black.transform.background == (0, 0, 0)
    assert black.identity != plain.identity
    assert load_backbone("lenet5", device="cpu", background="#FFFFFF").identity == plain.identity


def test_a_background_that_is_no_colour_is_refused_by_the_backbone() -> None:
    with pytest.raises(
        BackboneError, match=r"^--background 'glass' is not an opaque colour; expected a CSS colour name such"
    ):
        load_backbone("lenet5", background="glass")


# Thumbnails


def seen(thumb: bytes) -> np.ndarray:
    """(H, W, 3) of a thumbnail, which must be a plain JPEG."""
    with Image.open(io.BytesIO(thumb)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert not image.getexif()
        return np.asarray(image)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(640, 480, (120, 160)), (480, 640, (160, 120)), (7, 28, (160, 40)), (1, 5000, (160, 1)), (160, 160, (160, 160))],
)
def test_the_longer_side_of_a_thumbnail_is_as_asked(width: int, height: int, size: tuple[int, int]) -> None:
    assert seen(thumbnail(file_of(noise(width, height)), 160)).shape == (*size, 3)


def test_a_thumbnail_looks_like_its_image() -> None:
    whole = smooth(640, 480)
    for kind in ("PNG", "JPEG"):
        small = seen(thumbnail(file_of(whole, kind, quality=95) if kind == "JPEG" else file_of(whole), 320))
        expected = whole.reshape(240, 2, 320, 2, 3).mean(axis=(1, 3))
        assert np.abs(small - expected).mean() < 5  # JPEG keeps half of the colours' detail


def test_a_thumbnail_is_upright_and_white_where_its_image_is_transparent() -> None:
    pixels = np.zeros((20, 40, 4), np.uint8)
    pixels[:, :20] = (255, 0, 0, 255)  # the left half is red, the right one transparent
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    small = seen(thumbnail(file_of(pixels, exif=exif), 80))
    assert small.shape == (80, 40, 3)
    np.testing.assert_allclose(small[8, 20], (255, 0, 0), atol=12)
    np.testing.assert_allclose(small[72, 20], (255, 255, 255), atol=12)


@pytest.mark.parametrize("name", [name for name in CASES if isinstance(CASES[name][1], str)])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_file_that_cannot_be_decoded_has_no_thumbnail(name: str) -> None:
    with pytest.raises(ImageError, match=str(CASES[name][1])):
        thumbnail((FOLDER / name).read_bytes(), 64)


# simplejpeg, where it is installed


def jpeg(subsampling: int = 2, size: tuple[int, int] = (45, 31), **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG", subsampling=subsampling, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def turbo(monkeypatch: pytest.MonkeyPatch) -> Turbo:
    pytest.importorskip("simplejpeg", reason="needs simplejpeg")
    fresh = Turbo(left=2)
    monkeypatch.setattr("featx.data.turbo.LIBRARY", fresh)
    return fresh


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"subsampling": 2, "progressive": True},
        {"subsampling": 0, "keep_rgb": True},
    ],
)
def test_simplejpeg_gives_pillows_pixels_and_is_then_believed(
    options: dict[str, Any], turbo: Turbo, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg(**options)
    for left in (2, 1):
        assert turbo.left == left
        np.testing.assert_array_equal(decode(data), by_pillow(data))
    assert turbo.is_proved
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("Pillow decoded it"))
    found = decode(data)
    monkeypatch.undo()
    np.testing.assert_array_equal(found, by_pillow(data))


def test_a_library_of_other_pixels_is_used_no_more(turbo: Turbo) -> None:
    class Other:
        calls = 0

        def decode_jpeg(self, data: bytes, colorspace: str, *, buffer: np.ndarray, strict: bool) -> np.ndarray:
            Other.calls += 1
            buffer[:] = 0x010101
            return buffer.view(np.uint8).reshape(*buffer.shape, 4)

    turbo._library = Other()
    for _ in range(4):
        np.testing.assert_array_equal(decode(jpeg()), by_pillow(jpeg()))
    assert Other.calls == 1


def test_what_simplejpeg_warns_of_is_pillows_to_judge(turbo: Turbo) -> None:
    turbo.left = 0
    whole = jpeg(size=(400, 300))
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[: len(whole) // 2])
    garbled = bytearray(whole)
    garbled[len(whole) // 2 : len(whole) // 2 + 40] = bytes(range(40))
    np.testing.assert_array_equal(decode(bytes(garbled)), by_pillow(bytes(garbled)))


def test_a_file_whose_headers_disagree_on_its_size_is_no_matter_for_simplejpeg(turbo: Turbo) -> None:
    assert turbo.decode(jpeg(size=(40, 30)), (40, 30)) is not None
    assert turbo.decode(jpeg(size=(40, 30)), (41, 30)) is None
    assert turbo.decode(jpeg(size=(40, 30)), (10, 10)) is None


def test_pixels_are_the_same_without_simplejpeg(turbo: Turbo) -> None:
    turbo.left = 0
    wanted = decode(jpeg())
    turbo._library = None
    np.testing.assert_array_equal(decode(jpeg()), wanted)
