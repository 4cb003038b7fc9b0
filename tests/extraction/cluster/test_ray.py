"""Extraction on a cluster of Ray: the same file as in one process, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from extractions import MakeImage, counts, interrupt

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import DatasetError, EngineError, FeatxError, StaleCacheError
from featx.extraction.cluster import connection
from featx.extraction.cluster.settings import RaySettings
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FeatureFile
from featx.reporter import Reporter

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'featx[ray]'")
pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'featx[ray]'")

ON_CPU: dict[str, Any] = {"compute": "eager", "batch_size": 2, "ray": "auto", "ray_gpus": 0, "ray_actors": 2}
ON_GPU: dict[str, Any] = {"compute": "eager", "batch_size": 2, "ray": "auto", "ray_gpus": 1, "ray_actors": 1}
ALONE: dict[str, Any] = {"compute": "eager", "batch_size": 2}

NODE: dict[str, Any] = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two machines with two cores and, as Ray is told, one GPU each; this process is the driver."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "DRIVER_OF_THE_TESTS": str(os.getpid())}
    for attempt in range(3):
        try:
            found = Cluster(initialize_head=True, head_node_args=NODE)
            found.second = found.add_node(**NODE)
            break
        except (
            Exception
        ) as error:  # on a machine that is very busy, Ray's processes do not start in the time that it gives them
            if attempt == 2 or "timed out" not in str(error):
                raise
    ray.init(found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


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
            (HERE / "workers" / str(os.getpid())).touch()

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


class _Once(Reporter):
    """Does something as soon as images have arrived from the cluster."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def progress(self, done: int, total: int, detail: str = "") -> None:
        if done and self._act:
            act, self._act = self._act, None
            act()


def test_the_file_is_that_of_one_process_byte_for_byte(cluster: Any, photos: Path, tmp_path: Path) -> None:
    lenet = load_backbone("lenet5", layers="features.3", views="flip", device="cpu")
    alone = extract(photos, lenet, cache=tmp_path / "alone", **ALONE)
    result = extract(photos, lenet, cache=tmp_path / "ray", **ON_CPU)
    assert result.file.read_bytes() == alone.file.read_bytes()
    assert result.failures == alone.failures
    assert len(result.failures) == 2
    assert counts(result) == (64, 62, 0, 2, 0)  # copies are computed, too: no process sees all images
    assert result.engine == "eager"
    assert result.as_dict()["stages"].keys() == {"decode", "encode", "write"}
    assert any(note.startswith("Ray: 2 machines; images per second") for note in result.notes)
    again = extract(photos, lenet, cache=tmp_path / "ray", **ON_CPU)
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


def test_an_actor_that_is_killed_loses_nothing(
    cluster: Any, photos: Path, tmp_path: Path, network: Callable[..., Backbone]
) -> None:
    net, killed = network(), []

    def kill() -> None:
        worker = next((tmp_path / "workers").iterdir())
        os.kill(int(worker.name), signal.SIGKILL)
        killed.append(worker)

    alone = extract(photos, net, cache=tmp_path / "alone", **ALONE)
    result = extract(photos, net, cache=tmp_path / "ray", reporter=_Once(kill), **ON_CPU)
    assert killed
    assert result.file.read_bytes() == alone.file.read_bytes()
    assert len(list((tmp_path / "workers").iterdir())) > 2  # one was started again


def test_a_machine_that_is_lost_loses_nothing(
    cluster: Any, photos: Path, tmp_path: Path, network: Callable[..., Backbone]
) -> None:
    net, removed = network(), []

    def remove() -> None:
        cluster.remove_node(cluster.second, allow_graceful=False)
        removed.append(cluster.second)

    alone = extract(photos, net, cache=tmp_path / "alone", **ALONE)
    try:
        result = extract(photos, net, cache=tmp_path / "ray", reporter=_Once(remove), **{**ON_CPU, "ray_actors": 3})
    finally:
        if removed:
            cluster.second = cluster.add_node(**NODE)
    assert removed
    assert result.file.read_bytes() == alone.file.read_bytes()


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
    deadline = time.monotonic() + 120
    while (kept := _done(tmp_path / "ray")) < 4:
        assert driver.poll() is None, driver.stderr.read() if driver.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.kill()
    driver.communicate()
    kept = _done(tmp_path / "ray")
    assert 4 <= kept < 62
    result = extract(photos, net, cache=tmp_path / "ray", **ON_CPU)
    assert kept <= result.reused < 62  # copies of an image that is done are done, too
    assert result.file.read_bytes() == alone.file.read_bytes()


def _done(cache: Path) -> int:
    """Images of the unfinished file that have features."""
    try:
        return int((FeatureFile(next(cache.glob("*.partial")), allow_partial=True).status == DONE).sum())
    except (StopIteration, FeatxError, OSError):
        return 0


def test_ctrl_c_leaves_the_cluster_as_it_was(
    cluster: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet = load_backbone("lenet5", device="cpu")
    with monkeypatch.context() as patched:
        interrupt(patched, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(photos, lenet, cache=tmp_path / "ray", **ON_CPU)
    assert ray.is_initialized()
    result = extract(photos, lenet, cache=tmp_path / "ray", **ALONE)
    assert result.reused >= 4
    assert result.computed + result.reused == 62


def test_other_weights_on_a_worker_are_refused_before_the_first_batch(
    cluster: Any, photos: Path, tmp_path: Path, network: Callable[..., Backbone]
) -> None:
    with pytest.raises(
        StaleCacheError, match=r"the machine .*gives other features here than the stored ones.*weights_sha256"
    ):
        extract(photos, network(other=True), cache=tmp_path / "ray", **ON_CPU)
    assert _done(tmp_path / "ray") == 0


def test_a_gpu_that_torch_does_not_see_is_refused(cluster: Any, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatxError, match="torch finds no CUDA GPU, although Ray has given one"):
        extract(photos, "lenet5", cache=tmp_path / "ray", **ON_GPU)


def test_machines_are_asked_before_anything_runs(
    cluster: Any, tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = make_image(tmp_path / "a.png", seed=0).stat().st_size
    connection.require_alike(str(tmp_path), ((b"a.png", size),))
    with pytest.raises(
        DatasetError, match=r"the machine \S+ does not see .*b\.png; all machines of the cluster must see"
    ):
        connection.require_alike(str(tmp_path), ((b"a.png", size), (b"b.png", 7)))
    with pytest.raises(DatasetError, match=rf"finds {size:,} bytes instead of 7 at .*a\.png"):
        connection.require_alike(str(tmp_path), ((b"a.png", 7),))
    with pytest.raises(DatasetError, match=r"does not see .*gone\.tar; all machines"):
        connection.require_alike(str(tmp_path / "gone.tar"), ())
    monkeypatch.setattr(connection, "__version__", "0.0.1")
    with pytest.raises(EngineError, match=r"has featx .*, and this one 0\.0\.1; install the same version on all"):
        connection.require_alike(str(tmp_path), ())


def test_a_machine_without_featx_says_so() -> None:
    from ray import cloudpickle

    from featx.extraction.cluster.workers import look_around

    folders = [str(Path(__file__).parent / "without_featx"), str(Path(ray.__file__).parents[1])]
    sent = cloudpickle.dumps(look_around())
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)('1.0', '/', (), None))"
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
def test_a_cluster_that_lacks_what_is_asked_for_is_refused(cluster: Any, settings: RaySettings, message: str) -> None:
    with pytest.raises(EngineError, match=message), connection.connected(settings):
        pass


def test_an_address_where_no_cluster_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(EngineError, match=rf"no cluster of Ray answers at 127\.0\.0\.1:{port}: .*refused; ray start"):
        connection._require_answer(f"127.0.0.1:{port}")
    monkeypatch.setattr(connection, "_CONNECT", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(EngineError, match=rf"no cluster of Ray answers at 127\.0\.0\.1:{port} within 3 s"):
            connection._require_answer(f"127.0.0.1:{port}")
