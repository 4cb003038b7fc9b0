"""Tables whose images lie anywhere: by URLs, signed or not, beside absolute paths and paths below a root."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from web_server import WebServer, web_server

import featx
from featx.data import retries
from featx.data.openers import open_store
from featx.data.scan import scan_images
from featx.data.sources.paths_store import PathsStore, root_of, store_of_paths, stored_path
from featx.data.store import FolderStore
from featx.extraction.result import Extraction

pytest.importorskip("fsspec", reason="reads remote files")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retries, "_servers", {})


@pytest.fixture
def server(photos: Path) -> Iterator[WebServer]:
    """A web server whose folder holds ``photos``."""
    (photos / "dark/00.png").rename(photos / "dark/a photo 100%.png")
    with web_server(photos.parent) as found:
        yield found


def table(path: Path, cells: dict[str, str]) -> Path:
    path.write_text("path,label\n" + "".join(f'"{cell}",{label}\n' for cell, label in cells.items()), encoding="utf-8")
    return path


def mixed(photos: Path, server: WebServer, signature: str) -> dict[str, str]:
    """The cells of the photos: every other one is a signed URL, the others are relative or absolute paths."""
    cells = {}
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        name = path.relative_to(photos).as_posix()
        url = f"{server.url}/photos/{quote(name)}?X-Amz-Credential=me&X-Amz-Signature={signature}"
        cells[(url, f"photos/{name}", str(path))[number % 3]] = path.parent.name
    return cells


def extracted(data: Any, cache: Path, **options: Any) -> Extraction:
    return featx.extract(scan_images(data, **options), "lenet5", cache=cache)


def test_urls_stand_beside_paths_and_share_rows_with_the_folder(
    photos: Path, server: WebServer, tmp_path: Path
) -> None:
    first = extracted(photos, tmp_path / "cache")
    result = extracted(table(tmp_path / "labels.csv", mixed(photos, server, "1")), tmp_path / "cache")
    assert (first.computed, result.computed, result.reused, result.failed) == (40, 0, 40, 0)
    assert extracted(tmp_path / "labels.csv", tmp_path / "cache").computed == 0


def test_a_presigned_link_is_the_same_image_however_it_is_signed_and_its_signature_is_never_stored(
    photos: Path, server: WebServer, tmp_path: Path
) -> None:
    for signature in ("first", "second"):
        server.query = f"X-Amz-Credential=me&X-Amz-Signature={signature}"
        result = extracted(table(tmp_path / "labels.csv", mixed(photos, server, signature)), tmp_path / "cache")
        assert result.failed == 0
        assert result.computed == (40 if signature == "first" else 0)
        stored = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
        assert not re.search(b"X-Amz|first|second", stored)
    server.statuses["photos/light/19.png"] = [403] * 9
    (photos / "light/19.png").write_bytes((photos / "light/18.png").read_bytes())
    failed = extracted(table(tmp_path / "signed.csv", mixed(photos, server, "third")), tmp_path / "cache")
    assert failed.failures
    assert not re.search("X-Amz|third", " ".join([*failed.remarks, *(reason for _, reason in failed.failures)]))


def test_a_root_on_a_server_holds_the_relative_paths(photos: Path, server: WebServer, tmp_path: Path) -> None:
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    cells = {name: name.partition("/")[0] for name in names[1:]} | {str(photos / names[0]): "dark"}
    images = scan_images(table(tmp_path / "labels.csv", cells), root=f"{server.url}/photos/")
    assert images.root == f"{server.url}/photos"
    assert (images.facts().sizes > 0).all()
    for row in (0, 1, 39):
        path = images.paths[row]
        assert images.file(row).read().data == (photos / path).read_bytes()


def test_an_archive_on_a_server_that_sends_no_parts_is_read_all_the_same(
    photos: Path, server: WebServer, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in photos.rglob("*.png"):
            archive.write(path, path.relative_to(photos))
    first = extracted(photos, tmp_path / "cache")
    server.sends_parts = False
    result = extracted(f"{server.url}/photos.zip", tmp_path / "cache")
    assert (first.computed, result.computed, result.reused) == (40, 0, 40)


def test_what_a_cell_says_becomes_a_path() -> None:
    assert stored_path("https://Server/my cat.jpg?token=1") == "https://server/my%20cat.jpg"
    assert stored_path("s3://bucket/my cat #1.jpg") == "s3://bucket/my cat #1.jpg"
    assert stored_path("file:///photos/my%20cat.jpg") == "/photos/my cat.jpg"
    assert stored_path("./cats//1.jpg") == "cats/1.jpg"


def test_only_what_needs_it_is_dispatched(tmp_path: Path) -> None:
    root = FolderStore(tmp_path)
    assert store_of_paths(root, ["a.jpg", "/b.jpg"]) is root
    store = store_of_paths(root, ["a.jpg", "https://server/b.jpg"])
    assert isinstance(store, PathsStore)
    assert store_of_paths(store, []) is store
    assert root_of(store) is root
    assert store.concurrency == 0
    assert store.order(["https://server/b.jpg", "a.jpg"]).tolist() == [1, 0]
    assert isinstance(root_of(open_store("s3://bucket/photos")), type(root_of(open_store("gs://bucket"))))
    assert np.array_equal(store.facts(["none.jpg"]).sizes, [-1])
