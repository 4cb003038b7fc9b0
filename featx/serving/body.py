"""The body of a request: received within limits, and taken apart into image files."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from featx.serving.limits import Limits
from featx.text import counted, size_text

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
"""The function ``receive`` of ASGI."""

FIELDS = ("file", "files", "image", "images")
"""The fields of a form that hold an image file even if they lack a name of the file."""

_DRAINED_SECONDS = 5.0
"""How long the rest of a refused body is read, so that the client sees the answer instead of a broken connection."""

_DRAINED = 4
"""How many times as many bytes as a request may have are read then."""

_TEXT = ("application/json", "text/")


class RefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        reason: a sentence for the client.
        headers: of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


@dataclass(frozen=True)
class Upload:
    """One image file of a request.

    Attributes:
        name: as the client named it, or "image 0", "image 1", ... by its place.
        data: the bytes.
    """

    name: str
    data: bytes


def busy(reason: str) -> RefusedError:
    """The refusal of a request that may succeed a little later."""
    return RefusedError(503, reason, {"Retry-After": "1"})


class Held:
    """Counts the bytes of the bodies that are in memory.

    Args:
        limit: of all together.

    Examples:
        >>> held = Held(100)
        >>> with held.share() as take:
        ...     take(60)
        ...     held.bytes
        60
        >>> held.bytes
        0
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._lock = threading.Lock()  # an app may run in several event loops

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that counts more bytes, until the end of the block.

        The function raises RefusedError if the bytes of all requests would exceed the limit.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            with self._lock:
                if self.bytes + count > self.limit:
                    raise busy("the service holds as many bytes of other requests as it may; try again")
                self.bytes += count
                taken += count

        try:
            yield take
        finally:
            with self._lock:
                self.bytes -= taken


async def read_body(receive: Receive, headers: Mapping[str, str], limits: Limits, take: Callable[[int], None]) -> bytes:
    """Receive the whole body of a request.

    Args:
        receive: of ASGI.
        headers: by lower-case name.
        limits: of the bytes, and of the time.
        take: counts bytes, as ``Held.share`` yields it.

    Raises:
        RefusedError: the body is too large or too slow, or there is no room for it now.
        ConnectionResetError: the client is gone.
    """
    arrival = _Arrival(receive)
    try:
        async with asyncio.timeout(limits.arrival_seconds):
            return await _within_limits(arrival, headers.get("content-length", ""), limits, take)
    except TimeoutError:
        reason = f"the body did not arrive within {limits.arrival_seconds:g} seconds"
        raise RefusedError(408, reason, {"Connection": "close"}) from None
    except RefusedError as error:
        if "expect" not in headers:  # a client that waits for 100 Continue has sent nothing yet
            await _drain(arrival, _DRAINED * limits.request_bytes)
        if not arrival.ended:
            error.headers["Connection"] = "close"
        raise


async def _within_limits(arrival: _Arrival, length: str, limits: Limits, take: Callable[[int], None]) -> bytes:
    too_large = RefusedError(
        413, f"the request has too many bytes; at most {size_text(limits.request_bytes)} are accepted"
    )
    if length.isdigit() and (len(length) > 15 or int(length) > limits.request_bytes):
        raise too_large
    parts, size = [], 0
    while not arrival.ended:
        chunk = await arrival.chunk()
        size += len(chunk)
        if size > limits.request_bytes:
            raise too_large
        take(len(chunk))
        parts.append(chunk)
    return b"".join(parts)


class _Arrival:
    """The body of a request as it arrives.

    Attributes:
        ended: whether all of it is here.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self.ended = receive, False

    async def chunk(self) -> bytes:
        """Wait for the next bytes.

        Raises:
            ConnectionResetError: the client is gone.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client is gone")
        self.ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk


async def _drain(arrival: _Arrival, most: int) -> None:
    """Read and drop the rest of a body, for a while."""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(_DRAINED_SECONDS):
            while not arrival.ended and most >= 0:
                most -= len(await arrival.chunk())


def uploads(body: bytes, headers: Mapping[str, str], limits: Limits) -> list[Upload]:
    """Take a body apart into image files: those of a form, or the one that it is itself.

    Args:
        body: the bytes.
        headers: by lower-case name.
        limits: of the number of images, and of the bytes of each.

    Raises:
        RefusedError: the body is malformed, of another type, holds no image, or exceeds a limit.
    """
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise RefusedError(415, "the body has a Content-Encoding; send image files as they are")
    kind, options = parse_options_header(headers.get("content-type", ""))
    media_type = kind.decode("latin-1").lower()
    if media_type == "multipart/form-data":
        found = _form(body, options.get(b"boundary", b""), limits)
    elif media_type.startswith(_TEXT):
        raise RefusedError(
            415,
            f"the body is {media_type[:80]}; expected a form (multipart/form-data) with image files, or the bytes of one image "
            "(such as image/jpeg, or application/octet-stream)",
        )
    else:  # whatever a client names the bytes of a file, such as curl --data-binary: their content decides
        found = [Upload("image 0", body)]
    for upload in found:
        if len(upload.data) > limits.image_bytes:
            raise RefusedError(
                413,
                f"{upload.name} has {size_text(len(upload.data))}; at most {size_text(limits.image_bytes)} are accepted for "
                "one image",
            )
    return found


@dataclass
class _Part:
    """A part of a form while it is parsed."""

    name: bytes = b""
    value: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: list[bytes] = field(default_factory=list)


class _Form:
    """Collects the parts of a form from the callbacks of a parser."""

    def __init__(self, limits: Limits) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._most = limits.images

    def callbacks(self) -> dict[str, Any]:
        """What ``MultipartParser`` calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add("name", data[start:end]),
            "on_header_value": lambda data, start, end: self._add("value", data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self.parts[-1].data.append(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == self._most:
            raise RefusedError(413, f"the request has more than {counted(self._most, 'image')}; send several requests")
        self.parts.append(_Part())

    def _add(self, name: str, text: bytes) -> None:
        setattr(self.parts[-1], name, getattr(self.parts[-1], name) + text)

    def _end_header(self) -> None:
        part = self.parts[-1]
        part.headers[part.name.lower()] = part.value
        part.name = part.value = b""

    def _end(self) -> None:
        self.ended = True


def _form(body: bytes, boundary: bytes, limits: Limits) -> list[Upload]:
    if not boundary:
        raise RefusedError(400, "the Content-Type is multipart/form-data without a boundary")
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RefusedError(400, "the body is not a valid form (multipart/form-data)") from error
    if not form.ended:
        raise RefusedError(400, "the body is not a valid form (multipart/form-data): it ends too early")
    found = []
    for number, part in enumerate(form.parts):
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        field_name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options and field_name not in FIELDS:
            raise RefusedError(
                422,
                f"the field {field_name[:80]!r} of the form is no file; send image files in fields named files (addresses of "
                "images are never fetched)",
            )
        name = options.get(b"filename", b"").decode("utf-8", "replace") or f"image {number}"
        found.append(Upload(name, b"".join(part.data)))
    if not found:
        raise RefusedError(422, "the form has no image; send image files in fields named files")
    return found
