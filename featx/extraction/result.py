"""The result of an extraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featx.arguments import names_of
from featx.features.feature_set import FeatureSet
from featx.layer_spec import PENULTIMATE, LayerSpec

_MOST_NAMED = 10
"""Failed images that are listed by name."""

_COUNTS = ("images", "computed", "reused", "failed", "removed")


@dataclass(frozen=True)
class Extraction:
    """What one call of ``extract`` did, and the feature file that it leaves.

    Attributes:
        file: the feature file.
        images: rows in the file, one per image.
        computed: images that went through the network.
        reused: images whose features were copied: from a feature file in the folder, or from an identical image of this run.
        failed: images that could not be read or decoded, or whose features are not finite.
        removed: images of the previous file that are no longer in the data set.
        seconds: wall time.
        layers: width D of each requested layer.
        views: the requested set of views (test-time augmentation, TTA): "plain", "flip" or "10crop".
        identity: SHA-256, in hex, over everything that determines the features of all layers in the file.
        dataset: the data set's name.
        backbone: the backbone's name and weights.
        engine: the engine that ran the network; "" if nothing was computed.
        failures: (path, reason) of each failed image.
        notes: what else the user should know, one sentence each.
        stages: on a cluster, the images per second of one worker of each stage: "decode", "encode" and "write"; else empty.

    Examples:
        >>> result = Extraction(
        ...     file=Path("cache/pets--resnet50.h5"), images=800, computed=200, reused=599, failed=1, removed=0,
        ...     seconds=4.0, layers={"penultimate": 2048}, views="plain", identity="ab12", dataset="pets",
        ...     backbone="resnet50, default weights", failures=(("cat/7.jpg", "the file is empty"),),
        ... )
        >>> result.images_per_second
        200.0
        >>> result.remarks
        ('cat/7.jpg: the file is empty',)
    """

    file: Path
    images: int
    computed: int
    reused: int
    failed: int
    removed: int
    seconds: float
    layers: dict[str, int]
    views: str
    identity: str
    dataset: str
    backbone: str
    engine: str = ""
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        """All images, computed or not, divided by the wall time."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, then the first ten failed images with their reasons, then the number of further ones."""
        left = len(self.failures) - _MOST_NAMED
        more = (f"and {left} more failed (featx info --failed {self.file} lists them)",) if left > 0 else ()
        return (*self.notes, *(f"{path}: {error}" for path, error in self.failures[:_MOST_NAMED]), *more)

    def load(self, layer: str | Sequence[str] = PENULTIMATE) -> FeatureSet:
        """Load the features of one layer, or of several side by side, in all requested views.

        Args:
            layer: as ``LayerSpec.parse`` takes it: ``penultimate``, ``layer3,penultimate``, ``penultimate@flip``; or a list of
                layers.

        Returns:
            The features, (N, D), or (N, V, D) in V views, with labels, splits and paths.

        Raises:
            CacheMissError: the file has no such layer.
            CorruptFileError: rows do not match their checksums.
        """
        return FeatureSet.load(self.file, str(LayerSpec.parse(",".join(names_of(layer, "layer")), self.views)))

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``featx extract --json`` prints."""
        return {
            "file": str(self.file),
            **{name: getattr(self, name) for name in _COUNTS},
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
            "layers": self.layers,
            "views": self.views,
            "identity": self.identity,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "engine": self.engine,
            "failures": [{"path": path, "error": error} for path, error in self.failures],
            "notes": list(self.notes),
            **({"stages": {stage: round(rate, 1) for stage, rate in self.stages.items()}} if self.stages else {}),
        }
