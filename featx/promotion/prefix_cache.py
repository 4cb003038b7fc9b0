"""The cached outputs of a frozen first part of a network."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featx.backbones.backbone import Backbone
from featx.constants import INPUT
from featx.data.image_set import ImageSet
from featx.errors import StaleCacheError
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FeatureFile
from featx.features.feature_set import FeatureSet
from featx.layer_spec import RandomView
from featx.promotion.prefix import Cut, Split
from featx.reporter import SILENT, Reporter
from featx.system import nearest_folder

MOST_OF_DISK = 0.5
"""Share of the free disk that activations may take."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """Some images of a data set, as they are seen.

    Attributes:
        rows: (R,) int64, of the data set.
        view: how; None is plain.
        every: all images are meant, not those of one split: they have a file of their own, which takes what is in the other.
    """

    rows: np.ndarray
    view: RandomView | None
    every: bool = False

    @property
    def name(self) -> str:
        """Of the way."""
        return (f"view{self.view.number}" if self.view else "plain") + "-every" * self.every


class Activations:
    """What enters the trained part of a network, from its file.

    Args:
        rows: (R,) int64, ascending by path.
        found: (R, D) float16, theirs.
    """

    def __init__(self, rows: np.ndarray, found: np.ndarray) -> None:
        self._order = np.argsort(rows)
        self._sorted, self._found = rows[self._order], found

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(r, D) float16 of some of the rows."""
        return np.asarray(self._found[self._order[np.searchsorted(self._sorted, rows)]])


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """The first part of a network, with the feature files in which what it gives is kept for the next time.

    Attributes:
        parts: of the network.
        backbone: whose network it is, and whose transform.
        layer: the block behind the cut.
        features: the data set.
        folder: for the files.
    """

    parts: Split
    backbone: Backbone
    layer: str
    features: FeatureSet
    folder: Path

    def need(self, seen: Sequence[Seen]) -> int:
        """Bytes on disk that are yet to be written."""
        row = self.parts.width * 2
        files = [self._file(some, self._cut(some)) for some in seen]
        here = [file.stat().st_size if file.exists() else 0 for file in files]
        return sum(max(0, len(some.rows) * row - size) for some, size in zip(seen, here, strict=True))

    def has_room(self, bytes_: int) -> bool:
        """Whether the disk has room for so many bytes, and for as many again."""
        return bytes_ <= MOST_OF_DISK * shutil.disk_usage(nearest_folder(self.folder)).free

    def compute(self, seen: Seen, *, workers: int, reporter: Reporter = SILENT) -> None:
        """Run the part for images whose outputs are not there yet.

        Args:
            seen: the images.
            workers: as ``extract``.
            reporter: as ``extract``.
        """
        rows, cut = self._ordered(seen), self._cut(seen)
        images = ImageSet(
            name=str(self.features.dataset.get("name", "features")),
            root=Path(self.features.dataset["root"]),
            paths=self.features.paths[rows],
            labels=self.features.labels[rows],
            splits=np.full(len(rows), "train", dtype=object),
            classes=self.features.classes,
        )
        extract(images, cut, cache=self.folder, out=self._file(seen, cut), workers=workers, reporter=reporter)

    def load(self, seen: Seen) -> Activations:
        """What was computed, memory-mapped.

        Raises:
            StaleCacheError: an image has changed since its features were extracted, or gives what float16 cannot hold.
        """
        rows, cut = self._ordered(seen), self._cut(seen)
        found = FeatureFile(self._file(seen, cut))
        bad = np.flatnonzero((found.status != DONE) | (found.keys != self.features.keys[rows]).any(axis=1))
        if len(bad):
            why = found.error(int(bad[0])) or "it has changed since its features were extracted"
            image = Path(self.features.dataset["root"]) / str(self.features.paths[rows[bad[0]]])
            raise StaleCacheError(f"{image}: {why}; run featx extract and featx fit-head again, or add --views 0")
        return Activations(rows, found.features(self._kept_as))

    @property
    def _kept_as(self) -> str:
        """What crosses the cut, by all of its names."""
        return "+".join([*self.parts.first.pooled, self.layer]) + INPUT

    def _ordered(self, seen: Seen) -> np.ndarray:
        """A feature file has its images by path."""
        return seen.rows[np.argsort(self.features.paths[seen.rows])]

    def _cut(self, seen: Seen) -> Backbone:
        cut = Cut(self.parts.first, self._kept_as)
        return self.backbone.cut(cut, self._kept_as, self.parts.width, seen.view)

    def _file(self, seen: Seen, cut: Backbone) -> Path:
        stem = self.features.source.stem if self.features.source else str(self.features.dataset.get("name", "features"))
        return self.folder / f"{stem}--{self.layer}--{seen.name}--{cut.identity[:8]}.h5"
