"""Names that are not ASCII, or not UTF-8, in every locale: the same files, the same answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.backbones.backbone import load_backbone
from featx.extraction.pipeline import extract

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def folder(in_tmp: Path) -> bytes:
    """Two classes, one of which has a name that is not UTF-8, and so have the images."""
    rng = np.random.default_rng(0)
    for name in (b"caf\xc3\xa9", b"\xff"):
        place = Path("données", os.fsdecode(name))
        place.mkdir(parents=True)
        for number in range(4):
            path = place / os.fsdecode(b"%d\xe9.png" % number)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    extract("données", load_backbone("lenet5", device="cpu"), cache="cache")
    return Path("cache/données--lenet5.h5").read_bytes()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in (*ASCII, "LANG", "PYTHONIOENCODING")}
    return subprocess.run(
        [sys.executable, *arguments], env={**clean, **environment}, capture_output=True, encoding="utf-8", errors="replace"
    )  # fmt: skip


def test_a_command_in_the_ascii_locale_finds_what_one_in_utf8_made(folder: bytes) -> None:
    described = run("-m", "featx", "info", "cache/données--lenet5.h5", "--json", **ASCII)
    assert described.returncode == 0, described.stderr
    assert json.loads(described.stdout)["classes"] == {"café": 4, "\udcff": 4}
    again = run("-m", "featx", "extract", "données", "-b", "lenet5", "-q", "--json", **ASCII)
    assert again.returncode == 0, again.stderr
    facts = json.loads(again.stdout)
    assert (facts["computed"], facts["reused"], facts["file"]) == (0, 8, "cache/données--lenet5.h5")
    assert Path("cache/données--lenet5.h5").read_bytes() == folder


@pytest.mark.parametrize(("encoding", "shown"), [("cp1252", "caf\xe9"), ("utf-8", "café")])
def test_what_the_terminal_cannot_show_is_escaped(folder: bytes, encoding: str, shown: str) -> None:
    command = [sys.executable, "-m", "featx", "info", "cache/données--lenet5.h5"]
    env = {**os.environ, **ASCII, "PYTHONIOENCODING": encoding}
    described = subprocess.run(command, env=env, capture_output=True)
    assert described.returncode == 0, described.stderr
    lines = described.stdout.decode(encoding)
    assert shown in lines
    assert "\\udcff" in lines


_IN_PYTHON = """
import os, featx
result = featx.extract(os.fsdecode(b"donn\\xc3\\xa9es"), "lenet5", cache="cache")
print(result.computed, result.reused, ascii(result.load().classes))
"""


def test_python_in_the_ascii_locale_reads_and_reuses_the_same_file(folder: bytes) -> None:
    found = run("-c", _IN_PYTHON, **ASCII)
    assert found.stdout == "0 8 ('caf\\xe9', '\\udcff')\n", found.stderr
    assert Path("cache/données--lenet5.h5").read_bytes() == folder
