"""A promoted model that predicts rows of features from their images, so that it can be compared with heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads.postprocess import Postprocess, softmax
from featx.heads.seen import SeenImages
from featx.promotion.distributed import ProcessGroup
from featx.promotion.image_data import ImageData
from featx.promotion.model import PromotedModel
from featx.system import cores


@dataclass(frozen=True, eq=False)
class PromotedOnImages:
    """A promoted model with the attributes of a fitted head that a comparison needs.

    Attributes:
        model: The model.
        workers: Threads that read and decode images; None: one per core.
        task_: A promoted model is a classifier.
        thresholds_: None, as of every classifier.
    """

    model: PromotedModel
    workers: int | None = None
    task_: str = "classification"
    thresholds_: np.ndarray | None = None

    @property
    def names_(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.model.classes

    @property
    def postprocess_(self) -> Postprocess:
        """What decides about probabilities."""
        offset = np.zeros(len(self.model.classes))
        return Postprocess(
            self.task_, 1.0, offset, reject_below=self.model.reject_below, conformal=self.model.conformal_
        )

    @property
    def seen(self) -> SeenImages:
        """The content hashes of the images that the model has seen."""
        return self.model.seen

    @property
    def group_(self) -> str | None:
        """The column of the groups that its head was fitted with, or None."""
        group: str | None = self.model.metadata["head"]["parameters"].get("group")
        return group

    def decide(self, p: np.ndarray) -> str | None:
        """The most probable class of (C,) probabilities, or None."""
        return self.model.decide(p)

    def predict_rows(self, features: FeatureSet, rows: np.ndarray) -> np.ndarray:
        """Run the network on the images of some rows, whose features it does not need.

        Args:
            features: The images: their paths, content hashes and data set.
            rows: (n,) int64.

        Returns:
            (n, C) float64 probabilities, averaged over the views as ``predict`` does.

        Raises:
            DatasetError, StaleCacheError: An image cannot be read, or has changed since its features were extracted.
        """
        model = self.model
        data = ImageData(
            features,
            features.labels,
            model.classes,
            model.transform,
            model.device,
            self.workers or cores(),
            ProcessGroup(),
        )
        return softmax(data.logits(model.network, rows, model.views))
