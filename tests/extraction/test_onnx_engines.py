"""ONNX Runtime and OpenVINO run an exported network."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_networks import Load, assert_close, pixels_for, require

from featx.backbones.backbone import Backbone
from featx.extraction import onnx_engines
from featx.extraction.engines import open_engine


def test_an_exported_network_may_take_for_granted_that_channels_come_first(own: Load) -> None:
    require("onnxruntime")
    backbone = own("viewing")
    pixels = pixels_for(backbone)
    assert_close(open_engine("onnxruntime", backbone)(pixels), backbone.encode(pixels))


@pytest.mark.parametrize(("most", "expected"), [(4_000_000_000, [0, 0]), (0, [2])])
def test_openvino_is_compiled_for_each_lane_or_once_where_copies_are_too_large(
    most: int, expected: list[int], own_home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("openvino")
    import openvino

    streams: list[int] = []
    compile_model = openvino.Core.compile_model

    def noted(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        streams.append(settings["NUM_STREAMS"])
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    monkeypatch.setattr(onnx_engines, "MOST_COPIED_BYTES", most)
    engine = open_engine("openvino", lenet, lanes=2)
    pixels = pixels_for(lenet)
    together = threading.Barrier(2)

    def run(_: int) -> dict[str, np.ndarray]:
        together.wait(20)
        return engine(pixels)

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(run, range(2)):
            assert_close(found, lenet.encode(pixels))
    assert len(streams) <= len(expected)
    assert set(streams) == set(expected)
