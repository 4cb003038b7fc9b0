"""The files that featx writes: what each holds, and the checks that no file of the user's is lost under one.

A file is replaced only by one of its own kind, which its content decides, never its name. ``require_outputs`` checks all files
of a command before the work begins, and ``write_output`` checks once more as it writes.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featx._version import __version__
from featx.errors import OutputError
from featx.io import atomic

_BEGINNING = 4096  # bytes; the marks of pictures, pages and tables stand within them


@dataclass(frozen=True)
class OutputKind:
    """A kind of file that featx writes.

    Attributes:
        noun: its name in messages, such as "head".
        suffix: the ending of its name.
        is_own: whether an existing file is of this kind; raises OSError where the file cannot be read.
        other_suffixes: further endings, each of another format of the same content.
        option: the option of the command line that names such a file, for messages.
        missing: what must be installed to write a file of that name, as a sentence; "" if nothing is missing.
    """

    noun: str
    suffix: str
    is_own: Callable[[Path], bool]
    other_suffixes: tuple[str, ...] = ()
    option: str = "-o"
    missing: Callable[[Path], str] = lambda _: ""

    @property
    def article(self) -> str:
        """The noun with its article."""
        return f"{'an' if self.noun[0].lower() in 'aeiou' else 'a'} {self.noun}"


@dataclass(frozen=True)
class Output:
    """A file that a command will write.

    Attributes:
        path: of the file.
        kind: what it will hold.
        size: bytes, as far as they are known.
        named: whether the user named the file; its ending must then be that of its kind, if it has one.
    """

    path: Path
    kind: OutputKind
    size: int = 0
    named: bool = False


def picture(noun: str) -> OutputKind:
    """A kind of picture: a PNG file whose metadata name featx and the kind."""
    title = b"tEXtTitle\0" + picture_metadata(noun)["Title"].encode()
    return OutputKind(noun, ".png", lambda path: _holds(path, b"\x89PNG", title))


def picture_metadata(noun: str) -> dict[str, str]:
    """The metadata of a picture, from which ``picture(noun)`` recognises it."""
    return {"Software": f"featx {__version__}", "Title": f"featx: {noun}"}


def table(noun: str, columns: Sequence[str]) -> OutputKind:
    """A kind of CSV table: its first line has exactly these columns."""
    line = ",".join(columns).encode()
    return OutputKind(noun, ".csv", lambda path: _beginning(path).split(b"\n", 1)[0].rstrip(b"\r") == line)


CONFUSION = picture("confusion matrix")
FEW_SHOT_CURVE = picture("few-shot curve")
TRAINING_CURVES = picture("figure of the epochs")
RANKING = picture("picture of a ranking")
ADVICE = picture("picture of an advice")

PAGE_MARK = "A page of featx"
"""A comment at the beginning of every page."""

PAGE = OutputKind("page about a head", ".html", lambda path: _holds(path, b"<!DOCTYPE html>", PAGE_MARK.encode()))
"""A page of ``featx.report.html``."""

SHEET_MARK = "A contact sheet of featx"
"""The same comment of a contact sheet."""

SHEET = OutputKind(
    "contact sheet",
    ".html",
    lambda path: _holds(path, b"<!DOCTYPE html>", SHEET_MARK.encode()),
    option="--sheet",
)
"""A contact sheet of ``featx.report.html``."""


def require_outputs(
    outputs: Sequence[Output],
    inputs: Iterable[str | os.PathLike[str]] = (),
    *,
    images: tuple[str, Collection[str]] = ("", ()),
) -> None:
    """Check before the work that every file can be written, and that none is lost under another.

    Args:
        outputs: the result first, then the files beside it.
        inputs: the files that the command reads; those that do not exist are ignored.
        images: the root of a data set, and the paths of its images below it.

    Raises:
        OutputError: a file is an input, another output, something that featx did not write, or cannot be written.
    """
    require_separate(outputs, inputs, images=images)
    for output in outputs:
        if fault := output.kind.missing(output.path):
            raise OutputError(fault)
        atomic.require_writable(output.path, output.size, option=output.kind.option)
        require_replaceable(output.path, output.kind)


def require_separate(
    outputs: Sequence[Output],
    inputs: Iterable[str | os.PathLike[str]] = (),
    *,
    images: tuple[str, Collection[str]] = ("", ()),
) -> None:
    """Check by their names alone that no output is an input or another output. Arguments and errors as ``require_outputs``."""
    inputs = list(inputs)
    places: dict[str, Output] = {}
    for output in outputs:
        for each in inputs:
            if _same(output.path, Path(each)):
                what = "folder" if output.path.is_dir() else "file"
                raise OutputError(
                    f"{output.path} is a {what} that is read here ({each}); name another file with {output.kind.option}"
                )
        if images[1] and _is_image(output.path, *images):
            raise OutputError(f"{output.path} is an image of the data set; name another file with {output.kind.option}")
        if output.named:
            _require_suffix(output)
        other = places.setdefault(_place(output.path), output)
        if other is not output:
            raise OutputError(
                f"{output.path} is where the {other.kind.noun} and the {output.kind.noun} would both go; name another file "
                f"with {output.kind.option}"
            )


def require_replaceable(path: Path, kind: OutputKind) -> None:
    """Refuse to replace a file that is not of the kind that will be written; an empty one has nothing to lose.

    Raises:
        OutputError: there is another file at the path, or one that cannot be read.
    """
    try:
        if not path.is_file() or not path.stat().st_size or kind.is_own(path):  # no folder is ever replaced
            return
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot read {path}, which would be overwritten: {atomic.reason(error)}; name another file with {kind.option}"
        ) from error
    raise OutputError(
        f"{path} exists and is not {kind.article} of featx, so it is not overwritten; name another file with {kind.option}, "
        "or remove it first"
    )


def write_output(path: Path, data: bytes, kind: OutputKind) -> None:
    """Write a file whole or not at all, in the place of an older one of its kind.

    Raises:
        OutputError: the file cannot be written, or there is another file at the path.
    """
    require_replaceable(path, kind)
    atomic.write_whole(path, data)


def _require_suffix(output: Output) -> None:
    """Refuse a name that promises another format."""
    suffix, kind = output.path.suffix, output.kind
    endings = (kind.suffix, *kind.other_suffixes)
    if suffix and suffix.lower() not in endings:
        raise OutputError(
            f"{output.path} ends in {suffix}, but {kind.article} is written; name a file that ends in "
            f"{' or '.join(endings)} with {kind.option}"
        )


def _same(path: Path, other: Path) -> bool:
    """Whether two paths are one file, through links and in any spelling."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # one of them does not exist, so nothing can be lost
        return False


def _place(path: Path) -> str:
    """A path that equals that of every file which some file system takes for the same one."""
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def _is_image(path: Path, root: str, images: Collection[str]) -> bool:
    """Whether a path is that of an image of a data set."""
    names = {os.path.relpath(path.resolve(), Path(root).resolve()), str(path), str(path.resolve())}
    return any(name in images for name in names)


def _holds(path: Path, start: bytes, mark: bytes) -> bool:
    """Whether a file begins with some bytes, and others stand near its beginning."""
    beginning = _beginning(path)
    return beginning.startswith(start) and mark in beginning


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING)
