"""Finished feature files on a server: fetched by the next machine, put there whole, and never lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_image
from web_server import web_server

import featx
from featx.cli.main import main
from featx.data import retries, transfers
from featx.data.transfers import fetch, put
from featx.errors import CacheMissError, CorruptFileError, OutputError, UnknownVersionError, UnreadableFileError
from featx.extraction.result import Extraction
from featx.features import remote_folder
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.features.remote_folder import RemoteFolder, local_file

fsspec = pytest.importorskip("fsspec", reason="keeps files on servers")
MemoryFileSystem = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem

URL = "memory://cache-of-tests"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server in memory, empty."""
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retries, "_servers", {})
    found = fsspec.filesystem("memory")
    if found.exists("/cache-of-tests"):
        found.rm("/cache-of-tests", recursive=True)
    return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that goes to another machine, which has a featx folder of its own."""

    def go(name: str) -> None:
        monkeypatch.setenv("FEATX_HOME", str(tmp_path / f"home-{name}"))

    return go


def extracted(data: Any, **options: Any) -> Extraction:
    return featx.extract(data, "lenet5", cache=URL, **options)


def refusing(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Denied")


def names(memory: Any) -> list[str]:
    return sorted(name.rpartition("/")[2] for name in memory.find("/cache-of-tests"))


def test_another_machine_fetches_the_finished_file_and_computes_nothing(
    photos: Path, machine: Any, memory: Any
) -> None:
    machine("one")
    first = extracted(photos)
    assert (first.computed, first.reused) == (40, 0)
    (name,) = names(memory)
    assert first.file.name == name
    assert f"the features were copied to {URL}/{name}" in first.notes
    assert memory.cat(f"/cache-of-tests/{name}") == first.file.read_bytes()
    machine("two")
    second = extracted(photos)
    assert (second.computed, second.reused) == (0, 40)
    assert second.file.read_bytes() == first.file.read_bytes()
    assert second.file != first.file
    assert not any("copied" in note for note in second.notes)


def test_only_new_images_are_computed_and_the_file_on_the_server_is_replaced(
    photos: Path, machine: Any, memory: Any
) -> None:
    machine("one")
    extracted(photos)
    machine("two")
    write_image(photos / "dark/new.png", 99)
    second = extracted(photos)
    assert (second.computed, second.reused) == (1, 40)
    machine("one")
    assert extracted(photos).computed == 0
    assert len(names(memory)) == 1


def test_the_same_photos_elsewhere_share_the_features_under_another_name(
    photos: Path, tmp_path: Path, machine: Any, memory: Any
) -> None:
    machine("one")
    extracted(photos)
    machine("two")
    moved = tmp_path / "elsewhere" / photos.name
    moved.parent.mkdir()
    photos.rename(moved)
    assert extracted(moved).computed == 0
    assert len(names(memory)) == 2


def test_an_upload_that_fails_leaves_the_file_here_and_is_tried_again(
    photos: Path, machine: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("one")
    with monkeypatch.context() as patched:
        patched.setattr(
            type(memory), "put_file", lambda *_args, **_options: (_ for _ in ()).throw(PermissionError(13, "Denied"))
        )
        first = extracted(photos)
    (note,) = [note for note in first.notes if note.startswith("Warning")]
    assert f"could not be copied to {URL}/{first.file.name}: " in note
    assert str(first.file) in note
    assert names(memory) == []
    again = extracted(photos)
    assert (again.computed, again.reused) == (0, 40)
    assert names(memory) == [first.file.name]


def test_an_upload_that_breaks_off_leaves_nothing_under_the_name(
    photos: Path, machine: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("one")
    whole = type(memory).put_file

    def half(self: Any, local: str, remote: str, **options: Any) -> None:
        Path(local + ".half").write_bytes(Path(local).read_bytes()[:1000])
        whole(self, local + ".half", remote, **options)
        raise OSError(5, "broken off")

    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "put_file", half)
        extracted(photos)
    assert names(memory) == []


def test_a_damaged_file_on_the_server_is_not_used_and_is_replaced(photos: Path, machine: Any, memory: Any) -> None:
    machine("one")
    name = extracted(photos).file.name
    memory.pipe_file(f"/cache-of-tests/{name}", memory.cat(f"/cache-of-tests/{name}")[:5000])
    machine("two")
    result = extracted(photos)
    assert result.computed == 40
    assert any(note.startswith(f"{URL}/{name} is no sound feature file") for note in result.notes)
    assert memory.cat(f"/cache-of-tests/{name}") == result.file.read_bytes()


def test_a_damaged_row_on_the_server_is_computed_again_and_the_others_are_used(
    photos: Path, machine: Any, memory: Any
) -> None:
    machine("one")
    file = extracted(photos).file
    data = bytearray(file.read_bytes())
    data[FeatureFile(file).layers["penultimate"].offset + 5] ^= 1
    memory.pipe_file(f"/cache-of-tests/{file.name}", bytes(data))
    machine("two")
    result = extracted(photos)
    assert (result.computed, result.reused) == (1, 39)
    assert f"{URL}/{file.name}: 1 of 40 rows is damaged and not used" in result.notes
    assert memory.cat(f"/cache-of-tests/{file.name}") == file.read_bytes()


def test_what_was_finished_here_and_not_copied_is_not_replaced_by_what_another_machine_wrote(
    photos: Path, machine: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("one")
    with monkeypatch.context() as patched:
        patched.setattr(
            type(memory), "put_file", lambda *_args, **_options: (_ for _ in ()).throw(PermissionError(13, "Denied"))
        )
        mine = extracted(photos).file
    before = mine.read_bytes()
    machine("two")
    write_image(photos / "dark/other.png", 98)
    extracted(photos)
    machine("one")
    result = extracted(photos)
    assert (result.computed, result.reused) == (0, 41)  # 40 from this machine, one from the other
    assert result.file.read_bytes() != before


def test_an_unfinished_file_never_leaves_the_machine(photos: Path, machine: Any, memory: Any) -> None:
    machine("one")
    (photos / "dark" / "broken.png").write_bytes(b"no image")
    with pytest.raises(featx.errors.DatasetError, match="--strict stops"):
        extracted(photos, strict=True)
    assert names(memory) == []


def test_what_cannot_keep_files_is_refused_at_once(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"https://server/cache is on a web server, which takes no files; expected s3://"
    ):
        featx.extract(photos, "lenet5", cache="https://server/cache")
    with pytest.raises(
        OutputError, match=r"-o .*out.h5 names a file of this machine, and --cache a folder on a server"
    ):
        featx.extract(photos, "lenet5", cache=URL, out=tmp_path / "out.h5")
    with pytest.raises(OutputError, match=r"s3://bucket/out.h5 is a URL; -o names a file of this machine"):
        featx.extract(photos, "lenet5", out="s3://bucket/out.h5")


# Files by their URLs


def run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output + str(result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_commands_read_feature_files_by_their_urls(photos: Path, machine: Any, memory: Any, in_tmp: Path) -> None:
    machine("one")
    extraction = run("extract", str(photos), "-b", "lenet5", "--cache", URL)
    (name,) = names(memory)
    machine("two")
    head = run("fit-head", f"{URL}/{name}", "--models", str(in_tmp / "models"))
    assert run("fit-head", "--cache", URL, "--models", str(in_tmp / "models2"))["accuracy"] == head["accuracy"]
    assert run("info", f"{URL}/{name}")["identity"] == extraction["identity"]
    assert run("verify", f"{URL}/{name}")["ok"]
    refused = CliRunner().invoke(main, ["cache", "--cache", URL])
    assert refused.exit_code == 1
    assert "featx cache takes a folder of this machine as --cache, not a URL" in refused.output


def test_every_command_reads_what_another_machine_computed(photos: Path, in_tmp: Path, machine: Any) -> None:
    name = Path(run("extract", str(photos), "-b", "lenet5", "--cache", URL)["file"]).name
    head = run("fit-head", "--cache", URL, "--models", str(in_tmp / "models"))["head"]
    machine("second")
    images = len(featx.scan_images(photos))
    assert run("extract", str(photos), "-b", "lenet5", "--cache", URL)["computed"] == 0
    assert run("inspect", "--cache", URL)["images"] == images
    assert run("inspect", str(photos), "--cache", URL)["images"] == images
    assert run("evaluate", head, str(photos), "--cache", URL)["n"]
    assert run("rank", str(photos), "-b", "lenet5", "--cache", URL)["ranking"]
    assert len(run("predict", head, f"{URL}/{name}")["predictions"]) == images
    assert len(run("search", f"{URL}/{name}", "--row", "0")["results"]) == 1
    assert len(run("search", "--row", "0", "--cache", URL)["results"]) == 1
    assert run("export", "--cache", URL, "--to", "x.npy")["images"] == images
    assert len(FeatureSet.load(f"{URL}/{name}")) == images
    assert featx.fit_head(f"{URL}/{name}", models=in_tmp / "m").head.kind


def test_imported_vectors_are_copied_too(in_tmp: Path, memory: Any, machine: Any) -> None:
    np.savez(in_tmp / "x.npz", features=np.eye(8, dtype=np.float32), label=["a", "b"] * 4)
    first = run("import", "x.npz", "--cache", URL)
    (name,) = names(memory)
    assert f"the features were copied to {URL}/{name}" in first["notes"]
    machine("second")
    assert run("inspect", "--cache", URL)["images"] == 8
    np.savez(in_tmp / "x.npz", features=np.eye(8, dtype=np.float32)[::-1], label=["a", "b"] * 4)
    run("import", "x.npz", "--cache", URL)
    assert len(names(memory)) == 2  # other vectors of the same name take no place


def test_a_bucket_that_is_not_there_is_told_before_the_work(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Buckets(MemoryFileSystem):  # type: ignore[misc, valid-type]
        protocol = "s3"

        def info(self, path: str, **_: Any) -> Any:
            raise PermissionError(path) if path == "closed" else FileNotFoundError(path)

        def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
            raise FileNotFoundError(path)

    monkeypatch.setattr(transfers, "file_system", lambda location: (Buckets(), location.removeprefix("s3://")))
    monkeypatch.setattr(RemoteFolder, "copy_back", lambda *_: None)
    assert not transfers.has_bucket("s3://no/folder")
    assert transfers.has_bucket("s3://closed/folder")
    assert transfers.has_bucket("memory://folder")
    np.save(photos.parent / "x.npy", np.eye(4))
    with pytest.raises(OutputError, match="there is no bucket for s3://no/folder"):
        featx.import_features(photos.parent / "x.npy", cache="s3://no/folder")
    with pytest.raises(OutputError, match="there is no bucket for s3://no/folder"):
        featx.extract(photos, "lenet5", cache="s3://no/folder")


def test_a_file_of_a_web_server_is_fetched_once(photos: Path, tmp_path: Path, machine: Any) -> None:
    machine("one")
    made = featx.extract(photos, "lenet5", cache=tmp_path / "www").file
    with web_server(made.parent) as server:
        copy = local_file(f"{server.url}/{made.name}")
        assert copy.read_bytes() == made.read_bytes()
        server.requests.clear()
        assert local_file(f"{server.url}/{made.name}") == copy
        assert server.count("GET") == 0
        os.utime(made)
        with pytest.raises(CacheMissError, match=r"there is no feature file .*/none.h5"):
            local_file(f"{server.url}/none.h5")
        (made.parent / "other.h5").write_bytes(b"something else")
        with pytest.raises(CorruptFileError, match=r"other\.h5"):
            local_file(f"{server.url}/other.h5")
        server.statuses[made.name] = [403] * 99
        with pytest.raises(UnreadableFileError, match="cannot be fetched: HTTP status 403"):
            local_file(f"{server.url}/{made.name}")


def test_a_folder_without_files_is_told(machine: Any) -> None:
    machine("one")
    with pytest.raises(
        CacheMissError, match=f"there is no feature file in {URL}; featx extract --cache {URL} makes one"
    ):
        RemoteFolder(URL).fetch_newest()


def test_files_are_put_and_fetched_whole(tmp_path: Path, memory: Any) -> None:
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    put(tmp_path / "a", f"{URL}/deep/a.bin")
    put(tmp_path / "a", f"{URL}/deep/a.bin")  # in the place of another
    assert names(memory) == ["a.bin"]
    fetch(f"{URL}/deep/a.bin", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    with pytest.raises(FileNotFoundError):
        fetch(f"{URL}/deep/none.bin", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_folder_whose_name_reads_like_a_pattern_takes_files(photos: Path, machine: Any, memory: Any) -> None:
    machine("a")
    cache = f"{URL}/features [1] 2*3?token=4"
    first = featx.extract(photos, "lenet5", cache=cache)
    assert any(note.startswith("the features were copied to ") for note in first.notes)
    assert memory.exists(f"/cache-of-tests/features [1] 2*3?token=4/{first.file.name}")
    machine("b")
    assert featx.extract(photos, "lenet5", cache=cache).computed == 0


@pytest.mark.parametrize("command", [["fit-head"], ["export", "--to", "x.npy"], ["search", "--row", "0"], ["inspect"]])
def test_the_folder_of_a_web_server_is_refused_with_the_remedy(in_tmp: Path, command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--cache", "https://127.0.0.1:9/features"])
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert "The URL of a feature file there can be named where a feature file can" in result.output


def test_a_file_of_a_later_version_is_neither_used_nor_replaced(
    photos: Path, memory: Any, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("one")
    extracted(photos)
    (name,) = names(memory)
    before = memory.modified(f"/cache-of-tests/{name}")
    machine("two")

    def unknown(*_: Any) -> Any:
        raise UnknownVersionError("version 9; expected 1. A newer featx may read it")

    with monkeypatch.context() as patch:
        patch.setattr(remote_folder, "FeatureFile", unknown)
        result = extracted(photos)
    assert result.computed == 40
    assert any("is of a later version of featx, so it is neither used nor replaced" in note for note in result.notes)
    assert memory.modified(f"/cache-of-tests/{name}") == before
