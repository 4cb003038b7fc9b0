"""What a request costs in two frameworks, without a model: 100 kB are received, and their number is answered.

    python benchmarks/serve_frameworks.py                  # 3 s for each, about a minute
    pip install litserve                                   # else it is left out

Prints one JSON line with the requests/s and milliseconds of each, at 1 and 16 clients of ``serve_client.py``, which run in this
process on the same cores. A body is the image itself, or a form (multipart/form-data); "featx" is the form that featx reads
itself, "form" the one that Starlette parses. LitServe takes forms alone, here with and without its batching.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serve_client import form, load, request

FASTAPI = """
import sys
import uvicorn
from fastapi import FastAPI, Request

app = FastAPI()

@app.post("/predict")
async def raw(request: Request):
    return {"bytes": len(await request.body())}

@app.post("/form")
async def form(request: Request):
    return {"bytes": len(await (await request.form())["files"].read())}

@app.post("/featx")
async def featx(request: Request):
    from featx.serving.body import uploads
    from featx.serving.limits import Limits
    return {"bytes": len(uploads(await request.body(), request.headers, Limits())[0].data)}

uvicorn.run(app, port=int(sys.argv[1]), http=sys.argv[2], log_level="error", access_log=False)
"""

LITSERVE = """
import sys
import litserve
from fastapi import Request

class Api(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request: Request, **_):
        return request["files"]

    def batch(self, inputs):
        return inputs

    def unbatch(self, output):
        return output

    def predict(self, x, **_):
        return [1] * len(x) if isinstance(x, list) else 1

    def encode_response(self, output, **_):
        return {"images": output}

if __name__ == "__main__":
    batching = {"max_batch_size": 16, "batch_timeout": 0.0} if sys.argv[2] == "batch" else {}
    server = litserve.LitServer(Api(**batching), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), log_level="error", generate_client_file=False)
"""


@contextmanager
def running(program: str, port: int, *arguments: str) -> Iterator[None]:
    """A server that runs, in a process group of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "server.py"
        file.write_text(program)
        command = [sys.executable, str(file), str(port), *arguments]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True, cwd=folder) as process:
            try:
                for _ in range(600):
                    try:
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=1).close()
                        break
                    except urllib.error.HTTPError:
                        break
                    except OSError:
                        time.sleep(0.1)
                time.sleep(1)
                yield
            finally:
                os.killpg(process.pid, 15)


def measure(seconds: float) -> dict[str, Any]:
    """Requests/s and milliseconds of every server."""
    data, found, port = os.urandom(100_000), dict[str, Any](), 18_800
    kind = "multipart/form-data; boundary=b"
    fastapi = {
        "raw": request(data),
        "form": request(form(data), "/form", kind),
        "featx": request(form(data), "/featx", kind),
    }
    runs: list[tuple[str, str, tuple[str, ...], dict[str, bytes]]] = [("fastapi, h11", FASTAPI, ("h11",), fastapi)]
    if importlib.util.find_spec("httptools"):
        runs.append(("fastapi, httptools", FASTAPI, ("httptools",), fastapi))
    if importlib.util.find_spec("litserve"):
        only_form = {"form": request(form(data), kind=kind)}
        runs += [
            ("litserve", LITSERVE, ("single",), only_form),
            ("litserve, batching", LITSERVE, ("batch",), only_form),
        ]
    for name, program, arguments, requests in runs:
        port += 1
        with running(program, port, *arguments):
            for body, message in requests.items():
                asyncio.run(load(port, 1, 0.5, [message]))
                for clients in (1, 16):
                    found[f"{name}, {body}, {clients}"] = asyncio.run(load(port, clients, seconds, [message]))
                    print(
                        f"{name}, {body}, {clients}: {found[f'{name}, {body}, {clients}']}", file=sys.stderr, flush=True
                    )
    return found


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    found = measure(parser.parse_args().seconds)
    names = ["fastapi", "starlette", "uvicorn", *(n for n in ("httptools", "litserve") if importlib.util.find_spec(n))]
    versions = {name: version(name) for name in names}
    print(
        json.dumps(
            {"cores": len(os.sched_getaffinity(0)), **found, "python": platform.python_version(), "versions": versions}
        )
    )


if __name__ == "__main__":
    main()
