"""How the user describes data whose layout does not tell everything: the columns of tables, classes in names, groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScanOptions:
    """The options of ``scan_images`` besides the data themselves. None or () leaves an option to the data.

    Attributes:
        path_column: the column of a table with the paths of the images.
        label_column: the column with their labels.
        split_column: the column with their splits.
        label_columns: columns of 0 and 1, one for each label, instead of a column of labels (one-hot or multi-hot).
        label_separator: what stands between the labels of an image in one cell; ``|`` always does.
        image_column: the column of a Parquet file or a Hugging Face data set with the images.
        root: what the paths of a table are relative to, instead of the table's folder: a folder, an archive or a URL.
        separator: the character between the cells of a text table.
        label_pattern: a regular expression with the group ``label``; the part of an image's file name that it matches is the
            class.
        group_level: the folder, counted from 1 below the data set, whose name is an image's group; negative numbers count from
            the image upwards.
    """

    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    label_columns: tuple[str, ...] = ()
    label_separator: str | None = None
    image_column: str | None = None
    root: str | None = None
    separator: str | None = None
    label_pattern: str | None = None
    group_level: int | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ScanOptions:
        """The inverse of ``as_dict``; unknown fields are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k in known}
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The options that are set, as JSON-compatible values; a feature file stores them, to read the table again."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v not in (None, ())}


NO_OPTIONS = ScanOptions()
"""Everything is left to the data."""
