"""Runs commands of featx for ``same_files.py``, each in a copy of this process, which has imported torch once for all.

A copy imports featx itself anew, and does what ``python -m featx`` does, seconds sooner. Reads a JSON line for each command from
stdin: its words, its environment, and the files for stdout and stderr. Answers with a line: the exit status.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

IMPORTED = (torch, torchvision)


def become(asked: Mapping[str, Any]) -> None:
    """Make this process the command's own."""
    os.environ.update(asked["environment"])
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["featx", *asked["words"]]
    runpy.run_module("featx", run_name="__main__", alter_sys=True)


def main() -> None:
    """Take commands until there are no more."""
    sys.path[0] = str(Path.cwd())  # as python -m does it
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
