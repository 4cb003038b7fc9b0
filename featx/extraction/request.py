"""The checked arguments of one extraction."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from featx.backbones.backbone import Backbone
from featx.backbones.identities import other_form
from featx.data.image_set import ImageSet
from featx.data.shard import Shard
from featx.errors import CacheMissError, CorruptFileError, DatasetError, EngineError
from featx.extraction.autotune import AUTO
from featx.extraction.cluster.connection import Connection
from featx.extraction.engine_table import ENGINES
from featx.features.folder import feature_file_path, shard_name
from featx.features.header import FeatureFileHeader, partial_path
from featx.text import portable


@dataclass(frozen=True)
class Request:
    """The arguments of ``extract``, with the data set scanned and the backbone loaded.

    Attributes:
        images: the N images.
        backbone: the network, with the requested layers and views.
        cache: the folder of feature files.
        out: the feature file, or None for one named after data set and backbone in ``cache``.
        compute: "auto", or a name in ``ENGINES``.
        batch_size: images per forward pass; "auto" measures it on a GPU, None leaves it to the engine.
        workers: threads that read and decode, and on the CPU run the network too.
        rehash: read every image and check every row, rather than trust the times of files.
        strict: stop at the first image that fails.
        max_pixels: an image with more pixels (width x height) fails.
        shard: the part of a data set that the images are, and what its feature file stores about it; or None.
        devices: devices that compute together, each in a process of its own; one or none: the backbone's alone.
        in_set: whether the images are a part of a data set whose features are kept in several files; ``out`` is one of them.
        ray: the cluster that reads, decodes and runs the network; or None for this process.

    Raises:
        EngineError: an argument is out of range, or the backbone's decoder needs another device.
    """

    images: ImageSet
    backbone: Backbone
    cache: Path
    out: Path | None
    compute: str
    batch_size: int | str | None
    workers: int
    rehash: bool
    strict: bool
    max_pixels: int
    shard: tuple[Shard, dict[str, Any]] | None = None
    devices: tuple[torch.device, ...] = ()
    in_set: bool = False
    ray: Connection | None = None

    def __post_init__(self) -> None:
        if self.compute not in (AUTO, *ENGINES):
            raise EngineError(f"compute is {self.compute!r}; expected one of {', '.join((AUTO, *ENGINES))}")
        size = self.batch_size
        if size is not None and size != AUTO and not (type(size) is int and size > 0):
            raise EngineError(f"batch_size is {size!r}; expected a whole number above 0, or auto")
        if self.workers < 1:
            raise EngineError(f"workers is {self.workers}; expected a number of threads above 0")
        if self.backbone.transform.decoding == "nvjpeg" and self.backbone.device.type != "cuda":
            raise EngineError(
                f"nvjpeg decodes on a CUDA GPU, and the backbone is on {self.backbone.device}; expected --device cuda"
            )
        if self.ray and self.backbone.transform.decoding == "nvjpeg":
            raise EngineError("nvjpeg decodes on the GPU, and with Ray images are decoded apart from it, on CPUs")
        if self.ray and self.devices:
            raise EngineError("devices are those of this machine, and ray names a cluster; expected one of them")
        if self.ray and size == AUTO:
            raise EngineError("batch_size auto measures the GPU of one machine; with Ray expected a number")

    def target(self) -> tuple[Path, str]:
        """The feature file to write, and a note if a damaged file occupies its usual name; "" if none does.

        The name depends on the files that are in the folder, so it may change while another process writes there.
        """
        if self.out is not None:
            return self.out, ""
        if self.shard is not None:
            return self.cache / shard_name(
                self.shard[0],
                self.images.name,
                portable(self.images.root),
                self.backbone.name,
                self.backbone.identities,
            ), ""
        return feature_file_path(
            self.cache,
            dataset=self.images.name,
            root=portable(self.images.root),
            backbone=self.backbone.name,
            identities=self.backbone.identities,
        )

    @property
    def known_in(self) -> Path:
        """The folder whose files, shards and sets may have features of the images."""
        if self.in_set and self.out is not None:
            return self.out.parent.parent
        return self.cache if self.shard else self.target()[0].parent

    @property
    def way_out(self) -> str:
        """What the user can do if the file must not be overwritten."""
        return "move it away, since a shard has no other name" if self.shard else "-o names another file"

    def as_stored(self) -> Request:
        """The request with the backbone in the form whose features its file holds; itself if it holds neither form's.

        Raises:
            UnreadableFileError: the system cannot read the file now, so it is not known what it holds.
        """
        for backbone in (self.backbone, other_form(self.backbone)):
            request = dataclasses.replace(self, backbone=backbone)
            path = request.target()[0]
            for file in (path, partial_path(path)):
                with contextlib.suppress(CacheMissError, CorruptFileError):
                    if FeatureFileHeader(file).holds(backbone.identities):
                        return request
        return self

    def strict_error(self, row: int, reason: str) -> DatasetError:
        """The error with which ``strict`` stops at a failed image."""
        return DatasetError(f"{self.images.file(row).name}: {reason}. --strict stops at the first image that fails")
