"""Runs that are interrupted lose nothing, and the next run continues where they stopped."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extractions import (
    MakeImage,
    add,
    add_and_touch_all,
    assert_own_features,
    counts,
    interrupt,
    rename_all,
    touch_all,
)
from failing_calls import CALLS, failing
from feature_files import flip
from fuzz_partial import run as flip_bits

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import CacheLockedError, FeatxError, UnreadableFileError
from featx.extraction import computation
from featx.extraction.pipeline import extract
from featx.features import checksums
from featx.features.feature_file import DONE, FeatureFile
from featx.features.feature_set import FeatureSet

_SLOW_RUN = """
import sys, time
from featx.backbones.backbone import load_backbone
from featx.extraction.committer import Committer
from featx.extraction import execute
from featx.extraction.pipeline import extract
from featx.features import checksums

store, calls = Committer.store, []

def slow(self, *batch):
    if len(calls) == 3:
        print("three batches done", flush=True)
        time.sleep(60)
    calls.append(1)
    return store(self, *batch)

Committer.store = slow
extract(sys.argv[1], load_backbone("lenet5", device="cpu"), cache=sys.argv[2], batch_size=4)
"""


def test_a_killed_run_leaves_its_rows_to_the_next_one(
    photos: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", _SLOW_RUN, str(photos), str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"three batches done\n"
            with pytest.raises(CacheLockedError, match=rf"photos--lenet5\.h5 is being written by process {run.pid} "):
                extract(photos, lenet, cache=cache)
        finally:
            run.send_signal(signal.SIGKILL)
    assert not (cache / "photos--lenet5.h5").exists()
    left = FeatureFile(cache / "photos--lenet5.h5.partial", allow_partial=True)
    done = np.flatnonzero(left.status == DONE)
    assert done.tolist() == list(range(12))
    assert left.checksums_match("penultimate", done).all()
    rows = left.features("penultimate")[done].copy()

    result = extract(photos, lenet, cache=cache, batch_size=4)
    assert counts(result) == (40, 28, 12, 0, 0)
    assert sum(encoded) == 28
    assert not (cache / "photos--lenet5.h5.partial").exists()
    features = result.load().features
    np.testing.assert_array_equal(features[:12], rows)
    whole = extract(photos, lenet, out=tmp_path / "whole.h5", batch_size=4)
    np.testing.assert_allclose(features, whole.load().features, atol=1e-6)
    assert_own_features(result, lenet, photos)


@pytest.mark.parametrize("change", [touch_all, rename_all, add_and_touch_all], ids=lambda change: change.__name__)
def test_rows_of_an_interrupted_run_are_right_when_its_images_moved_meanwhile(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, change: Callable[[Path, MakeImage], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    change(few, make_image)
    result = extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert result.reused == 4
    assert result.computed == result.images - 4
    assert_own_features(result, lenet, few)


def test_a_run_interrupted_again_and_again_loses_nothing(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, after=1)
            with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
                extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    result = extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert counts(result) == (8, 2, 6, 0, 0)
    assert_own_features(result, lenet, few)


def test_an_interrupted_update_leaves_the_complete_file(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, opened: Callable[[], list[str]]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    before = first.file.read_bytes()
    for number in range(4):
        make_image(few / "dark" / f"1{number}.png", seed=900 + number)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=1)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert first.file.read_bytes() == before
    opened()
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(result) == (12, 2, 10, 0, 0)
    assert opened() == ["12.png", "13.png"]
    assert_own_features(result, lenet, few)


def test_what_a_run_with_fewer_layers_left_is_not_taken_for_more(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    both = load_backbone("lenet5", layers=("hidden",), device="cpu")
    extract(few, both, out=tmp_path / "both.h5")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=1)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "elsewhere" / "one.h5", batch_size=2)
    (tmp_path / "elsewhere" / "one.h5.partial").rename(tmp_path / "both.h5.partial")
    add(few, make_image)
    assert counts(extract(few, lenet, out=tmp_path / "both.h5")) == (9, 1, 8, 0, 0)
    assert len(FeatureSet.load(tmp_path / "both.h5", "hidden")) == 9


def test_a_damaged_leftover_is_put_aside_and_a_note_says_so(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    for number in ("", "-2", "-3"):
        (tmp_path / "f.h5.partial").write_bytes(b"torn")
        result = extract(few, lenet, out=tmp_path / "f.h5")
        aside = tmp_path / f"f--unusable{number}.h5.partial"
        assert aside.read_bytes() == b"torn"
        assert len(result.notes) == 1
        assert result.notes[0].startswith("an interrupted run left a file that cannot be used: ")
        assert result.notes[0].endswith(f"It is kept as {aside}")
        assert_own_features(result, lenet, few)
        (tmp_path / "f.h5").unlink()


def test_no_flipped_bit_of_an_unfinished_file_reaches_a_finished_one(tmp_path: Path) -> None:
    seen = flip_bits(tmp_path, 40, seed=1)
    assert seen.total() == 40
    assert seen["wrong"] == 0
    assert seen["6 rows kept"] > 10


@pytest.mark.parametrize(
    ("table", "row"),
    [("images/key", 0), ("images/key", 3), ("images/path", 2), ("images/size", 1), ("images/mtime_ns", 1)],
)
def test_what_a_flipped_bit_says_of_an_image_is_not_taken_over(
    few: Path, tmp_path: Path, lenet: Backbone, opened: Callable[[], list[str]], table: str, row: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    left = FeatureFile(tmp_path / "f.h5.partial", allow_partial=True)
    assert left.vouched(np.arange(8)).tolist() == [True] * 4 + [False] * 4
    entry = left.structure.tables[table]
    flip(left.path, entry.offset + row * entry.nbytes // len(left))
    damaged = FeatureFile(left.path, allow_partial=True)
    assert damaged.vouched(np.arange(4)).tolist() == [number != row for number in range(4)]
    assert damaged.checksums_match("penultimate", np.arange(4)).tolist() == [number != row for number in range(4)]
    opened()
    result = extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    assert counts(result) == (8, 5, 3, 0, 0)
    assert f"{row}.png" in opened()
    whole = extract(few, lenet, out=tmp_path / "elsewhere" / "whole.h5", batch_size=2)
    assert (tmp_path / "f.h5").read_bytes() == whole.file.read_bytes()


def test_rows_that_an_earlier_featx_left_are_hashed_again_and_not_computed(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], opened: Callable[[], list[str]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "fact_checksums", lambda *columns: np.zeros(len(columns[0]), np.uint32))
        interrupt(patch, after=3)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    encoded.clear()
    opened()
    result = extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    assert counts(result) == (8, 2, 6, 0, 0)
    assert sum(encoded) == 2
    assert opened() == ["0.png", "1.png", "2.png", "3.png"]
    whole = extract(few, lenet, out=tmp_path / "elsewhere" / "whole.h5", batch_size=2)
    assert (tmp_path / "f.h5").read_bytes() == whole.file.read_bytes()


@pytest.mark.parametrize("name", CALLS)
def test_a_read_that_fails_for_a_moment_loses_no_row_of_an_interrupted_run(
    few: Path, tmp_path: Path, lenet: Backbone, name: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=3)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, cache=tmp_path / "left", batch_size=2)
    for at in (*range(1, 12), *range(12, 10_000, 17)):
        cache = tmp_path / str(at)
        shutil.copytree(tmp_path / "left", cache)
        with failing(name, at) as calls:
            try:
                first = extract(few, lenet, cache=cache, batch_size=2)
            except FeatxError:
                first = None
        if calls.calls < at:
            assert first
            break
        if first:
            assert (first.reused, first.computed) == (6, 2), f"{name} {at}"
        second = extract(few, lenet, cache=cache, batch_size=2)
        assert second.computed <= 2, f"{name} {at}"
        assert_own_features(second, lenet, few)
    assert calls.calls < at


def test_an_unfinished_file_that_cannot_be_read_now_stops_the_run(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    left = (tmp_path / "f.h5.partial").read_bytes()
    encoded.clear()
    with (
        failing("pread", 1),
        pytest.raises(UnreadableFileError, match=r"f\.h5\.partial cannot be read: Input/output error"),
    ):
        extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    assert (tmp_path / "f.h5.partial").read_bytes() == left
    assert encoded == []


def test_an_unfinished_file_is_gone_on_with_in_place(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    inode = (tmp_path / "f.h5.partial").stat().st_ino
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: pytest.fail("asked for more room"))
        assert counts(extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)) == (8, 4, 4, 0, 0)
    assert (tmp_path / "f.h5").stat().st_ino == inode
    whole = extract(few, lenet, out=tmp_path / "elsewhere" / "whole.h5", batch_size=2)
    assert (tmp_path / "f.h5").read_bytes() == whole.file.read_bytes()


def test_a_bad_image_ends_the_same_whether_or_not_the_run_was_interrupted(
    spoilt: Path, tmp_path: Path, lenet: Backbone
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(spoilt, lenet, out=tmp_path / "f.h5", batch_size=2)
    assert counts(extract(spoilt, lenet, out=tmp_path / "f.h5", batch_size=2)) == (11, 4, 4, 3, 0)
    whole = extract(spoilt, lenet, out=tmp_path / "elsewhere" / "whole.h5", batch_size=2)
    assert (tmp_path / "f.h5").read_bytes() == whole.file.read_bytes()


def test_rows_of_an_unfinished_file_survive_a_second_kill_though_the_images_were_renamed(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, encoded: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=3)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    rename_all(few, make_image)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=0)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    encoded.clear()
    assert counts(extract(few, lenet, out=tmp_path / "f.h5")) == (8, 2, 6, 0, 0)
    assert sum(encoded) == 2


def test_rows_of_an_unfinished_file_survive_a_run_for_other_features_of_the_same_name(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=3)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    other = extract(few, load_backbone("lenet5", weights="random", device="cpu"), out=tmp_path / "f.h5")
    (kept,) = tmp_path.glob("*.partial")
    assert re.fullmatch(r"f--[0-9a-f]{8}\.h5\.partial", kept.name)
    assert other.notes[-1] == f"an interrupted run for other features left rows, now stored in {kept}"
    encoded.clear()
    result = extract(few, lenet, out=tmp_path / "g.h5", batch_size=2)
    assert counts(result) == (8, 2, 6, 0, 0)
    assert sum(encoded) == 2
    assert_own_features(result, lenet, few)


def test_a_run_that_was_killed_between_completing_and_renaming_is_only_renamed(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    path = extract(few, lenet, out=tmp_path / "f.h5").file
    whole = path.read_bytes()
    path.rename(tmp_path / "f.h5.partial")
    encoded.clear()
    assert counts(extract(few, lenet, out=path)) == (8, 0, 8, 0, 0)
    assert encoded == []
    assert path.read_bytes() == whole


def test_reasons_of_failures_survive_a_kill_between_completing_and_renaming(
    spoilt: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    path = extract(spoilt, lenet, out=tmp_path / "f.h5").file
    whole = path.read_bytes()
    path.rename(tmp_path / "f.h5.partial")
    encoded.clear()
    assert counts(extract(spoilt, lenet, out=path)) == (11, 0, 8, 3, 0)
    assert encoded == []
    assert path.read_bytes() == whole


def test_the_lock_file_of_a_run_that_was_killed_after_renaming_goes_with_the_next_run(
    few: Path, tmp_path: Path, lenet: Backbone
) -> None:
    extract(few, lenet, out=tmp_path / "f.h5")
    lock = tmp_path / ".f.h5.lock"
    lock.write_text("process 1 on elsewhere since 2001-01-01 00:00:00")
    assert extract(few, lenet, out=tmp_path / "f.h5").computed == 0
    assert not lock.exists()


def test_a_file_that_is_continued_keeps_its_engine(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lenet = load_backbone("lenet5", device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    assert FeatureFile(tmp_path / "f.h5.partial", allow_partial=True).engine == "eager"
    asked, choose = [], computation.choose_engine

    def noted(name: str, *more: Any, **options: Any) -> Any:
        asked.append(name)
        return choose(name, *more, **options)

    monkeypatch.setattr(computation, "choose_engine", noted)
    result = extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    assert counts(result) == (8, 4, 4, 0, 0)
    assert asked == ["eager"]
    assert FeatureFile(result.file).engine == ""
    extract(few, lenet, out=tmp_path / "g" / "g.h5", batch_size=2)
    assert asked == ["eager", "auto"]
