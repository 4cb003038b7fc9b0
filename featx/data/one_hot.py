"""Columns of 0 and 1, one for each label, as the labels of images: one-hot and multi-hot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from featx.data.cells import BETWEEN_LABELS, cell_text
from featx.errors import DatasetError
from featx.text import listed, shortened

_YES, _NO = {"1", "true", "t", "yes"}, {"0", "false", "f", "no", ""}

Fault = Callable[[int, str, object], DatasetError]
"""Makes the error about a cell: of its row, its column, and what is wrong with it."""


def one_hot_labels(texts: Mapping[str, Sequence[str]], where: str, fault: Fault) -> tuple[list[str], list[str]]:
    """The labels of rows by columns of 0 and 1, which may be written as true and false, 1.0 or 1,0.

    -1 is 0 if none of the columns has a 0, as in CelebA.

    Args:
        texts: the N cells of each column, by its name, which is the label.
        where: the table, for messages.
        fault: makes the error about a cell.

    Returns:
        N labels with ``|`` between them; ``|`` for none of them, and "" where all cells are missing. And notes.

    Raises:
        DatasetError: a cell is something else.

    Examples:
        >>> one_hot_labels({"cat": ["1", "0", ""], "dog": ["1", "0", ""]}, "t.csv", lambda *_: DatasetError())
        (['cat|dog', '|', ''], [])
    """
    if odd := next((name for name in texts if BETWEEN_LABELS in name), None):
        raise DatasetError(
            f"{where}: the column {odd!r} has a {BETWEEN_LABELS} in its name, which stands between labels"
        )
    names, notes = [cell_text(name) for name in texts], []
    known = {re.sub(r"(?<=\d)[.,]0+$", "", text) for values in texts.values() for text in set(values)}
    no = "-1" if known <= {"-1", "1", ""} and "-1" in known else "0"
    if no == "-1":
        notes.append(f"-1 in --label-columns ({listed(list(texts), most=3)}) is read as 0, since none of them has a 0")
    has = [_flags(name, values, no, fault) for name, values in texts.items()]
    labels = []
    for flags in zip(*has, strict=True):
        found = [name for name, flag in zip(names, flags, strict=True) if flag]
        missing = all(flag is None for flag in flags)
        labels.append("" if missing else BETWEEN_LABELS.join(sorted(found)) or BETWEEN_LABELS)
    return labels, notes


def _flags(column: str, texts: Sequence[str], no: str, fault: Fault) -> list[bool | None]:
    """Whether each cell is 1, and not 0 or what stands for it; None where it is missing."""
    flags: dict[str, bool | None] = {}
    for row, text in enumerate(texts):
        if text in flags:
            continue
        plain = text.casefold()
        plain = plain.rstrip("0").rstrip(".,") if re.fullmatch(r"-?[01][.,]0+", plain) else plain
        plain = "0" if (text and not plain) or plain == no else plain
        if plain not in _YES | _NO:
            unsure = "; where -1 means unknown, replace it by 0 or 1" if plain == "-1" else ""
            what = f"holds {shortened(text)}; expected 0 or 1 in --label-columns{unsure}"
            raise fault(row, f"column {column!r}", what)
        flags[text] = None if not plain else plain in _YES
    return [flags[text] for text in texts]
