"""The images of a data set, read and decoded for a network, with their labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from featx.data.joint_transform import AnyTransform
from featx.data.loader import PixelReader, default_batch_size, read_images, views_reader
from featx.data.store import ImageFile
from featx.errors import DatasetError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.features.image_store import image_store
from featx.heads.postprocess import fit_temperature, softmax
from featx.heads.training_data import mean_over_views
from featx.layer_spec import PLAIN, View
from featx.metrics.classification import ClassificationReport
from featx.promotion.distributed import ProcessGroup
from featx.promotion.history import ValidationScore
from featx.promotion.model import logits_of

_IF_MOVED = (
    ". If the images were moved, run featx extract on their new folder or table, which takes the features from the cache, and "
    "name the feature file that it writes with --features"
)


@dataclass(frozen=True, eq=False)
class ImageData:
    """The images of a data set of N images and C classes, as inputs of a network.

    Attributes:
        features: The feature set of the same images: their paths, content hashes and splits.
        labels: (N,) int64 indices into ``classes``; -1 where an image has no label, or none that the head was fitted to.
        classes: C class names.
        transform: From the pixels of an image to those that the network takes.
        device: Device of the batches.
        workers: Number of threads that read and decode.
        processes: The processes that share the work.
    """

    features: FeatureSet
    labels: np.ndarray
    classes: tuple[str, ...]
    transform: AnyTransform
    device: torch.device
    workers: int
    processes: ProcessGroup

    def rows(self, split: str) -> np.ndarray:
        """Return the (R,) int64 rows of the labelled images of one split."""
        return np.flatnonzero((self.features.splits == split) & (self.labels >= 0))

    @property
    def labelled_rows(self) -> np.ndarray:
        """The (R,) int64 rows of the labelled images of the splits train, val and test."""
        return np.concatenate([self.rows(split) for split in ("train", "val", "test")])

    def batched(self, rows: np.ndarray, n_views: int = 1) -> list[np.ndarray]:
        """Cut rows into the batches, (B,) int64 each, that a network takes for inference on this device."""
        size = max(1, default_batch_size(self.device.type) // n_views)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def logits(self, network: nn.Module, rows: np.ndarray, views: Sequence[View] = (PLAIN,)) -> np.ndarray:
        """Run a network on some images; each process takes its shard of them.

        Args:
            network: Put in eval mode.
            rows: (R,) int64.
            views: The views of each image, whose logits are averaged.

        Returns:
            (R, C) float64, in all processes.
        """
        network.eval()
        batches = self.batched(self.processes.shard(rows), len(views))
        outputs = [
            mean_over_views(logits_of(network, pixels.flatten(0, 1), self.transform), len(views))
            for _, pixels in self.read(batches, views_reader(self.transform, views))
        ]
        return self.processes.gather(np.concatenate([np.empty((0, len(self.classes))), *outputs]))

    def score(self, rows: np.ndarray, logits: np.ndarray) -> ValidationScore:
        """Return accuracy and log loss of the (R, C) logits of some rows.

        A network that is trained on soon becomes too sure of itself, while it still gets better. One temperature makes up for
        that. So what is compared are log losses at the best temperature of each network.
        """
        raw, calibrated = (
            ClassificationReport.from_predictions(self.labels[rows], softmax(each), self.classes, split="validation")
            for each in (logits, logits / self.temperature(rows, logits))
        )
        return ValidationScore(raw.accuracy, calibrated.log_loss, raw.log_loss)

    def temperature(self, rows: np.ndarray, logits: np.ndarray) -> float:
        """Return the temperature that the (R, C) logits of some rows fit best at; 1 where logits are not finite."""
        return fit_temperature(logits, self.labels[rows]) if np.isfinite(logits).all() else 1.0

    def read(self, batches: Sequence[np.ndarray], decode: PixelReader) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Read batches of images, in threads that work ahead.

        Args:
            batches: (B,) int64 rows of each batch.
            decode: From a row and the bytes of its file to uint8 pixels, all of one shape.

        Yields:
            The rows of a batch and their (B, ...) uint8 pixels, on the device.

        Raises:
            DatasetError: An image cannot be read.
            StaleCacheError: An image has changed since its features were extracted.
        """
        store = image_store(self.features.dataset, self.features.paths, self.features.source)
        files = [(int(row), ImageFile(store, str(self.features.paths[row]))) for rows in batches for row in rows]
        images = read_images(files, decode, workers=self.workers)
        for rows in batches:
            batch = list(itertools.islice(images, len(rows)))
            for image in batch:
                file = ImageFile(store, str(self.features.paths[image.row]))
                if image.error:
                    raise DatasetError(f"{file.name}: {image.error}{'' if file.exists() else _IF_MOVED}")
                if image.key != self.features.keys[image.row].tobytes():
                    raise StaleCacheError(
                        f"{file.name} has changed since its features were extracted; run featx extract and featx fit-head again"
                    )
            pixels = torch.from_numpy(np.stack([image.pixels for image in batch if image.pixels is not None]))
            yield rows, pixels.to(self.device, non_blocking=True)
