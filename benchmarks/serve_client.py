"""A client of HTTP that costs little: requests are encoded before, connections stay open, and answers are barely parsed.

``bench_serve.py`` runs it as a process of its own:

    python benchmarks/serve_client.py PORT CLIENTS SECONDS FOLDER [form]

It prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def request(body: bytes, path: str = "/predict", kind: str = "image/jpeg") -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def form(*files: bytes) -> bytes:
    """The body of a form with image files, whose boundary is "b"."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return b"".join(head + data + b"\r\n" for data in files) + b"--b--\r\n"


class Client(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last one is there.

    Args:
        requests: in turn.
        until: time of ``perf_counter`` after which no more are sent.
        seconds: gets the duration of each request.
        done: is set at the end.
    """

    def __init__(self, requests: list[bytes], until: float, seconds: list[float], done: asyncio.Future[None]) -> None:
        self._requests, self._until, self._seconds, self._done = requests, until, seconds, done
        self._sent, self._buffer, self._began = 0, b"", 0.0

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._sent % len(self._requests)])
        self._sent += 1

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length:")
        if len(self._buffer) < head + 4 + int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)]):
            return
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(RuntimeError(self._buffer[:400].decode(errors="replace")))
            return
        now = time.perf_counter()
        self._seconds.append(now - self._began)
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            self._done.set_result(None)


async def load(port: int, clients: int, seconds: float, requests: list[bytes]) -> dict[str, float]:
    """Send requests on so many connections at once: answers/s, milliseconds of each, and of the client's own processor time."""
    loop, times, ends = asyncio.get_running_loop(), list[float](), list[asyncio.Future[None]]()
    used, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for number in range(clients):
        done = loop.create_future()
        own = requests[number % len(requests) :] + requests[: number % len(requests)]
        await loop.create_connection(
            lambda own=own, done=done: Client(own, began + seconds, times, done), "127.0.0.1", port
        )
        ends.append(done)
    await asyncio.gather(*ends)
    elapsed, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    times.sort()
    own_time = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {
        "requests": len(times),
        "per_second": round(len(times) / elapsed, 1),
        "p50_ms": round(1000 * times[len(times) // 2], 1),
        "p99_ms": round(1000 * times[min(len(times) - 1, int(0.99 * len(times)))], 1),
        "client_ms": round(1000 * own_time / len(times), 3),
    }


def main() -> None:
    """Print one JSON line."""
    port, clients, seconds, folder = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    files = [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))]
    if "form" in sys.argv[5:]:
        requests = [request(form(data), kind="multipart/form-data; boundary=b") for data in files]
    else:
        requests = [request(data) for data in files]
    print(json.dumps(asyncio.run(load(port, clients, seconds, requests))))


if __name__ == "__main__":
    main()
