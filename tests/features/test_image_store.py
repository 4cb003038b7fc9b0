"""Images on other machines are read for the files of this user's featx, and for nobody else's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import WebServer, web_server

import featx
from featx.data.known_image import known_sizes, read_known_image
from featx.errors import DatasetError, ImageError
from featx.features.file_marks import is_own
from featx.features.image_store import image_store

pytest.importorskip("fsspec", reason="reads remote files")


@pytest.fixture
def server(photos: Path) -> Iterator[WebServer]:
    with web_server(photos) as found:
        yield found


def test_a_file_that_was_made_here_reads_its_images_from_their_server(
    server: WebServer, photos: Path, tmp_path: Path
) -> None:
    made = featx.extract(server.url, "lenet5", cache=tmp_path / "cache").file
    moved = shutil.copy(made, tmp_path / "copy.h5")
    file = featx.FeatureFile(moved)
    path, key = file.paths[0], file.keys[0].tobytes()
    assert is_own(made)
    assert is_own(file.path)
    assert image_store(file.dataset, file.paths, file.path).read(path).data == (photos / path).read_bytes()
    assert read_known_image(file.root, path, key, own=is_own(file.path)).data == (photos / path).read_bytes()
    assert known_sizes(file.root, [path, "none.png"], own=True).tolist() == [(photos / path).stat().st_size, -1]


def test_a_file_of_somebody_else_sends_no_request_until_the_data_are_named(
    server: WebServer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = featx.extract(server.url, "lenet5", cache=tmp_path / "cache").file
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "another home"))
    file = featx.FeatureFile(made)
    path, key = file.paths[0], file.keys[0].tobytes()
    server.requests.clear()
    assert not is_own(made)
    with pytest.raises(DatasetError, match=rf"the images are on another machine, .*featx extract {server.url}"):
        image_store(file.dataset, file.paths, made)
    with pytest.raises(ImageError, match=f"--images {server.url} reads it from there"):
        read_known_image(file.root, path, key)
    assert known_sizes(file.root, [path]).tolist() == [-1]
    assert server.count() == 0
    assert read_known_image(file.root, path, key, also=[server.url]).data == (photos / path).read_bytes()
    assert featx.extract(server.url, "lenet5", cache=tmp_path / "cache").computed == 0
    assert is_own(made)


def test_urls_in_the_paths_of_somebody_elses_file_are_not_asked_for_either(server: WebServer, photos: Path) -> None:
    url, key = f"{server.url}/dark/00.png", featx.data.file_bytes.image_key((photos / "dark/00.png").read_bytes())
    with pytest.raises(ImageError, match=f"--images {server.url}/dark reads it from there"):
        read_known_image(photos, url, key)
    with pytest.raises(ImageError, match="lies on another machine"):
        read_known_image(photos, url, key, also=[server.url + "/dar", "http://other"])
    assert known_sizes(photos, [url]).tolist() == [-1]
    assert server.count() == 0
    assert read_known_image(photos, url, key, also=[server.url + "/"]).data == (photos / "dark/00.png").read_bytes()


def test_an_absolute_path_under_a_remote_root_must_lie_where_the_user_says(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    key = featx.data.file_bytes.image_key(b"secret")
    with pytest.raises(ImageError, match="lies outside the folder of the data set"):
        read_known_image("memory://photos", str(secret), key, own=True)
    assert read_known_image("memory://photos", str(secret), key, also=[tmp_path]).data == b"secret"
