"""A file in the place of another: every command names what it is and what is expected."""

from __future__ import annotations

import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import featx as run
from safetensors.numpy import save_file

import featx
from featx.cli.main import main

KINDS = {
    "x.h5": "a feature file", "head.safetensors": "a head", "model.safetensors": "a promoted model",
    "run.checkpoint": "a checkpoint of fine-tuning", "page.html": "a page about a head",
    "drawn.png": "a picture that featx drew",
    "r.toml": "a recipe", "t.csv": "a table", "image.png": "an image", "set": "a folder",
    "weights.safetensors": "a file of network weights", "net.py": "a Python file", "empty": "an empty file",
    "m.onnx": "an ONNX model that featx export wrote, which ONNX Runtime runs", "other.onnx": "an ONNX model",
    "m.xml": "a graph of OpenVINO", "m.pt2": "a program of torch.export",
}  # fmt: skip
DATA = ("t.csv", "set")

PLACES = {
    "fit-head {}": ("x.h5",),
    "promote {}": ("head.safetensors",),
    "promote head.safetensors --features {}": ("x.h5",),
    "predict {} image.png": ("head.safetensors", "model.safetensors", "image.png", "drawn.png", *DATA),
    "predict head.safetensors {}": ("x.h5", "image.png", "drawn.png", "empty", "net.py", *DATA),
    "evaluate {} set": ("head.safetensors", "model.safetensors"),
    "evaluate head.safetensors {}": ("x.h5", "image.png", *DATA),
    "extract {} -b lenet5": ("image.png", *DATA),
    "extract set -b lenet5 --weights {}": ("weights.safetensors", "model.safetensors", "set", "empty"),
    "rank {} -b lenet5": ("image.png", *DATA),
    "advise {} -b lenet5": ("x.h5", "image.png", *DATA),
    "fit-head --cache {}": ("set",),
    "promote --models {}": ("set",),
    "predict image.png --models {}": ("set",),
    "info {}": ("x.h5", "head.safetensors", "model.safetensors"),
    "verify {}": ("x.h5",),
    "cache rm -y {}": ("x.h5",),
    "run --dry-run {}": ("r.toml", "empty"),
}
"""{command: the files that it takes in the place of the braces}."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of each kind."""
    from conftest import write_image

    from featx.promotion.checkpoint import Checkpoint

    folder = tmp_path_factory.mktemp("kinds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for label, tint in (("dark", 60), ("light", 190)):
            for number in range(20):
                write_image(folder / "set" / label / f"{number:02}.png", seed=number + 100 * tint, tint=tint)
        shutil.copy("set/dark/00.png", "image.png")
        featx.extract("set", "lenet5", out="x.h5")
        fit = featx.fit_head("x.h5", out="head.safetensors", report=True)
        assert fit.card
        shutil.copy(fit.card, "page.html")
        shutil.copy("head.png", "drawn.png")
        featx.promote("head.safetensors", out="model.safetensors")
        checkpoint = Checkpoint(Path("m.safetensors"), {})
        checkpoint.save({}, {})
        checkpoint.path.rename("run.checkpoint")
        save_file({"weight": featx.FeatureSet.load("x.h5").keys}, "weights.safetensors")
        rows = [f"{path},{path.parent.name}" for path in sorted(Path("set").rglob("*.png"))]
        Path("t.csv").write_text("\n".join(["path,label", *rows]))
        Path("r.toml").write_text("[fit-head]\n")
        Path("net.py").write_text("x = 1\n")
        Path("empty").touch()
        Path("m.onnx").write_bytes(b"\x08\x08\x12\x05featx\x1a\x050.1.0:\x02\x0a\x00")
        Path("other.onnx").write_bytes(b"\x08\x08\x12\x07pytorch:\x02\x0a\x00")
        Path("m.xml").write_text('<?xml version="1.0"?>\n<net name="m" version="11">\n</net>\n')
        with zipfile.ZipFile("m.pt2", "w") as archive:
            archive.writestr("m/version", "1")
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_a_misplaced_file_is_named_by_its_kind(place: str, kinds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kinds)
    for name, kind in KINDS.items():
        if name not in PLACES[place]:
            done = CliRunner().invoke(main, shlex.split(place.format(name)))
            assert done.exit_code == 1, f"{name}: {done.output}"
            assert f"Error: {name} is {kind}; expected " in done.stderr
            assert done.stdout == ""


def test_a_data_set_in_the_place_of_features_is_to_be_extracted_first(
    kinds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kinds)
    for name in DATA:
        assert run("fit-head", name, status=1).stderr.endswith(f"; run featx extract {name} first\n")
    assert "name one of those in it, such as ./x.h5" in run("fit-head", ".", status=1).stderr.replace(
        " x.h5", " ./x.h5"
    )


def test_a_folder_of_shards_is_to_be_merged(in_tmp: Path) -> None:
    folder = Path("photos--lenet5--12345678.shards")
    folder.mkdir()
    (folder / "1-of-2.h5").touch()
    assert f"featx cache merge {folder} joins the shards in it" in run("fit-head", folder, status=1).stderr


def test_a_head_is_evaluated_on_a_feature_file(kinds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kinds)
    assert run("evaluate", "head.safetensors", "x.h5").stdout == run("evaluate", "head.safetensors", "set").stdout
    shutil.copy("x.h5", "features.hdf5")
    assert featx.evaluate("head.safetensors", "features.hdf5").n > 0
    assert "give it the folder or table of images" in run("evaluate", "model.safetensors", "x.h5", status=1).stderr


def test_the_newest_model_is_taken_where_none_is_named(kinds: Path, in_tmp: Path) -> None:
    Path("models").mkdir()
    shutil.copy(kinds / "head.safetensors", "models/a.safetensors")
    first = CliRunner().invoke(main, ["predict", str(kinds / "image.png")])
    assert "predict: taking models/a.safetensors" in first.stderr
    assert "Note" not in first.stderr
    shutil.copy(kinds / "model.safetensors", "models/b.safetensors")
    done = run("predict", kinds / "image.png", kinds / "set")
    assert len(done.stdout.splitlines()) == 1 + 1 + 40
    assert (
        "Note: taking models/b.safetensors, the newest of 2 heads or models; the other is models/a.safetensors"
        in done.stderr
    )
    assert run("evaluate", kinds / "set").stdout == run("evaluate", "models/b.safetensors", kinds / "set").stdout
    assert "Missing argument 'IMAGES...'" in run("predict", "models/b.safetensors", status=2).stderr
    assert "Missing argument 'DATA'" in run("evaluate", status=2).stderr
    assert "it stands before the data" in run("predict", kinds / "set", "models/b.safetensors", status=2).stderr
    assert run("predict", kinds / "set", "--models", "empty", status=1).stderr.startswith(
        "Error: there is no head or model in empty"
    )


def test_a_bare_command_notes_which_file_it_takes(kinds: Path, in_tmp: Path) -> None:
    Path("cache").mkdir()
    shutil.copy(kinds / "x.h5", "cache/a.h5")
    assert "Note: taking" not in run("fit-head", "--model", "ridge").stderr
    shutil.copy(kinds / "x.h5", "cache/b.h5")
    note = "Note: taking cache/b.h5, the newest of 2 feature files; the other is cache/a.h5"
    assert note in run("fit-head", "--model", "centroid").stderr
    assert note in run("advise").stderr
    assert "Note: taking models/b--centroid.safetensors, the newest of 2 heads; the other is" in run("promote").stderr


def test_promote_names_the_option_where_the_images_were_moved(split_photos: Path, in_tmp: Path) -> None:
    run("extract", split_photos, "-b", "lenet5")
    run("fit-head")
    split_photos.rename("elsewhere")
    failed = run("promote", status=1).stderr
    assert "If the images were moved, run featx extract on their new folder or table" in failed
    assert "name the feature file that it writes with --features" in failed
    run("extract", "elsewhere", "-b", "lenet5")
    run("promote", "models/split--lenet5--logreg.safetensors", "--features", "cache/elsewhere--lenet5.h5")


@pytest.mark.parametrize("command", ["serve", "promote", "info", "advise"])
def test_an_empty_argument_does_not_mean_the_newest_file(kinds: Path, command: str) -> None:
    """Such as that of a variable of the shell which is not set."""
    found = CliRunner().invoke(main, [command, ""])
    assert found.exit_code == 1, found.output
    assert "is an empty path" in found.stderr
