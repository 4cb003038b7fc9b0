"""The command of ``featx extract`` that computes features of a data set, as words, for messages that name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featx.constants import CACHE
from featx.data.scan_options import ScanOptions
from featx.features.manifest import SETS
from featx.layer_spec import PENULTIMATE
from featx.text import native

_DECODING = {"scaled": ["--fast-decode"], "nvjpeg": ["--nvjpeg"]}
"""The options of extraction by the decoding that a feature file names."""


def data_words(dataset: Mapping[str, Any]) -> list[str]:
    """The data set of a feature file, and the options by which it was read.

    Examples:
        >>> data_words({"root": "photos", "table": "all.csv", "options": {"label_column": "kind"}})
        ['all.csv', '--label-column', 'kind']
        >>> data_words({"root": ""})
        ['DATA']
    """
    table = dataset.get("table")
    place = table if isinstance(table, str) and table else str(dataset.get("root") or "DATA")
    return [native(place), *ScanOptions.of_dataset(dataset).as_words()]


def backbone_words(backbone: Mapping[str, Any], layers: Sequence[str] = (), views: str = "plain") -> list[str]:
    """The options for a backbone, as a feature file describes it, and for layers and views.

    A size of images other than that of the weights is not named, because the file does not tell which it was.

    Examples:
        >>> backbone_words({"name": "resnet50", "weights": "default"}, ["penultimate", "layer4"], "flip")
        ['--backbone', 'resnet50', '--layer', 'layer4', '--views', 'flip']
    """
    weights, parts = backbone.get("weights", "default"), backbone.get("parts") or {}
    words = ["--backbone", str(backbone["name"])] if backbone.get("name") else []
    words += ["--weights", str(weights)] if weights not in ("default", None) else []
    for layer in layers:
        words += ["--layer", layer] if layer != PENULTIMATE else []
    words += ["--views", views] if views != "plain" else []
    for name in ("precision", "dtype"):
        words += [f"--{name}", str(parts[name])] if parts.get(name, "float32") != "float32" else []
    return [*words, *_DECODING.get(parts.get("transform", {}).get("decoding"), [])]


def cache_words(file: Path | None) -> list[str]:
    """The option for the folder of a feature file or set, where it is not the default."""
    if file is None:
        return []
    folder, here = file.parent.resolve(), Path.cwd()
    folder = folder.parent if folder.suffix == SETS else folder
    if folder == (here / CACHE).resolve():
        return []
    return ["--cache", str(folder.relative_to(here) if folder.is_relative_to(here) else folder)]
