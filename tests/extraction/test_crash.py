"""Runs that are really killed, raced and filled, with real images where there are some."""

from __future__ import annotations

import errno
import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import featx

from featx.errors import OutputError
from featx.extraction.pipeline import extract
from featx.features import lock
from featx.features.feature_file import DONE, FeatureFile
from featx.inspection.verify import verify_file

_KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch
import featx
import featx.reporter
from featx.features.feature_file import DONE, FeatureFile

torch.set_num_threads(1)
data, weights, folder, kills, seed = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
images = featx.scan_images(data)
backbone = featx.load_backbone("mobilenet_v1_075", weights=weights, device="cpu", resize=128, crop=112)
whole = folder / "whole" / "f.h5"
first = []

class Begun(featx.reporter.Reporter):
    def progress(self, done, total, detail=""):
        if done:
            first.append(time.perf_counter())

class Beat(featx.reporter.Reporter):
    def progress(self, done, total, detail=""):
        os.write(said, b".")

started = time.perf_counter()
featx.extract(images, backbone, out=whole, reporter=Begun())
to_begin, per_image = first[0] - started, (time.perf_counter() - first[0]) / len(images)
reference, expected = whole.read_bytes(), FeatureFile(whole)
vectors = np.array(expected.features("penultimate"))
final = folder / "killed" / "f.h5"
partial = final.with_name("f.h5.partial")
rng = random.Random(seed)
seen = {"kills": 0, "completed": 0, "resumed": 0, "lost": 0, "wrong": 0, "unsound": 0, "different": 0, "progress": []}
before = set()
while seen["kills"] < kills or not seen["completed"]:
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        featx.extract(images, backbone, out=final, batch_size=4, reporter=Beat())
        os._exit(0)
    os.close(said)
    # While it begins, or in the midst of a batch: counted, so that a busy machine kills in as many places.
    if rng.random() < 0.7:
        for _ in range(rng.randint(1, 8)):
            os.read(heard, 1)
        time.sleep(rng.uniform(0, 4 * per_image))
    else:
        time.sleep(rng.uniform(0, to_begin))
    if seen["kills"] < kills:
        os.kill(child, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(heard)
    assert ended in (0, -signal.SIGKILL), ended
    seen["kills"] += ended == -signal.SIGKILL
    if final.exists():
        seen["completed"] += 1
        seen["different"] += final.read_bytes() != reference
        assert not partial.exists()
        final.unlink()
        before = set()
    elif partial.exists():
        left = FeatureFile(partial, allow_partial=True)
        done = np.flatnonzero(left.status == DONE)
        sound = left.checksums_match("penultimate", done)
        seen["unsound"] += int((~sound).sum())
        seen["wrong"] += int((left.features("penultimate")[done] != vectors[done]).any(axis=1).sum())
        seen["wrong"] += int((left.keys[done] != expected.keys[done]).any(axis=1).sum())
        seen["lost"] += len(before - set(done.tolist()))
        seen["resumed"] += bool(before)
        before = set(done.tolist())
        seen["progress"].append(len(done))
print(json.dumps(seen))
"""


_KILLED_TRAINING = """
import dataclasses, json, os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch
import featx
import featx.reporter
from featx.heads.head import Head
from featx.promotion.config import FineTuning
from safetensors.torch import load_file

torch.set_num_threads(1)
data, kills, more = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
features = featx.extract(data, featx.load_backbone("lenet5", device="cpu"), cache="cache").load()
head = Head("ridge").fit(features)
settings = FineTuning(epochs=8, lr=0.01, batch_size=8, patience=9, significance=1.0, **more)

def promote(out, settings=settings):
    return featx.promote(head, finetune=True, settings=settings, features=features, out=out)

promote("warm.safetensors", dataclasses.replace(settings, epochs=1))  # what is imported on first use is no training time
started = time.perf_counter()
whole = promote("whole.safetensors")
seconds = time.perf_counter() - started
expected = load_file("whole.safetensors")
rows = [{k: v for k, v in entry.items() if k != "seconds"} for entry in whole.log]
final, rng = Path("killed.safetensors"), random.Random(0)
seen = {"kills": 0, "completed": 0, "resumed": 0, "different": 0, "left": 0}
while seen["kills"] < kills or not seen["completed"]:
    seen["resumed"] += bool(list(Path().glob("killed*.checkpoint")))
    child = os.fork()
    if child == 0:
        result = promote(final)
        same = [{k: v for k, v in entry.items() if k != "seconds"} for entry in result.log] == rows
        os._exit(0 if same else 3)
    time.sleep(rng.uniform(0, 0.6 * seconds))
    if seen["kills"] < kills:
        os.kill(child, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen["kills"] += ended == -signal.SIGKILL
    assert ended in (0, -signal.SIGKILL), ended
    if ended == 0:
        found = load_file(final)
        seen["completed"] += 1
        seen["different"] += found.keys() != expected.keys() or any(not torch.equal(found[n], expected[n]) for n in found)
        seen["left"] += len(list(Path().glob("killed*.checkpoint")))
        final.unlink()
print(json.dumps(seen))
"""


@pytest.mark.parametrize("more", [{}, {"last": 1, "ema": 0.9, "cached_crops": 2}])
def test_training_that_is_killed_again_and_again_ends_with_the_same_weights(
    split_photos: Path, in_tmp: Path, more: dict[str, Any]
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _KILLED_TRAINING, str(split_photos), "10", json.dumps(more)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout.splitlines()[-1])
    assert (seen["different"], seen["left"]) == (0, 0)
    assert seen["kills"] == 10
    assert seen["resumed"] >= 3
    assert seen["completed"] >= 1


@pytest.mark.real
def test_a_run_that_is_killed_again_and_again_loses_nothing_and_ends_with_the_same_bytes(
    hymenoptera: Path, mobilenet_weights: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _KILLER, hymenoptera / "val", mobilenet_weights, tmp_path, "40", "7"]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert seen["kills"] >= 40
    assert seen["completed"] >= 1
    assert seen["resumed"] >= 13
    assert len(set(seen["progress"])) >= 12  # the kills came at different moments
    assert {name: seen[name] for name in ("lost", "wrong", "unsound", "different")} == dict.fromkeys(
        ("lost", "wrong", "unsound", "different"), 0
    )


FEATX = [sys.executable, "-m", "featx"]


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    command = [*FEATX, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


_RACE = """
import json, os, sys, time
import torch
import featx
import featx.reporter
from featx.errors import CacheLockedError
from featx.extraction.committer import Committer

torch.set_num_threads(1)
data, folder, wait = sys.argv[1], sys.argv[2], sys.argv[3] == "wait"
backbone = featx.load_backbone("lenet5", device="cpu")
store = Committer.store
Committer.store = lambda self, *batch: (time.sleep(0.1), store(self, *batch))[1]
pipes = []
for _ in range(8):
    out, into = os.pipe()
    if os.fork() == 0:
        holders = []
        holder = featx.reporter.Reporter()
        holder.note = holders.append
        try:
            result = featx.extract(data, backbone, cache=folder, wait=wait, reporter=holder)
            told = ["done", os.getpid(), result.computed, result.reused, holders]
        except CacheLockedError as error:
            told = ["locked", os.getpid(), str(error)]
        os.write(into, json.dumps(told).encode())
        os._exit(0)
    os.close(into)
    pipes.append(out)
print(json.dumps([json.loads(os.read(out, 65536)) for out in pipes]))
"""


def race(*arguments: object) -> list[list[Any]]:
    """What eight processes said that were started on the same extraction at once."""
    command = [sys.executable, "-c", _RACE, *map(str, arguments)]
    told: list[list[Any]] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return told


def test_of_eight_processes_one_works_and_the_others_say_who_does(split_photos: Path, tmp_path: Path) -> None:
    told = race(split_photos, tmp_path / "cache", "at once")
    (worker,) = [entry for entry in told if entry[0] == "done"]
    assert worker[2:] == [48, 0, []]
    others = [entry[2] for entry in told if entry[0] == "locked"]
    assert len(others) == 7
    since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    message = rf"split--lenet5\.h5 is being written by process {worker[1]} on \S+ {since}; --wait "
    assert all(re.search(message, other) for other in others), others
    assert verify_file(tmp_path / "cache" / "split--lenet5.h5")["ok"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["split--lenet5.h5"]


def test_eight_processes_that_wait_compute_every_image_once(split_photos: Path, tmp_path: Path) -> None:
    told = race(split_photos, tmp_path / "cache", "wait")
    assert sorted(entry[2:4] for entry in told) == [[0, 48]] * 7 + [[48, 0]]
    (worker,) = [entry[1] for entry in told if entry[2]]
    waited = [entry[4] for entry in told if not entry[2]]
    assert all(len(holders) == 1 for holders in waited), waited  # told once, whoever held it then
    assert any(f"process {worker} on " in holders[0] for holders in waited)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["split--lenet5.h5"]


def test_a_lock_whose_process_is_dead_is_taken_over(split_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".split--lenet5.h5.lock").write_text("process 1 on elsewhere since 2001-01-01 00:00:00")
    assert "48 computed" in featx("extract", split_photos, "-b", "lenet5", "--cache", tmp_path / "cache").stdout


def limited(size: int) -> Callable[[], None]:
    """No file of this process may grow beyond so many bytes: a full disk that every user can have."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_disk_without_room_for_the_whole_file_is_an_error_before_the_first_image(
    split_photos: Path, tmp_path: Path
) -> None:
    arguments = ("extract", split_photos, "-b", "lenet5", "--cache", tmp_path / "cache")
    with start(*arguments, preexec_fn=limited(10_000)) as run:
        out, err = run.communicate()
    assert (run.returncode, out) == (1, "")
    assert re.search(
        r"Error: cannot write \S+split--lenet5\.h5\.new: File too large; the file system or the limit of this process "
        r"\(ulimit -f\) allows no file of 3\d\.\d kB\n$",
        err,
    )
    assert list((tmp_path / "cache").glob("*")) == []
    assert "48 computed" in featx(*arguments).stdout


_FILLING = """
import errno, os, sys
from featx.features import writer as cache
left, pwrite = [int(sys.argv[1])], os.pwrite

def filling(handle, data, offset):
    left[0] -= len(data)
    if left[0] < 0:
        raise OSError(errno.ENOSPC, "No space left on device")
    return pwrite(handle, data, offset)

def begun(self, create=cache.FeatureFileWriter._create):
    create(self)
    cache.os.pwrite = filling

cache.FeatureFileWriter._create = begun
from featx.cli.main import main
main(sys.argv[2:])
"""


def test_a_disk_that_fills_up_in_the_middle_keeps_every_row_that_was_written(
    split_photos: Path, tmp_path: Path
) -> None:
    arguments = ["extract", str(split_photos), "-b", "lenet5", "--cache", str(tmp_path / "cache"), "--batch-size", "4"]
    row = 84 * 4 + 4 + 16 + 1
    run = subprocess.run([sys.executable, "-c", _FILLING, str(30 * row), *arguments], capture_output=True, text=True)
    assert run.returncode == 1
    assert re.search(
        r"Error: cannot write \S+h5\.partial: No space left on device; .* are free, so a quota may be used up .*\n$",
        run.stderr,
    )
    left = FeatureFile(tmp_path / "cache" / "split--lenet5.h5.partial", allow_partial=True)
    done = np.flatnonzero(left.status == DONE)
    assert len(done) == 28
    assert left.checksums_match("penultimate", done).all()
    result = json.loads(featx(*arguments, "--json").stdout)
    assert (result["computed"], result["reused"]) == (20, 28)
    whole = extract(split_photos, "lenet5", out=tmp_path / "whole.h5").file.read_bytes()
    assert (tmp_path / "cache" / "split--lenet5.h5").read_bytes() == whole


def test_a_read_only_folder_still_confirms_what_is_in_it(split_photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    extract(split_photos, "lenet5", cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "_claim", _denied)
        assert extract(split_photos, "lenet5", cache=cache).reused == 48
        (split_photos / "train" / "dark" / "00.png").unlink()
        with pytest.raises(OutputError, match=r"cannot write into \S+cache: Permission denied; name another folder"):
            extract(split_photos, "lenet5", cache=cache)


def _denied(*_: Any, **__: Any) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied")
