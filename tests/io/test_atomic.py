"""Files that are written whole or not at all: their permissions, what killed processes leave, and full disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featx.errors import OutputError
from featx.io import atomic
from featx.io.atomic import full_disk, keep, replacing, write_whole


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_decides_who_may_read_a_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "head.safetensors", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "head.safetensors").stat().st_mode & 0o777 == mode


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    path.chmod(0o640)
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(ValueError, match="file"), replacing(path) as file:
        file.close()
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["f"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from featx.io.atomic import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_one_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "model.1234abcd.checkpoint"
    run = subprocess.run([sys.executable, "-c", _KILLED, str(path)])
    assert run.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    others = [tmp_path / ".model.1234abcd.checkpoint.20240101", tmp_path / ".other.1234abcd.featx-temporary"]
    for other in others:
        other.touch()
    for old in (left, *others):
        os.utime(old, (1, 1))
    with replacing(path) as first:  # it is being written, however long that takes
        os.utime(first.name, (1, 1)) if isinstance(first.name, str) else os.utime(first.fileno(), (1, 1))
        assert not left.exists()
        write_whole(path, b"second")
        first.write(b"first")
    assert path.read_bytes() == b"first"
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_young_temporary_file_is_left_alone(tmp_path: Path) -> None:
    young = tmp_path / ".f.01234567.featx-temporary"
    young.touch()
    write_whole(tmp_path / "f", b"data")
    assert young.exists()


def test_a_link_that_somebody_planted_in_the_home_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "thesis").write_text("mine")
    for name in (f"engines.json.{os.getpid()}.partial", "engines.json"):
        (tmp_path / "home" / name).symlink_to(tmp_path / "thesis")
    keep("engines.json", b"{}")
    assert (tmp_path / "thesis").read_text() == "mine"
    assert (tmp_path / "home" / "engines.json").read_bytes() == b"{}"


class _System:
    f_frsize, f_bavail, f_files, f_favail = 4096, 1000, 10, 5


@pytest.mark.parametrize(
    ("number", "need", "inodes", "words"),
    [
        (errno.ENOSPC, 10**9, 5, "; it needs 1.0 GB, 4.1 MB free"),
        (errno.ENOSPC, 0, 5, ""),
        (errno.ENOSPC, 10, 5, "; 4.1 MB are free, so a quota may be used up (quota -s)"),
        (errno.ENOSPC, 10, 0, "; the disk has no room for further files (df -i), though 4.1 MB are free"),
        (errno.EDQUOT, 10**9, 5, "; 4.1 MB are free, so a quota may be used up (quota -s)"),
        (errno.EFBIG, 10**9, 5, "; the file system or the limit of this process (ulimit -f) allows no file of 1.0 GB"),
        (errno.EACCES, 10, 5, ""),
    ],
)
def test_a_disk_that_takes_no_more_says_what_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, need: int, inodes: int, words: str
) -> None:
    system = _System()
    system.f_favail = inodes
    monkeypatch.setattr(os, "statvfs", lambda _folder: system)
    assert full_disk(tmp_path, need, OSError(number, os.strerror(number))) == words


def test_a_full_disk_is_an_output_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"cannot write .*f \(4 bytes\): Disk quota exceeded; .* are free, so a quota"
    ):
        write_whole(tmp_path / "f", b"data")
    assert list(tmp_path.iterdir()) == []
