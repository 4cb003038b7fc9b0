"""The commands as a user meets them: what they print, where, and with which exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from featx.cli.main import main
from featx.errors import CacheMissError, CorruptFileError
from featx.features.feature_file import DONE, FeatureFile


def featx(*arguments: object, status: int = 0) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, f"{result.output}\n{result.exception!r}"
    return result


def without_times(text: str) -> str:
    return re.sub(r"\(?[\d.,]+ (?:s|images/s)(?:, eager)?\)?", "TIME", text)


@pytest.fixture
def fitted(split_photos: Path, in_tmp: Path) -> Path:
    """Extracted and fitted: a head's file."""
    featx("extract", split_photos, "-b", "lenet5")
    return Path(json.loads(featx("fit-head", "--json").stdout)["head"])


def test_extract_prints_what_it_did(split_photos: Path, in_tmp: Path) -> None:
    result = featx("extract", split_photos, "--backbone", "lenet5")
    assert without_times(result.stdout) == (
        "split through lenet5, default weights: penultimate (84)\n"
        "48 images: 48 computed, 0 reused, 0 failed, 0 removed, in TIME TIME\n"
        "features: cache/split--lenet5.h5\n"
    )
    assert result.stderr == ""
    again = featx("extract", split_photos, "--backbone", "lenet5")
    assert without_times(again.stdout) == (
        "split through lenet5, default weights: penultimate (84)\n"
        "48 images: 48 reused, 0 failed; no forward pass was needed TIME\n"
        "features: cache/split--lenet5.h5\n"
    )


def test_views_are_said_where_there_are_several(split_photos: Path, in_tmp: Path) -> None:
    featx("extract", split_photos, "-b", "lenet5")
    result = featx("extract", split_photos, "-b", "lenet5", "--views", "flip")
    assert result.stdout.startswith(
        "split through lenet5, default weights: penultimate (84), each image in 2 views (flip)\n48 images: 48 computed, "
    )
    assert "48 images had features in 1 of 2 views; only the other views were computed" in result.stderr
    fit = featx("fit-head").stdout
    assert "on penultimate of cache/split--lenet5--" in fit
    assert "fitted to 32 images of 2 classes, each image in 2 views (flip) in " in fit
    assert "each image in" not in featx("fit-head", "--views", "plain").stdout
    facts = json.loads(featx("fit-head", "--json").stdout)
    assert (facts["layer"], facts["views"]) == ("penultimate", "flip")
    assert facts["head"].endswith("--flip--logreg.safetensors")
    said = json.loads(featx("predict", facts["head"], split_photos / "val" / "dark", "--json").stdout)
    assert {one["label"] for one in said["predictions"]} == {"dark"}
    assert "views" in featx("promote", facts["head"]).stderr
    assert "'5crop' is not one of 'plain', 'flip', '10crop'" in featx("extract", "--views", "5crop", status=2).stderr


def test_random_weights_are_said_aloud(split_photos: Path, in_tmp: Path) -> None:
    result = featx("extract", split_photos, "-b", "lenet5", "--weights", "random")
    assert result.stderr == "Note: lenet5 has random weights: a baseline, not a pretrained network\n"


def test_failed_images_are_counted_and_the_first_ten_named(split_photos: Path, in_tmp: Path) -> None:
    for number in range(12):
        (split_photos / "train" / "dark" / f"bad{number:02}.jpg").write_text("no image")
    result = featx("extract", split_photos, "-b", "lenet5")
    assert "60 images: 48 computed, 0 reused, 12 failed" in result.stdout
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Note: train/dark/bad00.jpg: not an image of a known format")
    assert lines[9].startswith("Note: train/dark/bad09.jpg")
    assert lines[10:] == ["Note: and 2 more failed (featx info --failed cache/split--lenet5.h5 lists them)"]
    said = featx("info", "cache/split--lenet5.h5").stdout
    assert "train/dark/bad09.jpg" in said
    assert "train/dark/bad10.jpg" not in said
    assert "  and 2 more (featx info --failed cache/split--lenet5.h5 lists them)" in said
    table = list(csv.reader(io.StringIO(featx("info", "--failed", "cache/split--lenet5.h5").stdout)))
    assert table[0] == ["path", "error"]
    assert [path for path, _ in table[1:]] == [f"train/dark/bad{number:02}.jpg" for number in range(12)]
    as_json = json.loads(featx("info", "--failed", "cache/split--lenet5.h5", "--json").stdout)
    assert len(as_json["failures"]) == 12


def test_info_failed_is_for_feature_files(fitted: Path) -> None:
    assert "is a head; --failed is for feature files" in featx("info", "--failed", fitted, status=1).stderr
    assert featx("info", "--failed", "cache/split--lenet5.h5").stdout == "path,error\n"


def test_strict_stops_with_exit_status_1(split_photos: Path, in_tmp: Path) -> None:
    (split_photos / "train" / "dark" / "bad.jpg").write_text("no image")
    result = featx("extract", split_photos, "-b", "lenet5", "--strict", status=1)
    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: \S+/train/dark/bad\.jpg: not an image of a known format.*\. --strict stops at the first image that fails\n",
        result.stderr,
    )


def test_options_of_reading_reach_the_file(split_photos: Path, in_tmp: Path) -> None:
    options = ("--max-pixels", "1", "--background", "#ff0000")
    assert "none of the 48 images" in featx("extract", split_photos, "-b", "lenet5", *options, status=1).stderr
    featx("extract", split_photos, "-b", "lenet5", "--max-pixels", "1280", "--background", "red")
    facts = json.loads(featx("info", "cache/split--lenet5.h5", "--json").stdout)
    assert facts["dataset"]["max_pixels"] == 1280
    assert facts["backbone"]["parts"]["transform"]["background"] == [255, 0, 0]
    message = (
        "Error: --background 'mud' is not an opaque colour; expected a CSS colour name such as black, or #rrggbb\n"
    )
    assert featx("extract", split_photos, "-b", "lenet5", "--background", "mud", status=1).stderr == message


def test_a_run_that_waits_says_for_whom_and_goes_on(split_photos: Path, in_tmp: Path) -> None:
    from featx.features.lock import write_lock

    command = [sys.executable, "-m", "featx", "extract", str(split_photos), "-b", "lenet5", "--wait"]
    with write_lock(Path("cache/split--lenet5.h5")):
        refused = featx("extract", split_photos, "-b", "lenet5", status=1).stderr
        holder = rf"process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        assert re.fullmatch(
            rf"Error: cache/split--lenet5\.h5 is being written by {holder}; --wait waits for it, or end that process\n",
            refused,
        )
        run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert run.stderr is not None
        assert re.fullmatch(rf"Note: waiting for {holder}, which writes the same file\n", run.stderr.readline())
        assert run.poll() is None
    stdout, _ = run.communicate(timeout=60)
    assert run.returncode == 0
    assert "48 computed" in stdout


def test_cache_lists_the_files_and_rm_removes_what_nothing_needs(fitted: Path) -> None:
    Path("cache/other.h5.new").write_bytes(b"")
    Path("cache/keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    Path("cache/notes.txt").write_text("mine")
    damaged = Path("cache/split--lenet5.h5").read_bytes()[:-1]
    Path("cache/damaged.h5").write_bytes(damaged)
    files = {Path(f["file"]).name: f for f in json.loads(featx("cache", "--json").stdout)["files"]}
    assert {name: f["state"] for name, f in files.items()} == {
        "split--lenet5.h5": "complete",
        "other.h5.new": "leftover",
        "keras.h5": "foreign",
        "damaged.h5": "damaged",
    }
    assert (files["split--lenet5.h5"]["images"], files["split--lenet5.h5"]["done"]) == (48, 48)
    listed = featx("cache").stdout
    assert re.search(r"^split--lenet5\.h5 +\d+\.\d kB +\d+ s  complete +48  \S+split, lenet5$", listed, re.MULTILINE)
    assert re.search(r"^keras\.h5 .* foreign +0  not featx's$", listed, re.MULTILINE)
    assert re.search(r"^4 files, .*\n2 not needed, .* \(featx cache rm removes them\)$", listed, re.MULTILINE)

    asked = CliRunner().invoke(main, ["cache", "rm"], input="n\n")
    assert asked.exit_code == 1
    assert "Remove 2 files? [y/N]: " in asked.stderr
    assert "damaged.h5" in asked.stderr
    assert "split--lenet5.h5:" not in asked.stderr
    assert len(list(Path("cache").glob("*.h5*"))) == 4
    assert re.fullmatch(r"2 files removed, [\d.]+ kB freed\n", featx("cache", "rm", "--yes").stdout)
    assert sorted(path.name for path in Path("cache").iterdir()) == ["keras.h5", "notes.txt", "split--lenet5.h5"]
    assert featx("cache", "rm").stdout == "there is nothing to remove in cache\n"


def test_cache_rm_removes_named_files_and_no_others(fitted: Path) -> None:
    assert "there is no feature file cache/none.h5" in featx("cache", "rm", "cache/none.h5", status=1).stderr
    assert "is not a feature file; those end in .h5" in featx("cache", "rm", fitted, status=1).stderr
    Path("cache/keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    foreign = featx("cache", "rm", "-y", "cache/split--lenet5.h5", "cache/keras.h5", status=1).stderr
    assert "keras.h5 is not a feature file of featx; remove it by hand" in foreign
    Path("cache/keras.h5").unlink()
    removed = json.loads(featx("cache", "rm", "-y", "cache/split--lenet5.h5", "--json").stdout)
    assert removed["removed"] == ["cache/split--lenet5.h5"]
    assert removed["bytes"] > 0
    assert list(Path("cache").iterdir()) == []
    assert featx("cache").stdout == "there is no feature file in cache\n"
    assert (
        "there is no folder nowhere; featx extract makes one" in featx("cache", "--cache", "nowhere", status=1).stderr
    )


def test_verify_extracts_rows_again_when_asked(fitted: Path, split_photos: Path) -> None:
    text = featx("verify", "cache/split--lenet5.h5", "--recompute", 5).stdout
    assert re.fullmatch(
        r"cache/split--lenet5\.h5: 48 rows, 0 bad, all is well\n"
        r"  5 rows extracted again; the largest difference is \S+ of the row's length \(relative L2\)\n",
        text,
    )
    (split_photos / "val" / "dark" / "00.png").unlink()
    found = json.loads(featx("verify", "cache/split--lenet5.h5", "--recompute", 100, "--json").stdout)
    assert (found["ok"], found["recomputed"], found["changed"]) == (True, 47, 1)
    assert found["largest_difference"] < 1e-5


def test_file_names_cannot_upset_the_terminal(split_photos: Path, in_tmp: Path) -> None:
    (split_photos / "train" / "dark" / "a\x1b[31m\nb.jpg").write_text("no image")
    result = featx("extract", split_photos, "-b", "lenet5")
    assert "\x1b" not in result.stderr
    assert r"a\x1b[31m\nb.jpg" in result.stderr


ODD_NAMES = [
    b"a b.png",
    b"new\nline.png",
    "\N{SNOWMAN}\N{PARTY POPPER}.png".encode(),
    b"caf\xe9.png",
    b"-rf.png",
    b"=1+1.png",
    b"'quoted'.png",
]


def test_odd_file_names_go_through_every_command_and_come_back(split_photos: Path, in_tmp: Path) -> None:
    folder = split_photos / "val" / "dark"
    for number, name in enumerate(ODD_NAMES):
        (folder / f"{number:02}.png").rename(folder / os.fsdecode(name))
    (folder / os.fsdecode(b"bad\xff\n.png")).write_text("no image")
    extracted = json.loads(featx("extract", split_photos, "-b", "lenet5", "--json").stdout)
    assert (extracted["computed"], extracted["failed"]) == (48, 1)
    assert os.fsencode(extracted["failures"][0]["path"]) == b"val/dark/bad\xff\n.png"
    assert json.loads(featx("extract", split_photos, "-b", "lenet5", "--json").stdout)["reused"] == 48
    assert featx("info", "--failed", extracted["file"]).stdout.startswith(
        "path,error\nval/dark/bad\\udcff\\n.png,not an image"
    )
    head = json.loads(featx("fit-head", "--json").stdout)["head"]
    predicted = json.loads(featx("predict", head, folder, "--json").stdout)["predictions"]
    assert {os.fsencode(Path(p["path"]).name) for p in predicted} >= {*ODD_NAMES, b"bad\xff\n.png"}
    os.chdir(folder)
    rows = csv.reader(io.StringIO(featx("predict", in_tmp / head, "=1+1.png", "--", "-rf.png").stdout))
    assert [row[0] for row in rows] == ["path", "'=1+1.png", "'-rf.png"]
    assert featx("verify", in_tmp / extracted["file"], "--recompute", 48).stdout.count("rows extracted again") == 1


def test_the_three_bare_commands_run_in_an_empty_folder(in_tmp: Path) -> None:
    extracted = json.loads(featx("extract", "--json").stdout)
    assert (extracted["images"], extracted["computed"], extracted["layers"]) == (1797, 1797, {"penultimate": 84})
    fitted = json.loads(featx("fit-head", "--model", "logreg", "--json").stdout)
    assert fitted["accuracy"] > 0.95
    assert (fitted["n_train"], fitted["n_test"], fitted["test_split"]) == (645, 173, "test")
    promoted = json.loads(featx("promote", "--finetune", "--epochs", "1", "--json").stdout)
    assert promoted["verdict"] in ("promoted", "kept-head")
    assert promoted["accuracy"] >= promoted["accuracy_head"] == pytest.approx(fitted["accuracy"])
    assert Path(promoted["model"]).is_file()


def test_pretrained_features_of_the_embedded_default_beat_random_ones(in_tmp: Path) -> None:
    accuracies = []
    for weights in ("default", "random"):
        featx("extract", "--weights", weights)
        accuracies.append(json.loads(featx("fit-head", "--json").stdout)["accuracy"])
    assert accuracies[0] > accuracies[1] + 0.01


def test_fit_head_prints_the_evaluation(fitted: Path) -> None:
    result = featx("fit-head", "cache/split--lenet5.h5", "--model", "logreg", "-C", "1")
    assert without_times(result.stdout) == (
        "logreg (C=1) on penultimate of cache/split--lenet5.h5: fitted to 32 images of 2 classes in TIME\n"
        "\n"
        "accuracy           1.0000  (95 % interval 0.8064 to 1.0000; 16 of 16 images of split val)\n"
        "balanced accuracy  1.0000\n"
        "macro F1           1.0000\n"
        + next(line for line in result.stdout.splitlines() if line.startswith("log loss")) + "\n"
        "AUROC              1.0000  (light against dark)\n"
        "average precision  1.0000  (light against dark)\n"
        + next(line for line in result.stdout.splitlines() if line.startswith("calibration error")) + "\n"
        "\n"
        "class  precision  recall      F1  images\n"
        "dark       1.000   1.000   1.000       8\n"
        "light      1.000   1.000   1.000       8\n"
        "\n"
        "true \\ predicted  dark  light\n"
        "dark                 8      0\n"
        "light                0      8\n"
        "\n"
        "head: models/split--lenet5--logreg.safetensors\n"
        "confusion matrix: models/split--lenet5--logreg.png\n"
    )  # fmt: skip
    assert Path("models/split--lenet5--logreg.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("model", ["linear", "svm", "ridge", "knn", "centroid", "mlp", "auto"])
def test_every_kind_of_head_can_be_fitted(fitted: Path, model: str) -> None:
    facts = json.loads(featx("fit-head", "--model", model, "--json").stdout)
    assert facts["model"] == model or model == "auto"
    assert facts["accuracy"] > 0.8
    assert Path(facts["head"]).is_file()


def test_promote_prints_the_proof_and_the_verdict(fitted: Path) -> None:
    lines = featx("promote").stdout.splitlines()
    pattern = (
        r"assembled models/split--lenet5--logreg\.safetensors: on 16 images the logits of the network "
        r"equal those of the head \(largest difference .*\)"
    )
    assert re.fullmatch(pattern, lines[0])
    assert lines[1].startswith(
        "assembled: the network is the head on its backbone, with accuracy 1.0000 on the 16 images"
    )
    assert lines[2] == "model: models/split--lenet5--logreg--promoted.safetensors"


def test_fine_tuning_prints_the_epochs_and_both_side_by_side(fitted: Path) -> None:
    lines = featx("promote", "--finetune", "--epochs", "1").stdout.splitlines()
    assert re.fullmatch(
        r"epochs are compared on 8 of the training images, held back by their content, "
        r"where the head has an accuracy of 1\.0000 on cached features:",
        lines[1],
    )
    assert lines[3].split()[:4] == ["0", "the", "head", lines[3].split()[3]]
    assert lines[4].split()[0] == "1"
    at = next(i for i, line in enumerate(lines) if "(same 16 images of split val)" in line)
    assert lines[at + 1].split()[:2] == ["head", "1.0000"]
    assert lines[at + 2].split()[0] == "fine-tuned"
    assert lines[at + 4].startswith("kept-head: ")
    assert lines[-2] == "model: models/split--lenet5--logreg--promoted.safetensors"
    assert lines[-1].startswith("epochs: models/split--lenet5--logreg--promoted.csv")


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


def test_evaluate_prints_the_report(fitted: Path, split_photos: Path) -> None:
    facts = json.loads(featx("evaluate", fitted, split_photos, "--json").stdout)
    wanted = {"accuracy", "interval", "balanced_accuracy", "macro_f1", "log_loss", "n", "confusion"}
    assert wanted <= facts.keys()
    assert (facts["n"], facts["confusion"]) == (16, [[8, 0], [0, 8]])
    assert featx("evaluate", fitted, split_photos).stdout.startswith("accuracy           1.0000")


def test_info_tells_every_kind_of_file(fitted: Path) -> None:
    featx("promote")
    for file, kind in (
        ("cache/split--lenet5.h5", "feature file"),
        (fitted, "head"),
        ("models/split--lenet5--logreg--promoted.safetensors", "promoted model"),
    ):
        assert json.loads(featx("info", file, "--json").stdout)["kind"] == kind
        assert kind in featx("info", file).stdout


def test_verify_exits_with_1_when_a_bit_has_flipped(fitted: Path) -> None:
    file = Path("cache/split--lenet5.h5")
    assert json.loads(featx("verify", file, "--json").stdout) == {
        "ok": True, "rows": 48, "bad_rows": 0, "duplicates": 0, "problems": [],
    }  # fmt: skip
    from featx.features.feature_file import FeatureFile

    offset = FeatureFile(file).layers["penultimate"].offset + 84 * 4 * 5
    with file.open("r+b") as handle:
        handle.seek(offset)
        byte = handle.read(1)[0]
        handle.seek(offset)
        handle.write(bytes([byte ^ 1]))
    found = json.loads(featx("verify", file, "--json", status=1).stdout)
    assert (found["ok"], found["bad_rows"]) == (False, 1)
    assert "do not match their checksums" in featx("fit-head", status=1).stderr


def test_the_stages_that_are_listed_are_those_that_are_extracted(split_photos: Path, in_tmp: Path) -> None:
    lines = featx("backbones", "lenet5", "--layers").stdout.splitlines()
    assert lines[0].split() == ["layer", "output", "width", "blocks"]
    assert lines[1].split() == ["features.0", "6", "x", "28", "x", "28", "6", "1", "of", "4"]
    assert "featx extract DATA --backbone lenet5 --stages" in lines[-2]
    listed = json.loads(featx("backbones", "lenet5", "--layers", "--json").stdout)
    assert listed["blocks"] == ["features.0", "features.3", "features.6", "hidden.1"]
    options = ("--backbone", "lenet5", "--stages", "--pooling", "max", "--layer", "features.3:avg", "--json")
    layers = json.loads(featx("extract", split_photos, *options).stdout)["layers"]
    assert layers == {"penultimate": 84, "features.3": 16} | {
        f"{stage['layer']}:max": stage["width"] for stage in listed["layers"]
    }
    fitted = json.loads(featx("fit-head", "--layer", "features.3:max", "--json").stdout)
    assert (fitted["layer"], fitted["n_train"]) == ("features.3:max", 32)
    assert Path(fitted["head"]).name == "split--lenet5--features.3_max--logreg.safetensors"
    said = json.loads(featx("predict", fitted["head"], split_photos / "val" / "dark", "--json").stdout)
    assert len(said["predictions"]) == 8
    assert featx("backbones", "--layers", status=1).stderr == (
        "Error: --layers needs the name of one backbone, as in featx backbones resnet50 --layers\n"
    )


def test_backbones_lists_what_fits_the_pattern(in_tmp: Path) -> None:
    lines = featx("backbones", "lenet").stdout.splitlines()
    assert lines[0].split() == [
        "name", "family", "embedding", "parameters", "input", "ImageNet", "top-1", "weights", "here",
    ]  # fmt: skip
    (row,) = [line.split() for line in lines if line.startswith("lenet5")]
    assert row == ["lenet5", "LeNet5", "84", "0.06", "M", "32", "-", "yes"]
    (entry,) = json.loads(featx("backbones", "squeezenet1_1", "--json").stdout)["backbones"]
    assert (entry["embedding"], entry["input_size"], entry["local"]) == (512, 224, False)
    assert entry["top1"] == pytest.approx(58.178)


def test_a_recipe_runs_its_steps_and_a_dry_run_only_names_them(split_photos: Path, in_tmp: Path) -> None:
    Path("job.toml").write_text(
        f'[extract]\ndata = "{split_photos}"\nbackbone = "lenet5"\n[fit-head]\nmodel = "ridge"\n[promote]\n'
    )
    dry = featx("run", "job.toml", "--dry-run")
    assert dry.stdout == (
        f"featx extract {split_photos} --backbone lenet5\nfeatx fit-head --model ridge\nfeatx promote\n"
    )
    assert not Path("cache").exists()
    done = json.loads(featx("run", "job.toml", "--json").stdout)
    assert list(done) == ["extract", "fit-head", "promote"]
    assert done["promote"]["verdict"] == "assembled"
    text = featx("run", "job.toml").stdout
    assert [line for line in text.splitlines() if line.startswith("$ ")] == [f"$ {c}" for c in dry.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "nowhere"], "Error: there is no nowhere; expected a folder of images, a table"),
        (["extract", "-b", "resnet51"], "Error: there is no backbone 'resnet51'; did you mean resnet"),
        (["extract", "-b", "mobilenet_v1_050"], "Error: mobilenet_v1_050 has no weights to download"),
        (["extract", "--weights", "no.pth"], "Error: there is no weights file"),
        (["extract", "--device", "quantum"], "Error: --device quantum:"),
        (["fit-head"], "Error: there is no feature file in cache; run featx extract first"),
        (["fit-head", "no.h5"], "Error: there is no feature file no.h5"),
        (["promote"], "Error: there is no head in models; run featx fit-head first"),
        (["predict", "no.safetensors", "a.jpg"], "Error: there is no head or model no.safetensors"),
        (["evaluate", "no.safetensors", "digits"], "Error: there is no head or model no.safetensors"),
        (["info", "no.h5"], "Error: there is no file no.h5"),
        (["verify", "no.h5"], "Error: there is no feature file no.h5"),
        (["run", "no.toml"], "Error: cannot read the recipe no.toml"),
        (["backbones", "zzz"], "Error: no backbone's name contains 'zzz'"),
    ],
)
def test_an_error_is_one_message_on_stderr_and_exit_status_1(in_tmp: Path, arguments: list[str], message: str) -> None:
    result = featx(*arguments, status=1)
    assert result.stderr.startswith(message)
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "--nonsense"], ["fit-head", "--model", "forest"], ["fit-head", "-C", "-1"], ["predict"],
        ["extract", "--dtype", "int8"], ["promote", "--epochs", "0"], ["extract", "-j", "0"], ["nonsense"],
    ],
)  # fmt: skip
def test_wrong_usage_exits_with_2(in_tmp: Path, arguments: list[str]) -> None:
    assert "Usage: " in featx(*arguments, status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["extract", "--fast-decode", "--nvjpeg"],
            "fast-decode and nvjpeg are two ways to decode a JPEG; expected one of",
        ),
        (
            ["fit-head", "--repeat", "2"],
            "repeat is the number of times that cv or shots are repeated; expected one of them",
        ),
        (
            ["fit-head", "--model", "auto", "-C", "1"],
            "auto chooses C, k and kernel itself; name a kind of head to set them",
        ),
        (["promote", "--from", "layer4", "--last", "2"], "--from and --last "),
        (["promote", "--repeats", "1"], "repeats is 1; expected "),
    ],
)
def test_options_that_do_not_go_together_are_an_error_of_status_1(
    in_tmp: Path, arguments: list[str], message: str
) -> None:
    assert featx(*arguments, status=1).stderr.startswith(f"Error: {message}")


def test_a_mistyped_command_brings_the_one_that_was_meant() -> None:
    assert "Error: No such command 'extrct'. Did you mean extract?\n" in featx("extrct", status=2).stderr
    assert featx("zzz", status=2).stderr.endswith("Error: No such command 'zzz'.\n")


def test_c_for_a_head_that_has_none_is_refused(fitted: Path) -> None:
    assert featx("fit-head", "--model", "knn", "-C", "1", status=1).stderr == (
        "Error: C is only for logreg, svm, ridge; knn has none, so leave out -C\n"
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from featx.cli.main import main; main(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'sklearn', 'numpy', 'h5py', 'PIL', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["", *sorted(main.commands)])
def test_every_command_answers_h(command: str) -> None:
    text = featx(*command.split(), "-h").stdout
    assert text.startswith("Usage: ")
    assert "\nExamples:\n  featx " in text


@pytest.mark.parametrize("command", sorted(main.commands["cache"].commands))
def test_every_command_of_the_cache_answers_h(command: str) -> None:
    text = featx("cache", command, "-h").stdout
    assert text.startswith("Usage: ")
    assert "\nExamples:\n  featx cache " in text


def test_the_shell_completes_commands_options_and_choices() -> None:
    def completed(words: str) -> list[str]:
        environment = {"_FEATX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        result = CliRunner().invoke(main, [], prog_name="featx", env=environment)
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert completed("featx fit") == ["fit-head"]
    assert completed("featx fit-head --target") == ["--target-precision"]
    assert completed("featx promote --optimizer ") == ["adamw", "sgd"]


def _rows_done(partial: Path) -> int:
    try:
        return int(np.count_nonzero(FeatureFile(partial, allow_partial=True).status == DONE))
    except (CacheMissError, CorruptFileError):  # not laid out yet
        return 0


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(split_photos: Path, in_tmp: Path) -> None:
    Path("slow.py").write_text(
        "import os, time\nfrom featx import Transform\nfrom featx.backbones.architectures import LeNet5\n"
        "class Slow(LeNet5):\n    transform = Transform(resize=32, crop=32)\n"
        "    def forward(self, x):\n        time.sleep(float(os.environ.get('PAUSE', 0)))\n        return super().forward(x)\n"
        "def make():\n    return Slow()\n"
    )
    command = [sys.executable, "-m", "featx", "extract", str(split_photos), "-b", "slow.py:make", "--batch-size", "4"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PAUSE": "2"}
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test that runs in the background ignores it
    )  # fmt: skip
    partial = Path("cache/split--slow-make.h5.partial")
    deadline = time.monotonic() + 240
    while not _rows_done(partial) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert "Interrupted. Completed work is kept: the same command resumes it." in stderr
    assert "Traceback" not in stderr
    facts = json.loads(featx("extract", split_photos, "-b", "slow.py:make", "--json").stdout)
    assert facts["reused"] > 0
    assert facts["computed"] + facts["reused"] == 48
