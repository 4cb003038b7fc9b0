"""Text for people: lists, sizes, and foreign text made safe to print. Standard library only."""

from __future__ import annotations

import difflib
import operator
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from featx.confidential import without_secrets


def listed(items: Sequence[object], most: int = 10) -> str:
    """Join the first items of a list for a message, and count the rest.

    Examples:
        >>> listed(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in items[:most]) + more


def counted(count: SupportsIndex, one: str, several: str = "") -> str:
    """A number with its noun, in the singular for 1.

    Examples:
        >>> counted(1, "image"), counted(2_000, "image"), counted(1, "class", "classes")
        ('1 image', '2,000 images', '1 class')
    """
    return f"{operator.index(count):,} {form(count, one, several or one + 's')}"


def form(count: float | SupportsIndex, one: str, several: str) -> str:
    """The word that agrees with a number: the first for 1.

    Examples:
        >>> f"1 of 5 images {form(1, 'was', 'were')} read", f"2 of 5 images {form(2, 'was', 'were')} read"
        ('1 of 5 images was read', '2 of 5 images were read')
    """
    return one if count == 1 else several


def noted(sentence: str) -> str:
    """A note as it is printed, without what grants access in its URLs: a warning keeps the word that it begins with.

    Examples:
        >>> noted("two files are not there"), noted("Warning: most files are not there")
        ('Note: two files are not there', 'Warning: most files are not there')
    """
    return shown(sentence if sentence.startswith("Warning: ") else f"Note: {sentence}")


def as_sentence(text: str) -> str:
    """A remark with a capital at its beginning and a full stop at its end; a name of digits or signs at its beginning stays.

    Examples:
        >>> as_sentence("two files are not there"), as_sentence("mobilenet_v1_075 adds something")
        ('Two files are not there.', 'mobilenet_v1_075 adds something.')
    """
    word = text.partition(" ")[0].rstrip(",:;")
    return f"{text[:1].upper() if word.isalpha() else text[:1]}{text[1:].rstrip('.')}."


def did_you_mean(name: str, known: Iterable[str], most: int = 4) -> str:
    """The end of a message about an unknown name: the known names that are most like it, or nothing.

    Names that begin with the unknown one come first, then names that contain it, then those that are spelled alike.

    Examples:
        >>> did_you_mean("ViT", ["resnet18", "vit_b_16", "vit_l_16"])
        '; did you mean vit_b_16 or vit_l_16?'
        >>> did_you_mean("layre3", ["layer2", "layer3"])
        '; did you mean layer3 or layer2?'
        >>> did_you_mean("xyz", ["resnet18"])
        ''
    """
    lower, wanted = {each.lower(): each for each in known}, name.lower()
    simple = {_letters(low): each for low, each in lower.items()}
    found = [simple[_letters(wanted)]] if _letters(wanted) in simple else []
    if not found and wanted:
        begin = sorted((each for low, each in lower.items() if low.startswith(wanted)), key=len)
        inside = sorted((each for low, each in lower.items() if len(wanted) > 2 and wanted in low), key=len)
        near, far = (difflib.get_close_matches(wanted, lower, n=most, cutoff=cutoff) for cutoff in (0.6, 0.4))
        found = list(dict.fromkeys([*begin, *(lower[low] for low in near), *inside, *(lower[low] for low in far)]))[
            :most
        ]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name)


def described(value: Any, most: int = 60) -> str:
    """What a value is, for a message about an argument of a wrong type: its type, and its shape or itself where that is short.

    Examples:
        >>> described(3), described(["a.h5"]), described(None)
        ('an int, 3', "a list, ['a.h5']", 'None')
    """
    if value is None:
        return "None"
    kind = type(value).__name__
    named = f"{'an' if re.match('[aeiou]|nd', kind, re.IGNORECASE) else 'a'} {kind}"
    if isinstance(shape := getattr(value, "shape", None), tuple):
        return f"{named} of shape {shape} and dtype {getattr(value, 'dtype', '?')}"
    text = printable(repr(value))
    return f"{named}, {text}" if len(text) <= most else named


def shortened(value: object, most: int = 60) -> str:
    """The ``repr`` of a value for a message, cut after so many characters.

    Examples:
        >>> shortened("cat" * 9, most=6)
        "'catca..."
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def printable(text: str) -> str:
    r"""Escape whatever could upset a terminal or a table: control characters, surrogates and bidirectional marks.

    Examples:
        >>> printable("cat\x1b[2J")
        'cat\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: str) -> str:
    """Make a message ``printable``, and take what grants access out of the URLs in it.

    Examples:
        >>> shown("reading https://ann:pass@server/a.jpg")
        'reading https://server/a.jpg'
    """
    return printable(without_secrets(text))


def printable_lines(text: str) -> str:
    r"""Make each line of a text ``printable``, and keep the line breaks.

    Examples:
        >>> printable_lines("cat\x1b[2J\ndog")
        'cat\\x1b[2J\ndog'
    """
    return "\n".join(map(printable, text.split("\n")))


def columns_of(text: str) -> int:
    r"""The columns of a terminal that a text takes: two for each character of East Asian width, none for a combining one.

    Examples:
        >>> columns_of("bees"), columns_of("蜜蜂"), columns_of("e\u0301")
        (4, 4, 1)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are the full-width forms


def cell(text: str) -> str:
    """Make text safe for a cell of CSV: put an apostrophe before what a spreadsheet would run as a formula (OWASP).

    Examples:
        >>> cell("=1+1")
        "'=1+1"
    """
    is_formula = text.lstrip()[:1] in _FORMULA or text[:1] in _FORMULA
    return ("'" if is_formula else "") + printable(text)


def size_text(count: int) -> str:
    """Format a number of bytes with its unit.

    Examples:
        >>> size_text(8_200_000_000)
        '8.2 GB'
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def duration_text(seconds: float) -> str:
    """Format a duration, rounded.

    Examples:
        >>> duration_text(42.4), duration_text(300), duration_text(5400)
        ('42 s', '5 min', '1.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def brief(error: Exception, most: int = 200) -> str:
    """Cut the message of a foreign exception, which may run to pages, to one line, or two after a colon, without advice."""
    lines = [line.strip() for line in (str(error).strip() or type(error).__name__).splitlines() if line.strip()]
    line = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).partition("; use sys.set_int_max_str_digits")[0]
    return line if len(line) <= most else line[: most - 3] + "..."


def from_utf8(data: bytes) -> str:
    r"""Decode UTF-8; bytes that are not UTF-8 become surrogate escapes. Unlike ``os.fsdecode``, the same in every locale.

    Examples:
        >>> from_utf8(b"caf\xc3\xa9"), from_utf8(b"caf\xe9")
        ('café', 'caf\udce9')
    """
    return data.decode("utf-8", "surrogateescape")


def to_utf8(text: str) -> bytes:
    r"""Encode as UTF-8; surrogate escapes become their bytes again. Unlike ``os.fsencode``, the same in every locale.

    Examples:
        >>> to_utf8("caf\udce9")
        b'caf\xe9'
    """
    return text.encode("utf-8", "surrogateescape")


def portable(name: str) -> str:
    """The text of a name from the file system that a file stores: its bytes as UTF-8, in whatever locale it was listed."""
    return from_utf8(os.fsencode(name))


def native(text: str) -> str:
    """The name for calls of the system, in the present locale, of a text that ``portable`` gave."""
    return os.fsdecode(to_utf8(text))
