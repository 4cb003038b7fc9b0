"""The two pages of a service: one to try it, one that shows its OpenAPI description. Both request nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


@functools.cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page(title: str, body: str, script: str = "") -> bytes:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_text("page.css")}</style></head>\n'
        f"<body>{body}{f'<script>{script}</script>' if script else ''}</body></html>\n"
    ).encode()


def try_page() -> bytes:
    """A page that sends image files to ``predict`` and shows the answers."""
    return _page("featx serve", _text("try.html"), _text("try.js"))


def docs_page(openapi: Mapping[str, Any]) -> bytes:
    """A page that shows an OpenAPI description.

    Args:
        openapi: the description, as ``FastAPI.openapi`` gives it.
    """
    parts = [
        f"<header><h1>{escape(openapi['info']['title'])} {escape(openapi['info']['version'])}</h1>"
        '<p><a href="openapi.json">openapi.json</a> · <a href="./">Try it</a></p></header><main>'
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation))
    return _page("featx serve: paths", "".join([*parts, "</main>"]))


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<section><h2><code>{method.upper()} {escape(path)}</code> {escape(operation.get('summary', ''))}</h2>"]
    if text := operation.get("description"):
        parts.append(f"<p>{escape(text)}</p>")
    parts += [
        f"<p><code>?{escape(each['name'])}=</code> {escape(each.get('description', ''))}</p>"
        for each in operation.get("parameters", ())
    ]
    if body := operation.get("requestBody"):
        parts.append(f"<h3>Body</h3>{_contents(body['content'])}")
    parts.append("<h3>Answers</h3>")
    for status, answer in sorted(operation["responses"].items()):
        parts.append(
            f"<p><b>{escape(status)}</b> {escape(answer['description'])}</p>{_contents(answer.get('content', {}))}"
        )
    return "".join([*parts, "</section>"])


def _contents(content: Mapping[str, Any]) -> str:
    return "".join(
        f"<details><summary><code>{escape(kind)}</code></summary>"
        f"<pre>{escape(json.dumps(each.get('schema', {}), indent=2))}</pre></details>"
        for kind, each in content.items()
    )


SECURITY = {
    "Content-Security-Policy": "default-src 'none'; "
    f"style-src {_hash(_text('page.css'))}; script-src {_hash(_text('try.js'))}; "
    "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The headers of both pages: they run their own script alone, and connect to this service alone."""
