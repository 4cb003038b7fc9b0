"""The folder of feature files: their names, files that share features, and files that nothing needs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from failing_calls import CALLS, failing
from feature_files import DIMS, IDENTITIES, begin, flip, holder_of, keys_of, make, write_rows

from featx.errors import (
    CacheLockedError,
    CacheMissError,
    CorruptFileError,
    OutputError,
    UnknownVersionError,
    UnreadableFileError,
)
from featx.features import entries, hdf5
from featx.features import folder as folder_module
from featx.features.entries import FolderEntry, describe_files, list_folder, remove
from featx.features.feature_file import FeatureFile
from featx.features.folder import feature_file_path, files_sharing, newest, require_writable

# Where files are, and what they are called


def named(folder: Path, **changes: Any) -> Path:
    """``feature_file_path`` for the features that ``make`` writes."""
    wanted = {"dataset": "photos", "root": "/photos", "backbone": "lenet5", "identities": IDENTITIES}
    return feature_file_path(folder, **{**wanted, **changes})[0]


def test_the_first_file_of_a_data_set_has_the_plain_name(tmp_path: Path) -> None:
    assert named(tmp_path) == tmp_path / "photos--lenet5.h5"


def test_the_same_features_are_found_again_under_the_same_name(tmp_path: Path) -> None:
    make(named(tmp_path))
    assert named(tmp_path) == tmp_path / "photos--lenet5.h5"
    assert named(tmp_path, identities={"hidden": "b" * 64}) == tmp_path / "photos--lenet5.h5"


@pytest.mark.parametrize(
    "changes", [{"identities": {"penultimate": "d" * 64}}, {"root": "/other/photos"}], ids=["features", "root"]
)
def test_a_taken_name_gets_a_short_hash_that_is_found_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    make(named(tmp_path))
    other = named(tmp_path, **changes)
    assert re.fullmatch(r"photos--lenet5--[0-9a-f]{8}\.h5", other.name)
    identities = changes.get("identities", IDENTITIES)
    make(
        other,
        dims={name: DIMS[name] for name in identities},
        root=changes.get("root", "/photos"),
        identities=identities,
    )
    assert named(tmp_path, **changes) == other
    assert named(tmp_path) == tmp_path / "photos--lenet5.h5"
    assert named(tmp_path, identities={"penultimate": "e" * 64}) not in (other, tmp_path / "photos--lenet5.h5")


def test_what_an_interrupted_run_left_takes_its_name_too(tmp_path: Path) -> None:
    begin(named(tmp_path)).publish()
    assert named(tmp_path).name == "photos--lenet5.h5"
    assert named(tmp_path, root="/other").name != "photos--lenet5.h5"


def test_a_damaged_file_is_not_taken_for_these_features(tmp_path: Path) -> None:
    (tmp_path / "photos--lenet5.h5").write_bytes(b"damaged")
    assert re.fullmatch(r"photos--lenet5--[0-9a-f]{8}\.h5", named(tmp_path).name)


def test_a_damaged_file_of_this_name_is_noted_with_what_removes_it(tmp_path: Path) -> None:
    def note() -> str:
        wanted = {"dataset": "photos", "root": "/photos", "backbone": "lenet5", "identities": IDENTITIES}
        return feature_file_path(tmp_path, **wanted)[1]

    assert note() == ""
    make(tmp_path / "photos--lenet5.h5")
    assert note() == ""
    os.truncate(tmp_path / "photos--lenet5.h5", 3000)
    assert re.fullmatch(
        r".*photos--lenet5\.h5 has 3,000 bytes instead of [\d,]+; it was truncated or extended\. "
        r"The file is left as it is; featx cache rm removes it",
        note(),
    )
    make(named(tmp_path))  # under the name with a hash: from now on that is the file
    assert note() == ""


def test_a_damaged_leftover_beside_the_file_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path / "photos--lenet5.h5")
    (tmp_path / "photos--lenet5.h5.partial").write_bytes(b"damaged")
    wanted = {"dataset": "photos", "root": "/photos", "backbone": "lenet5", "identities": IDENTITIES}
    assert feature_file_path(tmp_path, **wanted) == (tmp_path / "photos--lenet5.h5", "")


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("timm/vit_tiny", "photos--timm-vit_tiny.h5"), ("nets/own.v2.py:make", "photos--own.v2-make.h5")],
)
def test_a_backbone_name_with_slashes_makes_one_file_name(tmp_path: Path, backbone: str, name: str) -> None:
    assert named(tmp_path, backbone=backbone) == tmp_path / name


def test_the_newest_file_is_the_one_written_last(tmp_path: Path) -> None:
    for name, seconds in (("a.h5", 30), ("b.h5", 50), ("c.h5", 40), ("d.h5.partial", 60), ("e.safetensors", 70)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    (tmp_path / "folder.h5").mkdir()
    assert newest(tmp_path) == tmp_path / "b.h5"


def test_an_empty_folder_has_no_newest_file(tmp_path: Path) -> None:
    with pytest.raises(
        CacheMissError, match=r"there is no feature file in .*; run featx extract first, or name a file"
    ):
        newest(tmp_path)


# Folders that can be written


def test_a_folder_is_made_and_is_tried_out(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    require_writable(tmp_path / "unused", tmp_path / "other" / "f.h5")
    assert list((tmp_path / "other").iterdir()) == []
    assert not (tmp_path / "unused").exists()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(
        OutputError, match=r"cannot write into .*file: there is a file at that path; name another folder"
    ):
        require_writable(tmp_path / "file")
    with pytest.raises(OutputError, match=r"other is a folder; name a file to write with -o"):
        require_writable(tmp_path, tmp_path / "other")


def test_a_folder_that_cannot_be_written_passes_where_there_are_feature_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder_module.tempfile, "TemporaryFile", refused)
    with pytest.raises(OutputError, match=r"cannot write into .*: Permission denied; name another folder with --cache"):
        require_writable(tmp_path)
    (tmp_path / "f.h5").touch()
    require_writable(tmp_path)


# What shares features


def test_files_of_the_same_features_are_shared_the_newest_first(tmp_path: Path) -> None:
    make(tmp_path / "a.h5")
    make(tmp_path / "b.h5", root="/other")
    make(tmp_path / "less.h5", dims={"hidden": 3})
    make(tmp_path / "others.h5", identities={"penultimate": "a" * 64, "hidden": "x" * 64})
    begin(tmp_path / "c.h5").publish()
    begin(tmp_path / "d.h5")  # .new
    (tmp_path / "damaged.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:-1])
    (tmp_path / "notes.h5").write_text("ants")
    (tmp_path / "pipe.h5").symlink_to("nowhere")
    for seconds, name in enumerate(("b.h5", "c.h5.partial", "a.h5", "less.h5"), start=1):
        os.utime(tmp_path / name, (seconds, seconds))

    def found(*identities: dict[str, str], without: Sequence[Path] = ()) -> list[str]:
        files = files_sharing(tmp_path, identities, without=without, note=pytest.fail)
        return [file.path.name for file in files]

    assert found(IDENTITIES) == ["a.h5", "c.h5.partial", "b.h5"]
    assert [file.complete for file in files_sharing(tmp_path, [IDENTITIES])] == [True, False, True]
    assert found({"hidden": "b" * 64}) == ["less.h5", "a.h5", "c.h5.partial", "b.h5"]
    assert found(IDENTITIES, without=[tmp_path / "a.h5", tmp_path / "c.h5.partial"]) == ["b.h5"]
    assert found({"hidden": "0" * 64}, IDENTITIES) == ["a.h5", "c.h5.partial", "b.h5"]
    assert found() == []
    assert files_sharing(tmp_path / "none", [IDENTITIES]) == []


# What there is, and what nothing needs


def states(folder: Path) -> dict[str, FolderEntry]:
    return {entry.path.name: entry for entry in list_folder(folder)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of every state."""
    folder = tmp_path / "cache"
    folder.mkdir()
    make(folder / "whole.h5")
    partial = begin(folder / "partial.h5", root="/mine")
    partial.publish()
    write_rows(partial, [0, 3])
    begin(folder / "killed.h5")
    (folder / "empty.h5.new").touch()
    (folder / "zeros.h5.new").write_bytes(bytes(5000))
    make(folder / "flipped.h5")
    flip(folder / "flipped.h5", 5000)
    (folder / "cut.h5.partial").write_bytes((folder / "partial.h5.partial").read_bytes()[:6000])
    with h5py.File(folder / "keras.h5", "w") as file:
        file["weights"] = np.zeros(1000)
    (folder / "letter.h5").write_text("dear ants and bees")
    (folder / "letter.h5.new").write_text("dear bees")
    (folder / "empty.h5").touch()
    (folder / "other.txt").touch()
    (folder / "h5").mkdir()
    (folder / "dir.h5").mkdir()
    return folder


def test_every_file_of_a_folder_has_its_state(folder: Path) -> None:
    found = states(folder)
    assert {name: entry.state for name, entry in found.items()} == {
        "whole.h5": "complete",
        "partial.h5.partial": "partial",
        "killed.h5.new": "leftover",
        "empty.h5.new": "leftover",
        "zeros.h5.new": "leftover",
        "flipped.h5": "damaged",
        "cut.h5.partial": "damaged",
        "keras.h5": "foreign",
        "letter.h5": "foreign",
        "letter.h5.new": "foreign",
        "empty.h5": "foreign",
    }
    assert {name for name, entry in found.items() if entry.removable} == {
        "killed.h5.new", "empty.h5.new", "zeros.h5.new", "flipped.h5", "cut.h5.partial",
    }  # fmt: skip
    whole, partial = found["whole.h5"], found["partial.h5.partial"]
    assert (whole.dataset, whole.root, whole.backbone, whole.images, whole.done) == (
        "photos",
        "/photos",
        "lenet5",
        6,
        5,
    )
    assert (partial.root, partial.images, partial.done) == ("/mine", 6, 2)
    assert whole.bytes == (folder / "whole.h5").stat().st_blocks * 512
    assert whole.modified == (folder / "whole.h5").stat().st_mtime
    assert found["cut.h5.partial"].removable.startswith(f"{folder / 'cut.h5.partial'} has 6,000 bytes instead of")
    assert whole.as_dict()["state"] == "complete"


def test_files_are_listed_the_newest_first(tmp_path: Path) -> None:
    for seconds, name in ((5, "b.h5"), (9, "a.h5"), (7, "c.h5.new")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    assert [entry.path.name for entry in list_folder(tmp_path)] == ["a.h5", "c.h5.new", "b.h5"]


def test_a_folder_that_is_not_there_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"there is no folder .*none; featx extract makes one"):
        list_folder(tmp_path / "none")


def test_a_damaged_file_of_many_layers_is_known_for_ones_own(tmp_path: Path) -> None:
    names = {f"features.{number}": 2 for number in range(500)}  # the text comes after more than 64 KB of headers
    make(tmp_path / "f.h5", dims=names, identities=dict.fromkeys(names, "a" * 64))
    assert states(tmp_path)["f.h5"].state == "complete"
    os.truncate(tmp_path / "f.h5", 300_000)
    assert states(tmp_path)["f.h5"].state == "damaged"


def test_what_an_interrupted_run_left_is_of_no_use_once_the_whole_file_has_its_rows(tmp_path: Path) -> None:
    partial = begin(tmp_path / "f.h5")
    partial.publish()
    write_rows(partial, [0, 3])
    path = tmp_path / "f.h5.partial"
    assert states(tmp_path)["f.h5.partial"].removable == ""
    make(tmp_path / "whole.h5")
    (tmp_path / "whole.h5").rename(tmp_path / "f.h5")
    assert states(tmp_path)["f.h5.partial"].removable == "f.h5 has all its features"
    partial.write([4], keys_of(6)[:1], {name: np.ones((1, dim)) for name, dim in DIMS.items()})
    assert states(tmp_path)["f.h5.partial"].removable == "f.h5 has all its features"  # a copy of the first image
    partial.write([5], np.full((1, 16), 7, np.uint8), {name: np.ones((1, dim)) for name, dim in DIMS.items()})
    assert states(tmp_path)["f.h5.partial"].removable == ""
    assert states(tmp_path)["f.h5"].removable == ""
    del partial
    assert FeatureFile(path, allow_partial=True).status.tolist() == [1, 0, 0, 1, 1, 1]


def test_what_has_layers_that_the_whole_file_lacks_is_of_use(tmp_path: Path) -> None:
    begin(tmp_path / "f.h5").publish()
    make(tmp_path / "g.h5", dims={"hidden": 3})
    (tmp_path / "g.h5").rename(tmp_path / "f.h5")
    assert states(tmp_path)["f.h5.partial"].removable == ""


def test_beside_a_damaged_file_what_an_interrupted_run_left_is_of_use(tmp_path: Path) -> None:
    begin(tmp_path / "f.h5").publish()
    make(tmp_path / "g.h5")
    (tmp_path / "g.h5").rename(tmp_path / "f.h5")
    assert states(tmp_path)["f.h5.partial"].removable
    flip(tmp_path / "f.h5", 5000)
    found = states(tmp_path)
    assert (found["f.h5"].state, found["f.h5.partial"].removable) == ("damaged", "")


@pytest.mark.parametrize("count", range(0, 6000, 250))
def test_nothing_foreign_is_ever_of_no_use(tmp_path: Path, count: int) -> None:
    data = np.random.default_rng(count).bytes(count)
    for name in ("a.h5", "a.h5.partial", "b.h5", "b.h5.new"):
        (tmp_path / name).write_bytes(data if count or name != "b.h5.new" else b"x")
    assert {(entry.state, entry.removable) for entry in list_folder(tmp_path)} == {("foreign", "")}


def test_named_files_are_described_in_their_order(folder: Path) -> None:
    names = ["partial.h5.partial", "whole.h5", "killed.h5.new"]
    found = describe_files(folder / name for name in names)
    assert [(entry.path.name, entry.state) for entry in found] == list(
        zip(names, ["partial", "complete", "leftover"], strict=True)
    )
    assert found == [states(folder)[name] for name in names]


def test_what_has_not_even_the_name_of_a_feature_file_is_not_described(folder: Path) -> None:
    with pytest.raises(
        CorruptFileError, match=r"other\.txt is .*a feature file, which ends in \.h5, \.h5\.partial, \.h5\.new$"
    ):
        describe_files([folder / "other.txt"])
    for name in ("none.h5", "dir.h5"):
        with pytest.raises(CacheMissError, match=rf"there is no feature file .*{name}$"):
            describe_files([folder / name])


@pytest.mark.parametrize("name", ["whole.h5", "partial.h5.partial", "killed.h5.new", "flipped.h5"])
def test_a_removed_file_is_gone_and_its_bytes_are_counted(folder: Path, name: str) -> None:
    others = {path.name for path in folder.iterdir()} - {name}
    size = (folder / name).stat().st_blocks * 512
    assert remove(states(folder)[name]) == size > 0
    assert {path.name for path in folder.iterdir()} == others


@pytest.mark.parametrize("ending", ["", ".partial", ".new"])
def test_what_is_being_written_is_not_removed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"f.h5{ending}"
    path.touch()
    entry = states(tmp_path)[path.name]
    with holder_of(tmp_path / "f.h5") as holder:
        with pytest.raises(CacheLockedError, match=rf"f\.h5 is being written by process {holder.pid}"):
            remove(entry)
        assert path.exists()
    remove(entry)
    assert not path.exists()


def test_what_cannot_be_removed_says_why(folder: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot remove .*none\.h5: No such file or directory"):
        remove(FolderEntry(folder / "none.h5", "complete", 0, 0.0))


def test_a_file_that_vanishes_while_a_folder_is_listed_does_not_upset_the_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modified = entries.when_modified

    def renamed(path: Path) -> float:
        (folder / "whole.h5").unlink(missing_ok=True)
        return modified(path)

    monkeypatch.setattr(entries, "when_modified", renamed)
    assert states(folder)["whole.h5"].removable == ""


def test_a_file_of_a_data_set_that_is_gone_is_removable_if_another_has_all_its_features(tmp_path: Path) -> None:
    here, gone = tmp_path / "here", str(tmp_path / "gone")
    here.mkdir()
    (tmp_path / "c").mkdir()
    make(tmp_path / "c" / "old.h5", root=gone)
    assert [entry.removable for entry in list_folder(tmp_path / "c")] == [""]  # its features are nowhere else
    make(tmp_path / "c" / "older.h5", root=str(tmp_path / "gone too"))
    assert [entry.removable for entry in list_folder(tmp_path / "c")] == ["", ""]  # nor would both be lost at once
    make(tmp_path / "c" / "less.h5", root=str(here), dims={"hidden": 3})
    assert [entry.removable for entry in list_folder(tmp_path / "c")] == [""] * 3
    make(tmp_path / "c" / "new.h5", root=str(here))
    why = {entry.path.name: entry.removable for entry in list_folder(tmp_path / "c")}
    told = "its data set is gone, and new.h5 has all its features"
    assert why == {"new.h5": "", "less.h5": "", "old.h5": told, "older.h5": told}
    make(tmp_path / "c" / "more.h5", 9, root=gone)
    assert {entry.path.name: entry.removable for entry in list_folder(tmp_path / "c")}["more.h5"] == ""


# What may be intact is never removed


@pytest.mark.parametrize("name", CALLS)
def test_a_read_that_fails_for_a_moment_makes_nothing_removable(folder: Path, name: str) -> None:
    needed = {"whole.h5", "partial.h5.partial"}
    for at in (*range(1, 12), *range(12, 10_000, 17)):
        with failing(name, at) as calls:
            try:
                found = states(folder)
            except UnreadableFileError:
                found = {}
        assert not any(found[name].removable for name in needed & found.keys()), f"{name} {at}"
        assert not any(entry.removable for entry in found.values() if entry.state == "unreadable")
        if calls.calls < at:
            break
    assert found.keys() > needed


def test_a_file_that_cannot_be_read_is_not_removed_even_if_it_is_named(folder: Path) -> None:
    with (
        failing("pread", 1),
        pytest.raises(UnreadableFileError, match=r"whole\.h5 .*It may be intact, so it is not removed"),
    ):
        describe_files([folder / "whole.h5"])


@pytest.mark.parametrize("damage", [None, 6400], ids=["whole", "damaged"])
def test_a_file_of_a_later_version_is_not_removable(tmp_path: Path, damage: int | None) -> None:
    path = tmp_path / "f.h5"
    make(path)
    with path.open("r+b") as file:
        structure = hdf5.parse(file.fileno(), path)
        os.pwrite(file.fileno(), hdf5.pack({**structure.attrs, "version": 3}, structure.tables).data, 0)
        if damage:
            file.truncate(damage)
    entry = states(tmp_path)["f.h5"]
    assert (entry.state, entry.removable) == ("unknown", "")
    with pytest.raises(UnknownVersionError, match=r"f\.h5.* It may be intact, so it is not removed"):
        describe_files([path])


def test_a_file_that_became_good_meanwhile_is_kept(folder: Path) -> None:
    damaged = states(folder)["flipped.h5"]
    assert damaged.state == "damaged"
    flip(folder / "flipped.h5", 5000)
    os.utime(folder / "flipped.h5", (damaged.modified, damaged.modified))
    assert remove(damaged) is None
    assert states(folder)["flipped.h5"].state == "complete"


def test_a_named_file_that_was_used_meanwhile_is_kept(folder: Path) -> None:
    whole = states(folder)["whole.h5"]
    os.utime(folder / "whole.h5", (whole.modified + 1, whole.modified + 1))
    assert remove(whole) is None
    assert remove(states(folder)["whole.h5"])


def test_an_unfinished_file_is_kept_if_the_features_of_the_finished_one_are_damaged(tmp_path: Path) -> None:
    partial = begin(tmp_path / "f.h5")
    partial.publish()
    write_rows(partial, [0, 3])
    make(tmp_path / "whole.h5").path.rename(tmp_path / "f.h5")
    entry = states(tmp_path)["f.h5.partial"]
    assert entry.removable == "f.h5 has all its features"
    table = FeatureFile(tmp_path / "f.h5").structure.tables["features/hidden"]
    flip(tmp_path / "f.h5", table.offset)
    assert remove(entry) is None
    flip(tmp_path / "f.h5", table.offset)
    assert remove(entry)
