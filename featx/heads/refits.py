"""Repeated fits: what a file was made by, where the next file of the same name goes, and what it replaces.

The files of heads and of promoted models store their ``Made`` under the key "made". Files of earlier versions lack it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx._version import __version__
from featx.errors import CorruptFileError, ModelNotFoundError
from featx.io.model_file import Schema, read_metadata
from featx.metrics.stored import StoredResult
from featx.text import counted

KEY = "made"
"""The key of a file's metadata."""

_LONGEST_NAME = 200
"""Bytes of a name with its options, above which a hash stands for them; file systems take 255, and files beside it add some."""


_ROWS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Made:
    """How and when a file was made.

    Attributes:
        at: the time in UTC, ISO 8601.
        featx: the version of featx.
        options: of the fit, which its file's name shows as far as they are not the defaults.
        fitted_to: digest of the training images and their labels, from ``images_digest``.
        judged: digest of the images and labels that the stored report is about; "" if there is none.

    Examples:
        >>> made = Made.now({"C": 0.1}, fitted_to="ab", judged="cd")
        >>> Made.of({"made": made.as_dict()}) == made
        True
    """

    at: str
    featx: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fitted_to: str = ""
    judged: str = ""

    @classmethod
    def now(cls, options: Mapping[str, Any], *, fitted_to: str, judged: str) -> Made:
        """The record of a file that is about to be written."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(at, __version__, json.loads(json.dumps(options)), fitted_to, judged)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Made | None:
        """Read the metadata of a file; None if it has no such record, or a stranger's."""
        stored = metadata.get(KEY)
        if not isinstance(stored, dict) or not isinstance(stored.get("options"), dict):
            return None
        texts = {name: stored.get(name, "") for name in ("at", "featx", "fitted_to", "judged")}
        if not all(isinstance(text, str) for text in texts.values()):
            return None
        return cls(options=stored["options"], **texts)

    @property
    def time(self) -> datetime.datetime | None:
        """The time with its zone; None where the file states none."""
        try:
            time = datetime.datetime.fromisoformat(self.at)
        except ValueError:
            return None
        return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)

    def as_dict(self) -> dict[str, Any]:
        """The record as a file stores it."""
        return {
            "at": self.at, "featx": self.featx, "options": dict(self.options), "fitted_to": self.fitted_to,
            "judged": self.judged,
        }  # fmt: skip


@dataclass(frozen=True)
class Replaced:
    """A head or promoted model whose file was overwritten by another fit.

    Attributes:
        path: of the file.
        what: the earlier one in words, such as "head (logreg)".
        why: how the fits differ: "options", "data", or "" where the earlier file does not state it.
        result: its main number, or None.
        n_train: its number of training images.
        at: when it was made, in UTC; "" if that is not known.
    """

    path: Path
    what: str
    why: str
    result: StoredResult | None
    n_train: int
    at: str

    @property
    def sentence(self) -> str:
        """What the user should know."""
        made = f"fitted to {counted(self.n_train, 'image')}" + (
            f" at {self.at[:16].replace('T', ' ')} UTC" if self.at else ""
        )
        result = f"; its {self.result}" if self.result else ""
        why = {
            "options": ", with other options",
            "data": ", with the same options but other images, labels or splits",
        }.get(self.why, "")
        return f"{self.path} replaces a {self.what} {made}{why}{result}"

    def as_dict(self) -> dict[str, Any]:
        """The file as ``--json`` prints it."""
        return {
            "file": str(self.path),
            "what": self.what,
            "why": self.why,
            "result": self.result.as_dict() if self.result else None,
            "n_train": self.n_train,
            "at": self.at,
        }


@dataclass(frozen=True)
class Place:
    """Where a fit writes its file.

    Attributes:
        path: of the file.
        there: the metadata of the head or model that is there now; None if there is none.
        same: whether that one is an earlier fit with the same options.
    """

    path: Path
    there: Mapping[str, Any] | None = None
    same: bool = False

    @classmethod
    def named(cls, path: Path, schema: Schema, is_same: Callable[[Mapping[str, Any]], bool]) -> Place:
        """The place that the user named."""
        there = _stored(path, schema)
        return cls(path, there, there is not None and is_same(there))

    @classmethod
    def free(cls, candidates: Sequence[Path], schema: Schema, is_same: Callable[[Mapping[str, Any]], bool]) -> Place:
        """The first of several paths that is free, or holds an earlier fit with the same options; else the last.

        Args:
            candidates: the paths.
            schema: of the files.
            is_same: whether the metadata of a file are those of a fit with the same options on the same data set.
        """
        for path in candidates:
            there = _stored(path, schema)
            if there is None or is_same(there):
                return cls(path, there, there is not None)
        return cls(candidates[-1], there)

    def replaced(self, made: Made) -> Replaced | None:
        """What a new file with this record replaces; None if nothing is lost: nothing is there, or the same fit."""
        if self.there is None:
            return None
        earlier, parameters = Made.of(self.there), self.there.get("parameters", {})
        if self.same and earlier and (earlier.fitted_to, earlier.judged) == (made.fitted_to, made.judged):
            return None
        if "verdict" in self.there:
            what = f"promoted model ({self.there['verdict']})"
        else:
            chosen = next((f", {name}={parameters[name]:g}" for name in ("C", "k") if parameters.get(name)), "")
            what = f"head ({self.there['kind']}{chosen})"
        why = "" if earlier is None else "data" if dict(earlier.options) == dict(made.options) else "options"
        at = earlier.at if earlier else ""
        return Replaced(self.path, what, why, StoredResult.of(self.there.get("report")), int(self.there["n_train"]), at)


def _stored(path: Path, schema: Schema) -> dict[str, Any] | None:
    """The metadata of a file; None if there is none of this format, or a damaged one, which has nothing to lose."""
    try:
        return read_metadata(path, schema)
    except (ModelNotFoundError, CorruptFileError):
        return None


def same_data(there: Mapping[str, Any], *, dataset: Mapping[str, Any], identity: str) -> bool:
    """Whether a file's head was fitted to the same features of the same data set, whose images may have changed since."""
    stored = there.get("dataset", {})
    known = there["identity"] if "identity" in there else there["head"]["identity"]
    return known == identity and all(stored.get(name) == dataset.get(name) for name in ("name", "root"))


def images_digest(keys: np.ndarray, labels: np.ndarray, classes: Sequence[str], rows: np.ndarray | None = None) -> str:
    """A digest of some images with their labels, whatever their order: equal ones are the same images and labels.

    The keys are hashes already; each is mixed with a hash of its label, and their sums make the digest, so that ten million
    images take no memory and no sort.

    Args:
        keys: (N, 16) uint8, the hashes of the images' content.
        labels: (N,) int64, indices into ``classes``; -1 for none.
        classes: their names.
        rows: (n,) int64, the images; None: all.

    Returns:
        16 hexadecimal digits; "" for no images.

    Examples:
        >>> keys = np.arange(32, dtype=np.uint8).reshape(2, 16)
        >>> first = images_digest(keys, np.array([0, 1]), ["ant", "bee"])
        >>> first == images_digest(keys[::-1], np.array([0, 1]), ["bee", "ant"])
        True
        >>> first == images_digest(keys, np.array([1, 1]), ["ant", "bee"])
        False
    """
    rows = np.arange(len(keys)) if rows is None else rows
    if not len(rows):
        return ""
    hashed = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:16] for name in (*classes, "")]
    names = np.frombuffer(b"".join(hashed), dtype="<u8").reshape(-1, 2)  # the last one is that of the label -1
    sums = np.zeros(2, dtype=np.uint64)
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[at : at + _ROWS_AT_ONCE]
        halves, label = np.ascontiguousarray(keys[some]).view("<u8"), names[labels[some]]
        first = _mixed(halves[:, 0] ^ _mixed(halves[:, 1] ^ label[:, 0]))
        second = _mixed(halves[:, 1] ^ _mixed(halves[:, 0] ^ label[:, 1]))
        sums += np.array([first.sum(), second.sum()], dtype=np.uint64)
    return hashlib.sha256(f"{len(rows)} {sums[0]} {sums[1]}".encode()).hexdigest()[:16]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Mix the bits of (n,) uint64 numbers, each on its own: the finaliser of SplitMix64 (Steele et al., 2014)."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return result


def with_options(stem: str, parts: Sequence[str], suffix: str) -> str:
    """A file's name with the options that are not the defaults, such as "photos--resnet50--logreg--C0.1.safetensors".

    Args:
        stem: the name without them.
        parts: a word for each of them; where they would make the name too long, a hash stands for them.
        suffix: the ending.

    Examples:
        >>> with_options("photos--resnet50--logreg", ["C0.1", "by-patient no."], ".safetensors")
        'photos--resnet50--logreg--C0.1--by-patient_no..safetensors'
    """
    words = [re.sub(r"[^\w.+-]+", "_", part) for part in parts]
    name = "--".join([stem, *words])
    if words and len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        name = f"{stem}--{tag(parts)}"
    return f"{name}{suffix}"


def tag(facts: Any) -> str:
    """Eight hexadecimal digits for some facts, as JSON has them, which no others have."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
