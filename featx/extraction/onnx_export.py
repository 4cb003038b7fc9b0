"""Networks exported to ONNX, stored in the home folder for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from featx.backbones.backbone import Backbone
from featx.errors import EngineError, OutputError
from featx.extraction.network_copy import Encoder, NetworkCopy, blank_images
from featx.io.atomic import keep
from featx.layer_spec import PLAIN
from featx.system import home

_EXPORT_VERSION = 1
"""Raise it whenever networks that were exported before must not be used."""

_MOST_EXPORTS = 16
"""Exported networks that are stored; the oldest are removed."""

LARGEST_EXPORT = 1_900_000_000
"""Bytes of weights. A network with more does not fit into a single ONNX file."""


def onnx_bytes(network: NetworkCopy, backbone: Backbone, batch: int) -> bytes:
    """Return the network as ONNX for batches of one size, from the home folder if it was exported before.

    Exporting takes seconds. The name of a stored file carries the checksum of its content.

    Args:
        network: makes the copy to export.
        backbone: the network it is a copy of.
        batch: images of a pass.

    Raises:
        EngineError: the network is too large.
    """
    if sum(tensor.nbytes for tensor in backbone.network.state_dict().values()) > LARGEST_EXPORT:
        raise EngineError(f"{backbone.name} is too large for one ONNX file; use --compute eager")
    parts = (_EXPORT_VERSION, backbone.with_views((PLAIN,)).identity, network.plain, batch, torch.__version__)
    tag = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    with contextlib.suppress(OSError, OutputError):
        for path in (home() / "engines").glob(f"{tag}-*.onnx"):
            model = path.read_bytes()
            if path.name == _export_name(tag, model):
                os.utime(path)
                return model
    model = export(network.encoder(), blank_images(backbone, batch))
    keep(f"engines/{_export_name(tag, model)}", model)
    _drop_oldest_exports()
    return model


def export(encoder: Encoder, example: Tensor) -> bytes:
    """Export a network to ONNX.

    Args:
        encoder: the network.
        example: (batch, 3, crop, crop) uint8.
    """
    with torch.no_grad():
        program = torch.onnx.export(encoder, (example,), dynamo=True, optimize=True, verbose=False)
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    return model


def _export_name(tag: str, model: bytes) -> str:
    return f"{tag}-{hashlib.sha256(model).hexdigest()[:24]}.onnx"


def _drop_oldest_exports() -> None:
    with contextlib.suppress(OSError, OutputError):
        by_age = sorted((home() / "engines").glob("*.onnx"), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-_MOST_EXPORTS]:
            old.unlink()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress what exporters and compilers print, log and warn. If they fail, the exception has the reason."""
    before, output = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
