"""Self-contained HTML pages: what they are made of, and how they are rendered.

A page opens anywhere, offline: it contains its pictures and its style, and requests nothing from the network, which its
Content-Security-Policy enforces. Any text given to it appears as text, never as markup. The page runs its own scripts alone,
which the policy names by their hashes.

The markup is in ``page.html.j2`` and ``parts.html.j2`` (macros for numbers, tables, pictures and galleries), the style in
``page.css`` and ``inspection.css``, the scripts in ``inspection/``. A contact sheet, ``sheet.html.j2``, has no script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from featx.io.outputs import PAGE_MARK, SHEET, SHEET_MARK, write_output
from featx.text import printable

MOST_MISTAKES = 24
"""Number of mistakes that a section shows: the first of those given."""

SCRIPTS = ("data", "decisions", "list", "cards", "gallery", "detail", "colours", "map", "findings", "overview", "page")
"""The scripts of the page of an inspection, in their order."""

SHORTCUTS = (
    ("← → ↑ ↓", "move between images, parts of the page, or over the map"),
    ("Enter", "open the image"),
    ("a", "accept the suggestion, and go to the next"),
    ("r", "reject the suggestion, and go to the next"),
    ("d", "drop the image, or keep it again"),
    ("1 … 9", "give the image the label of this number"),
    ("l", "in the large view: choose a label"),
    ("g", "keep the duplicates, as one group"),
    ("t", "drop the training image of a leak"),
    ("/", "search paths"),
    ("Ctrl+Z Ctrl+Y", "undo, redo"),
    ("+ - 0", "on the map: zoom, show everything"),
    ("s r", "on the map: select what is in view, or with a rectangle"),
    ("L I", "on the map: lasso on or off, images on or off"),
    ("Esc", "close, cancel, clear the selection"),
    ("?", "this list"),
)
"""The keys of the page of an inspection, and what they do."""

_LONG_WORD = 12  # characters; a longer word may be broken at its dots and dashes
_MOST_ROWS = 24  # a longer table is folded until the reader opens it
_WIDE = 700  # CSS pixels; a wider picture is scrolled on a small screen instead of shrunk


# What a page is made of


@dataclass(frozen=True)
class Number:
    """One of the numbers at the top of a page.

    Attributes:
        name: such as "accuracy".
        value: such as "0.9542".
        detail: small print, such as "95 % interval 0.9088 to 0.9776".
        interval: (low, high) between 0 and 1, drawn as a bar; None draws none.

    Examples:
        >>> Number("accuracy", "0.9542", "146 of 153 images", (0.9, 0.975)).bar
        ('90.00', '7.50')
    """

    name: str
    value: str
    detail: str = ""
    interval: tuple[float, float] | None = None

    @property
    def bar(self) -> tuple[str, str] | None:
        """Left edge and width of the interval's bar, in percent; None if there is no finite interval."""
        if self.interval is None or not all(map(math.isfinite, self.interval)):
            return None
        low, high = (100 * min(max(bound, 0.0), 1.0) for bound in self.interval)
        return f"{low:.2f}", f"{max(high - low, 0):.2f}"


@dataclass(frozen=True)
class Table:
    """Rows of text under a header. The first cell of a row is its name.

    Attributes:
        header: one name for each column.
        rows: cells as text, as many as the header has names.
        caption: above the table; also the label of a folded one.

    Examples:
        >>> Table(("class", "images"), [("ants", "70"), ("bees", "83")]).numeric
        (False, True)
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column, whether it contains only numbers and is therefore right-aligned; never the first."""
        return tuple(i > 0 and all(_is_number(row[i]) for row in self.rows) for i in range(len(self.header)))

    @property
    def folded(self) -> bool:
        """Whether the table is so long that the reader opens it first."""
        return len(self.rows) > _MOST_ROWS


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        data: an SVG as text (``plots.as_svg``), or the bytes of a PNG or JPEG file.
        alt: a description for readers who cannot see it.
        caption: text beneath it.
    """

    data: str | bytes
    alt: str
    caption: str = ""

    @property
    def uri(self) -> str:
        """A data URI of the picture."""
        return _data_uri(self.data)

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in CSS pixels of an SVG in points or of a PNG; None if unknown."""
        return _size(self.data)

    @property
    def wide(self) -> bool:
        """Whether the picture is too wide to be shrunk to the width of a phone."""
        return self.size is not None and self.size[0] > _WIDE


@dataclass(frozen=True)
class Mistake:
    """An image with a wrong prediction.

    Attributes:
        path: of the image, as in the data set.
        thumbnail: a JPEG file (``decode.thumbnail``); None if there is none.
        true: its class.
        predicted: the predicted class.
        probability: of the predicted class.
        why: the reason for a missing thumbnail.
    """

    path: str
    thumbnail: bytes | None
    true: str
    predicted: str
    probability: float
    why: str = "the image is missing or cannot be read"

    @property
    def name(self) -> str:
        """The file name alone."""
        return Path(self.path).name

    @property
    def uri(self) -> str | None:
        """A data URI of the thumbnail; None if there is none, or if it is neither a JPEG nor a PNG file."""
        if self.thumbnail is None or _media_type(self.thumbnail) is None:
            return None
        return _data_uri(self.thumbnail)


@dataclass(frozen=True)
class SheetImage:
    """An image of a contact sheet.

    Attributes:
        path: of the image.
        thumbnail: a JPEG file (``decode.thumbnail``); None if there is none.
        text: beneath it.
        why: the reason for a missing thumbnail.
    """

    path: str
    thumbnail: bytes | None
    text: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        """The file name alone."""
        return Path(self.path).name

    @property
    def uri(self) -> str | None:
        """A data URI of the thumbnail; None if there is none."""
        return None if self.thumbnail is None else _data_uri(self.thumbnail)


@dataclass(frozen=True)
class SheetRow:
    """An image of a contact sheet with those that belong to it.

    Attributes:
        title: its path.
        image: None if it failed.
        error: why it failed, or what else there is to say.
        groups: (title, images) of those that belong to it.
    """

    title: str
    image: SheetImage | None
    error: str = ""
    groups: Sequence[tuple[str, Sequence[SheetImage]]] = ()


@dataclass(frozen=True)
class Section:
    """A heading with, in this order, paragraphs, pictures and tables side by side, and a gallery of mistakes.

    Attributes:
        title: the heading.
        text: paragraphs, separated by empty lines.
        pictures: figures.
        tables: tables.
        mistakes: of which the first 24 are shown.
    """

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    mistakes: Sequence[Mistake] = ()

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The paragraphs of the text, each on one line."""
        return tuple(" ".join(part.split()) for part in self.text.split("\n\n") if part.strip())


@dataclass(frozen=True)
class Page:
    """The content of a page.

    Attributes:
        title: such as "Ants and bees".
        summary: one sentence.
        facts: name to value: model, features, backbone, data set, seed, version, date.
        headline: the most important result in one line.
        sections: the body of the page.
        numbers: the most important metrics, with their intervals.
        notes: caveats about the numbers, one sentence each.
        kind: what kind of page it is, above the title.

    Examples:
        >>> page = Page("Ants & bees", "A test.", {"model": "logreg"}, "accuracy 0.9281", [Section("Classes")])
        >>> "<h1><bdi>Ants &amp; bees</bdi></h1>" in render_inspection(page, "{}", "[]")
        True
    """

    title: str
    summary: str
    facts: Mapping[str, str]
    headline: str
    sections: Sequence[Section] = ()
    numbers: Sequence[Number] = ()
    notes: Sequence[str] = ()
    kind: str = "Head report"


# Rendering


def render_inspection(page: Page, data: str, thumbnails: str, *, files: bool = False) -> str:
    """The HTML of the page of an inspection.

    Args:
        page: its frame; the sections are the part "Head".
        data: the findings as JSON, without ``<``, for the page's script.
        thumbnails: likewise, a list with the JPEG file in base64 or the name of the file of each image, "" for none.
        files: whether thumbnails are files in a folder beside the page, which its policy must allow.
    """
    folder = Path(__file__).parent
    scripts = [(folder / "inspection" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    scripts = [f"\n{script}//# sourceURL=featx-{name}.js\n" for name, script in zip(SCRIPTS, scripts, strict=True)]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            data=Markup(data),
            thumbnails=Markup(thumbnails),
            files=files,
            scripts=list(map(Markup, scripts)),  # trusted: part of the package
            hashes=hashes,
            shortcuts=SHORTCUTS,
            inspection_css=Markup((folder / "inspection.css").read_text(encoding="utf-8").strip()),
        )
    )


def write_sheet(path: str | os.PathLike[str], page: Page, rows: Sequence[SheetRow]) -> Path:
    """Write a contact sheet, completely or not at all, and return its path.

    Args:
        path: of the file.
        page: its frame, without sections.
        rows: its images.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    text = _environment().get_template("sheet.html.j2").render(page=page, rows=rows, mark=SHEET_MARK)
    write_output(path, text.encode(), SHEET)
    return path


def decimals(value: float) -> str:
    """A number with four decimals; "none" for NaN.

    Examples:
        >>> decimals(0.92811), decimals(float("nan"))
        ('0.9281', 'none')
    """
    return "none" if math.isnan(value) else f"{value:.4f}"


def breakable(text: str) -> Markup:
    """Text as HTML in which a line may break after the slashes, dots, dashes and underscores of long words such as paths.

    Examples:
        >>> breakable("average_precision of <b>")
        Markup('average_<wbr>precision of &lt;b&gt;')
    """
    words = (
        [escape(part) for part in re.split(r"(?<=[/\\_.-])(?=\w)", word)] if len(word) > _LONG_WORD else [escape(word)]
        for word in re.split("(\\s+)", printable(str(text)))
    )
    return Markup("").join(Markup("<wbr>").join(parts) for parts in words)


@functools.cache
def _environment() -> Environment:
    """The Jinja environment of the templates in this folder. Every expression is escaped, for attributes too."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"decimals": decimals, "breakable": breakable}
    environment.globals |= {
        "css": Markup((folder / "page.css").read_text(encoding="utf-8").strip()),  # trusted: part of the package
        "mark": PAGE_MARK,
        "most_mistakes": MOST_MISTAKES,
    }
    return environment


def _printable(value: Any) -> Any:
    """Replace control characters, bidi marks and surrogates, which UTF-8 cannot encode; macros' output is already safe."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+\N{MINUS SIGN}±\d.,e% ]*|nan|inf|none", cell.strip()) is not None


def _media_type(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def _data_uri(data: str | bytes) -> str:
    """A picture as a data URI. In an ``<img>``, unlike inline, an SVG can neither run scripts nor load anything."""
    kind = "image/svg+xml" if isinstance(data, str) else _media_type(data) or "image/png"
    raw = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def _size(data: str | bytes) -> tuple[int, int] | None:
    """(width, height) in CSS pixels of an SVG whose unit is the point, or of a PNG; None if unknown."""
    if isinstance(data, bytes):
        return struct.unpack(">II", data[16:24]) if _media_type(data) == "image/png" and len(data) >= 24 else None
    box = re.match(r'<svg [^>]*?\bviewBox="0 0 ([\d.]+) ([\d.]+)"', data)
    return (round(float(box[1]) * 4 / 3), round(float(box[2]) * 4 / 3)) if box else None
