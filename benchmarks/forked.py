"""Runs commands of featx for ``same_files.py``, each in a copy of this process, which has imported torch once for all.

A copy imports featx itself anew, and does what ``python -m featx`` does, but seconds sooner. A JSON line on stdin asks for a
command: its words, its environment, and the files for stdout and stderr. The answer is a line: the exit status.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

IMPORTED = (torch, torchvision)


def become(asked: Mapping[str, Any]) -> int:
    """Make this process the command's own; the exit status."""
    os.environ.update(asked["environment"])
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["featx", *asked["words"]]
    try:
        runpy.run_module("featx", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as the interpreter itself would
        traceback.print_exc()
        return 1
    return 0


def leave(status: int) -> None:
    """End as the interpreter does, but for taking torch apart, which takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def main() -> None:
    """Take commands until there are no more."""
    sys.path[0] = str(Path.cwd())  # as python -m does it
    gc.collect()
    gc.freeze()  # copies need not look at it again
    for line in sys.stdin:
        child = os.fork()
        if not child:
            leave(become(json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
