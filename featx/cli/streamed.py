"""Results that a command prints one after the other while it makes them, and the images that it takes from its arguments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from featx.data.scan_options import ScanOptions
from featx.text import counted


class Result(Protocol):
    """The result for one image."""

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints; of an image that failed it has the key "error"."""
        ...


Made = TypeVar("Made", bound=Result)


class Streamed(Generic[Made]):
    """Results that are made while they are iterated over, once, and counted.

    Args:
        made: the results.
        key: of their list in the object that ``--json`` prints.
        failure: gives the name of the image and the reason, "" if it did not fail.
        remarks: sentences on all of them.
        sheet: writes the contact sheet of all results, once they are made; None: none is wanted.
    """

    def __init__(
        self,
        made: Iterable[Made],
        *,
        key: str,
        failure: Callable[[Made], tuple[str, str]],
        remarks: Sequence[str] = (),
        sheet: Callable[[list[Made]], Path] | None = None,
    ) -> None:
        self._made, self._key, self._failure, self._remarks = made, key, failure, tuple(remarks)
        self._sheet = sheet
        self.sheet: Path | None = None
        self.images = self.failed = 0
        self.last_error = ""

    def __iter__(self) -> Iterator[Made]:
        kept: list[Made] = []
        for each in self._made:
            name, error = self._failure(each)
            self.images += 1
            if error:
                self.failed += 1
                self.last_error = f"{name}: {error}"
            if self._sheet:
                kept.append(each)
            yield each
        if self._sheet and self.images:
            self.sheet = self._sheet(kept)

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        results = [each.as_dict() for each in self]
        facts = {self._key: results, "images": self.images, "failed": self.failed}
        return facts if self.sheet is None else {**facts, "sheet": str(self.sheet)}

    @property
    def notes(self) -> tuple[str, ...]:
        """The remarks, where the contact sheet is, and how many images failed, if some did."""
        remarks = self._remarks if self.sheet is None else (*self._remarks, f"the contact sheet is {self.sheet}")
        if not self.failed or self.failed == self.images:
            return remarks
        return (
            *remarks,
            f"{self.failed:,} of {counted(self.images, 'image')} failed; the column error has the reasons",
        )

    @property
    def fault(self) -> str:
        """Why there are no results, if there are none."""
        if not self.images:
            return "no images were given"
        if self.failed < self.images:
            return ""
        return all_failed(self.images, self.last_error)


def all_failed(images: int, last_error: str) -> str:
    """Why no image has a result.

    Args:
        images: their number.
        last_error: the name of the last one, and why it failed.
    """
    if images > 1:
        return f"all {images:,} images failed, the last one because: {last_error}"
    return f"the image failed: {last_error}"


def show_nothing(_: object) -> None:
    """All rows are printed already."""


def given_images(images: Sequence[str], scan: ScanOptions) -> Any:
    """The images of the command line; a dash stands for the paths on standard input.

    Args:
        images: the words of the command line.
        scan: how the tables among them are read.

    Raises:
        DatasetError: an option has no effect on one of them.
    """
    if scan == ScanOptions():
        return _named(images) if "-" in images else images
    from featx.data.scan import is_data_set, list_images

    found: list[Any] = []
    for image in images:
        if image == "-" or not is_data_set(image):
            scan.require_only((), image, "the list on standard input" if image == "-" else "an image file or a pattern")
        found += list_images(image, scan)
    return found


def given_parts(images: Sequence[str]) -> list[Any]:
    """The images of the command line, in which an iterator over the paths on standard input stands for a dash."""
    return [_listed_on_stdin() if image == "-" else image for image in images]


def _named(images: Iterable[str]) -> Iterator[str]:
    for image in images:
        if image == "-":
            yield from _listed_on_stdin()
        else:
            yield image


def _listed_on_stdin() -> Iterator[str]:
    """The paths on standard input, one on each line, or ended by null characters as ``find -print0`` prints them."""
    for line in sys.stdin.buffer:
        for path in line.rstrip(b"\r\n").split(b"\0"):
            if path:
                yield os.fsdecode(path)
