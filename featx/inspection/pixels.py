"""Odd images, by their pixels and sizes: blank, dark, bright, blurred, grey, or of an odd size or aspect ratio.

Names and most thresholds are those of cleanvision. These differ: blurred images are found by how much sharper they are at half
their size; images of less contrast than noise has are blank too; grey images are judged like colour images of the same pixels;
sizes within a fifth of the middle are never odd; and what most images of a set have in common is not odd.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from featx.data.boxes import split_box
from featx.data.decode import MAX_PIXELS
from featx.data.known_image import MISSING, known_sizes, read_known_image
from featx.data.loader import in_order, wait_for_large_files
from featx.data.openers import open_store
from featx.data.pixel_facts import Look, look_at
from featx.data.places import is_remote
from featx.data.store import READ_AHEAD
from featx.errors import DatasetError, ImageError
from featx.features.feature_set import FeatureSet
from featx.features.file_marks import is_own
from featx.features.image_store import stored_transform
from featx.inspection.pixel_store import keep_facts, recall_facts
from featx.reporter import SILENT, Reporter
from featx.system import cores
from featx.text import counted, form

KINDS = ("low_information", "dark", "light", "blurry", "odd_size", "odd_aspect_ratio", "grayscale")
"""The kinds of odd images, as cleanvision names them."""

NAMES = dict(zip(KINDS, ("blank", "dark", "bright", "blurred", "odd size", "odd shape", "grey"), strict=True))
"""The kinds in words."""

THRESHOLDS = {
    "low_information": 0.3,
    "dark": 0.32,
    "light": 0.05,
    "blurry": 0.42,
    "odd_size": 0.5,
    "odd_aspect_ratio": 0.35,
    "grayscale": 0.5,
}
"""Images with a score below the threshold are odd."""

MOST_OF_SET = {kind: 0.1 if kind == "grayscale" else 0.5 for kind in KINDS}
"""The largest share of the images that can be odd; what more images have in common is usual in the set."""

_HINTS = {MISSING: "; if the images have moved, name their folder with --images"}

_MOST_REASONS = 3
"""Reasons that are named; undecodable files have one each."""

_IN_COMMON = {"odd_size": "of odd sizes", "odd_aspect_ratio": "of odd shapes"}

NOT_READ = "the image was not read"
"""Why an image that was not asked for has no thumbnail."""

_FEWEST_BITS, _LEAST_CONTRAST = 3.0, 4.0
_IQR_FACTOR, _LEAST_DIFFERENCE = 3.0, 0.2


@dataclass(frozen=True, eq=False)
class PixelIssues:
    """What is odd about the pixels of images.

    Attributes:
        is_issue: {kind: (N,) bool} for each of ``KINDS``; False for images that could not be read, and for all images where the
            kind is ``usual``.
        scores: {kind: (N,) float64} between 0 and 1, low for odd images; NaN for images that could not be read.
        sizes: (N, 2) int64, width and height in pixels; 0 for images that could not be read.
        thumbnails: {row: JPEG file of at most ``pixel_facts.SIDE`` pixels}, filled only where requested.
        unread: number of images that are missing, have changed, or cannot be decoded.
        why: the reason for each unread row, and for each that was not asked for.
        usual: {kind: number of images} for kinds that so many images have in common that none of them is odd.
    """

    is_issue: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    sizes: np.ndarray
    thumbnails: Mapping[int, bytes]
    unread: int
    why: Mapping[int, str]
    usual: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> Mapping[str, str]:
        """Each kind in words."""
        return NAMES

    @property
    def notes(self) -> list[str]:
        """What the user should know: how many images could not be read and why, and what most images have in common."""
        reasons = Counter(why for why in self.why.values() if why != NOT_READ)
        first = reasons.most_common(_MOST_REASONS)
        notes = [
            f"{counted(times, 'image')} could not be looked at: {why}{_HINTS.get(why, '')}" for why, times in first
        ]
        if rest := self.unread - sum(times for _, times in first):
            notes.append(f"{counted(rest, 'more image')} could not be looked at, for other reasons")
        read = len(self.sizes) - len(self.why)
        for kind, times in self.usual.items():
            what = _IN_COMMON.get(kind, NAMES[kind])
            notes.append(
                f"{times:,} of {counted(read, 'image')} {form(times, 'is', 'are')} {what}; that is usual in this data set, so "
                "none is listed as odd"
            )
        return notes

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table with the names that cleanvision gives them: (N,) each."""
        found: dict[str, np.ndarray] = {}
        for kind in KINDS:
            found[f"is_{kind}_issue"] = self.is_issue[kind]
            found[f"{kind}_score"] = self.scores[kind]
        return found


def inspect_pixels(
    features: FeatureSet,
    *,
    rows: np.ndarray | None = None,
    thumbnails: bool = False,
    images: Sequence[str | os.PathLike[str]] = (),
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> PixelIssues:
    """Read the images of a feature set once, and measure their pixels.

    Args:
        features: N images; only files that still have the content that was extracted are read.
        rows: (n,) int64, the images to read, and the copies of each; by default all.
        thumbnails: make a small JPEG of each image in the same pass.
        images: folders besides that of the data set in which images may lie, such as the one that it was moved to.
        workers: threads that read and decode; by default one per core.
        reporter: receives the progress, in images.
    """
    wanted = np.arange(len(features)) if rows is None else _with_copies(features.keys, rows)
    reader = _Reader(features, thumbnails=thumbnails, images=tuple(images))
    facts, known = recall_facts(features.keys, reader.transform)
    known &= facts["bytes"] == reader.sizes(wanted)
    facts[~known], new = 0, list[int]()
    small, why = dict[int, bytes](), dict[int, str]()
    contents = reader.ordered(_contents(features.keys, wanted if thumbnails else wanted[~known[wanted]]))
    done, total = len(wanted) - sum(map(len, contents)), len(wanted)
    reporter.progress(done, total)
    try:
        for found in in_order(contents, reader.look, workers=workers or reader.workers):
            for row, seen in found.items():
                if isinstance(seen, str):
                    facts[row], why[row] = 0, seen
                    continue
                facts[row] = seen.facts
                if thumbnails:
                    small[row] = seen.thumbnail
            new += [row for row in found if facts[row]["bytes"] and not known[row]][:1]
            done += len(found)
            reporter.progress(done, total)
    finally:  # what was measured is of use, however the pass ends
        keep_facts(features.keys, facts, new, reader.transform)
    not_asked = np.setdiff1d(np.arange(len(features)), wanted).tolist()
    return _issues(facts, small, why | dict.fromkeys(not_asked, NOT_READ), unread=len(why))


class _Reader:
    """Looks at the images of a set, one file of each content.

    Attributes:
        transform: the transform that the images were read with.
    """

    def __init__(self, features: FeatureSet, *, thumbnails: bool, images: tuple[str | os.PathLike[str], ...]) -> None:
        self.transform = stored_transform(features.backbone)
        self._root = str(features.dataset.get("root", ""))
        self._paths, self._keys = features.paths, features.keys
        self._thumbnails, self._images, self._own = thumbnails, images, is_own(features.source)
        most = features.dataset.get("max_pixels")
        self._max_pixels = most if isinstance(most, int) else MAX_PIXELS

    @property
    def workers(self) -> int:
        """Threads that read and decode: as many as there are cores, or as wait for a server."""
        is_far = is_remote(self._root) or any(map(is_remote, self._paths))
        return max(cores(), READ_AHEAD) if is_far else cores()

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """The bytes of the files at some rows: (N,) int64; -1 where there is no such file, and for other rows."""
        found = np.full(len(self._paths), -1, dtype=np.int64)
        paths = [str(self._paths[row]) for row in rows]
        found[rows] = known_sizes(self._root, paths, also=self._images, own=self._own)
        return found

    def ordered(self, contents: list[list[int]]) -> list[list[int]]:
        """The same lists of rows in the order in which reading their images is fastest."""
        if is_remote(self._root) and not (self._own or self._root in [os.fspath(folder) for folder in self._images]):
            return contents
        try:
            order = open_store(self._root).order([split_box(str(self._paths[rows[0]]))[0] for rows in contents])
        except DatasetError:  # it is gone; each image tells so
            return contents
        return [contents[number] for number in order.tolist()]

    def look(self, rows: Sequence[int]) -> dict[int, Look | str]:
        """What is seen at rows of the same content, of which one is read; or why it could not be read."""
        found: dict[int, Look | str] = {}
        seen: Look | None = None
        for row in rows:
            try:
                if seen is None or self._size(row) != seen.facts["bytes"]:
                    seen = self._read(row)
                found[row] = seen
            except ImageError as error:
                found[row] = str(error)
        return found

    def _size(self, row: int) -> int:
        path = str(self._paths[row])
        return int(known_sizes(self._root, [path], also=self._images, own=self._own)[0])

    def _read(self, row: int) -> Look:
        with contextlib.ExitStack() as turns:
            file = read_known_image(
                self._root,
                str(self._paths[row]),
                bytes(self._keys[row]),
                also=self._images,
                own=self._own,
                admit=lambda size: wait_for_large_files(size, turns),
            )
            try:
                return look_at(
                    file.data,
                    self.transform,
                    thumbnail=self._thumbnails,
                    max_pixels=self._max_pixels,
                    box=file.box,
                )
            except ImageError as error:
                text = str(error)
                text = text if text.startswith("cannot") else f"cannot be decoded: {text}"
                raise ImageError(f"the image {text}") from error


def _contents(keys: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    """Some rows, in lists of the same content, in the order of the first of each."""
    found: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(keys[row].tobytes(), []).append(row)
    return list(found.values())


def _with_copies(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows and all others of the same contents, ascending."""
    asked = {key.tobytes() for key in keys[rows]}
    return np.array([row for row, key in enumerate(keys) if key.tobytes() in asked], dtype=np.int64)


def _issues(facts: np.ndarray, thumbnails: Mapping[int, bytes], why: Mapping[int, str], *, unread: int) -> PixelIssues:
    """Judge the (N,) records of a set; records of zeros are of images that could not be read."""
    known = facts["width"] > 0
    is_issue, scores, usual = {}, {}, {}
    for kind in KINDS:
        scores[kind], is_issue[kind] = np.full(len(facts), np.nan), np.zeros(len(facts), dtype=bool)
        score = _SCORES[kind](facts[known])
        odd = score < THRESHOLDS[kind]
        scores[kind][known] = score
        if odd.sum() > MOST_OF_SET[kind] * len(odd):
            usual[kind] = int(odd.sum())
        else:
            is_issue[kind][known] = odd
    sizes = np.stack([facts["width"], facts["height"]], axis=1).astype(np.int64)
    return PixelIssues(is_issue, scores, sizes, thumbnails, unread, why, usual)


def _information_scores(facts: np.ndarray) -> np.ndarray:
    """Entropy and contrast relative to the least of images that show something; the lower one of the two counts."""
    relative = np.minimum(facts["entropy"] / _FEWEST_BITS, facts["contrast"] / _LEAST_CONTRAST)
    return np.asarray(np.minimum(THRESHOLDS["low_information"] * relative.astype(np.float64), 1))


def _blur_scores(facts: np.ndarray) -> np.ndarray:
    """Sharpness; 1 for blank images, in which nothing can be blurred."""
    return np.where(facts["contrast"] < _LEAST_CONTRAST, 1.0, facts["sharpness"].astype(np.float64))


def _size_scores(facts: np.ndarray) -> np.ndarray:
    """1 in the middle, 0.5 at the limits: three interquartile ranges beyond the quartiles, or a fifth of the middle if more."""
    side = np.sqrt(facts["width"].astype(np.float64) * facts["height"])
    low, high = np.percentile(side, [25, 75]) if len(side) else (1.0, 1.0)
    middle = (low + high) / 2
    half = max((0.5 + _IQR_FACTOR) * (high - low), _LEAST_DIFFERENCE * middle)
    return np.asarray(1 - np.clip(np.abs(side - middle) / (2 * half), 0, 1))


def _aspect_scores(facts: np.ndarray) -> np.ndarray:
    sides = np.stack([facts["width"], facts["height"]]).astype(np.float64)
    return np.asarray(sides.min(axis=0) / sides.max(axis=0))


_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "low_information": _information_scores,
    "dark": lambda facts: facts["bright_99"].astype(np.float64),
    "light": lambda facts: 1 - facts["bright_5"].astype(np.float64),
    "blurry": _blur_scores,
    "odd_size": _size_scores,
    "odd_aspect_ratio": _aspect_scores,
    "grayscale": lambda facts: 1.0 - facts["grey"].astype(np.float64),
}
"""The score of each kind: (n,) float64 for (n,) records."""
