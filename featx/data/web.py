"""Files of web servers, read by HTTP over connections that are kept for the next request. Standard library only.

Many small files are read one after the other, so a request must cost little processor time; ``benchmarks/sources_remote.py``
measures it.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import errno
import functools
import http.client
import netrc
import os
import re
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from featx._version import __version__
from featx.data.file_bytes import MAX_BYTES
from featx.data.retries import PASSING_STATUS
from featx.data.urls import legal
from featx.text import size_text

LARGEST_WHOLE = 1 << 29
"""The largest file that is fetched whole, into memory, from a server that sends no parts of files."""

_CONNECT, _SILENCE = 20, 60
"""Seconds to wait for a connection, and for the next bytes of an answer."""

_KEPT = 64
"""Connections to one server that are kept for later requests."""

_FRESH = 15.0
"""Seconds for which a connection is kept; servers close those that are idle for longer."""

_REDIRECTS = 10
_MOVED = {301, 302, 303, 307, 308}

_BLOCK = 1 << 16

Info = dict[str, Any]


class HttpError(OSError):
    """A web server answered with an error.

    Attributes:
        code: the HTTP status.
        message: its reason, as the server words it.
        headers: of the answer.
    """

    def __init__(self, code: int, message: str, headers: http.client.HTTPMessage) -> None:
        super().__init__(errno.EIO, f"HTTP status {code}")
        self.code, self.message, self.headers = code, message, headers


class WebFiles:
    """The files of web servers by their URLs, with the methods of fsspec's file systems that featx needs.

    The methods may be called from many threads. Headers, such as ``Authorization``, are taken from fsspec's configuration of
    ``http`` and ``https`` (``client_kwargs``), a user and a password from the URL or from ``~/.netrc``, and proxies from the
    environment (``HTTPS_PROXY``, ``NO_PROXY``), as by curl and pip.
    """

    def info(self, url: str) -> Info:
        """What a server states about a file: its size in bytes (None where it does not tell) and its version.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the server refuses to tell, or cannot be reached.
        """
        # Many servers refuse HEAD (links that are signed for GET, for example) or leave out the size.
        with contextlib.suppress(_RefusedHeadError), _answer("HEAD", url) as answer:
            if answer.status not in PASSING_STATUS and (answer.status >= 400 or answer.size is None):
                raise _RefusedHeadError
            answer.require_success()
            return answer.info(answer.size)
        with _answer("GET", url) as answer:
            answer.require_success()
            return answer.info(answer.size)

    def cat_file(self, url: str, start: int | None = None, end: int | None = None) -> bytes:
        """Read a file, or the part of it from ``start`` up to ``end``, all of it where the server sends no parts.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the server refuses, cannot be reached, or would send a huge file for a part of it.
        """
        if start is None or end is None:
            with _answer("GET", url) as answer:
                answer.require_success()
                return answer.read(None)
        with _answer("GET", url, {"Range": f"bytes={start}-{end - 1}"}) as answer:
            answer.require_success()
            if answer.status == 206:
                return answer.read(None)
            if answer.size is not None and answer.size > max(LARGEST_WHOLE, end - start):
                raise OSError(
                    errno.EOPNOTSUPP,
                    f"the server sends files only whole, and this one has {size_text(answer.size)}; copy it to this machine",
                )
            return answer.read(LARGEST_WHOLE)

    def fetch(self, url: str, admit: Callable[[int], None]) -> tuple[bytes, Info]:
        """Read an image whole, with what the server states about it.

        Args:
            url: of the file.
            admit: called with its size in bytes, 0 where the server does not state it, before it is read; what it raises
                ends the request.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the server refuses, cannot be reached, sends less than it has stated, or more than an image may have.
        """
        with _answer("GET", url) as answer:
            answer.require_success()
            admit(answer.size or 0)
            data = answer.read(MAX_BYTES)
            return data, answer.info(len(data))


class _RefusedHeadError(Exception):
    """A server does not answer HEAD as it answers GET."""


class _Answer:
    """The answer to a request, whose content is not read yet.

    Attributes:
        status: of HTTP.
        headers: their names in any case.
        size: bytes of the file that the server states; None if it does not.
    """

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self.status, self.headers = response.status, response.headers
        self._response, self._url = response, url
        self._coding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        length = response.headers.get("Content-Length") if self._coding == "identity" else None
        self.size = int(length) if length and length.isdecimal() else None

    def require_success(self) -> None:
        """Check the status.

        Raises:
            FileNotFoundError: there is no such file.
            HttpError: it is another than of success.
        """
        if self.status in (404, 410):
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self._url)
        if not 200 <= self.status < 300:
            raise HttpError(self.status, self._response.reason, self.headers)

    def info(self, size: int | None) -> Info:
        """What the answer states about the file, in the terms of fsspec."""
        versions = {key: found for key in ("ETag", "Content-MD5", "Digest") if (found := self.headers.get(key))}
        return {"type": "file", "size": size, "mimetype": self.headers.get("Content-Type") or "", **versions}

    def read(self, most: int | None) -> bytes:
        """The content, without the compression that a server added unasked.

        Raises:
            OSError: it ends early, or is larger than ``most`` bytes, which counts where no size is stated.
        """
        if self.size is not None:
            return self._response.read()  # checks the length
        plain = _plain_parts(iter(lambda: self._response.read(_BLOCK), b""), self._coding)
        parts, size = [], 0
        for part in plain:
            parts.append(part)
            size += len(part)
            if most is not None and size > most:
                raise OSError(errno.EFBIG, f"has more than {most:,} bytes, which is the most that is read")
        return b"".join(parts)


def _plain_parts(parts: Iterator[bytes], coding: str) -> Iterator[bytes]:
    if coding == "identity":
        yield from parts
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise OSError(errno.EOPNOTSUPP, f"the server sends it compressed in an unknown way ({coding})")
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        for part in parts:
            yield decoder.decompress(part, _BLOCK)
            while decoder.unconsumed_tail:
                yield decoder.decompress(decoder.unconsumed_tail, _BLOCK)
        yield decoder.flush()
    except zlib.error as error:
        raise OSError(errno.EIO, "the server sends it compressed, and that is damaged") from error
    if not decoder.eof:
        raise http.client.IncompleteRead(b"")


@contextlib.contextmanager
def _answer(method: str, url: str, headers: Mapping[str, str] | None = None) -> Iterator[_Answer]:
    """Send a request, follow redirects, and give the connection back if the content was read to its end."""
    target = urlsplit(url)
    secrets = _credentials(target)
    for _ in range(_REDIRECTS + 1):
        connection, response = _exchange(method, target, {**secrets, **(headers or {})})
        try:
            where = response.headers.get("Location")
            if response.status not in _MOVED or not where:
                yield _Answer(response, url)
                return
            response.read(_BLOCK)
        finally:
            _give_back(connection, response, target)
        # Some servers send names as they are, with spaces and in UTF-8; http.client decodes headers as Latin-1.
        named = where.strip().encode("latin-1").decode("utf-8", "surrogateescape")
        moved = urlsplit(urljoin(target.geturl(), legal(named)))
        if moved.scheme not in ("http", "https") or not moved.hostname:
            raise HttpError(response.status, f"redirects to {moved.scheme}://", response.headers)
        if moved[:2] != target[:2]:
            secrets = _credentials(moved, is_asked=False)
        target = moved
    raise HttpError(response.status, f"redirects more than {_REDIRECTS} times", response.headers)


def _exchange(
    method: str, target: SplitResult, headers: Mapping[str, str]
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send one request over a kept connection, or a new one if there is none or the server has closed it meanwhile."""
    path = target.path or "/"
    path = f"{path}?{target.query}" if target.query else path
    proxy = _proxy(target.scheme, target.netloc.rpartition("@")[2])
    if proxy and target.scheme == "http":
        path = f"http://{target.netloc.rpartition('@')[2]}{path}"
        headers = {**_proxy_headers(proxy), **headers}
    sent = {"User-Agent": f"featx/{__version__}", "Accept": "*/*", **headers}
    for connection, is_kept in _connections(target, proxy):
        try:
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            if method == "HEAD":
                response.read()  # nothing, but it ends the answer
            return connection, response
        except (ConnectionError, ssl.SSLEOFError):
            connection.close()
            if not is_kept:
                raise
        except BaseException:
            connection.close()
            raise
    raise AssertionError("the last connection is a new one")


def _connections(target: SplitResult, proxy: str) -> Iterator[tuple[http.client.HTTPConnection, bool]]:
    """A kept connection, if there is one, and a new one."""
    if (kept := _kept.take(target[:2])) is not None:
        yield kept, True
    host, port = target.hostname or "", target.port
    through = urlsplit(proxy) if proxy else None
    made: http.client.HTTPConnection
    if target.scheme == "https":
        at, port_at = (through.hostname or "", through.port) if through else (host, port)
        made = http.client.HTTPSConnection(at, port_at, timeout=_CONNECT, context=_tls())
        if through:
            made.set_tunnel(host, port or 443, _proxy_headers(proxy))
    elif through:
        made = http.client.HTTPConnection(through.hostname or "", through.port, timeout=_CONNECT)
    else:
        made = http.client.HTTPConnection(host, port, timeout=_CONNECT)
    made.connect()
    made.sock.settimeout(_SILENCE)
    yield made, False


def _give_back(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, target: SplitResult) -> None:
    """Keep a connection whose answer was read to its end; close any other."""
    if response.isclosed() and connection.sock is not None:
        _kept.put(target[:2], connection)
    else:
        response.close()
        connection.close()


class _Connections:
    """Connections to servers that wait for the next request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, ...], list[tuple[float, http.client.HTTPConnection]]] = {}

    def take(self, server: tuple[str, ...]) -> http.client.HTTPConnection | None:
        """The connection that was used last, if it is fresh enough."""
        with self._lock:
            idle = self._idle.get(server, [])
            while idle:
                since, connection = idle.pop()
                if time.monotonic() - since < _FRESH:
                    return connection
                connection.close()
        return None

    def put(self, server: tuple[str, ...], connection: http.client.HTTPConnection) -> None:
        """Keep a connection."""
        with self._lock:
            idle = self._idle.setdefault(server, [])
            if len(idle) < _KEPT:
                idle.append((time.monotonic(), connection))
                return
        connection.close()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for idle in self._idle.values():
                for _, connection in idle:
                    connection.close()
            self._idle.clear()


_kept = _Connections()
atexit.register(_kept.close)


def _forget() -> None:
    """A process that was forked has no part in the connections of the other."""
    global _kept
    _kept = _Connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@functools.lru_cache(maxsize=64)
def _proxy(scheme: str, server: str) -> str:
    """The URL of the proxy for requests to a server; "" for none."""
    found = getproxies().get(scheme, "")
    if not found or proxy_bypass(server):
        return ""
    return found if "://" in found else f"http://{found}"


def _proxy_headers(proxy: str) -> dict[str, str]:
    user = _user_of(urlsplit(proxy))
    return {"Proxy-Authorization": user} if user else {}


def _credentials(target: SplitResult, *, is_asked: bool = True) -> dict[str, str]:
    """The headers that grant access to a server: those that are configured, if the user asked for it, and its own user."""
    configured = _configured(target.scheme) if is_asked else {}
    user = _user_of(target)
    if not user and "authorization" not in {name.lower() for name in configured}:
        user = _user_of_netrc(target.hostname or "")
    return {**configured, "Authorization": user} if user else configured


def _user_of(target: SplitResult) -> str:
    if not target.username:
        return ""
    return _basic(unquote(target.username), unquote(target.password or ""))


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@functools.lru_cache(maxsize=64)
def _user_of_netrc(host: str) -> str:
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc(os.environ.get("NETRC") or None).hosts.get(host)  # not the default entry: it is for FTP
        if found:
            return _basic(found[0], found[2] or "")
    return ""


@functools.cache
def _configured(scheme: str) -> dict[str, str]:
    """The headers that fsspec is configured to send."""
    try:
        from fsspec.config import conf
    except ImportError:
        return {}
    settings = conf.get(scheme, {})
    headers = {**settings.get("client_kwargs", {}).get("headers", {}), **settings.get("headers", {})}
    return {str(name): str(value) for name, value in headers.items() if re.fullmatch(r"[\w-]+", str(name))}
