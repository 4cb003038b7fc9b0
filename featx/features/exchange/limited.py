"""Files whose readers are not safe against strangers, read in a limited process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from featx.errors import DatasetError
from featx.features.exchange.vectors import no_room, unnamed_file
from featx.text import form

_MEMORY = 4 << 30
_SECONDS, _SECONDS_PER_GB = 60, 120
_RATIO = 200
_CODE = (
    "import json, sys; text = sys.stdin.read(); sys.path[:] = json.loads(text)['python']; "
    "from featx.features.exchange.hdf5_child import main; main(text)"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def read_in_limits(paths: Sequence[Path], folder: Path) -> tuple[list[dict[str, Any]], IO[bytes]]:
    """Read HDF5 or MATLAB files in another process, which has no plug-ins and limited memory, time and disk space.

    Args:
        paths: of the files.
        folder: where their matrices are written, to an unnamed file.

    Returns:
        What each holds, as ``hdf5_child`` describes it, and the file with the matrices.

    Raises:
        DatasetError: a file is not read; the message tells why.
    """
    sizes = [path.stat().st_size for path in paths]
    out = unnamed_file(folder)
    seconds = _SECONDS + len(paths) + sum(sizes) * _SECONDS_PER_GB // (1 << 30)
    request = {
        "paths": [str(path.absolute()) for path in paths],
        "out": out.fileno(),
        "memory": _MEMORY + 4 * min(max(sizes), _MEMORY),
        "seconds": seconds,
        "output": _RATIO * sum(sizes) + (1 << 24),
        "python": sys.path,
    }
    environment = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::", **dict.fromkeys(_THREADS, "1")}
    where = (
        str(paths[0])
        if len(paths) == 1
        else f"{paths[0]} or {form(len(paths) - 1, 'the file', f'one of {len(paths) - 1} files')} after it"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE],
            input=json.dumps(request).encode(),
            capture_output=True,
            pass_fds=[out.fileno()],
            env=environment,
            timeout=2 * seconds + 60,
            check=False,
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"{where} takes too long to read; it may be damaged") from error
    except ValueError as error:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        raise DatasetError(
            f"{where} cannot be read: its reader ended with status {done.returncode}{f' ({why[-1][:200]})' if why else ''}; "
            "it is damaged, or needs more memory or time than a file of a stranger gets"
        ) from error
    for path, each in zip(paths, found, strict=True):
        if why_not := each.get("no_room"):
            raise no_room(folder, why_not)
        if fault := each.get("fault"):
            raise DatasetError(f"{path} {fault}")
    return found, out
