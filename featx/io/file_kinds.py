"""What a file is, judged by its content: for messages about a file that is given in the place of another."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from featx.io.outputs import PAGE_MARK
from featx.io.strict_json import strict_json
from featx.io.tensor_file import read_header

FEATURE_FILE, HEAD, MODEL, CHECKPOINT = "a feature file", "a head", "a promoted model", "a checkpoint of fine-tuning"
PAGE, PICTURE, RECIPE, TABLE = "a page about a head", "a picture that featx drew", "a recipe", "a table"
FEATURE_SET = "a set of feature files"
HDF5, TOML, JSON = "an HDF5 file of another program", "a TOML file", "a JSON file"
IMAGE, ARCHIVE, WEIGHTS, FOLDER, CODE, EMPTY = (
    "an image",
    "an archive",
    "a file of network weights",
    "a folder",
    "a Python file",
    "an empty file",
)
"""The kinds, as they stand in a sentence."""

ONNX, GRAPH, PROGRAM = "an ONNX model", "a graph of OpenVINO", "a program of torch.export"
EXPORTED = "an ONNX model that featx export wrote, which ONNX Runtime runs"
"""The kinds of models for other runtimes."""

FEATURE_SET_FORMAT, MANIFEST = "featx-feature-set", "manifest.json"
"""The format that the manifest of a set of feature files states at its beginning, and the name of that file in its folder."""

POINTER = "a pointer of Git LFS, whose file git lfs pull fetches"
"""A kind, too: clones without Git LFS hold such pointers in the place of data."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a pointer begins."""

_BEGINNING = 1 << 16
_OWN_ONNX = b"\x12\x05featx"  # the producer's name
_HDF5 = b"\x89HDF\r\n\x1a\n"
_FORMATS = {"featx-head": HEAD, "featx-model": MODEL, "featx-checkpoint": CHECKPOINT}
_IMAGES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM.{4}\0\0\0\0|P[1-7]\s|II[*+]\0|MM\0[*+]|RIFF....WEBP"
    rb"|\0\0\0.ftyp(?:avi[fs]|hei[cmsx]|hev[cmsx]|mi[fs]1)|\xff\x0a|\0\0\0\x0cJXL |.{128}DICM|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
_ROWS = re.compile(rb"\s*(?:\[\s*\{|\{.*\"(?:annotations|images|path|file_name)\"\s*:)", re.DOTALL)
"""How JSON begins that is a table, or annotations in the form of COCO."""

_STEPS = re.compile(rb"^\s*\[\s*(?:extract|fit-head|promote)\s*\]", re.MULTILINE)
_ENDINGS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson"), TABLE),
    ".toml": TOML,
    ".py": CODE,
    ".json": JSON,
    ".onnx": ONNX,
}


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """Say what a file is.

    Args:
        path: of a file or folder.

    Returns:
        One of the kinds of this module, or other words such as "a JSON file"; "" if there is no such file, if it cannot be
        read, or if it is none of these.

    Examples:
        >>> kind_of_file("/"), kind_of_file("no such file"), kind_of_file(__file__)
        ('a folder', '', 'a Python file')
    """
    path = Path(path)
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            return FEATURE_SET if _is_manifest(path / MANIFEST) else FOLDER
        if not stat.S_ISREG(found.st_mode):
            return ""
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except (OSError, ValueError):
        return ""
    if path.name == MANIFEST and _is_manifest(path):
        return FEATURE_SET
    return (
        _for_runtimes(path, beginning)
        or _by_content(path, beginning, found.st_size)
        or _ENDINGS.get(path.suffix.lower(), "")
    )


def is_feature_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for a feature file, or a set of them, and not for a data set.

    Its content decides; if it is not there, its ending.
    """
    kind = kind_of_file(path)
    return kind in (FEATURE_FILE, FEATURE_SET) or (not kind and Path(path).suffix == ".h5")


def misplaced(path: str | os.PathLike[str], wanted: str, *, fits: Collection[str] = ()) -> str:
    """The message about a file of one kind in the place of another; "" if its kind is unknown, or the right one.

    Args:
        path: of the file.
        wanted: what is expected, and what makes it.
        fits: the kinds that are right: such a file may be damaged, but it is not misplaced.
    """
    kind = kind_of_file(path)
    return f"{os.fspath(path)} is {kind}; expected {wanted}" if kind and kind not in fits else ""


def data_hint(path: str | os.PathLike[str]) -> str:
    """What to do with a data set or a folder in the place of a feature file, as the end of a message; "" for others."""
    inside = next(iter(sorted(Path(path).glob("*.h5"))), None)
    if inside and Path(path).suffix == ".shards":
        return f"; featx cache merge {os.fspath(path)} joins the shards in it"
    if inside:
        return f"; name one of those in it, such as {inside}"
    return f"; run featx extract {os.fspath(path)} first" if kind_of_file(path) in (FOLDER, TABLE, ARCHIVE) else ""


def _for_runtimes(path: Path, beginning: bytes) -> str:
    """The kind of a model for another runtime; "" for all other files."""
    if beginning[:1] == b"\x08" and _OWN_ONNX in beginning[:64]:
        return EXPORTED
    if beginning.startswith((b"<?xml", b"<net")) and b"<net " in beginning:
        return GRAPH
    if path.suffix.lower() == ".pt2" and beginning.startswith(b"PK\3\4"):
        return PROGRAM
    return ""


def _by_content(path: Path, beginning: bytes, size: int) -> str:
    """The kind of a file by its first bytes; "" where they do not tell."""
    if not beginning or beginning.startswith(LFS_POINTER):
        return POINTER if beginning else EMPTY
    if beginning.startswith(_HDF5):
        return FEATURE_FILE if b"featx" in beginning else HDF5
    if _IMAGES.match(beginning):
        return PICTURE if b"tEXtTitle\0featx: " in beginning else IMAGE
    if beginning.startswith(b"PAR1"):
        return TABLE
    if beginning[:9].lower().startswith((b"<!doctype", b"<html")):
        return PAGE if PAGE_MARK.encode() in beginning else "a web page"
    if beginning[8:9] == b"{" and 2 <= int.from_bytes(beginning[:8], "little") <= size - 8:
        return _of_tensors(path, size)
    if path.suffix.lower() in (".pt", ".pth", ".ckpt", ".bin") and beginning[:2] in (b"PK", b"\x80\x02"):
        return WEIGHTS
    if path.suffix.lower() == ".json" and _ROWS.match(beginning):
        return TABLE
    if beginning.startswith((b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")) or beginning[257:262] == b"ustar":
        return ARCHIVE
    return RECIPE if path.suffix.lower() == ".toml" and _STEPS.search(beginning) else ""


def _is_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a set of feature files."""
    try:
        with path.open("rb") as file:
            return FEATURE_SET_FORMAT.encode() in file.read(100)
    except (OSError, ValueError):
        return False


def _of_tensors(path: Path, size: int) -> str:
    """The kind of a safetensors file, by the format that its metadata name."""
    try:
        with path.open("rb") as file:
            metadata = strict_json(read_header(file, size)[0].get("featx", "null"))
    except (OSError, ValueError):
        return ""
    name = metadata.get("format") if isinstance(metadata, dict) else None
    return _FORMATS.get(str(name), "") if name is not None else WEIGHTS
