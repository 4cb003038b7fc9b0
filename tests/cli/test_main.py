"""The command ``featx`` as a whole: exit statuses, errors, help, completion, and commands that follow one another."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import featx

from featx.cli.main import main
from featx.errors import CacheMissError, CorruptFileError
from featx.features.feature_file import DONE, FeatureFile


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
            ["extract", "photos", "--fast-decode", "--nvjpeg"],
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
        (["promote", "--finetune", "--from", "layer4", "--last", "2"], "--from and --last "),
        (["promote", "--finetune", "--repeats", "1"], "repeats is 1; expected "),
    ],
)
def test_options_that_do_not_go_together_are_an_error_of_status_1(
    in_tmp: Path, arguments: list[str], message: str
) -> None:
    assert featx(*arguments, status=1).stderr.startswith(f"Error: {message}")


def test_a_mistyped_command_suggests_the_one_that_was_meant() -> None:
    assert "Error: No such command 'extrct'; did you mean extract?\n" in featx("extrct", status=2).stderr
    assert featx("zzz", status=2).stderr.endswith("Error: No such command 'zzz'.\n")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from featx.cli.main import main; main(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'sklearn', 'numpy', 'h5py', 'PIL', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["", *sorted(main.commands)])
def test_every_command_has_help_with_examples(command: str) -> None:
    text = featx(*command.split(), "-h").stdout
    assert text.startswith("Usage: ")
    assert "\nExamples:\n  featx " in text


def test_the_shell_completes_commands_options_and_choices() -> None:
    def completed(words: str) -> list[str]:
        environment = {"_FEATX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        result = CliRunner().invoke(main, [], prog_name="featx", env=environment)
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert completed("featx fit") == ["fit-head"]
    assert completed("featx fit-head --target") == ["--target-precision"]
    assert completed("featx promote --optimizer ") == ["adamw", "sgd"]


def _rows_done(partial: Path) -> int:
    """The number of rows that an unfinished feature file has."""
    try:
        return int(np.count_nonzero(FeatureFile(partial, allow_partial=True).status == DONE))
    except (CacheMissError, CorruptFileError):  # not laid out yet
        return 0


def test_ctrl_c_keeps_completed_work_and_tells_the_user_how_to_resume(split_photos: Path, in_tmp: Path) -> None:
    Path("slow.py").write_text(
        "import os, time\nfrom featx import Transform\nfrom featx.backbones.architectures import LeNet5\n"
        "class Slow(LeNet5):\n    transform = Transform(resize=32, crop=32)\n"
        "    def forward(self, x):\n        time.sleep(float(os.environ.get('PAUSE', 0)) if len(x) == 4 else 0)\n"
        "        return super().forward(x)\n"
        "def make():\n    return Slow()\n"
    )
    command = [sys.executable, "-m", "featx", "extract", str(split_photos), "-b", "slow.py:make", "--batch-size", "4"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PAUSE": "2",
    }  # in no trial pass
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test that runs in the background ignores it
    )  # fmt: skip
    partial = Path("cache/split--slow-make.h5.partial")
    deadline = time.monotonic() + 240
    while not _rows_done(partial) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert "Interrupted. Completed work is kept: the same command resumes it." in stderr
    assert "Traceback" not in stderr
    facts = json.loads(featx("extract", split_photos, "-b", "slow.py:make", "--json").stdout)
    assert facts["reused"] > 0
    assert facts["computed"] + facts["reused"] == 48


def test_several_processes_are_for_promotion_and_heads(in_tmp: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "featx", "extract"],
        capture_output=True, text=True, env={**os.environ, "WORLD_SIZE": "2", "RANK": "0"},
    )  # fmt: skip
    assert found.returncode == 2
    assert (
        "torchrun is for featx promote --finetune and featx fit-head; featx extract runs in one process" in found.stderr
    )
