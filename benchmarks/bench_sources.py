"""How fast images are read from each kind of source, against a plain folder: each part is a module ``sources_<part>.py`` here.

    python benchmarks/bench_sources.py                        # all parts
    python benchmarks/bench_sources.py --parts archive rows   # some of them

A part has ``measure(...) -> dict`` and runs alone, too: ``python benchmarks/sources_archive.py``. Each one runs in a process of
its own, with a ``FEATX_HOME`` of its own, so that none finds what another has kept.

Prints one JSON line: {part: what the part printed}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def parts() -> list[str]:
    """The names of all parts."""
    return sorted(path.stem.removeprefix("sources_") for path in FOLDER.glob("sources_*.py"))


def measured(part: str) -> Any:
    """Run one part, and read the JSON on the last line that it prints."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(FOLDER / f"sources_{part}.py")]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "FEATX_HOME": home}
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=parts(), default=parts())
    print(json.dumps({part: measured(part) for part in parser.parse_args().parts}))


if __name__ == "__main__":
    main()
