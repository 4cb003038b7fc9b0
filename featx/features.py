"""Features, labels and names in memory. numpy only."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx.cache import DONE, FeatureCache, joint_identity, side_by_side
from featx.errors import CorruptCacheError, HeadError
from featx.images import UNLABELLED
from featx.settings import PENULTIMATE


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of one layer of one data set.

    Attributes:
        features: (N, D) float32 or float16; memory-mapped where it comes from a file.
        labels: (N,) int64 into ``classes``, -1 unlabelled.
        splits: (N,) str.
        classes: (C,) names.
        paths: (N,) str, relative to ``root``.
        keys: (N, 16) uint8, the images' content hashes.
        layer: which layer of the backbone; of several, their names with commas between them.
        identity: SHA-256 of all that the features depend on.
        backbone: how to make the backbone again, as the file keeps it.
        dataset: name, root and origin of the splits.
        source: the feature file, or None.
    """

    features: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    paths: np.ndarray
    keys: np.ndarray
    layer: str = PENULTIMATE
    identity: str = ""
    backbone: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], layer: str = PENULTIMATE) -> FeatureSet:
        """Read a feature file; images that failed are left out.

        Args:
            path: of the file.
            layer: one of its layers, or several with commas between them: their features side by side, in memory.

        Raises:
            CacheMissError: no such file or layer.
            CorruptCacheError: a row that does not fit its check.
        """
        cache = FeatureCache(path)
        rows = np.flatnonzero(cache.status == DONE)
        layers = side_by_side(layer)
        sound = cache.sound_in_all(layers, rows)
        if not sound.all():
            bad = cache.paths[rows[np.argmin(sound)]]
            raise CorruptCacheError(
                f"{cache.path}: {np.count_nonzero(~sound)} of {len(rows)} rows of layer {layer} do not fit their checks, "
                f"the first of {bad}; the same featx extract with --rehash computes those again"
            )
        every = len(rows) == len(cache)
        parts = [cache.features(name) if every else cache.features(name)[rows] for name in layers]
        return cls(
            features=parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1),
            labels=cache.images.labels[rows],
            splits=cache.splits[rows],
            classes=cache.classes,
            paths=np.array(cache.paths, dtype=object)[rows],
            keys=cache.keys[rows],
            layer=layer,
            identity=joint_identity([cache.layers[name].identity for name in layers]),
            backbone=cache.backbone,
            dataset=cache.dataset,
            source=cache.path.resolve(),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> FeatureSet:
        """The same with these rows alone."""
        parts = {n: getattr(self, n)[rows] for n in ("features", "labels", "splits", "paths", "keys")}
        return dataclasses.replace(self, **parts)

    def facts(self, rows: np.ndarray) -> FeatureSet:
        """These rows alone, without their features, (n, 0): nothing large is copied."""
        nothing = np.empty((len(self), 0), dtype=np.float32)
        return dataclasses.replace(self, features=nothing).take(rows)

    def rows(self, name: str) -> np.ndarray:
        """(n,) int64, the labelled rows of one split; "all" is every labelled row.

        Raises:
            HeadError: there are none.
        """
        rows = np.flatnonzero((self.labels != UNLABELLED) & ((self.splits == name) | (name == "all")))
        if not len(rows):
            raise HeadError(f"there are no labelled images in the split {name!r}; {self.where()}")
        return rows

    def split(self, name: str) -> FeatureSet:
        """The labelled rows of one split, as ``rows``."""
        return self.take(self.rows(name))

    def held_out(self) -> str:
        """The split that judges: "test" where there is one, else "val".

        Raises:
            HeadError: there is neither.
        """
        labelled = set(self.splits[self.labels != UNLABELLED])
        for name in ("test", "val"):
            if name in labelled:
                return name
        raise HeadError(
            f"there is no split to judge by: no labelled images in test or val; {self.where()}. Name a split in the table or "
            "make folders train/ and test/; a data set that names none is split by featx"
        )

    def where(self) -> str:
        """How many labelled images each split has, in words."""
        counts = Counter(self.splits[self.labels != UNLABELLED])
        unlabelled = np.count_nonzero(self.labels == UNLABELLED)
        parts = [f"{n} in {name or 'no split'}" for name, n in sorted(counts.items())]
        return "found " + ", ".join([*parts, *([f"{unlabelled} unlabelled"] if unlabelled else [])])
