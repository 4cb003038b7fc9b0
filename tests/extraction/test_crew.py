"""Several devices that compute together: the file of one device, whatever happens to their processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from extractions import MakeImage, counts, own_network
from feature_files import flip
from made import Recorder
from web_server import web_server

from featx.backbones.backbone import Backbone, load_backbone
from featx.cli.main import main
from featx.data import memory
from featx.data.scan import scan_images
from featx.data.urls import secrets
from featx.devices import pick_devices
from featx.errors import BackboneError, DatasetError, EngineError, RemoteError, StaleCacheError
from featx.extraction import computation, crew, device_process
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile

ENGINE: dict[str, Any] = {"compute": "eager", "batch_size": 2, "workers": 2}
TWO = ["cpu", "cpu"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images are worth several devices, which get few of them at a time."""
    monkeypatch.setattr(crew, "LEAST_IMAGES", 10)
    monkeypatch.setattr(crew, "_FEWEST_AHEAD", {"cpu": 8})


@pytest.fixture
def photos(tmp_path: Path, make_image: MakeImage) -> Path:
    """100 images in two classes, with copies, one that is damaged and one that is empty."""
    folder = tmp_path / "photos"
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(49):
            make_image(folder / label / f"{number:02}.png", seed=number % 45 + tint, tint=tint)
    (folder / "dark" / "damaged.png").write_bytes((folder / "dark" / "00.png").read_bytes()[:60])
    (folder / "light" / "empty.png").touch()
    return folder


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """Threads of this process do what the processes of devices do; the devices that were started."""
    started: list[torch.device] = []
    ended: list[object] = []

    def start(device: torch.device) -> crew._Member:
        ours, theirs = socket.socketpair()
        started.append(device)
        threading.Thread(target=device_process.main, args=[theirs.detach()], daemon=True).start()
        process: Any = types.SimpleNamespace(kill=lambda: None, wait=lambda: None, returncode=1)
        return crew._Member(device, process, crew.Connection(ours.detach()))

    monkeypatch.setattr(crew, "_started", start)
    monkeypatch.setattr(device_process.os, "kill", lambda *_: ended.append(1))
    monkeypatch.setattr(memory.BUDGET, "limit", memory.BUDGET.limit)
    yield started
    until = time.monotonic() + 60
    while len(ended) < len(started):  # later, each would end the process of the tests
        assert time.monotonic() < until
        time.sleep(0.01)


def children() -> list[int]:
    """The processes of devices that this process has started and that run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"device_process" in command:
            found.append(int(status.parent.name))
    return sorted(found)


def whole(photos: Any, backbone: Backbone, folder: Path, **options: Any) -> bytes:
    return extract(photos, backbone, cache=folder / "whole", **{**ENGINE, **options}).file.read_bytes()


class At(Recorder):
    """Does something once, when so many images are done."""

    def __init__(self, done: int, what: Callable[[], object]) -> None:
        super().__init__()
        self._done, self._what, self._waits = done, what, True

    def progress(self, done: int, total: int, detail: object = "") -> None:
        super().progress(done, total, detail)
        if self._waits and done >= self._done:
            self._waits = False
            self._what()


# Processes


def test_a_device_that_is_killed_is_named_and_the_file_is_that_of_one_device(
    photos: Path, lenet: Backbone, tmp_path: Path
) -> None:
    def kill_one() -> None:
        seen.extend(children())
        os.kill(seen[0], signal.SIGKILL)

    seen: list[int] = []
    reporter = At(20, kill_one)
    result = extract(photos, lenet, cache=tmp_path / "c", devices="cpu,cpu", reporter=reporter, **ENGINE)
    assert result.file.read_bytes() == whole(photos, lenet, tmp_path)
    assert len(seen) == 2
    assert children() == []
    assert (result.images, result.failed, result.engine) == (100, 2, "eager")
    assert result.computed >= 90
    (note,) = [note for note in result.notes if "cpu is out" in note]
    assert "was ended by SIGKILL, which the system sends when memory runs out" in note
    assert note in reporter.notes
    assert reporter.calls == sorted(reporter.calls)
    assert reporter.calls[-1] == (100, 100)
    assert "2 devices" in reporter.details[0]


def test_when_all_devices_are_killed_what_is_done_is_kept_and_ctrl_c_ends_them(
    photos: Path, lenet: Backbone, tmp_path: Path
) -> None:
    def kill_all() -> None:
        for child in children():
            os.kill(child, signal.SIGKILL)

    with pytest.raises(
        EngineError, match=r"no device is left: .* SIGKILL.* images are done and kept; the same command"
    ):
        extract(photos, lenet, cache=tmp_path / "c", devices=TWO, reporter=At(20, kill_all), **ENGINE)
    running: list[int] = []

    def press_ctrl_c() -> None:
        running.extend(children())
        for child in running:  # as a terminal sends it to all
            os.kill(child, signal.SIGINT)
        time.sleep(0.1)
        assert children() == running
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(photos, lenet, cache=tmp_path / "c", devices=TWO, reporter=At(40, press_ctrl_c), **ENGINE)
    assert len(running) == 2
    assert children() == []
    result = extract(photos, lenet, cache=tmp_path / "c", **ENGINE)
    assert 0 < result.computed <= 60
    assert result.file.read_bytes() == whole(photos, lenet, tmp_path)


_KILLED = """
import os, signal, sys
from featx.backbones.backbone import load_backbone
from featx.extraction import crew
from featx.extraction.pipeline import extract
from featx.reporter import Reporter

crew.LEAST_IMAGES, crew._FEWEST_AHEAD = 10, {"cpu": 8}

class Killer(Reporter):
    def progress(self, done, total, detail=""):
        if done >= 20:
            print(*(member.process.pid for member in crews[0]._members), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

crews, begin = [], crew.Crew.__enter__
crew.Crew.__enter__ = lambda self: crews.append(self) or begin(self)
extract(sys.argv[1], load_backbone("lenet5", device="cpu"), cache=sys.argv[2], devices=["cpu", "cpu"],
        compute="eager", batch_size=2, workers=2, reporter=Killer())
"""
"""No guard for __main__, which a user may not have either."""


def test_when_the_run_is_killed_its_devices_end_and_the_next_run_goes_on(
    photos: Path, lenet: Backbone, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(_KILLED)
    run = subprocess.run(
        [sys.executable, str(script), str(photos), str(tmp_path / "c")], capture_output=True, text=True, check=False
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    pids = list(map(int, run.stdout.split()))
    assert len(pids) == 2
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and _runs(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.01)
    result = extract(photos, lenet, cache=tmp_path / "c", **ENGINE)
    assert 0 < result.computed <= 80
    assert result.file.read_bytes() == whole(photos, lenet, tmp_path)


def _runs(pid: int) -> bool:
    try:
        return b"device_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


# What the processes do, in threads


@pytest.mark.parametrize("kind", ["plain", "views", "table", "shard", "float16"])
def test_the_file_is_that_of_one_device(
    kind: str, photos: Path, tmp_path: Path, lenet: Backbone, in_threads: list[torch.device]
) -> None:
    data: Any = photos
    options: dict[str, Any] = {"shard": "1/2"} if kind == "shard" else {}
    settings: dict[str, dict[str, Any]] = {
        "views": {"views": "flip", "layers": ["features.3"]},
        "float16": {"dtype": "float16"},
    }
    backbone = load_backbone("lenet5", device="cpu", **settings[kind]) if kind in settings else lenet
    if kind == "table":
        data = photos / "labels.csv"
        paths = sorted(path.relative_to(photos) for path in photos.rglob("*.png"))
        data.write_text("\n".join(["path,label,note", *(f"{path},{path.parts[0]},né" for path in paths)]) + "\n")
    result = extract(data, backbone, cache=tmp_path / "c", devices=["cpu"] * 3, **ENGINE, **options)
    assert len(in_threads) == 3
    assert result.file.read_bytes() == whole(data, backbone, tmp_path, **options)
    assert result.identity == backbone.identity


def test_nothing_to_do_and_little_to_do_start_no_process(
    photos: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, in_threads: list[torch.device]
) -> None:
    extract(photos, lenet, cache=tmp_path / "c", **ENGINE)
    assert extract(photos, lenet, cache=tmp_path / "c", devices=TWO, **ENGINE).computed == 0
    for number in range(9):
        make_image(photos / "dark" / f"new{number}.png", seed=900 + number)
    assert extract(photos, lenet, cache=tmp_path / "c", devices=TWO, **ENGINE).computed == 9
    assert in_threads == []
    extract(photos, lenet, cache=tmp_path / "d", devices=["cpu"] * 99, **ENGINE)
    assert len(in_threads) == 10


def test_images_whose_features_are_elsewhere_are_not_computed(
    photos: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], in_threads: list[torch.device]
) -> None:
    first = extract(photos, lenet, cache=tmp_path / "c", **ENGINE)
    shutil.move(photos, tmp_path / "moved")
    flip(first.file, FeatureFile(first.file).layers["penultimate"].offset + 5)
    encoded.clear()
    result = extract(tmp_path / "moved", lenet, cache=tmp_path / "c", devices=TWO, **ENGINE)
    assert len(in_threads) == 2
    assert sum(encoded) <= 4  # the damaged row, and its sample
    assert counts(result)[:2] == (100, 1)
    assert result.file.read_bytes() == whole(tmp_path / "moved", lenet, tmp_path)


def test_strict_stops_at_a_failed_image_and_keeps_what_is_done(
    photos: Path, tmp_path: Path, lenet: Backbone, in_threads: list[torch.device]
) -> None:
    with pytest.raises(DatasetError, match=r"(damaged|empty)\.png: .* --strict stops"):
        extract(photos, lenet, cache=tmp_path / "c", devices=TWO, strict=True, **ENGINE)
    result = extract(photos, lenet, cache=tmp_path / "c", **ENGINE)
    assert result.file.read_bytes() == whole(photos, lenet, tmp_path)


def test_one_device_chooses_the_engine_for_all(
    photos: Path,
    tmp_path: Path,
    lenet: Backbone,
    in_threads: list[torch.device],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, choose = [], computation.choose_engine

    def noted(name: str, *arguments: Any, **options: Any) -> Any:
        asked.append((name, options["images"], options["lanes"]))
        return choose(name, *arguments, **options)

    monkeypatch.setattr(computation, "choose_engine", noted)
    extract(photos, lenet, cache=tmp_path / "c", devices=TWO, workers=4)
    assert sorted(asked) == [("auto", 100, 4), ("eager", 100, 2)]


def test_images_of_a_server_are_read_with_what_grants_access(
    photos: Path, tmp_path: Path, lenet: Backbone, in_threads: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(device_process, "adopt_secrets", given.append)
    with web_server(photos) as site:
        table = tmp_path / "photos.csv"
        paths = sorted(path.relative_to(photos) for path in photos.rglob("*.png"))
        rows = [f"{site.url}/{path}?token=a12b,{path.parts[0]}" for path in paths]
        table.write_text("\n".join(["path,label", *rows]) + "\n")
        images = scan_images(table)
        result = extract(images, lenet, cache=tmp_path / "c", devices=TWO, **ENGINE)
        assert result.file.read_bytes() == whole(images, lenet, tmp_path)
    assert given == [secrets(), secrets()]
    assert "token=a12b" in str(given[0])


def test_a_network_that_is_another_one_each_time_is_refused(
    photos: Path, tmp_path: Path, in_threads: list[torch.device]
) -> None:
    name = own_network(tmp_path, "random_net", "mean @ torch.eye(3).to(mean) + self.first")
    code = (tmp_path / "random_net.py").read_text()
    (tmp_path / "random_net.py").write_text(
        code.replace("self.last =", "self.first = torch.nn.Parameter(torch.rand(3, generator=torch.Generator().manual_seed("
        "__import__('time').time_ns())))\n        self.last =")
    )  # fmt: skip
    backbone = load_backbone(name, device="cpu")
    with pytest.raises(StaleCacheError, match="is not the same each time it is loaded"):
        extract(photos, backbone, cache=tmp_path / "c", devices=TWO, **ENGINE)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("not even one image fits"), None),
        (RuntimeError("CUDA error: device-side assert"), None),
        (RemoteError("the server is gone"), RemoteError),
    ],
)
def test_an_error_of_one_device_leaves_the_others_at_work_if_it_is_its_own(
    error: Exception,
    expected: type[Exception] | None,
    photos: Path,
    tmp_path: Path,
    lenet: Backbone,
    in_threads: list[torch.device],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restore, calls = device_process.restore_backbone, []

    def restored(*arguments: Any, **options: Any) -> Backbone:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return restore(*arguments, **options)

    monkeypatch.setattr(device_process, "restore_backbone", restored)
    if expected:
        with pytest.raises(expected, match=str(error)):
            extract(photos, lenet, cache=tmp_path / "c", devices=TWO, **ENGINE)
        return
    result = extract(photos, lenet, cache=tmp_path / "c", devices=TWO, **ENGINE)
    assert result.file.read_bytes() == whole(photos, lenet, tmp_path)
    assert any(f"cpu is out: {error}" in note or f"RuntimeError: {error}" in note for note in result.notes)


# Names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices", "cpu,cpu", "--device", "cpu"], "device and devices both name where the network runs"),
        (["--devices", "cpu,x"], "--devices cpu,x: 'x' is no device"),
    ],
)
def test_the_command_refuses_devices_in_one_line(options: list[str], message: str, in_tmp: Path) -> None:
    result = CliRunner().invoke(main, ["extract", "digits", "-q", *options])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {message}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "gpus", "fault"),
    [
        ("all", 0, "torch finds no CUDA GPU on this machine; expected cpu, or cpu,cpu"),
        ("0,1", 0, "there is no cuda:0; torch finds no CUDA GPU"),
        ("0,4", 4, "there is no cuda:4; torch finds cuda:0 to cuda:3"),
        ("cuda:1", 1, "there is no cuda:1; torch finds cuda:0 on"),
        ("cpu,gpu", 0, "'gpu' is no device; expected all, or names such as 0,1 or cpu,cpu"),
        ("cpu,0", 1, "cpu and cuda differ in the last bits of features; expected devices of one type"),
        (",", 1, "no device is named"),
        ([], 1, "no device is named"),
    ],
)
def test_devices_that_cannot_be_had_are_refused(
    names: Any, gpus: int, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(BackboneError, match=f"--devices .*: .*{fault}"):
        pick_devices(names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("all", "cuda:0 cuda:1 cuda:2 cuda:3"),
        ("0, 2", "cuda:0 cuda:2"),
        ([0, "CUDA:3"], "cuda:0 cuda:3"),
        ("cuda:1,cuda:1", "cuda:1 cuda:1"),
        (("cpu", "cpu"), "cpu cpu"),
    ],
)
def test_devices_have_names_or_numbers(names: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert " ".join(map(str, pick_devices(names))) == expected
