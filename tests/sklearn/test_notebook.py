"""The notebook in the documentation runs, and its output is that of this version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "make_notebook.py"


def test_the_notebook_runs_and_its_page_is_up_to_date() -> None:
    for name in ("nbclient", "ipykernel", "pandas", "skops"):
        pytest.importorskip(name, reason=f"{name} is an extra")
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
