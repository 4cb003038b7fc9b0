"""Passes of one network in several lanes do not meet, whatever state it keeps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_networks import Load, assert_close, pixels_for

from featx.backbones.backbone import Backbone
from featx.data.decode import read_pixels
from featx.extraction.engines import open_engine
from featx.extraction.pipeline import extract


def test_what_one_lane_keeps_in_its_network_is_not_seen_by_another(own: Load) -> None:
    assert_passes_do_not_meet(own("keeping"))


@pytest.mark.parametrize("factory", ["keeping", "hooked"])
def test_passes_of_somebodys_own_network_do_not_meet_whatever_it_keeps(factory: str, strange: Load) -> None:
    assert_passes_do_not_meet(strange(factory))


@pytest.mark.parametrize("factory", ["hooked_in_itself", "uncopied", "viewing"])
def test_somebodys_own_network_runs_as_it_is_one_pass_at_a_time(factory: str, strange: Load) -> None:
    backbone = strange(factory)
    pixels = pixels_for(backbone)
    engine = open_engine("eager", backbone, lanes=2)
    assert (engine.lanes, engine.on_cpu) == (1, True)
    assert_close(engine(pixels), backbone.encode(pixels))


def test_an_extraction_by_somebodys_own_network_is_right(photos: Path, tmp_path: Path, strange: Load) -> None:
    backbone = strange("hooked")
    result = extract(photos, backbone, cache=tmp_path / "cache", workers=3, batch_size=2)
    assert result.engine == "eager"
    rows = result.load()
    pixels = np.stack([read_pixels((photos / path).read_bytes(), backbone.transform) for path in rows.paths])
    np.testing.assert_allclose(rows.features, backbone.encode(pixels)["penultimate"], rtol=1e-4, atol=1e-5)


def assert_passes_do_not_meet(backbone: Backbone) -> None:
    """One pass is held up in its middle while another wants to run."""
    pixels = pixels_for(backbone, 8)
    wanted = [backbone.encode(half) for half in (pixels[:4], pixels[4:])]
    engine = open_engine("eager", backbone, lanes=2)
    first, other_done = threading.Lock(), threading.Event()

    def between() -> None:
        """The first pass waits in its middle for a whole other one; not for ever, where passes take turns."""
        if first.acquire(blocking=False):
            other_done.wait(2)

    module_of(backbone)["between"] = between
    try:
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(engine, pixels[:4])
            while not first.locked():
                pass
            other = pool.submit(engine, pixels[4:])
            other.add_done_callback(lambda _: other_done.set())
            assert_close(waiting.result(), wanted[0])
            assert_close(other.result(), wanted[1])
    finally:
        module_of(backbone)["between"] = lambda: None


def module_of(backbone: Backbone) -> dict[str, Any]:
    """The names of the file that a network comes from."""
    names: dict[str, Any] = type(backbone.network).forward.__globals__
    return names
