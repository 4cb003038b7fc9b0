"""The process of one device: it computes the images that a ``Crew`` hands out, and sends the rows back.

It writes no file. The crew's process does so, in which each row is stored as if that process had computed it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featx.backbones.backbone import Backbone
from featx.backbones.restored import restore_backbone
from featx.data import memory
from featx.data.loader import LoadedImage
from featx.data.openers import open_store
from featx.data.store import ImageFile
from featx.data.urls import adopt_secrets
from featx.errors import BackboneError, CacheMissError, CorruptFileError, EngineError, FeatxError, StaleCacheError
from featx.extraction.autotune import AUTO
from featx.extraction.computation import Computation, Setting
from featx.extraction.plan import Work, identities_by_view
from featx.extraction.reuse import KnownViews
from featx.features.feature_file import FeatureFile
from featx.layer_spec import RandomView, View
from featx.reporter import Reporter
from featx.text import brief

_MOST_ROWS, _MOST_SECONDS = 256, 0.1
"""Rows are sent when there are so many, or when the last ones were sent so long ago."""


@dataclass(frozen=True)
class Start:
    """What the process of a device is told first.

    Attributes:
        described: name, weights and parts of the backbone, as a feature file stores them.
        identities: the identity of each of its layers, by name; the process must come to the same ones.
        device: the device that runs it.
        devices: how many devices work at once.
        location: of the images, as ``open_store`` takes it.
        secrets: what grants access to their URLs.
        known: feature files that may have features of the images.
        workers, measured, max_pixels, images: as in ``Setting``.
    """

    described: Mapping[str, Any]
    identities: Mapping[str, str]
    device: str
    devices: int
    location: str
    secrets: Any
    known: Sequence[Path]
    workers: int
    measured: int
    max_pixels: int
    images: int


@dataclass(frozen=True)
class Asks:
    """The process has an image that needs an engine, and waits for ``Choose``."""


@dataclass(frozen=True)
class Choose:
    """Which engine to take, as in ``Setting``; one process ``decides`` for all, and says what it has chosen."""

    compute: str
    batch_size: int | str | None
    begun_by: str
    decides: bool


@dataclass(frozen=True)
class Begin:
    """The images that follow are part of other work, in these views."""

    views: tuple[View | RandomView, ...]


@dataclass(frozen=True)
class Images:
    """Images to compute: (M,) rows, and their paths."""

    rows: np.ndarray
    paths: Sequence[str]


@dataclass(frozen=True)
class Ready:
    """The process has loaded the backbone, and waits for ``Begin`` and ``Images``."""


@dataclass(frozen=True)
class Chosen:
    """The engine that was chosen; the images per pass, where they were asked for or measured; and notes for the user."""

    engine: str
    batch_size: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """A sentence for the user, to be shown at once."""

    sentence: str


@dataclass(frozen=True)
class Fault:
    """The process ends because of an error; ``ends_all`` if the other devices would meet it too."""

    kind: str
    sentence: str
    ends_all: bool


@dataclass
class Results:
    """What became of images, in the order in which a sink is told.

    Attributes:
        images: (row, key, size, modification time, change time, inode number) of each image that was read.
        failed: (row, key, reason).
        known: rows whose features are in a file.
        batches: (rows, keys, features) as ``Sink.store`` takes them.
        duplicates: (row, key), as ``Sink.copy_duplicates`` takes them.
        first_row: for the keys of these.
        limit: which stage limits the speed.
    """

    images: list[tuple[int, bytes, int, int, int, int]] = field(default_factory=list)
    failed: list[tuple[int, bytes, str]] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    batches: list[tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]] = field(default_factory=list)
    duplicates: list[tuple[int, bytes]] = field(default_factory=list)
    first_row: dict[bytes, int] = field(default_factory=dict)
    limit: str = ""

    def joined(self) -> Results:
        """The same with one batch in the place of several."""
        if len(self.batches) > 1:
            rows, keys, features = zip(*self.batches, strict=True)
            whole = {layer: np.concatenate([each[layer] for each in features]) for layer in features[0]}
            self.batches = [(np.concatenate(rows), np.concatenate(keys), whole)]
        return self


class _Sender(Reporter):
    """A sink, and a reporter, that sends what it is told to the crew.

    Attributes:
        decides: the computation whose choice of an engine holds for all devices; None in the processes of the others.
    """

    def __init__(self, connection: Connection) -> None:
        self.decides: Computation | None = None
        self._connection = connection
        self._results, self._count, self._sent = Results(), 0, time.monotonic()

    def send(self, message: object) -> None:
        """Send a message, after all results."""
        self.flush()
        self._connection.send(message)

    def flush(self) -> None:
        """Send the results that are there."""
        if self._count:
            self._connection.send(self._results.joined())
        self._results, self._count, self._sent = Results(limit=self._results.limit), 0, time.monotonic()

    def observe(self, image: LoadedImage) -> None:
        """As ``Sink.observe``."""
        self._results.images.append((image.row, image.key, image.size, image.mtime_ns, *image.marks))
        self._add(0)
        self._count = max(self._count, 1)

    def store(self, work: Work, rows: np.ndarray, keys: np.ndarray, features: Mapping[str, np.ndarray]) -> list[int]:  # noqa: ARG002 - of Sink
        """As ``Sink.store``; the crew finds the rows to compute again."""
        self._results.batches.append((rows, keys, features))
        self._add(len(rows))
        return []

    def fail(self, row: int, key: bytes, reason: str) -> None:
        """As ``Sink.fail``."""
        self._results.failed.append((row, key, reason))
        self._add(1)

    def copy_known(self, rows: np.ndarray) -> np.ndarray:
        """As ``Sink.copy_known``; the crew finds those that are damaged."""
        self._results.known += rows.tolist()
        self._add(len(rows))
        return np.ones(len(rows), dtype=bool)

    def copy_duplicates(self, duplicates: Sequence[tuple[int, bytes]], first_row: Mapping[bytes, int]) -> list[int]:
        """As ``Sink.copy_duplicates``."""
        self._results.duplicates += duplicates
        self._results.first_row |= {key: first_row[key] for _, key in duplicates}
        self._add(len(duplicates))
        return []

    def record_engine(self, name: str) -> None:
        """Send the choice, if it holds for all devices."""
        if self.decides:
            self.send(Chosen(name, self.decides.batch, tuple(self.decides.notes)))

    def progress(self, done: int, total: int, detail: object = "") -> None:  # noqa: ARG002 - of Reporter
        """Keep what limits the speed."""
        self._results.limit = str(detail)

    def note(self, sentence: str) -> None:
        """Send a note about the choice, or about the first images."""
        if self.decides:
            self.send(Note(sentence))

    def _add(self, count: int) -> None:
        self._count += count
        if self._count >= _MOST_ROWS or (self._count and time.monotonic() > self._sent + _MOST_SECONDS):
            self.flush()


class _Inbox:
    """Receives what the crew sends, in a thread; the process ends at once when the crew's process is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._choices: queue.SimpleQueue[Choose] = queue.SimpleQueue()
        threading.Thread(target=self._receive, daemon=True).start()

    def get(self) -> Any:
        """Wait for the next message other than a choice."""
        return self._messages.get()

    def choice(self) -> Choose:
        """Wait for the choice of an engine."""
        return self._choices.get()

    def images(self, first: Images, store: Any) -> Iterator[tuple[int, ImageFile]]:
        """The images of a message, and those of the messages that have come meanwhile."""
        images = first
        while True:
            for row, path in zip(images.rows.tolist(), images.paths, strict=True):
                yield row, ImageFile(store, path)
            try:
                images = self._messages.get_nowait()  # nothing else follows while images are not done
            except queue.Empty:
                return

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._connection.recv()
                (self._choices if isinstance(message, Choose) else self._messages).put(message)
        os.kill(os.getpid(), signal.SIGKILL)  # what a thread raises would not end the others


def main(descriptor: int) -> None:
    """Work for the crew at the other end of a socket, until it ends this process.

    Args:
        descriptor: of the socket.
    """
    warnings.simplefilter("ignore")  # the crew's process has shown them
    connection = Connection(descriptor)
    sender, inbox = _Sender(connection), _Inbox(connection)
    try:
        _work(inbox, sender)
    except BrokenPipeError:
        return
    except Exception as error:  # a network of anybody's may raise anything
        ends_all = isinstance(error, FeatxError) and not isinstance(error, BackboneError | EngineError | MemoryError)
        kind = type(error).__name__
        sentence = str(error) if isinstance(error, FeatxError) else f"{kind}: {brief(error)}"
        with contextlib.suppress(OSError):
            sender.send(Fault(kind, sentence, ends_all))


def _work(inbox: _Inbox, sender: _Sender) -> None:
    start: Start = inbox.get()
    adopt_secrets(start.secrets)
    memory.BUDGET.limit //= start.devices
    backbone = _loaded(start)
    store = open_store(start.location)
    known = _known_views(start.known, backbone)
    setting = Setting(
        backbone=backbone,
        known=known,
        compute=AUTO,
        batch_size=None,
        workers=start.workers,
        max_pixels=start.max_pixels,
        measured=start.measured,
    )
    computation = Computation(setting, sender, sender, start.images)

    def ask() -> Setting:
        sender.send(Asks())
        choose = inbox.choice()
        sender.decides = computation if choose.decides else None
        return dataclasses.replace(
            setting,
            compute=choose.compute,
            batch_size=choose.batch_size,
            begun_by=choose.begun_by,
            images=start.images,
        )

    computation.ask = ask
    sender.send(Ready())
    work = Work(backbone.views, np.empty(0, dtype=np.int64))
    while True:
        message = inbox.get()
        if isinstance(message, Begin):
            work = Work(message.views, work.rows)
            continue
        computation.run(work, inbox.images(message, store))
        sender.flush()


def _loaded(start: Start) -> Backbone:
    """The backbone on the device.

    Raises:
        StaleCacheError: it gives other features than that of the crew's process.
    """
    if start.device.startswith("cuda"):
        torch.cuda.set_device(start.device)
    described = start.described
    try:
        return restore_backbone(described, layers=start.identities, name=described["name"], device=start.device)
    except StaleCacheError as error:
        raise StaleCacheError(
            f"{described['name']} is not the same each time it is loaded, so several processes cannot share the work ({error})"
        ) from error


def _known_views(paths: Sequence[Path], backbone: Backbone) -> KnownViews:
    """The features in files, as far as they can be read."""
    files = []
    for path in paths:
        with contextlib.suppress(CacheMissError, CorruptFileError):
            files.append(FeatureFile(path, allow_partial=True))
            files[-1].release()
    return KnownViews(files, *identities_by_view(backbone))
