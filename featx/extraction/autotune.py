"""The engine that runs a backbone fastest on this machine, measured once, by a run that is long enough to pay for it."""

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
from featx.backbones.joint import JointBackbone
from featx.errors import EngineError, OutputError
from featx.extraction.engine_table import ENGINES
from featx.extraction.engines import (
    Engine,
    JointEngine,
    images_per_second,
    installed,
    open_engine,
    part_engines,
)
from featx.io.atomic import keep
from featx.reporter import SILENT, Reporter
from featx.system import home

AUTO = "auto"
"""The name that stands for the fastest engine, or for the largest batch that pays."""

_FILE = "engines.json"
"""What was measured, in the home folder."""

PAYS_AFTER = 15.0
"""Seconds that a run must take with the eager engine before others are measured, which takes six to thirteen seconds, once."""

LEAST_IMAGES = 300
"""Fewer images never take long enough for a measurement to pay."""

_CLEARLY = 1.05
"""How much faster another engine, or a batch twice as large, must be to be preferred."""

_TURNS, _TURN = 3, 0.4
"""How often each engine is measured, and for how many seconds."""

_BATCHES = (32, 64, 128, 256, 512, 1024)
"""Images of a pass that are tried on a device, in this order."""


@dataclass(frozen=True)
class Chosen:
    """An engine, and a sentence for the user about the choice, or ""."""

    engine: Engine
    note: str = ""


def choose_engine(
    name: str,
    backbone: Backbone,
    sample: np.ndarray,
    *,
    images: int,
    lanes: int,
    batch: int | None = None,
    reporter: Reporter = SILENT,
) -> Chosen:
    """Open an engine by name, or with "auto" the fastest one, as it was measured before or is measured now.

    Args:
        name: "auto", or a name in ``ENGINES``.
        backbone: the network to run.
        sample: (B, 3, crop, crop) uint8, some of the images.
        images: how many images the run sends through the network.
        lanes: threads that will call the engine at once.
        batch: images per pass, instead of the engine's own choice.
        reporter: gets a note before a measurement.

    Raises:
        EngineError: the named engine cannot be opened.
    """
    if isinstance(backbone, JointBackbone):
        return _choose_joint(name, backbone, sample, images=images, lanes=lanes, batch=batch, reporter=reporter)

    def opened(engine: str) -> Engine:
        return open_engine(engine, backbone, lanes=lanes, batch=batch, sample=sample)

    if name != AUTO:
        return Chosen(opened(name))
    candidates = _candidates(backbone)
    key = memory_key(backbone, lanes, batch)
    remembered = _remembered(key) if candidates else None
    if remembered:
        with contextlib.suppress(EngineError):
            return Chosen(opened(remembered))
    eager = opened("eager")
    if remembered or not candidates or images < LEAST_IMAGES:
        return Chosen(eager)
    if images / images_per_second(eager, sample, _TURN) < PAYS_AFTER:
        return Chosen(eager)
    reporter.note(f"measuring once which of {', '.join(['eager', *candidates])} runs {backbone.name} fastest here")
    engines = [eager]
    for candidate in candidates:
        with contextlib.suppress(EngineError):
            engines.append(opened(candidate))
    return _fastest(engines, _rates(engines, sample), backbone, key)


def _choose_joint(
    name: str,
    backbone: JointBackbone,
    sample: np.ndarray,
    *,
    images: int,
    lanes: int,
    batch: int | None,
    reporter: Reporter,
) -> Chosen:
    """An engine for each of several backbones side by side, chosen as for that backbone alone."""
    names = part_engines(name, len(backbone.parts)) or [name] * len(backbone.parts)
    chosen = [
        choose_engine(each, part.backbone, some, images=images, lanes=lanes, batch=batch, reporter=reporter)
        for each, part, some in zip(names, backbone.parts, backbone.transform.split(sample), strict=True)
    ]
    notes = dict.fromkeys(each.note for each in chosen if each.note)
    return Chosen(JointEngine(backbone, [each.engine for each in chosen]), ". ".join(notes))


def _fastest(engines: Sequence[Engine], rates: Mapping[str, float], backbone: Backbone, key: str) -> Chosen:
    """Choose and remember the fastest engine; one that is not clearly faster than those before it does not count."""
    eager = best = engines[0]
    for engine in engines[1:]:
        if rates[engine.name] > _CLEARLY * rates[best.name]:
            best = engine
    rounded = {name: round(rate, 1) for name, rate in rates.items()}
    _remember(key, {"engine": best.name, "backbone": backbone.name, "images_per_second": rounded})
    measured = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    gain = rates[best.name] / rates[eager.name]
    faster = f", {gain:.1f} times as fast as eager" if best is not eager else ""
    return Chosen(
        best,
        f"{backbone.name} runs with {best.name} on this machine{faster} (images/s of the network alone: {measured}); "
        "later runs reuse this choice",
    )


def largest_useful_batch(engine: Engine, sample: np.ndarray) -> int:
    """Find the batch above which a device gains less than 5 %, or runs out of memory, and set the engine's batch to it.

    Args:
        engine: an engine that takes batches of any size.
        sample: (B, 3, crop, crop) uint8, some of the images.
    """
    best, fastest = 0, 0.0
    for size in _BATCHES:
        engine.batch = size
        try:
            rate = images_per_second(engine, sample, 0.5)
        except EngineError:  # not even one image fits
            break
        if engine.batch < size or rate < _CLEARLY * fastest:  # smaller: it ran out of memory and halved its batch
            break
        best, fastest = size, rate
    engine.batch = best or engine.batch  # if not even the first fits, what is left after halving
    return engine.batch


def _rates(engines: Sequence[Engine], sample: np.ndarray) -> dict[str, float]:
    """Images/s of each engine: the median of some turns, so that other load on the machine affects all of them alike."""
    turns = [{engine.name: images_per_second(engine, sample, _TURN) for engine in engines} for _ in range(_TURNS)]
    return {engine.name: statistics.median(turn[engine.name] for turn in turns) for engine in engines}


def _candidates(backbone: Backbone) -> list[str]:
    """The engines besides eager that are worth measuring, by name. Compiling for a CPU takes longer, and gains less."""
    device = backbone.device.type
    return sorted(
        name
        for name in installed(device)
        if device in ENGINES[name].measured_on
        and (device != "cpu" or backbone.precision == "float32" or ENGINES[name].low_precision)
    )


def memory_key(backbone: Backbone, lanes: int, batch: int | None = None) -> str:
    """What the speed of engines depends on, as SHA-256 in hex: the machine, the versions, and the network without weights."""
    device = torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else processor_name()
    facts = {
        "device": device,
        "lanes": lanes,
        "batch": batch,
        "network": backbone.describe()["architecture"],
        "layers": sorted(backbone.layer_widths),
        "crop": backbone.transform.image_size,
        "precision": backbone.precision,
        "versions": {name: package_version(name) for name in ("torch", "openvino", "onnxruntime")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def processor_name() -> str:
    """The model name of the processor, or where the system has none, its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def package_version(package: str) -> str:
    """The version of an installed package; "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _memory() -> dict[str, Any]:
    """The choices that are stored; none if the file is missing or damaged."""
    with contextlib.suppress(OSError, OutputError, ValueError, RecursionError):
        stored = json.loads((home() / _FILE).read_text())
        if isinstance(stored, dict):
            return stored
    return {}


def _remembered(key: str) -> str | None:
    entry = _memory().get(key)
    name = entry.get("engine") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and name in ENGINES else None


def _remember(key: str, entry: Mapping[str, Any]) -> None:
    keep(_FILE, json.dumps({**_memory(), key: dict(entry)}, indent=1).encode())
