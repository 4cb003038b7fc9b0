"""Fail every kind of call of the operating system, one from each line of featx that makes any, in every command.

    python benchmarks/failing_calls.py [SCENARIO ...]

After each failure the command runs again. What is wrong is printed: a traceback, a message without path or cause, rows that
were done and are lost, a second run that fails or leaves files behind. All scenarios take about 10 minutes on one core.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from faults import SCENARIOS, calls_of, faults_of


def main(names: list[str]) -> int:
    """Fail the first call from each line in some scenarios, and print what is wrong with each."""
    tried = bad = 0
    with tempfile.TemporaryDirectory() as base:
        os.environ["FEATX_HOME"] = f"{base}/home"
        for name in names or list(SCENARIOS):
            (folder := Path(base, name)).mkdir()
            for call in calls_of(name, folder):
                tried += 1
                if wrong := faults_of(name, call, folder):
                    bad += 1
                    print(f"{name}: {call.kind} at {' > '.join(call.site[-4:])}\n  " + "\n  ".join(wrong), flush=True)
            print(f"{name}: {tried} calls so far, {bad} with faults", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
