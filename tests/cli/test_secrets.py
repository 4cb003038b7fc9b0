"""What grants access in the URLs that a user names is neither stored nor printed, whatever lies there."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import featx
from conftest import write_image
from web_server import WebServer, web_server

from featx.cli.main import main
from featx.cli.output import print_result
from featx.progress import progress_bar

pytest.importorskip("fsspec", reason="reads remote files")

QUERY = "X-Amz-Signature=S1GNATURE&token=T0KEN&v=1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """A server of a folder, a zip and shards, which answers only requests with the query."""
    photos = tmp_path / "www" / "photos"
    for number, name in enumerate(("ants/a.png", "ants/b c.png", "bees/d.png", "bees/e.png")):
        write_image(photos / name, number)
    shutil.make_archive(str(photos), "zip", photos.parent, "photos")
    for number, label in enumerate(("ants", "bees")):
        with tarfile.open(photos.parent / f"shard-{number}.tar", "w") as tar:
            tar.add(photos / label, f"photos/{label}")
    with web_server(photos.parent) as found:
        found.query = QUERY
        yield found


@pytest.mark.parametrize("name", ["photos.zip", "shard-{0..1}.tar", "photos/ants/b c.png", "photos/ants/a.png"])
def test_no_secret_is_stored_or_printed(server: WebServer, in_tmp: Path, name: str) -> None:
    url = f"{server.url.replace('http://', 'http://ann:passw0rd@')}/{name}?{QUERY}"
    result = featx("extract", url, "-b", "lenet5", "-v")
    assert "computed" in result.output
    assert "0 failed" in result.output
    shown = result.output + featx("cache").output + featx("info", next(Path("cache").glob("*.h5"))).output
    kept = b"".join(path.read_bytes() for path in in_tmp.rglob("*") if path.is_file() and "www" not in path.parts)
    for secret in ("S1GNATURE", "T0KEN", "passw0rd"):
        assert secret not in shown
        assert secret.encode() not in kept


@pytest.mark.parametrize("name", ["no.zip", "no/", "no.parquet", "no.csv", "no.jpg", "no{0..1}.tar"])
def test_errors_show_no_secret(server: WebServer, in_tmp: Path, name: str) -> None:
    result = featx("extract", f"{server.url}/{name}?{QUERY}", "-b", "lenet5", status=1)
    imported = featx("import", f"{server.url}/{name}?{QUERY}", status=1)
    assert "is on another machine" in imported.output
    for secret in ("S1GNATURE", "T0KEN", "Traceback"):
        assert secret not in result.output + imported.output


def test_no_secret_is_printed_where_a_url_is_misplaced(photos: Path, in_tmp: Path) -> None:
    url = f"https://ann:passw0rd@127.0.0.1:1/x?{QUERY}"
    commands = [
        ("extract", photos, "-b", "lenet5", "-o", f"{url.partition('?')[0]}.h5?{QUERY}"),
        ("extract", photos, "-b", "lenet5", "--weights", f"{url.partition('?')[0]}.pth?{QUERY}"),
        ("run", url),
        ("cache", url),
        ("predict", url, url, "--top", url),
    ]
    for command in commands:
        result = CliRunner().invoke(main, [str(argument) for argument in command])
        assert result.exit_code != 0
        for secret in ("S1GNATURE", "T0KEN", "passw0rd", "Traceback"):
            assert secret not in result.output, command


def test_no_secret_is_shown_by_a_progress_bar_in_python_or_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("look", "images") as reporter:
        reporter.stage(f"looking for images in https://ann:passw0rd@server/x?{QUERY}")
        reporter.note(f"https://server/x?{QUERY} is slow")
        reporter.milestone(f"read https://server/x?{QUERY}")
    print_result({"notes": [f"read https://ann:passw0rd@server/x?{QUERY}"], "path": "a?token=1.jpg"}, lambda: None)
    shown = "".join(capsys.readouterr())
    assert shown.count("https://server/x?v=1") == 4
    assert "a?token=1.jpg" in shown
    for secret in ("S1GNATURE", "T0KEN", "passw0rd"):
        assert secret not in shown


def test_a_signed_image_that_is_missing_is_not_taken_for_another_one(server: WebServer, in_tmp: Path) -> None:
    lines = [f"{server.url}/photos/{name}?{QUERY},{name[:4]}" for name in ("ants/a.png", "bees/d.png", "none.png")]
    Path("signed.csv").write_text("\n".join(["path,label", *lines]))
    result = featx("extract", "signed.csv", "-b", "lenet5")
    assert "none.png?v=1: cannot be read: there is no such file" in result.output
    assert "without an ending" not in result.output


@pytest.mark.parametrize("query", [QUERY, "v=1"])
def test_the_query_of_a_folder_holds_for_all_that_is_in_it(query: str, server: WebServer, in_tmp: Path) -> None:
    server.query = query
    result = featx("extract", f"{server.url}/photos/?{query}", "-b", "lenet5")
    assert "4 computed, 0 reused, 0 failed" in result.output
    assert "4 reused" in featx("extract", f"{server.url}/photos?{query}", "-b", "lenet5").output
    kept = b"".join(path.read_bytes() for path in in_tmp.rglob("*.h5"))
    assert b"T0KEN" not in kept


def test_a_malformed_url_is_one_line(server: WebServer, in_tmp: Path) -> None:
    result = featx("extract", "http://[::1/photos", "-b", "lenet5", status=1)
    assert "http://[::1/photos is a malformed URL: Invalid IPv6 URL" in result.output
    names = (f"{server.url}/photos/ants/a.png?{QUERY}", "http://[::1/a.png", f"{server.url}/photos/bees/d.png?{QUERY}")
    Path("labels.csv").write_text("\n".join(["path,label", *(f"{name},{at % 2}" for at, name in enumerate(names))]))
    result = featx("extract", "labels.csv", "-b", "lenet5")
    assert "2 computed, 0 reused, 1 failed" in result.output
    assert "the URL is malformed: Invalid IPv6 URL" in result.output
