"""How many of timm's models featx loads, how fast it lists them, and whether the embeddings are timm's. Prints one JSON line.

    python benchmarks/bench_timm.py                # every model listed; the smallest of each class run: half an hour
    python benchmarks/bench_timm.py 'timm/test_*'  # those of a pattern: seconds

Each model is built without its weights, as ``featx backbones 'timm/*'`` does in an empty ``FEATX_HOME``, and counts as loaded
if it has an embedding. Of each class of timm's models, the smallest one is built with random weights, and one image is run:
``Backbone.encode`` is compared with ``forward_head(forward_features(image), pre_logits=True)`` of the same weights (of an
encoder without last layers, with ``forward_features``), averaged over tokens or places where timm leaves those.
``largest_difference`` is relative to the norm of timm's embedding; ``other`` lists the models above 1e-4.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import timm
import torch

from featx.backbones.backbone import load_backbone
from featx.backbones.catalog import CatalogEntry, list_backbones, measure_backbones
from featx.backbones.feature_extractor import pool
from featx.backbones.sources.source import seeded
from featx.layer_spec import LayerNode

_MOST_PARAMETERS = 500e6
"""Models above this number are listed but not run."""


def timms_embedding(name: str, images: torch.Tensor) -> np.ndarray:
    """The embedding (1, D) that timm defines for a model with featx's random weights."""
    network = seeded(functools.partial(timm.create_model, name.removeprefix("timm/"))).eval()
    with torch.inference_mode():
        out = network.forward_features(images)  # type: ignore[operator]
        if hasattr(network, "get_classifier"):
            out = network.forward_head(out, pre_logits=True)  # type: ignore[operator]
        return pool(LayerNode("timm"), out).numpy()


def difference(name: str) -> float:
    """How far featx's embedding of one image is from timm's, relative to its norm."""
    backbone = load_backbone(name, weights="random", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (1, *backbone.transform.shape), dtype=np.uint8)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (backbone.transform.mean, backbone.transform.std))
    expected = timms_embedding(name, torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std))
    ours = backbone.encode(pixels)["penultimate"]
    if ours.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


def measure(pattern: str = "timm/*", *, run: bool = True) -> dict[str, Any]:
    """List the models of a pattern, and compare the smallest of each class with timm."""
    names, began, first = list_backbones(pattern), time.perf_counter(), 0.0
    entries, skipped = [], {}
    for entry in measure_backbones(names):
        first = first or time.perf_counter() - began
        if isinstance(entry, CatalogEntry):
            entries.append(entry)
        else:
            skipped[entry.name] = entry.why
    seconds = time.perf_counter() - began
    smallest: dict[str, CatalogEntry] = {}
    for entry in sorted(entries, key=lambda e: e.parameters * np.prod(np.broadcast_to(e.input_size, 2))):
        smallest.setdefault(entry.family, entry)
    differences: dict[str, float] = {}
    failed: dict[str, str] = {}
    for entry in smallest.values() if run else ():
        if entry.parameters > _MOST_PARAMETERS:
            failed[entry.name] = "too large to run here"
            continue
        try:
            differences[entry.name] = difference(entry.name)
        except Exception as error:  # each model has code of its own
            failed[entry.name] = f"{type(error).__name__}: {error}"[:200]
        print(
            entry.name, entry.family, differences.get(entry.name, failed.get(entry.name)), file=sys.stderr, flush=True
        )
    return {
        "models": len(names),
        "loaded": len(entries),
        "skipped": skipped,
        "seconds_to_list": round(seconds, 1),
        "seconds_to_first": round(first, 2),
        "classes": len(smallest),
        "compared": len(differences),
        "largest_difference": max((d for d in differences.values() if d <= 1e-4), default=None),
        "other": {name: d for name, d in differences.items() if not d <= 1e-4},
        "not_compared": failed,
        "versions": {each: version(each) for each in ("timm", "torch")},
    }


def main() -> None:
    """Print the measurements as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="timm/*")
    parser.add_argument("--no-run", action="store_true", help="only list them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEATX_HOME"] = folder
        print(json.dumps(measure(arguments.pattern, run=not arguments.no_run)))


if __name__ == "__main__":
    main()
