"""The page on which a web server lists a folder: its links to the files and folders in it. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

_PAGE = re.compile(
    rb"\s*(?:<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)


def is_page(data: bytes) -> bool:
    """Whether a file is a page of a web site, by its beginning.

    Examples:
        >>> is_page(b"<!DOCTYPE html><title>Log in"), is_page(b"path,label")
        (True, False)
    """
    return bool(_PAGE.match(data[:1024].removeprefix(b"\xef\xbb\xbf")))


class _Links(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the address of a link."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def entries(page: str, url: str) -> tuple[list[str], list[str]]:
    """The files and the folders right in a folder, as a web server's page lists them.

    Links to elsewhere do not count: to the folder above, to other servers, to the same page in another order.

    Args:
        page: the page, as HTML.
        url: where it was read from.

    Returns:
        The names of the files and those of the folders, as people write them, in the order of the page.

    Examples:
        >>> entries('<a href="../">up</a> <a href="my%20cat.jpg">my cat</a> <a href="dogs/">dogs</a>', "http://server/photos/")
        (['my cat.jpg'], ['dogs'])
    """
    links = _Links()
    with contextlib.suppress(AssertionError, ValueError):  # a page that is not HTML
        links.feed(page)
        links.close()
    base = urlsplit(url)
    around = [unquote_to_bytes(part) for part in base.path.rstrip("/").split("/")]
    files, folders = dict[str, None](), dict[str, None]()
    for link in links.found:
        try:
            to = urlsplit(urljoin(url, link.strip()))
        except ValueError:
            continue
        *parents, last = to.path.rstrip("/").split("/")
        if (
            to.netloc.lower() != base.netloc.lower()
            or to.query
            or [unquote_to_bytes(part) for part in parents] != around
        ):
            continue
        name = os.fsdecode(unquote_to_bytes(last))
        if name not in ("", ".", "..") and "/" not in name:
            (folders if to.path.endswith("/") else files)[name] = None
    return [name for name in files if name not in folders], list(folders)
