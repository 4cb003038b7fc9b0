"""Extraction on a cluster of Ray: the same file as in one process, whatever is lost on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from extractions import MakeImage, counts, interrupt
from ray_cluster import two_machines, within

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.file_bytes import FileFacts
from featx.errors import DatasetError, EngineError, FeatxError, StaleCacheError
from featx.extraction.cluster import connection, workers
from featx.extraction.cluster.computation import RayComputation
from featx.extraction.cluster.settings import RaySettings
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FeatureFile
from featx.features.file_marks import FileMarks
from featx.reporter import Reporter

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'featx[ray]'")
pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'featx[ray]'")

ON_CPU: dict[str, Any] = {"compute": "eager", "batch_size": 2, "ray": "auto", "ray_gpus": 0, "ray_actors": 2}
ONE_ON_CPU: dict[str, Any] = {**ON_CPU, "ray_actors": 1}
ON_GPU: dict[str, Any] = {"compute": "eager", "batch_size": 2, "ray": "auto", "ray_gpus": 1, "ray_actors": 1}
ALONE: dict[str, Any] = {"compute": "eager", "batch_size": 2}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two machines with two cores and, as Ray is told, one GPU each; this process is the driver."""
    os.environ["DRIVER_OF_THE_TESTS"] = str(os.getpid())
    with two_machines(tmp_path_factory.getbasetemp().parent / "ray.lock") as found:
        yield found


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """A test that hangs fails; on an idle machine none takes 20 s."""
    with within(240):
        yield


@pytest.fixture
def photos(tmp_path: Path, make_image: MakeImage) -> Path:
    """64 images, with copies, one that is damaged and one that is empty."""
    folder = tmp_path / "photos"
    for number in range(62):
        make_image(folder / "ab"[number % 2] / f"{number:02}é.png", seed=number % 60)
    (folder / "a" / "damaged.png").write_bytes((folder / "a" / "00é.png").read_bytes()[:60])
    (folder / "b" / "empty.png").touch()
    return folder


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Backbone]:
    """A network of a file, which on workers is slow and writes down its process; ``other``: it has other weights there."""
    code = """
import os, time, pathlib, torch
from featx import Transform

WORKER = os.environ.get("DRIVER_OF_THE_TESTS") != str(os.getpid())
HERE = pathlib.Path(__file__).parent

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        torch.manual_seed(WORKER and (HERE / "other").exists())
        self.first, self.last = torch.nn.Linear(192, 5), torch.nn.Linear(5, 2)
        if WORKER:
            (HERE / "workers").mkdir(exist_ok=True)
            (HERE / "workers" / str(os.getpid())).write_text(str(os.getppid()))

    def get_classifier(self):
        return self.last

    def forward(self, images):
        if WORKER:
            time.sleep(0.05)
        return self.last(self.first(images.flatten(1)))
"""

    def load(*, other: bool = False) -> Backbone:
        (tmp_path / "net.py").write_text(code)
        if other:
            (tmp_path / "other").touch()
        return load_backbone(f"{tmp_path / 'net.py'}:Net", device="cpu")

    return load


class _At(Reporter):
    """Does something once, as soon as so many images have arrived from the cluster."""

    def __init__(self, acts: dict[int, Callable[[], None]]) -> None:
        self._acts = acts

    def progress(self, done: int, total: int, detail: str = "") -> None:
        for number in [number for number in self._acts if number <= done]:
            self._acts.pop(number)()


def _files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*")) if cache.exists() else []


def test_a_run_goes_on_after_ctrl_c_and_makes_the_file_of_one_process_byte_for_byte(
    cluster: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet = load_backbone("lenet5", layers="features.3", views="flip", device="cpu")
    alone = extract(photos, lenet, cache=tmp_path / "alone", **ALONE)
    with monkeypatch.context() as patched:
        interrupt(patched, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(photos, lenet, cache=tmp_path / "ray", **ONE_ON_CPU)
    assert ray.is_initialized()  # the connection of this process, which was not made for the run
    result = extract(photos, lenet, cache=tmp_path / "ray", **ONE_ON_CPU)
    assert result.file.read_bytes() == alone.file.read_bytes()
    assert result.failures == alone.failures
    assert len(result.failures) == 2
    assert result.reused >= 2
    assert result.computed + result.reused == 62  # copies are computed, too: no process sees all images
    assert result.engine == "eager"
    assert result.as_dict()["stages"].keys() == {"decode", "encode", "write"}
    assert any(note.startswith("Ray: 2 machines; images per second") for note in result.notes)
    again = extract(photos, lenet, cache=tmp_path / "ray", **ONE_ON_CPU)
    assert counts(again) == (64, 0, 62, 2, 0)


def test_decoding_is_a_stage_of_its_own_beside_gpus_and_known_images_are_not_computed(
    cluster: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.Cluster, "device", "cpu")  # Ray hands out GPUs that are not there
    lenet = load_backbone("lenet5", device="cpu")
    for folder in ("alone", "ray"):
        (photos / "b").rename(tmp_path / "b")
        extract(photos, lenet, cache=tmp_path / folder, out=tmp_path / folder / "a.h5", **ALONE)
        (tmp_path / "b").rename(photos / "b")
    (photos / "b" / "copy.png").write_bytes((photos / "a" / "00é.png").read_bytes())
    alone = extract(photos, lenet, cache=tmp_path / "alone", **ALONE)
    result = extract(photos, lenet, cache=tmp_path / "ray", **ON_GPU)
    assert result.file.read_bytes() == alone.file.read_bytes()
    assert (result.computed, result.reused, result.failed) == (31, 32, 2)


def test_a_driver_that_is_killed_loses_only_what_was_in_flight(
    cluster: Any, photos: Path, tmp_path: Path, network: Callable[..., Backbone]
) -> None:
    net = network()
    alone = extract(photos, net, cache=tmp_path / "alone", **ALONE)
    options = ["--compute", "eager", "--batch-size", "2", "--ray-gpus", "0", "--ray-actors", "1"]
    command = ["extract", str(photos), "--backbone", net.name, "--cache", str(tmp_path / "ray"), *options]
    driver = subprocess.Popen(
        [sys.executable, "-m", "featx", *command, "--ray", cluster.address], stderr=subprocess.PIPE, text=True
    )
    with driver:
        try:
            deadline = time.monotonic() + 180
            while (kept := _done(tmp_path / "ray")) < 4:
                assert driver.poll() is None, driver.stderr.read() if driver.stderr else ""
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            driver.kill()
    kept = _done(tmp_path / "ray")
    assert 4 <= kept < 62
    result = extract(photos, net, cache=tmp_path / "ray", **ALONE)
    assert kept <= result.reused < 62  # copies of an image that is done are done, too
    assert result.file.read_bytes() == alone.file.read_bytes()


def _done(cache: Path) -> int:
    """Images of the unfinished file that have features."""
    try:
        return int((FeatureFile(next(cache.glob("*.partial")), allow_partial=True).status == DONE).sum())
    except (StopIteration, FeatxError, OSError):
        return 0


def test_other_weights_on_a_machine_are_refused_before_anything_is_written(
    cluster: Any, photos: Path, tmp_path: Path, network: Callable[..., Backbone]
) -> None:
    with pytest.raises(
        StaleCacheError,
        match=r"the machine .*cannot take part: .*gives other features here than the stored ones.*"
        r"weights_sha256: [0-9a-f]+ against [0-9a-f]+",
    ):
        extract(photos, network(other=True), cache=tmp_path / "ray", **ON_CPU)
    assert _files(tmp_path / "ray") == []


def test_a_gpu_that_torch_does_not_see_is_refused(cluster: Any, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatxError, match="torch finds no CUDA GPU, although Ray has given one"):
        extract(photos, "lenet5", cache=tmp_path / "ray", **ON_GPU)


def test_machines_are_asked_before_anything_runs(
    cluster: Any, tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = make_image(tmp_path / "a.png", seed=0).stat().st_size
    lenet = load_backbone("lenet5", device="cpu")
    described = {"name": lenet.name, "weights": lenet.weights, "parts": lenet.describe()}
    network = {"described": described, "identities": lenet.identities, "name": "lenet5", "folder": str(tmp_path)}

    def ask(location: Path, *samples: tuple[bytes, int | None]) -> None:
        connection.Connection(RaySettings("auto")).require_alike(network, str(location), samples)

    ask(tmp_path, (b"a.png", size), (b"a.png", None))
    with pytest.raises(
        DatasetError, match=r"the machine \S+ does not see .*b\.png; all machines of the cluster must see"
    ):
        ask(tmp_path, (b"a.png", size), (b"b.png", None))
    with pytest.raises(DatasetError, match=rf"finds {size:,} bytes instead of 7 at .*a\.png"):
        ask(tmp_path, (b"a.png", 7))
    with pytest.raises(DatasetError, match=r"does not see .*gone\.tar; all machines"):
        ask(tmp_path / "gone.tar")
    ours = workers.versions()
    for what in ours:
        monkeypatch.setattr(workers, "versions", lambda what=what: {**ours, what: "0.0.1"})
        with pytest.raises(
            EngineError, match=rf"has {what} \S.*, and this one 0\.0\.1; install the same version on all"
        ):
            ask(tmp_path)


def test_a_process_that_is_killed_and_a_machine_that_is_lost_lose_nothing(
    cluster: Any, photos: Path, tmp_path: Path, network: Callable[..., Backbone]
) -> None:
    """The last test of the cluster, which has one machine afterwards."""
    net, killed, removed = network(), [], []

    def kill() -> None:
        for worker in (tmp_path / "workers").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                if Path(f"/proc/{worker.name}/cmdline").read_bytes().startswith(b"ray::MapWorker"):
                    os.kill(int(worker.name), signal.SIGKILL)
                    killed.append(worker)
                    return

    def remove() -> None:
        parents = {worker.read_text() for worker in (tmp_path / "workers").iterdir()}
        assert str(cluster.second.all_processes["raylet"][0].process.pid) in parents
        cluster.remove_node(cluster.second, allow_graceful=False)
        removed.append(cluster.second)

    alone = extract(photos, net, cache=tmp_path / "alone", **ALONE)
    reporter = _At({1: kill, 12: remove})
    result = extract(photos, net, cache=tmp_path / "ray", reporter=reporter, **ON_CPU)
    assert killed
    assert removed
    assert result.file.read_bytes() == alone.file.read_bytes()
    assert "Ray: 1 machine left the cluster, and others did the work again" in result.notes


def test_a_machine_without_featx_says_so() -> None:
    from ray import cloudpickle

    from featx.extraction.cluster.workers import look_around

    folders = [str(Path(__file__).parent / "without_featx"), str(Path(ray.__file__).parents[1])]
    sent = cloudpickle.dumps(look_around())
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(dict(featx='1.0'), {}, '/', (), None))"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        input=sent,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        check=False,
    )
    assert b"cannot import what it needs (No module named featx); install featx[ray] on all machines" in ran.stdout, ran


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            RaySettings("auto", gpus=1, actors=3),
            "3 processes with 1 GPU each, and the cluster has 2 machines with 4 CPUs and 2 GPUs",
        ),
        (
            RaySettings("auto", gpus=4),
            "1 process with 4 GPU each, and the cluster has .* expected --ray-actors and --ray-gpus",
        ),
        (RaySettings("auto", gpus=0, actors=5), "in 5 processes, on a core each, .* expected a smaller --ray-actors"),
    ],
)
def test_a_cluster_that_lacks_what_is_asked_for_is_refused(settings: RaySettings, message: str) -> None:
    nodes = [{"Resources": {"CPU": 2.0, "GPU": 1.0}}] * 2
    with pytest.raises(EngineError, match=message):
        connection._sized(settings, nodes)


def test_the_size_of_an_image_that_no_server_was_asked_for_is_not_compared() -> None:
    unasked, facts = FileFacts.unasked(2), FileFacts.of_rows(np.array([[7, 1, 1, 1], [-1, -1, -1, -1]]))
    for found, size in ((unasked, None), (facts, 7)):
        images = SimpleNamespace(paths=np.array(["a", "b"], dtype=object))
        marks = FileMarks(found.ctimes, found.inodes)
        plan = SimpleNamespace(inventory=SimpleNamespace(sizes=found.sizes, marks=marks, images=images))
        samples = RayComputation(plan, None, None, None)._samples(np.array([0, 1]))
        assert samples[0] == (b"a", size)
        assert len(samples) == (1 if size else 2)


def test_an_address_where_no_cluster_answers_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_is_connected", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(EngineError, match=rf"no cluster of Ray answers at {address}: .*refused; ray start"):
        extract(photos, "lenet5", cache=tmp_path / "cache", ray=address)
    assert _files(tmp_path / "cache") == []
    monkeypatch.setattr(connection, "_CONNECT", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match=rf"no cluster of Ray answers at {address} within 3 s"):
            connection._require_answer(address)


def test_a_cluster_of_another_version_of_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = "Version mismatch: The cluster was started with:\\n    Ray: 2.1\\nThis process was started with:\\n    Ray: 2.60"
    monkeypatch.setattr(
        connection,
        "_PROBE",
        connection._PROBE.replace(
            "import sys, ray",
            f"""import sys
class ray:
    def init(*_, **__):
        raise RuntimeError("{error}")""",
        ),
    )
    with pytest.raises(EngineError, match=r"cannot connect to Ray at this machine: Version mismatch: .*Ray: 2\.1 This"):
        connection._require_answer("auto")
