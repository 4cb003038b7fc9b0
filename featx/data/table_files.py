"""Open a table of any format: text with separators, JSON, JSON Lines, Parquet or Arrow, as columns of raw cells.

What the columns mean is left to ``table_roles``, and what their cells mean to ``table_rows``.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from featx.data.arrow_table import ARROW_ENDINGS, ArrowTable
from featx.data.json_table import read_json
from featx.data.places import is_remote, local_path
from featx.data.table_base import Fits, TableFile, reading
from featx.data.text_table import TextTable, checked_separator
from featx.errors import DatasetError
from featx.io.file_kinds import POINTER, kind_of_file

_JSON = (".json", ".jsonl", ".ndjson")
_ARROW = (".parquet", *ARROW_ENDINGS)


def open_table(
    table: str | os.PathLike[str],
    *,
    separator: str | None = None,
    numbered: int = 0,
    fits: Fits = lambda _: False,
    asked: Collection[str] = (),
) -> TableFile:
    """Open a table.

    Args:
        table: a local path, or a URL.
        separator: of a text table; None: found in its header.
        numbered: if a text table has no header, the number of the last column that is asked for; 0 if it has one.
        fits: whether names are those of a table, which decides between separators, and between forms of JSON.
        asked: names of columns that the options name: with dots, they may mean values in objects.

    Raises:
        DatasetError: it cannot be read, or is malformed.
    """
    where = str(table)
    suffix = Path(where).suffix.lower()
    is_text = suffix not in (*_JSON, *_ARROW)
    if separator is not None and not is_text:
        raise DatasetError(f"--separator has no effect on {where}, whose cells have no separator")
    if numbered and not is_text:
        raise DatasetError(f"{where}: columns have numbers in text tables alone; expected the name of a column")
    if not is_remote(where) and kind_of_file(local_path(where)) == POINTER:
        raise DatasetError(f"{where} is {POINTER}; expected a table")
    with reading(where):
        if suffix in _ARROW:
            return ArrowTable(where, asked)
        if not is_text:
            return read_json(where, fits, asked)
        return TextTable(where, None if separator is None else checked_separator(separator), numbered, fits)
