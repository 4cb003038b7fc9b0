"""Features that are in files already: which images they belong to, and in which rows they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Container, Iterator, Mapping, Sequence

import numpy as np

from featx.data.image_set import ImageSet
from featx.errors import CacheMissError
from featx.features.feature_file import DONE, FAILED, FeatureFile
from featx.features.file_marks import FileMarks, unaltered
from featx.layer_spec import RandomView, View
from featx.text import portable, to_utf8


class _KnownImages:
    """The images of several feature files, whatever their layers.

    Attributes:
        files: the files; of several that hold an image, the first counts.
    """

    files: list[FeatureFile]

    def recognised(
        self, images: ImageSet, sizes: np.ndarray, mtimes: np.ndarray, marks: FileMarks | None = None
    ) -> np.ndarray:
        """Look up the keys of images that a file lists at the same path, with the same size, times and inode number.

        The file of an interrupted run counts where the checksums of its rows vouch for these.

        Args:
            images: the N images.
            sizes: (N,) int64, in bytes; -1 where there is no file.
            mtimes: (N,) int64, in ns.
            marks: the change times and inode numbers of the images; None: they are not compared.

        Returns:
            (N, 16) uint8, zeros where an image is not recognised.
        """
        keys = np.zeros((len(images), 16), dtype=np.uint8)
        ours = _places(portable(images.root), np.array([os.fsencode(path) for path in images.paths]))
        for file in self.files:
            rows = np.flatnonzero(~keys.any(axis=1) & (sizes >= 0))
            theirs = _places(file.dataset["root"], file.images.paths)
            order = np.argsort(theirs, kind="stable")  # paths are sorted, but some may be absolute
            at = order[np.minimum(np.searchsorted(theirs, ours[rows], sorter=order), len(theirs) - 1)]
            same = (
                (theirs[at] == ours[rows])
                & (file.images.sizes[at] == sizes[rows])
                & (file.images.mtimes[at] == mtimes[rows])
            )
            with contextlib.suppress(CacheMissError):  # another process has completed or replaced the file meanwhile
                if marks:
                    now = FileMarks(marks.ctimes[rows[same]], marks.inodes[rows[same]])
                    same[same] = unaltered(file, at[same], now)
                same[same] = file.vouched(at[same])
                keys[rows[same]] = file.keys[at[same]]
        return keys

    def failures(self, max_pixels: int, reader: str | None = None) -> dict[bytes, str]:
        """The reasons why images failed, by key, from the complete files that were made in the same way.

        In the file of an interrupted run no checksum covers a reason, so those images are read again. That of a run that was
        killed between completing its file and renaming it has no reasons any more once it is continued.

        Args:
            max_pixels: the limit of pixels.
            reader: the decoders, as ``pillow.reader_name`` returns them; None for files that do not record them.
        """
        found: dict[bytes, str] = {}
        for file in self.files:
            if file.complete and (file.dataset.get("max_pixels"), file.dataset.get("reader")) == (max_pixels, reader):
                rows = np.flatnonzero((file.status == FAILED) & file.keys.any(axis=1)).tolist()
                with contextlib.suppress(CacheMissError):  # as above
                    reasons = {file.keys[row].tobytes(): file.error(row) for row in rows}
                    found |= {key: reason for key, reason in reasons.items() if reason}
        return found


class KnownRows(_KnownImages, Collection[bytes]):
    """The rows of several feature files of the same identity, by the keys of their images.

    It contains a key if a file has features of that image. Their checksums are verified when they are taken; a key whose
    row is damaged is not contained from then on.
    """

    def __init__(self, files: Sequence[FeatureFile], layers: Sequence[str]) -> None:
        """Index the rows of files.

        Args:
            files: files that have all the layers; of several that hold an image, the first counts.
            layers: the layers whose features ``take`` returns.
        """
        self.files, self.layers = list(files), list(layers)
        done = [np.flatnonzero(file.status == DONE) for file in files]
        keys = _as_text(
            np.concatenate([np.empty((0, 16), np.uint8), *(f.keys[d] for f, d in zip(files, done, strict=True))])
        )
        # The sort is stable, so that the first of equal keys belongs to the first file.
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._file = np.repeat(np.arange(len(files)), [len(rows) for rows in done])[order]
        self._row = np.concatenate([np.empty(0, np.int64), *done])[order]
        self._unsound: set[bytes] = set()

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, bytes) or len(key) != 16 or key in self._unsound:
            return False
        return bool(self._find(np.frombuffer(key, dtype=np.uint8)[None])[0][0])

    def keys(self) -> np.ndarray:
        """(K,) S16, the sorted keys of images that have features."""
        keys = np.unique(self._keys)
        return keys[~np.isin(keys, np.array(sorted(self._unsound), dtype="S16"))] if self._unsound else keys

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """(M,) bool: which of (M, 16) keys are contained."""
        found = self._find(keys)[0]
        for row in np.flatnonzero(found) if self._unsound else ():
            found[row] = keys[row].tobytes() not in self._unsound
        return found

    def __iter__(self) -> Iterator[bytes]:
        return (key.ljust(16, b"\0") for key in np.unique(self._keys).tolist())

    def __len__(self) -> int:
        return len(np.unique(self._keys))

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Read features by key, and verify their checksums.

        Args:
            keys: (M, 16) uint8.

        Returns:
            (M,) bool, which keys have intact features; and for each layer the (S, D) features of those, in the same order.
        """
        found, file_of, row_of = self._find(keys)
        parts: dict[str, list[np.ndarray]] = {layer: [] for layer in self.layers}
        where: list[np.ndarray] = []
        for number in np.unique(file_of[found]):
            file, at = self.files[number], np.flatnonzero(found & (file_of == number))
            at = at[np.argsort(row_of[at], kind="stable")]
            try:
                with file.needed():
                    sound = file.checksums_match_in_all(self.layers, row_of[at])
                    blocks = {layer: file.features(layer)[row_of[at[sound]]] for layer in self.layers}
            except CacheMissError:  # another process has replaced the file, which was not kept open
                sound, blocks = np.zeros(len(at), dtype=bool), {}
            self._unsound.update(keys[row].tobytes() for row in at[~sound])
            found[at[~sound]] = False
            for layer, block in blocks.items():
                parts[layer].append(block)
            where.append(at[sound])
        order = np.argsort(np.concatenate(where)) if where else np.empty(0, np.int64)
        return found, {layer: np.concatenate(blocks)[order] for layer, blocks in parts.items() if blocks}

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For (M, 16) keys: (M,) bool, whether a file has the image; (M,) numbers of the files; (M,) rows in them."""
        if not len(self._keys):
            nothing = np.zeros(len(keys), dtype=np.int64)
            return nothing.astype(bool), nothing, nothing
        texts = _as_text(keys)
        at = np.minimum(np.searchsorted(self._keys, texts), len(self._keys) - 1)
        return (self._keys[at] == texts) & keys.any(axis=1), self._file[at], self._row[at]


class KnownViews(_KnownImages, Container[bytes]):
    """The rows of several feature files, with the features of each view in the files that have them.

    It contains a key if each view of that image (test-time augmentation, TTA) is in some file, not necessarily the same.

    Attributes:
        parts: the rows that have features in each view.
    """

    def __init__(
        self,
        files: Sequence[FeatureFile],
        *identities: Mapping[View | RandomView, Mapping[str, str]],
    ) -> None:
        """Index the rows of files.

        Args:
            files: the files; of several that hold an image, the first counts.
            identities: for each view, the identities of all layers in that view; once for each form of the backbone.
        """
        self.files = list(files)
        self.parts = {
            view: KnownRows(
                [file for file in files if any(file.holds(form[view]) for form in identities)], list(layers)
            )
            for view, layers in identities[0].items()
        }

    def __contains__(self, key: object) -> bool:
        return all(key in part for part in self.parts.values())

    def keys(self) -> np.ndarray:
        """(K,) S16, the sorted keys of images whose features of all views are in files."""
        first, *others = (part.keys() for part in self.parts.values())
        for keys in others:
            first = np.intersect1d(first, keys, assume_unique=True)
        return first

    def has_sizes(self, sizes: np.ndarray) -> bool:
        """Whether an image that has features is of one of these sizes in bytes, and so may be one of these images."""
        return any(bool(np.isin(file.images.sizes[file.status == DONE], sizes).any()) for file in self.files)

    def may_lack_some(self, sizes: np.ndarray) -> np.ndarray:
        """(N,) bool: which images, by size in bytes, may have features in some of the views but not in all."""
        uneven = [file for file in self.files if any(file not in part.files for part in self.parts.values())]
        return np.isin(sizes, np.concatenate([np.empty(0, np.int64), *(file.images.sizes for file in uneven)]))

    def lacking(self, rows: np.ndarray, keys: np.ndarray) -> Iterator[tuple[tuple[View | RandomView, ...], np.ndarray]]:
        """Group rows by the views in which their images have no features.

        A row that is complete in all views and requested all the same counts as lacking all of them.

        Args:
            rows: (M,) row numbers.
            keys: (M, 16) uint8, the keys of their images.

        Yields:
            A set of views, and the rows that lack exactly these.
        """
        unknown = np.stack([~part.holds(keys) for part in self.parts.values()], axis=1)
        unknown[~unknown.any(axis=1)] = True
        sets, which = np.unique(unknown, axis=0, return_inverse=True)
        for number, lacking in enumerate(sets):
            yield tuple(view for view, lacks in zip(self.parts, lacking, strict=True) if lacks), rows[which == number]

    def take(
        self, keys: np.ndarray, views: Collection[View | RandomView] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Read features by key, and verify their checksums.

        Args:
            keys: (M, 16) uint8.
            views: the views to read; all by default.

        Returns:
            (M,) bool, which keys have intact features in all of these views; and for each layer in each view the (S, D)
            features of those, in the same order.
        """
        taken = [part.take(keys) for view, part in self.parts.items() if views is None or view in views]
        complete = np.logical_and.reduce([found for found, _ in taken])
        return complete, {
            layer: rows if len(rows) == complete.sum() else rows[complete[found]]
            for found, features in taken
            for layer, rows in features.items()
        }


def count_removed(before: np.ndarray, now: np.ndarray) -> int:
    """Count the images of an earlier list that are missing in a later one. Each copy of an image counts; zeros do not.

    Args:
        before: (N, 16) uint8, the keys of the earlier list.
        now: (M, 16) uint8, the keys of the later one.

    Examples:
        >>> keys = np.arange(48, dtype=np.uint8).reshape(3, 16)
        >>> count_removed(keys[[0, 0, 1, 2]], keys[[2, 0]])
        2
    """
    before = before[before.any(axis=1)]  # zeros: an image that could not be read is not known to be gone
    names, counts = np.unique(_as_text(before), return_counts=True)
    names_now, counts_now = np.unique(_as_text(now), return_counts=True)
    at = np.minimum(np.searchsorted(names_now, names), len(names_now) - 1)
    return int(np.maximum(counts - np.where(names_now[at] == names, counts_now[at], 0), 0).sum())


def _as_text(keys: np.ndarray) -> np.ndarray:
    """View (N, 16) uint8 as (N,) S16, which sorts and compares like the bytes."""
    return np.ascontiguousarray(keys).view("S16").ravel()


def _places(root: str, paths: np.ndarray) -> np.ndarray:
    """(N,) bytes: the absolute paths of images; a table may name them so."""
    return np.where(np.char.startswith(paths, b"/"), paths, np.char.add(to_utf8(root).rstrip(b"/") + b"/", paths))
