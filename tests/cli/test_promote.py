"""``featx promote``: what it prints with and without fine-tuning."""

from __future__ import annotations

import re
from pathlib import Path

from command_line import featx


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
        r"epochs are compared on 6 of the training images, held back by their content, "
        r"where the head has an accuracy of 1\.0000 on cached features:",
        lines[1],
    )
    assert lines[3].split()[:4] == ["0", "the", "head", lines[3].split()[3]]
    assert lines[4].split()[0] == "1"
    at = next(i for i, line in enumerate(lines) if "(same 16 images of split val)" in line)
    assert lines[at + 1].split()[:2] == ["head", "1.0000"]
    assert lines[at + 2].split()[0] == "fine-tuned"
    assert lines[at + 3].split() == ["baseline", "0.5000", "always", "'dark'"]
    assert re.fullmatch(
        r"[+-]\d+\.\d points of accuracy in \d+ s of training: [+-]\d+\.\d\d points a minute", lines[at + 4]
    )
    assert lines[at + 6].startswith("kept-head: ")
    assert lines[-2] == "model: models/split--lenet5--logreg--promoted--epochs1.safetensors"
    assert lines[-1].startswith("epochs: models/split--lenet5--logreg--promoted--epochs1.csv")


def test_a_search_and_a_teacher_are_shown(fitted: Path) -> None:
    options = [
        "--last",
        "1",
        "--epochs",
        "1",
        "--search",
        "2",
        "--budget",
        "10min",
        "--teacher",
        str(fitted),
        "--lr",
        "0.01",
    ]
    out = featx("promote", "--finetune", *options).stdout
    assert re.search(
        r"^2 settings tried in \d+ s on folds of the training images; those that were trained to", out, re.M
    )
    assert re.search(r"^    3    \d\.\d{4}    \d\.\d{4}  the settings as given$", out, re.M)
    assert re.search(r"^chosen: ", out, re.M)
    assert re.search(
        r"^the teacher split--lenet5--logreg has accuracy 1\.0000: it alone is right on \d images?, the", out, re.M
    )
    assert re.search(r"^images/s, without reading and decoding: the teacher [\d,]+, the network [\d,]+$", out, re.M)


def test_options_without_effect_and_durations_that_are_none_are_refused() -> None:
    cases = {
        ("--finetune", "--budget", "5min"): "--budget has no effect without --search",
        ("--finetune", "--search", "4", "--budget", "soon"): "'soon' is no duration such as 90s, 5min or 1h",
        ("--finetune", "--temperature", "3"): "--temperature has no effect without --teacher",
        ("--teacher", "x"): "--teacher has no effect without --finetune",
    }
    for options, message in cases.items():
        assert message in featx("promote", *options, status=2).stderr
