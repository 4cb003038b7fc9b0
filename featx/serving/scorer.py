"""A model as one function from pixels to outputs, run by the engine that extraction would use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from featx.backbones.backbone import Backbone, split_views
from featx.data.joint_transform import AnyTransform
from featx.data.transform import Transform
from featx.errors import EngineError, FeatxError
from featx.extraction.autotune import AUTO, choose_engine
from featx.extraction.engine_table import ENGINES
from featx.extraction.engines import Engine, one_thread_each, open_engine
from featx.extraction.network_copy import noise_images
from featx.heads.postprocess import softmax
from featx.heads.training_data import mean_over_views
from featx.identity import features_at
from featx.inference import HeadOnBackbone, Model
from featx.layer_spec import View
from featx.promotion.model import PromotedModel
from featx.reporter import SILENT, Reporter
from featx.system import cores

CPU_IMAGES = 4
"""Images that a thread on the CPU takes at once; each has a pass of its own, and the head computes them together."""

DEVICE_IMAGES = (1, 8, 64)
"""Sizes of a pass on a GPU; fewer images than a size are padded to it."""

_LOGITS_TOLERANCE = 1e-4
"""The largest difference between logits of an engine and of a promoted model itself, relative to the largest logit (or 1)."""

_ALWAYS_PAYS = 1 << 30
"""Images that a service expects, so that measuring the engines once always pays."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """A model that is ready to compute.

    Attributes:
        transform: from an image's pixels to the network's input.
        views: the V views of each image.
        compute: from (B, V, C, H, W) uint8 to the (B, K) float64 outputs of ``predict_values``; from several threads at once.
        images: images that a thread should hand over at once, at most.
        threads: threads that decode.
        runners: threads that compute; 0: those that decode compute as well.
        engine: what runs the network, by name.
        notes: sentences for the user.
    """

    transform: AnyTransform
    views: Sequence[View]
    compute: Callable[[np.ndarray], np.ndarray]
    images: int
    threads: int
    runners: int
    engine: str
    notes: tuple[str, ...] = ()


def open_scorer(
    model: Model, *, compute: str = AUTO, workers: int | None = None, reporter: Reporter = SILENT
) -> Scorer:
    """Prepare a model: choose what runs its network, and run it once.

    Args:
        model: a head on its backbone, or a promoted model.
        compute: "auto" for the fastest engine, as extraction measures and remembers it, or a name in ``ENGINES``.
        workers: threads that decode and, on a CPU, run the network; by default one per core.
        reporter: gets a note before engines are measured.

    Raises:
        EngineError: there is no such engine, or it cannot run the network.
    """
    if compute not in (AUTO, *ENGINES):
        raise EngineError(f"compute is {compute!r}; expected auto, {', '.join(ENGINES)}")
    threads = workers or cores()
    if isinstance(model, HeadOnBackbone):
        engine, notes = _opened(model.backbone, compute, threads, reporter)
        scorer = _scorer(model, engine, threads, lambda pixels: _head_values(model, engine, pixels), notes)
    else:
        scorer = _promoted(model, compute, threads, reporter)
    with one_thread_each():
        scorer.compute(np.zeros((1, len(scorer.views), *scorer.transform.shape), dtype=np.uint8))
    return scorer


def _opened(backbone: Backbone, compute: str, threads: int, reporter: Reporter) -> tuple[Engine, tuple[str, ...]]:
    """An engine whose passes take one image on a CPU, so that no image waits for another or depends on it."""
    on_cpu = backbone.device.type == "cpu"
    lanes, sample = threads if on_cpu else 1, noise_images(backbone)
    if on_cpu and compute != AUTO:
        return open_engine(compute, backbone, lanes=lanes, batch=1, sample=sample), ()
    chosen = choose_engine(compute, backbone, sample, images=_ALWAYS_PAYS, lanes=lanes, reporter=reporter)
    engine = chosen.engine
    if on_cpu and engine.batch != 1:
        engine = open_engine(engine.name, backbone, lanes=lanes, batch=1, sample=sample)
    return engine, (chosen.note,) if chosen.note else ()


def _scorer(
    model: Model,
    engine: Engine,
    threads: int,
    compute: Callable[[np.ndarray], np.ndarray],
    notes: tuple[str, ...],
) -> Scorer:
    shared = engine.on_cpu and engine.lanes == threads
    most = CPU_IMAGES if engine.on_cpu else DEVICE_IMAGES[-1]
    images = max(1, most // len(model.views))
    runners = 0 if shared else engine.lanes
    return Scorer(model.transform, model.views, compute, images, threads, runners, engine.name, notes)


def _features(engine: Engine, backbone: Backbone, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """(B, V, C, H, W) uint8 to (B, D) of each stored layer, in passes of the least size that fits."""
    rows = pixels.reshape(-1, *pixels.shape[2:])
    if not engine.on_cpu and engine.batch >= DEVICE_IMAGES[-1]:  # else it ran out of memory, and has halved its batch
        size = next((size for size in DEVICE_IMAGES if size >= len(rows)), engine.batch)
        engine = engine.in_passes_of(size)
    return split_views(engine(rows), backbone.views)


def _head_values(model: HeadOnBackbone, engine: Engine, pixels: np.ndarray) -> np.ndarray:
    by_name = _features(engine, model.backbone, pixels)
    return model.head.predict_values(features_at(by_name, model.head.layer_))


def _promoted(model: PromotedModel, compute: str, threads: int, reporter: Reporter) -> Scorer:
    """A promoted model in an engine where the engine gives its logits; else as it is, one pass at a time."""
    try:
        backbone, layer = _as_backbone(model)
        engine, notes = _opened(backbone, compute, threads, reporter)

        def logits(pixels: np.ndarray) -> np.ndarray:
            return _features(engine, backbone, pixels[:, None])[layer].astype(np.float64)

        _require_same_logits(model, logits, noise_images(backbone), engine.name)
    except FeatxError as error:
        if compute != AUTO:
            raise
        return _one_at_a_time(model, threads, f"the network runs in PyTorch, one pass at a time: {error}")

    def values(pixels: np.ndarray) -> np.ndarray:
        views = pixels.reshape(-1, *pixels.shape[2:])
        return softmax(mean_over_views(logits(views), pixels.shape[1]))

    return _scorer(model, engine, threads, values, notes)


def _as_backbone(model: PromotedModel) -> tuple[Backbone, str]:
    """The network of a promoted model as a backbone, of which the last layer's output is a layer; and that layer's name."""
    classifier = model.metadata["classifier"]
    backbone = Backbone(
        model.network,
        name=model.metadata["name"],
        weights="promoted",
        origin=model.metadata["origin"],
        transform=cast(Transform, model.transform),  # of several networks it has all that an engine reads
        classifier=classifier,
        layers=[classifier],
        dtype="float32",
        precision="float32",
        device=model.device,
    )
    return backbone, classifier


def _require_same_logits(
    model: PromotedModel, logits: Callable[[np.ndarray], np.ndarray], images: np.ndarray, engine: str
) -> None:
    expected, found = model.logits(images), logits(images)
    scale = max(1.0, float(np.abs(expected).max()))
    if expected.shape != found.shape or not np.abs(expected - found).max() <= _LOGITS_TOLERANCE * scale:
        raise EngineError(f"{engine} gives other logits than the promoted model")


def _one_at_a_time(model: PromotedModel, threads: int, note: str) -> Scorer:
    one_pass = threading.Lock()

    def values(pixels: np.ndarray) -> np.ndarray:
        with one_pass:
            return model.predict_values(pixels)

    most = max(1, (CPU_IMAGES if model.device.type == "cpu" else DEVICE_IMAGES[-1]) // len(model.views))
    return Scorer(model.transform, model.views, values, most, threads, 1, "eager", (note,))
