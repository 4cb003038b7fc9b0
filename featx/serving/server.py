"""The server of ``featx serve``: uvicorn, with time-outs for slow clients, a limit of connections, and an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from featx.errors import FeatxError
from featx.serving.limits import Limits

_BACKLOG = 1024
_LONGEST_HEAD = 1 << 16
"""Bytes of the head of a request, at most."""

_KEEP_ALIVE = 15
"""Seconds that an idle connection stays open."""

_HEAD_SECONDS = 10.0
"""Seconds in which the head of a request must arrive, if its body does not have less."""

_SPARED_SECONDS = 1.0
"""Seconds that a connection may wait for a request before it makes room for a new one."""

_TOO_MANY = json.dumps({"error": "the service has as many connections as it may; try again"}).encode()


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address, without listening yet.

    Args:
        host: a name or an address of this machine.
        port: 0 takes a free one.

    Raises:
        FeatxError: the address is taken, not allowed, or none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no name of a host"
        raise FeatxError(f"--host {host}: {why}; expected an address of this machine, such as 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _address_errors(host, port, listener):
        listener.bind(address)
    return listener


@contextlib.contextmanager
def _address_errors(host: str, port: int, listener: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        listener.close()
        raise FeatxError(
            f"cannot listen on port {port} of {host}: {error.strerror}; --port names another, and --port 0 takes a free one"
        ) from error


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches the address of a socket."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """The URL of a socket's address."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: FastAPI, listener: socket.socket, *, ready: Callable[[], object]) -> None:
    """Serve an app until a signal stops it: SIGINT or SIGTERM, of which a second one ends the process at once.

    Args:
        app: of ``create_app``.
        listener: as ``bind`` returns it.
        ready: called when clients can connect; an error that it raises ends the server before it begins.

    Raises:
        FeatxError: another process has taken the port meanwhile.
    """
    service = app.state.service
    logging.getLogger("python_multipart").setLevel(
        logging.ERROR
    )  # it warns of each malformed form, which any client can send
    host, port = listener.getsockname()[:2]
    with _address_errors(host, port, listener):
        listener.listen(_BACKLOG)
    config = uvicorn.Config(
        app,
        http=guarded(service.limits),
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(service.limits.stop_seconds)),
    )

    def stopping() -> None:
        service.stopping = True

    ready()  # connections wait in the backlog of the socket for the moment until the loop runs
    _Server(config, stopping).run([listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which returns after a signal instead of raising it again."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], object]) -> None:
        super().__init__(config)
        self._stopping = stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs."""
        if threading.current_thread() is not threading.main_thread():  # no other thread may handle signals
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is uvicorn's
        """Stop after the first signal; end at once after the second."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._stopping()
        self.should_exit = True


class _Guard:
    """The part of a protocol of HTTP that does not wait for ever: it is put before one of uvicorn's, of which it uses little.

    A connection is closed if the head of its next request does not arrive in time, or is too long. Where there are as many as
    there may be, a new one takes the place of the one that has waited longest for a request; if all are busy, it is closed with
    the status 503.
    """

    limits: Limits
    connections: set[Any]
    cycle: Any
    loop: asyncio.AbstractEventLoop
    timeout_keep_alive_task: asyncio.TimerHandle | None
    transport: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _since = 0.0

    @property
    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self._since = self.loop.time()
        if len(self.connections) > self.limits.connections and not self._takes_a_place():
            head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(_TOO_MANY)}"
            transport.write(f"{head}\r\nretry-after: 1\r\nconnection: close\r\n\r\n".encode() + _TOO_MANY)
            transport.close()
        else:
            self._arm()

    def _takes_a_place(self) -> bool:
        """Close the connection that has waited longest for a request, if there is one that has waited for long enough."""
        waiting = [each for each in self.connections if each is not self and each._waits_for_head]
        longest = min(waiting, key=lambda each: each._since, default=None)
        if longest is None or self.loop.time() - longest._since < _SPARED_SECONDS:
            return False
        longest.transport.abort()
        return True

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)  # type: ignore[misc]
        if not self._waits_for_head:
            self._disarm()
        elif self.timeout_keep_alive_task is None:  # a part of the next head is here
            self._head += len(data)
            if self._head > _LONGEST_HEAD:
                self.transport.abort()
            elif self._timer is None:
                self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)  # type: ignore[misc]

    def _arm(self) -> None:
        self._timer = self.loop.call_later(min(self.limits.arrival_seconds, _HEAD_SECONDS), self._give_up)

    def _disarm(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._waits_for_head:
            self.transport.abort()


def guarded(limits: Limits) -> type[Any]:
    """A protocol of HTTP for uvicorn with the limits of a service: that of httptools, or h11 where it is not installed."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Base
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as Base  # type: ignore[assignment]
    return type("GuardedProtocol", (_Guard, Base), {"limits": limits})
