"""The rows of a feature set by split, and what is said where a split has none."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.errors import HeadError


class SplitRows:
    """The part of ``FeatureSet`` that selects rows by their split."""

    labels: np.ndarray
    splits: np.ndarray
    paths: np.ndarray
    dataset: dict[str, Any]
    source: Path | None

    def take(self, rows: np.ndarray) -> Self:
        """Select rows, by number or mask."""
        raise NotImplementedError

    def rows(self, name: str) -> np.ndarray:
        """The numbers of the labelled rows of one split: (n,) int64.

        Args:
            name: the split, or "all" for every labelled row.

        Raises:
            HeadError: the split has no labelled rows.
        """
        rows = np.flatnonzero((self.labels != UNLABELLED) & ((self.splits == name) | (name == "all")))
        if not len(rows):
            hint = self._how_to_split()
            raise HeadError(f"there are no labelled images in the split {name!r}; {self.describe_splits()}{hint}")
        return rows

    def split(self, name: str) -> Self:
        """Select the labelled rows of one split, or of all splits with "all".

        Raises:
            HeadError: the split has no labelled rows.
        """
        return self.take(self.rows(name))

    def held_out(self) -> str:
        """The name of the held-out split: "test" if it has labelled images, otherwise "val".

        Raises:
            HeadError: neither has labelled images.
        """
        labelled = set(self.splits[self.labels != UNLABELLED])
        for name in ("test", "val"):
            if name in labelled:
                return name
        found = f"there is no held-out split: no labelled images in test or val; {self.describe_splits()}"
        if self.dataset.get("splits") == "hash":
            raise HeadError(f"{found}, which are too few to be divided (copies and images of one group count once)")
        raise HeadError(
            f"{found}. Name a split in the table or make folders train/ and test/; featx splits a data set that names none"
            f"{self._how_to_split()}"
        )

    def _how_to_split(self) -> str:
        """Where all labelled images are in one split: how to have them split, as the end of a message."""
        labelled = self.labels != UNLABELLED
        if not self.source or len(set(self.splits[labelled])) != 1 or self.dataset.get("splits") == "hash":
            return ""
        if self.dataset.get("table"):
            return f". To have them split, run featx extract on {self.dataset['table']} without the column split"
        folders = [os.path.dirname(os.path.dirname(path)) for path in self.paths[labelled].tolist()]  # noqa: PTH120 - of str
        folder = os.path.commonpath(folders)
        return f". To have them split, run featx extract {Path(self.dataset['root'], folder)}" if folder else ""

    def describe_splits(self) -> str:
        """The number of labelled images in each split, as a phrase for messages."""
        counts = Counter(self.splits[self.labels != UNLABELLED])
        unlabelled = np.count_nonzero(self.labels == UNLABELLED)
        parts = [f"{n} in {name or 'no split'}" for name, n in sorted(counts.items())]
        return "found " + ", ".join([*parts, *([f"{unlabelled} unlabelled"] if unlabelled else [])])
