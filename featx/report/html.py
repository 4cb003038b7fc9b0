"""The model card: one HTML file that says what a head is and what it is worth, and opens anywhere, offline.

It holds its pictures and its style, runs no script, and asks no other machine for anything, which its Content-Security-Policy
has the browser see to. Whatever text it is given is text there, never markup.
"""

from __future__ import annotations

import base64
import html
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.io import atomic
from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.report.plots import MOST_BARS, as_png, as_svg, confusion_figure, per_class_figure, reliability_figure
from featx.text import printable

MOST_MISTAKES = 24
"""Mistakes that a card shows: the first of those it is given."""

_MOST_ROWS = 24  # above it, a table is folded: the reader opens it

_MOST_PAIRS = 10  # confusions that are named
_MOST_CLASSES_IN_SVG = 100  # above it, a confusion matrix is smaller as a PNG

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_FOOTER = "Made by featx. This page holds all that it shows, runs no script, and asks the network for nothing."


@dataclass(frozen=True)
class Number:
    """One of the numbers at the top.

    Attributes:
        name: as "accuracy".
        value: as "0.9542".
        detail: what belongs to it, as "95 % interval 0.9088 to 0.9776".
        interval: (low, high) of a share of 1, drawn as a bar; None draws nothing.
    """

    name: str
    value: str
    detail: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first cell of a row names it. Numbers are given as text, and set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        data: an SVG as text (``plots.as_svg``), or the bytes of a PNG or JPEG file.
        alt: what it shows, in words, for whom does not see it.
        caption: beneath it.
    """

    data: str | bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Mistake:
    """An image whose prediction is wrong.

    Attributes:
        path: of the image, as in the data set.
        thumbnail: a JPEG file (``decode.thumbnail``); None where the image is missing or cannot be read.
        true: its class.
        predicted: the class that was predicted.
        probability: of that class.
    """

    path: str
    thumbnail: bytes | None
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Section:
    """A heading and what stands beneath it: paragraphs (parted by empty lines), pictures, tables, mistakes, in this order."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    mistakes: Sequence[Mistake] = ()


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        title: as "Ants and bees".
        summary: one sentence.
        facts: what it is, name to value: model, features, backbone, data set, seed, version, date.
        headline: the verdict in one line.
        numbers: the most important ones, with their intervals.
        notes: what a reader of the numbers must know, one sentence each.
        sections: the rest.
    """

    title: str
    summary: str
    facts: Mapping[str, str]
    headline: str
    sections: Sequence[Section] = ()
    numbers: Sequence[Number] = ()
    notes: Sequence[str] = ()


# What a report says


def headline_of(report: Report) -> str:
    """The verdict in one line."""
    name, value = report.headline
    shown = _quantity if isinstance(report, RegressionReport) else _number
    interval = None if isinstance(report, MultiLabelReport) else report.interval
    sure = "" if interval is None else " (95 % interval {} to {})".format(*map(shown, interval))
    return f"{name} {shown(value)}{sure} on {report.n} images of split {report.split}"


def numbers_of(report: Report) -> tuple[Number, ...]:
    """The numbers of a report for the top of a card."""
    if isinstance(report, RegressionReport):
        return _regression_numbers(report)
    if isinstance(report, MultiLabelReport):
        return _label_numbers(report)
    right = int(np.trace(report.confusion))
    several = f"mean of {int(np.isfinite(report.auroc).sum())} classes, each against the rest"
    against = several if len(report.classes) > 2 else f"{report.classes[-1]} against {report.classes[0]}"
    selective = report.selective_interval
    return (
        _share("accuracy", report.accuracy, report.interval, f"{right} of {report.n} images"),
        Number("balanced accuracy", _number(report.balanced_accuracy), "mean recall of the classes"),
        Number("macro F1", _number(report.macro_f1), "mean F1 of the classes"),
        *(() if report.top5 is None else (Number("top-5 accuracy", _number(report.top5)),)),
        Number("AUROC", _number(report.overall_auroc), against),
        Number("average precision", _number(report.overall_average_precision), against),
        Number("log loss", _number(report.log_loss), "nats"),
        Number("calibration error", _number(report.ece), f"mean confidence {_number(report.mean_confidence)}"),
        *(() if selective is None else (_selective(report, selective),)),
    )


def sections_of(report: Report) -> tuple[Section, ...]:
    """Figures and tables of a report; none for a regression, whose figure is one of targets and predictions."""
    if isinstance(report, RegressionReport):
        return ()
    calibration = Picture(
        as_svg(reliability_figure(report)),
        f"Reliability diagram; expected calibration error {_number(report.ece)}",
        "Where the line is below the diagonal, the head is more confident than it is right. "
        "Beneath, how many predictions there are of each confidence.",
    )
    many = isinstance(report, MultiLabelReport)
    bars = Picture(
        as_svg(per_class_figure(report)),
        f"Recall and precision of {'each label' if many else 'each class'}; the table has the same numbers",
        f"Worst first; at most {MOST_BARS}. Grey: images of split {report.split}.",
    )
    return (
        Section("Labels" if many else "Classes", pictures=(bars,), tables=(_per_class(report),)),
        *(() if isinstance(report, MultiLabelReport) else (_confusion(report),)),
        Section("Calibration", pictures=(calibration,)),
    )


def _selective(report: ClassificationReport, interval: tuple[float, float]) -> Number:
    of = f"{report.accepted_right} of the {report.accepted} of probability at least {report.reject_below:.4g}"
    return _share("accuracy of the accepted", report.selective_accuracy or 0.0, interval, of)


def _label_numbers(report: MultiLabelReport) -> tuple[Number, ...]:
    labels = int(np.isfinite(report.average_precision).sum())
    of = f"{report.exact} of {report.n} images"
    return (
        Number("mAP", _number(report.mean_average_precision), f"mean average precision of {labels} labels"),
        Number("micro F1", _number(report.micro_f1), "of all decisions"),
        Number("macro F1", _number(report.macro_f1), "mean F1 of the labels"),
        _share("exact match", report.exact_match, report.exact_match_interval, of),
        Number("Hamming loss", _number(report.hamming_loss), "share of decisions that are wrong"),
        Number("AUROC", _number(report.macro_auroc), "mean of the labels"),
        Number("log loss", _number(report.log_loss), "nats, of each label"),
        Number("calibration error", _number(report.ece)),
    )


def _regression_numbers(report: RegressionReport) -> tuple[Number, ...]:
    sure = "" if report.interval is None else "95 % interval {} to {}".format(*map(_quantity, report.interval))
    return (
        Number("RMSE", _quantity(report.rmse), sure),
        Number("MAE", _quantity(report.mae), "mean absolute error"),
        Number("R2", "none" if report.r2 is None else _number(report.r2), "share of the variance that is explained"),
        Number("RMSE of the mean", _quantity(report.baseline_rmse), "what always predicting the mean would give"),
    )


def _share(name: str, value: float, interval: tuple[float, float], of: str) -> Number:
    low, high = interval
    return Number(name, _number(value), f"95 % interval {_number(low)} to {_number(high)}; {of}", interval)


def _confusion(report: ClassificationReport) -> Section:
    """The matrix, and its largest cells off the diagonal in words."""
    wrong = report.confusion - np.diag(np.diag(report.confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [(int(true), int(found)) for true, found in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    rows = [
        (
            report.classes[true],
            report.classes[found],
            str(wrong[true, found]),
            _number(wrong[true, found] / report.support[true]),
        )
        for true, found in pairs
        if wrong[true, found]
    ]
    figure = confusion_figure(report)
    data = as_svg(figure) if len(report.classes) <= _MOST_CLASSES_IN_SVG else as_png(figure)
    picture = Picture(
        data, f"Confusion matrix of {len(report.classes)} classes, {len(report.classes)} by {len(report.classes)}"
    )
    table = Table(("true", "predicted", "images", "share of the true class"), rows, "The most frequent confusions")
    return Section("Confusions", pictures=(picture,), tables=(table,) if rows else ())


def _per_class(report: ClassificationReport | MultiLabelReport) -> Table:
    columns = {
        **({"threshold": report.thresholds} if isinstance(report, MultiLabelReport) else {}),
        "precision": report.precision,
        "recall": report.recall,
        "F1": report.f1,
        "AUROC": report.auroc,
        "average precision": report.average_precision,
    }
    rows = [
        (name, *(_number(values[row]) for values in columns.values()), str(report.support[row]))
        for row, name in enumerate(report.classes)
    ]
    name = "label" if isinstance(report, MultiLabelReport) else "class"
    return Table((name, *columns, "images"), rows, f"Every {name}")


def _number(value: float) -> str:
    """Four decimals; "none" of what is undefined."""
    return "none" if math.isnan(value) else f"{value:.4f}"


def _quantity(value: float) -> str:
    """Six digits, of a number in the target's own unit."""
    return f"{value:.6g}"


# The page


def write_card(path: str | os.PathLike[str], card: Card) -> Path:
    """Write a card, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    atomic.write_whole(path, page(card).encode())
    return path


def page(card: Card) -> str:
    """The card's HTML."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{_text(card.title)}</title>",
            '<link rel="icon" href="data:,">',  # else a browser may go and look for one
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *_top(card),
            "<main>",
            *_facts(card.facts),
            *(line for section in card.sections for line in _section(section)),
            "</main>",
            f"<footer><p>{_FOOTER}</p></footer>",
            "</body>",
            "</html>",
            "",
        ]
    )


# Its parts, each as lines of HTML


def _top(card: Card) -> Iterator[str]:
    yield f'<header><p class="kind">Model card</p><h1>{_text(card.title)}</h1>'
    yield f'<p class="summary">{_text(card.summary)}</p><p class="headline">{_text(card.headline)}</p>'
    if card.numbers:
        yield '<dl class="numbers">'
        for number in card.numbers:
            detail = f"<small>{_text(number.detail)}</small>" if number.detail else ""
            value = f"<b>{_text(number.value)}</b>{_bar(number.interval)}{detail}"
            yield f"<div><dt>{_text(number.name)}</dt><dd>{value}</dd></div>"
        yield "</dl>"
    if card.notes:
        notes = "".join(f"<li>{_text(note)}</li>" for note in card.notes)
        yield f'<aside aria-label="Notes"><p>To know when reading the numbers</p><ul>{notes}</ul></aside>'
    yield "</header>"


def _bar(interval: tuple[float, float] | None) -> str:
    """A line from 0 to 1 with the interval on it; it says nothing that the text beside it does not."""
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    low, high = (100 * min(max(bound, 0.0), 1.0) for bound in interval)
    return (
        '<span class="bar" aria-hidden="true">'
        f'<i style="margin-left:{low:.2f}%;width:{max(high - low, 0):.2f}%"></i></span>'
    )


def _facts(facts: Mapping[str, str]) -> Iterator[str]:
    if facts:
        yield '<section><h2>What it is</h2><dl class="facts">'
        yield from (f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
        yield "</dl></section>"


def _section(section: Section) -> Iterator[str]:
    yield f"<section><h2>{_text(section.title)}</h2>"
    yield from (f"<p>{_text(' '.join(part.split()))}</p>" for part in section.text.split("\n\n") if part.strip())
    yield '<div class="beside">'
    yield from map(_picture, section.pictures)
    for table in section.tables:
        yield from _table(table)
    yield "</div>"
    if section.mistakes:
        yield from _gallery(section.mistakes)
    yield "</section>"


def _picture(picture: Picture) -> str:
    alt, size = _text(picture.alt), _size(picture.data)
    # A picture that was made to be wide is not squeezed into a telephone: one pushes it to and fro.
    wide = " wide" if size and size[0] > 700 else ""
    lengths = f' width="{size[0]}" height="{size[1]}"' if size else ""
    image = f'<img class="sheet{wide}" src="{_data_uri(picture.data)}" alt="{alt}"{lengths}>'
    caption = f"<figcaption>{_text(picture.caption)}</figcaption>" if picture.caption else ""
    return f'<figure><div class="scroll" tabindex="0" role="group" aria-label="{alt}">{image}</div>{caption}</figure>'


def _table(table: Table) -> Iterator[str]:
    """A table in which a column of numbers alone is set to the right."""
    right = [all(_is_number(row[i]) for row in table.rows if i < len(row)) and i > 0 for i in range(len(table.header))]
    style = [' class="n"' if column else "" for column in right]
    folded = len(table.rows) > _MOST_ROWS
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption and not folded else ""
    if folded:
        yield f"<details><summary>{_text(table.caption or 'Table')} ({len(table.rows)} rows)</summary>"
    header = "".join(f'<th scope="col"{c}>{_text(name)}</th>' for name, c in zip(table.header, style, strict=True))
    yield f'<div class="scroll table"><table>{caption}<thead><tr>{header}</tr></thead><tbody>'
    for first, *others in table.rows:
        cells = "".join(f"<td{c}>{_text(cell)}</td>" for cell, c in zip(others, style[1:], strict=True))
        yield f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"
    if folded:
        yield "</details>"


def _gallery(mistakes: Sequence[Mistake]) -> Iterator[str]:
    if len(mistakes) > MOST_MISTAKES:
        yield f"<p>The first {MOST_MISTAKES} of {len(mistakes)}.</p>"
    yield '<ul class="gallery">'
    for mistake in mistakes[:MOST_MISTAKES]:
        name = _text(Path(mistake.path).name)
        if mistake.thumbnail is None or _media_type(mistake.thumbnail) is None:
            image = '<div class="gone">the image is missing or cannot be read</div>'
        else:
            alt = f"{name}: {_text(mistake.true)}, predicted {_text(mistake.predicted)}"
            image = f'<img src="{_data_uri(mistake.thumbnail)}" alt="{alt}">'
        yield (
            f"<li>{image}<p><b>{_text(mistake.true)}</b> taken for <b>{_text(mistake.predicted)}</b>, "
            f'{_number(mistake.probability)}</p><p class="path" title="{_text(mistake.path)}">{name}</p></li>'
        )
    yield "</ul>"


# Text and data


def _text(text: str) -> str:
    """Any text as it may stand in HTML, in attributes too: no markup, no control characters, nothing that is no UTF-8."""
    return html.escape(printable(text))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+\N{MINUS SIGN}±\d.,e% ]*|nan|inf|none", cell.strip()) is not None


def _media_type(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def _data_uri(data: str | bytes) -> str:
    """A picture as an address that holds it. As an image, not as markup, an SVG can neither run nor load anything."""
    kind = "image/svg+xml" if isinstance(data, str) else _media_type(data) or "image/png"
    raw = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def _size(data: str | bytes) -> tuple[int, int] | None:
    """(width, height) in pixels of an SVG whose unit is the point, or of a PNG; None where that is not seen."""
    if isinstance(data, bytes):
        return struct.unpack(">II", data[16:24]) if _media_type(data) == "image/png" and len(data) >= 24 else None
    found = re.match(r'<svg [^>]*?\bviewBox="0 0 ([\d.]+) ([\d.]+)"', data)
    return (round(float(found[1]) * 4 / 3), round(float(found[2]) * 4 / 3)) if found else None


_STYLE = """
:root {
  --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --paper: #fff; --tint: #f5f7fa; --accent: #0b62a8;
  --warn: #fff8e6; --edge: #e0b44c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ed; --soft: #9aa4af; --line: #343b44; --paper: #15181c; --tint: #1d2228; --accent: #6cb4ee;
    --warn: #2a2415; --edge: #8a6d24;
  }
}
* { box-sizing: border-box }
html { color-scheme: light dark; -webkit-text-size-adjust: 100% }
body {
  margin: 0 auto; max-width: 64rem; padding: 2.5rem 1.25rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 2.1rem; line-height: 1.15; margin: 0 0 .5rem; letter-spacing: -.01em }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line) }
p { margin: .5rem 0; max-width: 44rem }
.kind {
  margin: 0 0 .4rem; color: var(--accent); font-weight: 600; font-size: .8rem; letter-spacing: .09em;
  text-transform: uppercase;
}
.summary { color: var(--soft); font-size: 1.1rem }
.headline {
  font-size: 1.35rem; line-height: 1.35; margin: 1.25rem 0; padding-left: .9rem; max-width: 52rem;
  border-left: 4px solid var(--accent); text-wrap: balance; font-variant-numeric: tabular-nums;
}
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .75rem; margin: 1.25rem 0 }
.numbers > div { background: var(--tint); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem }
.numbers dt { color: var(--soft); font-size: .85rem }
.numbers dd { margin: 0 }
.numbers b { display: block; font-size: 1.75rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums }
.numbers small { display: block; color: var(--soft); font-size: .8rem; font-variant-numeric: tabular-nums }
.bar { display: block; height: 5px; border-radius: 3px; background: var(--line); margin: .35rem 0 .4rem; overflow: hidden }
.bar i { display: block; height: 5px; min-width: 2px; border-radius: 3px; background: var(--accent) }
aside {
  background: var(--warn); border: 1px solid var(--edge); border-radius: .5rem; padding: .7rem 1rem; margin: 1.25rem 0;
}
aside p { font-weight: 600; margin: 0 }
aside ul { margin: .3rem 0 0; padding-left: 1.2rem }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: 0 2rem; margin: 0 }
.facts > div {
  display: grid; grid-template-columns: 8.5rem 1fr; gap: .75rem; padding: .4rem 0; border-bottom: 1px solid var(--line);
}
.facts dt { color: var(--soft) }
.facts dd { margin: 0 }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start }
.beside > * { min-width: 0; max-width: 100% }
figure { margin: 1rem 0 }
figure figcaption { width: 0; min-width: 100% }
.table { margin: .6rem 0 }
.scroll { overflow-x: auto }
.sheet {
  display: block; max-width: 100%; height: auto; background: #fff; padding: .6rem; border: 1px solid var(--line);
  border-radius: .5rem;
}
figcaption { color: var(--soft); font-size: .9rem; margin-top: .45rem; max-width: 44rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; overflow-wrap: normal }
caption, summary { text-align: left; color: var(--soft); padding: .35rem 0 }
summary { cursor: pointer; color: var(--accent) }
th, td { text-align: left; padding: .32rem 1.2rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap }
tbody th { font-weight: 400 }
tbody th, td { overflow-wrap: anywhere; min-width: 5rem; max-width: 20rem }
th.n, td.n { text-align: right; white-space: nowrap; min-width: 0 }
.gallery {
  list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: 1.1rem .9rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr));
}
.gallery img, .gone {
  display: flex; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--tint);
  border: 1px solid var(--line); border-radius: .4rem;
}
.gone {
  align-items: center; justify-content: center; text-align: center; padding: .6rem; color: var(--soft);
  font-size: .85rem; border-style: dashed;
}
.gallery p { margin: .35rem 0 0; font-size: .88rem; line-height: 1.35; font-variant-numeric: tabular-nums }
.gallery .path { color: var(--soft); font-size: .78rem; margin-top: .1rem }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem }
@media (max-width: 36rem) {
  body { padding-top: 1.5rem }
  h1 { font-size: 1.7rem }
  .headline { font-size: 1.15rem }
  .numbers { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)) }
  .numbers b { font-size: 1.45rem }
  .facts { grid-template-columns: 1fr }
  .facts > div { grid-template-columns: 7rem 1fr }
  .gallery { grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)) }
  .wide { max-width: none; width: 44rem }
  th, td { padding-right: .8rem }
}
@media print {
  :root { --ink: #000; --soft: #444; --line: #ccc; --paper: #fff; --tint: #fff; --accent: #0b62a8; --warn: #fff }
  body { max-width: none; padding: 0; font-size: 10pt }
  figure, .gallery li, .numbers > div, tr { break-inside: avoid }
  h2 { break-after: avoid }
  .scroll { overflow: visible }
  .beside { display: block }
  details:not([open]) { display: none }
}
"""
