"""Image files to bytes: what is read did not change meanwhile, and what cannot be read says why."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featx.data import file_bytes
from featx.data.file_bytes import MAX_BYTES, read_file
from featx.errors import ImageError

OLD = 1_600_000_000_123_456_789
"""A modification time (ns) long ago."""


def old(path: Path, data: bytes, mtime_ns: int = OLD) -> Path:
    """A file of these bytes that was written long ago."""
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that are slept, which take none."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture
def before_each_look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Does something before each look at an open file's size and time; the looks are numbered from 0."""

    def install(act: Callable[[int], None]) -> None:
        fstat, looks = os.fstat, iter(range(100))

        def looked(handle: int) -> os.stat_result:
            act(next(looks))
            return fstat(handle)

        monkeypatch.setattr(file_bytes.os, "fstat", looked)

    return install


# What is read


@pytest.mark.parametrize("data", [b"", b"x", b"ant" * 100_000])
def test_a_file_comes_with_its_size_and_time(tmp_path: Path, data: bytes) -> None:
    found = read_file(old(tmp_path / "a.jpg", data))
    assert (found.data, found.size, found.mtime_ns) == (data, len(data), OLD)


def test_a_link_is_followed(tmp_path: Path) -> None:
    old(tmp_path / "a.jpg", b"ant")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    assert read_file(tmp_path / "link.jpg").data == b"ant"


@pytest.mark.parametrize("look", [1, 3, 5])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, before_each_look: Callable[[Callable[[int], None]], None], look: int
) -> None:
    path = old(tmp_path / "a.jpg", b"before")

    def act(number: int) -> None:
        if number in range(1, look + 1, 2):  # after the bytes were read, before the second look
            old(path, b"change %d" % number, OLD + number)

    before_each_look(act)
    if look == 5:
        with pytest.raises(ImageError, match=r"^changes while it is being read$"):
            read_file(path)
    else:
        found = read_file(path)
        assert (found.data, found.size, found.mtime_ns) == (b"change %d" % look, 8, OLD + look)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: old(path, b"BEFORE", OLD + 1),
        lambda path: old(path, b"before and more", OLD),
        lambda path: old(path, b"be", OLD),
        lambda path: os.utime(path, ns=(OLD + 1, OLD + 1)),
    ],
    ids=["bytes", "more", "fewer", "time"],
)
def test_a_change_is_seen_by_the_time_or_by_the_size(
    tmp_path: Path,
    before_each_look: Callable[[Callable[[int], None]], None],
    change: Callable[[Path], object],
) -> None:
    path = old(tmp_path / "a.jpg", b"before")
    before_each_look(lambda number: change(path) and None if number == 1 else None)
    found = read_file(path)
    assert (found.data, found.mtime_ns) == (path.read_bytes(), path.stat().st_mtime_ns)


def test_bytes_that_change_between_the_first_look_and_reading_are_those_of_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old(tmp_path / "a.jpg", b"before")
    times = iter([OLD + 1, OLD + 2, OLD + 3])
    monkeypatch.setattr(file_bytes, "_let_age", lambda _mtime: old(path, b"after!", next(times)))
    with pytest.raises(ImageError, match=r"^changes while it is being read$"):
        read_file(path)


def test_what_a_reader_gets_beside_a_writer_is_never_a_mixture(tmp_path: Path) -> None:
    path, stop = old(tmp_path / "a.jpg", b"0" * 100_000), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with path.open("r+b", buffering=0) as file:
                for _ in range(10):
                    file.write(b"%d" % (number % 10) * 10_000)
            time.sleep(0.03)

    writer, seen = threading.Thread(target=write), 0
    writer.start()
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                data = read_file(path).data
            except ImageError as error:
                assert str(error) == "changes while it is being read"  # noqa: PT017 - it may also be read
                continue
            seen += 1
            assert data == data[:1] * 100_000
    finally:
        stop.set()
        writer.join()
    assert seen


def test_a_file_that_grows_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "a.jpg", b"x")

    def grow(_mtime: int) -> None:
        os.truncate(path, 1 << 40)  # takes no room on the disk

    monkeypatch.setattr(file_bytes, "_let_age", grow)
    with pytest.raises(ImageError, match=rf"^has {1 << 40:,} bytes; at most {MAX_BYTES:,} are read$"):
        read_file(path)


# What is not read


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^cannot be read: No such file or directory$"):
        read_file(tmp_path / "none.jpg")


def test_a_loop_of_links_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("a.jpg")
    with pytest.raises(ImageError, match=r"^cannot be read: Too many levels of symbolic links$"):
        read_file(tmp_path / "a.jpg")


def test_a_name_with_a_zero_byte_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^cannot be read: embedded null byte$"):
        read_file(tmp_path / "a\0.jpg")


def test_a_name_that_no_system_has_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^cannot be read: "):
        read_file(tmp_path / "\ud800.jpg")
    with pytest.raises(ImageError, match=r"^cannot be read: File name too long$"):
        read_file(tmp_path / ("x" * 1000))


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path(os.devnull), Path("/dev/zero")):
        with pytest.raises(ImageError, match=r"^is not a regular file$"):
            read_file(path)


def test_a_folder_is_no_ordinary_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^is not a regular file$"):
        read_file(tmp_path)


def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = old(tmp_path / "a.jpg", b"ant")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads whatever it likes")
    with pytest.raises(ImageError, match=r"^cannot be read: Permission denied$"):
        read_file(path)


def test_a_disk_that_fails_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(file_bytes.os, "open", broken)
    with pytest.raises(ImageError, match=r"^cannot be read: Input/output error$"):
        read_file(tmp_path / "a.jpg")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = old(tmp_path / "a.jpg", b"")
    os.truncate(path, MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ImageError, match=r"^has 1,073,741,825 bytes; at most 1,073,741,824 are read$"):
        read_file(path)


def test_what_says_it_is_empty_and_is_not_is_refused() -> None:
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("this system has no /proc")
    with pytest.raises(ImageError, match=r"^changes while it is being read$"):
        read_file(path)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    def next_descriptor() -> int:
        handle = os.open(tmp_path, os.O_RDONLY)
        os.close(handle)
        return handle

    before = next_descriptor()
    for _ in range(5):
        read_file(old(tmp_path / "a.jpg", b"ant"))
        with pytest.raises(ImageError, match=r"^is not a regular file$"):
            read_file(tmp_path)
    assert next_descriptor() == before


# Files that were written just now


@pytest.mark.parametrize(
    ("mtime_ns", "age_ns", "waited"),
    [
        (OLD, 0, 0.010),
        (OLD, 4_000_000, 0.006),
        (OLD, 9_999_999, 1e-9),
        (OLD, 10_000_000, None),
        (OLD, 10**15, None),
        (OLD, -1, None),  # from the future: no waiting would help
        (OLD, -(10**15), None),
        (1_600_000_000 * 10**9, 0, 2.0),  # whole seconds, as FAT and some network file systems keep them
        (1_600_000_000 * 10**9, 1_500_000_000, 0.5),
        (1_600_000_000 * 10**9, 2_000_000_000, None),
    ],
)
def test_a_file_written_just_now_is_left_to_age_by_one_tick(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    waits: list[float],
    mtime_ns: int,
    age_ns: int,
    waited: float | None,
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: mtime_ns + age_ns)
    assert read_file(old(tmp_path / "a.jpg", b"ant", mtime_ns)).data == b"ant"
    assert waits == ([] if waited is None else [pytest.approx(waited)])


def test_a_file_ages_before_its_bytes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "a.jpg", b"before")
    monkeypatch.setattr(time, "time_ns", lambda: OLD)
    monkeypatch.setattr(time, "sleep", lambda _seconds: old(path, b"within", OLD))  # in the same tick: the same time
    assert read_file(path).data == b"within"


def test_a_file_written_just_now_waits_no_longer_than_a_tick(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"ant")
    began = time.monotonic()
    assert read_file(tmp_path / "a.jpg").data == b"ant"
    assert time.monotonic() - began < 0.5
