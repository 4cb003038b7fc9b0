"""A data set in several feature files: made, changed, interrupted, damaged, and taken as one by everything."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from extractions import MakeImage, assert_own_features, counts, interrupt

from featx.backbones.backbone import Backbone, load_backbone
from featx.cli.main import main
from featx.errors import (
    CacheLockedError,
    CacheMissError,
    CorruptFileError,
    DatasetError,
    OutputError,
    SettingsError,
    UnknownVersionError,
)
from featx.extraction.pipeline import extract
from featx.extraction.result import Extraction
from featx.features.entries import describe_files, list_folder, remove
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.features.file_set import FeatureFileSet, open_features
from featx.features.folder import newest
from featx.features.lock import write_lock
from featx.features.manifest import ListedFile, Manifest
from featx.features.set_update import divide
from featx.features.stacked_rows import StackedRows
from featx.heads.head import Head
from featx.inspection.verify import verify_file
from featx.workflows.fit import fit_head

ENGINE: dict[str, Any] = {"compute": "eager", "batch_size": 2}


@pytest.fixture
def photos(tmp_path: Path, make_image: MakeImage) -> Path:
    """26 images: two classes of twelve with copies, one class of a single image, and an empty file."""
    folder = tmp_path / "photos"
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(12):
            make_image(folder / label / f"{number:02}.png", seed=number % 11 + tint, tint=tint)
    make_image(folder / "rare" / "only.png", seed=7, tint=120)
    (folder / "light" / "empty.png").touch()
    return folder


class Sets:
    """A data set in several files, and in one to compare with."""

    def __init__(self, photos: Path, backbone: Backbone, cache: Path) -> None:
        self.photos, self.backbone, self.cache = photos, backbone, cache

    def make(self, rows: int = 8, **options: Any) -> Extraction:
        return extract(self.photos, self.backbone, cache=self.cache, split_rows=rows, **ENGINE, **options)

    def single(self) -> FeatureSet:
        return extract(self.photos, self.backbone, cache=self.cache.with_name("single"), **ENGINE).load()

    @property
    def folder(self) -> Path:
        return self.cache / "photos--lenet5.set"

    @property
    def names(self) -> list[str]:
        return [file.name for file in Manifest.read(self.folder).files]

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.suffix == ".h5"}

    def assert_as_one(self) -> None:
        """Assert that the set has what a single file has, and nothing lies beside its files."""
        found, expected = FeatureSet.load(self.folder), self.single()
        np.testing.assert_array_equal(np.asarray(found.features), expected.features)
        for name in ("labels", "splits", "paths", "keys"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        assert (found.classes, found.identity, found.layer) == (expected.classes, expected.identity, expected.layer)
        assert sorted(self.names) == sorted(path.name for path in self.folder.iterdir() if path.suffix != ".json")


@pytest.fixture
def sets(photos: Path, lenet: Backbone, tmp_path: Path) -> Sets:
    return Sets(photos, lenet, tmp_path / "cache")


def test_several_files_have_what_one_has(sets: Sets, encoded: list[int]) -> None:
    result = sets.make()
    assert counts(result) == (26, 23, 2, 1, 0)  # a copy that lies in another file is not computed either
    assert result.file == sets.folder
    assert result.failures == (("light/empty.png", "the file is empty"),)
    assert sets.names == ["0001.h5", "0002.h5", "0003.h5", "0004.h5"]
    sets.assert_as_one()
    assert_own_features(result, sets.backbone, sets.photos)
    assert isinstance(result.load().features, StackedRows)
    encoded.clear()
    before = sets.contents()
    assert counts(sets.make()) == (26, 0, 25, 1, 0)
    assert (encoded, sets.contents()) == ([], before)


def test_only_files_whose_images_change_are_written(sets: Sets, make_image: MakeImage, encoded: list[int]) -> None:
    sets.make()
    before = sets.contents()
    make_image(sets.photos / "dark" / "10-new.png", seed=8)  # in the second file; it moves the split of no other image
    encoded.clear()
    assert counts(sets.make()) == (27, 1, 25, 1, 0)
    assert sets.names == ["0001.h5", "0002-2.h5", "0005.h5", "0003.h5", "0004.h5"]  # nine images are divided
    assert sum(encoded) == 1
    after = sets.contents()
    assert all(after[name] == before[name] for name in ("0001.h5", "0003.h5", "0004.h5"))
    sets.assert_as_one()
    for name in ("00", "01"):
        (sets.photos / "dark" / f"{name}.png").unlink()
    shutil.copy(sets.photos / "dark" / "02.png", sets.photos / "unsorted.png")
    encoded.clear()
    assert counts(sets.make())[1] == 0
    assert sum(encoded) == 0
    sets.assert_as_one()


def test_a_smaller_data_set_and_another_number_of_rows_leave_no_files(sets: Sets, encoded: list[int]) -> None:
    sets.make()
    shutil.rmtree(sets.photos / "dark")
    result = sets.make()
    assert counts(result)[1:] == (0, 13, 1, 12 - 1 + 1) or result.removed == 12
    sets.assert_as_one()
    encoded.clear()
    assert counts(sets.make(rows=5))[1] == 0
    assert not encoded
    assert [file.rows for file in Manifest.read(sets.folder).files] == [5, 5, 4]
    sets.assert_as_one()


def test_a_run_that_was_interrupted_goes_on(sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, after=6)
        with pytest.raises(KeyboardInterrupt):
            sets.make()
    with pytest.raises(CacheMissError, match=r"manifest\.json is missing"):
        FeatureSet.load(sets.folder)
    result = sets.make()
    assert result.computed == 23 - 12
    sets.assert_as_one()


def test_the_earlier_set_stays_whole_until_the_new_one_is(
    sets: Sets, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets.make()
    before = FeatureSet.load(sets.folder)
    for tint, label in ((70, "dark"), (180, "light")):
        for number in range(3):
            make_image(sets.photos / label / f"new-{number}.png", seed=200 + number, tint=tint)
    with monkeypatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt):
            sets.make()
    now = FeatureSet.load(sets.folder)
    np.testing.assert_array_equal(now.paths, before.paths)
    np.testing.assert_array_equal(now.features[:], before.features[:])
    assert sets.make().computed == 6 - 3  # batches of two and one were written
    sets.assert_as_one()


def test_splits_are_those_of_one_file(sets: Sets, make_image: MakeImage) -> None:
    for rows in (1, 3, 26, 100):  # in files of single images no class has images of two splits
        sets.make(rows=rows)
        sets.assert_as_one()
    for number in range(6):
        make_image(sets.photos / "rare" / f"{number}.png", seed=300 + number, tint=30)
    sets.make(rows=100)
    sets.assert_as_one()


def test_more_layers_that_a_set_has_stay(sets: Sets, make_image: MakeImage) -> None:
    both = load_backbone("lenet5", layers=["hidden"], device="cpu")
    extract(sets.photos, both, cache=sets.cache, split_rows=10, **ENGINE)
    make_image(sets.photos / "dark" / "zz.png", seed=44)
    sets.make(rows=10)
    files = FeatureFileSet(sets.folder)
    assert sorted(files.layers) == ["hidden", "penultimate"]
    joined = FeatureSet.load(sets.folder, "hidden,penultimate")
    done = np.flatnonzero(files.status == 1)
    expected = np.concatenate([files.features(name)[done] for name in ("hidden", "penultimate")], axis=1)
    np.testing.assert_array_equal(joined.features[:], expected)


def test_a_damaged_row_is_found_and_computed_again(sets: Sets) -> None:
    sets.make()
    file = FeatureFile(sets.folder / "0002.h5")
    with file.path.open("r+b") as raw:
        raw.seek(file.layer("penultimate").offset)
        raw.write(b"\xff\xff\xff\xff")
    with pytest.raises(CorruptFileError, match=r"0002.h5: 1 of 8 rows .* --rehash"):
        FeatureSet.load(sets.folder)
    assert verify_file(sets.folder)["bad_rows"] == 1
    assert sets.make(rehash=True).computed == 1
    assert verify_file(sets.folder)["ok"]
    sets.assert_as_one()


def spoil_missing(folder: Path) -> None:
    (folder / "0002.h5").unlink()


def spoil_cut(folder: Path) -> None:
    data = (folder / "0002.h5").read_bytes()
    (folder / "0002.h5").write_bytes(data[: len(data) // 2])


def spoil_other(folder: Path) -> None:
    shutil.copy(folder / "0001.h5", folder / "0002.h5")


def spoil_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:-50])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (spoil_missing, CacheMissError, r"is not whole: 0002.h5 is missing, file 2 of 4, with 8 images"),
        (spoil_cut, CorruptFileError, "is not whole: .*0002.h5"),
        (spoil_other, CorruptFileError, "0002.h5 is another file than manifest.json lists"),
        (spoil_manifest, CorruptFileError, r"manifest.json is (damaged|not the manifest)"),
    ],
)
def test_a_set_that_is_not_whole_is_one_line_and_is_made_whole(
    sets: Sets, spoil: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    sets.make()
    spoil(sets.folder)
    with pytest.raises(error, match=message):
        FeatureSet.load(sets.folder)
    checked = verify_file(sets.folder)
    assert not checked["ok"]
    shown = CliRunner().invoke(main, ["fit-head", str(sets.folder)])
    assert shown.exit_code == 1
    assert "Traceback" not in shown.output
    result = sets.make()
    assert result.computed <= 8
    found = FeatureSet.load(sets.folder)
    np.testing.assert_array_equal(found.features[:], sets.single().features)


def test_files_of_another_identity_are_refused(sets: Sets) -> None:
    sets.make()
    other = load_backbone("lenet5", weights="random", device="cpu")
    random = extract(sets.photos, other, cache=sets.cache, split_rows=8, **ENGINE)
    assert random.file != sets.folder
    shutil.copy(random.file / "0002.h5", sets.folder / "0002.h5")
    with pytest.raises(CorruptFileError, match=r"0002\.h5 has other features than manifest\.json lists"):
        open_features(sets.folder)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": 2}, UnknownVersionError, "version 2; expected 1"),
        ({"rows": 27}, CorruptFileError, "do not add up"),
        ({"files": []}, CorruptFileError, "files"),
        ({"identity": 3}, CorruptFileError, "identity is no text"),
        ({"files": [{"name": "../x.h5", "rows": 26, "digest": "0" * 64, "first": "a"}]}, CorruptFileError, "no valid name"),
        ({"files": [{"name": "1.h5", "rows": -1, "digest": "0" * 64, "first": "a"}]}, CorruptFileError, "rows is no number"),
    ],
)  # fmt: skip
def test_odd_manifests_are_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    manifest = Manifest("f" * 64, "photos", "/photos", "lenet5", 26, (ListedFile("0001.h5", 26, "0" * 64, "a\udce9"),))
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=message):
        Manifest.read(path)


def test_a_set_is_listed_and_removed_as_one(sets: Sets) -> None:
    sets.make()
    assert newest(sets.cache) == sets.folder
    (entry,) = list_folder(sets.cache)
    assert (entry.path, entry.state, entry.images, entry.done) == (sets.folder, "complete", 26, 25)
    (sets.folder / "0009.h5.new").touch()
    assert [each.state for each in list_folder(sets.cache)] == ["leftover", "complete"]
    (sets.folder / "0009.h5.new").unlink()
    (named,) = describe_files([sets.folder / "manifest.json"])
    assert named == entry
    with pytest.raises(CorruptFileError, match=r"0001\.h5 is a part of the set"):
        describe_files([sets.folder / "0001.h5"])
    assert remove(named)
    assert list(sets.cache.iterdir()) == []


def test_a_single_file_takes_the_rows_of_a_set_and_the_reverse(sets: Sets) -> None:
    sets.make()
    assert extract(sets.photos, sets.backbone, cache=sets.cache, **ENGINE).computed == 0
    shutil.rmtree(sets.folder)
    assert sets.make().computed == 0
    sets.assert_as_one()


def test_heads_and_commands_take_a_set_as_one_file(sets: Sets, tmp_path: Path) -> None:
    single = extract(sets.photos, sets.backbone, cache=tmp_path / "one", **ENGINE).file
    sets.make()
    heads = [Head("logreg", C=1.0).fit(FeatureSet.load(path)) for path in (sets.folder, single)]
    images = FeatureSet.load(single).features
    np.testing.assert_array_equal(heads[0].predict_proba(images), heads[1].predict_proba(images))
    fit = fit_head(sets.folder / "manifest.json", "ridge", models=tmp_path / "models")
    assert fit.head.source_ == sets.folder
    run = CliRunner()
    for command in (["info"], ["info", "--json"], ["verify"], ["inspect"]):
        shown = run.invoke(main, [command[0], str(sets.folder), *command[1:]])
        assert shown.exit_code == 0, shown.output
    exported = [
        run.invoke(main, ["export", str(path), "--to", str(tmp_path / name)])
        for path, name in ((sets.folder, "a.npy"), (single, "b.npy"))
    ]
    assert [each.exit_code for each in exported] == [0, 0]
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    image = str(sets.photos / "dark" / "05.png")
    found = [run.invoke(main, ["search", str(path), image, "--json"]) for path in (sets.folder, single)]
    assert found[0].exit_code == 0, found[0].output
    similar = [json.loads(each.stdout) for each in found]
    assert json.dumps(similar[0]).replace(str(sets.folder), "") == json.dumps(similar[1]).replace(str(single), "")


def test_what_cannot_be_is_said(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (0, -3, 2.5, True):
        with pytest.raises(SettingsError, match="split_rows is"):
            sets.make(rows=rows)
    with pytest.raises(OutputError, match=r"ends in \.set"):
        sets.make(out=tmp_path / "x.h5")
    (tmp_path / "x.set").touch()
    with pytest.raises(OutputError, match="is a file"):
        sets.make(out=tmp_path / "x.set")
    with pytest.raises(OutputError, match="takes single files"):
        extract(sets.photos, sets.backbone, cache="s3://bucket/x", split_rows=3)
    with write_lock(sets.folder / "manifest.json"), pytest.raises(CacheLockedError):
        sets.make()
    for path in sets.photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no image in .* has features; the first, "):
        sets.make()


def test_a_named_folder_holds_the_set(sets: Sets, tmp_path: Path) -> None:
    result = sets.make(out=tmp_path / "elsewhere" / "mine.set")
    assert result.file == tmp_path / "elsewhere" / "mine.set"
    assert len(result.load()) == 25
    assert sets.make(out=result.file).computed == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_runs_that_are_killed_lose_nothing(photos: Path, tmp_path: Path) -> None:
    call = f"fuzz_sets.run({str(photos)!r}, pathlib.Path({str(tmp_path / 'trials')!r}), 4, 2, 9)"
    path = os.pathsep.join(str(Path(__file__).parents[number]) for number in (1, 2))
    done = subprocess.run(
        [sys.executable, "-c", f"import fuzz_sets, pathlib; print({call})"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = ast.literal_eval(done.stdout)
    assert (seen["kills"], seen["wrong"]) == (4, 0), done.stderr


def test_ranges_stay_where_they_are() -> None:
    paths = np.array([b"%02d" % number for number in range(20)])
    files = [ListedFile(f"{n}.h5", 5, "", f"{first:02}") for n, first in enumerate((2, 7, 12))]
    assert divide(paths, 7, files) == [(0, 7, 0), (7, 12, 1), (12, 19, 2), (19, 20, None)]
    assert divide(paths, 5, files) == [(0, 3, 0), (3, 7, None), (7, 12, 1), (12, 17, 2), (17, 20, None)]
    assert divide(paths[12:], 9, files) == [(0, 8, 2)]
    assert divide(paths[:3], 9, files) == [(0, 3, 0)]


def test_a_set_whose_first_file_was_not_begun_keeps_its_name(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    folder = tmp_path / "c" / f"{few.name}--lenet5.set"
    folder.mkdir(parents=True)
    (folder / "0001.h5.new").write_bytes(bytes(5000))  # of a run that was killed while it laid the file out
    (folder / ".manifest.json.lock").touch()
    result = extract(few, lenet, cache=tmp_path / "c", split_rows=5)
    assert result.file == folder
    (folder / ".manifest.json.lock").touch()
    assert extract(few, lenet, cache=tmp_path / "c", split_rows=5).computed == 0
    assert sorted(path.name for path in folder.iterdir()) == ["0001.h5", "0002.h5", "manifest.json"]
