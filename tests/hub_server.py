"""A small stand-in for the Hugging Face Hub: the answers that ``datasets`` needs, from a folder of files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """What the server offers.

    Attributes:
        repos: the files of each data set, by their paths; each has the commit ``commit``.
        gated: the data sets that need a login.
        requests: the paths that were asked for.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Mapping[str, bytes]] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.url = ""

    def commit(self, repo: str) -> str:
        digest = hashlib.sha1(repo.encode())
        for path, data in sorted(self.repos[repo].items()):
            digest.update(path.encode() + data)
        return digest.hexdigest()

    def entries(self, repo: str) -> list[dict[str, Any]]:
        files = self.repos[repo]
        folders = {path[:at] for path in files for at, letter in enumerate(path) if letter == "/"}
        return [
            *({"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in sorted(folders)),
            *(
                {"type": "file", "path": p, "oid": hashlib.sha1(d).hexdigest(), "size": len(d)}
                for p, d in files.items()
            ),
        ]


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does; ``hub`` is set by ``serving``."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.split("/")
        repo = next((name for name in (*self.hub.repos, *self.hub.gated) if f"/{name}/" in f"/{path}/"), "")
        if not repo:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repo in self.hub.gated:
            self.answer(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif parts[0] == "api":
            self.api(repo, path.partition(f"datasets/{repo}")[2].strip("/"))
        else:
            self.file(repo, path.partition(f"datasets/{repo}/resolve/")[2])

    def api(self, repo: str, rest: str) -> None:
        kind, _, revision = rest.partition("/")
        if kind in ("revision", "tree", "paths-info") and not self.knows(repo, revision.partition("/")[0]):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif kind in ("tree", "paths-info"):
            below = revision.partition("/")[2]
            found = [e for e in self.hub.entries(repo) if not below or e["path"].startswith(f"{below}/")]
            self.answer(200, json.dumps(found).encode())
        elif kind in ("", "revision"):
            siblings = [{"rfilename": path} for path in self.hub.repos[repo]]
            about = {"id": repo, "sha": self.hub.commit(repo), "siblings": siblings, "private": False, "tags": []}
            self.answer(200, json.dumps(about).encode())
        else:
            self.answer(404, b"{}")

    def file(self, repo: str, rest: str) -> None:
        revision, _, name = rest.partition("/")
        data = self.hub.repos[repo].get(name)
        about = {"X-Repo-Commit": self.hub.commit(repo)}
        if not self.knows(repo, revision):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif data is None:
            self.answer(404, b"", {**about, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        else:
            self.answer(200, data, {**about, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def knows(self, repo: str, revision: str) -> bool:
        return revision in ("main", self.hub.commit(repo))

    def answer(self, status: int, data: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on this machine while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
