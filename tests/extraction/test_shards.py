"""Parts of a data set that several processes extract, and the one file that they are merged into."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from extractions import MakeImage

from featx.backbones.backbone import Backbone, load_backbone
from featx.cli.main import main
from featx.data.scan import scan_images
from featx.data.shard import Shard
from featx.errors import CacheLockedError, CacheMissError, CorruptFileError, DatasetError, OutputError, SettingsError
from featx.extraction import inventory
from featx.extraction.pipeline import extract
from featx.extraction.result import Extraction
from featx.extraction.reuse import KnownViews
from featx.features import lock as lock_module
from featx.features import shards
from featx.features.entries import list_folder, remove
from featx.features.feature_file import FeatureFile
from featx.features.header import partial_path
from featx.features.lock import write_lock
from featx.features.shards import MergedShards, merge_shards, shard_folders
from featx.reporter import Reporter

ENGINE: dict[str, Any] = {"compute": "eager", "batch_size": 2}

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path: Path, make_image: MakeImage) -> Path:
    """40 images in two classes, with copies, one that is damaged and one that is empty."""
    folder = tmp_path / "photos"
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(19):
            make_image(folder / label / f"{number:02}.png", seed=number % 17 + tint, tint=tint)
    (folder / "dark" / "damaged.png").write_bytes((folder / "dark" / "00.png").read_bytes()[:60])
    (folder / "light" / "empty.png").touch()
    return folder


class Parts:
    """Shards of a data set in a cache folder, and the file of a single run to compare with."""

    def __init__(self, data: Any, backbone: Backbone, folder: Path, of: int = 4) -> None:
        self.data, self.backbone, self.of = data, backbone, of
        self.cache = folder / "parts"
        self.whole = extract(data, backbone, cache=folder / "whole", **ENGINE).file

    def extract(self, *numbers: int, **options: Any) -> list[Extraction]:
        return [
            extract(self.data, self.backbone, cache=self.cache, **ENGINE, shard=f"{number}/{self.of}", **options)
            for number in numbers
        ]

    @property
    def folder(self) -> Path:
        (folder,) = shard_folders(self.cache)
        return folder

    def shard(self, number: int) -> Path:
        return self.folder / f"{number}-of-{self.of}.h5"

    def merge(self, **options: Any) -> MergedShards:
        return merge_shards(self.folder, **options)

    def is_whole(self, file: Path | None) -> bool:
        return file is not None and file.read_bytes() == self.whole.read_bytes()


@pytest.fixture
def parts(photos: Path, lenet: Backbone, tmp_path: Path) -> Parts:
    return Parts(photos, lenet, tmp_path)


# Parts


@pytest.mark.parametrize("images", [1, 7, 40, 999, 100_000])
@pytest.mark.parametrize("of", [1, 3, 16])
def test_every_image_is_in_one_shard_and_shards_have_about_the_same_size(images: int, of: int) -> None:
    rows = [Shard(number, of).rows(images) for number in range(1, of + 1)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(images))
    sizes = [len(some) for some in rows]
    assert max(sizes) - min(sizes) <= max(1, min(256, images // (8 * of)))
    assert all((np.diff(some) > 0).all() for some in rows)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/8", "a/b", "1/9999999", "٣/٤x"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected K/N"):
        Shard.parse(text)


# Merging


def test_shards_in_any_order_become_the_file_of_a_single_run_byte_for_byte(parts: Parts) -> None:
    results = parts.extract(3, 1, 4, 2)
    assert [result.images for result in results] == [10, 10, 10, 10]
    assert sum(result.failed for result in results) == 2
    merged = parts.merge(keep=True)
    assert parts.is_whole(merged.file)
    assert (merged.images, merged.merged, merged.failed, merged.missing, merged.removed) == (40, 40, 2, (), 0)
    assert parts.merge(keep=True).file == merged.file
    assert parts.is_whole(merged.file)
    assert parts.merge().removed == 4
    assert shard_folders(parts.cache) == []
    assert extract(parts.data, parts.backbone, cache=parts.cache).computed == 0


@pytest.mark.parametrize("kind", ["table", "splits", "layers", "views", "unlabelled"])
def test_whatever_a_file_holds_survives(
    kind: str, photos: Path, tmp_path: Path, make_image: MakeImage, lenet: Backbone
) -> None:
    backbone, data = lenet, photos
    if kind == "table":
        paths = sorted(path.relative_to(photos) for path in photos.rglob("*.png"))
        rows = [f"{path},{path.parts[0]},{'test' if i % 3 else 'train'},né {i}" for i, path in enumerate(paths)]
        data = photos / "labels.csv"
        data.write_text("\n".join(["path,label,split,note", *rows]) + "\n", encoding="utf-8")
    elif kind == "splits":
        data = tmp_path / "split"
        for split in ("train", "test"):
            for number in range(10):
                make_image(data / split / "ab"[number % 2] / f"{number}.png", seed=number + len(split))
    elif kind == "unlabelled":
        data = photos / "dark"
    else:
        options: dict[str, Any] = {"layers": {"layers": ["features.3"]}, "views": {"views": "flip", "dtype": "float16"}}
        backbone = load_backbone("lenet5", device="cpu", **options[kind])
    parts = Parts(data, backbone, tmp_path, of=3)
    parts.extract(1, 2, 3)
    assert parts.is_whole(parts.merge().file)


def test_a_merge_of_what_is_there_names_what_is_missing_and_the_next_completes_it(parts: Parts) -> None:
    parts.extract(1, 3)
    merged = parts.merge()
    assert merged.merged == 20
    assert merged.missing == ("shard 2/4: not begun", "shard 4/4: not begun")
    assert merged.file is not None
    assert len(FeatureFile(merged.file)) == 20
    with pytest.raises(DatasetError, match=r"not complete: shard 2/4: not begun, shard 4/4: not begun"):
        parts.merge(strict=True)
    parts.extract(2, 4)
    assert parts.is_whole(parts.merge(strict=True).file)


class _Interrupt(Reporter):
    def progress(self, done: int, total: int, detail: str = "") -> None:
        if done >= total // 2:
            raise KeyboardInterrupt


def test_a_shard_that_was_interrupted_counts_as_far_as_it_came_and_goes_on(parts: Parts) -> None:
    parts.extract(1, 2, 3)
    with pytest.raises(KeyboardInterrupt):
        parts.extract(4, reporter=_Interrupt())
    assert partial_path(parts.shard(4)).exists()
    merged = parts.merge()
    (missing,) = merged.missing
    assert missing.startswith("shard 4/4: ")
    assert 30 < merged.merged < 40
    (result,) = parts.extract(4)
    assert 0 < result.computed < 10
    assert parts.is_whole(parts.merge().file)


def test_extract_takes_what_shards_have_and_computes_the_rest(parts: Parts) -> None:
    parts.extract(1, 2)
    result = extract(parts.data, parts.backbone, cache=parts.cache, **ENGINE)
    assert parts.is_whole(result.file)
    assert (result.computed, result.failed) == (
        38 - sum(int((FeatureFile(parts.shard(n)).status == 1).sum()) for n in (1, 2)) - _copies(parts, 1, 2),
        2,
    )
    superfluous = [entry for entry in list_folder(parts.cache) if entry.removable]
    assert [entry.path.name for entry in superfluous] == ["2-of-4.h5", "1-of-4.h5"]
    for entry in superfluous:
        assert remove(entry)
    assert shard_folders(parts.cache) == []


def _copies(parts: Parts, *numbers: int) -> int:
    """Images that need no pass, because they are copies of one in these shards or of one another."""
    keys = FeatureFile(parts.whole).keys[FeatureFile(parts.whole).status == 1]
    here = np.concatenate([FeatureFile(parts.shard(number)).keys for number in numbers])
    done = np.concatenate([FeatureFile(parts.shard(number)).status == 1 for number in numbers])
    known = set(map(bytes, here[done]))
    return len(keys) - int(done.sum()) - len(set(map(bytes, keys)) - known)


def test_a_shard_takes_what_the_folder_has(parts: Parts) -> None:
    extract(parts.data, parts.backbone, cache=parts.cache, **ENGINE)
    assert [result.computed for result in parts.extract(1, 2, 3, 4)] == [0, 0, 0, 0]
    assert parts.is_whole(parts.merge().file)


# What must not be lost or mixed


def test_images_of_an_earlier_file_are_not_lost_by_a_merge_of_some_shards(
    parts: Parts, photos: Path, make_image: MakeImage
) -> None:
    before = extract(photos, parts.backbone, cache=parts.cache, **ENGINE).file.read_bytes()
    make_image(photos / "dark" / "new.png", seed=999)
    parts.extract(1)
    merged = parts.merge()
    assert merged.file is None
    assert "stays as it is until all are there" in merged.notes[0]
    assert (parts.cache / "photos--lenet5.h5").read_bytes() == before
    assert sum(result.computed for result in parts.extract(2, 3, 4)) <= 1
    merged = parts.merge()
    assert merged.merged == 41
    assert merged.file == parts.cache / "photos--lenet5.h5"


def test_what_an_interrupted_run_left_is_set_aside(parts: Parts) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(parts.data, parts.backbone, cache=parts.cache, **ENGINE, reporter=_Interrupt())
    left = partial_path(parts.cache / "photos--lenet5.h5")
    assert left.exists()
    shutil.move(left, parts.cache.parent / "left")
    parts.extract(4)
    shutil.move(parts.cache.parent / "left", left)
    merged = parts.merge()
    assert "now stored in" in merged.notes[0]
    assert len(list(parts.cache.glob("*--other.h5.partial"))) == 1


def test_shards_of_another_state_of_the_data_are_named_and_not_merged(
    parts: Parts, photos: Path, make_image: MakeImage
) -> None:
    parts.extract(1, 2)
    make_image(photos / "light" / "new.png", seed=999)
    parts.extract(3)
    merged = parts.merge()
    assert merged.notes == ("2 files of an earlier state of the data set are not merged: 1-of-4.h5, 2-of-4.h5",)
    assert merged.images == 41
    parts.extract(1, 2, 4)
    assert parts.merge().notes == ()


def test_a_shard_of_other_features_is_named_and_not_merged(parts: Parts, photos: Path) -> None:
    parts.extract(1, 2, 3)
    other = load_backbone("lenet5", device="cpu", weights="random")
    folder = extract(photos, other, cache=parts.cache.parent / "other", shard="4/4").file
    shutil.copy(folder, parts.shard(4))
    os.utime(parts.shard(4), (1, 1))
    merged = parts.merge()
    assert merged.notes == ("1 file of other features is not merged: 4-of-4.h5",)
    assert merged.missing == ("shard 4/4: not begun",)


@pytest.mark.parametrize(
    ("where", "note"),
    [
        (lambda file: file.layers["penultimate"].offset + 5, "1 row of .* does not match the checksums"),
        (lambda file: file.structure.tables["images/key"].offset, "do not match their digest"),
        (lambda _: 100, "4-of-4.h5"),
    ],
    ids=["a feature", "a table", "the structure"],
)
def test_a_damaged_shard_is_named_and_what_is_sound_is_merged(
    where: Callable[[FeatureFile], int], note: str, parts: Parts
) -> None:
    parts.extract(1, 2, 3, 4)
    data = bytearray(parts.shard(4).read_bytes())
    data[where(FeatureFile(parts.shard(4)))] ^= 1
    parts.shard(4).write_bytes(data)
    merged = parts.merge()
    assert re.search(note, " ".join(merged.notes)), merged.notes
    assert len(merged.missing) == 1
    assert 30 <= merged.merged < 40
    parts.shard(4).unlink()
    parts.extract(4)
    assert parts.is_whole(parts.merge().file)


def test_one_process_merges_and_shards_that_are_written_stay(parts: Parts) -> None:
    parts.extract(1, 2, 3, 4)
    with write_lock(parts.cache / "photos--lenet5.h5"), pytest.raises(CacheLockedError):
        parts.merge()
    with write_lock(parts.shard(2)):
        assert parts.merge().removed == 3
        with pytest.raises(CacheLockedError), write_lock(parts.shard(2)):  # the lock of its writer is still there
            pass
    assert parts.shard(2).exists()


def test_what_cannot_be_a_shard_is_refused_in_one_line(photos: Path, lenet: Backbone, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="shard 41/99 has no images: the data set has 40"):
        extract(photos, lenet, cache=tmp_path / "c", shard="41/99")
    for options in ({"out": tmp_path / "x.h5"}, {"cache": "memory://bucket/features"}):
        with pytest.raises(OutputError, match="a folder that all machines share"):
            extract(photos, lenet, shard="1/2", **options)
    with pytest.raises(CacheMissError, match="--shard K/N makes one"):
        merge_shards(tmp_path / "none.shards")
    (tmp_path / "empty.shards").mkdir()
    with pytest.raises(CacheMissError, match="there are no shards in"):
        merge_shards(tmp_path / "empty.shards")


def test_shards_without_a_readable_image_are_merged_too(tmp_path: Path, make_image: MakeImage, lenet: Backbone) -> None:
    for number in range(4):
        (tmp_path / "data" / f"{number}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "data" / f"{number}.png").write_bytes(b"no image")
    make_image(tmp_path / "data" / "3.png", seed=1)
    parts = Parts(tmp_path / "data", lenet, tmp_path, of=4)
    assert [result.failed for result in parts.extract(1, 2, 3, 4)] == [1, 1, 1, 0]
    assert parts.is_whole(parts.merge().file)


def test_a_file_of_a_later_state_of_the_data_is_not_replaced_by_earlier_shards(
    parts: Parts, lenet: Backbone, make_image: MakeImage
) -> None:
    parts.extract(1, 2, 3, 4)
    make_image(parts.data / "dark" / "00-later.png", seed=4, tint=90)
    later = extract(parts.data, lenet, cache=parts.cache, **ENGINE)
    assert (later.computed, later.images) == (1, 41)
    kept = later.file.read_bytes()
    merged = parts.merge()
    assert merged.file is None
    assert "is newer than the shards, and has other images or labels" in merged.notes[0]
    (parts.data / "dark" / "00-later.png").unlink()
    (parts.data / "dark" / "01.png").rename(parts.data / "light" / "01-was-dark.png")
    relabelled = extract(parts.data, lenet, cache=parts.cache, **ENGINE).file.read_bytes()
    assert parts.merge().file is None
    assert later.file.read_bytes() == relabelled != kept
    (parts.data / "light" / "01-was-dark.png").rename(parts.data / "dark" / "01.png")
    os.utime(later.file, (0, 0))  # older than the shards
    assert parts.is_whole(parts.merge().file)


def test_shards_of_another_number_of_parts_are_merged_too(parts: Parts) -> None:
    parts.extract(1, 2, 3)
    parts.of = 8
    parts.extract(4)
    merged = parts.merge(keep=True)
    assert (merged.merged, merged.of, merged.missing) == (35, 8, ("shard 8/8: not begun",))
    parts.extract(*range(1, 9))
    merged = parts.merge()
    assert (merged.removed, merged.of, merged.notes) == (11, 8, ())
    assert parts.is_whole(merged.file)


def test_shards_of_machines_with_other_decoders_are_merged_and_failures_are_tried_again(
    parts: Parts, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.extract(1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(inventory, "reader_name", lambda: "featx 3, Pillow 0.1")
        parts.extract(3, 4)
    merged = parts.merge()
    assert (merged.merged, merged.failed, merged.notes) == (40, 2, ())
    assert extract(parts.data, lenet, cache=parts.cache, **ENGINE).failed == 2
    assert parts.is_whole(merged.file)


def test_a_merge_that_waited_takes_what_is_there_by_then(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.extract(1, 2, 3)
    with pytest.raises(KeyboardInterrupt):
        parts.extract(4, reporter=_Interrupt())

    def lock(path: Path, **options: Any) -> Any:
        monkeypatch.setattr(shards, "write_lock", write_lock)
        parts.extract(4)  # while the lock is waited for
        return write_lock(path, **options)

    monkeypatch.setattr(shards, "write_lock", lock)
    assert parts.is_whole(parts.merge(wait=True).file)


def test_a_merge_that_waited_replaces_no_file_of_another_data_set(
    parts: Parts, lenet: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.extract(1, 2, 3, 4)
    shutil.copytree(parts.data, tmp_path / "other" / "photos")

    def lock(path: Path, **options: Any) -> Any:
        monkeypatch.setattr(shards, "write_lock", write_lock)
        extract(tmp_path / "other" / "photos", lenet, cache=parts.cache, **ENGINE)  # has the same name
        return write_lock(path, **options)

    monkeypatch.setattr(shards, "write_lock", lock)
    merged = parts.merge(wait=True)
    assert parts.is_whole(merged.file)
    assert merged.file != parts.cache / "photos--lenet5.h5"
    assert FeatureFile(parts.cache / "photos--lenet5.h5").root == str(tmp_path / "other" / "photos")


@pytest.mark.parametrize("damage", ["empty", "cut off", "zeros", "one bit of the tables"])
def test_a_damaged_shard_is_made_again_by_the_same_command(parts: Parts, damage: str) -> None:
    parts.extract(1, 2, 3, 4)
    shard = parts.shard(2)
    data = shard.read_bytes()
    broken = {"empty": b"", "cut off": data[:9000], "zeros": bytes(len(data))}.get(damage)
    shard.write_bytes(broken if broken is not None else data[:6000] + bytes([data[6000] ^ 1]) + data[6001:])
    assert "the same featx extract makes it again" in parts.merge().notes[0]
    (made,) = parts.extract(2)
    assert any(note.endswith("It is made again") for note in made.notes)
    assert shard.read_bytes() == data
    assert parts.is_whole(parts.merge().file)


def test_a_file_that_featx_has_not_made_is_not_overwritten_by_a_shard(parts: Parts) -> None:
    parts.extract(1, 2)
    parts.shard(2).write_text("a thesis")
    (note,) = parts.merge().notes
    assert note.endswith("is not an HDF5 file. It is not merged")
    with pytest.raises(CorruptFileError, match="not overwritten; move it away, since a shard has no other name"):
        parts.extract(2)


def test_one_folder_that_cannot_be_merged_does_not_stop_the_others(photos: Path, in_tmp: Path) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == status, result.output
        return result.output

    shutil.copytree(photos, "zoo")
    run("extract", str(photos), "-b", "lenet5", "--shard", "1/2")
    run("extract", "zoo", "-b", "lenet5", "--shard", "1/1")
    Path("cache/begun--lenet5--00000000.shards").mkdir()
    out = run("cache", "merge", "cache", "--strict", status=1)
    assert "Error: there are no shards in cache/begun--lenet5--00000000.shards" in out
    assert re.search(r"Error: .*is not complete: shard 2/2: not begun", out)
    assert "features: cache/zoo--lenet5.h5" in out
    errors = json.loads(CliRunner().invoke(main, ["cache", "merge", "--strict", "--json"]).stdout)["errors"]
    assert [Path(each["folder"]).name.partition("--")[0] for each in errors] == ["begun", "photos"]
    out = run("cache", "merge", status=1)
    assert "photos through lenet5: 20 of 40 images" in out
    assert "is no folder" in run("cache", "merge", "cache/zoo--lenet5.h5", status=1)
    assert "takes a folder of this machine as --cache" in run("cache", "merge", "--cache", "s3://b/c", status=1)


# The command line, and several processes at once


def test_the_commands_say_what_they_did(photos: Path, in_tmp: Path) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == status, result.output
        return result.output

    assert "there are no shards in cache" in run("extract", str(photos), "-b", "lenet5") + run("cache", "merge")
    shutil.rmtree("cache")
    out = run("extract", str(photos), "-b", "lenet5", "--shard", "1/2")
    assert "shard 1/2 has 20 of the 40 images; featx cache merge joins the shards" in out
    out = run("cache", "merge")
    assert "photos through lenet5: 20 of 40 images in 2 shards, 0 failed" in out
    assert "missing: shard 2/2: not begun" in out
    assert "not complete" in run("cache", "merge", "--strict", status=1)
    run("extract", str(photos), "-b", "lenet5", "--shard", "2/2")
    out = run("cache", "merge")
    assert "features: cache/photos--lenet5.h5" in out
    assert "2 shards removed" in out
    assert "1/2 removed" not in out
    assert '"merged": []' in run("cache", "merge", "--json")
    assert "expected K/N" in run("extract", str(photos), "--shard", "3/2", status=1)


def test_the_example_for_slurm_runs_as_four_processes(photos: Path, tmp_path: Path) -> None:
    script = ROOT / "pipelines" / "slurm_array.sh"
    featx = tmp_path / "featx"
    featx.write_text(f'#!/bin/sh\nexec {sys.executable} -m featx "$@"\n')
    featx.chmod(0o755)
    environment = {
        **os.environ,
        "FEATX": str(featx),
        "DATA": str(photos),
        "BACKBONE": "lenet5",
        "CACHE": str(tmp_path / "cache"),
        "SLURM_ARRAY_TASK_COUNT": "4",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    running = [
        subprocess.Popen(["sh", str(script)], env={**environment, "SLURM_ARRAY_TASK_ID": str(number)})
        for number in (1, 2, 3, 4)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0, 0]
    (folder,) = shard_folders(tmp_path / "cache")
    merged = merge_shards(folder, strict=True)
    assert merged.file is not None
    whole = extract(photos, load_backbone("lenet5", device="cpu"), cache=tmp_path / "whole").file
    assert merged.file.read_bytes() == whole.read_bytes()
    assert len(scan_images(photos)) == merged.images


class _At(Reporter):
    """Does something once, when half of the images are done."""

    def __init__(self, what: Callable[[], object]) -> None:
        self._what, self._waits = what, True

    def progress(self, done: int, total: int, detail: object = "") -> None:
        if self._waits and done >= total // 2:
            self._waits = False
            self._what()


@contextlib.contextmanager
def _asleep(lock: Path) -> Iterator[None]:
    """What happens in the block is done by another process, which got the lock of this one meanwhile."""
    lock.unlink()
    held = dict(lock_module._held)
    lock_module._held.clear()
    yield
    lock_module._held.update(held)


def test_a_worker_that_wakes_up_after_another_one_got_its_lock_writes_nothing_more(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep() -> None:
        with _asleep(parts.folder / ".2-of-4.h5.lock"):
            parts.extract(2)
            done.append(parts.shard(2).read_bytes())

    monkeypatch.setattr(lock_module, "_TRUSTED", -1)
    parts.extract(1, 3, 4)
    done: list[bytes] = []
    with pytest.raises(
        CacheLockedError, match=r"2-of-4\.h5 is no longer locked by this process: .* same command goes on"
    ):
        parts.extract(2, reporter=_At(sleep))
    assert [parts.shard(2).read_bytes()] == done
    assert parts.is_whole(parts.merge(strict=True).file)
    assert [path.name for path in parts.cache.iterdir()] == ["photos--lenet5.h5"]


def test_a_committer_that_wakes_up_after_another_one_has_merged_leaves_its_file(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep() -> None:
        with _asleep(parts.cache / ".photos--lenet5.h5.lock"):
            assert parts.is_whole(parts.merge().file)

    monkeypatch.setattr(lock_module, "_TRUSTED", -1)
    parts.extract(1, 2, 3, 4)
    with pytest.raises(CacheLockedError, match=r"photos--lenet5\.h5 is no longer locked by this process"):
        parts.merge(reporter=_At(sleep))
    assert parts.is_whole(parts.cache / "photos--lenet5.h5")
    assert [path.name for path in parts.cache.iterdir()] == ["photos--lenet5.h5"]


@pytest.mark.parametrize("moment", ["read", "copied"])
def test_shards_that_are_completed_while_they_are_merged_are_read_again(
    moment: str, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complete(*arguments: Any, **options: Any) -> Any:
        if partial_path(parts.shard(4)).exists():
            parts.extract(4)
        return original(*arguments, **options)

    parts.extract(1, 2, 3)
    with pytest.raises(KeyboardInterrupt):
        parts.extract(4, reporter=_Interrupt())
    place: Any = shards.Shards if moment == "read" else shards._Merging
    name = "rows" if moment == "read" else "_copy_features"
    original = getattr(place, name)
    monkeypatch.setattr(place, name, complete)
    merged = parts.merge(strict=moment == "read")
    assert merged.merged == 40
    assert parts.is_whole(merged.file)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
@pytest.mark.parametrize(("kind", "processes", "kills"), [("shards", 2, 4), ("devices", 2, 4)])
def test_processes_that_are_killed_lose_nothing(kind: str, processes: int, kills: int) -> None:
    command = [sys.executable, ROOT / "tests" / "fuzz_kills.py", kind, str(processes), str(kills), "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"kills: {kills}" in done.stdout
    assert "different: 0\nleft: 0\nfailed: 0\n" in done.stdout


def test_a_file_that_another_process_completes_meanwhile_is_passed_over(parts: Parts, lenet: Backbone) -> None:
    parts.extract(1)
    with pytest.raises(KeyboardInterrupt):
        parts.extract(2, reporter=_Interrupt())
    files = [FeatureFile(path, allow_partial=True) for path in (partial_path(parts.shard(2)), parts.shard(1))]
    for file in files:
        file.release()
        file.path.unlink()
    images = scan_images(parts.data)
    known = KnownViews(files, {lenet.views[0]: lenet.identities})
    facts = images.facts()
    keys = known.recognised(images, facts.sizes, facts.mtimes)
    assert keys.any(axis=1).sum() == 10 - 1 * (facts.sizes[Shard(1, 4).rows(40)] == -1).sum()
    assert known.failures(1 << 30) == {}
