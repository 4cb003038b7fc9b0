"""``featx serve``: the address on stdout, the end by a signal, and errors of one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from command_line import featx

from featx.backbones.backbone import load_backbone
from featx.extraction.pipeline import extract
from featx.heads.head import Head
from featx.serving import creation

pytest.importorskip("fastapi", reason="a service needs FastAPI")
pytest.importorskip("uvicorn", reason="a service needs uvicorn")


@pytest.fixture
def head_file(photos: Path, in_tmp: Path) -> Path:
    features = extract(photos, load_backbone("lenet5", device="cpu"), compute="eager").load()
    return Head("centroid").fit(features).save("models/photos.safetensors")


def started(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "featx",
        "serve",
        *arguments,
        "--port",
        "0",
        "--compute",
        "eager",
        "--device",
        "cpu",
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})


def test_it_prints_its_address_answers_and_ends_with_status_0_after_a_signal(head_file: Path, photos: Path) -> None:
    """The newest model, a token from the environment, a service that others reach, and the access log."""
    with started("--host", "0.0.0.0", "--access-log", "--json", "-q", FEATX_TOKEN="s3cret") as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        assert (ready["model"], ready["task"], ready["engine"]) == (
            "models/photos.safetensors",
            "classification",
            "eager",
        )
        url = ready["url"].replace("0.0.0.0", "127.0.0.1")
        image = (photos / "dark" / "00.png").read_bytes()
        call = urllib.request.Request(f"{url}/predict?top=1", image, {"Authorization": "Bearer s3cret"})
        with urllib.request.urlopen(call) as answer:
            assert json.load(answer)["predictions"][0]["label"] == "dark"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert "Warning: 0.0.0.0 is not an address of this machine alone: the token passes the network in plain text" in err
    assert "127.0.0.1 POST /predict 200 1 image " in err
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_one_line_before_the_model_is_loaded(in_tmp: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = featx("serve", "no-such-model.safetensors", "--port", port, status=1)
    assert result.stderr == (
        f"Error: cannot listen on port {port} of 127.0.0.1: Address already in use; --port names another, and --port 0 takes a "
        "free one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["missing.safetensors"], 1, "Error: "),
        ([], 1, "Error: "),
        (["x.safetensors", "--models", "m"], 2, "--models has no effect with MODEL, which is a file of any folder"),
        (["x", "--queue", "8"], 2, "--queue 8 has no room for the images of a request (--max-images 64)"),
        (["x", "--max-held", "8"], 2, "--max-held 8 has no room for one request (--max-request 64)"),
        (["x", "--token", ""], 1, "the token is empty"),
        (["x", "--port", "65536"], 2, "65536 is not in the range 0<=x<=65535"),
        (["x", "--host", "no.such.host.invalid"], 1, "expected an address of this machine, such as 127.0.0.1"),
        (["x", "-q", "-v"], 2, "--quiet and --verbose exclude one another"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_in_one_line(
    in_tmp: Path, arguments: list[str], status: int, reason: str
) -> None:
    result = featx("serve", *arguments, *([] if "--port" in arguments else ["--port", 0]), status=status)
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_missing_package_is_one_line(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None

    monkeypatch.setattr(creation.importlib.util, "find_spec", find)
    assert featx("serve", "x", status=1).stderr == "Error: a service needs fastapi: pip install 'featx[serve]'\n"
