"""``-o`` of every command: no file is lost under a result, and nothing is computed before that is known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import featx

from featx.cli.main import main


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def files(split_photos: Path, in_tmp: Path) -> Path:
    """One's own files, and features and a head of featx, in the current folder."""
    featx("extract", split_photos, "-b", "lenet5", "-o", "x.h5")
    featx("fit-head", "x.h5", "-o", "head.safetensors")
    Path("thesis.docx").write_text("years of work")
    Path("thesis").write_text("years of work")
    Path("figure.png").write_bytes(next(split_photos.rglob("*.png")).read_bytes())
    Path("model.csv").write_text("path,label\na.png,ant\n")
    os.link("x.h5", "hard.safetensors")
    Path("link").symlink_to("thesis.docx")
    Path("table.csv").write_text(
        "path,label\n" + "".join(f"{p},{p.parent.name}\n" for p in split_photos.rglob("*.png"))
    )
    return in_tmp


REFUSED = [
    ("fit-head x.h5 -o x.h5", "x.h5 is a file that is read here"),
    ("fit-head x.h5 -o hard.safetensors", "hard.safetensors is a file that is read here"),
    ("fit-head x.h5 -o thesis.docx", "ends in .docx, but a head is written; name a file that ends in .safetensors"),
    ("fit-head x.h5 -o head.pt", "ends in .pt, but a head is written; name a file that ends in .safetensors"),
    ("fit-head x.h5 -o thesis", "thesis exists and is not a head of featx, so it is not overwritten"),
    ("fit-head x.h5 -o link", "link exists and is not a head of featx"),
    ("fit-head x.h5 -o figure.safetensors", "figure.png exists and is not a confusion matrix of featx"),
    ("fit-head x.h5 --layer best -o figure.safetensors", "figure.png exists and is not a confusion matrix of featx"),
    ("promote head.safetensors -o head.safetensors", "head.safetensors is a file that is read here"),
    ("promote head.safetensors -o x.h5", "x.h5 is a file that is read here"),
    ("promote head.safetensors --finetune -o x.csv", "ends in .csv, but a model is written"),
    ("promote head.safetensors --finetune -o model.safetensors", "model.csv exists and is not a log of the epochs of"),
    ("promote head.safetensors --finetune -o head2.safetensors", "head2.png exists and is not a figure of the epochs"),
    ("rank table.csv -b lenet5 -o table.csv", "table.csv is a file that is read here"),
    ("rank split -b lenet5 -o figure.png", "figure.png exists and is not a picture of a ranking of featx"),
    ("rank split -b lenet5 -o plot.jpg", "ends in .jpg, but a picture of a ranking is written"),
    ("rank split -b lenet5 -o head2.png", "head2.png exists and is not a picture of a ranking"),
    ("advise x.h5 -o x.h5", "x.h5 is a file that is read here"),
    ("advise split -b lenet5 -o thesis", "thesis exists and is not a picture of an advice"),
    ("extract table.csv -b lenet5 -o table.csv", "table.csv is a file that is read here"),
    ("extract split -b lenet5 -o split", "split is a folder"),
    ("extract split -b lenet5 -o thesis", "thesis exists and is not a feature file of featx"),
    ("extract split -b lenet5 -o y.npz", "ends in .npz, but a feature file is written; name a file that ends in .h5"),
]


def test_a_result_takes_the_place_of_no_other_file(files: Path) -> None:
    featx("fit-head", "x.h5", "-o", "head2.safetensors")
    Path("head2.safetensors").unlink()  # its confusion matrix stays
    before = contents(files)
    for line, message in REFUSED:
        result = CliRunner().invoke(main, line.split())
        assert (result.exit_code, result.stdout) == (1, ""), line
        assert message in result.stderr, line
        assert "-o" in result.stderr, line
        assert contents(files) == before, line


def test_a_result_takes_the_place_of_an_older_one_of_its_kind(files: Path) -> None:
    for line in (
        "fit-head x.h5 -o head.safetensors --report",
        "advise x.h5 -o plot.png",
        "promote head.safetensors -o m",
    ):
        for _ in range(2):
            featx(*line.split())
