"""The Hugging Face hub without a network: what is in the caches counts at once, instead of half a minute of silent tries."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_PATIENCE, _PAUSES = 5.0, (0.0, 1.0)
"""Seconds to wait for a connection to the hub, and before each try."""


@contextlib.contextmanager
def offline_without_network() -> Iterator[None]:
    """Let the client of the hub, and ``datasets``, take what is in their caches in this block if the hub cannot be reached.

    They would try it again and again for half a minute or more.
    """
    try:
        from huggingface_hub import constants
    except ImportError:  # whoever needs it says so
        yield
        return
    configs: list[Any] = [constants, *([sys.modules["datasets"].config] if "datasets" in sys.modules else [])]
    before = [config.HF_HUB_OFFLINE for config in configs]
    if not any(before) and is_out_of_reach(constants.ENDPOINT):
        for config in configs:
            config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for config, was_offline in zip(configs, before, strict=True):
            config.HF_HUB_OFFLINE = was_offline


def is_out_of_reach(endpoint: str) -> bool:
    """Whether no connection to a server can be made, nor shortly after; what is behind a proxy cannot be told.

    Args:
        endpoint: its URL.

    Examples:
        >>> is_out_of_reach("http://127.0.0.1:9")  # nothing listens there
        True
    """
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if getproxies().get(parts.scheme) and not proxy_bypass(host):
        return False
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            socket.create_connection((host, port), _PATIENCE).close()
        except TimeoutError:
            return True
        except OSError:
            continue
        else:
            return False
    return True
