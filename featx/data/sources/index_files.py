"""The lists of archives' members, kept in featx's own folder so that a later run need not read the archive for them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections import Counter
from pathlib import Path

from featx.data.file_bytes import UNKNOWN
from featx.data.sources.archive_index import ArchiveIndex, Member
from featx.errors import OutputError
from featx.io.atomic import keep
from featx.system import home

_FOLDER = "archives"
_VERSION = 1

_MOST_FILES, _MOST_BYTES = 2048, 1 << 29
"""Lists beyond this number, or beyond these bytes together, are removed, the least recently used first."""

Facts = tuple[int, int, int, int]
"""A row of ``FileFacts``."""


def keep_index(location: str, facts: Facts, index: ArchiveIndex) -> None:
    """Keep the list of an archive's members. A failure only costs time later.

    Args:
        location: of the archive.
        facts: of the archive when it was listed; without a version nothing would tell whether the list still holds.
        index: the list.
    """
    if UNKNOWN in facts or facts[0] < 0:
        return
    content = {
        "kind": index.kind,
        "paths": list(index.members),
        "members": [list(column) for column in zip(*index.members.values(), strict=True)],
        "folders": index.folders,
        "texts": {path: data.decode("latin-1") for path, data in index.texts.items()},
        "skipped": dict(index.skipped),
        "notes": index.notes,
    }
    data = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 1)
    keep(f"{_FOLDER}/{_name(location)}", _heading(location, facts, data) + data)
    _remove_old()


def kept_index(location: str, facts: Facts) -> ArchiveIndex | None:
    """The list of an archive's members from an earlier run; None if there is none, or the archive has changed since."""
    if UNKNOWN in facts or facts[0] < 0:
        return None
    try:
        path = home() / _FOLDER / _name(location)
        stored = path.read_bytes()
        size = len(_heading(location, facts, b""))
        heading, data = stored[:size], stored[size:]
        if heading != _heading(location, facts, data):
            return None
        content = json.loads(zlib.decompress(data))
        columns = content["members"] or [[]] * len(Member._fields)
        members = map(Member, *columns)
        with contextlib.suppress(OSError):
            os.utime(path)
        return ArchiveIndex(
            kind=content["kind"],
            members=dict(zip(content["paths"], members, strict=True)),
            folders=content["folders"],
            texts={path: text.encode("latin-1") for path, text in content["texts"].items()},
            skipped=Counter(content["skipped"]),
            notes=content["notes"],
        )
    except (OSError, OutputError, ValueError, KeyError, TypeError, zlib.error, MemoryError):
        return None


def _name(location: str) -> str:
    return hashlib.blake2b(location.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest() + ".index"


def _heading(location: str, facts: Facts, data: bytes) -> bytes:
    """What a list is bound to: this format, the archive, and its own content, hashed together."""
    bound = json.dumps([_VERSION, location, facts]).encode()
    return hashlib.blake2b(bound + b"\n" + data, digest_size=32).hexdigest().encode() + b"\n"


def _remove_old() -> None:
    with contextlib.suppress(OSError, OutputError):
        with os.scandir(home() / _FOLDER) as entries:
            found = [(entry.stat(), entry.path) for entry in entries if entry.name.endswith(".index")]
        left_files, left_bytes = _MOST_FILES, _MOST_BYTES
        for status, path in sorted(found, key=lambda one: -one[0].st_mtime_ns):
            left_files, left_bytes = left_files - 1, left_bytes - status.st_size
            if left_files < 0 or left_bytes < 0:
                Path(path).unlink(missing_ok=True)
