"""The lock of a feature file: one writer at a time, waiting, and locks of killed processes."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from feature_files import HOLD_LOCK, holder_of

from featx.errors import CacheLockedError, OutputError
from featx.features import lock as lock_module
from featx.features.lock import require_locks, write_lock


def test_a_second_writer_is_refused_until_the_first_one_ends_however_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            message = rf"f\.h5 is being written by process {holder.pid} on \S+ since \d{{4}}-\d\d-\d\d .*; --wait waits for it"
            with pytest.raises(CacheLockedError, match=message), write_lock(path):
                pytest.fail("two writers at once")
        finally:
            holder.send_signal(signal.SIGKILL)
    with write_lock(path):
        assert str(os.getpid()) in (tmp_path / ".f.h5.lock").read_text()


def test_a_lock_is_for_one_file_and_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), write_lock(tmp_path / "f.h5"), write_lock(tmp_path / "g.h5"):
        raise RuntimeError("stop")
    with write_lock(tmp_path / "f.h5"), write_lock(tmp_path / "g.h5"):
        assert (tmp_path / ".g.h5.lock").exists()


def test_the_lock_makes_the_folder(tmp_path: Path) -> None:
    with write_lock(tmp_path / "new" / "deep" / "f.h5"):
        assert (tmp_path / "new" / "deep").is_dir()


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    message = r"cannot write into .*cache: .*; name another folder with --cache"
    with pytest.raises(OutputError, match=message), write_lock(tmp_path / "cache" / "f.h5"):
        pytest.fail("wrote into a file")


def test_a_folder_without_write_permission_is_an_output_error(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user writes wherever it likes")
    with pytest.raises(OutputError, match=r"cannot write into .*cache: Permission denied"), write_lock(folder / "f.h5"):
        pytest.fail("wrote without permission")


def test_a_waiting_writer_is_notified_once_and_gets_the_lock_when_its_holder_is_killed(tmp_path: Path) -> None:
    path, notified = tmp_path / "f.h5", []
    with holder_of(path) as holder:

        def waiting(who: str) -> None:
            notified.append(who)
            threading.Timer(0.3, holder.kill).start()

        began = time.monotonic()
        with write_lock(path, wait=True, waiting=waiting):
            assert time.monotonic() - began > 0.25
            with pytest.raises(CacheLockedError, match=rf"by process {os.getpid()} on"), write_lock(path):
                pytest.fail("two writers at once")
    assert len(notified) == 1
    assert re.fullmatch(rf"process {holder.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", notified[0])


def test_a_writer_that_waits_for_one_after_another_is_notified_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, notified, lock, flock = tmp_path / "f.h5", [], tmp_path / ".f.h5.lock", fcntl.flock
    first = os.open(lock, os.O_RDWR | os.O_CREAT)
    holders = [first]
    flock(first, fcntl.LOCK_EX)

    def overtaken(handle: int, how: int) -> None:
        if how == fcntl.LOCK_EX:  # the one that is waited for ends, and another one is faster
            lock.unlink()
            os.close(holders.pop())
            if len(blocked) < 2:
                holders.append(os.open(lock, os.O_RDWR | os.O_CREAT))
                flock(holders[-1], fcntl.LOCK_EX)
            blocked.append(handle)
        flock(handle, how)

    blocked: list[int] = []
    monkeypatch.setattr(lock_module.fcntl, "flock", overtaken)
    with write_lock(path, wait=True, waiting=notified.append):
        assert notified == ["another process"]
    assert len(blocked) == 3


def test_waiting_needs_no_callback(tmp_path: Path) -> None:
    with holder_of(tmp_path / "f.h5") as holder:
        threading.Timer(0.2, holder.kill).start()
        with write_lock(tmp_path / "f.h5", wait=True):
            pass


def test_the_callback_is_not_called_when_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with write_lock(tmp_path / "f.h5", wait=True, waiting=pytest.fail):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with holder_of(tmp_path / "f.h5") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (tmp_path / ".f.h5.lock").exists()
        with write_lock(tmp_path / "f.h5"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_locks_file_is_gone_after_a_clean_end_and_after_an_error(tmp_path: Path) -> None:
    with write_lock(tmp_path / "f.h5"):
        assert [path.name for path in tmp_path.iterdir()] == [".f.h5.lock"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="stop"), write_lock(tmp_path / "f.h5"):
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_locks_file_that_is_removed_by_hand_does_not_upset_its_holder(tmp_path: Path) -> None:
    with write_lock(tmp_path / "f.h5"):
        (tmp_path / ".f.h5.lock").unlink()
    with write_lock(tmp_path / "f.h5"):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear ants")
    (tmp_path / ".f.h5.lock").symlink_to("letter.txt")
    message = "cannot write into .*: Too many levels of symbolic links"
    with pytest.raises(OutputError, match=message), write_lock(tmp_path / "f.h5"):
        pytest.fail("wrote through a link")
    assert (tmp_path / "letter.txt").read_text() == "dear ants"


_COUNT = """
import sys, time
from pathlib import Path
from featx.features.lock import write_lock
from featx.errors import CacheLockedError
path, times, wait = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "wait"
counter = path.with_name("counter")
for _ in range(times):
    while True:
        try:
            with write_lock(path, wait=wait):
                count = int(counter.read_text())
                time.sleep(0.0002)
                counter.write_text(str(count + 1))
            break
        except CacheLockedError:
            time.sleep(0.0005)
"""


def test_processes_that_race_for_a_lock_lose_no_update(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    racers = [
        subprocess.Popen([sys.executable, "-c", _COUNT, str(tmp_path / "f.h5"), "50", how])
        for how in ("wait", "wait", "try", "try")
    ]
    assert [racer.wait(60) for racer in racers] == [0] * 4
    assert (tmp_path / "counter").read_text() == "200"
    assert not (tmp_path / ".f.h5.lock").exists()


# Several users


def test_the_lock_of_another_user_who_was_killed_is_taken_over_without_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real = tmp_path / ".f.h5.lock", os.open
    lock.write_text("process 1 of somebody else")

    def of_another(path: object, flags: int, *mode: int) -> int:
        if path == lock and lock.exists() and flags & os.O_RDWR and not flags & os.O_EXCL:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *mode)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", of_another)
    with write_lock(tmp_path / "f.h5"):
        assert lock.read_text() == "process 1 of somebody else"
        with pytest.raises(CacheLockedError, match="is being written by"), write_lock(tmp_path / "f.h5"):
            pytest.fail("two writers at once")
    assert not lock.exists()


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o600), (0o775, 0o664), (0o1777, 0o666)])
def test_whoever_may_write_into_the_folder_may_lock_whatever_the_umask(
    tmp_path: Path, mode: int, expected: int
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    before = os.umask(0o077)
    try:
        with write_lock(folder / "f.h5"):
            assert (folder / ".f.h5.lock").stat().st_mode & 0o777 == expected
    finally:
        os.umask(before)


_FORKED = """
import os, sys, time
from pathlib import Path
from featx.features.lock import write_lock
with write_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(0.1)
        os.close(1)
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with subprocess.Popen(
        [sys.executable, "-c", _FORKED, str(path)], stdout=subprocess.PIPE, process_group=0
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(CacheLockedError, match="is being written by"), write_lock(path):
                pytest.fail("two writers at once")
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            with write_lock(path):
                pass
        finally:
            os.killpg(holder.pid, signal.SIGKILL)


def test_a_forked_child_that_ends_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    try:
        with write_lock(path):
            if (child := os.fork()) == 0:
                raise RuntimeError("the child")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert (tmp_path / ".f.h5.lock").exists()
            with pytest.raises(CacheLockedError, match="is being written by"), write_lock(path):
                pytest.fail("two writers at once")
    except RuntimeError:
        os._exit(7)


def test_the_lock_that_another_process_has_by_now_is_not_removed(tmp_path: Path) -> None:
    lock = tmp_path / ".f.h5.lock"
    with write_lock(tmp_path / "f.h5"):
        lock.unlink()
        lock.write_text("of another process")
    assert lock.exists()


def test_a_lock_that_cannot_be_removed_does_not_hide_the_real_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    def stop() -> None:
        monkeypatch.setattr(Path, "unlink", broken)
        raise RuntimeError("the real one")

    with pytest.raises(RuntimeError, match="the real one"), write_lock(tmp_path / "f.h5"):
        stop()
    monkeypatch.undo()
    with write_lock(tmp_path / "f.h5"):
        pass


@pytest.mark.parametrize("how", ["removed", "given to another process", "removed and made again"])
def test_a_lock_that_went_to_another_process_is_noticed_and_left_to_it(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_TRUSTED", -1)
    path, lock = tmp_path / "f.h5", tmp_path / ".f.h5.lock"
    with write_lock(path):
        require_locks()
        before = lock.read_text()
        if how.startswith("removed"):
            lock.unlink()
        if how != "removed":
            lock.write_text(
                before if how.endswith("again") else "process 1 on another-machine since 2026-01-01 00:00:00"
            )
        with pytest.raises(CacheLockedError, match=r"f\.h5 is no longer locked by this process: .* suspended for long"):
            require_locks()
    assert lock.exists() == (how != "removed")
    require_locks()


def test_an_error_after_a_lock_was_lost_names_the_lock(tmp_path: Path) -> None:
    def write() -> None:
        with write_lock(tmp_path / "f.h5"):
            (tmp_path / ".f.h5.lock").unlink()
            raise OutputError("cannot write f.h5: No such file or directory")

    with pytest.raises(CacheLockedError, match="no longer locked") as caught:
        write()
    assert isinstance(caught.value.__cause__, OutputError)


def test_a_lock_is_looked_at_again_only_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(lock_module, "_clock", lambda: now[0])
    with write_lock(tmp_path / "f.h5"):
        (tmp_path / ".f.h5.lock").unlink()
        now[0] += 0.05
        require_locks()
        now[0] += 3600
        with pytest.raises(CacheLockedError, match="no longer locked"):
            require_locks()
