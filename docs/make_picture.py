"""Write docs/assets/session.svg, commands and their output as a picture of a terminal; ``--check`` compares it instead.

python docs/make_picture.py [--check]

The check compares the words and not the figures, since times differ from run to run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

PICTURE = Path(__file__).resolve().parent / "assets" / "session.svg"
SESSION = {
    "featx extract": 4,
    "featx fit-head --model logreg": 9,
    "featx promote": 5,
}
"""The commands, and how many lines of their output the picture shows."""

COLUMNS, FONT, LETTER, LINE, PAD = 100, 14, 8.43, 20, 18  # textLength gives each letter the same width in any font
DARK, LIGHT, PROMPT = "#16181d", "#d7dae0", "#7fd1b9"
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace"  # the reader's own: none is fetched


def session() -> Iterator[str]:
    """The lines of a terminal in which the commands ran in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        for command, most in SESSION.items():
            done = subprocess.run(
                [sys.executable, "-m", *command.split()],
                cwd=folder, env={**os.environ, "COLUMNS": str(COLUMNS)}, check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            lines = done.stdout.rstrip().split("\n")
            wrapped = [part for line in lines for part in textwrap.wrap(line, COLUMNS, subsequent_indent="  ") or [""]]
            yield from (f"$ {command}", *wrapped[:most], *(["…"] if len(wrapped) > most else []), "")


def picture(lines: Iterable[str]) -> str:
    """The lines as an SVG image, with the commands in bold."""
    rows = "\n".join(lines).rstrip().split("\n")
    width, height = round(COLUMNS * LETTER + 2 * PAD), len(rows) * LINE + 2 * PAD + 22
    lamps = (
        f'<circle cx="{PAD + 6 + 18 * number}" cy="20" r="5.5" fill="#{colour}"/>'
        for number, colour in enumerate(("ff5f57", "febc2e", "28c840"))
    )
    texts = (
        f'<text x="{PAD}" y="{PAD + 22 + number * LINE + FONT}" textLength="{len(row) * LETTER:.1f}"'
        f"{_style(row)}>{escape(row).replace(' ', chr(160))}</text>"
        for number, row in enumerate(rows)
        if row
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>A session of featx in a terminal</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{DARK}"/>',
        *lamps,
        f'<g font-family="{FONTS}" font-size="{FONT}" fill="{LIGHT}">',
        *texts,
        "</g>",
        "</svg>",
        "",
    ])  # fmt: skip


def _style(row: str) -> str:
    return f' fill="{PROMPT}" font-weight="bold"' if row.startswith("$ ") else ""


def words(svg: str) -> list[list[str]]:
    """The text of a picture without figures and blanks."""
    texts = [re.sub("<.*?>|\xa0+", " ", line) for line in svg.split("\n") if "<text" in line]
    return [re.sub(r"[\d.,]+(e-\d+)?", "#", text).split() for text in texts]


if __name__ == "__main__":
    drawn = picture(session())
    if "--check" in sys.argv:
        same = words(PICTURE.read_text(encoding="utf-8")) == words(drawn)
        sys.exit(0 if same else f"{PICTURE.name} is out of date: run make docs")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn, encoding="utf-8")
