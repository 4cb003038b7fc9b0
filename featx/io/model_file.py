"""Heads and models on disk: one .safetensors file, arrays and JSON. No pickle; a checksum of its own.

The JSON is one string under the metadata key "featx" and names format, version and the SHA-256 of arrays and JSON.

A file may come from a stranger. So before anything is made of it, its length, its header, its JSON and the shape of every
array are checked against what featx itself writes: ``_HEAD``, ``_MODEL`` and ``_ARRAYS`` below are that contract, and saving
checks it too. What a file can make featx allocate is bounded by its own size.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save

from featx.constants import CALIBRATIONS, DTYPES, KERNELS, KINDS, MAX_SIDE, TASKS
from featx.errors import CacheMissError, CorruptFileError, FeatxError, HeadError
from featx.io.atomic import reason, write_whole
from featx.io.strict_json import shown, strict_json
from featx.io.tensor_file import Tensor, read_header, read_tensor
from featx.layer_spec import LayerSpec
from featx.system import MISSING, why_unreadable

HEAD, MODEL = "featx-head", "featx-model"
"""The two formats."""

VERSION = {HEAD: 2, MODEL: 2}
"""Of each format, that is written and read."""

TRAIN_KEYS = {HEAD: "train_keys", MODEL: "featx.train_keys"}
"""The array of content hashes, (n_train, 16) uint8, by format; in a model all other arrays are the network's own."""

MOST_CLASSES = 32_768
"""As many classes as a head or model may have; ImageNet-21k has 21,843."""


# What a file must say


@dataclass(frozen=True)
class _Is:
    """One rule for a value of the JSON, and the same in words."""

    expected: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _whole(least: int, most: int = 2**63 - 1) -> _Is:
    return _Is(
        f"a whole number, {least} to {most}" if most < 2**63 - 1 else f"a whole number, at least {least}",
        lambda value: type(value) is int and least <= value <= most,
    )


def _one_of(*names: str) -> _Is:
    return _Is(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def _is_path(value: Any) -> bool:
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MOST_CLASSES
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _three(rule: _Is) -> _Is:
    return _Is(
        f"a list of three, each {rule.expected}",
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(rule.holds, value)),
    )


_NULL = _Is("null", lambda value: value is None)
_TEXT = _Is("a string", lambda value: isinstance(value, str))
_PATH = _Is("a path", _is_path)
_LAYER = _Is("the name of a layer in views that there are", LayerSpec.is_valid)
_OBJECT = _Is("an object", lambda value: isinstance(value, dict))
_NUMBER = _Is("a finite number", _is_number)
_POSITIVE = _Is("a number above 0", lambda value: _is_number(value) and value > 0)
_SHARE = _Is("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_NAMES = _Is(f"a list of 1 to {MOST_CLASSES:,} different names", _are_names)
_CLASSES = _Is(f"a list of 2 to {MOST_CLASSES:,} different names", lambda value: _are_names(value) and len(value) > 1)
_DIGEST = _Is("a SHA-256", lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)))
_NO_TEXT = _Is("an empty string", lambda value: value == "")  # the identity of features that were made by hand
_NO_FACTS = _Is("an empty object", lambda value: value == {})  # their backbone

_FORMS = ("linear", "kernel", "neighbour", "neighbour-labels", "neighbour-mean", "hidden")
_TRANSFORM = {
    "resize": _whole(0, MAX_SIDE),
    "crop": _whole(1, MAX_SIDE),
    "mean": _three(_NUMBER),
    "std": _three(_POSITIVE),
    "interpolation": _TEXT,
}
_BACKBONE = {"name": _PATH, "weights": _PATH, "parts": {"dtype": _one_of(*DTYPES), "transform": _TRANSFORM}}
_REPORT = {"n": _whole(1), "split": _TEXT}
_OF_CLASSES = {**_REPORT, "accuracy": _NUMBER}
_PARAMETERS = {
    "C": (_NULL, _POSITIVE),
    "k": (_NULL, _whole(1)),
    "kernel": (_NULL, _one_of(*KERNELS)),
    "seed": (_NULL, _whole(-(2**63))),
}

_EVERY = {"sha256": _DIGEST, "dataset": _OBJECT, "n_train": _whole(1), "seconds": _NUMBER}

_HEAD = {
    **_EVERY,
    "classes": _NAMES,
    "kind": _one_of(*KINDS),
    "form": _one_of(*_FORMS),
    "task": _one_of(*TASKS),
    "parameters": {
        **_PARAMETERS,
        "weight_decay": (_NULL, _NUMBER),
        "class_weight": (_NULL, _one_of("balanced")),
        "logit_adjustment": _NUMBER,
        "calibrate": (_NULL, _one_of(*CALIBRATIONS)),
        "group": (_NULL, _TEXT),
    },
    "temperature": _POSITIVE,
    "reject_below": (_NULL, _SHARE),
    "layer": _LAYER,
    "identity": (_NO_TEXT, _DIGEST),
    "backbone": (_NO_FACTS, _BACKBONE),
    "source": (_NULL, _PATH),
    "search": [{"candidate": _NUMBER, "mean": (_NULL, _NUMBER), "standard_error": (_NULL, _NUMBER)}],
    "convergence": (_NULL, {"gap": _NUMBER, "iterations": _whole(0)}),
    "notes": [_TEXT],
    "held_out": (_NULL, _REPORT),
    "report": (_NULL, _REPORT),
}

_MODEL = {
    **_EVERY,
    "classes": _CLASSES,
    "name": _TEXT,
    "origin": {"source": _one_of("torchvision", "featx", "timm", "file"), "name": _TEXT},
    "classifier": _TEXT,
    "reject_below": (_NULL, _SHARE),
    "layer": _LAYER,
    "width": _whole(1),
    "transform": _TRANSFORM,
    "head": {"kind": _one_of(*KINDS), "parameters": _PARAMETERS, "identity": (_NO_TEXT, _DIGEST)},
    "verdict": _one_of("assembled", "promoted", "kept-head"),
    "why": _TEXT,
    "max_logit_difference": _NUMBER,
    "head_report": _OF_CLASSES,
    "report": _OF_CLASSES,
    "log": [_OBJECT],
    "settings": (_NULL, _OBJECT),
}
"""A rule for each key: ``_Is``, an object's keys, [the rule of each item], or (one rule, or another)."""

_SUPPORT = {"support": ("F32", "SD"), "support_weight": ("F64", "S"), "k": ("I64", ""), "sharpness": ("F64", "")}
_ARRAYS = {
    "linear": {"weight": ("F64", "CD"), "bias": ("F64", "C")},
    "kernel": {"support": ("F32", "SD"), "dual": ("F64", "CS"), "bias": ("F64", "C"), "gamma": ("F64", "")},
    "neighbour": {**_SUPPORT, "support_labels": ("I64", "S"), "count": ("I64", "")},
    "neighbour-labels": {**_SUPPORT, "support_labels": ("U8", "SC")},
    "neighbour-mean": {**_SUPPORT, "support_values": ("F64", "SC")},
    "hidden": {
        "hidden_weight": ("F32", "UD"), "hidden_bias": ("F32", "U"), "weight": ("F64", "CU"), "bias": ("F64", "C"),
    },
}  # fmt: skip
"""The arrays of each form of head, without ``scorer.``: dtype, and a letter for each length (C classes, D features)."""


_OPTIONAL = (
    {"thresholds": ("F64", "C")},
    {"isotonic.x": ("F64", "CJ"), "isotonic.y": ("F64", "CJ"), "isotonic.doubt": ("F64", "")},
)
"""What a head may hold besides, each all or nothing."""


def packed(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, format: str) -> bytes:  # noqa: A002 - the format's own word
    """The whole file, in memory, and proved to be one that can be read again.

    Raises:
        HeadError: it could not.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        facts = json.loads(json.dumps({**metadata, "format": format, "version": VERSION[format]}, allow_nan=False))
        text = json.dumps({**facts, "sha256": digest(contiguous, facts)}, sort_keys=True)
        data = save(contiguous, metadata={"featx": text})
        checked = _read(path, io.BytesIO(data), len(data))
        _require_sound(path, checked.metadata, _value_fault(contiguous, checked.metadata))
    except (ValueError, CorruptFileError) as error:
        raise HeadError(f"{path} was not written, for it could not be read again: {error}") from error
    return data


def save_model(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, format: str) -> None:  # noqa: A002 - as above
    """Write a file beside its final name, sync it and rename it; what was there before stays until then.

    Raises:
        OutputError: the file cannot be written.
        HeadError: as ``packed``.
    """
    write_whole(path, packed(path, arrays, metadata, format=format))


# Reading


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON of a head or model, without its arrays.

    Raises:
        CacheMissError: no such file, or none that can be read.
        CorruptFileError: not a file that featx wrote, or of an unknown version.
    """
    with _opened(path) as file:
        return _read(path, file, os.fstat(file.fileno()).st_size).metadata


def load_model(path: Path, *, format: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # noqa: A002 - as above
    """Arrays and JSON.

    Raises:
        CacheMissError: no such file, or none that can be read.
        CorruptFileError: not a file of this format, or one that has changed since it was written.
    """
    with _opened(path) as file:
        contents = _read(path, file, os.fstat(file.fileno()).st_size)
        metadata = contents.metadata
        if metadata["format"] != format:
            raise CorruptFileError(f"{path} is a {metadata['format']}; expected a {format}")
        arrays = {name: _tensor(path, file, tensor) for name, tensor in contents.tensors.items()}
    if metadata.pop("sha256") != digest(arrays, metadata):
        raise CorruptFileError(f"{path} is damaged: its arrays and metadata do not fit their checksum")
    _require_sound(path, metadata, _value_fault(arrays, metadata))
    return arrays, metadata


def newest(folder: Path, *, format: str) -> Path:  # noqa: A002 - as above
    """The file of this format in a folder that was written last.

    Raises:
        CacheMissError: there is none.
    """
    for path in sorted(folder.glob("*.safetensors"), key=_written, reverse=True):
        with contextlib.suppress(CacheMissError, CorruptFileError):
            if read_metadata(path)["format"] == format:
                return path
    command = "fit-head" if format == HEAD else "promote"
    raise CacheMissError(
        f"there is no {format.removeprefix('featx-')} in {folder}; run featx {command} first, or name one"
    )


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # gone meanwhile, or a link to nowhere
        return 0


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open; whatever the system says of it while it is read is a FeatxError."""
    why = why_unreadable(path)
    if why == MISSING:
        raise CacheMissError(f"there is no head or model {path}; featx fit-head and featx promote make them")
    if why:
        raise CacheMissError(f"{path} cannot be read as a head or model: {why}")
    try:
        with path.open("rb") as file:
            yield file
    except FeatxError:
        raise
    except OSError as error:
        raise CacheMissError(f"{path} cannot be read as a head or model: {reason(error)}") from error


@dataclass(frozen=True)
class _Contents:
    """What a sound file holds, before its arrays are read."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def _read(path: Path, file: BinaryIO, size: int) -> _Contents:
    """Check all of a file but its arrays' values.

    Raises:
        CorruptFileError: it breaks a rule; which one is said.
    """
    try:
        strings, tensors = read_header(file, size)
        metadata = strict_json(strings.get("featx", "null"))
    except ValueError as error:
        raise CorruptFileError(f"{path} is not a safetensors file: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("format") not in (HEAD, MODEL):
        raise CorruptFileError(
            f"{path} is not a head or model of featx; expected a file that fit-head or promote wrote"
        )
    if metadata.get("version") != (version := VERSION[metadata["format"]]):
        raise CorruptFileError(f"{path} is of version {shown(metadata.get('version'))}; this featx reads {version}")
    _require_sound(path, metadata, _fault(metadata, _HEAD if metadata["format"] == HEAD else _MODEL))
    _require_sound(path, metadata, _shape_fault(tensors, metadata))
    return _Contents(metadata, tensors)


def _tensor(path: Path, file: BinaryIO, tensor: Tensor) -> np.ndarray:
    try:
        return read_tensor(file, tensor)
    except (ValueError, MemoryError) as error:
        raise CorruptFileError(f"{path} cannot be read whole: {error}") from error


def _require_sound(path: Path, metadata: Mapping[str, Any], fault: str) -> None:
    if fault:
        raise CorruptFileError(f"{path} is no sound {metadata['format'].removeprefix('featx-')}: {fault}")


def _fault(value: Any, rule: Any, where: str = "") -> str:
    """In what a value breaks a rule, in words; "" where it does not."""
    name = where or "its JSON"
    if isinstance(rule, _Is):
        return "" if rule.holds(value) else f"{name} is {shown(value)}; expected {rule.expected}"
    if isinstance(rule, tuple):
        first, second = (_fault(value, either, where) for either in rule)
        return first and second
    if isinstance(rule, list):
        if not isinstance(value, list):
            return f"{name} is {shown(value)}; expected a list"
        return next(filter(None, (_fault(item, rule[0], f"{name}[{i}]") for i, item in enumerate(value))), "")
    if not isinstance(value, dict):
        return f"{name} is {shown(value)}; expected an object"
    missing = sorted(rule.keys() - value.keys())
    if missing:
        return f"{name} lacks {', '.join(missing)}"
    prefix = f"{where}." if where else ""
    return next(filter(None, (_fault(value[key], part, prefix + key) for key, part in rule.items())), "")


def _shape_fault(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """In what the arrays' dtypes and shapes are not those that the JSON asks for."""
    lengths = {"C": len(metadata["classes"]), "N": metadata["n_train"], "K": 16}
    keys = TRAIN_KEYS[metadata["format"]]
    if metadata["format"] == MODEL:
        return _array_fault(tensors, {keys: ("U8", "NK")}, lengths) or _classifier_fault(tensors, metadata)
    own = _ARRAYS[metadata["form"]]
    expected = {"mean": ("F64", "D"), "scale": ("F64", "D"), "offset": ("F64", "C"), keys: ("U8", "NK")}
    expected |= {f"scorer.{name}": what for name, what in own.items()}
    for options in _OPTIONAL:
        expected |= options if options.keys() & tensors.keys() else {}
    surplus = sorted(tensors.keys() - expected.keys())
    return _array_fault(tensors, expected, lengths) or (f"surplus arrays: {shown(surplus)}" if surplus else "")


def _array_fault(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[str, str]], lengths: dict[str, int]
) -> str:
    """The first array that is missing, of another dtype, or of another shape; letters take the lengths first seen."""
    for name, (dtype, letters) in expected.items():
        found = tensors.get(name)
        if found is None:
            return f"there is no array {name}"
        if len(found.shape) == len(letters):
            lengths.update({c: n for c, n in zip(letters, found.shape, strict=True) if c not in lengths and n > 0})
        wanted = tuple(lengths.get(letter, 1) for letter in letters)
        if (found.dtype, found.shape) != (dtype, wanted):
            return f"array {name} is {found.dtype} {found.shape}; expected {dtype} {wanted}"
    return ""


def _classifier_fault(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    name = f"{metadata['classifier']}.weight"
    found = tensors.get(name)
    if found is None:
        return f"there is no array {shown(name)}"
    wanted = (len(metadata["classes"]), metadata["width"])
    if found.shape not in (wanted, (*wanted, 1, 1)):  # a linear layer, or a convolution of one pixel
        return f"array {shown(name)} is of shape {found.shape}; expected {wanted}"
    return ""


def _value_fault(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """In what a head's numbers are none that a fit gives. A network's are its own affair: it is run before it is used."""
    if metadata["format"] == MODEL:
        return ""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"array {name} holds NaN or infinity"
    count, rows = len(metadata["classes"]), len(arrays.get("scorer.support", ()))
    tiny = np.finfo(np.float64).tiny
    within = {
        "scale": (tiny, np.inf),
        "thresholds": (0, 1),
        "isotonic.x": (0, 1),
        "isotonic.y": (0, 1),
        "isotonic.doubt": (tiny, 1),
        "scorer.gamma": (0, np.inf),
        "scorer.sharpness": (0, np.inf),
        "scorer.support_weight": (tiny, np.inf),
        "scorer.support_labels": (0, 1 if metadata["form"] == "neighbour-labels" else count - 1),
        "scorer.k": (1, rows),
        "scorer.count": (count, count),
    }
    for name, (least, most) in within.items():
        if name in arrays and not ((arrays[name] >= least) & (arrays[name] <= most)).all():
            return f"array {name} holds numbers that are not from {least:g} to {most:g}"
    return ""


def digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """SHA-256, in hex, over JSON and arrays: their names, dtypes, shapes and bytes."""
    sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + b"\0")
    for name, array in sorted(arrays.items()):
        sha256.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()
