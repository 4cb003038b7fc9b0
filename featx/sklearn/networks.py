"""The networks that this process has loaded for its transformers, so that clones and pickles of one share it."""

from __future__ import annotations

import inspect
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import BackboneError, FeatxError
from featx.layer_spec import LayerNode, LayerSpec, require_pooling
from featx.text import described, listed

_MOST = 4
"""Networks that stay loaded; the one that was used longest ago is given up for another."""

_OWN = ("name", "weights", "layers", "stages", "pooling", "views", "device")
"""The arguments of ``load_backbone`` that are no options, because the transformer has parameters for them."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """A network and what is read from it.

    Attributes:
        backbone: in the layers and views of ``layer``.
        layer: a layer spec, as in ``LayerSpec.parse``.
    """

    backbone: Backbone
    layer: str

    @property
    def width(self) -> int:
        """D, the numbers for each image."""
        return sum(self.backbone.layer_widths[name] for name in LayerSpec.parse(self.layer).layers)


_loaded: OrderedDict[str, Embedding] = OrderedDict()
_lock = threading.Lock()


def embedding_of(
    backbone: str,
    *,
    layer: str,
    pooling: str,
    views: str,
    weights: str | os.PathLike[str] | None,
    device: str,
    options: Mapping[str, Any] | None,
) -> Embedding:
    """Load a network, or find it among those that are loaded. The arguments are parameters of ``ImageEmbedder``.

    Raises:
        BackboneError: it cannot be loaded, or an argument is of another kind.
    """
    for name, value in {"backbone": backbone, "layer": layer, "pooling": pooling, "views": views}.items():
        if not isinstance(value, str):
            raise BackboneError(f"{name} is {described(value)}; expected a name")
    require_pooling(pooling)
    given = _checked_options(options)
    chosen = "default" if weights is None else os.fspath(weights)
    facts = [backbone, layer, pooling, views, chosen, str(device), _stamp(backbone), _stamp(chosen), str(Path.cwd())]
    key = json.dumps([facts, given], sort_keys=True, default=str)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(backbone, layer, pooling, views, chosen, str(device), given)
            while len(_loaded) > _MOST:
                _loaded.popitem(last=False)
        _loaded.move_to_end(key)
        return _loaded[key]


def _load(
    backbone: str, layer: str, pooling: str, views: str, weights: str, device: str, options: Mapping[str, Any]
) -> Embedding:
    try:
        spec = LayerSpec.parse(layer, views)
        layers = tuple(str(LayerNode.parse(name, pooling)) for name in spec.layers)
    except FeatxError as error:
        raise BackboneError(str(error)) from error
    network = load_backbone(backbone, weights=weights, device=device, **options)
    return Embedding(network.with_layers(layers).with_views(spec.views), str(LayerSpec(layers, spec.views)))


def _checked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise BackboneError(f"options are {described(options)}; expected a dict, such as {{'size': 448}}")
    known = [name for name in inspect.signature(load_backbone).parameters if name not in _OWN]
    if wrong := sorted(map(str, set(options) - set(known))):
        raise BackboneError(
            f"there is no option {listed(wrong)}; expected arguments of load_backbone: {listed(known, 20)}"
        )
    return dict(options)


def _stamp(name: str) -> tuple[int, int] | None:
    """What changes when the file of weights or code is written anew; None for what is no file."""
    try:
        found = Path(name.partition(".py:")[0] + ".py" if ".py:" in name else name).stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
