"""``featx predict -o``: the table, what is printed, and the exit status."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import featx, without_times

from featx.cli.main import main


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_is_written_and_counted(fitted: Path, split_photos: Path) -> None:
    Path("bad.jpg").write_text("x")
    done = featx("predict", fitted, split_photos / "val", "bad.jpg", "-o", "out.csv")
    assert without_times(done.stdout) == (
        "17 images: 0 computed, 16 reused, 1 failed, 0 rejected, in TIME TIME\npredictions: out.csv\n"
    )
    assert done.stderr == "Note: 1 of 17 images failed; the column error has the reasons\n"
    assert [row["prediction"] for row in rows("out.csv")] == ["dark"] * 8 + ["light"] * 8 + [""]
    done = featx("predict", fitted, split_photos / "val", "bad.jpg", "-o", "out.csv")
    assert done.stdout == "17 images: 1 failed, 0 rejected\npredictions: out.csv\n"
    assert "Note: out.csv is complete: model, options and images are those that it was written with\n" in done.stderr


def test_the_json_of_a_table_counts_its_images(fitted: Path, split_photos: Path) -> None:
    facts = json.loads(featx("predict", fitted, split_photos / "val", "-o", "out.jsonl", "--top", 2, "--json").stdout)
    assert facts.keys() == {
        *(
            "file",
            "images",
            "failed",
            "rejected",
            "computed",
            "reused",
            "resumed",
            "seconds",
            "columns",
            "model",
            "notes",
        ),
        "images_per_second",
    }
    assert (facts["file"], facts["images"], facts["reused"], facts["model"]) == ("out.jsonl", 16, 16, str(fitted))
    assert facts["columns"] == list(json.loads(Path("out.jsonl").read_text().splitlines()[0]))


def test_a_table_without_a_prediction_is_a_failure(fitted: Path) -> None:
    Path("bad.jpg").write_text("x")
    done = featx("predict", fitted, "bad.jpg", "gone.png", "-o", "out.csv", status=1)
    assert (
        "Error: all 2 images failed, the last one because: gone.png: cannot be read: No such file or directory"
        in done.stderr
    )
    assert [row["path"] for row in rows("out.csv")] == ["bad.jpg", "gone.png"]
    done = CliRunner().invoke(main, ["predict", str(fitted), "-", "-o", "none.csv"], input="")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, "Error: no images were given")
    assert not Path("none.csv").exists()


def test_a_list_on_standard_input_stands_between_other_images(fitted: Path, split_photos: Path) -> None:
    files = [str(split_photos / "val" / "dark" / f"{n:02}.png") for n in range(3)]
    command = ["predict", str(fitted), files[2], "-", "cache/split--lenet5.h5", "-o", "out.csv"]
    done = CliRunner().invoke(main, command, input="\n".join(files[:2]))
    assert done.exit_code == 0, done.output
    assert [row["path"] for row in rows("out.csv")][:3] == [files[2], *files[:2]]
    assert len(rows("out.csv")) == 3 + 48


def test_feature_files_and_images_are_predicted_together_without_a_table_too(fitted: Path, split_photos: Path) -> None:
    image, file = split_photos / "val" / "dark" / "00.png", "cache/split--lenet5.h5"
    both = featx("predict", fitted, file, image, file).stdout.splitlines()
    alone = featx("predict", fitted, file).stdout.splitlines()
    assert both == [*alone, *featx("predict", fitted, image).stdout.splitlines()[1:], *alone[1:]]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-o", "out.txt"], 1, "out.txt ends in .txt, but a table of predictions is written"),
        (["-o", "mine.csv"], 1, "mine.csv exists and is not a table of predictions of featx, so it is not overwritten"),
        (["-o", "."], 1, ". is a folder; name a file to write with -o"),
        (["--probabilities"], 2, "--probabilities has no effect without -o"),
        (["--restart"], 2, "--restart has no effect without -o"),
        (["-o", "out.csv", "--explain", "2"], 2, "--out has no effect with --explain"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_model_is_loaded(
    fitted: Path, split_photos: Path, arguments: list[str], status: int, message: str
) -> None:
    Path("mine.csv").write_text("path,label\na.png,ant\n")
    done = CliRunner().invoke(main, ["predict", str(fitted), str(split_photos), *arguments])
    assert done.exit_code == status
    assert message in done.stderr
    assert "loading" not in done.stderr
    assert Path("mine.csv").read_text() == "path,label\na.png,ant\n"


def test_an_interrupted_command_goes_on(fitted: Path, split_photos: Path) -> None:
    file = str(split_photos / "val" / "dark" / "00.png")
    command = [sys.executable, "-m", "featx", "predict", str(fitted), "-", "-o", "out.csv", "-j", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(f"{file}\n" * 200)
        process.stdin.flush()
        until = time.monotonic() + 100
        while not (Path("out.csv.partial").exists() and Path("out.csv.partial").stat().st_size > 100):
            assert time.monotonic() < until, "rows are written while standard input is open"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        assert "Interrupted. Completed work is kept: the same command resumes it." in process.stderr.read()
    assert process.returncode == 130
    done = CliRunner().invoke(main, command[3:], input=f"{file}\n" * 200)
    assert done.exit_code == 0, done.output
    assert "Note: going on after " in done.stderr
    assert {row["path"] for row in rows("out.csv")} == {file}
    assert len(rows("out.csv")) == 200
