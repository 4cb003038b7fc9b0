"""The heads and promoted models of a folder: what was fitted there, and how good it is. Only headers of files are read."""

from __future__ import annotations

import datetime
import os
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from featx.arguments import path_of
from featx.constants import MODELS
from featx.errors import CorruptFileError, FeatxError, ModelNotFoundError, SettingsError, system_errors
from featx.features.joint_sets import is_joint
from featx.heads.head_file import HEAD
from featx.heads.refits import Made
from featx.io import file_kinds
from featx.io.model_file import read_metadata
from featx.layer_spec import PENULTIMATE
from featx.metrics.stored import StoredCrossValidation, StoredResult, number
from featx.promotion.model_file import MODEL
from featx.text import counted, did_you_mean

PROMOTED = "promoted"
"""The kind of a promoted model, besides the kinds of heads."""


@dataclass(frozen=True)
class HeadEntry:
    """One file of a folder of heads and models.

    Attributes:
        path: of the file.
        name: of the file without its ending.
        kind: the kind of head, such as "logreg"; "promoted" for a promoted model; "" for a file that cannot be used.
        head: the kind of head that a promoted model began as; the kind itself for a head.
        verdict: of a promoted model, else "".
        task: "classification", "multilabel" or "regression".
        chosen: the hyper-parameter in use, by its name.
        dataset: the name of the data set.
        root: its folder.
        backbone: its name; "" for features of other tools.
        layer: the layers, with commas between them; of several backbones with + between them.
        views: "plain", "flip" or "10crop".
        result: the main number on held-out images, or None.
        judged: digest of the images and labels of that number; "" where the file does not state it.
        test_set: a letter for these images. Numbers of other letters are of other images, and cannot be compared.
        cross_validated: the main number of a cross-validation, or None.
        calibration: "temperature", "isotonic" or "none".
        sets: the share of prediction sets, or intervals, that may miss, in words; "" where there are none.
        n_train: the number of training images.
        at: when it was fitted; for files of earlier versions, when the file was written.
        seconds: the time of the fit; of a promoted model, that of the promotion.
        bytes: the size of the file.
        fault: why the file cannot be used, or "".
    """

    path: Path
    name: str
    at: datetime.datetime
    bytes: int
    kind: str = ""
    head: str = ""
    verdict: str = ""
    task: str = ""
    chosen: Mapping[str, float] = field(default_factory=dict)
    dataset: str = ""
    root: str = ""
    backbone: str = ""
    layer: str = ""
    views: str = ""
    result: StoredResult | None = None
    judged: str = ""
    test_set: str = ""
    cross_validated: StoredCrossValidation | None = None
    calibration: str = ""
    n_train: int = 0
    seconds: float | None = None
    fault: str = ""
    sets: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The file as ``featx heads --json`` prints it."""
        return {
            "file": str(self.path),
            "name": self.name,
            "kind": self.kind,
            "head": self.head,
            "verdict": self.verdict,
            "task": self.task,
            "chosen": dict(self.chosen),
            "dataset": self.dataset,
            "root": self.root,
            "backbone": self.backbone,
            "layer": self.layer,
            "views": self.views,
            "result": self.result.as_dict() if self.result else None,
            "test_set": self.test_set,
            "cross_validated": self.cross_validated.as_dict() if self.cross_validated else None,
            "calibration": self.calibration,
            "sets": self.sets,
            "n_train": self.n_train,
            "at": self.at.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "bytes": self.bytes,
            "fault": self.fault,
        }


@dataclass(frozen=True)
class HeadList:
    """The heads and promoted models of a folder.

    Attributes:
        folder: that was listed.
        entries: in the order that was asked for; files that cannot be used come last.
        test_sets: for each letter of ``HeadEntry.test_set``, which images it stands for, in words.
    """

    folder: Path
    entries: tuple[HeadEntry, ...]
    test_sets: Mapping[str, str]

    def __iter__(self) -> Iterator[HeadEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def as_dict(self) -> dict[str, Any]:
        """The list as ``featx heads --json`` prints it."""
        return {
            "folder": str(self.folder),
            "heads": [entry.as_dict() for entry in self.entries],
            "test_sets": dict(self.test_sets),
        }


_SORTS: dict[str, Callable[[HeadEntry], Any]] = {
    "date": lambda e: -e.at.timestamp(),
    "accuracy": lambda e: (e.test_set, _loss(e)),
    "time": lambda e: e.seconds if e.seconds is not None else float("inf"),
    "name": lambda e: e.name.casefold(),
    "data": lambda e: (e.dataset.casefold(), e.test_set, _loss(e)),
    "kind": lambda e: (e.kind, e.test_set, _loss(e)),
    "backbone": lambda e: (e.backbone, e.test_set, _loss(e)),
    "size": lambda e: -e.bytes,
}
SORTS = tuple(_SORTS)
"""What a list may be sorted by: the newest, the best of each test set, the fastest fit or the largest file first; or a name."""


@system_errors()
def list_heads(
    folder: str | os.PathLike[str] = MODELS, *, sort: str = "date", data: str | None = None, kind: str | None = None
) -> HeadList:
    """List what was fitted: the heads and promoted models of a folder; a folder that is not there has none.

    Accuracies of one ``test_set`` are of the same images with the same labels; those of different ones cannot be compared.
    ``compare_heads`` compares two heads on the images that both can be judged by.

    Args:
        folder: of heads and models.
        sort: one of "date", "accuracy", "time", "name", "data", "kind", "backbone" and "size". "accuracy" is the main number of
            each task, best first within each test set.
        data: only those of this data set; ``*`` and ``?`` stand for any text.
        kind: only heads of this kind, such as "logreg", or "promoted".

    Raises:
        ModelNotFoundError: the path is that of a file.
        SettingsError: an unknown order.

    Example:

        for entry in featx.list_heads("models", sort="accuracy"):
            print(entry.name, entry.result, entry.test_set, entry.fault)
    """
    if sort not in _SORTS:
        raise SettingsError(f"sort is {sort!r}{did_you_mean(sort, SORTS)}; expected one of {', '.join(SORTS)}")
    folder = Path(path_of(folder, "folder"))
    if wrong := file_kinds.misplaced(folder, "a folder of heads and models", fits=[file_kinds.FOLDER]):
        raise ModelNotFoundError(wrong)
    if folder.is_file():
        raise ModelNotFoundError(f"{folder} is a file; expected a folder of heads and models")
    entries = [_described(path) for path in sorted(folder.glob("*.safetensors"))]
    shown = [
        each
        for each in entries
        if (data is None or fnmatchcase(each.dataset.casefold(), data.casefold())) and kind in (None, each.kind)
    ]
    lettered, test_sets = _lettered([each for each in shown if not each.fault])
    order = _SORTS[sort]
    ordered = sorted(sorted(lettered, key=_SORTS["date"]), key=order)
    faulty = sorted((each for each in shown if each.fault), key=lambda e: e.name)
    return HeadList(folder, (*ordered, *faulty), test_sets)


def _loss(entry: HeadEntry) -> float:
    """A number that is lower for better heads of the same test set."""
    found = entry.result or entry.cross_validated
    if found is None:
        return float("inf")
    return found.value if found.is_error else -found.value


def _described(path: Path) -> HeadEntry:
    """What a file is; nothing in it stops the list."""
    written, size = 0.0, 0
    try:
        found = path.stat()
        written, size = found.st_mtime, found.st_size
        metadata = read_metadata(path, HEAD, MODEL)
    except (ModelNotFoundError, CorruptFileError) as error:
        return _faulty(path, written, size, _why(error, path))
    except OSError as error:  # deleted meanwhile, or a broken link
        return _faulty(path, written, size, error.strerror or str(error))
    made = Made.of(metadata)
    at = made.time if made else None
    entry = HeadEntry(path, path.stem, at or _local(written), size)
    describe = _promoted if metadata["format"] == MODEL.format else _head
    dataset = metadata["dataset"]
    return replace(
        describe(entry, metadata),
        dataset=Path(str(dataset.get("name", ""))).name,
        root=str(dataset.get("root", "")),
        result=StoredResult.of(metadata["report"]),
        cross_validated=StoredCrossValidation.of(metadata.get("cross_validated")),
        judged=made.judged if made else "",
        n_train=metadata["n_train"],
        seconds=number(metadata["seconds"]),
    )


def _faulty(path: Path, written: float, size: int, fault: str) -> HeadEntry:
    return HeadEntry(path, path.stem, _local(written), size, fault=fault)


def _local(written: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(written, datetime.UTC)


def _why(error: FeatxError, path: Path) -> str:
    """The fault of a file, without its name, which stands beside it."""
    return str(error).removeprefix(f"{path} ").removeprefix("is ")


def _head(entry: HeadEntry, metadata: Mapping[str, Any]) -> HeadEntry:
    parameters = metadata["parameters"]
    backbone = metadata["backbone"]
    layer, views = _layer(metadata["layer"])
    if is_joint(backbone) and (layers := [_layer(str(part["layer"]))[0] for part in backbone["parts"]]):
        layer = "+".join(layers) if any(each != PENULTIMATE for each in layers) else layer
    calibrate = parameters["calibrate"] or ("temperature" if metadata["temperature"] != 1 else "none")
    kernel = "-rbf" if parameters["kernel"] == "rbf" else ""
    return replace(
        entry,
        kind=metadata["kind"],
        head=f"{metadata['kind']}{kernel}",
        task=metadata["task"],
        chosen={n: parameters[n] for n in ("C", "k", "weight_decay") if parameters[n] is not None},
        backbone=str(backbone.get("name", "")),
        layer=layer,
        views=views,
        calibration=calibrate,
        sets=_sets(metadata),
    )


def _promoted(entry: HeadEntry, metadata: Mapping[str, Any]) -> HeadEntry:
    head = metadata["head"]
    layer, views = _layer(metadata["layer"])
    chosen = {n: head["parameters"][n] for n in ("C", "k") if head["parameters"].get(n) is not None}
    return replace(
        entry, kind=PROMOTED, head=head["kind"], verdict=metadata["verdict"], task="classification", chosen=chosen,
        backbone=str(metadata["name"]), layer=layer, views=views, calibration="none", sets=_sets(metadata),
    )  # fmt: skip


def _sets(metadata: Mapping[str, Any]) -> str:
    """What the prediction sets of a file promise, in short."""
    facts = metadata.get("conformal")
    if not isinstance(facts, Mapping) or (alpha := number(facts.get("alpha"))) is None:
        return ""
    return f"{alpha:.4g}{' per class' if facts.get('per_class') is True else ''}"


def _layer(spec: str) -> tuple[str, str]:
    layer, _, views = spec.partition("@")
    return layer or PENULTIMATE, views or "plain"


def _lettered(entries: Sequence[HeadEntry]) -> tuple[list[HeadEntry], dict[str, str]]:
    """Give each set of images that judged some head a letter; the one that most heads share is A."""
    keys = [_images(entry) for entry in entries]
    counts = Counter(key for key in keys if key)
    names = [*string.ascii_uppercase, *(f"{a}{b}" for a in string.ascii_uppercase for b in string.ascii_uppercase)]
    letters = {key: names[at % len(names)] for at, (key, _) in enumerate(sorted(counts.items(), key=lambda kv: -kv[1]))}
    found = [replace(entry, test_set=letters[key] if key else "") for entry, key in zip(entries, keys, strict=True)]
    words = {each.test_set: _words(each) for each in reversed(found) if each.result}
    return found, {letter: words[letter] for letter in sorted(words, key=lambda each: (len(each), each))}


def _images(entry: HeadEntry) -> tuple[Any, ...] | None:
    """What tells the images of a result from others: their digest; of files of earlier versions, what these state."""
    if entry.result is None:
        return None
    known = (entry.judged,) if entry.judged else ("", entry.dataset, entry.root, entry.result.split, entry.result.n)
    return (entry.result.name, *known)


def _words(entry: HeadEntry) -> str:
    assert entry.result
    unsure = "" if entry.judged else ", not known which: the files are of an earlier version"
    return f"{counted(entry.result.n, 'image')} of split {entry.result.split} of {entry.dataset}{unsure}"
