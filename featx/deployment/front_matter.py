"""The YAML at the beginning of a model card, as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\xa0"\\\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]')
_KEY = re.compile(r"(?!(?i:y|n|yes|no|on|off|true|false|null)$)[A-Za-z][\w-]*", re.ASCII)
"""Keys that need no quotes: YAML 1.1 reads the words that are left out as truth values, or as none."""


def front_matter(fields: Mapping[str, Any]) -> str:
    r"""Fields as YAML between two lines of dashes. Every text is quoted, so that ``no``, ``1e3`` and ``---`` stay texts.

    Args:
        fields: texts, numbers, truth values, lists and mappings of these. None, and empty lists and mappings, are left out.

    Examples:
        >>> print(front_matter({"tags": ["no", 'a "b"\n'], "value": 0.5, "license": None}), end="")
        ---
        tags:
        - "no"
        - "a \"b\"\n"
        value: 0.5
        ---
    """
    return "\n".join(["---", *_mapping(fields), "---", ""])


def quoted(text: str) -> str:
    r"""A text as a double-quoted scalar of YAML; half of a surrogate pair becomes U+FFFD.

    Examples:
        >>> quoted("tab\t")
        '"tab\\t"'
    """
    return f'"{_UNSAFE.sub(_escaped, text)}"'


def _escaped(found: re.Match[str]) -> str:
    letter = found[0]
    if letter in _SHORT:
        return _SHORT[letter]
    return "\\uFFFD" if "\ud800" <= letter <= "\udfff" else f"\\u{ord(letter):04X}"


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _mapping(fields: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in fields.items():
        if value is None or (isinstance(value, Sequence | Mapping) and not value):
            continue
        key = name if _KEY.fullmatch(name) else quoted(name)
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {line}" for line in _mapping(value))]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            lines += [f"{key}:", *(line for each in value for line in _item(each))]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return lines


def _item(value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"- {_scalar(value)}"]
    first, *rest = _mapping(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    number = repr(value)
    return number if "." in number or "e" not in number else number.replace("e", ".0e")  # 1e-07 would be a text
