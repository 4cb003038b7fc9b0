"""The README's real example prints what the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from featx.cli.main import main

README = Path(__file__).resolve().parent.parent / "README.md"


def comparable(text: str) -> list[str]:
    """Lines without what differs from machine to machine: times, rates, engines and folders."""
    text = re.sub(r"in [\d.,]+ s( \([\d.,]+ images/s, \w+\))?", "in TIME", text)
    text = re.sub(r"Note: (measuring once which of|\S+ runs with) .*\n", "", text)  # where the machine is slow
    return re.sub(r"\S*/(?=shared/)", "", text).strip().splitlines()


@pytest.mark.real
@pytest.mark.few
def test_the_real_example_prints_what_the_readme_shows(
    hymenoptera: Path, mobilenet_weights: Path, in_tmp: Path
) -> None:
    blocks = re.findall(r"```text\n(\$ featx .*?)```", README.read_text(), flags=re.DOTALL)
    shown = [part.split("\n", 1) for block in blocks for part in block.split("$ featx ")[1:]]
    assert [command.split()[0] for command, _ in shown] == ["extract", "fit-head"]
    for command, output in shown:
        words = command.replace("../shared/datasets/hymenoptera", str(hymenoptera)).split()
        words = [str(mobilenet_weights) if word.endswith(".safetensors") else word for word in words]
        result = CliRunner().invoke(main, [*words, "--quiet"])
        assert result.exit_code == 0, result.output
        assert comparable(result.output) == comparable(output)
