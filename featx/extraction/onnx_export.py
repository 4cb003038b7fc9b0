"""Networks exported to ONNX, and kept for the next time."""

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

_EXPORT = 1
"""Raised whenever exported networks of before must not be used."""

_MOST_EXPORTS = 16
"""Exported networks that are kept; the oldest go."""

_LARGEST_EXPORT = 1_900_000_000
"""Bytes of weights; of more no single ONNX file can be made."""


def onnx_bytes(network: NetworkCopy, backbone: Backbone, batch: int) -> bytes:
    """The network as ONNX, for a fixed batch; kept in the home folder, since exporting it takes seconds.

    The name of a file carries the checksum of what is in it.
    """
    if sum(tensor.nbytes for tensor in backbone.network.state_dict().values()) > _LARGEST_EXPORT:
        raise EngineError(f"{backbone.name} is too large for one ONNX file")
    parts = (_EXPORT, backbone.with_views((PLAIN,)).identity, network.plain, batch, torch.__version__)
    tag = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    with contextlib.suppress(OSError, OutputError):
        for path in (home() / "engines").glob(f"{tag}-*.onnx"):
            model = path.read_bytes()
            if path.name == _export_name(tag, model):
                os.utime(path)
                return model
    model = _export(network.encoder(), blank_images(backbone, batch))
    keep(f"engines/{_export_name(tag, model)}", model)
    _drop_oldest_exports()
    return model


def _export(encoder: Encoder, example: Tensor) -> bytes:
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
    """Exporters and compilers talk; what they have to say about a failure is in its exception."""
    before, said = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
