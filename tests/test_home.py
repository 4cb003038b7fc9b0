"""The folder for what belongs to the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from featx.errors import OutputError
from featx.home import home


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
