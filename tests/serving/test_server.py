"""The server in a thread: slow and greedy clients, an orderly stop, and its pages in a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Chromium
from pictures import file_of, noise

from featx.errors import FeatxError
from featx.serving import server
from featx.serving.creation import create_app
from featx.serving.limits import Limits

pytest.importorskip("uvicorn", reason="a service needs uvicorn")

PNG = file_of(noise(8, 8))
POST = f"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: image/png\r\nContent-Length: {len(PNG)}\r\n\r\n".encode()


class Running:
    """A server in a thread, and what its clients need."""

    def __init__(self, app: Any, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if protocol == "h11":
            monkeypatch.setitem(__import__("sys").modules, "uvicorn.protocols.http.httptools_impl", None)
        self.app, self.servers = app, list[server._Server]()
        monkeypatch.setattr(server._Server, "startup", self._noting(server._Server.startup))
        listener = server.bind("127.0.0.1", 0)
        self.url, ready = server.url_of(listener), threading.Event()
        self.port = listener.getsockname()[1]
        self.thread = threading.Thread(target=server.run, args=(app, listener), kwargs={"ready": ready.set})
        self.thread.start()
        assert ready.wait(20)
        while not (self.servers and self.servers[0].started):
            time.sleep(0.01)

    def _noting(self, startup: Any) -> Any:
        async def noted(started: Any, sockets: Any = None) -> None:
            self.servers.append(started)
            await startup(started, sockets)

        return noted

    def stop(self) -> None:
        """What a signal does, which only the main thread can handle."""
        self.servers[0].handle_exit(15, None)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(10)
        return connection

    def predict(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/predict", PNG)
        status = connection.getresponse().status
        connection.close()
        return status


@pytest.fixture(params=["httptools", "h11"])
def protocol(request: pytest.FixtureRequest) -> str:
    if request.param == "httptools":
        pytest.importorskip("httptools", reason="tests the protocol that httptools parses")
    return str(request.param)


@contextlib.contextmanager
def running(model: Any, monkeypatch: pytest.MonkeyPatch, protocol: str = "h11", **options: Any) -> Iterator[Running]:
    found = Running(create_app(model, compute="eager", **options), protocol, monkeypatch)
    try:
        yield found
    finally:
        found.stop()
        found.thread.join(20)
        assert not found.thread.is_alive()


def status(connection: socket.socket) -> int:
    """The status of one answer, which is read whole, in however many pieces it arrives; the connection stays open."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def received(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_slow_clients_lose_their_connection_and_do_not_disturb_others(
    model: Any, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(arrival_seconds=0.4)
    with running(model, monkeypatch, protocol, limits=limits) as service:
        silent, slow_head, slow_body, again = (service.connect() for _ in range(4))
        slow_head.sendall(b"POST /predict HT")
        slow_body.sendall(POST + PNG[:10])
        again.sendall(POST + PNG)
        assert status(again) == 200
        again.sendall(b"GET /healthz HTTP/1.1\r\nHo")  # its second request never arrives whole
        assert service.predict() == 200
        began = time.monotonic()
        assert received(silent) == received(slow_head) == received(again).partition(b"HTTP/")[0] == b""
        answer = received(slow_body)
        assert time.monotonic() - began < 8
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not arrive within 0.4 seconds" in answer
        assert service.predict() == 200


def test_connections_above_the_limit_get_503_and_heads_without_end_are_cut_off(
    model: Any, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(model, monkeypatch, protocol, limits=Limits(connections=2)) as service:
        first, second = service.connect(), service.connect()
        third = service.connect()
        answer = received(third)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].startswith("the service has as many connections")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                first.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000)
        assert not received(first).startswith(b"HTTP/1.1 2")
        second.close()
        for _ in range(100):
            with contextlib.suppress(http.client.HTTPException, OSError):
                if service.predict() == 200:
                    return
            time.sleep(0.02)
        pytest.fail("no connection became free")


def test_connections_that_send_nothing_make_room_for_new_ones(
    model: Any, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_SPARED_SECONDS", 0.1)
    with running(model, monkeypatch, protocol, limits=Limits(connections=3)) as service:
        kept = service.connect()
        kept.sendall(POST + PNG)
        assert status(kept) == 200  # and waits for its next request, but not for as long
        time.sleep(0.05)
        silent = [service.connect() for _ in range(2)]
        kept.sendall(POST + PNG)
        assert status(kept) == 200
        time.sleep(0.15)
        assert service.predict() == 200
        assert received(silent[0]) == b""
        kept.sendall(POST + PNG)
        assert status(kept) == 200


def test_clients_that_die_in_the_middle_leave_nothing_behind(
    model: Any, protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(model, monkeypatch, protocol) as service:
        for sent in (POST, POST + PNG[:20], POST + PNG, b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n"):
            connection = service.connect()
            connection.sendall(sent)
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )  # a reset, as of a killed process
            connection.close()
        assert service.predict() == 200
        held = service.app.state.service.held
        deadline = time.monotonic() + 10
        while held.bytes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert held.bytes == 0
    assert "Traceback" not in caplog.text


def test_a_client_sees_why_its_request_was_too_large_even_while_it_is_sending(
    model: Any, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(model, monkeypatch, protocol, limits=Limits(request_bytes=1_000_000)) as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
        connection.request("POST", "/predict", bytes(3_000_000))
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["error"]) == (
            413,
            "the request has too many bytes; at most 1.0 MB are accepted",
        )
        waiting = service.connect()
        waiting.sendall(b"POST /predict HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")
        assert received(waiting).startswith(b"HTTP/1.1 413 ")


def test_a_stop_answers_what_is_there_refuses_what_is_late_and_ends(
    model: Any, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(model, compute="eager", limits=Limits(stop_seconds=1))
    service, gate = Running(app, protocol, monkeypatch), threading.Event()
    batcher = app.state.service.batcher
    decode = batcher._decode
    monkeypatch.setattr(batcher, "_decode", lambda data: gate.wait(10) and decode(data))
    working, late = service.connect(), service.connect()
    working.sendall(POST + PNG)
    late.sendall(POST + PNG[:10])
    while app.state.service.held.bytes < len(PNG) + 10:
        time.sleep(0.01)
    service.stop()
    while not service.servers[0].should_exit:
        time.sleep(0.01)
    threading.Timer(0.3, gate.set).start()
    answer = received(working)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"the service is stopping" in received(late)
    service.thread.join(20)
    assert not service.thread.is_alive()
    assert batcher.is_alive  # because none of its threads is left
    with pytest.raises(ConnectionRefusedError):
        service.connect()


def test_the_images_of_a_client_that_went_while_they_waited_are_left_out(
    model: Any, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(model, monkeypatch, protocol, workers=1) as service:
        batcher, gate, decoded = service.app.state.service.batcher, threading.Event(), list[bytes]()
        decode = batcher._decode
        monkeypatch.setattr(batcher, "_decode", lambda data: decoded.append(data) or (gate.wait(10) and decode(data)))
        first, gone, last = (service.connect() for _ in range(3))
        first.sendall(POST + PNG)
        while not decoded:
            time.sleep(0.01)
        gone.sendall(POST + PNG)
        while batcher.waiting < 1:
            time.sleep(0.01)
        last.sendall(POST + PNG)
        while batcher.waiting < 2:
            time.sleep(0.01)
        gone.close()
        held = service.app.state.service.held
        while held.bytes > 2 * len(PNG):
            time.sleep(0.01)
        gate.set()
        assert [status(each) for each in (first, last)] == [200, 200]
        assert len(decoded) == 2


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with pytest.raises(
        FeatxError, match=rf"cannot listen on port {port} of 127.0.0.1: Address already in use; --port names"
    ):
        server.bind("127.0.0.1", port)
    taken.close()
    with pytest.raises(FeatxError, match=r"--host no\.such\.host\.invalid: .*; expected an address of this machine"):
        server.bind("no.such.host.invalid", 0)
    with pytest.raises(FeatxError, match=r"cannot listen on port 0 of 192\.0\.2\.1: Cannot assign requested address"):
        server.bind("192.0.2.1", 0)


def test_the_urls_of_both_kinds_of_addresses_are_written_as_browsers_take_them() -> None:
    with server.bind("127.0.0.1", 0) as listener:
        assert server.url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert server.is_loopback(listener)
    with contextlib.suppress(FeatxError), server.bind("::1", 0) as listener:
        assert server.url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"
        assert server.is_loopback(listener)
    with server.bind("0.0.0.0", 0) as listener:
        assert not server.is_loopback(listener)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_to_try_a_service_works_in_a_browser(
    model: Any, photos_here: Path, monkeypatch: pytest.MonkeyPatch, browse: Chromium, width: int
) -> None:
    with running(model, monkeypatch, token="s3cret") as service:
        tab = browse(f"{service.url}/", width=width, touch=width < 600, checked=False)  # 401 is an error on the console
        tab.until("() => !document.getElementById('token-label').hidden")
        tab.page.fill("#token", "s3cret")
        tab.page.set_input_files("#files", [photos_here / "val" / "dark" / "00.png", Path(__file__)])
        tab.page.click("button")
        tab.until("() => document.querySelectorAll('#results li').length === 2", seconds=30)
        texts = tab.run("[...document.querySelectorAll('#results li')].map((item) => item.innerText)")
        assert "dark" in texts[0]
        assert "not an image of a known format" in texts[1]
        assert "2 classes" in tab.until(
            "document.getElementById('model').innerText.includes('classes') && "
            "document.getElementById('model').innerText"
        )
        assert tab.overflow == []
        assert tab.foreign == []
        docs = browse(f"{service.url}/docs", width=width)
        assert "POST /predict" in docs.run("document.body.innerText")
        docs.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert docs.overflow == []
