"""Remote folders: the same photos as a folder, in memory and behind a web server, with the faults that servers have."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import write_image
from web_server import WebServer, web_server

import featx
from featx.data import retries
from featx.data.image_set import ImageSet
from featx.data.listing_page import entries
from featx.data.openers import open_store
from featx.data.scan import scan_images
from featx.data.sources.remote import RemoteStore
from featx.errors import DatasetError, FeatxError, RemoteError
from featx.extraction.result import Extraction

fsspec = pytest.importorskip("fsspec", reason="reads remote files")
memory_files = pytest.importorskip("fsspec.implementations.memory", reason="makes a store")

ODD_NAMES = (
    "dark/a b.png",
    "dark/50%25 #1?.png",
    "dark/é日本.png",
    "dark/x&y;+='.png",
    "light/~(1).png",
    "light/plain.png",
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retries, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(retries, "_servers", {})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten images of two classes, some with names that a URL cannot hold as they are."""
    folder = tmp_path / "www" / "my photos"
    for seed, name in enumerate([*ODD_NAMES, *(f"light/{n}.png" for n in range(4))]):
        write_image(folder / name, seed, tint=60 if name.startswith("dark") else 190)
    return folder


@pytest.fixture
def server(pictures: Path) -> Iterator[WebServer]:
    """A web server whose folder ``my photos`` holds the images."""
    with web_server(pictures.parent) as found:
        yield found


def in_memory(folder: Path, name: str) -> str:
    """Copy a folder into memory, in place of what was there; returns its URL."""
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{name}"):
        memory.rm(f"/{name}", recursive=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            memory.pipe_file(f"/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"memory://{name}"


def extracted(data: Any, cache: Path, **options: Any) -> Extraction:
    return featx.extract(data, "lenet5", cache=cache, **options)


def content(images: ImageSet) -> list[tuple[str, str, str]]:
    return [
        (path, images.classes[label], split)
        for path, label, split in zip(images.paths, images.labels, images.splits, strict=True)
    ]


# The same photos anywhere


def test_a_remote_folder_is_listed_as_the_local_one(pictures: Path, server: WebServer) -> None:
    for hidden in (".hidden.png", "dark/.DS_Store", "__MACOSX/dark/a.png", ".git/x.png", "dark/notes.txt"):
        (pictures / hidden).parent.mkdir(parents=True, exist_ok=True)
        (pictures / hidden).write_bytes(b"nothing")
    local, memory = scan_images(pictures), scan_images(in_memory(pictures, "my photos"))
    web = scan_images(f"{server.url}/my photos/")
    assert content(local) == content(memory) == content(web)
    assert local.notes == memory.notes == web.notes != ()
    assert {path for path, _, _ in content(web)} >= set(ODD_NAMES)
    assert web.root == f"{server.url}/my%20photos"


def test_splits_are_read_from_remote_folders(tmp_path: Path) -> None:
    for number, path in enumerate(
        ("train_set/cat/1.png", "train_set/dog/2.png", "test_set/cat/3.png", "test_set/dog/4.png")
    ):
        write_image(tmp_path / "pets" / path, number)
    local, remote = scan_images(tmp_path / "pets"), scan_images(in_memory(tmp_path / "pets", "pets"))
    assert content(local) == content(remote)
    assert set(remote.splits) == {"train", "test"}
    assert local.notes == remote.notes == ("pets: test_set is read as the split test, train_set as train",)


def test_the_same_photos_anywhere_have_the_same_keys_and_features_and_need_one_pass(
    pictures: Path, server: WebServer, tmp_path: Path
) -> None:
    places = (str(pictures), in_memory(pictures, "same"), f"{server.url}/my%20photos")
    counts, features, keys = [], [], []
    for place in places * 2:
        result = extracted(place, tmp_path / "cache")
        counts.append((result.computed, result.reused, result.failed))
        features.append(result.load().features.tobytes())
        keys.append(featx.FeatureFile(result.file).keys.tobytes())
    assert counts == [(10, 0, 0)] + [(0, 10, 0)] * 5
    assert len(set(features)) == len(set(keys)) == 1


# What counts as unchanged


def test_with_etags_a_second_run_reads_no_image(server: WebServer, tmp_path: Path) -> None:
    url = f"{server.url}/my photos"
    first = extracted(url, tmp_path / "cache")
    server.requests.clear()
    second = extracted(url, tmp_path / "cache")
    assert (first.computed, second.computed, second.reused) == (10, 0, 10)
    assert [path for (method, path), _ in server.requests.items() if method == "GET" and path.endswith(".png")] == []
    assert not any("ETag" in note for note in (*first.notes, *second.notes))


@pytest.mark.parametrize("etags", [True, False])
def test_an_image_of_the_same_size_that_was_replaced_is_computed_again(
    etags: bool, pictures: Path, server: WebServer, tmp_path: Path
) -> None:
    server.etags = etags
    one, other = pictures / "light/0.png", pictures / "light/1.png"
    one.write_bytes(one.read_bytes().ljust(9000, b"\0"))
    other.write_bytes(other.read_bytes().ljust(9000, b"\0"))
    extracted(f"{server.url}/my photos", tmp_path / "cache")
    before = featx.FeatureFile(extracted(f"{server.url}/my photos", tmp_path / "cache").file)
    one.write_bytes(other.read_bytes())
    result = extracted(f"{server.url}/my photos", tmp_path / "cache")
    after = featx.FeatureFile(result.file)
    row, twin = (after.paths.index(f"light/{n}.png") for n in (0, 1))
    assert (after.keys[row] == before.keys[twin]).all()
    assert (result.computed, result.reused) == (0, 10)


def test_a_first_run_asks_for_each_image_once(server: WebServer, tmp_path: Path) -> None:
    extracted(f"{server.url}/my photos", tmp_path / "cache")
    assert server.count("HEAD") == 0
    assert all(number == 1 for (_, path), number in server.requests.items() if path.endswith(".png"))


def test_features_of_the_same_photos_are_found_though_nothing_was_asked(
    pictures: Path, server: WebServer, tmp_path: Path
) -> None:
    extracted(pictures, tmp_path / "cache")
    result = extracted(f"{server.url}/my photos", tmp_path / "cache")
    assert (result.computed, result.reused) == (0, 10)
    assert extracted(f"{server.url}/my photos", tmp_path / "cache").computed == 0


def test_without_etags_the_bytes_are_read_again_and_a_note_says_so(server: WebServer, tmp_path: Path) -> None:
    server.etags = False
    url = f"{server.url}/my photos"
    extracted(url, tmp_path / "cache")
    written = extracted(url, tmp_path / "cache").file.read_bytes()
    server.requests.clear()
    result = extracted(url, tmp_path / "cache")
    assert (result.computed, result.reused) == (0, 10)
    assert sum(1 for method, path in server.requests if method == "GET" and path.endswith(".png")) == 10
    assert any(note.startswith("10 images have no ETag or other version where they lie") for note in result.notes)
    assert result.file.read_bytes() == written


def test_a_server_that_states_no_sizes_costs_reading_only(server: WebServer, tmp_path: Path) -> None:
    server.sends_sizes = server.etags = False
    url = f"{server.url}/my photos"
    first = extracted(url, tmp_path / "cache")
    written = first.file.stat().st_ino
    second = extracted(url, tmp_path / "cache")
    assert (first.computed, first.failed, second.computed, second.reused) == (10, 0, 0, 10)
    assert second.file.stat().st_ino == written  # the file is left as it is


def test_an_image_set_that_is_extracted_twice_notices_what_changed_in_between(
    pictures: Path, server: WebServer, tmp_path: Path
) -> None:
    images = scan_images(f"{server.url}/my photos")
    extracted(images, tmp_path / "cache")
    write_image(pictures / "light/0.png", 99)
    assert extracted(images, tmp_path / "cache").computed == 1


class _Versions(memory_files.MemoryFileSystem):  # type: ignore[misc,name-defined]
    """A store in memory that states an ETag for each object, as S3 does."""

    protocol = "versions"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    reads: ClassVar[list[str]] = []
    listings: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("versions://", "memory://")))

    def find(self, path: str, detail: bool = False, **options: Any) -> Any:
        type(self).listings.append(path)
        found = super().find(path, detail=True, **options)
        return {name: {**info, "ETag": f'"{self._etag(name)}"'} for name, info in found.items()}

    def info(self, path: str, **options: Any) -> Any:
        found = super().info(path, **options)
        return {**found, "ETag": f'"{self._etag(found["name"])}"'} if found["type"] == "file" else found

    def _etag(self, name: str) -> str:
        import hashlib

        return hashlib.md5(self.store[name].getvalue()).hexdigest()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        type(self).reads.append(path)
        return bytes(super().cat_file(path, start=start, end=end, **options))


def test_an_object_store_is_listed_once_and_read_once(pictures: Path, tmp_path: Path) -> None:
    fsspec.register_implementation("versions", _Versions, clobber=True)
    store = fsspec.filesystem("versions")
    for path in pictures.rglob("*.png"):
        store.pipe_file(f"/bucket/photos/{path.relative_to(pictures).as_posix()}", path.read_bytes())
    counts = []
    for _ in range(2):
        _Versions.reads.clear(), _Versions.listings.clear()
        result = extracted("versions://bucket/photos/", tmp_path / "cache")
        counts.append((result.computed, len(_Versions.listings), len(_Versions.reads)))
    assert counts == [(10, 1, 10), (0, 1, 0)]
    assert not any("ETag" in note for note in result.notes)


def test_a_bucket_is_read_through_its_own_package(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs", reason="reads buckets")
    moto = pytest.importorskip("moto.server", reason="stands in for S3")
    names = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_DEFAULT_REGION": "us-east-1"}
    bucket = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    for name, value in {**names, "AWS_ENDPOINT_URL": "http://{}:{}".format(*bucket.get_host_and_port())}.items():
        monkeypatch.setenv(name, value)
    try:
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("bucket")
        for path in pictures.rglob("*.png"):
            store.pipe_file(f"bucket/my photos/{path.relative_to(pictures).as_posix()}", path.read_bytes())
        store.pipe_file("bucket/my photos/", b"")  # shows the folder in the console of S3
        results = [
            extracted(data, tmp_path / "cache")
            for data in ("s3://bucket/my photos/", "s3://bucket/my photos", pictures)
        ]
    finally:
        bucket.stop()
    assert [(result.computed, result.reused) for result in results] == [(10, 0), (0, 10), (0, 10)]
    assert results[0].notes == results[1].notes == ()


# Faults of servers


def test_requests_that_fail_for_a_moment_are_sent_again_and_a_note_counts_them(
    server: WebServer, tmp_path: Path
) -> None:
    server.statuses = {"my photos/light/0.png": [503, 429], "my photos/dark/a b.png": [500]}
    server.allows_head = False
    server.resets["my photos/light/1.png"] = 1
    result = extracted(f"{server.url}/my photos", tmp_path / "cache")
    assert (result.computed, result.failed) == (10, 0)
    (note,) = [note for note in result.notes if "sent again" in note]
    assert note.startswith(f"{server.url}: ")
    assert extracted(server.folder / "my photos", tmp_path / "cache").computed == 0  # the very same bytes


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "there is no such file"), (403, "HTTP status 403 (Forbidden): no permission")]
)
def test_what_a_server_refuses_fails_alone_and_is_not_asked_for_again(
    status: int, reason: str, server: WebServer, tmp_path: Path
) -> None:
    server.statuses["my photos/light/0.png"] = [status] * 99
    result = extracted(f"{server.url}/my photos", tmp_path / "cache")
    assert (result.computed, result.failed) == (9, 1)
    assert result.failures == (("light/0.png", f"cannot be read: {reason}"),)
    assert 99 - len(server.statuses["my photos/light/0.png"]) <= 6  # HEAD and GET, twice for facts, once for reading
    server.statuses.clear()
    assert extracted(f"{server.url}/my photos", tmp_path / "cache").computed == 1


def test_a_file_that_vanished_since_the_listing_fails_alone(pictures: Path, server: WebServer, tmp_path: Path) -> None:
    images = scan_images(f"{server.url}/my photos")
    (pictures / "light/0.png").unlink()
    result = extracted(images, tmp_path / "cache")
    assert (result.computed, result.failures) == (9, (("light/0.png", "cannot be read: there is no such file"),))


def test_one_file_that_always_fails_does_not_stop_the_others(server: WebServer, tmp_path: Path) -> None:
    server.statuses["my photos/light/0.png"] = [500] * 99
    result = extracted(f"{server.url}/my photos", tmp_path / "cache")
    assert (result.computed, result.failed) == (9, 1)
    assert "in all of 6 tries" in result.failures[0][1]


def test_a_server_that_goes_away_ends_the_run_and_the_next_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteStore, "concurrency", 1)
    read, count = RemoteStore.read, itertools.count()
    with web_server(photos) as server:

        def stopping(self: RemoteStore, *args: Any) -> Any:
            if next(count) == 30:
                server.stop()
            return read(self, *args)

        monkeypatch.setattr(RemoteStore, "read", stopping)
        with pytest.raises(RemoteError, match=r"does not answer: .*the same command goes on") as caught:
            extracted(server.url, tmp_path / "cache", batch_size=1)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(RemoteStore, "read", read)
    with web_server(photos, int(server.url.rpartition(":")[2])) as again:
        result = extracted(again.url, tmp_path / "cache", batch_size=1)
    assert result.failed == 0
    assert 0 < result.computed < 40
    assert result.computed + result.reused == 40


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("memory://nothing/here", "there are no files below memory://nothing/here"),
        ("s3://bucket/photos", "reading s3://bucket/photos needs s3fs: pip install s3fs"),
        ("s4://bucket/photos", r"no URLs that begin with s4:// are known; did you mean s3"),
        ("https://nowhere.invalid/photos", "cannot read https://nowhere.invalid/photos/: there is no such server"),
    ],
)
def test_what_cannot_be_listed_is_told_in_one_line(url: str, error: str) -> None:
    if url.startswith("s3://") and importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(FeatxError, match=error) as caught:
        scan_images(url)
    assert "\n" not in str(caught.value)


def test_a_folder_that_no_page_lists_is_refused_with_what_was_expected(server: WebServer) -> None:
    (server.folder / "page.html").mkdir()
    (server.folder / "page.html" / "index.html").write_text("<html><body>Welcome")
    with pytest.raises(DatasetError, match="a web server must list the folder on a page of links"):
        scan_images(f"{server.url}/page.html")
    with pytest.raises(DatasetError, match=r"there is nothing at .*/none/"):
        scan_images(f"{server.url}/none")


# Pages of web servers


def test_links_to_elsewhere_are_no_files() -> None:
    page = """<HTML><A HREF="?C=N;O=D">Name</A> <a href="/">top</a> <a href="../">up</a> <a href="/photos/">here</a>
        <a href="a%26b.jpg">x</a> <a href='/photos/c&amp;d.jpg'>y</a> <a href="./cats/">z</a> <a href="http://other/e.jpg">e</a>
        <a href="mailto:x@y">m</a> <a href="cats/deep.jpg">d</a> <a href="#top">t</a> <a>no</a> <a href="%E9.jpg">l</a>"""
    assert entries(page, "http://server/photos/") == (["a&b.jpg", "c&d.jpg", "\udce9.jpg"], ["cats"])
    assert entries("\x00\x01 no page <a href=", "http://server/photos/") == ([], [])


def test_folders_that_contain_themselves_are_not_followed_for_ever(tmp_path: Path) -> None:
    write_image(tmp_path / "www/cat/1.png", 1)
    write_image(tmp_path / "www/dog/2.png", 2)
    (tmp_path / "www/dog/again").symlink_to(tmp_path / "www/dog")
    with web_server(tmp_path / "www") as server:
        images = scan_images(server.url)
        assert server.count() < 12
    assert "cat/1.png" in images.paths


# Stores that are opened again


def test_a_store_reads_images_by_its_location_alone(pictures: Path, server: WebServer) -> None:
    images = scan_images(f"{server.url}/my photos")
    store = open_store(images.root)
    for path in images.paths:
        assert store.read(path).data == (pictures / path).read_bytes()
    assert np.array_equal(store.facts(list(images.paths)).sizes, images.facts().sizes)
    assert store.facts(["light/none.png"]).sizes[0] == -1
