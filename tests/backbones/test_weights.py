"""Weight files: read without running them, loaded strictly, fetched with their hash checked."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from featx.backbones.weight_reader import read_file
from featx.backbones.weights import cached_path, fetch, load_strictly, state_digest
from featx.errors import BackboneError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, 2], dtype=torch.int64)}


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)


def small_network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


# Reading


def test_a_safetensors_file_gives_its_tensors_by_name(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert_same(read_file(tmp_path / "w.safetensors"), STATE)


@pytest.mark.parametrize("ending", ["pth", "pt", "bin"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_a_file_of_torch_gives_its_tensors_by_name(tmp_path: Path, ending: str, as_zip: bool) -> None:
    torch.save(STATE, tmp_path / f"w.{ending}", _use_new_zipfile_serialization=as_zip)
    assert_same(read_file(tmp_path / f"w.{ending}"), STATE)


class Malicious:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["pickle", "torch.save", "torch.save of old"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    file, marker = tmp_path / "w.pth", tmp_path / "ran"
    content = {**STATE, "x": Malicious(marker)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "torch.save")
    with pytest.raises(BackboneError, match=r"w\.pth cannot be read as a file of tensors only \(weights_only\): "):
        read_file(file)
    assert not marker.exists()
    torch.load(file, weights_only=False) if form != "pickle" else pickle.loads(file.read_bytes())
    assert marker.is_dir(), "the file was harmless, and this test shows nothing"


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_checkpoint_with_other_objects_names_their_classes_and_the_lines_that_save_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_zip: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run 1's.pth"
    content = {"state_dict": STATE, "teacher": STATE, "args": argparse.Namespace(lr=0.1), "path": Path("x"), "epoch": 3}
    content["arrays"] = {"w": np.ones(2, np.float32), "names": np.array(["a"])}
    torch.save(content, file, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(BackboneError) as caught:
        read_file(file)
    message = str(caught.value)
    first, *code = message.split("\n")
    assert "objects of argparse.Namespace" in first
    assert ("pathlib" in first) is as_zip  # torch's older form tells the first class only
    assert "\x1b" not in message
    assert "..." not in message
    assert len(code) == 2
    exec("\n".join(line.strip() for line in code), {})
    saved = read_file(tmp_path / "run 1's-tensors.pth")
    assert saved.keys() == {"state_dict", "teacher", "arrays"}
    assert saved["arrays"].keys() == {"w"}
    assert_same(saved["arrays"], {"w": torch.ones(2)})
    assert_same(saved["state_dict"], STATE)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickled_network_names_the_lines_that_save_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    network = small_network()
    torch.save({"model": network, "epoch": 2} if wrapped else network, tmp_path / "w.pt")
    with pytest.raises(BackboneError, match=r"objects of .*torch\.nn\.modules\.linear\.Linear") as caught:
        read_file(tmp_path / "w.pt")
    exec("\n".join(line.strip() for line in str(caught.value).split("\n")[1:]), {})
    saved = read_file(tmp_path / "w-tensors.pth")
    assert_same(saved["model"] if wrapped else saved, network.state_dict())


def test_a_file_that_calls_the_system_is_refused_without_advice_to_trust_it(tmp_path: Path) -> None:
    torch.save({**STATE, "x": Malicious(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(
        BackboneError, match=r"it calls posix\.mkdir, which no weights need, and nothing of it was run"
    ) as caught:
        read_file(tmp_path / "w.pth")
    assert "trust" not in str(caught.value)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path, as_zip: bool, share: float) -> None:
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=as_zip)
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: int(share * len(whole)) + 2])
    with pytest.raises(BackboneError, match=r"it is cut off or damaged \(.*\); copy it again"):
        read_file(tmp_path / "w.pth")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_another_program_names_the_lines_that_save_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    model = {"w": np.ones((2, 3), np.float32), "b": torch.ones(2)}
    content = {"model": model, "__author__": "someone", "args": argparse.Namespace(lr=0.1)}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(
        BackboneError, match=r"it is a pickle of .*argparse\.Namespace.* that torch\.save did not write"
    ) as caught:
        read_file(tmp_path / "w.pkl")
    first, *code = str(caught.value).split("\n")
    assert "numpy" in first
    assert len(code) == 2
    exec("\n".join(line.strip() for line in code), {})
    assert_same(read_file(tmp_path / "w-tensors.pth")["model"], {"w": torch.ones(2, 3), "b": torch.ones(2)})


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_another_program_that_calls_the_system_is_refused_without_advice_to_trust_it(
    tmp_path: Path, protocol: int
) -> None:
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"x": Malicious(tmp_path / "ran")}, protocol=protocol))
    with pytest.raises(BackboneError, match=r"it calls posix\.mkdir, which no weights need") as caught:
        read_file(tmp_path / "w.pkl")
    assert "trust" not in str(caught.value)
    whole = pickle.dumps({"w": np.ones(99)}, protocol=protocol)
    (tmp_path / "w.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        BackboneError, match=r"a pickle that torch\.save did not write, cut off or of a form of its own"
    ):
        read_file(tmp_path / "w.pkl")


def test_a_part_of_a_distributed_checkpoint_and_a_folder_of_folders_name_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / "__0_0.distcp").write_bytes(b"PK\x03\x04 parts of tensors")
    with pytest.raises(BackboneError, match=r"__0_0\.distcp .* a part of a checkpoint of .*\n.* dcp_to_torch '.*dcp'"):
        read_file(tmp_path / "dcp" / "__0_0.distcp")
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-2" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BackboneError, match=r"it is a folder\. Name one of its folders: checkpoint-2$"):
        read_file(tmp_path / "run")


def test_a_missing_file_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        BackboneError, match=r"no weights file .*none\.pth; expected a \.safetensors or \.pth file, 'default'"
    ):
        read_file(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"no tensors", r"w\.safetensors is not a safetensors file: "),
        ("w.safetensors", b"", r"w\.safetensors cannot be read as a weights file: it is empty"),
        ("w.pth", b"no tensors", r"w\.pth cannot be read as a file of tensors only"),
        ("w.pth", b"", r"w\.pth cannot be read as a weights file: it is empty"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BackboneError, match=message):
        read_file(tmp_path / name)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    torch.save(STATE, tmp_path / "w.pth")
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(BackboneError, match=r"is not a safetensors file|cannot be read as a file of tensors"):
            read_file(file)


def test_what_is_no_ordinary_file_is_said_to_be_none_and_nothing_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder.safetensors").mkdir()
    for path, why in [
        (tmp_path / "pipe.pth", "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (tmp_path / "folder.safetensors", "it is a folder"),
        (tmp_path / ("x" * 256), "File name too long"),
    ]:
        with pytest.raises(BackboneError, match=f"cannot be read as a weights file: {why}"):
            read_file(path)


def test_a_file_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    save_file(STATE, tmp_path / "w.safetensors")
    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(BackboneError, match=r"w\.safetensors cannot be read as a weights file: Permission denied"):
        read_file(tmp_path / "w.safetensors")


# Loading


def test_loading_gives_a_network_exactly_the_tensors_of_the_file() -> None:
    source, target = small_network(1), small_network(2)
    load_strictly(target, source.state_dict(), origin="w.pth")
    assert_same(target.state_dict(), source.state_dict())


def test_the_count_of_batches_may_be_missing() -> None:
    state = {n: t + 1 for n, t in small_network().state_dict().items() if not n.endswith("num_batches_tracked")}
    target = small_network()
    load_strictly(target, state, origin="w.pth")
    assert torch.equal(target[1].running_mean, torch.ones(4))


def test_what_does_not_fit_is_listed_as_missing_surplus_and_misshapen_and_nothing_is_loaded() -> None:
    network, state = small_network(), small_network(1).state_dict()
    del state["1.weight"], state["1.bias"]
    state |= {"head.weight": torch.zeros(1), "3.weight": torch.zeros(5, 4)}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    message = (
        "w.pth does not fit Sequential: 2 missing: 1.weight, 1.bias; 1 surplus: head.weight; "
        "1 misshapen: 3.weight (5, 4) instead of (2, 4)"
    )
    with pytest.raises(BackboneError, match=f"^{re.escape(message)}$"):
        load_strictly(network, state, origin="w.pth")
    assert_same(network.state_dict(), before)


def test_a_long_list_of_what_does_not_fit_is_cut() -> None:
    surplus = {f"x{number}": torch.zeros(1) for number in range(10)}
    with pytest.raises(BackboneError, match=r"10 surplus: x0, x1, x2, x3, x4, x5, x6, x7 and 2 more$"):
        load_strictly(small_network(), small_network().state_dict() | surplus, origin="w.pth")


# Fetching

CONTENT = b"the bytes of a weights file"
HASH = hashlib.sha256(CONTENT).hexdigest()[:8]
GOOD, BAD = f"net-{HASH}.pth", "net-00000000.pth"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a folder that has the same content under its right name, a wrong one and one without a hash."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    for name in (GOOD, BAD, "net.pth"):
        (tmp_path / "served" / name).write_bytes(CONTENT)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def downloads(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "torch").rglob("*") if path.is_file())


def test_a_file_is_downloaded_once_into_the_folder_of_torch_hub(server: str, tmp_path: Path) -> None:
    path = fetch(f"{server}/{GOOD}")
    assert path == cached_path(f"{server}/{GOOD}") == tmp_path / "torch" / "hub" / "checkpoints" / GOOD
    assert path.read_bytes() == CONTENT
    (tmp_path / "served" / GOOD).unlink()
    assert fetch(f"{server}/{GOOD}") == path
    assert downloads(tmp_path) == [GOOD]


def test_a_query_is_no_part_of_the_files_name(server: str) -> None:
    assert fetch(f"{server}/{GOOD}?version=2").name == GOOD


def test_a_url_without_a_hash_is_fetched_as_it_is(server: str) -> None:
    assert fetch(f"{server}/net.pth").read_bytes() == CONTENT
    assert fetch(f"{server}/net.pth").name == "net.pth"


def test_a_download_of_another_hash_is_refused_and_leaves_no_file(server: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=rf"cannot download {server}/{BAD} \(invalid hash value"):
        fetch(f"{server}/{BAD}")
    assert downloads(tmp_path) == []


def test_a_file_that_the_server_does_not_have_is_an_error(server: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"cannot download .*/none-12345678\.pth \(HTTP Error 404"):
        fetch(f"{server}/none-12345678.pth")
    assert downloads(tmp_path) == []


def test_without_a_network_the_error_names_the_url_and_where_to_put_the_file(server: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/{GOOD}"
    where = tmp_path / "torch" / "hub" / "checkpoints" / GOOD
    message = (
        f"cannot download {re.escape(url)} .* copy it to {re.escape(str(where))}, or name a local file with --weights"
    )
    with pytest.raises(BackboneError, match=message):
        fetch(url)
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_bytes(CONTENT)
    assert fetch(url) == where


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it"],
    ids=["silence", "nonsense", "half of it"],
)
def test_a_server_that_answers_badly_is_an_error_and_leaves_no_file(server: str, tmp_path: Path, answer: bytes) -> None:
    def serve_once() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_once)
        thread.start()
        with pytest.raises(BackboneError, match=r"cannot download http://127\.0\.0\.1"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/{GOOD}")
        thread.join()
    assert downloads(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_an_error(server: str, tmp_path: Path) -> None:
    (tmp_path / "torch").write_bytes(b"a file where the folder should be")
    with pytest.raises(BackboneError, match=r"cannot download .* copy it to"):
        fetch(f"{server}/{GOOD}")


def test_a_folder_where_the_download_should_be_is_an_error(server: str) -> None:
    cached_path(f"{server}/{GOOD}").mkdir(parents=True)
    with pytest.raises(
        BackboneError, match=rf"{GOOD}, where the weights of .* are stored, cannot be read: it is a folder"
    ):
        fetch(f"{server}/{GOOD}")


def test_a_file_that_was_damaged_after_its_download_is_refused(server: str) -> None:
    path = fetch(f"{server}/{GOOD}")
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(BackboneError, match=rf"{GOOD} is damaged: its SHA-256 does not begin with {HASH}. Delete it"):
        fetch(f"{server}/{GOOD}")
    path.unlink()
    assert fetch(f"{server}/{GOOD}").read_bytes() == CONTENT


# The digest


def test_the_digest_changes_with_any_single_value() -> None:
    network = small_network()
    seen = {state_digest(network)}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        with torch.no_grad():
            tensor.reshape(-1)[-1] += 1
        seen.add(state_digest(network))
    assert len(seen) == 1 + 6 + 2  # a convolution's and a linear layer's two, batch norm's four, and none of them


def test_the_digest_changes_with_a_buffer_a_dtype_and_a_name() -> None:
    def holding(name: str, tensor: Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return module

    modules = [
        holding("a", torch.zeros(4)),
        holding("b", torch.zeros(4)),
        holding("a", torch.zeros(2, 2)),
        holding("a", torch.zeros(4, dtype=torch.int32)),
        holding("a", torch.zeros(8, dtype=torch.float16)),
        holding("a", torch.zeros(())),
        holding("a", torch.zeros(0)),
    ]
    assert len({state_digest(module) for module in modules}) == len(modules)


def test_the_digest_does_not_change_with_the_count_of_batches_or_the_layout_in_memory() -> None:
    network = small_network()
    before = state_digest(network)
    network[1].num_batches_tracked += 5
    network[3].weight.data = network[3].weight.data.T.contiguous().T
    assert not network[3].weight.is_contiguous()
    assert state_digest(network) == before


def test_the_digest_is_the_same_for_two_networks_of_the_same_tensors() -> None:
    source, target = small_network(1), small_network(2)
    assert state_digest(source) != state_digest(target)
    load_strictly(target, source.state_dict(), origin="memory")
    assert state_digest(source) == state_digest(target)
