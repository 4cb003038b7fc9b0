"""Images to embeddings: decoded pixels in batches through an engine, in order, a bounded number ahead."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import torch

from featx.backbones.backbone import Backbone, split_views
from featx.data.augment import read_random_view
from featx.data.decode import MAX_PIXELS
from featx.data.loader import LoadedImage, PixelReader, Workers, batched, read_images, views_reader
from featx.data.nvjpeg import coded_reader, pixels_on
from featx.data.store import ImageFile
from featx.extraction.engines import Engine
from featx.features.file_set import Features
from featx.features.image_store import image_store
from featx.layer_spec import RandomView, View


def pixel_reader(backbone: Backbone, max_pixels: int) -> PixelReader:
    """Return the function that decodes an image file for a backbone, for use by ``read_images``.

    Returns:
        A function of a row and the file's bytes. It returns (V, 3, crop, crop) uint8, the image in the backbone's V views;
        for nvJPEG the coded bytes, which the GPU decodes.
    """
    transform, (view, *_) = backbone.transform, backbone.views
    if isinstance(view, RandomView):
        return lambda _row, file: read_random_view(file.data, transform, view, max_pixels=max_pixels, box=file.box)[
            None
        ]
    reader = coded_reader if transform.decoding == "nvjpeg" else views_reader
    return reader(transform, _fixed_views(backbone), max_pixels=max_pixels)


def stacked_pixels(images: Sequence[LoadedImage], backbone: Backbone) -> torch.Tensor:
    """(B x V, 3, crop, crop) uint8, the views of an image one after the other: on the CPU, or on the GPU that decodes them."""
    pixels = [image.pixels for image in images if image.pixels is not None]
    if backbone.transform.decoding == "nvjpeg" and backbone.device.type == "cuda":
        return pixels_on(backbone.device, pixels, backbone.transform, _fixed_views(backbone))
    return torch.from_numpy(np.concatenate(pixels))


def encoded_batches(
    engine: Engine, backbone: Backbone, images: Iterator[LoadedImage], pool: Workers
) -> Iterator[tuple[list[LoadedImage], dict[str, np.ndarray]]]:
    """Send images through an engine in batches.

    On the CPU the threads of ``pool``, one per core, both decode and run the network, one pass on one core each. Whichever
    thread is free does what comes next, so that no core waits and none is oversubscribed. A device gets threads of its own,
    each with its own stream, so that copies overlap with kernels; so does an engine that takes one pass at a time.

    Args:
        engine: as ``open_engine`` returns it.
        backbone: gives the views.
        images: decoded images.
        pool: the threads that decode them.

    Yields:
        B images, and (B, D) of each layer in each view, in the order of ``images``.
    """

    def encode(batch: Sequence[LoadedImage]) -> dict[str, np.ndarray]:
        return split_views(engine(stacked_pixels(batch, backbone)), backbone.views)

    with contextlib.ExitStack() as own:
        shared = engine.on_cpu and engine.lanes == pool.count
        runners = pool if shared else own.enter_context(Workers(engine.lanes, meter=pool.meter))
        running: deque[tuple[list[LoadedImage], Future[dict[str, np.ndarray]]]] = deque()
        try:
            for batch in batched(images, max(1, engine.portion // len(backbone.views))):
                running.append((batch, runners.start("forward", encode, batch)))
                if len(running) > 2 * runners.count:
                    done, features = running.popleft()
                    yield done, features.result()
            for done, features in running:
                yield done, features.result()
        finally:
            for _, features in running:
                features.cancel()


def encode_images(
    cache: Features, rows: np.ndarray, count: int, backbone: Backbone
) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """Compute the features of images of a feature file again, by the backbone alone, without an engine.

    Args:
        cache: the file.
        rows: its rows that may be taken, in this order.
        count: how many of them to take.
        backbone: a backbone of the file's identity.

    Returns:
        (M,) int64, rows whose image is unchanged, M at most ``count``; (M, D) features of each layer; and the number of rows
        that were skipped because their image is missing or has changed.
    """
    store, limit = image_store(cache.dataset, cache.paths, cache.path), cache.dataset.get("max_pixels", MAX_PIXELS)
    files = ((int(row), ImageFile(store, os.fsdecode(cache.images.paths[row]))) for row in rows)
    reader = views_reader(backbone.transform, _fixed_views(backbone), max_pixels=limit)
    taken: list[int] = []
    by_layer: dict[str, list[np.ndarray]] = {layer: [] for layer in backbone.layers}
    changed = 0
    for image in read_images(files, reader, workers=1):
        if image.pixels is None or image.key != cache.keys[image.row].tobytes():
            changed += 1
            continue
        taken.append(image.row)
        for layer, vector in backbone.encode_views(image.pixels[None]).items():
            by_layer[layer].append(vector)
        if len(taken) == count:
            break
    features = {layer: np.concatenate(vectors) for layer, vectors in by_layer.items() if vectors}
    return np.array(taken, dtype=np.int64), features, changed


def _fixed_views(backbone: Backbone) -> list[View]:
    """The backbone's views other than random crops."""
    return [view for view in backbone.views if isinstance(view, View)]
