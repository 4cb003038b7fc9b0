"""DICOM images: their pixels through the rescaling and the window of the file, by pydicom, an optional dependency.

Nothing but pixels and what is needed to show them is read: no name, number or date of a patient is parsed, kept or printed, and
no message of pydicom's, which may quote one, is passed on.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from featx.data.plugins import missing
from featx.data.samples import FLOAT, Values, ValueType, integers
from featx.data.transform import Transform
from featx.errors import ImageError, MachineError

_DEFLATED = "1.2.840.10008.1.2.1.99"

_MOST_INFLATED = 1 << 28
"""The most bytes that a deflated file may have when it is inflated."""

_PALETTE = [
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Data", "Descriptor")
]
_TAGS = [
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *(
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
    ),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *_PALETTE),
]
_GROUPS = {
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
"""Where an enhanced multi-frame image has these attributes, for all frames or for each."""

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420", "YBR_PARTIAL_422")


def dicom_values(
    data: bytes, transform: Transform, take: Callable[[tuple[int, int], int], None]
) -> tuple[Values, bool]:
    """The samples of the first frame of a DICOM file.

    Grey is rescaled to the units of its modality, such as Hounsfield. Then ``transform.value_range``, in these units, or the
    first window of the file, or its VOI LUT, becomes black to white, and what lies beyond is clipped, as viewers do.

    Args:
        data: the file.
        transform: its value range applies.
        take: called with (width, height) and the bytes of memory that are needed, before a pixel is decoded; it may refuse.

    Returns:
        The samples; and whether they are levels of a window, to which no value range applies any more.

    Raises:
        ImageError: the file is damaged, or has no image.
        MachineError: pydicom is not installed, or lacks a decoder.
    """
    try:
        import pydicom
    except ImportError as error:
        raise missing("DICOM") from error
    _silence()
    try:
        return _values(pydicom, data, transform, take)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # pydicom raises anything at a damaged file
        raise ImageError(
            f"cannot be decoded: a DICOM file that is truncated, damaged or of a rare kind ({type(error).__name__})"
        ) from None


@functools.cache
def _silence() -> None:
    """Keep the warnings of pydicom, which quote values, from the terminal; see ``pillow._silence``."""
    warnings.filterwarnings("ignore", module=r"pydicom\b", append=True)


def _values(
    pydicom: Any, data: bytes, transform: Transform, take: Callable[[tuple[int, int], int], None]
) -> tuple[Values, bool]:
    inflated = _inflated_size(pydicom, data)
    found = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=_TAGS)
    if not any(name in found for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError("a DICOM file without an image")
    size = int(found.Columns), int(found.Rows)
    samples = int(found.get("SamplesPerPixel", 1))
    take(size, size[0] * size[1] * samples * 24 + 3 * inflated)
    array = _pixels(pydicom, found)
    kind = str(found.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        array = pydicom.pixels.apply_color_lut(array, found)
        bits = 8 * array.dtype.itemsize
        return _image(array, integers(bits)), False
    if kind in _COLOURS:
        return _image(array, integers(int(found.BitsAllocated))), False
    if not kind.startswith("MONOCHROME"):
        raise ImageError("a DICOM file of a rare kind of colour; expected grey, RGB, YBR or a palette")
    grey, type_ = _rescaled(pydicom, array, found)
    shown = _windowed(pydicom, grey, found, transform)
    values = _image(grey, type_) if shown is None else _image(shown, dataclasses.replace(FLOAT, name="windowed"))
    return dataclasses.replace(values, inverted=kind == "MONOCHROME1"), shown is not None


def _inflated_size(pydicom: Any, data: bytes) -> int:
    """The bytes that a deflated file has when it is inflated, which pydicom does at once; 0 for other files.

    Raises:
        ImageError: there are too many.
    """
    file = io.BytesIO(data)
    if data[128:132] != b"DICM":
        return 0
    file.seek(132)
    meta = pydicom.filereader._read_file_meta_info(file)
    if str(meta.get("TransferSyntaxUID", "")) != _DEFLATED:
        return 0
    inflated, rest, total = zlib.decompressobj(-zlib.MAX_WBITS), data[file.tell() :], 0
    while rest and not inflated.eof:
        total += len(inflated.decompress(rest, 1 << 20))
        rest = inflated.unconsumed_tail
        if total > _MOST_INFLATED:
            raise ImageError(f"a deflated DICOM file of more than {_MOST_INFLATED:,} bytes")
    return total


def _pixels(pydicom: Any, found: Any) -> np.ndarray:
    """The first frame: (H, W) or (H, W, 3), colours as RGB."""
    try:
        return np.asarray(pydicom.pixels.pixel_array(found, index=0))
    except (RuntimeError, NotImplementedError) as error:
        if "missing dependencies" not in str(error) and "no available" not in str(error).lower():
            raise
        name = pydicom.uid.UID(str(found.file_meta.TransferSyntaxUID)).name
        library = "openjpeg" if "JPEG 2000" in name else "libjpeg"
        raise MachineError(
            f"cannot be decoded on this machine: pydicom lacks a decoder; pip install pylibjpeg pylibjpeg-{library} ({name})"
        ) from None


def _image(array: np.ndarray, type_: ValueType) -> Values:
    shaped = array.reshape(*array.shape[:2], -1)
    return Values((shaped.shape[1], shaped.shape[0]), type_, shaped.shape[2], lambda top, bottom: shaped[top:bottom])


def _attribute(found: Any, name: str) -> Any:
    """An attribute of the first frame: in the functional groups of an enhanced image, or in the file itself. None without."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        group = (found.get(groups) or [None])[0]
        inner = (group.get(_GROUPS.get(name, "")) or [None])[0] if group is not None else None
        if inner is not None and inner.get(name) is not None:
            return inner.get(name)
    return found.get(name)


def _number(found: Any, name: str) -> float | None:
    """A number, the first of several; None without a finite one."""
    value = _attribute(found, name)
    if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else None
    if value in (None, ""):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _rescaled(pydicom: Any, array: np.ndarray, found: Any) -> tuple[np.ndarray, ValueType]:
    """(H, W) float64 in the units of the modality, and the type of the values."""
    if found.get("ModalityLUTSequence"):
        grey = np.asarray(pydicom.pixels.apply_modality_lut(array, found), np.float64)
        bits = int(found.ModalityLUTSequence[0].LUTDescriptor[2])
        return grey, integers(min(32, max(1, bits)))
    slope, intercept = _number(found, "RescaleSlope"), _number(found, "RescaleIntercept")
    slope, intercept = 1.0 if slope in (None, 0) else slope, intercept or 0.0
    grey = array.astype(np.float64) * slope + intercept
    if array.dtype.kind == "f":
        return grey, FLOAT
    bits, signed = int(found.get("BitsStored", found.BitsAllocated)), bool(found.get("PixelRepresentation", 0))
    least = -(2 ** (bits - 1)) if signed else 0
    low, high = sorted((least * slope + intercept, (least + 2**bits - 1) * slope + intercept))
    return grey, ValueType(f"{bits}-bit", low, high, high, signed or low < 0)


def _windowed(pydicom: Any, grey: np.ndarray, found: Any, transform: Transform) -> np.ndarray | None:
    """(H, W) float64 from 0, black, to 1, white; None where neither the user nor the file names what is black and white."""
    if transform.value_range is not None:
        low, high = transform.value_range
        return np.asarray(np.clip((grey - low) / (high - low), 0, 1))
    centre, width = _number(found, "WindowCenter"), _number(found, "WindowWidth")
    function = str(_attribute(found, "VOILUTFunction") or "LINEAR")
    if centre is not None and width is not None and width > (1 if function == "LINEAR" else 0):
        if function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (grey - centre) / width, -700, 700))))
        exact = function == "LINEAR_EXACT"
        levels = (grey - centre) / width if exact else (grey - (centre - 0.5)) / (width - 1)
        return np.asarray(np.clip(levels + 0.5, 0, 1))
    if found.get("VOILUTSequence"):
        levels = np.asarray(pydicom.pixels.apply_voi_lut(grey.astype(np.int64), found, prefer_lut=True), np.float64)
        bits = int(found.VOILUTSequence[0].LUTDescriptor[2])
        return np.asarray(np.clip(levels / (2 ** min(32, max(1, bits)) - 1), 0, 1))
    return None
