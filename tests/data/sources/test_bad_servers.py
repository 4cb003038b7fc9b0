"""Servers that misbehave: answers that break off, that are no HTTP, or another file; runs that end in the middle."""

from __future__ import annotations

import io
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import write_image
from web_server import Handler, WebServer, web_server

import featx
from featx.data import retries
from featx.data.listing_page import is_page
from featx.data.sources.remote import RemoteStore
from featx.errors import DatasetError, RemoteError
from featx.extraction.result import Extraction

fsspec = pytest.importorskip("fsspec", reason="reads remote files")
pytest.importorskip("aiohttp", reason="reads files of web servers")

ODD = "ants/a b #1?.png"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retries, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(retries, "_servers", {})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """A server of a folder of eight images, and of the same images as archives, shards, Parquet and a table."""
    www = tmp_path / "www"
    names = [ODD, *(f"ants/{n}.png" for n in range(3)), *(f"bees/{n}.png" for n in range(4))]
    for seed, name in enumerate(names):
        write_image(www / "photos" / name, seed)
    for archive, form in (("zip", "zip"), ("tar", "tar"), ("tar.gz", "gztar")):
        shutil.make_archive(str(www / "photos"), form, www, "photos")
        assert (www / f"photos.{archive}").is_file()
    for shard in range(2):
        with tarfile.open(www / f"shard-{shard}.tar", "w") as tar:
            for number, name in enumerate(names[shard::2]):
                for ending, data in (
                    ("png", (www / "photos" / name).read_bytes()),
                    ("cls", name.partition("/")[0].encode()),
                ):
                    member = tarfile.TarInfo(f"{number}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    rows = [f'"photos/{name}",{name.partition("/")[0]}' for name in names]
    (www / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with web_server(www) as found:
        yield found


def extracted(url: str, cache: Path, **options: object) -> Extraction:
    return featx.extract(url, "lenet5", cache=cache, **options)


# Answers that are not the file


def short(handler: Handler) -> None:
    """An answer with more bytes than it announces, on a connection that stays open."""
    handler.answer(b"0123456789", Content_Length="4")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (
            lambda handler: handler.answer(b"half", Content_Length="9000", Connection="close"),
            "the connection broke before",
        ),
        (
            lambda handler: handler.answer(b"raw", Content_Encoding="gzip"),
            "the server sends it compressed, and that is damaged",
        ),
        (
            lambda handler: handler.answer(b"", 302, Location=handler.path),
            "redirects more than 10 times",
        ),
        (lambda handler: handler.answer(b"<html>Log in"), "a web page in the place of this file"),
    ],
)
def test_an_image_that_does_not_arrive_fails_alone_for_a_reason_in_plain_words(
    answer: Callable[[Handler], None], cause: str, server: WebServer, tmp_path: Path
) -> None:
    server.instead[f"photos/{ODD}"] = answer
    result = extracted(f"{server.url}/photos", tmp_path / "cache")
    assert (result.computed, result.failed) == (7, 1)
    assert cause in result.failures[0][1]
    assert not any(mark in result.failures[0][1] for mark in "<>{}=")
    assert not any("no ETag" in note for note in result.notes)  # of an image that nobody has seen
    server.instead.clear()
    again = extracted(f"{server.url}/photos", tmp_path / "cache")
    assert (again.computed, again.reused, again.failed) == (1, 7, 0)


def test_requests_that_broke_off_are_counted_by_their_cause_whatever_their_sizes(
    server: WebServer, tmp_path: Path
) -> None:
    for file in (server.folder / "photos").rglob("*.png"):

        def half(handler: Handler, path: str = file.relative_to(server.folder).as_posix()) -> None:
            data = (server.folder / path).read_bytes()
            del server.instead[path]
            handler.answer(data[: len(data) // 2], Content_Length=str(len(data)), Connection="close")

        server.instead[file.relative_to(server.folder).as_posix()] = half
    result = extracted(f"{server.url}/photos", tmp_path / "cache")
    assert (result.computed, result.failed) == (8, 0)
    (note,) = [note for note in result.notes if "sent again" in note]
    assert note.endswith(
        "8 requests had to be sent again (the connection broke before all of the answer had arrived: 8)"
    )


def test_surplus_bytes_of_one_answer_harm_no_other_image(server: WebServer, tmp_path: Path) -> None:
    server.instead[f"photos/{ODD}"] = short
    result = extracted(f"{server.url}/photos", tmp_path / "cache")
    assert [path for path, _ in result.failures] == [ODD]


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz", "labels.csv", "shard-{0..1}.tar"])
def test_a_page_that_asks_for_a_login_is_told_from_a_damaged_file(name: str, server: WebServer, tmp_path: Path) -> None:
    for path in server.folder.iterdir():
        server.instead[path.name] = lambda handler: handler.answer(
            b"\n<!doctype HTML><title>Log in", Content_Type="text/html; charset=utf-8"
        )
    with pytest.raises(DatasetError, match="the server sent a web page in the place of this file"):
        extracted(f"{server.url}/{name}", tmp_path / "cache")


def test_a_server_without_tls_is_told_from_one_that_is_gone(server: WebServer) -> None:
    with pytest.raises(DatasetError, match=r"does not speak TLS there; its URL may have to begin with http://"):
        featx.scan_images(f"{server.url.replace('http:', 'https:')}/photos")


def test_pages_are_told_from_files() -> None:
    assert is_page(b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a --><HTML lang="en">')
    assert not any(map(is_page, (b"", b"\xff\xd8\xff", b"<svg>", b"path,label\n<html>", b"<htmlish>")))


# Servers that state no size


@pytest.mark.parametrize(
    "name", ["photos.zip", "photos.tar", "photos.tar.gz", "shard-{0..1}.tar", "labels.csv", "photos"]
)
def test_nothing_is_lost_where_a_server_states_no_size(name: str, server: WebServer, tmp_path: Path) -> None:
    server.sends_sizes = server.sends_parts = False
    first = extracted(f"{server.url}/{name}", tmp_path / "cache")
    second = extracted(f"{server.url}/{name}", tmp_path / "cache")
    assert (first.computed, first.failed) == (8, 0)
    assert (second.computed, second.reused) == (0, 8)
    assert not any("cut off" in note for note in first.notes)


def test_parquet_is_read_where_a_server_states_no_size(server: WebServer, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    files = sorted((server.folder / "photos").rglob("*.png"))
    rows = [{"image": {"bytes": file.read_bytes(), "path": file.name}, "label": file.parent.name} for file in files]
    parquet.write_table(pyarrow.Table.from_pylist(rows), server.folder / "photos.parquet")
    server.sends_sizes = server.sends_parts = False
    assert extracted(f"{server.url}/photos.parquet", tmp_path / "cache").computed == 8


# Folders of other things than images


@pytest.mark.parametrize("where", ["http", "memory"])
def test_a_remote_folder_of_parquet_files_is_read_as_a_local_one(where: str, server: WebServer, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    files = sorted((server.folder / "photos").rglob("*.png"))
    for split, some in (("train", files[::2]), ("test", files[1::2])):
        rows = [{"image": {"bytes": file.read_bytes(), "path": file.name}, "kind": file.parent.name} for file in some]
        target = server.folder / f"my rows/data/{split}-00000-of-00001.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), target)
    url = f"{server.url}/my rows/"
    if where == "memory":
        url = "memory://my rows"
        for file in (server.folder / "my rows/data").iterdir():
            fsspec.filesystem("memory").pipe_file(f"/my rows/data/{file.name}", file.read_bytes())
    here = featx.scan_images(server.folder / "my rows", label_column="kind")
    there = featx.scan_images(url, label_column="kind")
    assert (list(there.paths), there.classes) == (list(here.paths), here.classes)
    assert list(there.splits) == list(here.splits)
    counts = [extracted(there, tmp_path / "cache") for _ in range(2)]
    assert [result.computed for result in counts] == [8, 0]


def test_a_remote_folder_that_datasets_has_saved_is_refused_with_what_to_do(server: WebServer) -> None:
    for name in ("dataset_info.json", "state.json", "data-00000-of-00001.arrow"):
        (server.folder / "saved").mkdir(exist_ok=True)
        (server.folder / "saved" / name).write_bytes(b"{}")
    with pytest.raises(DatasetError, match=r"saved holds Arrow files.*copy the folder to this machine.*to_parquet"):
        featx.scan_images(f"{server.url}/saved")


def test_redirects_may_name_their_target_as_people_write_it(server: WebServer, tmp_path: Path) -> None:
    write_image(server.folder / "elsewhere/é b.png", 99)
    location = "/elsewhere/é b.png".encode().decode("latin-1")
    server.instead["photos/bees/0.png"] = lambda handler: handler.answer(b"", 302, Location=location)
    result = extracted(f"{server.url}/photos", tmp_path / "cache")
    assert (result.computed, result.failed) == (8, 0)


# Runs that end in the middle


def test_a_run_that_goes_on_reads_only_what_is_left(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteStore, "concurrency", 1)
    with web_server(photos) as server:
        paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file())
        gone = {path: lambda handler: handler.connection.shutdown(socket.SHUT_RDWR) for path in paths[30:]}
        server.instead.update(gone)
        with pytest.raises(RemoteError, match="What is done is kept"):
            extracted(server.url, tmp_path / "cache", batch_size=1)
        server.instead.clear()
        server.requests.clear()
        result = extracted(server.url, tmp_path / "cache", batch_size=1)
        read = sum(count for (method, path), count in server.requests.items() if method == "GET" and path in paths)
    assert 0 < result.computed == 40 - result.reused < 40
    assert read == result.computed
