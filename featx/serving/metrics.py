"""What a service counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from featx.serving.batcher import Meter

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The media type of ``Metrics.text``."""

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

PREDICTED, REJECTED, FAILED = "predicted", "rejected", "failed"
"""What became of an image: a prediction, none because no class is probable enough, or an error."""


class Metrics:
    """The metrics of one service, in a registry of its own.

    Args:
        facts: of the model, as ``model_facts`` gives them.
        queued: the number of images that wait.
        held: the number of bytes of bodies in memory.
    """

    def __init__(self, facts: Mapping[str, Any], *, queued: Callable[[], float], held: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        model = Info("featx_model", "The model.", registry=registry)
        model.info(
            {key: str(facts[key]) for key in ("name", "kind", "task", "backbone", "identity", "featx", "engine")}
        )
        self.requests = Counter("featx_requests", "Answered requests.", ("path", "status"), registry=registry)
        self.seconds = Histogram(
            "featx_request_seconds",
            "Seconds from the head of a request for predictions to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter("featx_images", "Images, by what became of them.", ("result",), registry=registry)
        self._batch = Histogram(
            "featx_batch_images", "Images that were computed together.", buckets=_IMAGES, registry=registry
        )
        self._decode = Histogram(
            "featx_decode_seconds", "Seconds to decode and resize an image.", buckets=_SECONDS, registry=registry
        )
        self._compute = Histogram(
            "featx_compute_seconds", "Seconds to compute a batch.", buckets=_SECONDS, registry=registry
        )
        for name, text, value in (
            ("featx_queued_images", "Images that wait to be decoded.", queued),
            ("featx_held_bytes", "Bytes of request bodies in memory.", held),
        ):
            Gauge(name, text, registry=registry).set_function(value)
        for result in (PREDICTED, REJECTED, FAILED):  # a counter that is there from the start can be asked for its rate
            self.images.labels(result)

    @property
    def meter(self) -> Meter:
        """What a batcher is given."""
        return Meter(self._batch.observe, self._decode.observe, self._compute.observe)

    def text(self) -> bytes:
        """All metrics as Prometheus reads them."""
        return bytes(generate_latest(self._registry))
