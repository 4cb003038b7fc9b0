"""The one place that writes the rows of an extraction, and counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from featx.data.file_bytes import UNKNOWN
from featx.data.loader import LoadedImage
from featx.data.pillow import reader_name
from featx.data.splits import hash_position, hash_splits, split_at
from featx.errors import DatasetError
from featx.extraction.plan import Plan, Work
from featx.features.feature_file import DONE, FAILED, FeatureFile
from featx.features.file_marks import FileMarks, forget_marks, record_marks, seal_of
from featx.features.header import partial_path
from featx.features.writer import FeatureFileWriter

_BLOCK = 1 << 25
"""Bytes of features that are copied from other files at once."""


class Committer:
    """Writes rows of features and failures to a plan's feature file.

    Creating it lays out the file, or continues an unfinished one. For use by one thread of one process: whoever computes
    features hands them over by ``store``.

    Attributes:
        keys: (N, 16) uint8, the hashes of the images as far as they are known; zeros for the others.
        computed: images that went through the network.
        reused: images whose features were copied, or were there already.
        stored: images that have features in the file now.
        failed: images that have a reason instead.
        resumes: whether the file continues one that an interrupted run left.
    """

    def __init__(self, plan: Plan) -> None:
        """Lay out the file, or continue an unfinished one.

        Raises:
            OutputError: the folder cannot be written, or the disk has no room for the whole file.
        """
        inventory, backbone = plan.inventory, plan.backbone
        identities = backbone.identities
        self._plan, self._request, self._known = plan, inventory.request, plan.known
        self._writer = FeatureFileWriter(
            inventory.path,
            images=inventory.table,
            classes=inventory.images.classes,
            layers={name: (dim, identities[name]) for name, dim in backbone.layers.items()},
            dtype=backbone.dtype,
            identity=backbone.identity,
            backbone={"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()},
            dataset=inventory.dataset,
            columns=inventory.images.columns,
            resume=plan.in_place,
        )
        self.keys = plan.keys.copy()
        self.computed = self.reused = self.stored = self.failed = 0
        self.resumes = self._writer.resumed is not None

    def take_over(self, rows: np.ndarray) -> np.ndarray:
        """Fill rows whose images are known from this file or others, with features or the reason of a failure.

        Args:
            rows: (M,) rows; those without a key are passed over.

        Returns:
            The rows that are left, ascending.
        """
        left = np.zeros(len(self.keys), dtype=bool)
        left[rows] = True
        left[self._rows_in_place(rows)] = False
        width = sum(self._plan.backbone.layers.values()) * np.dtype(self._plan.backbone.dtype).itemsize
        block = max(1, _BLOCK // width)
        keyed = np.flatnonzero(left & self.keys.any(axis=1))
        for at in range(0, len(keyed), block):
            some = keyed[at : at + block]
            left[some[self.copy_known(some)]] = False
        failures = {} if self._request.rehash else self._known.failures(self._request.max_pixels, reader_name())
        for row in np.flatnonzero(left & self.keys.any(axis=1)).tolist() if failures else ():
            key = self.keys[row].tobytes()
            if key in failures:
                self.fail(row, key, failures[key])
                left[row] = False
        return np.flatnonzero(left)

    def _rows_in_place(self, rows: np.ndarray) -> np.ndarray:
        """Of these rows, those that the unfinished file has already: of the same image, and with the right checksums."""
        unfinished = self._writer.resumed
        if not unfinished:
            return rows[:0]
        same = rows[(unfinished.keys[rows] == self.keys[rows]).all(axis=1) & self.keys[rows].any(axis=1)]
        done: np.ndarray = same[self._writer.kept[same]]
        self.reused += len(done)
        self.stored += len(done)
        return done

    def copy_known(self, rows: np.ndarray) -> np.ndarray:
        """Copy (M,) rows that have keys from other files.

        Returns:
            (M,) bool: which rows were there and matched their checksums.
        """
        found, features = self._known.take(self.keys[rows])
        if found.any():
            self._write(rows[found], self.keys[rows[found]], features)
            self.reused += int(np.count_nonzero(found))
        return found

    def copy_duplicates(self, duplicates: Sequence[tuple[int, bytes]], first_row: Mapping[bytes, int]) -> list[int]:
        """Copy the rows of images that are identical to one that was computed in this run.

        Args:
            duplicates: (row, key) of each.
            first_row: the row of the computed image, by key.

        Returns:
            Rows whose original has no features yet and must be computed again.
        """
        if not duplicates:
            return []
        again: list[int] = []
        file = FeatureFile(partial_path(self._plan.inventory.path), allow_partial=True)
        for row, key in duplicates:
            first = first_row[key]
            if file.status[first] == DONE:
                vectors = {layer: file.features(layer)[first : first + 1] for layer in self._plan.backbone.layers}
                self._write(np.array([row]), np.frombuffer(key, dtype=np.uint8)[None], vectors)
                self.reused += 1
            elif file.status[first] == FAILED:
                self.fail(row, key, file.error(first))
            else:
                again.append(row)
        return again

    def observe(self, image: LoadedImage) -> None:
        """Record the key of an image that was read, and its size and time where they differ from those of the plan."""
        if self._plan.inventory.correct(image):
            self._writer.restat(image.row, image.size, image.mtime_ns)
        self.keys[image.row] = np.frombuffer(image.key, dtype=np.uint8)

    def store(self, work: Work, rows: np.ndarray, keys: np.ndarray, features: Mapping[str, np.ndarray]) -> list[int]:
        """Write a batch of computed features, beside those in views that other files hold. Rows that are not finite fail.

        Args:
            work: what the batch is part of.
            rows: (B,) row numbers.
            keys: (B, 16) uint8, the hashes of the images.
            features: (B, D) of each layer in the views of ``work``.

        Returns:
            Rows to compute again, because what other files hold of them is damaged.
        """
        again: list[int] = []
        if elsewhere := [view for view in self._plan.backbone.views if view not in work.views]:
            found, there = self._known.take(keys, elsewhere)
            again, rows, keys = rows[~found].tolist(), rows[found], keys[found]
            features = {**there, **{layer: f[found] for layer, f in features.items()}} if found.any() else {}
        if not len(rows):
            return again
        finite = np.logical_and.reduce([np.isfinite(f).all(axis=1) for f in features.values()])
        self._write(rows[finite], keys[finite], {layer: f[finite] for layer, f in features.items()})
        for row, key in zip(rows[~finite].tolist(), keys[~finite], strict=True):
            self.fail(row, key.tobytes(), f"the backbone gives NaN or infinity in {self._plan.backbone.dtype}")
        self.computed += len(rows)
        return again

    def fail(self, row: int, key: bytes, reason: str) -> None:
        """Write the reason why an image has no features.

        Raises:
            DatasetError: the run is strict.
        """
        self.failed += 1
        self._writer.fail(row, key, reason)
        self.keys[row] = np.frombuffer(key, dtype=np.uint8)
        if self._request.strict:
            raise self._request.strict_error(row, reason)

    def publish(self) -> None:
        """Put the file in the place of an older unfinished one: from now on an interrupted run leaves this one.

        The marks of its images are recorded too. Those of rows that an interrupted run had done for other images, or for images
        that are not recognised, are left out: the marks are younger than those rows.
        """
        self._writer.publish()
        marks, resumed = self._plan.inventory.marks, self._writer.resumed
        if resumed:
            of_others = (resumed.status == DONE) & (resumed.keys != self.keys).any(axis=1)
            marks = FileMarks(np.where(of_others, UNKNOWN, marks.ctimes), marks.inodes)
        partial = FeatureFile(partial_path(self._plan.inventory.path), allow_partial=True)
        record_marks(partial.path, seal_of(partial, partial.images.paths), marks)

    @property
    def engine(self) -> str:
        """The engine that computed the rows of an interrupted run which are kept; "" if there is none, or it is not known."""
        resumed = self._writer.resumed
        return resumed.engine if resumed and self._writer.kept.any() else ""

    def record_engine(self, name: str) -> None:
        """Keep the name of the engine for a run that continues the file."""
        self._writer.record_engine(name)

    def discard(self) -> None:
        """Remove a file that was not published. What an interrupted run left stays."""
        self._writer.discard()

    def finish(self) -> FeatureFile:
        """Derive the splits if the data set names none, and complete the file.

        Raises:
            DatasetError: no image has features.
            OutputError: the disk fails.
        """
        images = self._plan.inventory.images
        readable = self.keys.any(axis=1)
        if "" in images.splits:
            splits = np.full(len(images), "", dtype=object)
            keys, labels = self.keys[readable], images.labels[readable]
            # That a class has images in each split is seen to when the others of the set are known.
            splits[readable] = split_at(hash_position(keys)) if self._request.in_set else hash_splits(keys, labels)
            self._writer.set_splits(splits.tolist())
        if not self.stored and not (self._request.shard or self._request.in_set):  # those of other parts may have some
            written = FeatureFile(partial_path(self._plan.inventory.path), allow_partial=True)
            fault = "gave finite features" if self.computed else "could be decoded"
            first = f"{written.paths[0]}: {written.error(0)}"
            if len(images) == 1:
                fault = "gave no finite features" if self.computed else "could not be decoded"
                raise DatasetError(f"the only image in {images.root} {fault}: {first}")
            raise DatasetError(f"none of the {len(images):,} images in {images.root} {fault}; the first, {first}")
        file = self._writer.finish()
        forget_marks(partial_path(file.path))
        record_marks(file.path, seal_of(file, file.images.paths), self._plan.inventory.marks)
        return file

    def _write(self, rows: np.ndarray, keys: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        self._writer.write(rows, keys, features)
        self.stored += len(rows)
        self.keys[rows] = keys
