"""Which engine runs a backbone fastest on this machine: measured once, when a run is long enough to pay for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featx.backbones.backbone import Backbone
from featx.constants import ENGINES
from featx.errors import EngineError, OutputError
from featx.extraction.engines import Engine, images_per_second, installed, open_engine
from featx.io.atomic import keep
from featx.reporter import SILENT, Reporter
from featx.system import home

AUTO = "auto"

_FILE = "engines.json"

_PAYS_AFTER = 15.0
"""Seconds that a run must last with the eager engine before others are tried: that takes six to thirteen, once."""

_LEAST_IMAGES = 300
"""Fewer never last so long that a measurement pays."""

_CLEARLY = 1.05
"""How much faster another engine, or a batch twice as large, must be to be taken."""

_TURNS, _TURN = 3, 0.4
"""How often each engine is measured, and for how many seconds."""

_BATCHES = (32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Chosen:
    """An engine, and what the user should know about the choice, if anything."""

    engine: Engine
    note: str = ""


def choose_engine(
    wanted: str,
    backbone: Backbone,
    sample: np.ndarray,
    *,
    images: int,
    lanes: int,
    batch: int | None = None,
    reporter: Reporter = SILENT,
) -> Chosen:
    """The engine that was asked for; with "auto" the fastest one, as remembered or measured.

    Args:
        wanted: "auto", or one of ``ENGINES``.
        backbone: what is to run.
        sample: (B, 3, crop, crop) uint8, some of the images.
        images: how many there are to run.
        lanes: threads that will call the engine at once.
        batch: images per pass, instead of the engine's own choice.
        reporter: gets a note before a measurement.

    Raises:
        EngineError: the engine that was asked for cannot be had.
    """

    def opened(name: str) -> Engine:
        return open_engine(name, backbone, lanes=lanes, batch=batch, sample=sample)

    if wanted != AUTO:
        return Chosen(opened(wanted))
    others = _candidates(backbone)
    key = _key(backbone, lanes, batch)
    remembered = _remembered(key) if others else None
    if remembered:
        with contextlib.suppress(EngineError):
            return Chosen(opened(remembered))
    eager = opened("eager")
    if remembered or not others or images < _LEAST_IMAGES:
        return Chosen(eager)
    if images / images_per_second(eager, sample, _TURN) < _PAYS_AFTER:
        return Chosen(eager)
    reporter.note(f"measuring which of {', '.join(['eager', *others])} runs {backbone.name} fastest here, once")
    engines = [eager]
    for name in others:
        with contextlib.suppress(EngineError):
            engines.append(opened(name))
    rates = _rates(engines, sample)
    best = eager
    for engine in engines[1:]:
        if rates[engine.name] > _CLEARLY * rates[best.name]:
            best = engine
    _remember(key, {"engine": best.name, "backbone": backbone.name, "images_per_second": _rounded(rates)})
    measured = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    gain = rates[best.name] / rates["eager"]
    faster = f", {gain:.1f} times as fast as eager" if best is not eager else ""
    note = f"{backbone.name} runs by {best.name} here{faster} (images/s of the network alone: {measured}); remembered"
    return Chosen(best, note)


def largest_useful_batch(engine: Engine, sample: np.ndarray) -> int:
    """The batch above which a device gains less than 5 %, or has no memory; the engine must take any."""
    best, fastest = 0, 0.0
    for size in _BATCHES:
        engine.batch = size
        try:
            rate = images_per_second(engine, sample, 0.5)
        except EngineError:  # not even one image fits
            break
        if engine.batch < size or rate < _CLEARLY * fastest:
            break
        best, fastest = size, rate
    engine.batch = best or engine.batch  # where not even the first fits, what it has halved itself to
    return engine.batch


def _rates(engines: Sequence[Engine], sample: np.ndarray) -> dict[str, float]:
    """Images/s of each, the median of some turns: what else the machine does meanwhile hits all of them alike."""
    turns = [{engine.name: images_per_second(engine, sample, _TURN) for engine in engines} for _ in range(_TURNS)]
    return {engine.name: statistics.median(turn[engine.name] for turn in turns) for engine in engines}


def _candidates(backbone: Backbone) -> list[str]:
    """Engines beside eager that a few seconds are enough to try: compiling for a CPU takes longer, and gains less."""
    kind = backbone.device.type
    tried = ("onnxruntime", "openvino") if kind == "cpu" else ("compile",)
    if kind == "cpu" and backbone.precision != "float32":
        return []
    return [name for name in tried if name in installed(kind)]


def _key(backbone: Backbone, lanes: int, batch: int | None = None) -> str:
    """What the speed of engines depends on: this machine, the versions, and the network without its weights."""
    device = torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else _processor()
    facts = {
        "device": device,
        "lanes": lanes,
        "batch": batch,
        "network": backbone.describe()["architecture"],
        "layers": sorted(backbone.layer_widths),
        "crop": backbone.transform.crop,
        "precision": backbone.precision,
        "versions": {name: _version(name) for name in ("torch", "openvino", "onnxruntime")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _memory() -> dict[str, Any]:
    """What is remembered; nothing, where the file is missing or means nothing."""
    with contextlib.suppress(OSError, OutputError, ValueError, RecursionError):
        found = json.loads((home() / _FILE).read_text())
        if isinstance(found, dict):
            return found
    return {}


def _remembered(key: str) -> str | None:
    entry = _memory().get(key)
    name = entry.get("engine") if isinstance(entry, dict) else None
    return name if name in ENGINES else None


def _remember(key: str, entry: Mapping[str, Any]) -> None:
    keep(_FILE, json.dumps({**_memory(), key: dict(entry)}, indent=1).encode())


def _rounded(rates: Mapping[str, float]) -> dict[str, float]:
    return {name: round(rate, 1) for name, rate in rates.items()}
