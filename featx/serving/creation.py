"""``create_app``: a model as an ASGI app."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import FeatxError, SettingsError, system_errors
from featx.reporter import SILENT, Reporter
from featx.serving.limits import Limits

if TYPE_CHECKING:  # imported when they are needed, since the packages of a service are an extra
    from fastapi import FastAPI

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def require_packages() -> None:
    """Raise a FeatxError if a package is missing that a service needs."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise FeatxError(f"a service needs {package.replace('_', '-')}: pip install 'featx[serve]'")


@system_errors()
def create_app(
    model: Any,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    allow_origins: Sequence[str] = (),
    compute: str = "auto",
    workers: int | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    access_log: Callable[[str], object] | None = None,
    reporter: Reporter = SILENT,
) -> FastAPI:
    """Make an ASGI app that predicts images, for any server of ASGI, or to be mounted in another app.

    The model is loaded and has run once when this returns. The paths of the app are ``POST /predict``, ``/model``,
    ``/healthz``, ``/readyz``, ``/metrics``, ``/openapi.json``, ``/docs`` and ``/``, a page to try it in a browser.

    Args:
        model: a head, a model, or a file of either, as ``featx.load_model`` takes it.
        limits: what the app accepts; those of connections and of the time to stop are for ``featx serve`` alone.
        token: what clients must send as ``Authorization: Bearer TOKEN``; None: nothing.
        allow_origins: the origins whose pages may call the app from a browser (CORS), such as "https://example.org", or "*".
        compute: "auto" for the engine that is fastest on this machine, measured once, or the name of one, as ``featx.extract``
            takes it.
        workers: threads that decode images and, on a CPU, run the network; by default one per core.
        backbone: as ``load_model``, for a file.
        weights: as ``load_model``, for a file.
        device: as ``load_model``, for a file.
        access_log: called with a line of text for each request.
        reporter: receives stages and notes.

    Returns:
        The app, of FastAPI. Its ``state.service`` has the model's facts and metrics.

    Raises:
        FeatxError: a package is missing (``pip install 'featx[serve]'``), or the model cannot be loaded or run.
        SettingsError: the token is empty, or has characters that no header can hold.

    Example:

        app = featx.serving.create_app("models/digits--lenet5--logreg.safetensors")
        uvicorn.run(app, port=8000)
    """
    require_packages()
    if token is not None and (not token.strip() or not token.isascii() or not token.isprintable() or " " in token):
        raise SettingsError("the token is empty, or has other characters than printable ASCII without spaces")
    from featx.serving.app import build_app
    from featx.serving.service import Service

    loaded, facts = _loaded(model, reporter, backbone=backbone, weights=weights, device=device)
    service = Service(
        loaded,
        facts,
        limits or Limits(),
        compute=compute,
        workers=workers,
        token=token,
        log=access_log,
        reporter=reporter,
    )
    return build_app(service, allow_origins=tuple(allow_origins))


def _loaded(model: Any, reporter: Reporter, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and its facts."""
    from featx.heads.head_file import HEAD
    from featx.inference import HeadOnBackbone, as_model, load_model
    from featx.io import model_file
    from featx.promotion.model_file import MODEL
    from featx.serving.facts import model_facts

    if not isinstance(model, str | os.PathLike):
        loaded = as_model(model)
        held_out = loaded.head.held_out_ if isinstance(loaded, HeadOnBackbone) else None
        return loaded, model_facts(loaded, report=held_out.as_dict() if held_out else None)
    path = Path(model)
    stored = model_file.read_metadata(path, HEAD, MODEL)
    reporter.stage(f"loading {path}")
    loaded = load_model(path, **options)
    facts = model_facts(loaded, name=path.stem, report=stored.get("report"))
    return loaded, {**facts, "sha256": stored["sha256"]}
