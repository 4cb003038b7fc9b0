"""Requests to servers that fail for a moment: which faults pass, how often a request is repeated, and when a server is gone.

Standard library only: the exceptions of aiohttp, botocore, gcsfs and Azure are told apart by what they state of themselves.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import random
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from featx.data.urls import public, without_secrets
from featx.errors import RemoteError
from featx.text import brief, counted, form, listed

Result = TypeVar("Result")

TRIES = 6
"""The most times that a request is sent."""

LONGEST = 60.0
"""Seconds after which a request that keeps failing is not sent again."""

FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
"""Seconds: the longest pause before the second try, which doubles with each further one, and the longest of all."""

_MOST_FAULTS = 20
"""Requests in a row that failed in all tries, without one that was answered, after which a server counts as gone."""

PASSING_STATUS = {408, 420, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 529}
"""The HTTP statuses after which the same request may succeed later."""

_PASSING_ERRNO = {
    *(
        errno.EBUSY,
        errno.EAGAIN,
        errno.EINTR,
        errno.EIO,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    ),
    *(errno.ENETRESET, errno.ECONNABORTED, errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
_PASSING_WORDS = re.compile(
    r"throttl|slow ?down|server ?busy|too ?many ?requests|request ?rate|rate ?limit|rate ?exceeded|request ?timeout|"
    r"requesttimetooskewed|internal ?error|service ?unavailable|temporarily|timed? ?out|try ?again|connection (was )?(reset|"
    r"closed|aborted)|connection broken|endpoint ?connection|incomplete ?read|payload ?is ?not ?completed|not enough data|"
    r"server disconnected",
    re.IGNORECASE,
)
_PASSING_NAMES = re.compile(r"Timeout|Connection|Disconnected|Payload|IncompleteRead|Throttl|ServerBusy|ServiceRequest")
_CUT = re.compile(r"payload ?is ?not ?completed|not enough data|incomplete ?read|connection broken", re.IGNORECASE)
"""What errors state of an answer that ended too early."""

_NO_HTTP = re.compile(r"BadStatusLine|LineTooLong|UnknownProtocol|HTTPException|BadHttp|HttpProcessing")
"""Errors about an answer that is no HTTP, such as one with more bytes than it announces, after which the next begins amiss."""

_REFUSED = {401: "no permission", 403: "no permission", 407: "the proxy asks for a password"}


@dataclass(frozen=True)
class Fault:
    """What went wrong with a request.

    Attributes:
        cause: in words, without secrets.
        missing: there is no such file.
        passing: the same request may succeed later.
        silent: the server has not answered at all.
        delay: seconds after which the server asks to be asked again; 0 if it does not state any.
    """

    cause: str
    missing: bool = False
    passing: bool = False
    silent: bool = False
    delay: float = 0.0


def fault_of(error: BaseException) -> Fault:
    """Tell what an exception of a request means.

    Examples:
        >>> fault_of(FileNotFoundError("a.jpg")).missing, fault_of(ConnectionResetError()).passing
        (True, True)
    """
    chain = list(_chain(error))
    if any(_CUT.search(f"{type(each).__name__} {each}") for each in chain):
        return Fault(
            "the connection broke before all of the answer had arrived",
            passing=True,
            silent=any(map(_is_silent, chain)),
        )
    if any(_NO_HTTP.search(type(each).__name__) for each in chain):
        return Fault("the answer was no valid HTTP", passing=True)
    broken = bool(_PASSING_NAMES.search(type(error).__name__))
    status = 0 if broken else next((found for each in chain if (found := _status(each))), 0)
    cause = _words(error, chain, status)
    if status:
        missing = status in (404, 410)
        return Fault(cause, missing=missing, passing=status in PASSING_STATUS, delay=_retry_after(chain))
    if any(isinstance(each, socket.gaierror) and not _is_silent(each) for each in chain):
        return Fault("there is no such server")
    if any(map(_is_silent, chain)):
        return Fault(cause, passing=True, silent=True)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | KeyError):
        return Fault(cause, missing=not isinstance(error, IsADirectoryError))
    if isinstance(error, PermissionError):
        return Fault(cause)
    passing = any(_PASSING_WORDS.search(str(each)) or _PASSING_NAMES.search(type(each).__name__) for each in chain)
    return Fault(cause, passing=passing)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _status(error: BaseException) -> int:
    """The HTTP status that an exception states, or 0."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = next(
            (value for name in ("status", "status_code", "code") if (value := getattr(error, name, None))), None
        )
    try:
        number = int(found)
    except (TypeError, ValueError):
        return 0
    return number if 300 <= number < 600 else 0


def _is_silent(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | asyncio.TimeoutError | ConnectionError):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN  # otherwise there is no such server
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNO - {errno.EBUSY}:
        return True
    return bool(re.search(r"ServerDisconnected|FSTimeout|EndpointConnection", type(error).__name__))


def _retry_after(chain: list[BaseException]) -> float:
    for error in chain:
        headers = getattr(error, "headers", None)
        if headers is not None and hasattr(headers, "get"):
            try:
                return max(0.0, float(headers.get("Retry-After") or 0))
            except (TypeError, ValueError):
                continue
    return 0.0


def _words(error: BaseException, chain: list[BaseException], status: int) -> str:
    if status:
        reason = next((str(found) for each in chain if (found := getattr(each, "message", None))), "")
        return f"HTTP status {status}{f' ({reason})' if reason and len(reason) < 60 else ''}" + (
            f": {_REFUSED[status]}" if status in _REFUSED else ""
        )
    if isinstance(error, FileNotFoundError):
        deeper = [each for each in chain[1:] if _is_silent(each)]
        return _text(deeper[0]) if deeper else "there is no such file"
    return _text(error)


def _text(error: BaseException) -> str:
    if (
        isinstance(inner := getattr(error, "os_error", None), OSError)
        and inner.errno
        and not isinstance(inner, socket.gaierror)
    ):
        return os.strerror(inner.errno)  # aiohttp's own text repeats the server
    if isinstance(error, TimeoutError | asyncio.TimeoutError) and str(error) in ("", "timed out"):
        return "it did not answer in time"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer ended early"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the server is not trusted ({error.verify_message}); the variable SSL_CERT_FILE names a file "
            "of certificates to trust"
        )
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "the server does not speak TLS there; its URL may have to begin with http://"
    if isinstance(error, OSError) and error.strerror and not hasattr(error, "host"):
        return str(error.strerror)
    return without_secrets(brief(Exception(str(error)))) if str(error) else type(error).__name__


@dataclass
class _Server:
    """What is known of one server.

    Attributes:
        answered: the time of the last request that succeeded.
        faults: requests since then that failed in all tries.
        repeated: how many requests were repeated, by cause, since that was last told.
        gone: set when the server counts as gone, so that no thread waits for it any longer.
    """

    answered: float = 0.0
    faults: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    gone: threading.Event = field(default_factory=threading.Event)


_servers: dict[str, _Server] = {}
_lock = threading.Lock()


def server_of(location: str) -> str:
    """The server or bucket of a URL: what is gone when it does not answer."""
    parts = urlsplit(public(location))
    return f"{parts.scheme}://{parts.netloc}"


def persistently(request: Callable[[], Result], location: str) -> Result:
    """Send a request, and send it again, with growing and random pauses, while its faults may pass.

    Args:
        request: sends it; its exceptions are told apart by ``fault_of``.
        location: the URL that it is for.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the server refuses the request, or it failed in all tries while others to the same server succeed.
        RemoteError: the server does not answer any more.
    """
    name = server_of(location)
    with _lock:
        server = _servers.setdefault(name, _Server())
    started = time.monotonic()
    for attempt in range(1, TRIES + 1):
        try:
            result = request()
        except (MemoryError, RemoteError):
            raise
        except Exception as error:
            fault = fault_of(error)
            if not fault.passing:
                server.answered, server.faults = time.monotonic(), 0
                raise (FileNotFoundError if fault.missing else OSError)(fault.cause) from error
            elapsed = time.monotonic() - started
            if attempt == TRIES or elapsed > LONGEST or server.gone.is_set():
                _give_up(server, name, fault, started, attempt)
                raise OSError(
                    f"{fault.cause}, in {form(attempt, 'the only try', f'all of {attempt} tries')}"
                ) from error
            with _lock:
                server.repeated[fault.cause] += 1
            server.gone.wait(_pause(attempt, fault))
        else:
            server.answered, server.faults = time.monotonic(), 0
            server.gone.clear()
            return result
    raise AssertionError("the loop returns or raises")


def _pause(attempt: int, fault: Fault) -> float:
    """Seconds before the next try: random, so that many threads do not come back at once."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1))
    return min(LONGEST_DELAY, fault.delay) + random.uniform(longest / 2, longest)


def _give_up(server: _Server, name: str, fault: Fault, started: float, tries: int) -> None:
    """Count a request that failed in all tries.

    Raises:
        RemoteError: nothing was answered meanwhile, by this server or another, so that the run cannot go on.
    """
    with _lock:
        server.faults += 1
        if not server.answered > started and (fault.silent or server.faults >= _MOST_FAULTS):
            server.gone.set()
        # Of a table with images of many servers, those of one that is gone fail alone.
        if server.gone.is_set() and not any(each.answered > started for each in _servers.values()):
            seconds = time.monotonic() - started
            raise RemoteError(
                f"{name} does not answer: {fault.cause}, {counted(tries, 'try', 'tries')} in {seconds:.0f} s. What is done is "
                "kept; the same command goes on from there once the server answers"
            )


def repeated_requests() -> list[str]:
    """A sentence for each server that requests were repeated to since this was last called."""
    with _lock:
        told = {name: server.repeated.copy() for name, server in _servers.items() if server.repeated}
        for name in told:
            _servers[name].repeated.clear()
    return [
        f"{name}: {counted(causes.total(), 'request')} had to be sent again "
        f"({listed([f'{cause}: {count}' for cause, count in causes.most_common()], most=3)})"
        for name, causes in told.items()
    ]
