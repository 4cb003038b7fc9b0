"""A web server in threads of the test, with the faults that servers have."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit


class WebServer:
    """Serves a folder, with pages that list its folders.

    Attributes:
        url: of the folder, without a slash at its end.
        latency: seconds before each answer.
        etags: whether answers have an ETag, made of the content.
        sends_parts: whether requests for parts of files are answered by these parts.
        sends_sizes: whether answers state the size.
        allows_head: whether HEAD is allowed, as it is not by presigned links for GET.
        statuses: {path: [statuses to answer before the real answer]}; a path is decoded, from the folder on.
        instead: {path: what answers for it in the place of the server, given the handler; ``answer`` sends an answer}.
        resets: {path: how often the connection breaks in the middle of the file}.
        query: the query that requests must have; "" for none.
        requests: how often each path was asked for, by method and path.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.latency = 0.0
        self.etags = self.sends_parts = self.sends_sizes = self.allows_head = True
        self.statuses: dict[str, list[int]] = {}
        self.resets: Counter[str] = Counter()
        self.instead: dict[str, Callable[[Handler], None]] = {}
        self.query = ""
        self.requests: Counter[tuple[str, str]] = Counter()
        self.connections: set[socket.socket] = set()
        self._server = _Listener(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End the server and all connections; new ones are refused from then on."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str = "") -> int:
        """The requests so far, of one method or of all."""
        return sum(number for (name, _), number in self.requests.items() if method in ("", name))


class _Listener(http.server.ThreadingHTTPServer):
    """Listens for a web server of the tests."""

    daemon_threads = True

    def __init__(self, site: WebServer, port: int) -> None:
        self.site = site
        super().__init__(("127.0.0.1", port), Handler)


class Handler(http.server.SimpleHTTPRequestHandler):
    server: _Listener

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object) -> None:
        super().__init__(*args, directory=str(args[2].site.folder))  # type: ignore[arg-type,attr-defined]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path).lstrip("/")
        self.server.site.requests[self.command, path] += 1
        time.sleep(self.server.site.latency)
        if path in self.server.site.instead:
            self.server.site.instead[path](self)
        elif queue := self.server.site.statuses.get(path):
            self._fail(queue.pop(0))
        elif self.command == "HEAD" and not self.server.site.allows_head:
            self._fail(405)
        elif self.server.site.query and parts.query != self.server.site.query:
            self._fail(403)
        elif (self.server.site.folder / path).is_dir():
            super().do_GET() if self.command == "GET" else super().do_HEAD()
        elif not (self.server.site.folder / path).is_file():
            self._fail(404)
        else:
            self._send((self.server.site.folder / path).read_bytes(), path)

    def _fail(self, status: int) -> None:
        self.answer(b"", status)

    def answer(self, data: bytes, status: int = 200, **headers: str) -> None:
        """Send an answer; underscores in the names of headers stand for hyphens."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send(self, data: bytes, path: str) -> None:
        whole, etag = len(data), hashlib.md5(data).hexdigest()
        wanted = self.headers.get("Range", "") if self.server.site.sends_parts else ""
        if wanted:
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or whole - 1), whole - 1)
            data = data[first : last + 1]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        if self.server.site.etags:
            self.send_header("ETag", f'"{etag}"')
        if self.server.site.sends_sizes:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.site.resets[path] > 0:
            self.server.site.resets[path] -= 1
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(data)

    def handle(self) -> None:
        self.server.site.connections.add(self.connection)
        with contextlib.suppress(OSError, ValueError):
            super().handle()
        self.server.site.connections.discard(self.connection)

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()


@contextlib.contextmanager
def web_server(folder: Path, port: int = 0) -> Iterator[WebServer]:
    """Serve a folder inside a ``with`` block."""
    server = WebServer(folder, port)
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            server.stop()
