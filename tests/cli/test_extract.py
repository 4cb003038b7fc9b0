"""``featx extract``: its results, notes and options."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import featx, without_times
from PIL import Image

from featx.cli.main import main


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


def test_several_views_are_reported(split_photos: Path, in_tmp: Path) -> None:
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
    output = json.loads(featx("predict", facts["head"], split_photos / "val" / "dark", "--json").stdout)
    assert {one["label"] for one in output["predictions"]} == {"dark"}
    assert "views" in featx("promote", facts["head"]).stderr
    assert "'5crop' is not one of 'plain', 'flip', '10crop'" in featx("extract", "--views", "5crop", status=2).stderr


def test_random_weights_are_noted(split_photos: Path, in_tmp: Path) -> None:
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
    output = featx("info", "cache/split--lenet5.h5").stdout
    assert "train/dark/bad09.jpg" in output
    assert "train/dark/bad10.jpg" not in output
    assert "  and 2 more (featx info --failed cache/split--lenet5.h5 lists them)" in output
    table = list(csv.reader(io.StringIO(featx("info", "--failed", "cache/split--lenet5.h5").stdout)))
    assert table[0] == ["path", "error"]
    assert [path for path, _ in table[1:]] == [f"train/dark/bad{number:02}.jpg" for number in range(12)]
    as_json = json.loads(featx("info", "--failed", "cache/split--lenet5.h5", "--json").stdout)
    assert len(as_json["failures"]) == 12


def test_strict_stops_with_exit_status_1(split_photos: Path, in_tmp: Path) -> None:
    (split_photos / "train" / "dark" / "bad.jpg").write_text("no image")
    result = featx("extract", split_photos, "-b", "lenet5", "--strict", status=1)
    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: \S+/train/dark/bad\.jpg: not an image of a known format.*\. --strict stops at the first image that fails\n",
        result.stderr,
    )


def test_options_for_reading_images_are_stored_in_the_file(split_photos: Path, in_tmp: Path) -> None:
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


def twelve_bit_photos(folder: Path) -> Path:
    """Two classes of five images of 12 bits in files of 16."""
    rng = np.random.default_rng(0)
    for label, mean in (("dark", 1000), ("light", 2500)):
        (folder / label).mkdir(parents=True)
        for number in range(5):
            values = np.clip(rng.normal(mean, 500, (40, 40)), 0, 4095).astype(np.uint16)
            Image.fromarray(values).save(folder / label / f"{number}.png")
    return folder


def test_a_value_range_is_suggested_once_and_stored(in_tmp: Path) -> None:
    photos = twelve_bit_photos(in_tmp / "photos")
    first = featx("extract", photos, "-b", "lenet5")
    assert first.stderr.count("--value-range 12 uses the whole range") == 1
    quiet = featx("extract", photos, "-b", "lenet5", "--cache", "other", "--quiet", "--json")
    assert quiet.stderr.count("--value-range 12") == 1
    assert "--value-range 12" in json.loads(quiet.stdout)["notes"][0]
    second = featx("extract", photos, "-b", "lenet5", "--value-range", "12")
    assert ("value-range" in second.stderr, "10 computed" in second.stdout) == (False, True)
    facts = json.loads(featx("info", second.stdout.split("features: ")[1].strip(), "--json").stdout)
    assert facts["backbone"]["parts"]["transform"]["value_range"] == [0, 4095]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "--value-range",
            "13",
            "'13' is not a value range; expected 8, 10, 12, 14 or 16 bits, or LOW-HIGH such as 0-4095",
        ),
        ("--bands", "1,x", "'1,x' names no bands; expected different numbers from 1 on, such as 4,3,2"),
    ],
)
@pytest.mark.parametrize("command", ["extract", "advise"])
def test_a_wrong_value_range_or_band_is_a_usage_error(command: str, option: str, value: str, message: str) -> None:
    assert message in featx(command, "digits", option, value, status=2).stderr


def test_bands_of_a_tiff_are_asked_for_and_read(in_tmp: Path) -> None:
    (in_tmp / "fields").mkdir()
    data = (Path(__file__).parent.parent / "images" / "13-bands.tif").read_bytes()
    (in_tmp / "fields" / "1.tif").write_bytes(data)
    refused = featx("extract", "fields", "-b", "lenet5", status=1).stderr
    assert "13 bands, 12 of them neither colour nor declared alpha" in refused
    assert "--bands selects some, such as 1,2,3" in refused
    assert "1 computed" in featx("extract", "fields", "-b", "lenet5", "--bands", "4,3,2").stdout


def test_a_waiting_run_names_the_process_it_waits_for_and_continues(split_photos: Path, in_tmp: Path) -> None:
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
        note = next(line for line in run.stderr if line.startswith("Note: "))
        assert re.fullmatch(rf"Note: waiting for {holder}, which writes the same file\n", note)
        assert run.poll() is None
    stdout, _ = run.communicate(timeout=60)
    assert run.returncode == 0
    assert "48 computed" in stdout


def test_pretrained_features_of_the_embedded_default_beat_random_ones(in_tmp: Path) -> None:
    accuracies = []
    for weights in ("default", "random"):
        featx("extract", "--weights", weights)
        accuracies.append(json.loads(featx("fit-head", "--json").stdout)["accuracy"])
    assert accuracies[0] > accuracies[1] + 0.01


def test_the_engine_is_reported_and_each_error_is_one_line(photos: Path, in_tmp: Path) -> None:
    def run(*options: str) -> Any:
        return CliRunner().invoke(main, ["extract", str(photos), "--backbone", "lenet5", "--device", "cpu", *options])

    output = run("--compute", "eager", "--batch-size", "auto", "--json")
    assert output.exit_code == 0, output.output
    assert json.loads(output.stdout)["engine"] == "eager"
    for options, message in (
        (("--compute", "onnxruntime", "--precision", "bfloat16"), "onnxruntime computes in float32 only"),
        (("--compute", "nonsense"), "'nonsense' is not one of 'auto', 'eager', 'compile', 'openvino', 'onnxruntime'"),
        (("--batch-size", "0"), "'0' is neither a whole number above 0 nor auto"),
        (("--batch-size", "many"), "'many' is neither a whole number above 0 nor auto"),
        (("--fast-decode", "--nvjpeg"), "expected one of them"),
    ):
        failed = run(*options)
        assert failed.exit_code in (1, 2)
        assert message in failed.stderr
        assert len([line for line in failed.stderr.splitlines() if line.startswith("Error: ")]) == 1
        assert "Traceback" not in failed.output


def test_images_that_may_be_known_are_said_to_be_read_and_new_ones_to_be_computed(
    split_photos: Path, in_tmp: Path
) -> None:
    first = featx("extract", split_photos, "--backbone", "lenet5", "-v").stderr
    assert "computing 48 images; features take 336 bytes each" in first
    shutil.copytree(split_photos, in_tmp / "copy")
    again = featx("extract", "copy", "--backbone", "lenet5", "-v")
    assert "reading 48 images, and computing those that are new; features take" in again.stderr
    assert "48 images: 48 reused" in again.stdout


def test_a_table_with_a_missing_file_is_extracted_without_it_and_the_file_is_tried_again(
    photos: Path, in_tmp: Path
) -> None:
    table = photos / "t.csv"
    names = [f"{label}/{number:02}.png" for label in ("dark", "light") for number in range(20)]
    table.write_text("path,label\n" + "".join(f"{name},{name[:4]}\n" for name in names))
    moved = (photos / names[3]).rename(in_tmp / "elsewhere.png")
    command = ("extract", table, "--backbone", "lenet5")
    first = featx(*command)
    assert "40 images: 39 computed, 0 reused, 1 failed, 0 removed" in first.stdout
    assert "Note: t.csv names 40 files, of which 1 (2.5 %) is not there" in first.stderr
    assert "Note: dark/03.png: cannot be read: No such file or directory" in first.stderr
    assert "no forward pass was needed" in featx(*command).stdout
    moved.rename(photos / names[3])
    assert "40 images: 1 computed, 39 reused, 0 failed, 0 removed" in featx(*command).stdout


def test_a_class_that_is_in_test_alone_is_extracted_and_refused_by_the_fit(split_photos: Path, in_tmp: Path) -> None:
    (split_photos / "val" / "dark").rename(split_photos / "val" / "grey")
    extracted = featx("extract", split_photos, "--backbone", "lenet5")
    assert "Note: class 'grey' has no images in train but 8 in val" in extracted.stderr
    refused = featx("fit-head", "cache/split--lenet5.h5", status=1)
    assert "1 class has images in val or test but none in train: grey (8 in val)" in refused.stderr
