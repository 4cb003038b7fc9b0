"""What was measured of images, kept by content below ``featx.system.home()``, so that no image is read for it twice.

One file holds all records, the newest last. It is bound to the version of the measures and protected by a checksum: a file that
is missing, damaged or of another version counts as empty, and is written anew. Processes that write at the same time replace
one another's file whole; what is lost that way is measured again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featx.data.decode import DECODER_VERSION
from featx.data.pixel_facts import FACTS, FACTS_VERSION
from featx.data.transform import Transform
from featx.errors import OutputError
from featx.io.atomic import keep
from featx.system import home

_NAME = "pixels/facts"
_MOST_RECORDS = 1_000_000
"""Older records give way, so that the file stays below 60 MB."""

_RECORD = np.dtype([("content", "<u8", 2), ("facts", FACTS)])
_HEADER = f"featx pixels {FACTS_VERSION}.{DECODER_VERSION}\n".encode()
_DIGEST_BYTES = 16


def recall_facts(keys: np.ndarray, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """What is known about images.

    Args:
        keys: (N, 16) uint8, the hashes of their contents.
        transform: its value range, bands and background apply.

    Returns:
        (N,) ``FACTS``, zeros where nothing is known; and whether something is: (N,) bool.
    """
    records, wanted = _read(), _contents(keys, transform)
    facts, known = np.zeros(len(wanted), FACTS), np.zeros(len(wanted), dtype=bool)
    if len(records):
        order = np.argsort(records["content"][:, 0], kind="stable")
        places = np.searchsorted(records["content"][:, 0], wanted[:, 0], sorter=order)
        found = order[np.minimum(places, len(order) - 1)]
        known = (records["content"][found] == wanted).all(axis=1)
        facts[known] = records["facts"][found[known]]
    return facts, known


def keep_facts(keys: np.ndarray, facts: np.ndarray, rows: Sequence[int], transform: Transform) -> None:
    """Keep what was measured of some images. A failure is ignored: it only costs time later.

    Args:
        keys: (N, 16) uint8, as in ``recall_facts``.
        facts: (N,) ``FACTS``.
        rows: the images whose facts are new, one of each content.
        transform: as in ``recall_facts``.
    """
    if rows:
        new = np.zeros(len(rows), _RECORD)
        new["content"], new["facts"] = _contents(keys[rows], transform), facts[rows]
        data = np.concatenate([_read(), new])[-_MOST_RECORDS:].tobytes()
        keep(_NAME, _HEADER + _digest(data) + data)


def _contents(keys: np.ndarray, transform: Transform) -> np.ndarray:
    """(N, 2) uint64 that identify contents as they are decoded: other pixels have other numbers."""
    shown = transform.shown
    salt = repr((shown.value_range, shown.bands, shown.background)).encode()
    mixed = keys ^ np.frombuffer(_digest(salt), dtype=np.uint8)
    return np.ascontiguousarray(mixed).view("<u8").reshape(-1, 2)


def _read() -> np.ndarray:
    """All records; none if there is no sound file."""
    with contextlib.suppress(OSError, OutputError, ValueError, MemoryError):
        data = Path(home() / _NAME).read_bytes()
        digest, records = data[len(_HEADER) :][:_DIGEST_BYTES], memoryview(data)[len(_HEADER) + _DIGEST_BYTES :]
        if data.startswith(_HEADER) and digest == _digest(records):
            return np.frombuffer(records, dtype=_RECORD)
    return np.empty(0, dtype=_RECORD)


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
