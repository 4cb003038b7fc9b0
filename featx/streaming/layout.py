"""The table that predictions are written to: one row for each image, as CSV, JSON Lines or Parquet.

B is a number of images, C of classes or labels.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.cells import BETWEEN_LABELS
from featx.data.columns import beside
from featx.data.file_bytes import NO_KEY
from featx.heads.conformal import Conformal
from featx.heads.prediction import INTERVAL_COLUMNS, SET_COLUMN
from featx.io.tables import CSV, LINES, PARQUET, csv_cell, table_kind, write_blocks
from featx.text import cell, to_utf8

FIRST_COLUMNS = ("path", "prediction", "probability")
"""The columns of every such table."""

PREDICTIONS = table_kind("table of predictions", FIRST_COLUMNS, more=("",), option="-o", lines=True)
"""That table, as an output."""

_LINES_AT_ONCE = 20_000
"""Rows that are put into a Parquet file at once."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some images and what a model computed for them.

    Attributes:
        names: B names of images.
        keys: B content hashes; ``NO_KEY`` of an image that could not be read.
        outputs: (B, C) float64, as ``Head.predict_values`` gives them; NaN where there are none.
        errors: why an image has no prediction, "" where it has one.
        known: B, whether its features were known.
        cells: B tuples of the cells of the further columns.
        marks: B, by which images count as the same in a later run.
    """

    names: Sequence[str]
    keys: Sequence[bytes]
    outputs: np.ndarray
    errors: Sequence[str]
    known: Sequence[bool]
    cells: Sequence[Sequence[str]]
    marks: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Scorer:
    """What the table needs to know about a head or a model.

    Attributes:
        task: one of ``TASKS``.
        classes: C names.
        decide: turns (C,) outputs into a class name or None, a list of label names, or a number.
        conformal: what prediction sets or intervals follow from, or None.
    """

    task: str
    classes: Sequence[str]
    decide: Callable[[np.ndarray], Any]
    conformal: Conformal | None = None


@dataclass(frozen=True)
class Layout:
    """The columns of a table, and how rows become its text.

    Attributes:
        ending: ".csv", ".jsonl" or ".parquet"; the rows of a Parquet file are JSON Lines until all are there.
        scorer: what predicts.
        top: classes with their probabilities in each row, of a classification.
        probabilities: whether each class or label has a column of its own.
        further: names of further columns of the data.
    """

    ending: str
    scorer: Scorer
    top: int
    probabilities: bool
    further: Sequence[str]

    @property
    def own(self) -> list[str]:
        """The names of the columns of featx."""
        more = [name for n in range(2, self.top + 1) for name in (f"prediction_{n}", f"probability_{n}")]
        each = [f"p_{name}" for name in self.scorer.classes] if self.probabilities else []
        return [*FIRST_COLUMNS, *more, *self._of_sets, "error", "key", *each]

    @property
    def _of_sets(self) -> list[str]:
        """The names of the columns of the prediction set, or of the interval."""
        if self.scorer.conformal is None:
            return []
        return [*INTERVAL_COLUMNS] if self.scorer.task == "regression" else [SET_COLUMN]

    @property
    def names(self) -> list[str]:
        """The names of all columns; a further one whose name is taken gets a ``_`` at its end."""
        own = self.own
        return [*own, *beside(dict.fromkeys(self.further), own)]

    @property
    def header(self) -> bytes:
        """What stands before the first row."""
        return _csv([[cell(name) for name in self.names]]) if self.ending == CSV else b""

    def text(self, block: Block) -> tuple[bytes, int]:
        """The rows of a block as text, and how many of its images are rejected."""
        rows, rejected = [], 0
        for at, name in enumerate(block.names):
            made, why = self._predicted(block.outputs[at]) if not block.errors[at] else (self._nothing(), "")
            rejected += bool(why)
            key = block.keys[at].hex() if block.keys[at] != NO_KEY else None
            each = block.outputs[at].tolist() if self.probabilities else []
            if block.errors[at]:
                each = [None] * len(each)
            further = [text or None for text in block.cells[at]]
            rows.append([name, *made, block.errors[at] or why or None, key, *each, *further])
        if self.ending == CSV:
            return _csv([[csv_cell(value) for value in row] for row in rows]), rejected
        names = self.names
        lines = [json.dumps(dict(zip(names, row, strict=True)), allow_nan=False) + "\n" for row in rows]
        return "".join(lines).encode(), rejected

    def _nothing(self) -> list[Any]:
        return [None] * (2 * max(1, self.top) + len(self._of_sets))

    def _predicted(self, outputs: np.ndarray) -> tuple[list[Any], str]:
        """The predictions and probabilities of an image in turn, and why it is rejected, or ""."""
        value, classes = self.scorer.decide(outputs), self.scorer.classes
        if self.scorer.task == "regression":
            ends = [] if self.scorer.conformal is None else self.scorer.conformal.intervals(outputs[None])[0].tolist()
            return [float(value), None, *ends], ""
        if self.scorer.task == "multilabel":
            has = np.array([name in value for name in classes], dtype=bool)
            least = float(np.where(has, outputs, 1 - outputs).min())
            return [BETWEEN_LABELS.join(name for name in classes if name in value) or BETWEEN_LABELS, least], ""
        order = np.argsort(-outputs, kind="stable")[: self.top].tolist()
        made = [part for place in order for part in (classes[place], float(outputs[place]))]
        if self.scorer.conformal is not None:
            made.append(BETWEEN_LABELS.join(classes[place] for place in self.scorer.conformal.members(outputs)))
        if value is not None:
            return made, ""
        why = f"rejected: the most probable class, {made[0]}, is not probable enough"
        return [None, *made[1:]], why

    def finish(self, rows: Path, path: Path) -> None:
        """Write the Parquet file of rows that are JSON Lines.

        Raises:
            OutputError: it cannot be written.
        """
        texts = {name for name in self.names if not self._is_number(name)}
        binary = _not_utf8(rows, texts)

        def column(name: str, values: list[Any]) -> list[Any]:
            return [None if value is None else to_utf8(value) for value in values] if name in binary else values

        shown = {name: to_utf8(name).decode("utf-8", "replace") for name in self.names}
        blocks = (
            {shown[name]: column(name, values) for name, values in block.items()} for block in _blocks(rows, self.names)
        )
        types = {shown[name]: _type(number=name not in texts, binary=name in binary) for name in self.names}
        write_blocks(path, blocks, PREDICTIONS, types)

    def _is_number(self, name: str) -> bool:
        if name == "prediction":
            return self.scorer.task == "regression"
        if name in self._of_sets:
            return name != SET_COLUMN
        return name in self.own and (name.startswith("p_") or name.partition("_")[0] == "probability")


def ending_of(path: Path) -> str:
    """The ending that decides on the format of a table: CSV where there is none."""
    ending = path.suffix.lower()
    return ending if ending in (LINES, PARQUET) else CSV


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _type(*, number: bool, binary: bool) -> Callable[[Any], Any]:
    return lambda arrow: arrow.float64() if number else arrow.binary() if binary else arrow.string()


def _blocks(rows: Path, names: Sequence[str]) -> Iterator[Mapping[str, list[Any]]]:
    """Read rows of JSON Lines some at a time, as columns."""
    block: dict[str, list[Any]] = {name: [] for name in names}
    count = 0
    with rows.open("rb") as file:
        for line in file:
            for name, value in json.loads(line).items():
                block[name].append(value)
            count += 1
            if count % _LINES_AT_ONCE == 0:
                yield block
                block = {name: [] for name in names}
    if block[names[0]] or not count:
        yield block


def _not_utf8(rows: Path, names: set[str]) -> set[str]:
    """The columns of text with bytes that are not UTF-8, which become binary."""
    found: set[str] = set()
    with rows.open("rb") as file:
        for line in file:
            if rb"\ud" not in line:  # neither a lone surrogate nor a character beyond 16 bits
                continue
            for name, value in json.loads(line).items():
                if name in names and isinstance(value, str) and value.encode("utf-8", "ignore").decode() != value:
                    found.add(name)
    return found
