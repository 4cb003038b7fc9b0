"""Requests to web servers: kept connections, redirects, credentials, proxies, and answers of every kind."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featx.data import retries, web
from featx.data.places import expand
from featx.data.remote import RemoteFile
from featx.data.web import HttpError, WebFiles

OK = b"HTTP/1.1 200 OK\r\n"


def sized(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return (not body and b"Content-Length" in head) or b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"


class Scripted:
    """A server whose answers are written by hand.

    Attributes:
        answers: {path: an answer, or a function of the request that gives it}; an empty one ends the connection.
        requests: what was sent, whole, in order.
        connections: how many there were.
        closes_after: requests after which the server closes a connection without a word.
    """

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[str], bytes]] = {}
        self.requests: list[str] = []
        self.connections = 0
        self.closes_after = 1 << 30
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            for _ in range(self.closes_after):
                request = ""
                while line := lines.readline().decode():
                    request += line
                    if line == "\r\n":
                        break
                if not request:
                    return
                self.requests.append(request)
                answer = self.answers.get(request.split(" ")[1], sized(b"", status="404 Not Found"))
                answer = answer if isinstance(answer, bytes) else answer(request)
                if request.startswith("HEAD"):
                    answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                connection.sendall(answer)
                if not _is_whole(answer):
                    return

    def close(self) -> None:
        """End it."""
        self._listener.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scripted]:
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retries, "_servers", {})
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for cached in (web._proxy, web._user_of_netrc, web._configured):
        cached.cache_clear()
    found = Scripted()
    yield found
    found.close()
    for cached in (web._proxy, web._user_of_netrc, web._configured):
        cached.cache_clear()


def fetched(url: str) -> bytes:
    return WebFiles().fetch(url, lambda _: None)[0]


# Connections


def test_requests_share_a_connection(server: Scripted) -> None:
    server.answers["/a"] = sized(b"content", 'ETag: "1"')
    for _ in range(3):
        assert WebFiles().fetch(f"{server.url}/a", lambda _: None) == (
            b"content",
            {"type": "file", "size": 7, "mimetype": "", "ETag": '"1"'},
        )
        assert WebFiles().info(f"{server.url}/a") == {"type": "file", "size": 7, "mimetype": "", "ETag": '"1"'}
    assert (server.connections, len(server.requests)) == (1, 6)


def test_a_kept_connection_that_the_server_has_closed_is_replaced_without_a_word(server: Scripted) -> None:
    server.answers["/a"] = sized(b"content")
    server.closes_after = 1
    for _ in range(4):
        assert RemoteFile(f"{server.url}/a").read_all()[0] == b"content"
        time.sleep(0.02)
    assert server.connections == len(server.requests) == 4
    assert retries.repeated_requests() == []


def test_a_connection_that_was_idle_for_long_is_not_used(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/a"] = sized(b"content")
    fetched(f"{server.url}/a")
    monkeypatch.setattr(web, "_FRESH", 0.0)
    fetched(f"{server.url}/a")
    assert server.connections == 2


def test_an_answer_that_was_not_read_leaves_nothing_for_the_next(server: Scripted) -> None:
    server.answers |= {"/large": sized(b"x" * 100_000), "/a": sized(b"content")}

    def refuse(size: int) -> None:
        raise ValueError(f"{size} bytes are too much")

    with pytest.raises(ValueError, match="100000 bytes"):
        WebFiles().fetch(f"{server.url}/large", refuse)
    assert fetched(f"{server.url}/a") == b"content"
    assert server.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_opens_connections_of_its_own(server: Scripted) -> None:
    server.answers["/a"] = sized(b"content")
    fetched(f"{server.url}/a")
    if (child := os.fork()) == 0:
        os._exit(0 if fetched(f"{server.url}/a") == b"content" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fetched(f"{server.url}/a") == b"content"
    assert server.connections == 2


# Answers


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (OK + b"\r\nuntil the end", b"until the end"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n5\r\n five\r\n0\r\n\r\n", b"four five"),
        (sized(gzip.compress(b"zipped" * 999, mtime=0), "Content-Encoding: gzip"), b"zipped" * 999),
        (sized(zlib.compress(b"deflated" * 99), "Content-Encoding: deflate"), b"deflated" * 99),
        (sized(b""), b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", b"old"),
    ],
    ids=["until the end", "chunked", "gzip", "deflate", "empty", "HTTP/1.0"],
)
def test_answers_of_every_kind_are_read(answer: bytes, content: bytes, server: Scripted) -> None:
    server.answers["/a"] = answer
    for _ in range(2):
        assert fetched(f"{server.url}/a") == content
        assert WebFiles().cat_file(f"{server.url}/a") == content


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (OK + b"Content-Length: 10\r\n\r\nfour", "broke before all of the answer had arrived"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nfour", "broke before all of the answer had arrived"),
        (  # without the time, which would be part of the test's name: each process of pytest-xdist must find the same names
            sized(gzip.compress(b"zipped" * 999, mtime=0)[:-20], "Content-Encoding: gzip"),
            "broke before all of the answer had arrived",
        ),
        (sized(b"no gzip", "Content-Encoding: gzip"), "compressed, and that is damaged"),
        (sized(b"?", "Content-Encoding: br"), r"compressed in an unknown way \(br\)"),
        (b"", "closed connection"),
        (b"no HTTP at all\r\n\r\n", "no valid HTTP"),
        (sized(b"", status="403 Forbidden"), "HTTP status 403.*no permission"),
        (sized(b"", status="500 Broken"), r"HTTP status 500 \(Broken\), in all of 6 tries"),
    ],
)
def test_answers_that_are_none_are_told(answer: bytes, error: str, server: Scripted) -> None:
    server.answers["/a"] = answer
    with pytest.raises(OSError, match=error):
        RemoteFile(f"{server.url}/a").read_all()


def test_what_is_compressed_may_not_grow_for_ever(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_BYTES", 100_000)
    server.answers["/a"] = sized(gzip.compress(bytes(1 << 24)), "Content-Encoding: gzip")
    with pytest.raises(OSError, match="more than 100,000 bytes"):
        RemoteFile(f"{server.url}/a").read_all()


def test_a_part_is_asked_for_and_a_huge_file_is_not_read_for_one(server: Scripted) -> None:
    def part(request: str) -> bytes:
        return sized(b"part", status="206 Partial Content") if "Range: bytes=3-6\r\n" in request else sized(b"")

    server.answers |= {"/a": part, "/huge": OK + b"Content-Length: 900000000\r\n\r\nbeginning"}
    assert WebFiles().cat_file(f"{server.url}/a", 3, 7) == b"part"
    with pytest.raises(OSError, match="only whole, and this one has"):
        WebFiles().cat_file(f"{server.url}/huge", 3, 7)


@pytest.mark.parametrize("status", ["403 Forbidden", "405 Method Not Allowed", "404 Not Found"])
def test_a_server_that_refuses_head_is_asked_by_get(status: str, server: Scripted) -> None:
    refused = sized(b"", status=status)
    server.answers["/a"] = lambda request: sized(b"content") if request.startswith("GET") else refused
    assert WebFiles().info(f"{server.url}/a")["size"] == 7


# Redirects and credentials


def test_redirects_are_followed_and_credentials_do_not_go_elsewhere(server: Scripted) -> None:
    other = Scripted()
    other.answers["/b"] = sized(b"content", 'ETag: "b"')
    server.answers |= {
        "/a": sized(b"moved", "Location: /here", status="302 Found"),
        "/here": sized(b"", f"Location: {other.url}/b", status="307 Temporary Redirect"),
    }
    url = f"http://ann:pass@{server.host}/a"
    assert WebFiles().fetch(url, lambda _: None) == (
        b"content",
        {"type": "file", "size": 7, "mimetype": "", "ETag": '"b"'},
    )
    assert all("Authorization: Basic YW5uOnBhc3M=\r\n" in request for request in server.requests)
    assert len(server.requests) == 2
    assert not any("Authorization" in request for request in other.requests)
    other.close()


@pytest.mark.parametrize(("to", "error"), [("/a", "redirects more than 10 times"), ("file:///etc/passwd", "file://")])
def test_redirects_that_lead_nowhere_end(to: str, error: str, server: Scripted) -> None:
    server.answers["/a"] = sized(b"", f"Location: {to}", status="301 Moved")
    with pytest.raises(HttpError) as caught:
        fetched(f"{server.url}/a")
    assert error in caught.value.message


def test_headers_of_fsspec_and_users_of_netrc_are_sent(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.answers["/a"] = sized(b"content")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password pass\n")
    (tmp_path / "netrc").chmod(0o600)
    fetched(f"{server.url}/a")
    assert "Authorization: Basic YW5uOnBhc3M=\r\n" in server.requests[-1]
    config = pytest.importorskip("fsspec.config", reason="configures fsspec")
    monkeypatch.setitem(config.conf, "http", {"client_kwargs": {"headers": {"Authorization": "Bearer 12"}}})
    web._configured.cache_clear()
    fetched(f"{server.url}/a")
    assert "Authorization: Bearer 12\r\n" in server.requests[-1]
    assert "Basic" not in server.requests[-1]


def test_proxies_of_the_environment_are_used(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers |= {
        "http://photos.example/a": sized(b"content"),
        "photos.example:443": sized(b"", status="403 Forbidden"),
    }
    monkeypatch.setenv("http_proxy", f"http://ann:pass@{server.host}")
    monkeypatch.setenv("https_proxy", server.host)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetched("http://photos.example/a") == b"content"
    assert "Host: photos.example\r\n" in server.requests[0]
    assert "Proxy-Authorization: Basic YW5uOnBhc3M=\r\n" in server.requests[0]
    with pytest.raises(OSError, match="403"):
        fetched("https://photos.example/a")
    assert server.requests[1].startswith("CONNECT photos.example:443 ")
    server.answers["/a"] = sized(b"direct")
    assert fetched(f"{server.url}/a") == b"direct"


# Patterns


def test_patterns_of_urls_stand_for_the_files_that_pages_list(server: Scripted) -> None:
    pages = {
        "/": "a/ b/ c.tar",
        "/a/": "0.tar 1.tar notes.txt x/",
        "/b/": "2.tar",
        "/a/x/": "my%20shard.tar",
    }
    server.answers |= {
        path: sized("".join(f'<a href="{link}">{link}</a>' for link in links.split()).encode())
        for path, links in pages.items()
    }
    assert expand(f"{server.url}/a/*.tar") == [f"{server.url}/a/0.tar", f"{server.url}/a/1.tar"]
    assert expand(f"{server.url}/[b]/*") == [f"{server.url}/b/2.tar"]
    assert [url.removeprefix(server.url) for url in expand(f"{server.url}/**/*.tar")] == [
        "/a/0.tar",
        "/a/1.tar",
        "/a/x/my%20shard.tar",
        "/b/2.tar",
        "/c.tar",
    ]


def test_every_error_of_the_protocol_can_be_told() -> None:
    for error in (http.client.BadStatusLine("?"), http.client.IncompleteRead(b""), http.client.InvalidURL("no URL")):
        assert retries.fault_of(error).cause
