"""A container for heads and models: one .safetensors file with arrays and JSON. No pickle; a checksum of its own.

The JSON is one string under the metadata key "featx". It names the format, its version, and the SHA-256 of arrays and JSON.

A file may come from a stranger. So its length, its header, its JSON, and the dtype and shape of every array are checked
before anything is made of it, and saving makes the same checks. What must hold is a ``Schema``, which belongs to the module
that owns the format: ``featx.heads.head_file`` and ``featx.promotion.model_file``. What a file can make featx allocate is
bounded by its own size.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save

from featx.constants import MODELS
from featx.errors import CorruptFileError, FeatxError, HeadError, ModelNotFoundError
from featx.io import file_kinds
from featx.io.atomic import reason, write_whole
from featx.io.outputs import OutputKind
from featx.io.schema import ArraySpec, content_fault, shape_fault, value_fault
from featx.io.strict_json import shown, strict_json
from featx.io.tensor_file import Tensor, read_header, read_tensor
from featx.reporter import SILENT, Reporter, note_choice
from featx.system import MISSING, why_unreadable

_KINDS = {"featx-head": file_kinds.HEAD, "featx-model": file_kinds.MODEL}


@dataclass(frozen=True)
class Schema:
    """What a file of one format must hold. Its functions get only metadata that already follow ``metadata``.

    Attributes:
        format: its name, "featx-" and what it holds, such as "featx-head".
        version: the version that is written and read.
        command: the command of featx that writes such a file.
        metadata: a rule for each required key of the JSON, as ``featx.io.schema`` describes.
        arrays: from the metadata and the names of the arrays in the file, the arrays that there must be.
        lengths: from the metadata, the lengths that the letters in the arrays' shapes stand for.
        open_ended: whether there may be arrays besides.
        tensor_fault: a further check of dtypes and shapes; gives the fault in words, or "".
    """

    format: str
    version: int
    command: str
    metadata: Mapping[str, Any]
    arrays: Callable[[Mapping[str, Any], Collection[str]], Mapping[str, ArraySpec]]
    lengths: Callable[[Mapping[str, Any]], Mapping[str, int]]
    open_ended: bool = False
    tensor_fault: Callable[[Mapping[str, Tensor], Mapping[str, Any]], str] = lambda tensors, metadata: ""  # noqa: ARG005

    @property
    def noun(self) -> str:
        """What such a file is, in a message: "head" or "model"."""
        return self.format.removeprefix("featx-")

    @property
    def kind(self) -> OutputKind:
        """Such a file, as an output."""
        return OutputKind(self.noun, ".safetensors", lambda path: stored_format(path) == self.format)


@dataclass(frozen=True)
class _Header:
    """A file whose header and JSON follow their schema; its arrays have not been read yet."""

    schema: Schema
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    specs: Mapping[str, ArraySpec]
    lengths: Mapping[str, int]

    def require_content(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise CorruptFileError unless the arrays' values are finite and within their bounds."""
        _require(path, self.schema, content_fault(arrays, self.specs, self.lengths))


# Writing


def pack(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], schema: Schema) -> bytes:
    """Make the whole file in memory, and check that it can be read again.

    Args:
        path: where it will be written, for messages.
        arrays: by name.
        metadata: the JSON, without format, version and checksum.
        schema: of the format.

    Raises:
        HeadError: arrays or metadata do not follow the schema.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        facts = json.loads(
            json.dumps({**metadata, "format": schema.format, "version": schema.version}, allow_nan=False)
        )
        text = json.dumps({**facts, "sha256": digest(contiguous, facts)}, sort_keys=True)
        data = save(contiguous, metadata={"featx": text})
        _read_header(path, io.BytesIO(data), len(data), (schema,)).require_content(path, contiguous)
    except (ValueError, CorruptFileError) as error:
        raise HeadError(f"{path} was not written, because it could not be read again: {error}") from error
    return data


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], schema: Schema) -> None:
    """Write a file beside its final name, sync and rename it. An older file of that name stays until then.

    Raises:
        OutputError: the file cannot be written.
        HeadError: as ``pack``.
    """
    write_whole(path, pack(path, arrays, metadata, schema))


# Reading


def read_metadata(path: Path, schema: Schema, *more: Schema) -> dict[str, Any]:
    """Read the JSON of a file without its arrays.

    Args:
        path: of the file.
        schema: of the format that the file must have.
        more: of further formats that it may have instead.

    Raises:
        ModelNotFoundError: the file does not exist, or cannot be opened.
        CorruptFileError: not a file of one of these formats, or one of an unknown version.
    """
    schemas = (schema, *more)
    with _opened(path, schemas) as file:
        return _read_header(path, file, os.fstat(file.fileno()).st_size, schemas).metadata


def read(path: Path, schema: Schema) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file: its arrays and its JSON.

    Raises:
        ModelNotFoundError: the file does not exist, or cannot be opened.
        CorruptFileError: not a file of this format, or one that has changed since it was written.
    """
    with _opened(path, (schema,)) as file:
        return _read_all(path, file, os.fstat(file.fileno()).st_size, schema)


def unpack(path: Path, data: bytes, schema: Schema) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file that is in memory, as ``pack`` makes it: its arrays and its JSON.

    Args:
        path: where it came from, for messages.
        data: the whole file.
        schema: of the format.

    Raises:
        CorruptFileError: as ``read``.
    """
    return _read_all(path, io.BytesIO(data), len(data), schema)


def _read_all(path: Path, file: BinaryIO, size: int, schema: Schema) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    header = _read_header(path, file, size, (schema,))
    arrays = {name: _tensor(path, file, tensor) for name, tensor in header.tensors.items()}
    if header.metadata.pop("sha256") != digest(arrays, header.metadata):
        raise CorruptFileError(f"{path} is damaged: its arrays and metadata do not match their checksum")
    header.require_content(path, arrays)
    return arrays, header.metadata


def stored_format(path: Path) -> str:
    """The format that a file names, such as "featx-head", whether or not the rest of it is valid; "" for any other file.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            metadata = strict_json(read_header(file, os.fstat(file.fileno()).st_size)[0].get("featx", "null"))
    except ValueError:
        return ""
    return str(metadata.get("format", "")) if isinstance(metadata, dict) else ""


def newest(folder: Path, schema: Schema, *more: Schema, reporter: Reporter = SILENT) -> Path:
    """Find the file of a format in a folder that was written last.

    Args:
        folder: of heads and models.
        schema: of the format.
        more: of further formats that the file may have instead.
        reporter: gets a note with the file's name and those of the others, if there are others.

    Raises:
        ModelNotFoundError: there is none.
    """
    if wrong := file_kinds.misplaced(folder, "a folder of heads and models", fits=[file_kinds.FOLDER]):
        raise ModelNotFoundError(wrong)
    schemas, found = (schema, *more), []
    for path in sorted(folder.glob("*.safetensors"), key=_written, reverse=True):
        with contextlib.suppress(ModelNotFoundError, CorruptFileError):
            read_metadata(path, *schemas)
            found.append(path)
    nouns = " or ".join(each.noun for each in schemas)
    if not found:
        raise ModelNotFoundError(f"there is no {nouns} in {folder}; run featx {schema.command} first, or name a file")
    note_choice(found, " or ".join(f"{each.noun}s" for each in schemas), reporter)
    return found[0]


def digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """SHA-256, in hex, over JSON and arrays: their names, dtypes, shapes and bytes."""
    sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + b"\0")
    for name, array in sorted(arrays.items()):
        sha256.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # deleted meanwhile, or a broken link
        return 0


@contextlib.contextmanager
def _opened(path: Path, schemas: Sequence[Schema]) -> Iterator[BinaryIO]:
    """Open the file; an error of the system while it is read becomes a ModelNotFoundError."""
    nouns = " or ".join(schema.noun for schema in schemas)
    commands = " and ".join(f"featx {schema.command}" for schema in schemas)
    why = why_unreadable(path)
    if why == MISSING:
        raise ModelNotFoundError(
            f"there is no {nouns} {path}; {commands} {'make them' if schemas[1:] else 'makes one'}"
        )
    wanted = f"a {nouns}, which {commands} {'make' if schemas[1:] else 'makes'} in the folder {MODELS}"
    fits = [_KINDS[schema.format] for schema in schemas if schema.format in _KINDS]
    if why:
        if found := file_kinds.misplaced(path, wanted, fits=fits):
            raise ModelNotFoundError(found)
        raise ModelNotFoundError(f"{path} cannot be read as a {nouns}: {why}")
    try:
        with path.open("rb") as file:
            yield file
    except CorruptFileError as error:
        if found := file_kinds.misplaced(path, wanted, fits=fits):
            raise CorruptFileError(found) from error
        raise
    except FeatxError:
        raise
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read as a {nouns}: {reason(error)}") from error


def _read_header(path: Path, file: BinaryIO, size: int, schemas: Sequence[Schema]) -> _Header:
    """Check all of a file but its arrays' values.

    Raises:
        CorruptFileError: the file breaks a rule, which the message names.
    """
    try:
        strings, tensors = read_header(file, size)
        metadata = strict_json(strings.get("featx", "null"))
    except ValueError as error:
        raise CorruptFileError(f"{path} is not a safetensors file: {error}") from error
    schema = _schema_of(path, metadata, schemas)
    if metadata.get("version") != schema.version:
        raise CorruptFileError(
            f"{path} is of version {shown(metadata.get('version'))}; this featx reads version {schema.version}"
        )
    _require(path, schema, value_fault(metadata, schema.metadata))
    specs = schema.arrays(metadata, tensors.keys())
    fault, lengths = shape_fault(tensors, specs, schema.lengths(metadata))
    surplus = [] if schema.open_ended else sorted(tensors.keys() - specs.keys())
    _require(path, schema, fault or (f"surplus arrays: {shown(surplus)}" if surplus else ""))
    _require(path, schema, schema.tensor_fault(tensors, metadata))
    return _Header(schema, metadata, tensors, specs, lengths)


def _schema_of(path: Path, metadata: Any, schemas: Sequence[Schema]) -> Schema:
    """The schema of the format that the JSON names."""
    name = metadata.get("format") if isinstance(metadata, dict) else None
    for schema in schemas:
        if name == schema.format:
            return schema
    if isinstance(name, str) and re.fullmatch("featx-[a-z]{1,20}", name):
        raise CorruptFileError(f"{path} is a {name}; expected a {' or '.join(schema.format for schema in schemas)}")
    raise CorruptFileError(
        f"{path} is not a {' or '.join(schema.noun for schema in schemas)} of featx; expected a file that "
        f"{' or '.join(f'featx {schema.command}' for schema in schemas)} wrote"
    )


def _tensor(path: Path, file: BinaryIO, tensor: Tensor) -> np.ndarray:
    try:
        return read_tensor(file, tensor)
    except (ValueError, MemoryError) as error:
        raise CorruptFileError(f"{path} cannot be read completely: {error}") from error


def _require(path: Path, schema: Schema, fault: str) -> None:
    if fault:
        raise CorruptFileError(f"{path} is not a valid {schema.noun}: {fault}")
