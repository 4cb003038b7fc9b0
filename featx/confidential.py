"""What grants access in URLs, and how it is kept out of whatever is printed. Standard library only."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

_SECRET = re.compile(
    r"x-(amz|goog|ms|oss|cos|obs)-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|sig|key-pair-id|policy|"
    r".*token|auth|authorization|api[-_]?key|access[-_]?key|password|passwd|secret|jwt",
    re.IGNORECASE,
)
"""The names of parameters that grant access, or belong to what does."""

_BESIDE_A_SIGNATURE = {
    *("expires", "expiry", "exp", "se", "sp", "sv", "sr", "st", "ss", "srt", "spr", "sip", "sdd"),
    *("skoid", "sktid", "skt", "ske", "sks", "skv", "hash", "hmac", "hdnts"),
}
"""The names of parameters that count for nothing else where there is a signature."""


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL of any kind, ``file://`` too.

    Examples:
        >>> is_url("https://server/a.jpg"), is_url("C:/photos"), is_url("photos")
        (True, False, False)
    """
    text = os.fspath(location)
    return isinstance(text, str) and bool(_URL.match(text))


def is_http(location: str) -> bool:
    """Whether a URL is one of a web server."""
    return location.lower().startswith(("http://", "https://"))


def parted(url: str) -> tuple[str, str, str]:
    """A URL without secrets, the same with its secret parameters, and the user and password that it begins with."""
    if not is_url(url):
        return url, url, ""
    scheme, rest = url.split("://", 1)
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(host) :]
    user, _, server = host.rpartition("@")
    if user and ":" not in user and not is_http(url):  # abfs://container@account
        user, server = "", host
    whole = f"{scheme.lower()}://{server.lower() if is_http(url) else server}{path}"
    return _without_secrets(whole), whole, user


def _without_secrets(url: str) -> str:
    """The URL without the parameters that grant access; byte for byte the same where it has none, as in object stores."""
    base, mark, rest = url.partition("?")
    if not mark or not is_http(url):
        return url
    query, hash_mark, fragment = rest.partition("#")
    names = [name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)]
    if not any(_SECRET.fullmatch(name) for name in names):
        return url
    kept = [
        part
        for part in query.split("&")
        if not _SECRET.fullmatch(name := part.partition("=")[0]) and name.lower() not in _BESIDE_A_SIGNATURE
    ]
    return f"{base}{'?' if kept else ''}{'&'.join(kept)}{hash_mark}{fragment}"


_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>\\)]+")


_USER = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]+:/{1,3})[^\s/@'\"<>\\]*:[^\s/@'\"<>\\]*@")
"""The user and the password of a URL, also of one that was taken for a path and lost a slash by that."""

_PARAMETER = re.compile(r"[?&]([\w%.-]+)=[^\s&'\"<>#]*")
"""A parameter of a URL, also of one with spaces in it."""


def without_secrets(text: str) -> str:
    """A message, such as another library's, without what grants access in the URLs in it.

    Examples:
        >>> without_secrets("403, url='https://server/a.jpg?sig=12ab'")
        "403, url='https://server/a.jpg'"
    """
    if ":/" not in text:
        return text
    bare = _USER.sub(r"\1", _IN_TEXT.sub(lambda match: parted(match[0])[0], text))
    return _PARAMETER.sub(lambda match: "" if _SECRET.fullmatch(match[1].lower()) else match[0], bare)


def without_secrets_in(value: Any) -> Any:
    """An object as JSON has it, in which the URLs lack what grants access; all other text stays as it is.

    Examples:
        >>> without_secrets_in({"notes": ["read https://ann:pass@server/a.jpg"], "path": "a?token=1.jpg"})
        {'notes': ['read https://server/a.jpg'], 'path': 'a?token=1.jpg'}
    """
    if isinstance(value, str):
        return _IN_TEXT.sub(lambda match: parted(match[0])[0], value) if "://" in value else value
    if isinstance(value, dict):
        return {key: without_secrets_in(each) for key, each in value.items()}
    return [without_secrets_in(each) for each in value] if isinstance(value, list | tuple) else value
