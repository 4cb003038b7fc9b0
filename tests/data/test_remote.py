"""Single remote files, their URLs, and requests that are sent again."""

from __future__ import annotations

import io
import itertools
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import WebServer, web_server

from featx.data import remote, retries, urls, web
from featx.data.file_bytes import MISSING_FACTS, UNKNOWN
from featx.data.places import place
from featx.data.remote import facts_of_info
from featx.data.retries import fault_of, persistently, repeated_requests
from featx.data.urls import folder_location, joined, legal, private, public, without_secrets
from featx.errors import RemoteError

pytest.importorskip("fsspec", reason="reads remote files")

DATA = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retries, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(retries, "_servers", {})
    monkeypatch.setattr(urls, "_secret_users", {})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """A web server with the file ``data.bin``."""
    (tmp_path / "data.bin").write_bytes(DATA)
    with web_server(tmp_path) as found:
        yield found


# Reading


@pytest.mark.parametrize("sends_parts", [True, False])
@pytest.mark.parametrize("sends_sizes", [True, False])
def test_ranges_are_right_whatever_the_server_makes_of_them(
    sends_parts: bool, sends_sizes: bool, server: WebServer
) -> None:
    server.sends_parts, server.sends_sizes = sends_parts, sends_sizes
    file = place(f"{server.url}/data.bin")
    for offset, size in (
        (0, None),
        (0, 10),
        (1, 1),
        (255_990, 100),
        (300_000, 5),
        (17, 0),
        (0, 256_000),
        (1, None),
        (3, 256_000),
    ):
        end = None if size is None else offset + size
        assert file.read(offset, size) == DATA[offset:end], (offset, size)


def test_a_file_whose_server_sends_no_parts_is_fetched_once_and_not_if_it_is_huge(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.sends_parts = False
    file = place(f"{server.url}/data.bin")
    for offset in range(0, 1000, 100):
        assert file.read(offset, 10) == DATA[offset : offset + 10]
    assert server.count("GET") == 1
    monkeypatch.setattr(web, "LARGEST_WHOLE", 1000)
    file.facts()
    with pytest.raises(OSError, match=r"the server sends files only whole, and this one has 256\.0 kB"):
        file.read(5, 10)


def test_a_file_that_was_replaced_is_not_taken_from_memory(server: WebServer, tmp_path: Path) -> None:
    server.sends_parts = False
    file = place(f"{server.url}/data.bin")
    assert file.read(5, 3) == DATA[5:8]
    (tmp_path / "data.bin").write_bytes(DATA[::-1])
    file.facts()
    assert file.read(5, 3) == DATA[::-1][5:8]


def test_an_answer_without_a_size_is_read_up_to_the_most_that_an_image_may_have(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.sends_sizes = False
    assert remote.RemoteFile(f"{server.url}/data.bin").read_all()[0] == DATA
    monkeypatch.setattr(web, "MAX_BYTES", 100_000)
    with pytest.raises(OSError, match=r"has more than 100,000 bytes"):
        remote.RemoteFile(f"{server.url}/data.bin").read_all()


def test_an_open_file_seeks_and_reads_ahead(server: WebServer) -> None:
    with place(f"{server.url}/data.bin").open() as file:
        assert file.seek(-6, io.SEEK_END) == len(DATA) - 6
        assert file.read() == DATA[-6:]
        assert file.read(1) == b""
        file.seek(100)
        assert file.read(3) == DATA[100:103]
        file.seek(2, io.SEEK_CUR)
        assert (file.tell(), file.read(2)) == (105, DATA[105:107])
        assert file.seek(0) == 0
        server.requests.clear()
        assert file.read() == DATA
    assert server.count("GET") <= 4


def test_the_headers_of_a_tar_cost_few_requests(server: WebServer, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "many.tar", "w") as tar:
        for number in range(300):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = 3000
            tar.addfile(member, io.BytesIO(bytes(3000)))
    with place(f"{server.url}/many.tar").open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
        server.requests.clear()
        assert len(tar.getmembers()) == 300
    assert server.count("GET") < 12


def test_many_threads_read_one_file(server: WebServer) -> None:
    file, faults = place(f"{server.url}/data.bin"), []

    def read(start: int) -> None:
        if file.read(start, 1000) != DATA[start : start + 1000]:
            faults.append(start)

    threads = [threading.Thread(target=read, args=(start * 777,)) for start in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_errors_are_of_the_system_and_name_the_file_and_the_cause(server: WebServer) -> None:
    missing = place(f"{server.url}/none.bin")
    assert missing.facts() == MISSING_FACTS
    with pytest.raises(FileNotFoundError, match=r"there is no such file: '.*/none.bin'"):
        missing.read()
    server.statuses["data.bin"] = [403] * 9
    with pytest.raises(OSError, match=r"HTTP status 403 .*: no permission: .*data.bin"):
        place(f"{server.url}/data.bin").read()


# Facts


@pytest.mark.parametrize("key", ["ETag", "etag", "md5Hash", "generation", "VersionId", "Content-MD5"])
def test_a_version_stands_in_for_the_time(key: str) -> None:
    one, same, other = (facts_of_info({"type": "file", "size": 3, key: value}) for value in ("a", "a", "b"))
    assert one == same != other
    assert one[0] == other[0] == 3
    assert one[2:] == (0, 0)
    assert 0 <= one[1] < 2**63


def test_times_alone_do_not_tell_versions_apart() -> None:
    assert facts_of_info({"type": "file", "size": 3, "Last-Modified": "now", "created": 1}) == (3, 0, UNKNOWN, 0)
    assert facts_of_info({"type": "file", "size": None})[:1] == (0,)
    assert facts_of_info({"type": "directory", "size": 0}) == MISSING_FACTS


# Secrets and names in URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:pass@server/a.jpg", "https://server/a.jpg"),
        ("https://token@server/a.jpg", "https://server/a.jpg"),
        (
            "https://b.s3.amazonaws.com/a.jpg?X-Amz-Credential=x&X-Amz-Expires=60&X-Amz-Signature=12",
            "https://b.s3.amazonaws.com/a.jpg",
        ),
        (
            "https://b.s3.amazonaws.com/a.jpg?AWSAccessKeyId=x&Expires=60&Signature=12",
            "https://b.s3.amazonaws.com/a.jpg",
        ),
        (
            "https://x.blob.core.windows.net/c/a.jpg?sv=2022&se=2030&sr=b&sp=r&sig=ab%2B",
            "https://x.blob.core.windows.net/c/a.jpg",
        ),
        (
            "https://storage.googleapis.com/b/a.jpg?X-Goog-Signature=12&X-Goog-Date=1",
            "https://storage.googleapis.com/b/a.jpg",
        ),
        ("https://server/image?id=17&token=abc&size=large", "https://server/image?id=17&size=large"),
        ("https://server/image?id=17&expires=never", "https://server/image?id=17&expires=never"),
        ("abfs://container@account/a.jpg", "abfs://container@account/a.jpg"),
        ("ftp://ann:pass@server/a.jpg", "ftp://server/a.jpg"),
        ("s3://bucket/what?sig=1 is a name.jpg", "s3://bucket/what?sig=1 is a name.jpg"),
        ("photos/a?token=1.jpg", "photos/a?token=1.jpg"),
    ],
)
def test_what_grants_access_is_not_shown_but_used(url: str, shown: str) -> None:
    assert public(url) == shown
    assert private(shown) == url
    assert without_secrets(f"cannot read '{url}'") == f"cannot read '{shown}'" or " " in url or "://" not in url


def test_names_become_parts_of_urls_and_back() -> None:
    location = folder_location("HTTP://Server:80/my photos/?X-Amz-Signature=1")
    assert location == "http://server:80/my%20photos"
    assert joined(location, "50%25 #1?.jpg") == "http://server:80/my%20photos/50%2525%20%231%3F.jpg"
    assert joined(location, "../other/\udce9.jpg") == "http://server:80/other/%E9.jpg"
    assert joined("s3://bucket/photos", "50% #1?.jpg") == "s3://bucket/photos/50% #1?.jpg"
    assert joined("s3://bucket/photos", "../other/1.jpg") == "s3://bucket/other/1.jpg"
    assert legal("https://server/a%20b c%d?x=1&y=é") == "https://server/a%20b%20c%25d?x=1&y=%C3%A9"


# Requests that are sent again


class _StatusError(Exception):
    def __init__(self, **fields: object) -> None:
        super().__init__("no")
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("error", "passing", "missing"),
    [
        (_StatusError(status=503), True, False),
        (_StatusError(status_code=429), True, False),
        (_StatusError(code="500"), True, False),
        (_StatusError(response={"ResponseMetadata": {"HTTPStatusCode": 503}}), True, False),
        (_StatusError(status=404), False, True),
        (_StatusError(status=403), False, False),
        (_StatusError(status=416), False, False),
        (TimeoutError(), True, False),
        (ConnectionResetError(104, "Connection reset by peer"), True, False),
        (OSError(16, "Please reduce your request rate."), True, False),
        (OSError("SlowDown"), True, False),
        (FileNotFoundError("throttled.jpg"), False, True),
        (PermissionError("Access Denied"), False, False),
        (ValueError("Unable to locate credentials"), False, False),
    ],
)
def test_faults_that_pass_are_told_from_those_that_do_not(error: Exception, passing: bool, missing: bool) -> None:
    fault = fault_of(error)
    assert (fault.passing, fault.missing) == (passing, missing)


def test_an_error_of_a_connection_counts_though_it_is_wrapped_as_a_missing_file() -> None:
    try:
        raise FileNotFoundError("http://server/a.jpg") from ConnectionRefusedError(111, "Connection refused")
    except FileNotFoundError as error:
        fault = fault_of(error)
    assert (fault.passing, fault.missing, fault.cause) == (True, False, "Connection refused")


def test_a_request_is_repeated_a_bounded_number_of_times_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(retries, "LONGEST_DELAY", 1.0)
    times: list[float] = []

    def request() -> None:
        times.append(time.monotonic())
        raise TimeoutError

    with pytest.raises(RemoteError, match=r"s3://bucket does not answer: it did not answer in time, 6 tries"):
        persistently(request, "s3://bucket/a.jpg")
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) == 6
    assert pauses[0] < pauses[2] < pauses[4] < 1
    assert repeated_requests() == ["s3://bucket: 5 requests had to be sent again (it did not answer in time: 5)"]
    assert repeated_requests() == []


def test_a_server_that_is_gone_does_not_stop_images_of_others() -> None:
    def gone() -> None:
        persistently(lambda: "fine", "https://alive/b.jpg")
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(OSError, match="Connection refused, in all of 6 tries") as caught:
        persistently(gone, "https://dead/a.jpg")
    assert not isinstance(caught.value, RemoteError)
