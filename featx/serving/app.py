"""The service as an app of FastAPI: its paths, what they take and what they answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featx._version import __version__
from featx.serving import schema
from featx.serving.body import RefusedError, read_body, uploads
from featx.serving.metrics import CONTENT_TYPE
from featx.serving.pages import SECURITY, docs_page, try_page
from featx.serving.service import Service
from featx.text import counted, printable

_CLIENT_CLOSED = 499
"""The status, known from nginx, of a request whose client was gone before the answer."""


def build_app(service: Service, *, allow_origins: Sequence[str] = ()) -> FastAPI:
    """Make the app of a service.

    Args:
        service: the model, its threads and counters; it is ``app.state.service``.
        allow_origins: as ``create_app``.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close, service.limits.stop_seconds)

    app = FastAPI(
        title="featx serve",
        summary="Predictions for images.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.add_middleware(_Observed, service=service)
    if allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(allow_origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    _Paths(service).add_to(app)
    _add_pages(app)
    return app


class _Paths:
    """What the paths of a service answer."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, app: FastAPI) -> None:
        """Add the paths to an app."""
        app.add_api_route(
            "/predict",
            self.predict,
            methods=["POST"],
            summary="Predict images",
            openapi_extra=schema.PREDICT,
            responses=schema.PREDICTED,
        )
        for path, answer, summary, responses in (
            ("/model", self.model, "Describe the model", schema.MODEL),
            ("/healthz", self.healthz, "Whether the service runs", schema.HEALTH),
            ("/readyz", self.readyz, "Whether the service takes requests now", schema.HEALTH),
            ("/metrics", self.metrics, "Counters for Prometheus", schema.METRICS),
        ):
            app.add_api_route(path, answer, summary=summary, responses=responses)

    async def predict(self, request: Request) -> Response:
        self._require_token(request)
        top = _top(request.query_params.getlist("top"))
        try:
            found = await self._predicted(request, top)
        except ConnectionResetError:
            return Response(status_code=_CLIENT_CLOSED)
        except asyncio.CancelledError:
            if not self._service.stopping:
                raise
            raise RefusedError(503, "the service is stopping", {"Connection": "close"}) from None
        request.state.images = len(found)
        errors = [each["error"] for each in found if "error" in each]
        model = {key: self._service.facts[key] for key in ("name", "identity")}
        if len(errors) < len(found):
            return _json(200, {"model": model, "predictions": found})
        why = errors[0] if len(errors) == 1 else f"none of the {len(errors)} images could be predicted"
        return _json(422, {"error": why, "model": model, "predictions": found})

    async def model(self, request: Request) -> Response:
        self._require_token(request)
        return _json(200, self._service.facts)

    async def healthz(self) -> Response:
        alive = self._service.batcher.is_alive
        return _json(200, {"status": "ok"}) if alive else _json(503, {"error": self._service.not_ready()})

    async def readyz(self) -> Response:
        why = self._service.not_ready()
        return _json(503, {"error": why}) if why else _json(200, {"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        self._require_token(request)
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE)

    async def _predicted(self, request: Request, top: int | None) -> list[dict[str, Any]]:
        headers, limits = request.headers, self._service.limits  # names of headers are in lower case already
        with self._service.held.share() as take:
            images = uploads(await read_body(request.receive, headers, limits, take), headers, limits)
            return await self._service.predict(images, top=top, gone=request.receive)

    def _require_token(self, request: Request) -> None:
        if not self._service.admits(request.headers.get("authorization", "")):
            raise RefusedError(
                401,
                "the service expects its token: send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer", "Connection": "close"},
            )


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(try_page(), media_type="text/html", headers=SECURITY)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(docs_page(app.openapi()), media_type="text/html", headers=SECURITY)


def _top(given: Sequence[str]) -> int | None:
    """The value of ?top=, or None where there is none.

    Raises:
        RefusedError: it is no whole number above 0.
    """
    if not given:
        return None
    text = given[-1]
    if not (text.isascii() and text.isdigit() and int(text[:10]) > 0 and len(text) <= 9):
        raise RefusedError(422, f"top is {text[:40]!r}; expected a whole number above 0", {"Connection": "close"})
    return int(text)


def _json(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status_code=status, media_type="application/json", headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    """The answer to a request that was refused, by this service or by the framework (404, 405)."""
    if isinstance(error, HTTPException):
        headers, reason = dict(error.headers or {}), str(error.detail).lower()
        if error.status_code == 405 and "Allow" in headers:
            reason = f"this path takes {headers['Allow']}, not {printable(request.method[:20])}"
        return _json(error.status_code, {"error": reason}, headers)
    assert isinstance(error, RefusedError)
    return _json(error.status, {"error": error.reason}, error.headers)


async def _failed(_: Request, __: Exception) -> Response:
    """The answer where featx has a fault, which the server logs."""
    return _json(500, {"error": "the service has failed; its log has the reason"})


class _Observed:
    """Counts requests, measures how long they take, and logs them; answers HEAD as GET without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, and note the status that it answers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, method = time.perf_counter(), 500, scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the server sees HEAD in its own

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._note(scope, method, status, time.perf_counter() - began)

    def _note(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")  # not what the client sent, of which there is no end
        self._service.metrics.requests.labels(path, str(status)).inc()
        if path == "/predict":
            self._service.metrics.seconds.observe(seconds)
        if self._service.log:
            client = (scope.get("client") or ("-",))[0]
            images = scope.get("state", {}).get("images", 0)
            what = printable(f"{client} {method} {scope['path'][:200]}")
            self._service.log(f"{what} {status} {counted(images, 'image')} {1000 * seconds:.1f} ms")
