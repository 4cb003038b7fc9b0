"""A device that runs out of memory gets smaller batches, and no image is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_networks import NOT_EVEN_ONE, assert_close, pixels_for, replace_maker, require
from torch import Tensor

from featx.backbones.backbone import Backbone
from featx.errors import EngineError
from featx.extraction.engines import Engine, Runner, open_engine
from featx.extraction.pipeline import extract
from featx.extraction.torch_engines import make_eager


class Device:
    """A stand-in for a device whose memory holds so many images."""

    def __init__(self, backbone: Backbone, room: int) -> None:
        self.backbone, self.room = backbone, room
        self.sizes: list[int] = []

    def run(self, pixels: Tensor) -> list[np.ndarray]:
        self.sizes.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(self.backbone.encode(pixels).values())

    def engine(self, batch: int, lanes: int = 1) -> Engine:
        return Engine("eager", self.backbone, self.run, batch=batch, portion=batch, lanes=lanes)


def test_a_device_without_memory_gets_half_as_many_images_and_loses_none(lenet: Backbone) -> None:
    device = Device(lenet, room=3)
    engine = device.engine(batch=16)
    pixels = pixels_for(lenet, 11)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert engine.batch == 2
    assert device.sizes == [16, 8, 4, 2, 2, 2, 2, 2, 2]
    device.sizes.clear()
    assert_close(engine(pixels[:3]), lenet.encode(pixels[:3]))
    assert device.sizes == [2, 2]  # remembered


def test_memory_that_ends_half_way_loses_no_image(lenet: Backbone) -> None:
    device = Device(lenet, room=8)
    engine = device.engine(batch=8)
    run = engine.runner

    def shrinking(pixels: Tensor) -> list[np.ndarray]:
        found = run(pixels)
        device.room = 4
        return list(found)

    engine.runner = shrinking
    pixels = pixels_for(lenet, 19)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert (device.sizes, engine.batch) == ([8, 8, 4, 4, 4], 4)


def test_lanes_that_run_out_of_memory_together_halve_once(lenet: Backbone) -> None:
    device, together = Device(lenet, room=4), threading.Barrier(4)
    engine = device.engine(batch=8, lanes=4)
    run, running = engine.runner, threading.Lock()

    def run_together(pixels: Tensor) -> Sequence[np.ndarray]:
        if len(pixels) == 8:
            together.wait(20)
        with running:  # encode is for one thread at a time
            return run(pixels)

    engine.runner = run_together
    pixels = pixels_for(lenet, 6)
    wanted = lenet.encode(pixels)
    with ThreadPoolExecutor(4) as pool:
        for found in [pool.submit(engine, pixels) for _ in range(4)]:
            assert_close(found.result(), wanted)
    assert engine.batch == 4
    assert sorted(device.sizes) == [4] * 8 + [8] * 4


def test_a_lane_that_runs_out_of_memory_late_does_not_undo_what_others_learned(lenet: Backbone) -> None:
    device = Device(lenet, room=2)
    engine = device.engine(batch=8)
    run = engine.runner

    def late(pixels: Tensor) -> Sequence[np.ndarray]:
        if len(pixels) == 8:
            engine.batch = 2  # another lane, meanwhile
        return run(pixels)

    engine.runner = late
    pixels = pixels_for(lenet)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert device.sizes == [8, 2, 2, 2]


def test_a_device_that_holds_no_image_is_an_error(lenet: Backbone) -> None:
    device = Device(lenet, room=0)
    engine = device.engine(batch=4)
    with pytest.raises(EngineError, match=NOT_EVEN_ONE):
        engine(pixels_for(lenet))
    assert device.sizes == [4, 2, 1]
    assert engine.batch == 1


def limit_memory(monkeypatch: pytest.MonkeyPatch, room: Callable[[], int]) -> None:
    """The eager engine has memory for so many images at once."""

    def limited(*arguments: Any) -> Runner:
        run = make_eager(*arguments)

        def run_limited(pixels: Tensor) -> Sequence[np.ndarray]:
            if len(pixels) > room():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(pixels)

        return run_limited

    replace_maker(monkeypatch, "eager", limited)


def test_an_extraction_goes_on_with_less_memory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenet: Backbone
) -> None:
    wanted = extract(photos, lenet, cache=tmp_path / "whole").load()
    left = iter([8] * 5)
    limit_memory(monkeypatch, lambda: next(left, 3))
    found = extract(photos, lenet, cache=tmp_path / "cache", batch_size=8, workers=3).load()
    np.testing.assert_allclose(found.features, wanted.features, rtol=1e-4, atol=1e-5)


def test_a_network_that_does_not_fit_is_an_engine_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenet: Backbone
) -> None:
    limit_memory(monkeypatch, lambda: 0)
    with pytest.raises(EngineError, match=NOT_EVEN_ONE):
        extract(photos, lenet, cache=tmp_path / "cache", compute="eager")


def test_memory_that_ends_for_good_is_an_engine_error_and_what_is_done_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenet: Backbone
) -> None:
    left = iter([8] * 3)
    with monkeypatch.context() as patch:
        limit_memory(patch, lambda: next(left, 0))
        with pytest.raises(EngineError, match=NOT_EVEN_ONE):
            extract(photos, lenet, cache=tmp_path / "cache", batch_size=8, workers=1)
    result = extract(photos, lenet, cache=tmp_path / "cache")
    assert (result.images, result.failed) == (40, 0)
    assert result.reused > 0


def test_a_compiled_network_may_be_given_smaller_batches(lenet: Backbone) -> None:
    require("compile")
    engine = open_engine("compile", lenet, batch=4)
    run = engine.runner

    def limited(pixels: Tensor) -> Sequence[np.ndarray]:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(pixels)

    engine.runner = limited
    pixels = pixels_for(lenet)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert engine.batch == 2
