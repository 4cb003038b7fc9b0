"""Heads and models on disk: one .safetensors file, arrays and JSON. No pickle; a checksum of its own.

The JSON is one string under the metadata key "featx" and names format, version and the SHA-256 of arrays and JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from featx.errors import CacheMissError, CorruptCacheError, OutputError

VERSION = 1
HEAD, MODEL = "featx-head", "featx-model"
"""The two formats."""


def save_model(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, format: str) -> None:  # noqa: A002 - the format's own word
    """Write a file beside its final name, sync it and rename it; what was there before stays until then.

    Raises:
        OutputError: the folder cannot be written.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    facts = json.loads(json.dumps({**metadata, "format": format, "version": VERSION}))
    text = json.dumps({**facts, "sha256": _digest(contiguous, facts)}, sort_keys=True)
    data = save(contiguous, metadata={"featx": text})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; name another file with -o") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON of a head or model, without its arrays.

    Raises:
        CacheMissError: no such file.
        CorruptCacheError: not a file that featx wrote, or of an unknown version.
    """
    if not path.is_file():
        raise CacheMissError(f"there is no head or model {path}; featx fit-head and featx promote make them")
    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get("featx", "null")
        metadata = json.loads(text)
    except (SafetensorError, ValueError, OSError, struct.error) as error:
        raise CorruptCacheError(f"{path} is not a safetensors file: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("format") not in (HEAD, MODEL):
        raise CorruptCacheError(
            f"{path} is not a head or model of featx; expected a file that fit-head or promote wrote"
        )
    if metadata.get("version") != VERSION:
        raise CorruptCacheError(f"{path} is of version {metadata.get('version')}; this featx reads {VERSION}")
    return metadata


def load_model(path: Path, *, format: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # noqa: A002 - as above
    """Arrays and JSON.

    Raises:
        CacheMissError: no such file.
        CorruptCacheError: not a file of this format, or one that has changed since it was written.
    """
    metadata = read_metadata(path)
    if metadata["format"] != format:
        raise CorruptCacheError(f"{path} is a {metadata['format']}; expected a {format}")
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptCacheError(f"{path} is damaged: {error}") from error
    if metadata.pop("sha256", None) != _digest(arrays, metadata):
        raise CorruptCacheError(f"{path} is damaged: its arrays and metadata do not fit their checksum")
    return arrays, metadata


def newest(folder: Path, *, format: str) -> Path:  # noqa: A002 - as above
    """The file of this format in a folder that was written last.

    Raises:
        CacheMissError: there is none.
    """
    files = [path for path in folder.glob("*.safetensors") if path.is_file()]
    for path in sorted(files, key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            found = read_metadata(path)["format"]
        except CorruptCacheError:
            continue
        if found == format:
            return path
    command = "fit-head" if format == HEAD else "promote"
    raise CacheMissError(
        f"there is no {format.removeprefix('featx-')} in {folder}; run featx {command} first, or name one"
    )


def _digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + b"\0")
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
