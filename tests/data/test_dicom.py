"""DICOM images, against pydicom's own windowing."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import noise

from featx.data.decode import decode, peek, read_pixels, with_pixels
from featx.data.formats import format_of
from featx.data.transform import Transform, channels
from featx.errors import ImageError, MachineError

pydicom = pytest.importorskip("pydicom", reason="needs pip install 'featx[dicom]'")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_windowing  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SECRET = "Mustermann^Erika"
GREY = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)


def dicom(array: np.ndarray, syntax: Any = ExplicitVRLittleEndian, **attributes: Any) -> bytes:
    """A file of an image: (H, W) or (H, W, 3), or with a frame axis before these; attributes by their keywords."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = "1.2.3"
    found.PatientName, found.PatientID, found.PatientBirthDate = SECRET, SECRET, "not a date, 19700101"
    colours = array.shape[-1] == 3
    plane = array.shape[-3:] if colours else array.shape[-2:]
    found.Rows, found.Columns = plane[:2]
    found.SamplesPerPixel, found.PhotometricInterpretation = (3, "RGB") if colours else (1, "MONOCHROME2")
    if colours:
        found.PlanarConfiguration = 0
    if array.ndim > len(plane):
        found.NumberOfFrames = len(array)
    bits = 8 * array.dtype.itemsize
    found.BitsAllocated = found.BitsStored = bits
    found.PixelRepresentation = int(array.dtype.kind == "i")
    found.PixelData = (array.byteswap() if syntax == ExplicitVRBigEndian else array).tobytes()
    for name, value in attributes.items():
        setattr(found, name, value)
    found.HighBit = found.BitsStored - 1
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def levels(data: bytes, **fields: Any) -> np.ndarray:
    return with_pixels(data, Transform(**fields), lambda pixels: channels(pixels)[..., 0].copy(), max_pixels=10**6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (600, 1600)])
def test_the_window_of_a_file_applies_to_rescaled_values(function: str, centre: int, width: int) -> None:
    attributes = {
        "BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024,
        "WindowCenter": [centre, 9], "WindowWidth": [width, 9], "VOILUTFunction": function,
    }  # fmt: skip
    data = dicom(GREY, **attributes)
    hounsfield = GREY.astype(np.float64) - 1024
    theirs = apply_windowing(hounsfield, pydicom.dcmread(io.BytesIO(data)))
    low, high = -1024.0, 3071.0
    expected = np.rint((theirs - low) / (high - low) * 255)
    assert np.abs(levels(data).astype(int) - expected).max() <= 1
    assert peek(data, Transform(), max_pixels=10_000)[1] == 1, "nothing to advise about"


def test_a_value_range_in_hounsfield_replaces_the_window_and_clips() -> None:
    data = dicom(GREY, BitsStored=12, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=10)
    expected = np.rint(np.clip((GREY * 2.0 - 1024 + 160) / 400, 0, 1) * 255)
    np.testing.assert_array_equal(levels(data, value_range=(-160.0, 240.0)), expected)


def test_without_a_window_black_and_white_are_the_ends_of_the_stored_bits() -> None:
    data = dicom(GREY, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_array_equal(levels(data), np.rint(GREY / 4095 * 255))
    found, highest = peek(data, Transform(), max_pixels=10_000)
    assert (found.low, found.high, highest) == (-1024, 3071, GREY.max() - 1024)
    signed = (GREY.astype(np.int32) - 2048).astype(np.int16)
    np.testing.assert_array_equal(levels(dicom(signed, BitsStored=12)), np.rint(GREY / 4095 * 255))


@pytest.mark.parametrize("width", [0, 1, -5, float("nan")])
def test_a_window_without_a_width_is_no_window(width: float) -> None:
    value = f"{width:g}" if width == width else "1e999"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dicom(GREY, BitsStored=12, WindowCenter=9, WindowWidth=value)
    np.testing.assert_array_equal(levels(data), np.rint(GREY / 4095 * 255))


def test_monochrome_1_is_white_at_its_lowest_value() -> None:
    attributes = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    dark = levels(dicom(GREY, **attributes))
    np.testing.assert_array_equal(
        levels(dicom(GREY, PhotometricInterpretation="MONOCHROME1", **attributes)), 255 - dark
    )


def test_a_lookup_table_for_viewing_applies_where_there_is_no_window() -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = (
        [4096, 0, 16],
        np.array([(255 - value // 16) * 257 for value in range(4096)], "<u2").tobytes(),
    )
    data = dicom(GREY, BitsStored=12, VOILUTSequence=Sequence([table]))
    np.testing.assert_array_equal(levels(data), 255 - GREY // 16)


def test_a_window_of_an_enhanced_image_is_that_of_its_first_frame() -> None:
    window, rescale, shared, frame, second = (Dataset() for _ in range(5))
    window.WindowCenter, window.WindowWidth = 100, 201
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    shared.PixelValueTransformationSequence = Sequence([rescale])
    frame.FrameVOILUTSequence = Sequence([window])
    data = dicom(
        np.stack([GREY, GREY[::-1]]),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence([frame, second]),
    )
    expected = np.clip((GREY - 1024.0 - 99.5) / 200 + 0.5, 0, 1) * 255
    assert np.abs(levels(data) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_every_encoding_gives_the_same_pixels(syntax: Any) -> None:
    np.testing.assert_array_equal(levels(dicom(GREY, syntax, BitsStored=12)), np.rint(GREY / 4095 * 255))


def test_colour_is_rgb_whatever_its_model_and_order() -> None:
    pixels = noise(30, 20)
    np.testing.assert_array_equal(decode(dicom(pixels)), pixels)
    planes = dicom(pixels, PixelData=pixels.transpose(2, 0, 1).tobytes(), PlanarConfiguration=1)
    np.testing.assert_array_equal(decode(planes), pixels)
    ybr = pydicom.pixels.convert_color_space(pixels, "RGB", "YBR_FULL")
    assert np.abs(decode(dicom(ybr, PhotometricInterpretation="YBR_FULL")).astype(int) - pixels).max() <= 2
    tables = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8] for name in ("Red", "Green", "Blue")}
    ramp = np.arange(256, dtype=np.uint8)
    for name, table in (("Red", ramp), ("Green", 255 - ramp), ("Blue", ramp // 2)):
        tables[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    indices = pixels[..., 0]
    coloured = decode(dicom(indices, PhotometricInterpretation="PALETTE COLOR", **tables))
    np.testing.assert_array_equal(coloured, np.stack([indices, 255 - indices, indices // 2], axis=-1))


def test_of_several_frames_the_first_counts_also_if_it_is_compressed() -> None:
    frames = np.stack([GREY, GREY[::-1]])
    np.testing.assert_array_equal(levels(dicom(frames, BitsStored=12)), np.rint(GREY / 4095 * 255))
    whole = pydicom.dcmread(io.BytesIO(dicom(frames, BitsStored=12)))
    whole.compress(RLELossless)
    stream = io.BytesIO()
    whole.save_as(stream)
    np.testing.assert_array_equal(levels(stream.getvalue()), np.rint(GREY / 4095 * 255))


def test_a_network_of_one_channel_gets_the_window() -> None:
    transform = Transform(resize=20, crop=20, crop_width=30, channels=1, mean=(0.5,), std=(0.5,))
    np.testing.assert_array_equal(read_pixels(dicom(GREY, BitsStored=12), transform)[0], np.rint(GREY / 4095 * 255))


def test_a_file_without_its_preamble_is_recognised() -> None:
    data = dicom(GREY, ImplicitVRLittleEndian, BitsStored=12)
    assert format_of(data) == format_of(data[132:]) == "DICOM"
    np.testing.assert_array_equal(levels(data[132:]), levels(data))


@pytest.mark.parametrize(("syntax", "library"), [(JPEGLosslessSV1, "libjpeg"), (HTJ2KLossless, "openjpeg")])
def test_a_compression_that_needs_a_plug_in_names_it_and_is_tried_again_later(syntax: str, library: str) -> None:
    data = dicom(GREY, BitsStored=12)
    broken = pydicom.dcmread(io.BytesIO(data))
    broken.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    broken.file_meta.TransferSyntaxUID = syntax
    broken["PixelData"].VR = "OB"
    broken["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    broken.save_as(stream)
    if any(name in sys.modules for name in ("pylibjpeg", "gdcm")):
        pytest.skip("a plug-in is installed")
    with pytest.raises(
        MachineError, match=rf"pydicom lacks a decoder; pip install pylibjpeg pylibjpeg-{library} \(.*JPEG"
    ):
        decode(stream.getvalue())


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MachineError, match=r"DICOM needs pip install 'featx\[dicom\]'$"):
        decode(dicom(GREY))


def test_a_file_without_an_image_says_so() -> None:
    found = pydicom.dcmread(io.BytesIO(dicom(GREY)))
    del found.PixelData
    stream = io.BytesIO()
    found.save_as(stream)
    with pytest.raises(ImageError, match=r"^a DICOM file without an image$"):
        decode(stream.getvalue())


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageError, match=r"^30 x 20 pixels; at most 100 are read"):
        decode(dicom(GREY), max_pixels=100)
    with pytest.raises(ImageError, match=r"^65000 x 65000 pixels; at most"):
        decode(dicom(GREY, Rows=65000, Columns=65000))


def test_a_deflated_file_that_grows_without_bounds_is_refused() -> None:
    data = dicom(GREY, DeflatedExplicitVRLittleEndian)
    head = data[: data.index(b"1.2.840.10008.1.2.1.99") + 22]
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(20)) + packer.flush()
    tail = data[len(head) :]
    meta_end = 132 + 12 + int.from_bytes(data[140:144], "little")
    assert len(head) <= meta_end <= len(head) + len(tail)
    with pytest.raises(ImageError, match="a deflated DICOM file of more than"):
        decode(data[:meta_end] + bomb)


def test_damage_gives_an_error_that_quotes_nothing_of_the_patient(capfd: pytest.CaptureFixture[str]) -> None:
    rng, messages = random.Random(0), set()
    originals = [
        dicom(GREY, BitsStored=12, WindowCenter=9, WindowWidth=9),
        dicom(noise(9, 7)),
        dicom(GREY, ImplicitVRLittleEndian),
    ]
    originals.append(dicom(GREY[:4, :4], DeflatedExplicitVRLittleEndian))
    for _ in range(500):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(128, rng.choice((len(data), min(len(data), 700))))] = rng.randrange(256)
        try:
            decode(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]))
        except ImageError as error:
            messages.add(str(error))
    said = [*messages, *capfd.readouterr()]
    assert messages
    assert not [text for text in said if "Mustermann" in text or "Erika" in text or "1970" in text]


def test_warnings_about_values_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(GREY).replace(b"1.2.840.10008.1.2.1", b"1.2.840.1000J.1.2.1"))
    (tmp_path / "try.py").write_text(
        "from pathlib import Path\nfrom featx.data.decode import decode\n"
        f"try: decode(Path({str(tmp_path / 'a.dcm')!r}).read_bytes())\nexcept Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "try.py"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot be decoded: a DICOM file that is truncated, damaged or of a rare kind (")
    assert done.stderr == ""
