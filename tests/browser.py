"""HTML pages in a real browser: Chromium without a window, driven by Playwright.

The fixture ``browse`` (conftest.py) opens files by this module. A page that requests anything but itself and the folder of its
thumbnails, or that writes an error to the console, fails the test that opened it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Download, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Programs that are Chromium, the first of which is used; the browsers that Playwright downloads are not needed."""

REQUIRED = "FEATX_TESTS_NEED_BROWSER"
"""A variable of the environment: where it is set, as in CI, a missing browser fails the tests instead of skipping them."""

WITHIN = ("data:", "blob:", "about:")
"""Addresses of what a page contains itself; nothing is loaded from elsewhere for them."""

_WITHOUT_STORAGE = """
for (const name of ["localStorage", "sessionStorage", "indexedDB"])
  Object.defineProperty(window, name, { get() { throw new DOMException("The user forbids it.", "SecurityError"); } });
"""


@dataclass
class Tab:
    """A page that is open in a browser of its own, which shares no storage with that of another tab.

    Attributes:
        page: Playwright's handle: mouse, keyboard, locators, screenshots.
        path: the file, or the URL of a page of a local service.
        requests: the address of everything that was requested, blocked or not.
        errors: messages of errors on the console, and exceptions that nothing caught.
    """

    page: Page
    path: Path | str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def foreign(self) -> list[str]:
        """The requests for anything but the page itself and the folder of its thumbnails, or its own service."""
        if isinstance(self.path, str):
            service = "/".join(self.path.split("/")[:3]) + "/"
            return [url for url in self.requests if not url.startswith((*WITHIN, service))]
        folder = self.path.with_name(f"{self.path.stem}_files")

        def is_own(url: str) -> bool:
            file = Path(unquote(url.partition("#")[0]).removeprefix("file://"))
            return url.startswith(WITHIN) or (
                url.startswith("file:///") and (file == self.path or file.parent == folder)
            )

        return [url for url in self.requests if not is_own(url)]

    def run(self, script: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression, or of a function of the argument, on the page."""
        return self.page.evaluate(script, argument)

    def until(self, script: str, argument: Any = None, *, seconds: float = 10) -> Any:
        """The value of an expression as soon as it is true; the content policy of a page forbids Playwright's own waiting."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, argument)):
            assert time.monotonic() < end, f"not true after {seconds} s: {script}"
            self.page.wait_for_timeout(20)
        return value

    def download(self, click: Callable[[], object], path: Path) -> Path:
        """Save what a click downloads."""
        with self.page.expect_download() as download:
            click()
        found: Download = download.value
        found.save_as(path)
        return path

    @property
    def overflow(self) -> list[str]:
        """What reaches beyond the right edge of the window and cannot be scrolled to, and whether the page scrolls sideways."""
        return list(
            self.run(
                """() => {
                  const root = document.scrollingElement, found = [];
                  if (root.scrollWidth > innerWidth) found.push(`the page is ${root.scrollWidth} wide`);
                  const scrolls = (e) =>
                    e && e !== document.body && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
                  for (const e of document.querySelectorAll("main *, header *")) {
                    const { right, width } = e.getBoundingClientRect();
                    if (!width || right <= innerWidth + 1 || getComputedStyle(e).display === "inline" || scrolls(e)) continue;
                    found.push(`${e.tagName}.${e.className}#${e.id} ${Math.round(right)}`);
                  }
                  return found.slice(0, 8);
                }"""
            )
        )


class Chromium:
    """One running browser, and the tabs that a test opened in it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._open: list[tuple[BrowserContext, Tab | None]] = []

    def __call__(
        self,
        path: Path | str,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        touch: bool = False,
        storage: bool = True,
        checked: bool = True,
    ) -> Tab:
        """Open a page.

        Args:
            path: of the file, or the URL of a page of a local service.
            width: of the window, in CSS pixels.
            height: of the window.
            scheme: that the user prefers, "light" or "dark".
            touch: a touch screen, as on a phone.
            storage: whether the page may keep anything; without it, localStorage raises as in a browser that forbids it.
            checked: whether requests and errors fail the test.
        """
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            has_touch=touch,
            is_mobile=touch,
            accept_downloads=True,
        )
        context.set_default_timeout(10_000)
        if not storage:
            context.add_init_script(_WITHOUT_STORAGE)
        page = context.new_page()
        tab = Tab(page, path if isinstance(path, str) else path.resolve())
        self._open.append((context, tab if checked else None))
        page.on("request", lambda request: tab.requests.append(request.url))
        page.on("console", lambda message: _note_error(tab, message))
        page.on("pageerror", lambda error: tab.errors.append(str(error)))
        page.on("crash", lambda _: tab.errors.append("the page crashed"))
        page.on("dialog", lambda dialog: _answer(tab, dialog))
        page.goto(tab.path if isinstance(tab.path, str) else tab.path.as_uri())
        return tab

    def close(self) -> None:
        """Close the tabs of a test, and fail it if a page requested something or had an error."""
        tabs = [tab for _, tab in self._open if tab]
        for context, _ in self._open:
            context.close()
        self._open.clear()
        foreign = [url for tab in tabs for url in tab.foreign]
        errors = [message for tab in tabs for message in tab.errors]
        assert not foreign, f"the page requested {foreign}"
        assert not errors, f"the page had errors: {errors}"


def _answer(tab: Tab, dialog: Dialog) -> None:
    """Leave a page that asks whether to stay, as it may; no page of featx opens another dialog of the browser."""
    if dialog.type != "beforeunload":
        tab.errors.append(f"a dialog of the browser: {dialog.message}")
    dialog.accept()


def _note_error(tab: Tab, message: ConsoleMessage) -> None:
    if message.type == "error":
        tab.errors.append(message.text)


@contextlib.contextmanager
def started() -> Iterator[Chromium]:
    """A running browser. Tests that need one are skipped where there is none, unless ``REQUIRED`` is set."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        _without("needs Playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        _without(f"needs a browser, and none of {', '.join(NAMES)} is here: make browser")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except Error as error:
            _without(f"{program} does not run here: {str(error).splitlines()[0]}")
        try:
            yield Chromium(browser)
        finally:
            browser.close()


def _without(reason: str) -> NoReturn:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason} (the tests must not skip it, because {REQUIRED} is set)")
    pytest.skip(reason)
