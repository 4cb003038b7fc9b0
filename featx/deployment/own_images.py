"""The images that a model was fitted to and judged on, found again for the proof of an export and for its accuracy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featx.data.boxes import Box
from featx.data.decode import MAX_PIXELS, with_pixels
from featx.data.joint_pixels import read_all_views
from featx.data.joint_transform import AnyTransform, parts_of, whole_images
from featx.data.known_image import read_known_image
from featx.data.loader import in_order
from featx.data.places import is_remote
from featx.data.scan import scan_images
from featx.data.scan_options import ScanOptions
from featx.data.transform import channels
from featx.errors import ExportError, FeatxError, HeadError, ImageError
from featx.features.feature_set import FeatureSet
from featx.features.file_marks import is_own
from featx.heads.asked_groups import default_split
from featx.heads.groups import match_groups
from featx.heads.own_features import features_in, files_for
from featx.heads.seen import with_splits_of_head
from featx.inference import HeadOnBackbone, Model, with_keys
from featx.layer_spec import View
from featx.system import cores


class DecodedImage(NamedTuple):
    """One image of the data set.

    Attributes:
        row: its row of ``OwnImages.features``.
        pixels: (H, W, 3) uint8, decoded at full size, as the whole model takes it.
        views: (V, C, h, w) uint8, as featx itself makes them of the file.
    """

    row: int
    pixels: np.ndarray
    views: np.ndarray


@dataclass(frozen=True, eq=False)
class OwnImages:
    """The images of a model's data set.

    Attributes:
        features: their paths, labels, splits and keys, without features.
        split: the split that judges the model.
        transform: how an image becomes the network's input; JPEGs are decoded whole.
        views: the views of each image.
        folders: places besides that of the data set in which images may lie.
        is_own: whether this user's featx has read them before, so that it may ask other machines for them.
        workers: threads that read and decode.
    """

    features: FeatureSet
    split: str
    transform: AnyTransform
    views: tuple[View, ...]
    folders: tuple[str, ...]
    is_own: bool
    workers: int

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        features: str | os.PathLike[str] | None = None,
        folders: Sequence[str] = (),
        workers: int | None = None,
    ) -> OwnImages:
        """Find the images of a model's data set.

        Args:
            model: a head on its backbone, or a promoted model.
            features: the feature file of its data set; by default the one that a head was fitted to, if it is still there.
            folders: folders in which the images may lie; where the data set is gone, the images of the first one that has any.
            workers: threads that read and decode; by default one per core.

        Raises:
            ExportError: no images are found.
        """
        faults: list[str] = []
        places: tuple[Callable[[], tuple[FeatureSet | None, bool]], ...] = (
            lambda: _from_file(model, features),
            lambda: _from_root(model),
            lambda: _from_folders(folders),
        )
        for find in places:
            try:
                found, own = find()
            except FeatxError as error:
                if features is not None and not faults:
                    raise
                faults.append(str(error))
                continue
            if found is not None and len(found):
                return cls._judged(model, found, folders, own=own, workers=workers or cores())
        why = f" ({faults[-1 if folders else 0]})" if faults else ""  # the folders that were named come last
        raise ExportError(
            f"the images of this model's data set are not found{why}, and an export is compared with featx on 64 of them "
            "before it is written; name a folder of such images with --images"
        )

    @classmethod
    def _judged(cls, model: Model, found: FeatureSet, folders: Sequence[str], *, own: bool, workers: int) -> OwnImages:
        """With the splits that the model was fitted and judged by."""
        if isinstance(model, HeadOnBackbone):
            group, task, seen = model.head.group_, model.head.task_, model.head.seen
        else:
            group, task = model.metadata["head"]["parameters"].get("group"), "classification"
            seen = model.seen
        try:
            found, _ = with_splits_of_head(match_groups(found, group), task, seen)
        except FeatxError:  # the table of the groups is gone, or the images are others: then any of them will do
            found = dataclasses.replace(found, splits=np.full(len(found), "all", dtype=object))
        try:
            split = default_split(found, seen)
        except HeadError:  # no image has a label
            split = "all"
        transform = whole_images(model.transform)
        return cls(found, split, transform, model.views, tuple(folders), own, workers)

    def rows(self, split: str) -> np.ndarray:
        """(n,) int64, the rows of one split, with labels or not; "all" are all."""
        return np.flatnonzero(self.features.splits == split) if split != "all" else np.arange(len(self.features))

    def spread(self, split: str, count: int) -> np.ndarray:
        """At most so many rows, spread over a split and then, where it has too few, over all others."""
        rows = self.rows(split)
        chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
        others = np.setdiff1d(np.arange(len(self.features)), rows)
        lack = min(count - len(chosen), len(others))
        more = others[np.linspace(0, len(others) - 1, lack).astype(np.int64)] if lack else others[:0]
        return np.concatenate([chosen, more])

    def read(self, rows: Iterable[int]) -> Iterator[DecodedImage | str]:
        """Decode images, in order, in threads that work ahead; of one that cannot be read, why."""

        def one(row: int) -> DecodedImage | str:
            try:
                file = read_known_image(
                    str(self.features.dataset.get("root", "")), str(self.features.paths[row]),
                    self.features.keys[row].tobytes(), also=self.folders, own=self.is_own,
                )  # fmt: skip
                views = read_all_views(file.data, self.transform, self.views, box=file.box)
                return DecodedImage(row, full_pixels(file.data, self.transform, file.box), views)
            except ImageError as error:
                return f"{self.features.paths[row]}: {error}"

        yield from in_order(map(int, rows), one, workers=self.workers)


def full_pixels(data: bytes, transform: AnyTransform, box: Box | None = None) -> np.ndarray:
    """Decode an image as a whole model takes it: (H, W, 3) uint8, RGB and upright; of a network that reads bands, those."""
    first = parts_of(transform)[0]  # of several networks, all take the same decoded pixels; see ``JointPreprocess``
    wide = first.shown if first.channels == 1 else first
    return with_pixels(
        data,
        wide,
        lambda pixels: np.ascontiguousarray(channels(pixels)[..., : wide.channels]),
        max_pixels=MAX_PIXELS,
        box=box,
    )


def _from_file(model: Model, features: str | os.PathLike[str] | None) -> tuple[FeatureSet | None, bool]:
    """The images of a feature file."""
    if isinstance(model, HeadOnBackbone):
        files = files_for(model.head, features)
        if not files:
            return None, False
        file = files[0]
        found = features_in(model.head, files, labelled=False)
        model.head.require_identity(found)
    elif features is None:
        return None, False
    else:
        file = Path(features)
        found = FeatureSet.load(file)
    return found.without_features(np.arange(len(found))), is_own(file)


def _from_root(model: Model) -> tuple[FeatureSet | None, bool]:
    """The images where the data set lies."""
    dataset: dict[str, Any] = (
        model.head.dataset_ if isinstance(model, HeadOnBackbone) else model.metadata.get("dataset", {})
    )
    place = dataset.get("table") or dataset.get("root")
    if not place or is_remote(str(place)):  # a model may come from a stranger, for whom no request is sent
        return None, False
    return with_keys(scan_images(str(place), ScanOptions.of_dataset(dataset))), False


def _from_folders(folders: Sequence[str]) -> tuple[FeatureSet | None, bool]:
    """The images of the first folder that has any."""
    fault: FeatxError | None = None
    for folder in folders:
        try:
            return with_keys(scan_images(folder)), True
        except FeatxError as error:
            fault = fault or error
    if fault is not None:
        raise fault
    return None, False
