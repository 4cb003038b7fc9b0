"""A model that is served: its threads, its limits and its counters, without HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from featx.data.joint_pixels import read_all_views
from featx.heads.prediction import Prediction
from featx.inference import HeadOnBackbone, Model, prediction_maker
from featx.reporter import SILENT, Reporter
from featx.serving.batcher import Batcher, Outcome, QueueFullError
from featx.serving.body import Held, Upload, busy
from featx.serving.limits import Limits
from featx.serving.metrics import FAILED, PREDICTED, REJECTED, Metrics
from featx.serving.scorer import open_scorer
from featx.text import counted

_PATIENCE = 0.25
"""Seconds after which a request that still waits is given up if its client is gone."""


class Service:
    """A model, loaded, and what requests share.

    Args:
        model: a head on its backbone, or a promoted model.
        facts: as ``model_facts`` gives them.
        limits: of requests.
        compute: as ``open_scorer``.
        workers: as ``open_scorer``.
        token: what clients must send, or None.
        log: gets a line for each request, or None.
        reporter: receives stages and notes.

    Attributes:
        facts: of the model, and the engine that runs it.
        limits: of requests.
        log: gets a line for each request, or None.
        stopping: whether the service was told to stop: it answers what it has, and is not ready for more.
        metrics: the counters.
        held: the bytes of bodies in memory.
    """

    def __init__(
        self,
        model: Model,
        facts: Mapping[str, Any],
        limits: Limits,
        *,
        compute: str = "auto",
        workers: int | None = None,
        token: str | None = None,
        log: Callable[[str], object] | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        scorer = open_scorer(model, compute=compute, workers=workers, reporter=reporter)
        for note in scorer.notes:
            reporter.note(note)
        self.facts: dict[str, Any] = {**facts, "engine": scorer.engine}
        self.limits, self.log, self.stopping = limits, log, False
        self.held = Held(limits.held_bytes)
        self._token = token.encode() if token is not None else None
        self._makers: dict[int, Callable[[str, Any], Prediction]] = {}
        self._model = model
        self.metrics = Metrics(self.facts, queued=lambda: self.batcher.waiting, held=lambda: self.held.bytes)
        self.batcher = Batcher(
            lambda data: read_all_views(data, scorer.transform, scorer.views, max_pixels=limits.pixels),
            scorer.compute,
            threads=scorer.threads,
            runners=scorer.runners,
            images=scorer.images,
            queue=limits.queue,
            meter=self.metrics.meter,
        )

    @property
    def is_regression(self) -> bool:
        """Whether the model predicts numbers, which have no probabilities."""
        return isinstance(self._model, HeadOnBackbone) and self._model.head.task_ == "regression"

    def not_ready(self) -> str:
        """Why the service takes no request now; "" if it does."""
        if self.stopping:
            return "the service is stopping"
        if not self.batcher.is_alive:
            return "a thread of the service has ended"
        return "the queue is full" if self.batcher.waiting >= self.limits.queue else ""

    def admits(self, authorization: str) -> bool:
        """Whether the value of a request's header Authorization has the token, if there is one."""
        if self._token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)

    async def predict(
        self, images: Sequence[Upload], *, top: int | None, gone: Callable[[], Awaitable[object]]
    ) -> list[dict[str, Any]]:
        """Predict the images of a request.

        Args:
            images: the files.
            top: classes to return for each image; None: all.
            gone: returns when the client is gone, and is awaited only if the images have to wait.

        Returns:
            For each image what ``Prediction.as_dict`` has, with "name" in the place of "path", and the reason of a rejection.

        Raises:
            RefusedError: the queue is full.
            ConnectionResetError: the client is gone.
        """
        try:
            futures = self.batcher.submit([image.data for image in images])
        except QueueFullError:
            waiting = f"{counted(self.batcher.waiting, 'image waits', 'images wait')}, of at most {self.limits.queue}"
            raise busy(f"the queue is full ({waiting}); try again") from None
        try:
            outcomes = await _settled(futures, gone)
        finally:
            for future in futures:
                future.cancel()  # those that are not done yet, because the request has ended early
        return [self._described(image.name, outcome, top) for image, outcome in zip(images, outcomes, strict=True)]

    def _described(self, name: str, outcome: Outcome, top: int | None) -> dict[str, Any]:
        if outcome.values is None:
            self.metrics.images.labels(FAILED).inc()
            return {"name": name, "error": outcome.error}
        count = min(top or len(outcome.values), len(outcome.values))
        if count not in self._makers:
            self._makers[count] = prediction_maker(self._model, count)
        prediction = self._makers[count](name, outcome.values)
        facts = prediction.as_dict()
        facts = {"name": facts.pop("path"), **facts}
        if facts.get("rejected"):
            facts["reason"] = prediction.rows()[0][2]
        self.metrics.images.labels(REJECTED if facts.get("rejected") else PREDICTED).inc()
        return facts


async def _settled(futures: Sequence[asyncio.Future[Outcome]], gone: Callable[[], Awaitable[object]]) -> list[Outcome]:
    """Wait for outcomes; after a while, only as long as the client waits too."""
    _, pending = await asyncio.wait(futures, timeout=_PATIENCE)
    if pending:
        leaving = asyncio.ensure_future(gone())
        try:
            everything = asyncio.gather(*futures, return_exceptions=True)
            await asyncio.wait((everything, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                everything.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await everything
                raise ConnectionResetError("the client is gone")
        finally:
            leaving.cancel()
    return [future.result() for future in futures]
