"""Send damaged images, damaged forms and damaged requests to a running ``featx serve``, and see that it goes on.

    python tests/fuzz_serve.py 3000 0      # how many requests of each kind, and the seed

Images are those of ``tests/images``, damaged as ``tests/images/fuzz.py`` does; each must get 200, or 422 and a reason. Forms
are damaged anywhere; they must get one of 200, 400, 413, 415, 422. Requests are damaged in their head and cut off; they may get
no answer at all. Eight clients send at once, some of which break off in the middle. In the end the service must answer, hold no
bytes of requests, have all its threads, and end with status 0 after SIGTERM; it must have written nothing to stderr.

Prints how often each status came.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "images"))

from fuzz import damaged, every

import featx

CLIENTS = 8
BOUNDARY = "b"


def form(rng: random.Random, images: list[tuple[str, bytes]]) -> bytes:
    """A form with some images, in which some bytes are wrong, missing or repeated."""
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in rng.sample(images, rng.choice((0, 1, 1, 2, 5)))
        if len(data) < 50_000
    )
    body = bytearray(parts + b"--b--\r\n")
    for _ in range(rng.choice((0, 1, 2, 5, 20))):
        at = rng.randrange(min(len(body), rng.choice((100, 300, len(body)))))
        match rng.randrange(4):
            case 0:
                body[at] = rng.choice(b'\r\n\0"-:;= \xffb')
            case 1:
                del body[at : at + rng.randrange(1, 30)]
            case 2:
                body[at:at] = body[at : at + 40] * rng.randrange(3)
            case 3:
                body[at:at] = rng.choice((b"\r\n--b\r\n", b"\r\n--b--\r\n", b"\r\n\r\n", b"--", b"\r"))
        body = body or bytearray(b"-")
    return bytes(body)


def head(rng: random.Random, body: bytes) -> bytes:
    """A whole request with a damaged head, perhaps cut off."""
    lines = [
        rng.choice(
            (b"POST /predict HTTP/1.1", b"GET /predict HTTP/1.1", b"POST /predict?top=%00 HTTP/1.0", b"\x16\x03\x01")
        ),
        b"Host: " + rng.choice((b"h", b"", b"h:99999", b"\xff")),
        b"Content-Length: " + rng.choice((b"%d" % len(body), b"-1", b"9" * 30, b"0", b"1e3", b"%d" % (len(body) + 7))),
        rng.choice(
            (b"Content-Type: image/png", b"Content-Type: multipart/form-data; boundary=\xff", b"Content-Type:", b"X")
        ),
        rng.choice(
            (b"Transfer-Encoding: chunked", b"Connection: close", b"Expect: 100-continue", b"A: " + b"x" * 70_000)
        ),
    ]
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.5 else whole


def answered(port: int, body: bytes, kind: str) -> tuple[int, str]:
    """The status and the error of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", body, {"Content-Type": kind})
    answer = connection.getresponse()
    found = json.load(answer)
    connection.close()
    return answer.status, str(found.get("error", ""))


def broken(port: int, data: bytes) -> str:
    """Send bytes as they are; returns the status, or what came in its place."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(0.2)
        try:
            connection.sendall(data)
            return connection.recv(1 << 16)[:12].decode("latin-1") or "closed"
        except TimeoutError:
            return "no answer"
        except OSError:
            return "reset"


@contextlib.contextmanager
def service() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port and the process of a service of a head on the digits."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEATX_HOME"] = folder
        features = featx.extract("digits", "lenet5", cache=folder, compute="eager").load()
        model = featx.Head("logreg", C=1.0).fit(features).save(Path(folder) / "digits.safetensors")
        command = [
            sys.executable,
            "-m",
            "featx",
            "serve",
            str(model),
            "--port",
            "0",
            "--json",
            "-q",
            "--compute",
            "eager",
        ]
        options = ["--max-pixels", "1000000", "--timeout", "1", "--max-request", "1", "--max-held", "64"]
        pipe = subprocess.PIPE
        with subprocess.Popen([*command, *options], stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout
            try:
                yield int(json.loads(process.stdout.readline())["url"].rpartition(":")[2]), process
            finally:
                process.kill()


def main(count: int, seed: int) -> None:
    """Send everything, and check the end."""
    rng, images, seen = random.Random(seed), every(), Counter[str]()
    sound = next(data for name, data in images if name == "rgb.png")
    with service() as (port, process), ThreadPoolExecutor(CLIENTS) as pool:

        def image(mutation: tuple[str, bytes]) -> str:
            status, error = answered(port, mutation[1], "application/octet-stream")
            assert status == 200 or (status in (413, 422) and error), (mutation[0], status, error)
            return f"image {status}"

        def any_form(body: bytes) -> str:
            status, error = answered(port, body, f"multipart/form-data; boundary={BOUNDARY}")
            assert status == 200 or (status in (400, 413, 415, 422) and error), (status, error, body[:300])
            return f"form {status}"

        def any_head(data: bytes) -> str:
            return f"head {broken(port, data)}"

        seen.update(pool.map(image, islice(damaged(seed, images), count)))
        seen.update(pool.map(any_form, [form(rng, images) for _ in range(count)]))
        seen.update(pool.map(any_head, [head(rng, sound) for _ in range(count)]))
        assert answered(port, sound, "image/png")[0] == 200
        time.sleep(2.5)  # longer than --timeout, after which nothing is left of what broke off
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        connection.close()
        for line in ("featx_held_bytes 0.0", "featx_queued_images 0.0"):
            assert line in metrics.splitlines(), re.findall(r"featx_(?:held|queued).*", metrics)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", ""), (process.returncode, out, err[-3000:])
    for what, times in sorted(seen.items()):
        sys.stdout.write(f"{times:6} {what}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
