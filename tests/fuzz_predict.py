"""Kill ``featx predict -o`` again and again at random moments, and compare the table in the end with that of a single run.

    python tests/fuzz_predict.py 60 0    # at least 60 kills, seed 0

In each round a table is chosen at random: its format, its options, what is predicted (a folder, a table with further columns,
an archive, Parquet rows with image bytes, a feature file, a list on standard input, or several of these) and the model. The
command gets SIGKILL at a random time, or as it makes rows safe, gives the table its name, or removes what it has left; or
SIGINT. Then the same command runs to its end. The table must be, byte for byte (of Parquet, row for row), that of a run that
was never interrupted; nothing may be left beside it, and no image may be predicted again that was safe.

Prints what was done, and how many rounds ended otherwise ("different", "left", "again", "failed"); these are to be 0.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

IMAGES = 120

MOMENTS = ("predicting", "making safe", "finishing", "removing", "beginning", "interrupted")


def main() -> None:
    kills, seed = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEATX_HOME"] = str(Path(folder, "home"))
        os.environ["OMP_NUM_THREADS"] = "1"
        os.chdir(folder)
        _make_data(Path(folder))
        trial = Trial(random.Random(seed))
        while sum(trial.seen.kills.values()) < kills:
            trial.round()
            sys.stdout.write(f"{trial.seen.rounds} rounds, {sum(trial.seen.kills.values())} kills\n")
            sys.stdout.flush()
    sys.stdout.write(f"{trial.seen}\n")
    sys.exit(trial.seen.different + trial.seen.left + trial.seen.again + trial.seen.failed > 0)


@dataclass
class Seen:
    """What happened."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)
    different: int = 0
    left: int = 0
    again: int = 0
    failed: int = 0


class Trial:
    """Rounds of kills."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.seen = chance, Seen()
        self._expected: dict[tuple[Any, ...], Any] = {}

    def round(self) -> None:
        """Kill a command several times, let it end, and compare."""
        chance = self.chance
        ending = chance.choice((".csv", ".jsonl", ".parquet"))
        name, words = chance.choice(list(_DATA.items()))
        model = "models/head.safetensors" if "features" in name else chance.choice(_MODELS)
        options = chance.choice(([], ["--probabilities"], ["--top", "2"], ["--cache", "none"]))
        if "--cache" in options and (name == "features" or "promoted" in model):  # where it has no effect
            options = []
        key = (model, name, *options, ending)
        if key not in self._expected:
            _run([model, *words, *options, "-o", f"single{ending}"]).check_returncode()
            self._expected[key] = _content(Path(f"single{ending}"))
        out = Path(f"out{ending}")
        shutil.rmtree("home/predictions", ignore_errors=True)
        for path in Path().glob("*out.*"):
            path.unlink()
        command = [model, *words, *options, "-o", str(out)]
        for _ in range(chance.randint(1, 4)):
            self._kill(command)
        before = _safe(out)
        done = _run(command)
        self.seen.rounds += 1
        self.seen.tables[f"{name} {ending}"] += 1
        if done.returncode:
            self.seen.failed += 1
            sys.stderr.write(f"failed: {key}: {done.stderr[-500:]}\n")
        if not out.exists() or _content(out) != self._expected[key]:
            self.seen.different += 1
            sys.stderr.write(f"different: {key}\n")
        if beside := [path.name for path in Path().iterdir() if path not in (out, *_fresh())]:
            self.seen.left += 1
            sys.stderr.write(f"left: {key}: {beside}\n")
        if before and f"going on after {before:,} image" not in done.stderr and "is complete" not in done.stderr:
            self.seen.again += 1
            sys.stderr.write(f"again: {key}: {before} rows were safe: {done.stderr[-300:]}\n")

    def _kill(self, command: list[str]) -> None:
        moment = self.chance.choice(MOMENTS)
        process = _start(command, moment, self.chance.randint(1, 25), self.chance.uniform(0, 0.05))
        if moment == "interrupted":
            time.sleep(self.chance.uniform(0.5, 3.5))
            process.send_signal(signal.SIGINT)
            process.wait()
            self.seen.kills["interrupted"] += process.returncode == 130
            if process.returncode not in (0, 130, -signal.SIGINT):
                self.seen.failed += 1
                sys.stderr.write(f"failed: {process.returncode}\n")
            return
        process.wait()
        self.seen.kills[moment] += process.returncode == -signal.SIGKILL


def _fresh() -> list[Path]:
    """What lies here without a command, and temporary files of killed ones, which the next write after a minute removes."""
    return [path for path in Path().iterdir() if "out." not in path.name or path.suffix == ".featx-temporary"]


def _safe(out: Path) -> int:
    """The rows that are safe, as the journal has them."""
    from featx.streaming.partial import Partial

    found = Partial(out).found()
    return found[1].rows if found else 0


_DATA = {
    "folder": ["photos"],
    "table": ["rows.csv"],
    "archive": ["photos.zip"],
    "rows": ["rows.parquet"],
    "features": ["moved.h5"],
    "list": ["-"],
    "several": ["photos/ants", "rows.csv", "-", "photos/bees"],
    "images and features": ["photos/bees", "moved.h5", "rows.csv"],
}
_MODELS = ("models/head.safetensors", "models/promoted.safetensors", "models/knn.safetensors")


def _start(command: list[str], moment: str, times: int, delay: float) -> subprocess.Popen[bytes]:
    """Start the command so that it kills itself at a moment, or by the clock after that."""
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import fuzz_predict as f; f.victim({moment!r}, {times}, {delay})"
    with Path("list.txt").open("rb") as listed:
        return subprocess.Popen(
            [sys.executable, "-c", code, *command], stdin=listed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def victim(moment: str, times: int, delay: float) -> None:
    """In the process that is killed: do what the command does, until a moment has come so many times."""
    import threading

    from featx.cli.main import main as featx
    from featx.streaming import partial

    partial.NOTED_EVERY, partial.SAFE_EVERY = 0.02, 0.05
    place, name = {
        "predicting": (partial.Partial, "add"),
        "making safe": (partial.Partial, "make_safe"),
        "finishing": (partial.Partial, "finish"),
        "removing": (partial.Partial, "remove"),
        "beginning": (partial.Partial, "begin"),
        "interrupted": (partial.Partial, "add"),
    }[moment]
    inner, seen = getattr(place, name), [0]

    def watched(*args: Any) -> Any:
        seen[0] += 1
        if moment == "interrupted":
            time.sleep(0.1)
        elif seen[0] == (1 if moment in ("finishing", "beginning") else 2 if moment == "removing" else times):
            threading.Thread(target=_die, args=(delay,), daemon=True).start()
        return inner(*args)

    setattr(place, name, watched)
    for slow in ("fsync", "replace", "unlink", "truncate"):  # so that a kill comes between them
        setattr(os, slow, _slowed(getattr(os, slow)))
    featx(["predict", *sys.argv[1:]])


def _die(delay: float) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


def _slowed(call: Any) -> Any:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.01)
        return call(*args, **kwargs)

    return slow


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    with Path("list.txt").open("rb") as listed:
        return subprocess.run(
            [sys.executable, "-m", "featx", "predict", *command],
            stdin=listed,
            capture_output=True,
            text=True,
            check=False,
        )


def _content(path: Path) -> Any:
    return pyarrow.parquet.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()


def _make_data(folder: Path) -> None:
    """Images of two classes with copies and damaged ones, in every form, and models of them."""
    for number in range(IMAGES):
        path = folder / "photos" / ("ants", "bees")[number % 2] / f"{number:03} é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        tint = 60 if number % 2 else 190
        pixels = np.random.default_rng(number % (IMAGES - 10)).normal(tint, 30, (12, 14, 3)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / "photos" / "bees" / "damaged.png").write_bytes(path.read_bytes()[:60])
    files = sorted(path for path in (folder / "photos").rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in files]
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "id", "label", "note"])
        table.writerows([name, f"0{n}", name.split("/")[1], "=1+1\nline"] for n, name in enumerate(reversed(names)))
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for name in names:
            archive.write(folder / name, name)
    rows = {"image": [path.read_bytes() for path in files], "label": [n % 2 for n in range(len(files))], "id": names}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "rows.parquet", row_group_size=50)
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in [*names, "gone.png"]))
    featx = [sys.executable, "-m", "featx"]
    for command in (
        ["extract", "photos", "-b", "lenet5", "-o", "cache/photos.h5"],
        ["fit-head", "cache/photos.h5", "--out", "models/head.safetensors"],
        ["fit-head", "cache/photos.h5", "--model", "knn", "--out", "models/knn.safetensors"],
        ["promote", "models/head.safetensors", "--out", "models/promoted.safetensors"],
    ):
        subprocess.run([*featx, *command], check=True, capture_output=True)
    # In the cache folder are the features of half of the images, so that some are known and some are computed.
    Path("cache/photos.h5").rename("moved.h5")
    shutil.copytree("photos/ants", "half/ants")
    subprocess.run([*featx, "extract", "half", "-b", "lenet5"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
