"""Writing a feature file: its names while it is written, interruptions, and disks that are full or fail."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import DIMS, begin, keys_of, make, table, vectors, write_rows

from featx.errors import OutputError
from featx.features.feature_file import DONE, FAILED, FeatureFile


def test_a_long_reason_is_cut_between_characters(tmp_path: Path) -> None:
    writer = begin(tmp_path / "f.h5", 2)
    writer.publish()
    writer.fail(0, bytes(16), "x" + "\u00e9" * 100)
    writer.fail(1, bytes(16), "bad byte \udcff")
    file = writer.finish()
    assert file.error(0) == "x" + "\u00e9" * 59
    assert file.error(1) == "bad byte ?"


def test_splits_decided_at_the_end_are_kept(tmp_path: Path) -> None:
    writer = begin(tmp_path / "f.h5", images=table(6, splits=[b""] * 6))
    writer.publish()
    write_rows(writer, range(6))
    names = ["train", "val", "test", "", "pretrain", "train"]
    writer.set_splits(names)
    assert writer.finish().splits.tolist() == names


def test_the_file_has_its_final_name_only_when_it_is_complete(tmp_path: Path) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    writer = begin(tmp_path / "f.h5")
    assert names() == ["f.h5.new"]
    writer.publish()
    assert names() == ["f.h5.partial"]
    write_rows(writer, range(6))
    assert names() == ["f.h5.partial"]
    writer.finish()
    assert names() == ["f.h5"]


_KILLED_AT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import feature_files as t

folder, pwrite = Path(sys.argv[2]), os.pwrite
for at in range(10_000):
    child = os.fork()
    if child == 0:
        calls = 0
        def torn(handle, data, offset):
            global calls
            calls += 1
            if calls > at:
                half = len(data) // 2
                # A system or a disk stops between pages or sectors, never within a number at a multiple of its size.
                pwrite(handle, data[: half if len(data) % 4 else half // 4 * 4], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return pwrite(handle, data, offset)
        writer = t.begin(folder / f"{at}.h5", 3)
        writer.publish()
        os.pwrite = torn
        t.write_rows(writer, [0, 1], 3)
        writer.fail(2, bytes(16), "why")
        writer.finish()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(at)
"""


def test_a_kill_at_any_write_leaves_a_file_that_opens_and_no_row_that_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED_AT, str(Path(__file__).parent.parent), str(tmp_path)]
    kills = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kills == 2 * len(DIMS) + 2 + 3 + len(DIMS) + 1
    # (rows, checks) x layers, (key, status), the failed row's three, the checks of the complete file, the end
    seen = set()
    for at in range(kills):
        assert not (tmp_path / f"{at}.h5").exists()
        file = FeatureFile(tmp_path / f"{at}.h5.partial", allow_partial=True)
        done = np.flatnonzero(file.status == DONE)
        seen.add(len(done))
        for layer, dim in DIMS.items():
            assert file.checksums_match(layer, done).all()
            np.testing.assert_array_equal(file.features(layer)[done], vectors(3, dim)[done])
        np.testing.assert_array_equal(file.keys[done], keys_of(3)[done])
    assert seen == {0, 1, 2}  # 1: torn between the two
    assert FeatureFile(tmp_path / f"{kills}.h5").status.tolist() == [DONE, DONE, FAILED]


def test_too_little_space_is_an_error_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage(10**11, 10**11 - 5 * 10**9, 5 * 10**9))
    message = r"needs 12\.0 GB, 5\.0 GB free; --cache names another folder, --dtype float16 halves the size"
    with pytest.raises(OutputError, match=message):
        begin(tmp_path / "f.h5", 3, dims={"penultimate": 10**9})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_reserve_the_file_is_an_error_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match=r"cannot write .*f\.h5\.new: No space left on device"):
        begin(tmp_path / "f.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_reserves_nothing_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    assert make(tmp_path / "f.h5").complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dims": {"a/b": 3}, "identities": {"a/b": "a" * 64}},
            r"f\.h5 cannot be written as a feature file: not a valid name of a data set",
        ),
        ({"classes": ("ant", "")}, r"the new file could not be read again: .* not valid"),
        ({"images": table(6, paths=[b"a\0b"] * 6)}, r"the new file could not be read again: .* not valid"),
    ],
    ids=["layer", "class", "path"],
)
def test_what_could_not_be_read_again_is_an_error_before_the_first_row(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OutputError, match=message):
        begin(tmp_path / "f.h5", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = begin(tmp_path / "f.h5")
    writer.publish()

    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    for write in (
        lambda: write_rows(writer, [0]),
        lambda: writer.fail(0, bytes(16), "why"),
        lambda: writer.set_splits(["train"] * 6),
    ):
        with pytest.raises(OutputError, match=r"cannot write .*f\.h5\.partial: Input/output error"):
            write()
