"""Folders that are written whole, and never in the place of what featx did not write."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from featx.errors import OutputError
from featx.io import folders
from featx.io.folders import replacing_folder


def write(path: Path, **files: str) -> None:
    with replacing_folder(path, "m.json", "a folder of tests", option="--to") as temporary:
        for name, text in files.items():
            (temporary / f"{name}.txt").write_text(text)


def test_a_folder_replaces_the_older_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "new" / "out", a="1", b="2")
    write(tmp_path / "new" / "out", a="3")
    assert sorted(each.name for each in (tmp_path / "new" / "out").iterdir()) == ["a.txt", "m.json"]
    assert (tmp_path / "new" / "out" / "a.txt").read_text() == "3"
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["out"]


def test_a_folder_is_replaced_where_the_system_cannot_exchange_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_exchanged", lambda *_: False)
    write(tmp_path / "out", a="1")
    write(tmp_path / "out", a="2")
    assert (tmp_path / "out" / "a.txt").read_text() == "2"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_older_folder_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "out", a="1")
    with pytest.raises(KeyError), replacing_folder(tmp_path / "out", "m.json", "a folder", option="--to"):
        raise KeyError("made by the test")
    assert (tmp_path / "out" / "a.txt").read_text() == "1"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("made", ["added", "changed", "other", "file", "link"])
def test_what_somebody_else_wrote_is_never_replaced(made: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if made in ("added", "changed"):
        write(out, a="1")
        (out / ("mine.txt" if made == "added" else "a.txt")).write_text("mine")
    elif made == "other":
        out.mkdir()
        (out / "m.json").write_text(json.dumps({"files": 3}))
    elif made == "file":
        out.write_text("mine")
    else:
        (tmp_path / "there").mkdir()
        out.symlink_to(tmp_path / "there")
    with pytest.raises(OutputError, match=r"not replaced|is a file|is a link"):
        write(out, a="2")
    assert len(list(tmp_path.iterdir())) == (2 if made == "link" else 1)


def test_an_empty_folder_has_nothing_to_lose(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", a="1")
    assert (tmp_path / "out" / "a.txt").read_text() == "1"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".out.00000000.featx-temporary"
    left.mkdir()
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    write(tmp_path / "out", a="1")
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
