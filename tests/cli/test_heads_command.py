"""``featx heads``: the list at every width, and two heads compared."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import featx
from PIL import Image

from featx.cli import heads as command
from featx.workflows.head_list import list_heads


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, their features, three heads and a file that is none."""
    folder = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number in range(48):
            label, part = ("dark", "light")[number % 2], "train" if number < 32 else "val"
            Path("split", part, label).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 60, (20, 20, 3), dtype=np.uint8) + 160 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(f"split/{part}/{label}/{number:02}.png")
        featx("extract", "split", "-b", "lenet5")
        for options in ((), ("--model", "centroid"), ("--model", "ridge", "-C", "0.1", "--class-weight", "balanced")):
            featx("fit-head", *options)
        Path("models/broken.safetensors").write_text("junk")
    return folder


@pytest.fixture
def three(_made: Path, in_tmp: Path) -> Path:
    """A copy of that folder; the file of its first head."""
    shutil.copytree(_made, in_tmp, dirs_exist_ok=True)
    return Path("models/split--lenet5--logreg.safetensors")


def test_the_list_has_every_head_and_says_what_is_broken(three: Path) -> None:
    lines = featx("heads", "--sort", "name").stdout.splitlines()
    assert lines[0].split()[:3] == ["head", "accuracy", "95"]
    assert [line.split()[0] for line in lines[1:4]] == [
        "split--lenet5--centroid", "split--lenet5--logreg", "split--lenet5--ridge--C0.1--balanced"
    ]  # fmt: skip
    assert "ridge C=0.1" in lines[3]
    assert "1.0000  0.8064 to 1.0000  always 'dark' 0.5000  A 16" in lines[2]
    assert lines[-2:] == [
        "1 file that cannot be used:", "  broken.safetensors: not a safetensors file: a header of 4 bytes in a file of 4"
    ]  # fmt: skip


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal_and_every_name_is_whole(
    three: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((width, 24)))
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    found = list_heads("models", sort="accuracy")
    command._show_list(found, by="accuracy")
    lines = terminal.getvalue().splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= width
    assert [entry.name for entry in found if not entry.fault] == [
        line.split()[0] for line in table if line.startswith("split--")
    ]
    assert ("kind" in table[0]) == (width >= 140)


def test_numbers_of_two_test_sets_are_marked(three: Path) -> None:
    Path("split/val/dark/32.png").unlink()
    featx("extract", "split", "-b", "lenet5", "-o", "cache/split--lenet5.h5")
    assert "Note: models/split--lenet5--centroid.safetensors replaces a head (centroid)" in (
        featx("fit-head", "--model", "centroid", "-o", "models/split--lenet5--centroid.safetensors").stderr
    )
    shown = featx("heads", "--sort", "accuracy").stdout
    assert "A: 16 images of split val of split\nB: 15 images of split val of split\n" in shown
    assert "Numbers of different letters are of different images or labels, so they cannot be compared." in shown


def test_json_and_csv_have_the_same_heads(three: Path) -> None:
    facts = json.loads(featx("heads", "--json").stdout)
    rows = list(csv.DictReader(io.StringIO(featx("heads", "--csv").stdout)))
    assert [row["file"] for row in rows] == [head["file"] for head in facts["heads"]]
    assert [float(row["value"]) for row in rows[:3]] == [head["result"]["value"] for head in facts["heads"][:3]]
    assert rows[3]["fault"] == facts["heads"][3]["fault"]
    assert (facts["folder"], list(facts["test_sets"])) == ("models", ["A"])
    assert [head["kind"] for head in json.loads(featx("heads", "--kind", "ridge", "--json").stdout)["heads"]] == [
        "ridge"
    ]
    assert "--csv and --json exclude one another" in featx("heads", "--csv", "--json", status=2).stderr


def test_two_heads_are_compared_by_their_names(three: Path) -> None:
    result = featx("heads", "split--lenet5--centroid", "models/split--lenet5--logreg.safetensors")
    lines = result.stdout.splitlines()
    assert lines[0] == "16 images of split val that neither has seen:"
    assert lines[1].split() == ["head", "accuracy", "95", "%", "interval", "right", "alone"]
    assert [line.split()[0] for line in lines[2:4]] == ["split--lenet5--centroid", "split--lenet5--logreg"]
    assert lines[4].startswith("accuracy of split--lenet5--logreg less that of split--lenet5--centroid: +0.0000 (95 % ")
    assert lines[4].endswith(", 19 times in 20")
    assert lines[-1].startswith("No difference is shown (p = ")
    facts = json.loads(featx("heads", "split--lenet5--centroid", "split--lenet5--logreg", "--json").stdout)
    assert {
        "heads",
        "split",
        "n",
        "first",
        "second",
        "difference",
        "difference_interval",
        "next_interval",
        "p_value",
    } <= facts.keys()


def test_wrong_words_are_refused(three: Path) -> None:
    assert "did you mean split--lenet5--logreg" in featx("heads", "split--lenet5--logrg", "x", status=1).stderr
    assert "expected a folder to list or two heads to compare" in featx("heads", "a", "b", "c", status=2).stderr
    assert "is one file; featx info" in featx("heads", three, status=2).stderr
    assert "--sort has no effect with two heads" in featx("heads", "a", "b", "--sort", "name", status=2).stderr
    assert "--split has no effect without two heads" in featx("heads", "--split", "test", status=2).stderr
    assert featx("heads", "nowhere").stdout == "there is no head or model in nowhere\n"


def test_a_name_in_another_script_keeps_the_columns_straight(
    three: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(three, "models/蜜蜂.safetensors")
    lines = featx("heads", "--sort", "name").stdout.splitlines()
    at = lines[1].index("1.0000")
    (line,) = (line for line in lines if line.startswith("蜜蜂"))
    assert line.index("1.0000") == at - 2, "each of its two characters takes two columns"
