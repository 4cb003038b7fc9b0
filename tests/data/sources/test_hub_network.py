"""The hub without a network: the caches count at once, and only while it is out of reach."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from featx.data.sources import hub_network
from featx.data.sources.hub_network import is_out_of_reach, offline_without_network

constants = pytest.importorskip("huggingface_hub.constants", reason="reads the hub")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_network, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(hub_network, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub() -> Iterator[str]:
    """The URL of a server."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def closed() -> str:
    """The URL of a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_the_client_of_the_hub_is_offline_while_the_hub_is_out_of_reach(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", closed())
    with offline_without_network():
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    with offline_without_network():
        assert not constants.is_offline_mode()


def test_what_is_behind_a_proxy_is_left_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_network, "getproxies", lambda: {"http": "http://proxy:3128"})
    monkeypatch.setattr(hub_network, "proxy_bypass", lambda _host: False)
    assert not is_out_of_reach(closed())
