"""Predictions written to a table: its layout, and what an interrupted or killed run leaves to the next one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from made import Recorder
from made_heads import measured, tagged

import featx
from featx.errors import (
    CacheLockedError,
    CorruptFileError,
    DatasetError,
    HeadError,
    ModelNotFoundError,
    OutputError,
    SettingsError,
)
from featx.extraction import lookup
from featx.features.feature_set import FeatureSet
from featx.features.lock import write_lock
from featx.heads.head import Head
from featx.streaming import partial
from featx.streaming.partial import Partial
from featx.streaming.writing import WrittenPredictions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, a head on LeNet-5's features of them, and the promoted model; read-only."""
    from conftest import write_image

    folder = tmp_path_factory.mktemp("made")
    for label, tint in (("dark", 60), ("light", 190)):
        for split, count in (("train", 10), ("val", 10)):
            for number in range(count):
                seed = number + 100 * tint + 50 * (split == "val")
                write_image(folder / "split" / split / label / f"{number:02}.png", seed=seed, tint=tint)
    before = Path.cwd()
    os.chdir(folder)
    extracted = featx.extract("split", "lenet5", cache="features")
    head = Head("logreg").fit(extracted.load()).save("head.safetensors")
    featx.promote(head, out="model.safetensors")
    extracted.file.rename("split.h5")  # so that the head finds no features
    yield folder
    os.chdir(before)


@pytest.fixture
def here(made: Path, in_tmp: Path) -> Path:
    """An empty folder with links to all that."""
    for path in made.iterdir():
        (in_tmp / path.name).symlink_to(path)
    return in_tmp


def write(out: str, data: Any = "split/val", model: Any = "head.safetensors", **options: Any) -> WrittenPredictions:
    return featx.write_predictions(model, data, out, **{"cache": None, "workers": 1, **options})


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def stop(monkeypatch: pytest.MonkeyPatch, after: int, *, killed: bool = False) -> None:
    """Interrupt a run after some blocks; one that is killed has no time to make the last rows safe."""
    add, calls = Partial.add, []

    def stopped(self: Partial, *args: Any) -> None:
        add(self, *args)
        calls.append(1)
        if len(calls) == after:
            if killed:
                monkeypatch.setattr(Partial, "make_safe", lambda _: None)
            monkeypatch.setattr(Partial, "add", add)
            raise KeyboardInterrupt

    monkeypatch.setattr(Partial, "add", stopped)
    monkeypatch.setattr(partial, "NOTED_EVERY", 1000.0)
    monkeypatch.setattr(partial, "SAFE_EVERY", 1000.0)


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, *args: Any, killed: bool = False, **options: Any) -> None:
    with monkeypatch.context() as patch:
        stop(patch, after, killed=killed)
        with pytest.raises(KeyboardInterrupt):
            write(*args, **options)


def test_a_table_has_a_row_for_each_image_in_the_order_of_the_images(here: Path) -> None:
    done = write("out.csv", ["split/val/light", "split/val/dark/03.png"])
    found = rows("out.csv")
    assert list(found[0]) == ["path", "prediction", "probability", "error", "key"] == list(done.columns)
    assert [row["path"] for row in found] == [
        *(f"split/val/light/{n:02}.png" for n in range(10)),
        "split/val/dark/03.png",
    ]
    assert [row["prediction"] for row in found] == ["light"] * 10 + ["dark"]
    assert {len(row["key"]) for row in found} == {32}
    assert (done.images, done.computed, done.reused, done.failed, done.rejected, done.resumed) == (11, 11, 0, 0, 0, 0)
    assert sorted(path.name for path in here.iterdir() if path.name.startswith((".", "out"))) == ["out.csv"]


def test_the_three_formats_hold_the_same(here: Path) -> None:
    Path("bad.png").write_bytes(b"x")
    options: Any = {"top": 2, "probabilities": True}
    for ending in ("csv", "jsonl", "parquet"):
        write(f"out.{ending}", ["split/val", "bad.png"], **options)
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    table = pyarrow.parquet.read_table("out.parquet").to_pylist()
    assert lines == table
    for row, line in zip(rows("out.csv"), lines, strict=True):
        assert row == {
            key: "" if value is None else f"{value:.9g}" if isinstance(value, float) else value
            for key, value in line.items()
        }
    assert list(lines[0]) == [
        *("path", "prediction", "probability", "prediction_2", "probability_2", "error", "key", "p_dark", "p_light"),
    ]  # fmt: skip
    assert lines[0]["p_dark"] == lines[0]["probability"] == pytest.approx(1 - lines[0]["probability_2"])
    assert "not an image of a known format" in lines[-1]["error"]
    assert {key for key, value in lines[-1].items() if value is not None} == {"path", "error", "key"}


def test_a_table_agrees_with_predict(here: Path) -> None:
    for model in ("head.safetensors", "model.safetensors"):
        write("out.jsonl", model=model)
        lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
        for line, prediction in zip(lines, featx.predict(model, "split/val", cache=None), strict=True):
            assert (line["path"], line["prediction"]) == (prediction.path, prediction.value)
            assert line["probability"] == pytest.approx(prediction.top[0][1], abs=1e-5)


def test_the_columns_of_a_table_come_along_row_by_row(here: Path) -> None:
    Path("rows.csv").write_text(
        "image_id,path,prediction,label\n007,split/val/dark/01.png,x,dark\n8,split/val/light/00.png,y,light\n"
        "9,split/val/dark/01.png,z,dark\n"
    )
    done = write("out.csv", ["rows.csv", "split/val/dark/02.png"])
    assert done.columns[5:] == ("image_id", "prediction_", "label")
    found = rows("out.csv")
    assert [row["image_id"] for row in found] == ["007", "8", "9", ""]
    assert [row["prediction_"] for row in found] == ["x", "y", "z", ""]
    assert [(row["label"], row["prediction"]) for row in found][:3] == [
        ("dark", "dark"),
        ("light", "light"),
        ("dark", "dark"),
    ]


def test_paths_that_a_table_writes_otherwise_come_along_too(here: Path) -> None:
    Path("ids.csv").write_text("id,age\n01,5\n")
    write("out.csv", "ids.csv", root="split/val/dark")
    assert [(row["id"], row["age"], Path(row["path"]).name) for row in rows("out.csv")] == [("01", "5", "01.png")]


def test_archives_parquet_and_features_bring_their_labels_and_columns(here: Path) -> None:
    files = [Path(f"split/val/{label}/00.png") for label in ("dark", "light")]
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for file in files:
            archive.write(file)
    held = {"image": [file.read_bytes() for file in files], "label": ["a", "b"], "weight": [1.5, 2.0]}
    pyarrow.parquet.write_table(pyarrow.table(held), "rows.parquet")
    for data, columns in (
        ("photos.zip", ("label", "split")),
        ("rows.parquet", ("label", "weight")),
        ("split.h5", ("label", "split")),
    ):
        assert write("out.csv", data).columns[5:] == columns
    assert len(rows("out.csv")) == 40
    done = write("all.csv", ["photos.zip", "split.h5", "rows.parquet", iter(["gone.png"])])
    assert done.columns[5:] == ("label", "split", "weight")
    assert (done.images, done.failed, done.reused, done.computed) == (45, 1, 40, 4)
    found = rows("all.csv")
    assert [row["prediction"] for row in (*found[:2], *found[42:44])] == ["dark", "light"] * 2
    assert [row["label"] for row in (*found[:2], *found[42:])] == ["dark", "light", "a", "b", ""]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("model", ["head.safetensors", "model.safetensors"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_run_goes_on_where_it_was_stopped_and_writes_the_same_bytes(
    here: Path, monkeypatch: pytest.MonkeyPatch, ending: str, model: str, killed: bool
) -> None:
    data = ["split/val", "split.h5", "split/train"] if model == "head.safetensors" else ["split/val", "split/train"]
    whole = write(f"whole.{ending}", data, model)
    interrupted(monkeypatch, 2, f"out.{ending}", data, model, killed=killed)
    assert not Path(f"out.{ending}").exists()
    recorder = Recorder()
    done = write(f"out.{ending}", data, model, reporter=recorder)
    before = 0 if killed else 16
    assert done.resumed == before
    assert recorder.notes == ([f"going on after {before} images of an interrupted run"] if before else [])
    assert (done.images, done.computed, done.reused) == (whole.images, whole.computed, whole.reused)
    one, other = (Path(f"{name}.{ending}").read_bytes() for name in ("out", "whole"))
    if ending == "parquet":
        one, other = (pyarrow.parquet.read_table(f"{name}.parquet") for name in ("out", "whole"))  # type: ignore[assignment]
    assert one == other
    assert sorted(path.name for path in here.glob("*out.*")) == [f"out.{ending}"]


def test_no_image_is_computed_twice(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, 1, "out.csv")
    read = list[str]()
    iterate = lookup.iter_batches

    def noted(network: Any, inputs: Any, **options: Any) -> Any:
        def each() -> Iterator[Any]:
            for image in inputs:
                read.append(image.name)
                yield image

        return iterate(network, each(), **options)

    monkeypatch.setattr("featx.streaming.computing.iter_batches", noted)
    assert write("out.csv").resumed == 8
    assert len(read) == 12
    write("out.csv")
    assert len(read) == 12, "the table is complete"


def test_rows_after_the_last_safe_one_and_torn_lines_count_for_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("whole.csv")
    interrupted(monkeypatch, 1, "out.csv")
    for name, torn in (("out.csv.partial", b"split/val/dark/09.png,da"), (".out.csv.journal", b'{"rows": 16, "by')):
        with Path(name).open("ab") as file:
            file.write(torn)
    assert write("out.csv").resumed == 8
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_after_a_power_cut_the_last_sound_rows_are_continued(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("whole.csv")
    with monkeypatch.context() as patch:
        stop(patch, 2)
        patch.setattr(partial, "NOTED_EVERY", 0.0)
        with pytest.raises(KeyboardInterrupt):
            write("out.csv")
    data = Path("out.csv.partial").read_bytes()
    Path("out.csv.partial").write_bytes(data[:-40] + bytes(40))
    assert write("out.csv").resumed == 8
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_rows_that_somebody_changed_are_not_continued(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, 1, "out.csv")
    Path("out.csv.partial").write_text(Path("out.csv.partial").read_text().replace("dark", "DARK"))
    with pytest.raises(
        CorruptFileError, match=r"out\.csv\.partial was changed after featx wrote it.*--restart starts anew"
    ):
        write("out.csv")
    assert write("out.csv", restart=True).resumed == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "model.safetensors"}, r"\(head.safetensors\), and the model is another one"),
        ({"top": 2}, "--top was different"),
        ({"probabilities": True}, "--probabilities was different"),
        ({"data": ["split/train", "split/val"]}, "the images that they are of are others now, or have changed"),
        ({"data": "split/val/dark/00.png"}, "the images that they are of are others now"),
        ({"data": "rows.csv"}, "the data have other columns"),
    ],
)  # fmt: skip
def test_rows_of_another_run_are_neither_mixed_nor_lost(
    here: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], why: str
) -> None:
    Path("rows.csv").write_text("path,id\nsplit/val/dark/00.png,1\n")
    interrupted(monkeypatch, 1, "out.csv")
    kept = Path("out.csv.partial").read_bytes()
    with pytest.raises(
        OutputError, match=rf"out.csv.partial has 8 predictions of an interrupted run.*{why}.*--restart starts anew"
    ):
        write("out.csv", **change)
    assert Path("out.csv.partial").read_bytes() == kept
    assert write("out.csv", **change, restart=True).resumed == 0
    assert not Path("out.csv.partial").exists()


def test_an_image_that_has_changed_since_is_not_continued_after(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("split/val", "mine")
    interrupted(monkeypatch, 1, "out.csv", "mine")
    shutil.copy("mine/dark/00.png", "mine/light/09.png")  # is predicted later
    os.utime("mine/dark/00.png", (1, 1))
    with pytest.raises(OutputError, match="others now, or have changed"):
        write("out.csv", "mine")


def test_a_complete_table_is_not_made_again_until_something_changes(here: Path) -> None:
    shutil.copytree("split/val", "mine")
    write("out.csv", "mine")
    done = write("out.csv", "mine")
    assert done.resumed == done.images == 20
    assert done.notes == ("out.csv is complete: model, options and images are those that it was written with",)
    os.utime("mine/dark/00.png", (1, 1))
    recorder = Recorder()
    assert write("out.csv", "mine", reporter=recorder).resumed == 0
    assert recorder.notes == [
        "out.csv has predictions by head.safetensors for 20 images; the new ones take their place when all are there"
    ]
    assert write("out.csv", "mine", "model.safetensors").resumed == 0
    Path("out.csv").write_text("path,prediction,probability,error,key\n")
    assert write("out.csv", "mine", "model.safetensors").resumed == 0, "somebody has changed it"


def test_images_that_could_not_be_read_are_tried_again(here: Path) -> None:
    done = write("out.csv", ["split/val/dark/00.png", "later.png"])
    assert (done.failed, done.last_error) == (1, "later.png: cannot be read: No such file or directory")
    shutil.copy("split/val/dark/01.png", "later.png")
    assert write("out.csv", ["split/val/dark/00.png", "later.png"]).failed == 0


def test_an_older_table_stays_until_the_new_one_is_complete(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("out.csv", "split/train")
    before = Path("out.csv").read_bytes()
    interrupted(monkeypatch, 1, "out.csv")
    assert Path("out.csv").read_bytes() == before
    Path("mine.csv").write_text("path,label\n")
    Path("notes.csv.partial").write_text("mine")
    for name in ("mine.csv", "notes.csv"):
        with pytest.raises(OutputError, match="is not a table of predictions of featx, so it is not overwritten"):
            write(name)
    assert Path("notes.csv.partial").read_text() == "mine"


def test_a_list_of_any_length_is_read_as_it_is_predicted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [f"split/val/{label}/{n:02}.png" for n in range(10) for label in ("dark", "light")]
    taken = list[str]()

    def each() -> Iterator[str]:
        for file in files * 20:
            taken.append(file)
            yield file

    interrupted(monkeypatch, 2, "out.csv", each())
    assert 16 <= len(taken) < 200
    with pytest.raises(OutputError, match="others now"):
        write("out.csv", iter(files[1:]))
    done = write("out.csv", iter(files))
    assert (done.resumed, done.images) == (16, 20)
    assert write("out.csv", iter(files)).resumed == 20
    assert [row["path"] for row in rows("out.csv")] == files


def test_two_processes_do_not_write_one_table(here: Path) -> None:
    with write_lock(Path("out.csv")), pytest.raises(CacheLockedError, match=r"out\.csv is being written by process"):
        write("out.csv")


def test_nothing_to_predict_is_an_error_and_leaves_nothing(here: Path) -> None:
    for data in (iter(()), []):
        with pytest.raises(DatasetError, match="no images were given"):
            write("out.csv", data)
    assert list(here.glob("*out*")) == []


def test_rejected_images_have_no_prediction_but_a_probability(here: Path) -> None:
    head = Head("logreg", reject_below=0.97).fit(FeatureSet.load("split.h5"))
    done = write("out.csv", "split/val", head)
    assert done.rejected > 0
    row = next(row for row in rows("out.csv") if not row["prediction"])
    assert row["error"].startswith("rejected: the most probable class, ")
    assert 0.5 < float(row["probability"]) < 0.97


def test_labels_and_numbers(in_tmp: Path) -> None:
    several, number = tagged(), measured()
    featx.write_predictions(Head("ridge").fit(several), several, "labels.csv", probabilities=True)
    found = rows("labels.csv")
    assert list(found[0]) == [
        "path",
        "prediction",
        "probability",
        "error",
        "key",
        "p_cat",
        "p_dog",
        "p_red",
        "label",
        "split",
    ]
    for row in found:
        parts = {name for name in row["prediction"].split("|") if name}
        least = min(p if name in parts else 1 - p for name in ("cat", "dog", "red") for p in [float(row[f"p_{name}"])])
        assert float(row["probability"]) == pytest.approx(least, abs=1e-8)
    featx.write_predictions(head := Head("ridge", task="regression").fit(number), number, "numbers.parquet")
    table = pyarrow.parquet.read_table("numbers.parquet")
    assert str(table.schema.field("prediction").type) == "double"
    np.testing.assert_array_equal(table["prediction"].to_numpy(), head.predict_values(number.features)[:, 0])
    with pytest.raises(SettingsError, match="top has no effect on a regression head"):
        featx.write_predictions(head, number, "numbers.parquet", top=2)


def test_names_of_any_bytes_come_back_from_parquet_and_json(here: Path) -> None:
    data = Path("split/val/dark/00.png").read_bytes()
    names = [b"a b.png", "é蜂\U0001f41d.png".encode(), b"new\nline.png", b"=cmd.png"]
    Path("odd").mkdir()
    for name in names:
        Path("odd", os.fsdecode(name)).write_bytes(data)
    write("out.parquet", "odd")
    assert {path.encode() for path in pyarrow.parquet.read_table("out.parquet")["path"].to_pylist()} == {
        b"odd/" + name for name in names
    }
    Path("odd", os.fsdecode(b"caf\xe9.png")).write_bytes(data)
    names.append(b"caf\xe9.png")
    for ending in ("csv", "jsonl", "parquet"):
        write(f"out.{ending}", "odd")
    assert set(pyarrow.parquet.read_table("out.parquet")["path"].to_pylist()) == {b"odd/" + name for name in names}
    lines = [json.loads(line)["path"] for line in Path("out.jsonl").read_text(encoding="ascii").splitlines()]
    assert {os.fsencode(path) for path in lines} == {b"odd/" + name for name in names}
    assert [row["path"] for row in rows("out.csv")][:2] == ["odd/=cmd.png", "odd/a b.png"]


def test_a_promoted_model_does_not_predict_features(here: Path) -> None:
    with pytest.raises(HeadError, match="a promoted model predicts images, not features"):
        write("out.csv", "split.h5", "model.safetensors")


def test_a_model_that_is_not_there_is_named(here: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"gone\.safetensors"):
        write("out.csv", model="gone.safetensors")


def test_known_features_are_reused(here: Path) -> None:
    featx.extract("split/val/dark", "lenet5", cache="mine")
    done = write("out.csv", cache="mine")
    assert (done.computed, done.reused) == (10, 10)
    one = {row["path"]: row["probability"] for row in rows("out.csv")}
    write("other.csv")
    assert one == pytest.approx({row["path"]: row["probability"] for row in rows("other.csv")}) or one
