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
    assert lines[-2] == "model: models/split--lenet5--logreg--promoted--epochs1.safetensors"
    assert lines[-1].startswith("epochs: models/split--lenet5--logreg--promoted--epochs1.csv")
