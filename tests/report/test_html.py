from __future__ import annotations

import base64
import dataclasses
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Chromium
from inspections import large
from made_predictions import SCRIPT, classification_report, multilabel_report
from PIL import Image

from featx.data.decode import thumbnail
from featx.errors import OutputError
from featx.inspection.page import write_inspection_page
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.report import html
from featx.report.html import (
    MOST_MISTAKES,
    Mistake,
    Number,
    Page,
    Picture,
    Section,
    Table,
    render_inspection,
)
from featx.report.sections import headline_of, numbers_of, sections_of

VOID = {"meta", "link", "img", "br", "wbr"}


def jpeg(colour: tuple[int, int, int] = (255, 0, 255)) -> bytes:
    """A thumbnail of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "PNG")
    return thumbnail(file.getvalue(), 96)


SVG = (
    '<svg viewBox="0 0 300 150" width="300pt" height="150pt" xmlns="http://www.w3.org/2000/svg">'
    '<rect width="300" height="150" fill="#00c800"/></svg>'
)

PLAIN = Page(
    title="Ants & bees",
    summary="Tells ants from bees.",
    facts={"model": "logreg", "C": "0.01"},
    headline="accuracy 0.9542 (95 % interval 0.9088 to 0.9776)",
    sections=(
        Section("Choice", "First\nparagraph.\n\nSecond one.", pictures=(Picture(SVG, "A figure", "Its caption"),)),
        Section(
            "Classes", tables=(Table(("class", "of", "images"), [("ants", "x", "7"), ("bees", "y", "12")], "All"),)
        ),
        Section(
            "Mistakes",
            mistakes=(
                Mistake("a/1.png", jpeg(), "ants", "bees", 0.98765),
                Mistake("a/2.png", None, "bees", "ants", 0.5),
            ),
        ),
    ),
    numbers=(Number("accuracy", "0.9542", "146 of 153", (0.9088, 0.9776)), Number("log loss", "0.12")),
    notes=("Nothing to add.",),
)

REPORTS: dict[str, Callable[[], Report]] = {
    "two classes": lambda: classification_report(["ants", "bees"]),
    "seven classes": lambda: classification_report([f"class {i}" for i in range(7)]),
    "120 classes": lambda: classification_report([f"class {i}" for i in range(120)]),
    "scripts": lambda: classification_report(
        [SCRIPT, "\0\n\udcff", "\"'&amp;", "$x$", "\u202e" + "w" * 300, "\u6f22\u5b57"]
    ),
    "rejecting": lambda: classification_report(["a", "b", "c"], reject_below=0.5),
    "labels": multilabel_report,
    "regression": lambda: RegressionReport.from_predictions(np.arange(9.0), np.arange(9.0) ** 1.01, split="test"),
}


def page_of(name: str) -> Page:
    found = REPORTS[name]()
    mistakes = Section("Mistakes", mistakes=(Mistake(f"x/{SCRIPT}.png", jpeg(), SCRIPT, SCRIPT, 0.9),))
    numbers, sections = numbers_of(found), (*sections_of(found), mistakes)
    return Page(SCRIPT, SCRIPT, {SCRIPT: SCRIPT}, headline_of(found), sections, numbers, (SCRIPT,))


def render_page(page: Page) -> str:
    """The HTML of a page without its footer, which holds the scripts."""
    return re.sub("<footer>.*</footer>\n", "", render_inspection(page, "{}", "[]"), flags=re.DOTALL)


def write_page(path: str | Path, page: Page) -> Path:
    """Write a page about a head whose images have no thumbnails."""
    return write_inspection_page(
        path,
        dataclasses.replace(large(20), pixels=None),
        sections=page.sections,
        numbers=page.numbers,
        headline=page.headline,
        facts=page.facts,
        title=page.title,
        head_report=page.summary,
    )


class Parsed(HTMLParser):
    """A page's elements: (tag, attributes), and the text within each kind of tag. Asserts that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.elements if found == tag]


# The page


def test_a_page_shows_its_content_in_order() -> None:
    found = Parsed(render_page(PLAIN))
    assert found.texts["title"] == found.texts["h1"] == ["Ants & bees"]
    assert found.texts["h2"] == ["Choice", "Classes", "Mistakes", "What it is"]
    assert list(zip(found.texts["dt"], found.texts["dd"], strict=True)) == [
        ("accuracy", "0.9542146 of 153"),
        ("log loss", "0.12"),
        ("model", "logreg"),
        ("C", "0.01"),
    ]
    assert found.texts["p"][:2] == ["Head report", PLAIN.summary]
    assert PLAIN.headline in found.texts["p"]
    assert {"First paragraph.", "Second one."} <= set(found.texts["p"])
    assert found.texts["figcaption"] == ["Its caption"]
    assert "Nothing to add." in found.texts["li"]


def test_a_page_has_a_language_a_viewport_a_dark_scheme_and_a_print_style() -> None:
    text = render_page(PLAIN)
    found = Parsed(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert found.of("html") == [{"lang": "en"}]
    metas = {meta.get("name"): meta["content"] for meta in found.of("meta") if "name" in meta}
    assert metas == {"viewport": "width=device-width, initial-scale=1", "color-scheme": "light dark"}
    assert "@media (prefers-color-scheme: dark)" in text
    assert "@media print" in text


def test_a_table_has_headers_of_columns_and_rows_and_numbers_to_the_right() -> None:
    found = Parsed(render_page(PLAIN))
    assert found.texts["caption"] == ["All"]
    assert [th["scope"] for th in found.of("th")] == ["col", "col", "col", "row", "row"]
    assert found.texts["th"] == ["class", "of", "images", "ants", "bees"]
    assert found.texts["td"] == ["x", "7", "y", "12"]
    assert [td.get("class") for td in found.of("td")] == [None, "n", None, "n"]


@pytest.mark.parametrize(("rows", "folded"), [(24, False), (25, True)])
def test_a_long_table_is_folded(rows: int, folded: bool) -> None:
    table = Table(("class", "images"), [(f"c{i}", str(i)) for i in range(rows)], "All classes")
    found = Parsed(render_page(dataclasses.replace(PLAIN, sections=(Section("T", tables=(table,)),))))
    assert found.texts.get("summary", []) == (["All classes (25 rows)"] if folded else [])
    assert found.texts.get("caption", []) == ([] if folded else ["All classes"])
    assert len(found.of("tr")) == rows + 1


def test_an_interval_is_drawn_as_a_bar_where_there_is_one() -> None:
    found = Parsed(render_page(PLAIN))
    assert [i["style"] for i in found.of("i")] == ["margin-left:90.88%;width:6.88%"]
    odd = Number("x", "1", "", (math.nan, 0.5)), Number("y", "2", "", (-0.5, 1.5))
    found = Parsed(render_page(dataclasses.replace(PLAIN, numbers=odd)))
    assert [i["style"] for i in found.of("i")] == ["margin-left:0.00%;width:100.00%"]


def test_every_image_has_an_alt_text_and_every_figure_a_size() -> None:
    found = Parsed(render_page(PLAIN))
    figure, mistake = found.of("img")
    assert (figure["alt"], figure["width"], figure["height"]) == ("A figure", "400", "200")
    assert mistake["alt"] == "1.png: ants, predicted bees"
    assert base64.b64decode(figure["src"].removeprefix("data:image/svg+xml;base64,")).decode() == SVG
    assert base64.b64decode(mistake["src"].removeprefix("data:image/jpeg;base64,")) == jpeg()


@pytest.mark.parametrize("data", [None, b"", b"garbage", b"<svg onload='alert(1)'/>"])
def test_a_mistake_without_a_readable_image_has_a_labelled_box(data: bytes | None) -> None:
    mistake = Mistake("a/2.png", data, "bees", "ants", 0.5)
    found = Parsed(render_page(dataclasses.replace(PLAIN, sections=(Section("M", mistakes=(mistake,)),))))
    assert found.of("img") == []
    assert any("the image is missing or cannot be read" in text for text in found.texts["div"])
    assert found.texts["li"][-1] == "the image is missing or cannot be readbees predicted as ants, 0.50002.png"


def test_a_gallery_shows_at_most_24_and_the_total() -> None:
    mistakes = [Mistake(f"{i}.png", None, "a", "b", 0.5) for i in range(30)]
    found = Parsed(render_page(dataclasses.replace(PLAIN, notes=(), sections=(Section("M", mistakes=mistakes),))))
    assert len(found.texts["li"]) == MOST_MISTAKES
    assert "The first 24 of 30." in found.texts["p"]


# Safe and offline


@pytest.mark.parametrize("name", REPORTS)
def test_all_names_are_text_and_nothing_refers_elsewhere(name: str) -> None:
    text = render_page(page_of(name))
    found = Parsed(text)
    assert found.of("script") == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert found.texts["h1"] == [SCRIPT]
    addresses = [
        value
        for _, attributes in found.elements
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "action", "data", "poster", "background")
    ]
    assert addresses
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert [key for _, attributes in found.elements for key in attributes if key.startswith("on")] == []
    assert re.findall(r"https?:|url\(|@import", text) == []
    assert "".join(c for c in text if not c.isprintable()).strip("\n") == ""
    for address in addresses:
        kind, _, data = address.partition(";base64,")
        raw = base64.b64decode(data)
        if kind == "data:image/svg+xml":
            svg = Parsed(raw.decode())
            assert svg.of("script") == []
            links = [v for _, attributes in svg.elements for k, v in attributes.items() if k.endswith("href")]
            assert [link for link in links if not link.startswith(("#", "data:image/png;base64,"))] == []


# The file


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(OutputError, match=r"taken\.html is a folder; name a file to write with -o"):
        write_page(tmp_path / "taken.html", PLAIN)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*page\.html: .*; name another file with -o"):
        write_page(tmp_path / "file" / "page.html", PLAIN)
    with pytest.raises(OutputError, match="null"):
        write_page(tmp_path / "nul\0.html", PLAIN)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.html"]


def test_a_page_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_page(tmp_path / "page.html", PLAIN)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_page(path, dataclasses.replace(PLAIN, title="again"))
    assert "<title>Ants &amp; bees</title>" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


# In a browser


def test_a_browser_shows_the_whole_page_without_a_request(tmp_path: Path, browse: Chromium) -> None:
    path = write_page(tmp_path / "page.html", page_of("scripts"))
    text = path.read_text(encoding="utf-8")
    tab = browse(path)
    assert [tab.page.title(), tab.page.inner_text("h1")] == [SCRIPT, SCRIPT]
    shown = [image.get_attribute("src") for image in tab.page.locator("#head-part img").all()]
    assert len(shown) > 3
    assert shown == re.findall('<img [^>]*src="([^"]+)"', text)
    assert tab.foreign == tab.errors == []

    # The same page with a foreign image: its request is recorded, and the policy forbids it.
    address = "http://127.0.0.1:9/foreign.png"
    path.write_text(text.replace("</main>", f'<img src="{address}" alt=""></main>'), encoding="utf-8")
    tab = browse(path, checked=False)
    assert tab.foreign == [address]
    assert len(tab.errors) == 1
    assert "Content Security Policy" in tab.errors[0]


def test_a_browser_draws_every_image(tmp_path: Path, browse: Chromium) -> None:
    colours = {"svg": (0, 200, 0), "png": (255, 140, 0), "jpeg": (255, 0, 255)}
    file = io.BytesIO()
    Image.new("RGB", (300, 100), colours["png"]).save(file, "PNG")
    first, *others = PLAIN.sections
    pictures = (*first.pictures, Picture(file.getvalue(), "Another"))
    content = dataclasses.replace(PLAIN, sections=(dataclasses.replace(first, pictures=pictures), *others))
    path = write_page(tmp_path / "page.html", content)
    for width, least in ((1200, 4000), (400, 2000)):
        tab = browse(path, width=width)
        with Image.open(io.BytesIO(tab.page.screenshot(full_page=True))) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        for kind, colour in colours.items():
            count = (np.abs(pixels - colour).max(axis=-1) <= 6).sum()
            assert count >= least, f"{kind} at {width}"
        assert tab.overflow == []


def test_a_page_is_written_without_matplotlib() -> None:
    code = "import sys; from featx.report import Page, render_inspection; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "False\n"


def test_paths_break_at_their_parts_and_ordinary_words_do_not() -> None:
    path = "/photos/of_all/the-ants.jpg"
    found = html.breakable(f"a well-known {path} <i>")
    assert found == ("a well-known /<wbr>photos/<wbr>of_<wbr>all/<wbr>the-<wbr>ants.<wbr>jpg &lt;i&gt;")
    assert found.striptags().replace("\u200b", "") == f"a well-known {path} <i>"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_table_of_a_head_with_ordinary_names_is_cut(width: int, tmp_path: Path, browse: Chromium) -> None:
    names = ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
    header = ("class", "precision", "recall", "F1", "AUROC", "average precision", "images")
    rows = [(name, *["0.8621"] * 5, "34") for name in names]
    confusions = Table(
        ("true", "predicted", "images", "share of the true class"), [("cardboard", "plastic", "7", "0.20")]
    )
    page = Page("t", "s", {}, "h", [Section("Classes", tables=(Table(header, rows), confusions))])
    tab = browse(write_page(tmp_path / "page.html", page), width=width, touch=width < 600)
    cut = "[...document.querySelectorAll('#head-part .scroll')].map((e) => e.scrollWidth - e.clientWidth)"
    assert tab.run(cut) == [0, 0]
    assert tab.overflow == []
