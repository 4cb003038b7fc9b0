"""What the formats of tables have in common: what an open table offers, its text, and errors that name it."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol, TextIO

from featx.data.places import is_remote, local_path, place
from featx.errors import DatasetError
from featx.io.file_kinds import TABLE, misplaced
from featx.text import brief

TABLE_ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")
"""The file endings of tables."""

EXPECTED = f"a table ({', '.join(TABLE_ENDINGS)})"

Fits = Callable[[Sequence[str]], bool]
"""Whether names are those of the columns of a table, by the options and the usual names."""

_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class TableFile(Protocol):
    """A table that is open for reading.

    Attributes:
        where: the file, for messages.
        names: the names of its columns, in their order; one that occurs twice is there twice.
        notes: sentences for the user about how it is read.
        unit: what a row is called in messages: "line" or "entry".
        numbered: whether it has no header, so that its columns have the names "1", "2" and so on.
    """

    where: str
    names: Sequence[str]
    notes: list[str]
    unit: str
    numbered: bool

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """Read some columns.

        Returns:
            The number of the line or entry of each row, and the cells of each column: text, or typed values of JSON and
            Parquet; None where there is no cell.

        Raises:
            DatasetError: the table is malformed, or one of the columns occurs twice.
        """
        ...

    def why_left_out(self, name: str) -> str:
        """Why a column cannot be read as one of text; "" if it can."""
        ...


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what reading a table raises into an error that names it."""
    try:
        yield
    except DatasetError:
        raise
    except UnicodeDecodeError as error:
        if not is_remote(where) and (found := misplaced(local_path(where), EXPECTED, fits=[TABLE])):
            raise DatasetError(found) from error
        raise DatasetError(f"{where} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except UnicodeError as error:
        raise DatasetError(f"{where} is not text in UTF-16, as its first bytes say: {brief(error)}") from error
    except csv.Error as error:
        hint = "; is a closing quote missing?" if "field limit" in str(error) or "end of data" in str(error) else ""
        raise DatasetError(f"{where} is not a well-formed table: {error}{hint}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {where}: {error.strerror or brief(error)}") from error


def refuse_twice(where: str, names: Sequence[str], wanted: Collection[str]) -> None:
    """Refuse two columns of the same name, of which only one could count."""
    for name in wanted:
        if (count := list(names).count(name)) > 1:
            raise DatasetError(f"{where}: there are {count} columns {name!r}; keep one of them")


@contextlib.contextmanager
def open_text(where: str) -> Iterator[TextIO]:
    """A table as text: UTF-8, or UTF-16 with a byte order mark, as spreadsheets export it."""
    with place(where).open() as raw:
        start = raw.read(4)
        raw.seek(0)
        encoding = next((name for mark, name in _BOMS if start.startswith(mark)), "utf-8")
        with io.TextIOWrapper(raw, encoding=encoding, newline="") as file:
            yield file


def why_twice(names: Sequence[str], name: str) -> str:
    """Why a column cannot be read whose name occurs twice; "" if it does not."""
    count = list(names).count(name)
    return f"there are {count} columns of this name" if count > 1 else ""
