"""What all figures share: style, fonts, text, axes, and their files. With its siblings the only place for matplotlib.

Every figure is created as a ``Figure``, never through pyplot, so that no global state is kept or shown and the user's
``matplotlibrc`` has no effect. Class names may be any text. The colours are those of Okabe and Ito (2008), which readers with
colour blindness can tell apart.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from featx.io.outputs import OutputKind, picture_metadata, write_output

BLUE, ORANGE, PALE, GREY = "#0072B2", "#D55E00", "#9CC9E3", "#6E6E6E"
_GRID = "#E4E4E4"

WIDTH = 5.6
"""Inches, of most figures: the text stays readable when a phone shrinks the figure to two thirds."""

_FONT = "DejaVu Sans"  # matplotlib brings it along
_FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "Yu Gothic", "Meiryo",
    "MS Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "IPAexGothic",
    "TakaoGothic", "NanumGothic", "Arial Unicode MS", "Noto Sans Thai", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Arabic", "Noto Sans Hebrew", "FreeSans",
)  # fmt: skip
_MOST_SUBJECT = 200  # characters
_STYLE = {
    **mpl.rcParamsDefault,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # browsers have glyphs for every script, matplotlib's own font does not
    "svg.hashsalt": "featx",  # the same figure gives the same bytes
}
_STYLE = {key: value for key, value in _STYLE.items() if not key.startswith(("backend", "interactive", "toolbar"))}


# Files


def as_svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element, without a date or external references; equal figures give equal text."""
    file = io.StringIO()
    _save(figure, file, format="svg", dpi=144, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    return text[text.index("<svg") :]


def as_png(figure: Figure, *, dpi: int = 144) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    _save(figure, file, format="png", dpi=dpi)
    return file.getvalue()


def save_png(figure: Figure, path: Path, kind: OutputKind, *, dpi: int = 144) -> None:
    """Write a figure as a PNG file that names its kind, in the place of an older one of that kind.

    Raises:
        OutputError: the file cannot be written, or there is another file at the path.
    """
    file = io.BytesIO()
    _save(figure, file, format="png", dpi=dpi, metadata=picture_metadata(kind.noun))
    write_output(path, file.getvalue(), kind)


def _save(figure: Figure, file: Any, **options: Any) -> None:
    with style(), warnings.catch_warnings():
        # A character that no installed font has is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(file, **options)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw and save in featx's style inside this context."""
    with mpl.rc_context({**_STYLE, "font.family": _families()}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def horizontal_grid(axes: Axes) -> None:
    """Draw a faint line at each tick of the vertical axis."""
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with ticks such as 0.001 and 1e+05: browsers render plain text better than mathtext."""
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def ticks(axes: Axes, values: np.ndarray) -> None:
    """Set ticks of a logarithmic axis at these values; those less than a tenth of the axis apart are dropped."""
    ordered = np.unique(values)
    least = (math.log(ordered[-1]) - math.log(ordered[0])) / 10
    ticks = [ordered[0]]
    for value in ordered[1:]:
        if math.log(value) - math.log(ticks[-1]) >= least:
            ticks.append(value)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}" if value < 100 else f"{value:,.0f}"))


# Text


def set_subject(figure: Figure, subject: str) -> None:
    """Write above a figure what it is about, such as its data set and head, in as many lines as its width needs."""
    if subject:
        lines = textwrap.wrap(label(subject, _MOST_SUBJECT), int(11 * figure.get_figwidth())) or [""]
        figure.suptitle("\n".join(lines), fontsize=10, fontweight="bold")


def label(text: str, most: int = 24) -> str:
    """Text as a label of a figure: one line, at most ``most`` columns wide, without mathtext.

    Chinese, Japanese and Korean characters and emoji are two columns wide. matplotlib reserves less space for those that its
    fonts lack, so each adds spaces on the left, which keeps right-aligned labels inside the figure.

    Examples:
        >>> label("golden retriever, long-haired")
        'golden retriever, long-…'
    """
    shown, used, lacking = "", 0, 0
    for character in text:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used + columns > most - 1 and len(shown) + 1 < len(text):
            shown += "…"
            break
        shown += character if character.isprintable() else "?"
        used += columns
        lacking += columns == 2 and ord(character) not in _characters()
    return "\N{NO-BREAK SPACE}" * (2 * lacking) + shown.replace("$", r"\$")


def missing_characters(texts: Iterable[str]) -> str:
    """The characters of some texts that no font of the figures has, so that pictures show boxes in their place.

    Examples:
        >>> missing_characters(["cat", "Käfer"])
        ''
    """
    return "".join(sorted({c for text in texts for c in text if c.isprintable() and ord(c) not in _characters()}))


@functools.cache
def _families() -> list[str]:
    """The fonts of figures: matplotlib's own, then those of other scripts that are installed here."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [_FONT, *(name for name in _FALLBACKS if name in installed)]


@functools.cache
def _characters() -> frozenset[int]:
    """The code points that the fonts of figures have."""
    paths = [font_manager.findfont(font_manager.FontProperties(family=[name])) for name in _families()]
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))
