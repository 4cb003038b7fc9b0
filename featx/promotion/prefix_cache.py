"""The cached activations of a network's frozen prefix."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.backbones.backbone import Backbone
from featx.constants import INPUT
from featx.data.image_set import ImageSet
from featx.data.openers import open_store
from featx.errors import StaleCacheError
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FeatureFile
from featx.features.feature_set import FeatureSet
from featx.features.image_store import image_store
from featx.layer_spec import RandomView
from featx.promotion.prefix import PrefixExtractor, SplitNetwork
from featx.reporter import SILENT, Reporter
from featx.system import nearest_folder
from featx.text import native

MAX_DISK_SHARE = 0.5
"""Largest share of the free disk that cached activations may take."""


@dataclass(frozen=True, eq=False)
class ActivationSet:
    """Images of a data set in one view, whose activations share one file.

    Attributes:
        rows: (R,) int64 rows of the data set.
        view: The random crop of each image; None is the plain view.
        scope: A word for ``rows`` in the name of the file, where other rows than those of the data set's own split share it:
            "every" for the labelled images of all splits, "searched" for all training images in the plain view.
    """

    rows: np.ndarray
    view: RandomView | None
    scope: str = ""

    @property
    def name(self) -> str:
        """The part of the file's name that stands for the view."""
        return (f"view{self.view.number}" if self.view else "plain") + f"-{self.scope}" * bool(self.scope)


class CachedActivations:
    """The activations of some images, memory-mapped.

    Args:
        rows: (R,) int64 rows of the data set, in the order of the file.
        activations: (R, D) float16.
    """

    def __init__(self, rows: np.ndarray, activations: np.ndarray) -> None:
        self._order = np.argsort(rows)
        self._sorted_rows, self._activations = rows[self._order], activations

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the (r, D) float16 activations of (r,) int64 rows of the data set."""
        return np.asarray(self._activations[self._order[np.searchsorted(self._sorted_rows, rows)]])


@dataclass(frozen=True, eq=False)
class ActivationCache:
    """The feature files that hold a prefix's activations, for this run and later ones.

    Attributes:
        parts: The network, split.
        backbone: The backbone that the network comes from; its transform reads the images.
        layer: Name of the block behind the cut.
        features: The data set.
        folder: Folder of the files.
    """

    parts: SplitNetwork
    backbone: Backbone
    layer: str
    features: FeatureSet
    folder: Path

    @property
    def bytes_per_row(self) -> int:
        """The bytes of the activations of one crop."""
        return self.parts.width * 2

    def missing_bytes(self, subsets: Sequence[ActivationSet]) -> int:
        """Return the bytes of activations that are not on disk yet."""
        files = [self._file(subset, self._extractor(subset)) for subset in subsets]
        sizes = [file.stat().st_size if file.exists() else 0 for file in files]
        return sum(
            max(0, len(subset.rows) * self.bytes_per_row - size) for subset, size in zip(subsets, sizes, strict=True)
        )

    def has_room(self, bytes_: int) -> bool:
        """Whether so many bytes take at most half of the free disk."""
        return bytes_ <= MAX_DISK_SHARE * shutil.disk_usage(nearest_folder(self.folder)).free

    def fill(self, subset: ActivationSet, *, workers: int, reporter: Reporter = SILENT) -> None:
        """Compute the activations that are not in the file yet.

        Args:
            subset: The images and their view.
            workers: Threads that read and decode images.
            reporter: Receives the progress.
        """
        rows, extractor = self._in_file_order(subset), self._extractor(subset)
        images = ImageSet(
            name=str(self.features.dataset.get("name", "features")),
            store=image_store(self.features.dataset, self.features.paths[rows], self.features.source),
            paths=self.features.paths[rows],
            labels=self.features.labels[rows],
            splits=np.full(len(rows), "train", dtype=object),
            classes=self.features.classes,
        )
        file = self._file(subset, extractor)
        extract(images, extractor, cache=self.folder, out=file, workers=workers, reporter=reporter)

    def load(self, subset: ActivationSet) -> CachedActivations:
        """Return the activations of a set that was filled.

        Raises:
            StaleCacheError: An image has changed since its features were extracted, or its activations overflow float16.
        """
        rows, extractor = self._in_file_order(subset), self._extractor(subset)
        file = FeatureFile(self._file(subset, extractor))
        bad = np.flatnonzero((file.status != DONE) | (file.keys != self.features.keys[rows]).any(axis=1))
        if len(bad):
            why = file.error(int(bad[0])) or "it has changed since its features were extracted"
            store = open_store(native(self.features.dataset["root"]))
            image = store.name(str(self.features.paths[rows[bad[0]]]))
            raise StaleCacheError(
                f"{image}: {why}; run featx extract and featx fit-head again, or add --cached-crops 0"
            )
        return CachedActivations(rows, file.features(self._stored_layer))

    @property
    def _stored_layer(self) -> str:
        """The layer's name in the files: all layers whose values cross the cut."""
        return "+".join([*self.parts.prefix.pooled_layers, self.layer]) + INPUT

    def _in_file_order(self, subset: ActivationSet) -> np.ndarray:
        """Return the rows sorted by path, as a feature file stores images."""
        return subset.rows[np.argsort(self.features.paths[subset.rows])]

    def _extractor(self, subset: ActivationSet) -> Backbone:
        extractor = PrefixExtractor(self.parts.prefix, self._stored_layer)
        return self.backbone.with_extractor(
            extractor, layer=self._stored_layer, width=self.parts.width, view=subset.view
        )

    def _file(self, subset: ActivationSet, extractor: Backbone) -> Path:
        source = self.features.source
        stem = source.stem if source else str(self.features.dataset.get("name", "features"))
        return self.folder / f"{stem}--{self.layer}--{subset.name}--{extractor.identity[:8]}.h5"
