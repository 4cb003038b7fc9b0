"""What a service accepts, and how long it waits. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, fields

from featx.errors import SettingsError

_PIXELS = 178_956_970  # as featx.data.decode.MAX_PIXELS, which would import Pillow here


@dataclass(frozen=True)
class Limits:
    """The limits of a service; each is checked before memory is taken or work begins.

    Attributes:
        request_bytes: bytes of the body of one request.
        image_bytes: bytes of one image file.
        images: image files in one request.
        pixels: pixels (width x height) of one image, judged by its header.
        queue: images that wait to be decoded; a request that does not fit gets 503.
        held_bytes: bytes of all bodies that are in memory; a request that does not fit gets 503.
        arrival_seconds: seconds in which the body of a request must arrive; its head has at most 10.
        connections: open connections; a further one takes the place of one that waits for a request.
        stop_seconds: seconds that requests in progress may take after the service was told to stop.

    Raises:
        SettingsError: a limit is no number above 0, or the queue has no room for one request.

    Examples:
        >>> Limits(images=8).images
        8
        >>> Limits(queue=10)
        Traceback (most recent call last):
        featx.errors.SettingsError: queue is 10 and images is 64; expected a queue that holds the images of a whole request
    """

    request_bytes: int = 64_000_000
    image_bytes: int = 32_000_000
    images: int = 64
    pixels: int = _PIXELS
    queue: int = 256
    held_bytes: int = 512_000_000
    arrival_seconds: float = 60.0
    connections: int = 256
    stop_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if field.name.endswith("_seconds") else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < float("inf"):
                what = "a number" if field.name.endswith("_seconds") else "a whole number"
                raise SettingsError(f"{field.name} is {value!r}; expected {what} above 0")
        if self.queue < self.images:
            raise SettingsError(
                f"queue is {self.queue} and images is {self.images}; expected a queue that holds the images of a whole request"
            )
        if self.held_bytes < self.request_bytes:
            raise SettingsError(
                f"held_bytes is {self.held_bytes} and request_bytes is {self.request_bytes}; expected room for the bytes of a "
                "whole request"
            )
