"""The state of the disk at the start of an extraction: the image files, and the feature file of an earlier run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones.backbone import Backbone
from featx.data.file_bytes import UNKNOWN, FileFacts
from featx.data.image_set import ImageSet
from featx.data.loader import LoadedImage, read_images
from featx.data.pillow import reader_name
from featx.errors import CacheMissError, CorruptFileError, StaleCacheError, UnreadableFileError
from featx.extraction.request import Request
from featx.features.feature_file import FeatureFile, ImageTable
from featx.features.file_marks import FileMarks, recorded_marks
from featx.features.folder import is_lost
from featx.identity import differences
from featx.text import counted, portable


@dataclass(frozen=True)
class Inventory:
    """What is on the disk when a run starts.

    Attributes:
        request: the arguments of the run.
        path: the feature file to write.
        earlier: the complete file at ``path``, with features of the same identity; or None.
        sizes: (N,) int64, bytes of each image file; -1 where there is not a regular file. ``correct`` changes them.
        mtimes: (N,) int64, modification times in ns; -1 where there is not a regular file. ``correct`` changes them.
        marks: the change times and inode numbers of the image files. ``correct`` changes them.
        notes: sentences for the user.
    """

    request: Request
    path: Path
    earlier: FeatureFile | None
    sizes: np.ndarray
    mtimes: np.ndarray
    marks: FileMarks
    notes: tuple[str, ...]

    @property
    def compares_inodes(self) -> bool:
        """Whether inode numbers are compared; not where they were found to change by themselves."""
        return bool(self.marks.inodes.any())

    @property
    def images(self) -> ImageSet:
        """The N images of the data set."""
        return self.request.images

    @property
    def dataset(self) -> dict[str, Any]:
        """The description of the data set that the feature file stores."""
        images = self.images
        splits = "hash" if "" in images.splits else "given"
        table = {"table": portable(str(images.table))} if images.table else {}
        options = {"options": images.options.as_dict()} if images.options.as_dict() else {}
        return {
            "name": images.name,
            "root": portable(images.root),
            "splits": splits,
            "max_pixels": self.request.max_pixels,
            "reader": reader_name(),
            **table,
            **options,
            **({"shard": self.request.shard[1]} if self.request.shard else {}),
        }

    @property
    def table(self) -> ImageTable:
        """The table of images that the feature file stores."""
        return ImageTable(
            paths=encoded_paths(self.images),
            labels=self.images.labels,
            splits=np.array([split.encode() for split in self.images.splits]),
            sizes=self.sizes,
            mtimes=self.mtimes,
        )

    def correct(self, image: LoadedImage) -> bool:
        """Replace size, times and inode number of an image by those of the bytes that were read.

        Returns:
            Whether size or modification time differ, which the feature file stores.
        """
        row, facts = image.row, (image.size, image.mtime_ns)
        changed = image.size >= 0 and facts != (self.sizes[row], self.mtimes[row])
        if changed:
            self.sizes[row], self.mtimes[row] = facts
        if image.mtime_ns >= 0:
            ctime, inode = image.marks
            self.marks.ctimes[row], self.marks.inodes[row] = ctime, inode if self.compares_inodes else 0
        return changed

    def read(self, rows: np.ndarray) -> Iterator[LoadedImage]:
        """Read the images of these rows for their keys alone, in the order in which that is fastest, without decoding them."""
        files = ((row, self.images.file(row)) for row in self.images.order(rows).tolist())
        return read_images(files, None, workers=self.request.workers)


def take_inventory(request: Request, facts: FileFacts | None = None) -> Inventory:
    """Stat every image file and open the feature file of an earlier run. Reads no image.

    Args:
        request: the arguments of the run.
        facts: what is known of the image files already; None to find it out.

    Raises:
        UnreadableFileError: the system cannot read the file at the target's path now.
        CorruptFileError: it is no feature file, or a damaged one.
        StaleCacheError: it has features of another identity.
    """
    path, note = request.target()
    facts = facts or request.images.facts()
    marks = FileMarks(facts.ctimes.copy(), facts.inodes.copy())
    earlier, damage = _earlier_file(path, request)
    recorded = recorded_marks(earlier) if earlier else None
    if recorded and not recorded.inodes.any():  # they were found to change by themselves
        marks.inodes[:] = 0
    return Inventory(
        request=request,
        path=path,
        earlier=earlier,
        sizes=facts.sizes.copy(),
        mtimes=facts.mtimes.copy(),
        marks=marks,
        notes=(
            *request.images.notes,
            *filter(None, (note, damage)),
            *_backbone_notes(request.backbone),
        ),
    )


def encoded_paths(images: ImageSet) -> np.ndarray:
    """(N,) bytes: the images' paths relative to the data set's root, as the feature file stores them."""
    return np.array([os.fsencode(path) for path in images.paths])


def count_unversioned(inventory: Inventory, file: FeatureFile) -> int:
    """The number of images that each run reads, since nothing else tells whether they have changed.

    Args:
        inventory: the state of the disk.
        file: the feature file; images that could not be read are tried again anyway.
    """
    return int(((inventory.marks.ctimes == UNKNOWN) & file.keys.any(axis=1)).sum())


def unversioned(count: int) -> Iterator[str]:
    """A note on the images that ``count_unversioned`` counts."""
    if count:
        have, they, their = ("has", "it lies", "its bytes") if count == 1 else ("have", "they lie", "their bytes")
        yield (
            f"{counted(count, 'image')} {have} no ETag or other version where {they}, so each run reads {their} to see whether "
            "they have changed; only bytes that are new go through the network"
        )


def _backbone_notes(backbone: Backbone) -> Iterator[str]:
    if backbone.weights == "random":
        yield f"{backbone.name} has random weights: a baseline, not a pretrained network"
    if len(backbone.views) > 2 and backbone.transform.resize == min(backbone.transform.size):
        yield (
            f"images are resized to {backbone.transform.resize} pixels and the crop takes all of them: the corner views differ "
            "along the longer side only; a larger --resize gives them room"
        )


def _earlier_file(path: Path, request: Request) -> tuple[FeatureFile | None, str]:
    """Open the complete file that is to be replaced: None if there is none, or a damaged shard; and a note about the latter.

    A shard has a name that only featx gives, and no other name can be given to it, so a damaged one is made again.
    """
    backbone = request.backbone
    try:
        file = FeatureFile(path)
    except CacheMissError:
        return None, ""
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{error}. It is not overwritten; {request.way_out}") from error
    except CorruptFileError as error:  # it may be somebody's only copy of something else
        if request.shard and is_lost(path, error):
            return None, f"{error}. It is made again"
        raise type(error)(f"{error}. It is not overwritten; {request.way_out}") from error
    if not file.holds(backbone.identities):
        parts = differences(file.backbone["parts"], backbone.describe())
        raise StaleCacheError(
            f"{path} holds other features ({'; '.join(parts) or 'other layers: ' + ', '.join(file.layers)}); {request.way_out}"
        )
    return file, ""
