"""Archives for tests: made of names and bytes, and damaged on purpose."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Files = Mapping[str, bytes] | Sequence[tuple[str, bytes]]
Compression = Literal["", "gz", "bz2", "xz"]

PETS = {f"{label}/{number}.jpg": f"{label} {number}".encode() for label in ("cat", "dog") for number in range(3)}
"""Two classes of three files, which are no images: most tests only list and read them."""


def pairs(files: Files) -> list[tuple[str, bytes]]:
    return list(files.items()) if isinstance(files, Mapping) else list(files)


def make_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in pairs(files):
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: Files, compression: Compression = "", links: Mapping[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    modes: dict[str, Any] = {"": "w", "gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}
    with tarfile.open(path, modes[compression]) as archive:
        for name, data in pairs(files):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
        for name, target in (links or {}).items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = tarfile.SYMTYPE, target
            archive.addfile(header)
    return path


def make_any(path: Path, files: Files) -> Path:
    """A zip or a tar, by the ending of its name."""
    if path.suffix == ".zip":
        return make_zip(path, files)
    ending = path.name.rpartition(".")[2]
    return make_tar(path, files, {"tgz": "gz"}.get(ending, ending if ending != "tar" else ""))  # type: ignore[arg-type]


def make_shard(path: Path, samples: Mapping[str, Mapping[str, bytes | str | int | dict[str, Any]]]) -> Path:
    """A shard of WebDataset: the members of each sample by its key; what is not bytes is written as text or JSON."""
    members = [
        (f"{key}.{ending}", value if isinstance(value, bytes) else _text(value).encode())
        for key, sample in samples.items()
        for ending, value in sample.items()
    ]
    return make_tar(path, members)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def folder_of(root: Path) -> dict[str, bytes]:
    """The files below a folder, sorted."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
