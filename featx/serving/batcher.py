"""Images of many requests through one model: threads decode them, and run the network on whatever is decoded by then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from featx.errors import ImageError
from featx.extraction.engines import one_thread_each
from featx.inference import NOT_FINITE

_LOG = logging.getLogger("featx.serving")


class QueueFullError(Exception):
    """There is no room in the queue for the images of a request."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one image.

    Attributes:
        values: (C,) float64 outputs of the model; None if the image failed.
        error: why it failed, else "".
    """

    values: np.ndarray | None
    error: str = ""


@dataclass(eq=False)
class _Job:
    """One image on its way.

    Attributes:
        data: the bytes of the file, until they are decoded.
        future: gets the outcome, in the event loop of the request.
        pixels: (V, C, H, W) uint8, once they are decoded.
    """

    data: bytes
    future: asyncio.Future[Outcome]
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class Meter:
    """Is told what the threads do; each is called in a thread of the batcher.

    Attributes:
        batch: called with the number of images that were computed together.
        decoded: called with the seconds that an image took to decode.
        computed: called with the seconds that a batch took.
    """

    batch: Callable[[int], object] = lambda _: None
    decoded: Callable[[float], object] = lambda _: None
    computed: Callable[[float], object] = lambda _: None


@dataclass(eq=False)
class _Team:
    """Threads that do the same kinds of work."""

    count: int
    decodes: bool
    computes: bool
    threads: list[threading.Thread] = field(default_factory=list)


class Batcher:
    """Decodes and computes images in threads of its own.

    A thread that is free computes if as many images are decoded as it takes at once, or if none waits to be decoded; else it
    decodes the next one. So images that are there at the same time are computed together, and none waits for others to come.
    The threads start with the first image, and again after ``close``.

    Args:
        decode: from the bytes of a file to (V, C, H, W) uint8; raises ImageError.
        compute: from (B, V, C, H, W) uint8 to (B, C) outputs.
        threads: that decode.
        runners: threads that compute; 0: those that decode compute as well.
        images: that are computed together, at most.
        queue: images that wait to be decoded, at most.
        meter: is told what the threads do.
    """

    def __init__(
        self,
        decode: Callable[[bytes], np.ndarray],
        compute: Callable[[np.ndarray], np.ndarray],
        *,
        threads: int,
        runners: int = 0,
        images: int,
        queue: int,
        meter: Meter | None = None,
    ) -> None:
        self._decode, self._compute, self._images, self._queue = decode, compute, images, queue
        self._meter = meter or Meter()
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._decoded: deque[_Job] = deque()
        self._decoding = 0
        self._closing = False
        self._most_decoded = images * (max(runners, 1) + 1) + threads
        shares = runners == 0
        self._teams = [_Team(threads, decodes=True, computes=shares)]
        self._teams += [] if shares else [_Team(runners, decodes=False, computes=True)]

    @property
    def waiting(self) -> int:
        """Images that wait to be decoded."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether all threads that were started run."""
        return all(thread.is_alive() for team in self._teams for thread in team.threads)

    def submit(self, images: Sequence[bytes]) -> list[asyncio.Future[Outcome]]:
        """Queue the images of a request, all of them or none. Call it in the event loop that waits for the outcomes.

        Args:
            images: the bytes of image files.

        Returns:
            The outcome of each image. An image whose future is cancelled before its turn is left out.

        Raises:
            QueueFullError: the queue has no room for all of them.
        """
        loop = asyncio.get_running_loop()
        jobs = [_Job(data, loop.create_future()) for data in images]
        with self._changed:
            if len(self._waiting) + len(jobs) > self._queue:
                raise QueueFullError
            self._waiting.extend(jobs)
            self._start()
            self._changed.notify_all()
        return [job.future for job in jobs]

    def close(self, seconds: float) -> None:
        """Let the threads finish what is queued, and end them.

        Args:
            seconds: how long to wait for them at most.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for team in self._teams:
            for thread in team.threads:
                thread.join(max(0.0, end - time.monotonic()))
            team.threads.clear()

    def _start(self) -> None:
        self._closing = False
        for team in self._teams:
            for number in range(team.count - len(team.threads)):
                name = f"featx-{'decode' if team.decodes else 'compute'}-{number}"
                thread = threading.Thread(target=self._work, args=(team,), name=name, daemon=True)
                team.threads.append(thread)
                thread.start()

    def _work(self, team: _Team) -> None:
        with one_thread_each():
            while jobs := self._next(team):
                if jobs[0].pixels is None:
                    self._decode_one(jobs[0])
                else:
                    self._compute_batch(jobs)

    def _next(self, team: _Team) -> list[_Job]:
        """Wait for work: one image to decode, or images to compute; nothing when the batcher is closed and empty."""
        with self._changed:
            while True:
                enough = len(self._decoded) >= self._images or not self._waiting
                if team.computes and self._decoded and (enough or not team.decodes):
                    count = min(self._images, len(self._decoded))
                    return [self._decoded.popleft() for _ in range(count)]
                if team.decodes and self._waiting and len(self._decoded) < self._most_decoded:
                    self._decoding += 1
                    return [self._waiting.popleft()]
                if self._closing and not (self._waiting or self._decoded or self._decoding):
                    self._changed.notify_all()
                    return []
                self._changed.wait()

    def _decode_one(self, job: _Job) -> None:
        outcome = None
        began = time.perf_counter()
        try:
            if not job.future.cancelled():
                job.pixels = self._decode(job.data)
                self._meter.decoded(time.perf_counter() - began)
        except ImageError as error:
            outcome = Outcome(None, str(error))
        except Exception as error:  # a fault of featx: the request fails, and the service goes on
            _deliver([(job, error)])
        job.data = b""
        with self._changed:
            self._decoding -= 1
            if job.pixels is not None:
                self._decoded.append(job)
            if self._closing or len(self._teams) > 1:  # else this thread itself takes what comes next
                self._changed.notify_all()
        if outcome:
            _deliver([(job, outcome)])

    def _compute_batch(self, jobs: list[_Job]) -> None:
        began = time.perf_counter()
        jobs = [job for job in jobs if not job.future.cancelled()]
        if not jobs:
            return
        found: list[tuple[_Job, Outcome | Exception]]
        try:
            values = self._compute(np.stack([job.pixels for job in jobs if job.pixels is not None]))
            finite = np.isfinite(values).all(axis=1)
            found = [
                (job, Outcome(row) if ok else Outcome(None, NOT_FINITE))
                for job, row, ok in zip(jobs, values, finite, strict=True)
            ]
        except Exception as error:  # as above: a network and a device raise anything
            found = [(job, error) for job in jobs]
        self._meter.batch(len(jobs))
        self._meter.computed(time.perf_counter() - began)
        _deliver(found)
        if len(self._teams) > 1:
            with self._changed:  # there is room for decoded images again
                self._changed.notify_all()


def _deliver(found: list[tuple[_Job, Outcome | Exception]]) -> None:
    """Hand outcomes to the event loops that wait for them, with one call for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Outcome | Exception]]] = {}
    for job, outcome in found:
        if isinstance(outcome, Exception):
            _LOG.error("an image could not be predicted", exc_info=outcome)
        by_loop.setdefault(job.future.get_loop(), []).append((job, outcome))
    for loop, pairs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits any more
            loop.call_soon_threadsafe(_settle, pairs)


def _settle(pairs: list[tuple[_Job, Outcome | Exception]]) -> None:
    for job, outcome in pairs:
        if job.future.done():
            continue
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
