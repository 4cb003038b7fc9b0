"""URLs as locations of images: what of them is secret, how names become parts of them, and how messages show them.

Standard library only. A secret in a URL (``user:password@``, the signature of a presigned link, a token) is kept in the
memory of this process alone: ``public`` takes it out of whatever is stored or shown, and ``private`` puts it back where a file
is opened.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from featx.confidential import is_http as is_http
from featx.confidential import is_url as is_url
from featx.confidential import parted
from featx.confidential import without_secrets as without_secrets

_LEGAL = "%/:?#[]@!$&'()*+,;=~-._"
"""Characters that a URL keeps as they are: those that may stand in one, and % before two digits."""

_secret_queries: dict[str, str] = {}
_secret_users: dict[tuple[str, str], str] = {}
_secret_folders: dict[str, str] = {}
"""The queries of folders, which hold for all that is in them."""


@dataclass(frozen=True)
class Url:
    """The URL of a folder, with what ``featx.data.layout`` needs of a path.

    Examples:
        >>> folder = Url("s3://bucket/photos")
        >>> folder.name, str(folder / "cats")
        ('photos', 's3://bucket/photos/cats')
    """

    location: str

    @property
    def name(self) -> str:
        """The last part: the name of the folder, or of the server or bucket."""
        parts = urlsplit(self.location)
        return name_of(self.location) or parts.netloc

    def __truediv__(self, path: str) -> Url:
        return Url(f"{self.location.rstrip('/')}/{path}" if path else self.location)

    def __str__(self) -> str:
        return self.location


def public(url: str) -> str:
    """The URL without what grants access: what is stored, compared and shown. ``private`` gives the whole URL again.

    Two presigned links to one object, signed at different times, have one public URL. Text that is no URL stays as it is.

    Examples:
        >>> public("https://ann:pass@server/a.jpg?X-Amz-Signature=12ab&X-Amz-Date=1&v=2")
        'https://server/a.jpg?v=2'
        >>> private("https://server/a.jpg?v=2")
        'https://ann:pass@server/a.jpg?X-Amz-Signature=12ab&X-Amz-Date=1&v=2'
    """
    bare, whole, user = parted(url)
    if user:
        scheme, rest = bare.split("://", 1)
        _secret_users[scheme, _host(rest)] = user
    if bare != whole:
        _secret_queries[bare] = whole
    return bare


def private(url: str) -> str:
    """The URL with what grants access to it, if this process was given that."""
    whole = _secret_queries.get(url) or _as_in_folder(url)
    if not is_url(whole):
        return whole
    scheme, rest = whole.split("://", 1)
    user = _secret_users.get((scheme.lower(), _host(rest)))
    return f"{scheme}://{user}@{rest}" if user else whole


def secrets() -> tuple[dict[str, str], dict[tuple[str, str], str], dict[str, str]]:
    """What this process was given that grants access to URLs, for ``adopt_secrets`` in a process that it starts."""
    return dict(_secret_queries), dict(_secret_users), dict(_secret_folders)


def adopt_secrets(given: tuple[dict[str, str], dict[tuple[str, str], str], dict[str, str]]) -> None:
    """Take over what another process was given, as ``secrets`` returns it."""
    for own, theirs in zip((_secret_queries, _secret_users, _secret_folders), given, strict=True):
        own.update(theirs)  # type: ignore[attr-defined]


def _as_in_folder(url: str) -> str:
    """The URL with the query of the folder that it is in, if there is one that grants access."""
    base = url.partition("?")[0]
    return next((f"{base}?{query}" for folder, query in _secret_folders.items() if base.startswith(f"{folder}/")), url)


def as_stored(location: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """What a user names as it may be stored and shown: a URL is made legal and public, anything else stays as it is.

    Examples:
        >>> as_stored("https://ann:pass@server/my photos.zip?sig=12ab"), as_stored("photos")
        ('https://server/my%20photos.zip', 'photos')
    """
    if not isinstance(location, str) or not is_url(location):
        return location
    return public(_legal_pattern(location) if is_http(location) else location)


def signed_alike(urls: Iterable[str], pattern: str) -> list[str]:
    """The public URLs that a public pattern stands for; what granted access to the pattern grants it to them.

    Examples:
        >>> signed_alike(["https://shards/0.tar", "https://shards/1.tar"], public("https://shards/{0..1}.tar?sig=12ab"))
        ['https://shards/0.tar', 'https://shards/1.tar']
        >>> private("https://shards/1.tar")
        'https://shards/1.tar?sig=12ab'
    """
    found = list(urls)
    if (whole := _secret_queries.get(pattern)) is not None:
        query = whole.partition("?")[2]
        for url in found:
            _secret_queries[url] = f"{url.partition('?')[0]}?{query}"
    return found


def _legal_pattern(url: str) -> str:
    """A legal URL in which the braces of a pattern stay."""
    return re.sub("%7[BD]", lambda match: {"B": "{", "D": "}"}[match[0][2]], legal(url)) if "{" in url else legal(url)


def _host(rest: str) -> str:
    """The host, and its port, at the beginning of what follows a URL's scheme."""
    return re.split(r"[/?#]", rest, maxsplit=1)[0].lower()


def folder_location(url: str) -> str:
    """The location of a remote folder: public, without a slash or a fragment at its end.

    Examples:
        >>> folder_location("HTTPS://Server/my photos/")
        'https://server/my%20photos'
        >>> private(joined(folder_location("https://folders/photos/?token=12ab"), "a.jpg"))
        'https://folders/photos/a.jpg?token=12ab'
    """
    found = public(legal(url) if is_http(url) else url)
    if is_http(found):
        parts, whole = urlsplit(found), _secret_queries.get(found)
        found = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), parts.query, ""))
        if whole is not None:
            _secret_folders[found.partition("?")[0]] = whole.partition("?")[2].partition("#")[0]
    scheme, rest = found.split("://", 1)
    return f"{scheme}://{rest.rstrip('/')}"


def legal(url: str) -> str:
    """A URL of a web server in which characters that may stand in none, such as spaces, are written with %.

    Examples:
        >>> legal("https://server/my photo%20é.jpg")
        'https://server/my%20photo%20%C3%A9.jpg'
    """
    text = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", url)
    return quote(os.fsencode(text), safe=_LEGAL)


def joined(location: str, path: str) -> str:
    """The address of a file below a folder's location, given its path as people write it.

    Examples:
        >>> joined("https://server/photos", "my cat #1.jpg")
        'https://server/photos/my%20cat%20%231.jpg'
        >>> joined("s3://bucket/photos", "my cat #1.jpg")
        's3://bucket/photos/my cat #1.jpg'
        >>> joined("https://server/photos?key=1", "a.jpg")
        'https://server/photos/a.jpg?key=1'
    """
    location, mark, query = location.partition("?") if is_http(location) else (location, "", "")
    if ".." in path.split("/"):
        scheme, rest = location.split("://", 1)
        host, _, folder = rest.partition("/")
        inner = posixpath.normpath("/" + posixpath.join(folder if not is_http(location) else _plain(folder), path))
        location, path = f"{scheme}://{host}", inner.lstrip("/")
    return f"{location}/{quote(os.fsencode(path), safe='/~') if is_http(location) else path}{mark}{query}"


def name_of(url: str) -> str:
    """The last part of a URL's path, as people write it; "" if it has none.

    Examples:
        >>> name_of("https://server/my%20photos/"), name_of("s3://bucket/a.jpg"), name_of("s3://bucket")
        ('my photos', 'a.jpg', '')
    """
    if is_http(url):
        return _plain(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    return url.split("://", 1)[1].rstrip("/").partition("/")[2].rpartition("/")[2]


def _plain(path: str) -> str:
    """A part of a URL's path as people write it; bytes that are not UTF-8 become surrogate escapes."""
    return os.fsdecode(unquote_to_bytes(path))
