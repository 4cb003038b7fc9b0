"""``featx predict``: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_line import featx

from featx.cli.main import main


def test_predict_prints_csv_with_a_row_for_every_image(fitted: Path, split_photos: Path) -> None:
    Path("bad.jpg").write_text("=cmd()")
    result = featx("predict", fitted, split_photos / "val" / "dark", "bad.jpg", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 8 * 2 + 1
    assert [(row["rank"], row["label"]) for row in rows[:2]] == [("1", "dark"), ("2", "light")]
    assert rows[-1]["path"] == "bad.jpg"
    assert rows[-1]["label"] == ""
    assert "not an image of a known format" in rows[-1]["error"]


def test_predict_as_json_is_one_object(fitted: Path, split_photos: Path) -> None:
    facts = json.loads(featx("predict", fitted, split_photos / "val" / "light", "--json").stdout)
    assert len(facts["predictions"]) == 8
    assert {"path", "label", "probability", "top"} == facts["predictions"][0].keys()


def paths(result: Result) -> list[str]:
    return [row["path"] for row in csv.DictReader(io.StringIO(result.stdout))]


def test_a_table_a_pattern_and_a_list_on_standard_input_stand_for_their_images(
    fitted: Path, split_photos: Path
) -> None:
    dark = [str(split_photos / "val" / "dark" / f"{n:02}.png") for n in range(8)]
    table = split_photos / "new.csv"
    table.write_text("path\nval/dark/03.png\nval/dark/01.png\n")
    assert paths(featx("predict", fitted, table)) == [dark[3], dark[1]]
    assert paths(featx("predict", fitted, split_photos / "val" / "dark" / "0[02].png")) == [dark[0], dark[2]]
    for between in ("\n", "\r\n", "\0"):
        done = CliRunner().invoke(main, ["predict", str(fitted), "-"], input=between.join([*dark[:2], ""]))
        assert paths(done) == dark[:2]


def test_a_run_in_which_every_image_fails_is_a_failure(fitted: Path, split_photos: Path) -> None:
    Path("bad.jpg").write_text("x")
    done = featx("predict", fitted, "bad.jpg", "gone.png", status=1)
    assert paths(done) == ["bad.jpg", "gone.png"]
    assert "Error: all 2 images failed, the last one because: " in done.stderr
    facts = json.loads(featx("predict", fitted, "bad.jpg", "--json", status=1).stdout)
    assert (facts["images"], facts["failed"]) == (1, 1)
    done = featx("predict", fitted, "bad.jpg", split_photos / "val" / "dark")
    assert "Note: 1 of 9 images failed; the column error has the reasons" in done.stderr
    done = CliRunner().invoke(main, ["predict", str(fitted), "-"], input="")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, "Error: no images were given")


def test_each_row_is_printed_before_the_next_image_is_given(fitted: Path, split_photos: Path) -> None:
    file = str(split_photos / "val" / "dark" / "00.png")
    command = [sys.executable, "-m", "featx", "predict", str(fitted), "-", "-j", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{file}\n" * 100)
        process.stdin.flush()
        assert process.stdout.readline() == "path,rank,label,probability,error\n"
        assert process.stdout.readline().startswith(f"{file},1,dark,"), "standard input is still open"
        process.stdin.close()
        assert len(process.stdout.readlines()) == 99


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_names_that_the_encoding_of_the_terminal_lacks_are_escaped(
    fitted: Path, split_photos: Path, encoding: str
) -> None:
    for name in ("蜂.png", "gone é.png"):
        shutil.copy(split_photos / "val" / "dark" / "00.png", name)
    done = CliRunner(charset=encoding).invoke(main, ["predict", str(fitted), "蜂.png", "gone é.png"])
    assert done.exit_code == 0, done.output
    assert paths(done) == [
        name.encode(encoding, errors="backslashreplace").decode(encoding) for name in ("蜂.png", "gone é.png")
    ]


def test_every_command_prints_in_any_encoding(split_photos: Path, in_tmp: Path) -> None:
    for folder in sorted(split_photos.glob("*/dark")):
        folder.rename(folder.with_name("蜂 é"))
    runner, h5, head = CliRunner(charset="cp1252"), "cache/split--lenet5.h5", "models/split--lenet5--logreg.safetensors"
    for command in (
        ["extract", str(split_photos), "-b", "lenet5"], ["fit-head"], ["fit-head", "--json"], ["info", h5], ["info", head],
        ["evaluate", head, str(split_photos)], ["predict", head, str(split_photos / "val")], ["--help"],
    ):  # fmt: skip
        done = runner.invoke(main, command)
        assert done.exit_code == 0, f"{command}: {done.output}"
    assert "\\u8702" in runner.invoke(main, ["info", h5]).stdout


@pytest.fixture
def opposed(fitted: Path) -> Path:
    """A head with so strong a penalty that images of the other class oppose its predictions."""
    return Path(json.loads(featx("fit-head", "-C", "0.001", "--json").stdout)["head"])


def test_explained_predictions_are_rows_of_training_images(opposed: Path, split_photos: Path) -> None:
    Path("bad.jpg").write_text("x")
    image = split_photos / "val" / "dark" / "00.png"
    done = featx("predict", opposed, image, "bad.jpg", "--explain", "2")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["path", "label", "probability", "kind", "rank", "image", "image_label", "value", "error"]
    kinds = [(row["kind"], row["rank"]) for row in rows[:-1]]
    assert kinds == [(kind, rank) for kind in ("neighbour", "supporting", "opposing") for rank in "12"]
    assert {(row["path"], row["label"]) for row in rows[:-1]} == {(str(image), "dark")}
    assert {row["image_label"] for row in rows if row["kind"] == "neighbour"} == {"dark"}
    assert (rows[-1]["path"], rows[-1]["kind"]) == ("bad.jpg", "")
    assert "not an image of a known format" in rows[-1]["error"]


def test_explained_predictions_as_json_have_one_more_key(opposed: Path, split_photos: Path) -> None:
    image = split_photos / "val" / "dark" / "00.png"
    plain = json.loads(featx("predict", opposed, image, "--json").stdout)
    explained = json.loads(featx("predict", opposed, image, "--json", "--explain", "2").stdout)
    added = explained["predictions"][0].pop("explanation")
    assert explained == plain
    assert added.keys() == {"neighbours", "influences"}
    assert added["influences"][0].keys() == {"label", "supporting", "opposing"}
    assert added["neighbours"][0].keys() == {"path", "label", "similarity"}
    assert added["influences"][0]["supporting"][0].keys() == {"path", "label", "influence"}


def test_a_head_without_influences_is_explained_by_neighbours_with_a_note(opposed: Path, split_photos: Path) -> None:
    knn = json.loads(featx("fit-head", "--model", "knn", "--json").stdout)["head"]
    done = featx("predict", knn, split_photos / "val" / "dark" / "00.png", "--explain", "2")
    assert {row["kind"] for row in csv.DictReader(io.StringIO(done.stdout))} == {"neighbour"}
    assert (
        "Note: influences are of heads of the kinds ridge, logreg and linear svm; this head, knn, has neighbours only"
        in done.stderr
    )


def test_the_options_of_an_explanation_need_it_and_exclude_top(opposed: Path) -> None:
    assert (
        "--features has no effect without --explain"
        in featx("predict", opposed, "a.png", "--features", "x", status=2).stderr
    )
    assert (
        "--top has no effect with --explain"
        in featx("predict", opposed, "a.png", "--explain", 2, "--top", 3, status=2).stderr
    )


def test_explained_predictions_have_a_contact_sheet(opposed: Path, split_photos: Path) -> None:
    image = split_photos / "val" / "dark" / "00.png"
    featx("predict", opposed, image, "--explain", "2", "--sheet", "why.html")
    assert Path("why.html").read_text().count("data:image/jpeg") == 1 + 3 * 2
    assert (
        "--sheet has no effect without --explain"
        in featx("predict", opposed, image, "--sheet", "x.html", status=2).stderr
    )
