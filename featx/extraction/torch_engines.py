"""The engines of torch: eager, and torch.compile."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featx.backbones.backbone import Backbone
from featx.extraction.engines import Runner
from featx.extraction.network_copy import NetworkCopy, blank_images


def make_eager(network: NetworkCopy, backbone: Backbone, _batch: int, _lanes: int) -> Runner:
    """Run the network by torch itself, in a copy for each lane that shares the weights."""
    encoder = network.encoder().laid_out()
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*encoder.parameters(), *encoder.buffers())}
    lanes, copying = threading.local(), threading.Lock()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        # Modules of each lane's own, on the same weights: a network may keep state in itself while it runs.
        if not hasattr(lanes, "encoder"):
            with copying:
                lanes.encoder = copy.deepcopy(encoder, dict(shared)).eval()
        outputs: tuple[Tensor, ...] = lanes.encoder(images)
        return outputs

    return _on_device(run, backbone.device)


def make_compiled(network: NetworkCopy, backbone: Backbone, _batch: int, _lanes: int) -> Runner:
    """Run the network by torch.compile: one program for each size of batch, since a device short of memory gets half."""
    encoder = network.encoder().laid_out()
    programs: dict[int, Callable[[Tensor], tuple[Tensor, ...]]] = {}
    compiling = threading.Lock()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        size = len(images)
        with compiling:
            if size not in programs:
                with torch.inference_mode(False), torch.no_grad():
                    example = (blank_images(backbone, size).to(backbone.device),)
                    program = torch.export.export(encoder, example, strict=False)
                programs[size] = torch.compile(program.module(), options={"freezing": True})
        return programs[size](images)

    return _on_device(run, backbone.device)


def _on_device(encoder: Callable[[Tensor], tuple[Tensor, ...]], device: torch.device) -> Runner:
    """Wrap a torch function with the copies to the device and back; on CUDA with a stream for each lane."""
    streams = threading.local()
    if device.type == "cuda":  # the weights are there before another stream reads them
        torch.cuda.synchronize(device)

    def run(pixels: Tensor) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            return [rows.cpu().numpy() for rows in encoder(pixels.to(device))]

    def run_on_cuda(pixels: Tensor) -> Sequence[np.ndarray]:
        # Each lane has its own stream, so that its copies overlap with the kernels of another lane.
        if not hasattr(streams, "own"):
            streams.own = torch.cuda.Stream(device)
        streams.own.wait_stream(torch.cuda.current_stream(device))  # on which the GPU may have decoded the images
        with torch.inference_mode(), torch.cuda.stream(streams.own):
            images = pixels if pixels.is_cuda else pixels.pin_memory().to(device, non_blocking=True)
            outputs = [rows.to("cpu", non_blocking=True) for rows in encoder(images)]
            streams.own.synchronize()
        return [rows.numpy() for rows in outputs]

    return run_on_cuda if device.type == "cuda" else run
