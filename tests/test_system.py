"""The folder for what belongs to the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featx.errors import OutputError
from featx.io.atomic import keep
from featx.system import cores, home, nearest_folder


def test_the_folder_is_the_one_that_is_named_else_one_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", "/data/featx")
    assert home() == Path("/data/featx")
    monkeypatch.delenv("FEATX_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert home() == Path("/home/ann/.cache/featx")


def test_a_user_without_a_home_is_told_the_variable_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FEATX_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(OutputError, match="this user has no home folder; set FEATX_HOME to a folder"):
        home()


def test_what_is_kept_is_whole_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    for data in (b"one", b"another"):
        keep("below/memo", data)
        assert (tmp_path / "home" / "below" / "memo").read_bytes() == data
    assert [path.name for path in (tmp_path / "home" / "below").iterdir()] == ["memo"]


def test_what_cannot_be_kept_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    (tmp_path / "memo").mkdir()
    (tmp_path / "memo" / "in the way").touch()
    keep("memo", b"data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memo"]
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "memo" / "in the way"))
    keep("memo", b"data")


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_what_is_not_there_yet_is_on_the_disk_of_the_folder_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nearest_folder(tmp_path) == tmp_path
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path
    monkeypatch.chdir(tmp_path)
    assert nearest_folder(Path("a")) == Path.cwd()
